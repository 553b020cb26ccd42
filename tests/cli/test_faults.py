"""Faults: killed and concurrent processes, signals, full disks, consoles, outputs that are no files, hostile names."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import handgrad
from handgrad.diagnostics import plots
from handgrad.model import Model

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals and pipes")
SMALL = ("--hidden", "12", "--batch-size", "50", "--lr", "0.5", "--validation", "0")
LEFTOVERS = ("*.part", ".lock")


def leftovers(directory: Path) -> list[Path]:
    return [path for pattern in LEFTOVERS for path in directory.rglob(pattern)]


# ---- Kill ------------------------------------------------------------------------------------------------------------


@posix
def test_a_run_killed_at_any_call_that_changes_files_gives_the_same_files(
    data: Path, tmp_path: Path, environment
) -> None:
    script = Path(__file__).with_name("kill_everywhere.py")
    done = subprocess.run(
        [sys.executable, script, data, tmp_path], env=environment(tmp_path, {}), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["different"] == []
    assert found["kills"] >= 30
    assert found["resumed"] >= 25
    assert found["restarted"] >= 2  # killed before there is a config.json
    assert found["temporary files"] >= 25  # they were there after the kill


@posix
def test_the_directory_of_a_run_that_was_killed_as_it_started_is_used(data: Path, tmp_path: Path, run) -> None:
    (tmp_path / "runs" / "post").mkdir(parents=True)
    (tmp_path / "runs" / "post" / ".lock").touch()
    (tmp_path / "runs" / "post" / ".config.json.12345-0123abcd.part").write_text("{")
    done = run("train", *SMALL, "--epochs", 1, "--data", data, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["post"]
    assert leftovers(tmp_path) == []


# ---- Two processes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def training(data: Path, tmp_path: Path, environment) -> Iterator[subprocess.Popen[str]]:
    """A process that trains in tmp_path/run, and has saved an epoch."""
    process = subprocess.Popen(
        [sys.executable, "-m", "handgrad", "train", *SMALL, "--epochs", "9999", "--data", data, "--out", "run"],
        cwd=tmp_path,
        env=environment(tmp_path, {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals,
    )
    end = time.monotonic() + 60
    while not (tmp_path / "run/checkpoint.safetensors").exists() and time.monotonic() < end:
        time.sleep(0.01)
    yield process
    process.kill()
    process.communicate()


def default_signals() -> None:
    """Undo what a shell does for background jobs, which ignore SIGINT."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@posix
