"""The command line from end to end: real processes, a small set of digits, and MNIST where it is near."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import handgrad
import handgrad.data
from handgrad import cli
from handgrad._blas import blas_threads
from handgrad.data.idx import write_idx
from handgrad.data.synthetic import synthetic_digits
from handgrad.diagnostics import plots
from handgrad.recipes import RECIPES, Recipe

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def run(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`handgrad ARGUMENTS` in a process of its own, warnings as errors, no MNIST but what `environment` says."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "handgrad", *map(str, arguments)],
        cwd=cwd,
        env=_environment(cwd, environment),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _environment(cwd: Path, more: dict[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("HANDGRAD_DATA", "KERAS_HOME")}
    return {**kept, "HOME": str(cwd), "XDG_CACHE_HOME": str(cwd / "cache"), "OPENBLAS_NUM_THREADS": "1", **more}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of four IDX files: 1,500 synthetic digits to train on, 300 to test on."""
    directory = tmp_path_factory.mktemp("digits")
    for name, array in zip(NAMES, synthetic_digits(1500, 300, seed=1), strict=True):
        write_idx(directory / f"{name}.gz", array)
    return directory


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> tuple[Path, str]:
    """A run of three epochs on them, and what it printed."""
    cwd = tmp_path_factory.mktemp("trained")
    done = run("train", "--data", digits, "--validation", 300, "--epochs", 3, "--out", "run", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "run", done.stdout


def test_train_leaves_model_history_config_checkpoint_and_report(trained: tuple[Path, str]) -> None:
    directory, _ = trained
    assert {path.name for path in directory.iterdir()} == {
        "model.safetensors",
        "history.json",
        "config.json",
        "checkpoint.safetensors",
        "report.png",
    }
    history = json.loads((directory / "history.json").read_text())
    assert [len(values) for values in history.values()] == [3] * len(history)
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"}
    config = json.loads((directory / "config.json").read_text())
    assert (config["hidden"], config["epochs"], config["validation"]) == ([30], 3, 300)
    with Image.open(directory / "report.png") as report:
        assert min(report.size) >= 600


def test_train_learns_and_tells_a_line_for_each_epoch(trained: tuple[Path, str]) -> None:
    _, said = trained
    lines = said.splitlines()
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1/3", "2/3", "3/3"]
    result = next(line for line in lines if line.startswith("test: "))
    right = int(result.split()[1])
    assert right > 150, result  # of 300; guessing gives 30


def test_evaluate_agrees_with_the_training_and_the_library(trained: tuple[Path, str], digits: Path) -> None:
    directory, said = trained
    model = directory / "model.safetensors"
    done = run("evaluate", model, "--data", digits, "--json", cwd=directory)
    numbers = json.loads(done.stdout)
    assert f"test: {numbers['correct']} / 300" in said
    dataset = handgrad.data.load(str(digits))
    assert handgrad.load(model).evaluate(dataset.x_test, dataset.y_test).correct == numbers["correct"]
    confusion = np.array(numbers["confusion_matrix"])
    assert confusion.sum() == 300
    assert np.trace(confusion) == numbers["correct"]
    for_people = run("evaluate", model, "--data", digits, cwd=directory).stdout
    assert f"{numbers['correct']} / 300" in for_people


def test_predict_reads_pictures_of_both_polarities_and_shows_what_it_saw(
    trained: tuple[Path, str], digits: Path, tmp_path: Path
) -> None:
    directory, _ = trained
    model = directory / "model.safetensors"
    network = handgrad.load(model)
    x, y = handgrad.data.load(str(digits)).x_test, handgrad.data.load(str(digits)).y_test
    sure = int(np.where(network.predict(x) == y, network.predict_proba(x).max(axis=1), 0).argmax())
    Image.fromarray(x[sure]).resize((140, 140)).save(tmp_path / "light.png")
    Image.fromarray(255 - x[sure]).resize((90, 90)).save(tmp_path / "dark.jpg", quality=95)
    np.save(tmp_path / "raw.npy", x[sure])
    done = run("predict", model, "light.png", "dark.jpg", "raw.npy", "--show", "seen.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = [line.split()[1] for line in done.stdout.splitlines()[:3]]
    assert answers == [str(y[sure])] * 3, done.stdout
    with Image.open(tmp_path / "seen.png") as seen:
        assert len(seen.convert("L").getcolors(1 << 16) or []) > 2
    as_json = run("predict", model, "raw.npy", "--json", cwd=tmp_path).stdout
    assert json.loads(as_json)["answer"] == str(y[sure])


def test_a_run_killed_in_the_middle_goes_on_to_the_same_bits(digits: Path, tmp_path: Path) -> None:
    arguments = ("train", "--data", str(digits), "--validation", "0", "--epochs", "12", "--optimizer", "adam")
    arguments += ("--lr", "0.001", "--schedule", "one_cycle", "--seed", "5")
    assert run(*arguments, "--out", "whole", cwd=tmp_path).returncode == 0
    killed = subprocess.Popen(
        [sys.executable, "-m", "handgrad", *arguments, "--out", "killed"],
        cwd=tmp_path,
        env=_environment(tmp_path, {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoint = tmp_path / "killed" / "checkpoint.safetensors"
    end = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < end:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert checkpoint.exists()
    assert not (tmp_path / "killed" / "model.safetensors").exists(), "it was done before it could be killed"
    done = run("train", "--resume", "killed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "going on after epoch" in done.stdout
    for name in ("model.safetensors", "checkpoint.safetensors"):
        whole, resumed = (_without_seconds(tmp_path / run_name / name) for run_name in ("whole", "killed"))
        assert whole == resumed


def _without_seconds(path: Path) -> tuple[dict[str, bytes], str]:
    """The arrays of a file as bytes, and its metadata but for the seconds that the epochs took."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 (it is no dict)
        metadata = json.loads(file.metadata()["handgrad"])
    metadata.get("state", {}).get("history", {}).pop("seconds", None)
    return arrays, json.dumps(metadata, sort_keys=True)


def test_ctrl_c_keeps_the_checkpoint_and_says_how_to_go_on(digits: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "handgrad", "train", "--data", digits, "--validation", "0", "--epochs", "999"],
        cwd=tmp_path,
        env=_environment(tmp_path, {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    end = time.monotonic() + 60
    while not (tmp_path / "runs/post/checkpoint.safetensors").exists() and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "handgrad train --resume runs/post" in said
    assert "Traceback" not in said
    done = run("train", "--resume", "runs/post", "--epochs", "1", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("test: ")


def test_json_prints_only_json(digits: Path, tmp_path: Path) -> None:
    done = run("train", "--data", digits, "--validation", 100, "--epochs", 2, "--json", cwd=tmp_path)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("epoch") for line in lines] == [1, 2, None]
    assert lines[-1]["test"]["total"] == 300
    assert Path(tmp_path, lines[-1]["run"], "model.safetensors").exists()


def test_without_mnist_it_says_so_loudly_and_trains_on_drawn_digits(tmp_path: Path) -> None:
    nowhere = {"HANDGRAD_MNIST_MIRROR": "http://127.0.0.1:9/", "http_proxy": "http://127.0.0.1:9/"}
    nowhere["https_proxy"] = nowhere["http_proxy"]
    done = run("train", "--epochs", 1, "--validation", 0, "--batch-size", 500, "--out", "run", cwd=tmp_path, **nowhere)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert "MNIST is not here: training on digits that handgrad draws itself" in done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"] == "synthetic"


def test_attack_changes_the_answer_to_a_drawn_digit_and_draws_how(
    trained: tuple[Path, str], digits: Path, tmp_path: Path
) -> None:
    model = trained[0] / "model.safetensors"
    network, x = handgrad.load(model), handgrad.data.load(str(digits)).x_test
    np.save(tmp_path / "raw.npy", x[7])
    arguments = ("attack", model, "raw.npy", "--digit", 3, "--digit", 7, "--data", digits, "--out", "attack.png")
    done = run(*arguments, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    answers = [network.classes[k] for k in network.predict(x[[7, 3, 7]])]
    assert [row["before"] for row in told] == answers
    assert all(row["after"] != row["before"] for row in told)
    for row, picture in zip(told[1:], x[[3, 7]], strict=True):
        assert row["l2"] == pytest.approx(handgrad.deepfool(network, picture).l2, rel=1e-4)
        assert 0 < row["largest"] <= row["l2"]
    for_people = run(*arguments, cwd=tmp_path).stdout.splitlines()
    assert f"length {told[1]['l2']:.3f}" in for_people[1]
    assert f"{answers[1]} (" in for_people[1]
    assert len(for_people) == 4
    with Image.open(tmp_path / "attack.png") as drawn:
        assert min(drawn.size) >= 600
        r, _, b = np.moveaxis(np.asarray(drawn.convert("RGB")).astype(int), 2, 0)
    assert ((r - b) > 60).any()  # ink added
    assert ((b - r) > 60).any()  # and taken away


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--activation", "sigmod"], "did you mean 'sigmoid'"),
        (["train", "--loss", "cross-entropy"], "did you mean 'binary_cross_entropy'"),
        (["train", "--optimizer", "sdg"], "did you mean 'sgd'"),
        (["train", "--init", "kaiming"], "kaiming_normal"),
        (["train", "--recipe", "pots"], "did you mean 'post'"),
        (["train", "--sizes", "784,30,10"], "No such option"),
        (["train", "--hidden", "30,0"], "expected a whole number, 1 or more"),
        (["train", "--hidden", "-30"], "expected a whole number, 1 or more"),
        (["train", "--hidden", "512;512"], "'512;512': expected whole numbers with commas between, as in 512,512"),
        (["train", "--hidden", "12.5"], "as in 512,512"),
        (["train", "--hidden", "9,9", "--activation", "relu,tanh,relu"], "3 activations for 2 hidden layers"),
        (["train", "--dropout", "1"], "expected"),
        (["train", "--label-smoothing", "1"], "label_smoothing 1.0: expected"),
        (["train", "--average", "1"], "decay 1.0: expected"),
        (["train", "--shrink", "2"], "shrink 2: expected with deskew"),
        (["train", "--shrink", "0", "--deskew"], "shrink 0: expected 1 or more"),
        (["train", "--rotation", "-1"], "rotation -1.0: expected"),
        (["train", "--elastic", "1", "--smoothness", "0"], "smoothness 0.0: expected"),
        (["train", "--adversarial", "nan"], "epsilon nan: expected"),
        (["train", "--views", "4"], "views 4: expected one of 1, 5, 9"),
        (["train", "--members", "0"], "members 0: expected 1 or more"),
        (["train", "--temperature", "2"], "temperature 2.0: expected with the loss cross_entropy"),
        (["train", "--teacher", "nothing.safetensors"], "nothing.safetensors: No such file"),
        (["train", "--teacher", "post", "--lr", "-1"], "lr -1.0: expected a finite number above 0"),
        (["train", "--schedule", "cosin"], "did you mean 'cosine'"),
        (["train", "--lr", "-1"], "lr -1.0: expected a finite number above 0"),
        (["train", "--lr", "nan"], "expected a finite number above 0"),
        (["train", "--batch-size", "0"], "batch_size 0: expected a whole number, 1 or more"),
        (["train", "--batch-size", "5000"], "expected at most the 1500 examples"),
        (["train", "--epochs", "0"], "expected 1 or more"),
        (["train", "--validation", "1500"], "expected 1 to 1499"),
        (["train", "--validation", "-1"], "expected"),
        (["train", "--resume", "nowhere"], "cannot read nowhere"),
        (["train", "--resume", "nowhere", "--lr", "1", "--batch-size", "2"], "leave out --lr, --batch-size"),
        (["train", "--resume", "nowhere", "--recipe", "post"], "leave out --recipe"),
        (["train", "--resume", "nowhere", "--hidden", "9", "--batch-norm"], "leave out --hidden, --batch-norm"),
        (["train", "--resume", "nowhere", "--members", "2"], "leave out --members"),
        (["train", "--resume", "nowhere", "--data", "synthetic"], "leave out --data"),
        (["train", "--data", "nowhere"], "nowhere holds no IDX files"),
        (["train", "--data", ""], ". holds no IDX files"),
        (["train", "--hidden", "99999999999"], "not enough memory"),
        (["train", "--epochs", "1.5"], "'1.5' is not a valid integer: see "),
        (["train", "--seed", "-1"], "seed -1: expected 0 or more"),
        (["train", "--epoch-count", "1"], "No such option"),
        (["train", "extra"], "unexpected extra argument (extra)"),
        (["check", "--seed", "-1"], "-1 is not in the range"),
        (["profile", "--recipe", "pots"], "did you mean 'post'"),
        (["profile", "--optimizer", "sdg"], "did you mean 'sgd'"),
        (["profile", "--hidden", "0"], "expected a whole number, 1 or more"),
        (["profile", "--epochs", "3"], "No such option"),
        (["show-augmentation", "--recipe", "pots"], "did you mean 'post'"),
        (["show-augmentation", "--recipe", "post", "--data", "synthetic"], "give --rotation"),
        (["show-augmentation", "--recipe", "post", "--digits", "0"], "0 is not in the range"),
        (["show-augmentation", "--recipe", "post", "--lr", "1"], "No such option"),
        (["show-augmentation", "--recipe", "post", "--data", "nowhere", "--shift", "1"], "nowhere holds no IDX files"),
        (["profile", "--batch-size", "0"], "batch_size 0: expected a whole number, 1 or more"),
        (["profile", "--batch-size", "99999999999999999999"], "not enough memory"),
        (["profile", "--seconds", "nan"], "seconds nan: expected a finite number, 0 or more"),
        (["profile", "model.safetensors"], "unexpected extra argument"),
        (["predict"], "Missing argument 'MODEL'"),
        (["tran"], "No such command 'tran'"),
        (["data", "show"], "handgrad data --help"),
        (["evaluate", "nothing.safetensors"], "cannot read nothing.safetensors"),
        (["predict", "nothing.safetensors", "x.png"], "cannot read nothing.safetensors"),
        (["attack"], "Missing argument 'MODEL'"),
        (["attack", "nothing.safetensors", "x.png"], "cannot read nothing.safetensors"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(
    arguments: list[str], expected: str, digits: Path, tmp_path: Path
) -> None:
    if arguments[0] == "train" and not {"--data", "--resume"} & set(arguments):
        arguments = [*arguments, "--data", str(digits)]
        if "--validation" not in arguments:
            arguments += ["--validation", "0"]
    done = run(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith("handgrad: ")
    assert expected in done.stderr
    assert not list(tmp_path.iterdir())


def test_bad_files_are_one_line_and_exit_2(trained: tuple[Path, str], digits: Path, tmp_path: Path) -> None:
    model = trained[0] / "model.safetensors"
    small, labels = np.zeros((2, 8, 8), np.uint8), np.zeros(2, np.uint8)
    (tmp_path / "drawn8").mkdir()
    for name, array in zip(NAMES, (small, labels, small, labels), strict=True):
        write_idx(tmp_path / "drawn8" / f"{name}.gz", array)
    (tmp_path / "cut.safetensors").write_bytes(model.read_bytes()[:-100])
    (tmp_path / "pickled.safetensors").write_bytes(b"\x80\x04\x95\x10")
    (tmp_path / "text.png").write_text("no picture")
    Image.new("L", (50, 50), 255).save(tmp_path / "blank.png")
    for arguments, expected in [
        (("predict", "cut.safetensors", "blank.png"), "only a part of one"),
        (("predict", "pickled.safetensors", "blank.png"), "pickle"),
        (("evaluate", "cut.safetensors"), "only a part of one"),
        (("evaluate", model.parent), "Is a directory"),
        (("predict", model, "text.png"), "text.png"),
        (("predict", model, "blank.png"), "blank.png"),
        (("predict", model, "missing.png"), "missing.png"),
        (("attack", model, "blank.png", "--out", "out.png"), "blank.png"),
        (("attack", model), "nothing to attack: expected a FILE or more, or --digit INDEX"),
        (("attack", model, "--digit", 200, "--data", "drawn8"), "(height, width) = (8, 8)"),
        (("attack", model, "--digit", 300, "--data", digits), "has the digits 0 to 299 to test on"),
        (("attack", model, "--digit", 0, "--data", digits, "--out", "missing/out.png"), "out.png"),
    ]:
        done = run(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert expected in done.stderr


def test_a_run_is_never_overwritten(digits: Path, tmp_path: Path) -> None:
    arguments = ("train", "--data", digits, "--validation", 0, "--epochs", 1, "--batch-size", 100, "--quiet")
    for expected in ("runs/post", "runs/post-2"):
        assert run(*arguments, cwd=tmp_path).returncode == 0
        assert (tmp_path / expected / "model.safetensors").exists()
    refused = run(*arguments, "--out", "runs/post", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--resume runs/post" in refused.stderr


def test_of_two_runs_that_begin_at_once_one_has_the_directory(digits: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "handgrad", "train", "--data", digits, "--validation", "0", "--epochs", "3"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(arguments, cwd=tmp_path, env=_environment(tmp_path, {}), **pipes) for _ in range(2)]
    said = [process.communicate(timeout=60) for process in both]
    places = {stdout.partition("results in ")[2].partition(":")[0] for stdout, _ in said}
    refusals = [stderr for _, stderr in said if stderr]
    assert len(places) == 2, said
    assert len(refusals) == 0 or refusals == ["handgrad: cannot begin a run in runs/post: File exists\n"]


@pytest.mark.parametrize(
    "config",
    [
        "",
        "[]",
        "null",
        {"epochs": "3"},
        {"lr": None},
        {"hidden": 30},
        {"hidden": ["30"]},
        {"more": 1},
        {"sizes": [784, 30, 10]},
    ],
    ids=str,
)
def test_the_configuration_of_no_run_is_one_line(
    trained: tuple[Path, str], config: str | dict[str, object], tmp_path: Path
) -> None:
    if isinstance(config, dict):
        config = json.dumps(json.loads((trained[0] / "config.json").read_text()) | config)
    (tmp_path / "config.json").write_text(config)
    done = run("train", "--resume", ".", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_diverging_run_stops_in_one_line(digits: Path, tmp_path: Path) -> None:
    more = ("--activation", "relu", "--loss", "quadratic", "--optimizer", "momentum", "--init", "normal")
    sizes = ("--hidden", "30", "--loss", "cross_entropy", "--lr", "1e38", "--epochs", "5")
    done = run("train", "--data", digits, "--validation", 0, *more, *sizes, "--out", "run", cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert "diverged by step" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unwritable_place_is_one_line(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run("train", "--data", digits, "--validation", 0, "--epochs", 1, "--out", "file/run", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


# ---- Committees, teachers, and runs that are stopped ---------------------------------------------------------

MORE = ("--hidden", "12", "--batch-size", "50", "--lr", "0.5", "--validation", "100")


def within(*arguments: object) -> tuple[int, str, str]:
    """`handgrad ARGUMENTS` in this process: its exit code, and what it printed on stdout and on stderr."""
    done = CliRunner().invoke(cli.handgrad, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def stop_at(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let Ctrl-C come in the `count`-th epoch of the run, those of all members and the teacher counted on."""
    epochs = iter(range(1, 1000))

    def on_batch_end(self: runs.ProgressReporter, trainer: handgrad.Trainer) -> None:
        if trainer.batch == 3 and next(epochs) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(runs.ProgressReporter, "on_batch_end", on_batch_end)


def same(a: Path, b: Path) -> None:
    """The two runs left the same files, and in them the same but for the clock."""
    names = sorted(str(path.relative_to(a)) for path in a.rglob("*"))
    assert names == sorted(str(path.relative_to(b)) for path in b.rglob("*"))
    for name in names:
        if name.endswith(".safetensors"):
            assert _without_seconds(a / name) == _without_seconds(b / name), name
        elif "history" in name:
            histories = [json.loads((place / name).read_text()) for place in (a, b)]
            assert len({len(history.pop("seconds")) for history in histories}) == 1
            assert histories[0] == histories[1]
        elif name.endswith(".json"):
            assert (a / name).read_text() == (b / name).read_text()


@pytest.mark.parametrize("stopped_in", [1, 2, 3, 4, 5, 6])
def test_a_committee_that_is_stopped_goes_on_to_the_same_bits(
    stopped_in: int, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("train", *MORE, "--members", 2, "--epochs", 3, "--average", "0.9", "--batch-norm", "--data", digits)
    assert within(*arguments, "--out", tmp_path / "whole")[0] == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "time", Clock(0))  # on which writing takes no time: every epoch is kept
        stop_at(patch, stopped_in)
        code, _, said = within(*arguments, "--out", tmp_path / "stopped")
    member, kept = divmod(stopped_in - 1, 3)
    assert code == 130
    done = f"{kept} of 3 epochs of member {member + 1} of 2 are done and kept"
    assert said == f"stopped: {done}; go on with: handgrad train --resume {tmp_path / 'stopped'}\n"
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    code, said, errors = within("train", "--resume", tmp_path / "stopped")
    assert code == 0, errors
    same(tmp_path / "whole", tmp_path / "stopped")
    assert {path.name for path in (tmp_path / "whole").iterdir()} == {
        *("model.safetensors", "config.json", "report.png", "history-1.json", "history-2.json"),
        *("checkpoint-1.safetensors", "checkpoint-2.safetensors"),
    }


def test_a_committee_is_what_its_recipe_trains(digits: Path, tmp_path: Path) -> None:
    arguments = ("train", *MORE, "--members", 2, "--epochs", 2, "--seed", 4, "--validation", 0, "--data", digits)
    code, said, _ = within(*arguments, "--out", tmp_path / "run")
    assert code == 0
    assert "member 2 of 2" in said
    assert "; 4 epochs in " in said
    dataset = handgrad.data.load(str(digits))
    recipe = Recipe.from_config(_config(tmp_path / "run"))
    trained = recipe.train(dataset.x_train, dataset.y_train, 10)
    kept = handgrad.load(tmp_path / "run/model.safetensors")
    assert isinstance(kept, handgrad.Ensemble)
    np.testing.assert_array_equal(kept.outputs(dataset.x_test), trained.outputs(dataset.x_test))
    result = kept.evaluate(dataset.x_test, dataset.y_test)
    assert f"test: {result.correct} / 300" in said
    alone = ("train", *MORE, "--epochs", 2, "--seed", 4, "--validation", 0, "--data", digits)
    assert within(*alone, "--out", tmp_path / "alone")[0] == 0
    first = handgrad.load(tmp_path / "alone/model.safetensors")
    np.testing.assert_array_equal(first.parameters, kept.members[0].parameters)
    assert within("evaluate", tmp_path / "run/model.safetensors", "--data", digits)[0] == 0
    refused = within("attack", tmp_path / "run/model.safetensors", "--digit", 0, "--data", digits)
    assert (refused[0], refused[2].count("\n")) == (2, 1)
    assert "is a ensemble of 2 networks: attack takes one" in refused[2]


def _config(run: Path) -> dict[str, object]:
    """The recipe's part of a run's configuration."""
    config = json.loads((run / "config.json").read_text())
    return {name: value for name, value in config.items() if name not in ("data", "handgrad")}


@pytest.mark.parametrize("stopped_in", [1, 2, 3, 4])
def test_a_run_with_a_teacher_trains_it_once_and_goes_on_from_wherever_it_was_stopped(
    stopped_in: int, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wise = RECIPES["post"].with_choices(name="wise", epochs=2, batch_size=50)
    monkeypatch.setitem(RECIPES, "wise", wise)
    arguments = ("train", *MORE, "--loss", "cross_entropy", "--temperature", 3, "--teacher", "wise")
    arguments += ("--epochs", 2, "--seed", 3, "--data", digits)
    code, said, errors = within(*arguments, "--out", tmp_path / "whole")
    assert code == 0, errors
    assert [line.partition(":")[0] for line in said.splitlines() if "parameters" in line] == ["wise", "post"]
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, stopped_in)
        code, _, errors = within(*arguments, "--out", tmp_path / "stopped")
    assert code == 130
    assert f"--resume {tmp_path / 'stopped'}" in errors
    code, said, errors = within("train", "--resume", tmp_path / "stopped")
    assert code == 0, errors
    assert said.startswith("wise: ") == (stopped_in <= 2)  # one that is trained is not trained again
    same(tmp_path / "whole", tmp_path / "stopped")

    teacher = handgrad.load(tmp_path / "whole/teacher/model.safetensors")
    config = _config(tmp_path / "whole/teacher")
    assert (config["name"], config["seed"], config["validation"]) == ("wise", 3, 100)
    recipe = Recipe.from_config(_config(tmp_path / "whole"))
    (x, y), *_ = handgrad.data.load(str(digits)).split(100)
    trainer = recipe.trainer((28, 28), 10, teacher=teacher)
    with blas_threads(trainer.network, 50):
        trainer.fit(x, y, epochs=2)
    pupil = handgrad.load(tmp_path / "whole/model.safetensors")
    np.testing.assert_array_equal(pupil.parameters, trainer.network.parameters)


def test_a_teacher_may_be_a_file(trained: tuple[Path, str], digits: Path, tmp_path: Path) -> None:
    model = trained[0] / "model.safetensors"
    arguments = ("train", *MORE, "--loss", "cross_entropy", "--teacher", model, "--epochs", 2, "--data", digits)
    code, _, errors = within(*arguments, "--out", tmp_path / "run")
    assert code == 0, errors
    assert not (tmp_path / "run" / "teacher").exists()
    (x, y), *_ = handgrad.data.load(str(digits)).split(100)
    recipe = Recipe.from_config(_config(tmp_path / "run"))
    trainer = recipe.trainer((28, 28), 10, teacher=handgrad.load(model))
    with blas_threads(trainer.network, 50):
        trainer.fit(x, y, epochs=2)
    pupil = handgrad.load(tmp_path / "run/model.safetensors")
    np.testing.assert_array_equal(pupil.parameters, trainer.network.parameters)


def test_every_choice_of_the_recipe_is_a_flag(digits: Path, tmp_path: Path) -> None:
    flags = {"hidden": (7, 5), "activation": "tanh,relu", "loss": "cross_entropy", "init": "lecun"}
    flags |= {"batch_norm": True, "dropout": 0.1, "label_smoothing": 0.05, "optimizer": "adamw", "lr": 0.01}
    flags |= {"weight_decay": 0.1, "schedule": "cosine", "batch_size": 100, "epochs": 1, "average": 0.5, "seed": 9}
    flags |= {"validation": 200, "deskew": True, "shrink": 2, "rotation": 5.0, "scale": 0.1, "shear": 0.1, "shift": 1.0}
    flags |= {"elastic": 1.0, "smoothness": 4.0, "adversarial": 0.2, "views": 5, "members": 2, "temperature": 2.0}
    assert {"name", "teacher", *flags} == {field.name for field in fields(Recipe)}
    arguments: list[object] = ["train", "--quiet", "--data", digits, "--out", tmp_path / "run"]
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        arguments += [flag] if value is True else [flag, ",".join(map(str, value)) if name == "hidden" else value]
    code, said, errors = within(*arguments)
    assert code == 0, errors
    assert said.startswith("test: ")
    recipe = Recipe.from_config(_config(tmp_path / "run"))
    assert recipe == RECIPES["post"].with_choices(**flags)
    ensemble = handgrad.load(tmp_path / "run/model.safetensors")
    assert [(member.views, member.n_in, member.n_in) for member in ensemble.members] == [(5, 196, 784)] * 2
    code, said, errors = within("predict", tmp_path / "run/model.safetensors", _picture(tmp_path, digits))
    assert code == 0, errors


def _picture(place: Path, digits: Path) -> Path:
    np.save(place / "digit.npy", handgrad.data.load(str(digits)).x_test[0])
    return place / "digit.npy"


def test_a_flag_can_take_away_what_a_recipe_has(monkeypatch: pytest.MonkeyPatch, digits: Path, tmp_path: Path) -> None:
    recipe = RECIPES["post"].with_choices(name="more", deskew=True, batch_norm=True, hidden=(5,), batch_size=100)
    monkeypatch.setitem(RECIPES, "more", recipe)
    arguments = ("train", "--recipe", "more", "--no-deskew", "--no-batch-norm", "--hidden", "", "--epochs", 1)
    code, said, errors = within(*arguments, "--validation", 0, "--data", digits, "--out", tmp_path / "run")
    assert code == 0, errors
    assert "[784, 10]" in said
    model = handgrad.load(tmp_path / "run/model.safetensors")
    assert (model.preprocessing, len(model.layers)) == (None, 1)
    assert within("train", "--recipe", "more", "--epochs", 1, "--data", digits, "--out", tmp_path / "kept")[0] == 2
    kept = ("train", "--recipe", "more", "--epochs", 1, "--validation", 0, "--data", digits, "--out", tmp_path / "kept")
    code, said, _ = within(*kept)
    assert code == 0
    assert "with batch norm, schedule constant, deskew\n" in said
    assert type(handgrad.load(tmp_path / "kept/model.safetensors").preprocessing) is handgrad.Deskew


class Clock:
    """A clock that goes on by `step` seconds each time that it is looked at."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 1000.0, step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


def test_the_stopped_message_tells_the_last_epoch_that_is_kept(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where writing takes as long as an epoch, a twentieth of the time is for it: most epochs are not kept."""
    monkeypatch.setattr(files, "time", Clock(1))
    stop_at(monkeypatch, 4)
    arguments = ("train", *MORE, "--epochs", 6, "--data", digits, "--out", tmp_path / "run")
    code, said, errors = within(*arguments)
    assert code == 130
    assert "epoch 3/6" in said
    assert errors.startswith("stopped: 1 of 6 epochs are done and kept; ")
    monkeypatch.undo()
    code, said, _ = within("train", "--resume", tmp_path / "run")
    assert code == 0
    assert "going on after epoch 1\n" in said
    assert len(json.loads((tmp_path / "run/history.json").read_text())["loss"]) == 6


def test_a_long_run_has_a_report_before_it_ends(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "time", Clock(25))  # looked at once an epoch, and once more where it reports
    told = []

    def report(path: Path, classifier: object, history: dict[str, list[float]], *data: object, **words: str) -> None:
        told.append((len(history["loss"]), [len(part) for part in data], words["title"], words.get("part")))

    monkeypatch.setattr(plots, "report", report)
    arguments = ("train", *MORE, "--epochs", 7, "--quiet", "--data", digits)
    assert within(*arguments, "--out", tmp_path / "run")[0] == 0
    titles = [title for _, _, title, _ in told]
    assert titles[:-1] == ["post: after 3 of 7 epochs", "post: after 6 of 7 epochs"]
    assert [(count, data, part) for count, data, _, part in told[:-1]] == [
        (n, [100, 100], "validation") for n in (3, 6)
    ]
    assert (told[-1][:2], told[-1][3]) == ((7, [300, 300]), None)
    told.clear()
    monkeypatch.setattr(runs, "time", Clock(100))
    assert within(*arguments, "--validation", 0, "--epochs", 3, "--out", tmp_path / "bare")[0] == 0
    assert [(count, data) for count, data, *_ in told] == [(1, []), (2, []), (3, [300, 300])]


def test_the_bar_goes_over_the_whole_run(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []

    class Bar:
        def __init__(self, *, total: int, initial: int, **_: object) -> None:
            self.total, self.n, self.seen, self.closed = total, initial, [initial], False
            bars.append(self)

        def update(self, count: int) -> None:
            assert not self.closed
            self.n += count
            self.seen.append(self.n)

        def clear(self) -> None:
            assert not self.closed

        def close(self) -> None:
            self.closed = True

    import tqdm

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    arguments = ("train", *MORE, "--batch-size", 10, "--epochs", 2, "--members", 2, "--data", digits)
    assert within(*arguments, "--out", tmp_path / "run")[0] == 0
    assert [(bar.total, bar.seen, bar.closed) for bar in bars] == [(280, [0, 100, 140, 240, 280], True)] * 2
    bars.clear()
    assert within("train", "--resume", tmp_path / "run", "--epochs", 3)[0] == 0
    assert [(bar.total, bar.seen, bar.closed) for bar in bars] == [(420, [280, 380, 420], True)] * 2


def test_show_augmentation_draws_what_the_recipe_makes(digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "made.png"
    arguments = ("show-augmentation", "--recipe", "post", "--rotation", 20, "--elastic", 1, "--data", digits)
    code, said, errors = within(*arguments, "--digits", 3, "--out", out)
    assert (code, said) == (0, f"3 of digits0, made anew as post has it: {out}\n"), errors
    first = out.read_bytes()
    with Image.open(out) as drawn:
        assert len(drawn.convert("L").getcolors(1 << 16) or []) > 20
    assert within(*arguments, "--digits", 3, "--out", out)[0] == 0
    assert out.read_bytes() == first
    assert within(*arguments, "--digits", 3, "--seed", 1, "--out", out)[0] == 0
    assert out.read_bytes() != first
    assert within(*arguments, "--deskew", "--shrink", 2, "--out", out)[0] == 0
    code, _, errors = within(*arguments, "--out", tmp_path / "missing" / "made.png")
    assert (code, errors.count("\n")) == (2, 1)


@pytest.mark.parametrize("views", [1, 5])
@pytest.mark.parametrize("shrink", [1, 2])
def test_a_model_that_sees_other_pictures_than_it_is_given_can_be_attacked(
    views: int, shrink: int, digits: Path, tmp_path: Path
) -> None:
    arguments = ("train", *MORE, "--deskew", "--shrink", shrink, "--views", views, "--epochs", 2, "--data", digits)
    assert within(*arguments, "--out", tmp_path / "run")[0] == 0
    model, out = tmp_path / "run/model.safetensors", tmp_path / "attack.png"
    code, said, errors = within("attack", model, "--digit", 3, "--data", digits, "--json", "--out", out)
    assert code == 0, errors
    told, network = json.loads(said), handgrad.load(model)
    network.views = 1
    assert told["before"] == str(network.predict(handgrad.data.load(str(digits)).x_test[3:4])[0])
    assert told["after"] != told["before"]
    assert out.exists()


# ---- The other commands --------------------------------------------------------------------------------------


def test_check_prints_a_table_and_exits_0(tmp_path: Path) -> None:
    done = run("check", cwd=tmp_path)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) > 100
    assert all(line.endswith("ok") for line in lines[:-1])


def test_check_exits_1_at_the_first_wrong_gradient(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(
        "from handgrad.layers import Tanh\n"
        "from handgrad.cli import handgrad\n"
        "right = Tanh.backward\n"
        "Tanh.backward = lambda self, da: right(self, da) * 1.001\n"
        "handgrad(['check'])\n"
    )
    done = subprocess.run(
        [sys.executable, "wrong.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].endswith("WRONG")
    assert "Tanh" in done.stderr


def test_profile_prints_a_table_of_the_step_that_was_asked_for(tmp_path: Path) -> None:
    chosen = ("--hidden", "8,6", "--activation", "relu,tanh", "--loss", "cross_entropy")
    chosen += ("--init", "lecun", "--optimizer", "adam", "--batch-size", 7, "--seconds", 0)
    done = run("profile", *chosen, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    what, more, header, *rows, sum_of_parts, between, step, rate = done.stdout.splitlines()
    assert "[784, 8, 6, 10]" in what
    assert "batches of 7" in what
    assert more.startswith("with init lecun")
    assert header.split() == ["part", "us", "of", "the", "step", "floor", "us", "x", "floor"]
    assert [row[:32].strip() for row in rows] == [
        *("0 Dense forward", "1 ReLU forward", "2 Dense forward", "3 Tanh forward", "4 Dense forward"),
        *("CrossEntropy backward", "4 Dense backward", "3 Tanh backward", "2 Dense backward"),
        *("1 ReLU backward", "0 Dense backward", "Adam update"),
    ]
    assert sum_of_parts.startswith("sum of the parts")
    assert between.startswith("between them")
    assert step.split()[-1] == "100.0%"
    assert "examples/s" in rate
    assert not list(tmp_path.iterdir())


def test_profile_prints_only_json_where_asked(tmp_path: Path) -> None:
    done = run("profile", "--seconds", 0, "--json", cwd=tmp_path)
    *parts, whole = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(parts) == 8
    assert sum(part["floor"] for part in parts) == pytest.approx(whole["floor"])
    assert whole["flops_per_second"] * whole["step"] == pytest.approx(sum(part["flops"] for part in parts))


@pytest.mark.parametrize(
    "command",
    [
        *[[], ["train"], ["evaluate"], ["predict"], ["attack"], ["show-augmentation"], ["check"], ["profile"]],
        *[["data"], ["data", "fetch"]],
    ],
)
def test_every_command_has_help(command: list[str], tmp_path: Path) -> None:
    done = run(*command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) >= 5


def test_data_shows_and_verifies(tmp_path: Path) -> None:
    shown = run("data", cwd=tmp_path)
    assert shown.returncode == 0
    assert str(tmp_path / "cache") in shown.stdout
    assert run("data", "verify", cwd=tmp_path).returncode == 1
    refused = run("data", "fetch", "--from", "nowhere", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


def test_the_post_learns_mnist(mnist: Path, tmp_path: Path) -> None:
    done = run("train", "--epochs", 2, "--json", "--data", mnist, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["test"]["total"] == 10_000
    assert result["test"]["accuracy"] > 0.9  # the book has 92.95 after its second epoch, of the best of three runs