def test_the_second_of_two_processes_is_told_and_sigterm_ends_the_first(
    training: subprocess.Popen[str], data: Path, tmp_path: Path, monkeypatch, invoke
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output, errors = invoke("train", "--resume", "run")
    assert (code, output) == (2, "")
    assert errors == "handgrad: run is in use by another process: wait until it ends, or choose another directory\n"
    code, output, errors = invoke("train", *SMALL, "--data", data, "--out", "run")
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert "run contains a run" in errors
    assert training.poll() is None
    training.send_signal(signal.SIGTERM)
    errors = training.communicate(timeout=60)[1]
    assert training.returncode == 128 + signal.SIGTERM
    assert errors.startswith("interrupted: ")
    assert errors.endswith("to continue, run handgrad train --resume run\n")
    assert leftovers(tmp_path) == []
    epochs = len(json.loads((tmp_path / "run/history.json").read_text())["loss"])
    done = invoke("train", "--resume", "run", "--epochs", epochs, "--quiet")
    assert done[0] == 0, done[2]


# ---- Signals ---------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_while_a_file_is_written_leaves_no_temporary_file(
    name: str, data: Path, tmp_path: Path, monkeypatch, invoke
) -> None:
    number, fsync, count = getattr(signal, name), os.fsync, 0

    def interrupted(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == 3:  # config.json, history.json, checkpoint.safetensors
            assert [path.name[:12] for path in tmp_path.rglob("*.part")] == [".checkpoint."]
            os.kill(os.getpid(), number)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", interrupted)
    monkeypatch.setattr(signal, "getsignal", signal.getsignal)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, _, errors = invoke("train", *SMALL, "--epochs", 2, "--data", data, "--out", tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 128 + number
    assert errors == (
        f"interrupted: 0 of 2 epochs saved; to continue, run handgrad train --resume {tmp_path / 'run'}\n"
    )
    assert leftovers(tmp_path) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # after the command


@pytest.mark.parametrize("where", ["evaluation", "report"])
def test_ctrl_c_after_the_training_says_that_the_model_is_saved(
    where: str, data: Path, tmp_path: Path, monkeypatch, invoke
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*((Model, "evaluate") if where == "evaluation" else (plots, "report")), interrupted)
        code, _, errors = invoke("train", *SMALL, "--epochs", 1, "--data", data, "--out", tmp_path / "run")
    model = tmp_path / "run" / "model.safetensors"
    assert code == 130
    assert errors == (
        f"interrupted: {model} is saved; for its result and report, run handgrad train --resume {tmp_path / 'run'}\n"
    )
    saved = model.read_bytes()
    code, output, _ = invoke("train", "--resume", tmp_path / "run", "--quiet")
    assert (code, output[:5]) == (0, "test:")
    assert model.read_bytes() == saved
    assert (tmp_path / "run" / "report.png").exists()


def test_ctrl_c_before_the_training_says_that_nothing_was_saved(
    data: Path, tmp_path: Path, monkeypatch, invoke
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(handgrad.cli.train, "_train", interrupted)
    code, _, errors = invoke("train", *SMALL, "--data", data, "--out", tmp_path / "run")
    assert (code, errors) == (130, "interrupted: nothing was saved\n")
    monkeypatch.setattr(handgrad.cli.train, "load_data", interrupted)
    code, _, errors = invoke("train", *SMALL, "--data", data, "--out", tmp_path / "run")
    assert (code, errors) == (130, "handgrad: interrupted\n")


@posix
@pytest.mark.parametrize("module", ["numpy", "click"])
@pytest.mark.parametrize("command", ["python -m handgrad", "handgrad"])
def test_ctrl_c_while_modules_are_imported(module: str, command: str, tmp_path: Path, environment) -> None:
    (tmp_path / f"{module}.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)"
    )
    script = Path(sys.executable).with_name("handgrad")
    if command == "handgrad" and not script.exists():
        pytest.skip("the console script is not installed")
    done = subprocess.run(
        [script, "check"] if command == "handgrad" else [sys.executable, "-m", "handgrad", "check"],
        env=environment(tmp_path, {"PYTHONPATH": str(tmp_path)}),
        capture_output=True,
        text=True,
        preexec_fn=default_signals,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@posix
def test_ctrl_c_in_a_program_that_imports_handgrad_raises_keyboard_interrupt() -> None:
    code = "import signal, handgrad; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", code], check=True, preexec_fn=default_signals)


# ---- Consoles --------------------------------------------------------------------------------------------------------

ALL_HELP = """
import click
from handgrad import cli
def show(*names):
    command = cli.handgrad
    for name in names:
        command = command.commands[name]
    try:
        cli.handgrad.main([*names, "--help"], prog_name="handgrad")
    except SystemExit as end:
        assert end.code == 0
    for name in getattr(command, "commands", ()):
        show(*names, name)
show()
"""


def test_help_does_not_need_docstrings(tmp_path: Path, environment) -> None:
    plain, optimized = (
        subprocess.run(
            [sys.executable, *options, "-c", ALL_HELP], env=environment(tmp_path, {}), capture_output=True, check=True
        ).stdout
        for options in ([], ["-OO"])
    )
    assert plain == optimized
    assert len(plain) > 5000


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932", "latin-1"])
def test_every_text_can_be_printed_on_a_console_that_is_not_utf_8(
    encoding: str, tmp_path: Path, environment, run
) -> None:
    subprocess.run(
        [sys.executable, "-c", ALL_HELP], env=environment(tmp_path, {"PYTHONIOENCODING": encoding}), check=True
    )
    network = handgrad.Network([4, 3, 2], rng=0)
    network.classes = ("Ü → ★", "猫")
    handgrad.save(network, tmp_path / "ü→猫.safetensors")
    for arguments in (("inspect", "ü→猫.safetensors"), ("inspect", "none→猫.safetensors")):
        done = subprocess.run(
            [sys.executable, "-m", "handgrad", *arguments],
            cwd=tmp_path,
            env=environment(tmp_path, {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"}),
            capture_output=True,
        )
        assert done.returncode == (2 if "none" in arguments[1] else 0), done.stderr
        assert b"Traceback" not in done.stderr
        if encoding in ("cp1252", "latin-1"):  # cp932 has this arrow, and click takes ASCII for UTF-8
            assert b"\\u2192" in done.stdout + done.stderr


WARN = """
import click
from handgrad import cli
from handgrad.cli.echo import warn
cli.handgrad.add_command(click.Command("warn", callback=lambda: warn("text")))
cli.handgrad(["warn"])
"""


def on_terminal(arguments: list[Any], env: dict[str, str], cwd: Path) -> bytes:
    """What a process writes to a terminal."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=cwd)
    os.close(theirs)
    output = b""
    try:
        while part := os.read(ours, 4096):
            output += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0, output
    return output


@posix
def test_no_color_prints_no_escape_sequences(data: Path, tmp_path: Path, environment) -> None:
    warn = [sys.executable, "-c", WARN]
    env = environment(tmp_path, {"TERM": "xterm"})
    env.pop("NO_COLOR", None)
    assert b"\x1b[" in on_terminal(warn, env, tmp_path)
    env["NO_COLOR"] = "1"
    assert on_terminal(warn, env, tmp_path) == b"handgrad: warning: text\r\n"
    train = [sys.executable, "-m", "handgrad", "train", *SMALL, "--epochs", "1", "--data", data]
    assert b"\x1b" not in on_terminal(train, env, tmp_path)


# ---- Standard output -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["--help", "train --help", "check", "train"])
def test_standard_output_on_a_full_disk(command: str, data: Path, tmp_path: Path, environment) -> None:
    arguments = command.split()
    if command == "train":
        arguments += [*SMALL, "--epochs", "2", "--data", str(data)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "handgrad", *arguments],
            cwd=tmp_path,
            env=environment(tmp_path, {}),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (1, "handgrad: cannot write the output: No space left on device\n")
    assert leftovers(tmp_path) == []


@posix
@pytest.mark.parametrize("how", ["the reader ends", "closed"])
def test_standard_output_that_nobody_reads(how: str, tmp_path: Path, environment) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "handgrad", "check"],
        env=environment(tmp_path, {}),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: os.close(1)) if how == "closed" else None,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0 if how == "closed" else 1, "")


# ---- Outputs that are not plain files --------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("command", ["export --to c", "export --to torch", "export --to python", "import", "predict"])
def test_outputs_can_be_pipes(command: str, trained: tuple[Path, str], tmp_path: Path, monkeypatch, invoke) -> None:
    monkeypatch.chdir(tmp_path)
    model, (name, *options) = trained[0] / "model.safetensors", command.split()
    arguments = [name, model, *options]
    if name == "import":
        weights = {"0.weight": np.ones((5, 4), np.float32), "0.bias": np.ones(5, np.float32)}
        from safetensors.numpy import save_file

        (tmp_path / "in").mkdir()
        save_file(weights, tmp_path / "in" / "torch.safetensors")
        arguments = [name, tmp_path / "in" / "torch.safetensors"]
    if name == "predict":
        (tmp_path / "in").mkdir()
        digit = np.full((28, 28), 255, np.uint8)
        digit[4:24, 12:16] = 0
        Image.fromarray(digit).save(tmp_path / "in" / "one.png")
        arguments = [name, model, tmp_path / "in" / "one.png"]
    os.mkfifo(tmp_path / "pipe")
    os.symlink("pipe", tmp_path / "link.out")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    code, output, errors = invoke(*arguments, "--show" if name == "predict" else "--out", "link.out")
    assert (code, errors) == (0, "")
    assert name == "predict" or output == ""  # the pipe may be stdout
    reader.join(10)
    assert len(received[0]) > 300
    assert stat.S_ISFIFO(os.stat(tmp_path / "link.out").st_mode)
    assert {path.name for path in tmp_path.iterdir()} - {"in"} == {"pipe", "link.out"}


# ---- Hostile names ---------------------------------------------------------------------------------------------------

HOSTILE = "\x1b[31m\x1b]0;title\x07\rhandgrad: fine\n\u202e\x9b2J"


def assert_printable(output: str) -> None:
    assert all(c.isprintable() or c == "\n" for c in output), output
    assert "\\x1b[31m" in output
    assert not any(line.startswith("handgrad: fine") for line in output.splitlines())


@pytest.fixture(scope="module")
def hostile(trained: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model whose class names, and an image whose name, control a terminal."""
    directory = tmp_path_factory.mktemp("hostile")
    model = handgrad.load(trained[0] / "model.safetensors")
    model.classes = tuple(f"{HOSTILE}{k}" for k in range(10))
    handgrad.save(model, directory / "model.safetensors")
    digit = np.full((28, 28), 255, np.uint8)
    digit[4:24, 12:16] = 0
    Image.fromarray(digit).save(directory / f"{HOSTILE.replace('/', '')}.png")
    return directory


@posix
@pytest.mark.parametrize("command", ["predict", "evaluate", "attack", "inspect", "missing", "option", "command"])
def test_hostile_names_are_escaped(command: str, hostile: Path, data: Path, invoke) -> None:
    model, (image,) = hostile / "model.safetensors", hostile.glob("*.png")
    arguments = {
        "predict": ("predict", model, image),
        "evaluate": ("evaluate", model, "--data", data),
        "attack": ("attack", model, image),
        "inspect": ("inspect", model),
        "missing": ("predict", HOSTILE, image),
        "option": ("predict", f"--{HOSTILE}"),
        "command": (HOSTILE,),
    }[command]
    code, output, errors = invoke(*arguments)
    assert code == (2 if command in ("missing", "option", "command") else 0), errors
    assert_printable(output + errors)
    assert errors.count("\n") <= 1


def test_hostile_values_of_a_configuration_are_escaped(
    trained: tuple[Path, str], data: Path, tmp_path: Path, invoke
) -> None:
    config = json.loads((trained[0] / "config.json").read_text())
    for change in ({"name": HOSTILE}, {"activation": HOSTILE}, {"data": HOSTILE}, {HOSTILE: 1}):
        (tmp_path / "result.json").unlink(missing_ok=True)
        (tmp_path / "config.json").write_text(json.dumps(config | {"epochs": 1} | change))
        _, output, errors = invoke("train", "--resume", tmp_path)
        assert_printable(output + errors)


def test_hostile_messages_of_the_library_are_escaped(tmp_path: Path, environment) -> None:
    """Warnings are logged, and the command prints them."""
    code = (
        "import click, logging; from handgrad import cli\n"
        f"command = click.Command('log', callback=lambda: logging.getLogger('handgrad').warning({HOSTILE!r}))\n"
        "cli.handgrad.add_command(command); cli.handgrad(['log'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path, {}), capture_output=True, text=True, check=True
    )
    assert_printable(done.stderr)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\0" * 300])
def test_the_directory_of_a_run_with_a_damaged_configuration(
    content: bytes, data: Path, tmp_path: Path, invoke
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_bytes(content)
    code, output, errors = invoke("train", "--resume", run)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert f"nothing was trained yet; start the run again with handgrad train --out {run}" in errors
    code, _, errors = invoke("train", "--data", data, "--recipe", "quick", "--epochs", 1, "--quiet", "--out", run)
    assert code == 0, errors
    (run / "config.json").write_bytes(content)  # with a checkpoint and a model, which must not be lost
    code, output, errors = invoke("train", "--resume", run)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert f"start another run, and load the weights that {run} has with handgrad.load" in errors
    code, output, errors = invoke("train", "--data", data, "--out", run)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert "choose another --out" in errors
