"""handgrad train: output, files, resume to the same bits, ensembles, teachers."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import handgrad
import handgrad.data
from handgrad import callbacks
from handgrad.blas import blas_threads
from handgrad.cli import progress, run_directory
from handgrad.diagnostics import plots
from handgrad.recipes import RECIPES, Recipe
from handgrad.wrappers import Ensemble, Preprocessed, unwrap

SMALL = ("--hidden", "12", "--batch-size", "50", "--lr", "0.5", "--validation", "100")


def read_recipe(run: Path) -> Recipe:
    config = json.loads((run / "config.json").read_text())
    others = ("data", "handgrad", "from", "freeze")
    return Recipe.from_config({name: value for name, value in config.items() if name not in others})


def read_safetensors(path: Path) -> tuple[dict[str, bytes], str]:
    """The arrays as bytes, and the metadata without the times of the epochs."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 (not a dict)
        metadata = json.loads(file.metadata()["handgrad"])
    metadata.get("state", {}).get("history", {}).pop("seconds", None)
    return arrays, json.dumps(metadata, sort_keys=True)


def assert_same_runs(a: Path, b: Path) -> None:
    """Compare all files of two run directories, except for times."""
    names = sorted(str(path.relative_to(a)) for path in a.rglob("*"))
    assert names == sorted(str(path.relative_to(b)) for path in b.rglob("*"))
    for name in names:
        if name.endswith(".safetensors"):
            assert read_safetensors(a / name) == read_safetensors(b / name), name
        elif "history" in name:
            histories = [json.loads((run / name).read_text()) for run in (a, b)]
            assert len({len(history.pop("seconds")) for history in histories}) == 1
            assert histories[0] == histories[1]
        elif name.endswith("result.json"):
            results = [json.loads((run / name).read_text()) for run in (a, b)]
            assert len([result.pop("seconds") for result in results]) == 2
            assert results[0] == results[1]
        elif name.endswith(".json"):
            assert (a / name).read_text() == (b / name).read_text()


def interrupt_in_epoch(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Simulate Ctrl-C in this epoch of the run, counted over the teacher and all members."""
    epochs = iter(range(1, 1000))

    def on_batch_end(self: progress.ProgressReporter, trainer: handgrad.Trainer) -> None:
        if trainer.batch == 3 and next(epochs) == number:
            raise KeyboardInterrupt

    monkeypatch.setattr(progress.ProgressReporter, "on_batch_end", on_batch_end)


class Clock:
    """A replacement of the module `time` that advances by `step` seconds at every call."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 1000.0, step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


# ---- Output and files ------------------------------------------------------------------------------------------------


def test_train_writes_model_history_config_checkpoint_and_report(trained: tuple[Path, str]) -> None:
    run, _ = trained
    files = {"model.safetensors", "history.json", "config.json", "checkpoint.safetensors", "report.png", "model.md"}
    assert {path.name for path in run.iterdir()} == files | {"result.json"}
    history = json.loads((run / "history.json").read_text())
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(
        ("loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"), 3
    )
    recipe = read_recipe(run)
    assert (recipe.hidden, recipe.epochs, recipe.validation) == ((30,), 3, 300)
    with Image.open(run / "report.png") as report:
        assert min(report.size) >= 600


def test_train_writes_a_model_card(trained: tuple[Path, str], data: Path) -> None:
    run, _ = trained
    card = (run / "model.md").read_text()
    dataset = handgrad.data.load(str(data))
    result = handgrad.load(run / "model.safetensors").evaluate(dataset.x_test, dataset.y_test)
    assert card.startswith("# post: [784, 30, 10] on ".replace("[", "\\[").replace("]", "\\]").replace(":", "\\:"))
    assert f"| test accuracy | {result.accuracy:.2%} ({result.correct} of 300 examples) |" in card
    assert "| validation | 300 |" in card


def test_train_prints_settings_one_line_per_epoch_and_the_result(trained: tuple[Path, str], data: Path) -> None:
    run, output = trained
    settings, training, examples, *epochs, test, duration, results, hint = output.splitlines()
    assert settings == ("recipe post: [784, 30, 10], 23,860 parameters, activation sigmoid, loss binary_cross_entropy")
    assert training == "training: sgd, learning rate 0.5 (constant), batch size 10, 3 epochs, seed 0"
    assert examples == f"{data.name}: 1,200 training examples, 300 validation, 300 test"
    history = json.loads((run / "history.json").read_text())
    for i, line in enumerate(epochs):
        loss, accuracy, val_loss, val_accuracy, seconds = (
            history[name][i] for name in ("loss", "accuracy", "val_loss", "val_accuracy", "seconds")
        )
        assert line == (
            f"epoch {i + 1}/3  training loss {loss:.4f}, accuracy {accuracy:6.2%}"
            f"  validation loss {val_loss:.4f}, accuracy {val_accuracy:6.2%}  {seconds:.2f} s"
        )
    dataset = handgrad.data.load(str(data))
    result = handgrad.load(run / "model.safetensors").evaluate(dataset.x_test, dataset.y_test)
    assert result.correct > 150  # random predictions would have about 30
    assert test == f"test: {result.correct} / 300 correct ({result.accuracy:.2%}), loss {result.loss:.4f}"
    assert re.fullmatch(r"trained 3 epochs in \d+\.\d s", duration)
    assert results == "results in run: model.safetensors, model.md, report.png, history.json, config.json"
    assert hint == "try: handgrad predict run/model.safetensors IMAGE.png"


@pytest.mark.parametrize(
    ("options", "smoothed"),
    [
        (("--validation", 100), {"training", "validation"}),
        (("--validation", 0), {"training", "test"}),
        (("--validation", 0, "--calibration", 0.5), {"training"}),
    ],
)
def test_train_says_which_losses_are_with_label_smoothing(
    data: Path, tmp_path: Path, invoke, options: tuple[object, ...], smoothed: set[str]
) -> None:
    arguments = ("train", *SMALL, "--label-smoothing", 0.1, *options, "--epochs", 1, "--data", data)
    code, output, errors = invoke(*arguments, "--out", tmp_path / "run")
    assert code == 0, errors
    (line,) = [line for line in output.splitlines() if line.startswith("label smoothing 0.1 increases")]
    increased, *_ = line.split(" loss")
    assert smoothed == {name for name in ("training", "validation", "test") if name in increased}
    assert ("test" in smoothed) == (handgrad.load(tmp_path / "run/model.safetensors").loss.label_smoothing > 0)


def test_train_with_json_prints_only_json(data: Path, tmp_path: Path, run) -> None:
    done = run("train", "--data", data, "--validation", 100, "--epochs", 2, "--json", cwd=tmp_path)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("epoch") for line in lines] == [1, 2, None]
    assert lines[-1]["test"]["total"] == 300
    assert Path(tmp_path, lines[-1]["run"], "model.safetensors").exists()


def test_train_without_mnist_warns_at_the_start_and_at_the_end(tmp_path: Path, run) -> None:
    unreachable = {"HANDGRAD_MNIST_MIRROR": "http://127.0.0.1:9/", "http_proxy": "http://127.0.0.1:9/"}
    unreachable["https_proxy"] = unreachable["http_proxy"]
    options = ("--epochs", 1, "--validation", 0, "--batch-size", 500, "--out", "run")
    done = run("train", *options, cwd=tmp_path, **unreachable)
    assert done.returncode == 0, done.stderr
    first, last = done.stderr.splitlines()
    assert first.startswith("handgrad: warning: MNIST is not available, using synthetic digits instead: ")
    assert last == "handgrad: warning: this network was trained and tested on synthetic digits, not on MNIST"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"] == "synthetic"


def test_every_setting_of_a_recipe_has_a_flag(data: Path, tmp_path: Path, invoke) -> None:
    settings = {"hidden": (7, 5), "hog": 3, "hog_order": 2, "activation": "tanh,relu", "loss": "cross_entropy"}
    settings |= {"init": "lecun", "batch_norm": True, "dropout": 0.1, "label_smoothing": 0.05, "lr": 0.01}
    settings |= {"weight_decay": 0.0, "schedule": "cosine", "batch_size": 100, "epochs": 1, "ema_decay": 0.5, "seed": 9}
    settings |= {"validation": 200, "deskew": True, "shrink": 2, "rotation": 5.0, "scale": 0.1, "shear": 0.1}
    settings |= {"shift": 1.0, "elastic": 1.0, "smoothness": 4.0, "adversarial": 0.2, "tta": 5, "members": 2}
    settings |= {"temperature": 2.0, "momentum": 0.7, "optimizer": "nesterov", "l2": 1e-4, "clip_norm": 5.0}
    settings |= {"warm_up": 0.5, "early_stopping": 2, "calibration": 0.8, "threads": 1, "ladder": 0.0}
    assert {"name", "teacher", *settings} == {field.name for field in fields(Recipe)}
    arguments: list[object] = ["train", "--quiet", "--data", data, "--out", tmp_path / "run"]
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        value = ",".join(map(str, value)) if isinstance(value, tuple) else value
        arguments += [flag] if value is True else [flag, value]
    code, output, errors = invoke(*arguments)
    assert code == 0, errors
    assert output.startswith("test: ")
    recipe = read_recipe(tmp_path / "run")
    assert recipe == RECIPES["post"].replace(**settings)
    model = handgrad.load(tmp_path / "run/model.safetensors")
    assert isinstance(model, Preprocessed)
    ensemble = unwrap(model).core
    assert isinstance(ensemble, Ensemble)
    assert [(member.shifts, member.n_in) for member in ensemble.members] == [(5, 196)] * 2


def test_a_flag_can_turn_off_a_setting(monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path, invoke) -> None:
    recipe = RECIPES["post"].replace(name="more", deskew=True, batch_norm=True, hidden=(5,), batch_size=100)
    monkeypatch.setitem(RECIPES, "more", recipe)
    common = ("train", "--recipe", "more", "--epochs", 1, "--validation", 0, "--data", data)
    code, output, errors = invoke(
        *common, "--no-deskew", "--no-batch-norm", "--hidden", "", "--out", tmp_path / "without"
    )
    assert code == 0, errors
    assert "[784, 10]" in output
    assert "also:" not in output
    model = handgrad.load(tmp_path / "without/model.safetensors")
    assert isinstance(model, handgrad.Network)
    assert len(model.layers) == 1
    code, output, errors = invoke(*common, "--out", tmp_path / "with")
    assert code == 0, errors
    assert "also: batch norm, deskew\n" in output
    assert unwrap(handgrad.load(tmp_path / "with/model.safetensors")).preprocessing == handgrad.Deskew(28, 28)


def test_a_run_is_never_overwritten(data: Path, tmp_path: Path, run) -> None:
    arguments = ("train", "--data", data, "--validation", 0, "--epochs", 1, "--batch-size", 100, "--quiet")
    for expected in ("runs/post", "runs/post-2"):
        assert run(*arguments, cwd=tmp_path).returncode == 0
        assert (tmp_path / expected / "model.safetensors").exists()
    done = run(*arguments, "--out", "runs/post", cwd=tmp_path)
    assert done.returncode == 2
    assert "--resume runs/post" in done.stderr


def test_of_two_runs_that_start_at_once_one_gets_the_directory(data: Path, tmp_path: Path, environment) -> None:
    arguments = [sys.executable, "-m", "handgrad", "train", "--data", data, "--validation", "0", "--epochs", "3"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(arguments, cwd=tmp_path, env=environment(tmp_path, {}), **pipes) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    directories = {stdout.partition("results in ")[2].partition(":")[0] for stdout, _ in outputs}
    errors = [stderr for _, stderr in outputs if stderr]
    assert len(directories) == 2, outputs
    assert len(errors) == 0 or errors[0].startswith("handgrad: runs/post is in use by another process: "), errors


def test_a_long_run_updates_its_report(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke) -> None:
    monkeypatch.setattr(run_directory, "time", Clock(25))  # called once per epoch, and once more for each report
    reports = []

    def report(path: Path, model: object, history: dict[str, list[float]], *xy: object, **texts: str) -> None:
        reports.append((len(history["loss"]), [len(part) for part in xy], texts["title"], texts.get("part")))

    monkeypatch.setattr(plots, "report", report)
    arguments = ("train", *SMALL, "--deskew", "--quiet", "--data", data)
    assert invoke(*arguments, "--epochs", 7, "--out", tmp_path / "run")[0] == 0
    assert reports[:-1] == [(n, [100, 100], f"post: after {n} of 7 epochs", "validation") for n in (3, 6)]
    assert (reports[-1][:2], reports[-1][3]) == ((7, [300, 300]), None)
    reports.clear()
    monkeypatch.setattr(run_directory, "time", Clock(100))
    assert invoke(*arguments, "--validation", 0, "--epochs", 3, "--out", tmp_path / "without")[0] == 0
    assert [(epochs, xy) for epochs, xy, *_ in reports] == [(1, []), (2, []), (3, [300, 300])]


def test_the_report_of_a_long_run_shows_validation_images(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke
) -> None:
    monkeypatch.setattr(run_directory, "time", Clock(100))
    monkeypatch.setattr(callbacks, "time", Clock(0))
    interrupt_in_epoch(monkeypatch, 3)
    arguments = ("train", *SMALL, "--deskew", "--shrink", 2, "--epochs", 4, "--data", data)
    assert invoke(*arguments, "--out", tmp_path / "run")[0] == 130
    with Image.open(tmp_path / "run/report.png") as report:
        assert min(report.size) >= 600


def test_the_progress_bar_covers_all_epochs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke
) -> None:
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

    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    monkeypatch.setattr("handgrad.progress.is_interactive", lambda: True)

    def moves() -> list[tuple[int, int, int, bool]]:
        assert all(bar.closed and bar.seen == sorted(bar.seen) for bar in bars)
        return [(bar.total, bar.seen[0], bar.seen[-1], len(set(bar.seen)) > 100) for bar in bars]

    arguments = ("train", *SMALL, "--batch-size", 10, "--epochs", 2, "--members", 2, "--data", data)
    assert invoke(*arguments, "--out", tmp_path / "run")[0] == 0
    assert moves() == [(280, 0, 280, True)] * 2
    bars.clear()
    assert invoke("train", "--resume", tmp_path / "run", "--epochs", 3)[0] == 0
    assert moves() == [(420, 280, 420, True)] * 2


def test_train_reaches_the_accuracy_of_the_book_on_mnist(mnist: Path, tmp_path: Path, run) -> None:
    done = run("train", "--epochs", 2, "--json", "--data", mnist, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["test"]["total"] == 10_000
    assert result["test"]["accuracy"] > 0.9  # Nielsen reports 92.95 % after two epochs, the best of three runs


# ---- Interrupt and resume --------------------------------------------------------------------------------------------


def test_a_killed_run_resumes_to_the_same_bits(data: Path, tmp_path: Path, run, environment) -> None:
    arguments = ("train", "--data", str(data), "--validation", "0", "--epochs", "12", "--optimizer", "adam")
    arguments += ("--lr", "0.001", "--schedule", "one_cycle", "--seed", "5")
    assert run(*arguments, "--out", "complete", cwd=tmp_path).returncode == 0
    killed = subprocess.Popen(
        [sys.executable, "-m", "handgrad", *arguments, "--out", "killed"],
        cwd=tmp_path,
        env=environment(tmp_path, {}),
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
    assert not (tmp_path / "killed" / "model.safetensors").exists(), "the run ended before it could be killed"
    done = run("train", "--resume", "killed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "continuing after epoch" in done.stdout
    assert_same_runs(tmp_path / "complete", tmp_path / "killed")


def test_ctrl_c_keeps_the_checkpoint_and_prints_how_to_continue(data: Path, tmp_path: Path, run, environment) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "handgrad", "train", "--data", data, "--validation", "0", "--epochs", "999"],
        cwd=tmp_path,
        env=environment(tmp_path, {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job of a shell ignores it
    )
    end = time.monotonic() + 60
    while not (tmp_path / "runs/post/checkpoint.safetensors").exists() and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "handgrad train --resume runs/post" in errors
    assert "Traceback" not in errors
    saved = int(re.match(r"interrupted: (\d+) of 999 epochs saved", errors)[1])
    done = run("train", "--resume", "runs/post", "--epochs", saved + 1, "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("test: ")
    assert f"\ntrained {saved + 1} epochs in " in done.stdout


# ---- Finished runs, early stopping, run directories ------------------------------------------------------------------


def copy_run(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def test_resume_of_a_finished_run_says_so_and_changes_nothing(
    trained: tuple[Path, str], tmp_path: Path, monkeypatch, invoke
) -> None:
    copied = copy_run(trained[0], tmp_path / "run")
    monkeypatch.setattr("handgrad.cli.train.load_data", lambda *_: pytest.fail("the data were loaded"))
    before = {path: path.read_bytes() for path in copied.iterdir()}
    test = re.search(r"^test: (.*), loss", trained[1], re.MULTILINE)
    assert test is not None
    for more in ((), ("--epochs", 3)):
        code, output, errors = invoke("train", "--resume", copied, *more)
        assert (code, errors) == (0, "")
        assert output == f"{copied} is finished: 3 epochs, test: {test[1]}; to train longer, add --epochs N\n"
    row = json.loads(invoke("train", "--resume", copied, "--json")[1])
    assert (row["epochs"], row["run"], f"{row['test']['correct']} / 300" in test[1]) == (3, str(copied), True)
    assert {path: path.read_bytes() for path in copied.iterdir()} == before


def test_a_finished_run_can_be_continued_with_more_epochs(trained: tuple[Path, str], tmp_path: Path, invoke) -> None:
    copied = copy_run(trained[0], tmp_path / "run")
    code, output, errors = invoke("train", "--resume", copied, "--epochs", 4)
    assert code == 0, errors
    assert "continuing after epoch 3\nepoch 4/4 " in output
    assert f"{copied} is finished: 4 epochs, " in invoke("train", "--resume", copied)[1]
    code, output, errors = invoke("train", "--resume", copied, "--epochs", 2)
    assert (code, output) == (2, "")
    assert errors == f"handgrad: --epochs 2: {copied}/checkpoint.safetensors already has 4 epochs\n"


@pytest.mark.parametrize(
    "text", [None, "", "[]", '{"stopped": true}', '{"stopped": true, "epochs": 3, "test": {"correct": 1, "total": 0}}']
)
def test_a_run_without_its_result_is_evaluated_again(
    text: str | None, trained: tuple[Path, str], tmp_path: Path, run
) -> None:
    """The process may have ended between the model and the report."""
    copied = copy_run(trained[0], tmp_path / "run")
    result = json.loads((copied / "result.json").read_text())
    (copied / "result.json").unlink()
    (copied / "report.png").unlink()
    if text is not None:
        (copied / "result.json").write_text(text)
    done = run("train", "--resume", copied, "--quiet", cwd=tmp_path)  # with one BLAS thread, as the run
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("test: ")
    assert json.loads((copied / "result.json").read_text()) == result
    assert (copied / "report.png").exists()


def test_an_interrupted_extension_of_a_finished_run_is_not_finished(
    trained: tuple[Path, str], tmp_path: Path, invoke
) -> None:
    copied = copy_run(trained[0], tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "time", Clock(0))
        interrupt_in_epoch(patch, 2)
        assert invoke("train", "--resume", copied, "--epochs", 6)[0] == 130
    code, output, errors = invoke("train", "--resume", copied)
    assert code == 0, errors
    assert "epoch 6/6 " in output


def test_early_stopping_ends_a_run_for_good(data: Path, tmp_path: Path, invoke) -> None:
    arguments = ("train", *SMALL, "--lr", 5, "--early-stopping", 1, "--epochs", 400, "--data", data)
    code, output, errors = invoke(*arguments, "--out", tmp_path / "run")
    assert code == 0, errors
    losses = json.loads((tmp_path / "run/history.json").read_text())["val_loss"]
    assert len(losses) == np.argmin(losses) + 2 < 400
    assert re.search(rf"^trained {len(losses)} epochs in .* s, ended by early stopping$", output, re.MULTILINE)
    assert "also: early stopping 1\n" in output
    for more in ((), ("--epochs", 500)):
        code, output, errors = invoke("train", "--resume", tmp_path / "run", *more)
        assert (code, errors) == (0, "")
        assert f"run is finished: early stopping has ended it after {len(losses)} epochs, test: " in output
    reference = read_recipe(tmp_path / "run").replace(early_stopping=0, epochs=int(np.argmin(losses)) + 1)
    dataset = handgrad.data.load(str(data))
    expected = unwrap(reference.train(dataset.x_train, dataset.y_train, 10)).core
    network = unwrap(handgrad.load(tmp_path / "run/model.safetensors")).core
    np.testing.assert_array_equal(network.parameters, expected.parameters)


def test_a_run_directory_is_accepted_as_a_model(trained: tuple[Path, str], data: Path, tmp_path: Path, invoke) -> None:
    run, model = trained[0], trained[0] / "model.safetensors"
    np.save(tmp_path / "digit.npy", handgrad.data.load(str(data)).x_test[0])
    for command, *arguments in (
        ("evaluate", "--data", data),
        ("predict", tmp_path / "digit.npy"),
        ("attack", "--digit", 3, "--data", data),
        ("inspect",),
        ("export", "--to", "python", "--out", tmp_path / "network.py"),
    ):
        code, output, errors = invoke(command, run, *arguments)
        assert code == 0, errors
        assert output == invoke(command, model, *arguments)[1], command
    copied = copy_run(run, tmp_path / "run")
    assert invoke("export", copied, "--to", "c")[0] == 0
    assert (copied / "model.c").exists()


def test_parity_accepts_a_run_directory(trained: tuple[Path, str], monkeypatch, invoke) -> None:
    """Without PyTorch, which the comparison itself needs."""

    def load_model(path: Path) -> None:
        raise handgrad.HandgradError(f"loads {path}")

    monkeypatch.setattr("handgrad.cli.diagnose.load_model", load_model)
    assert invoke("parity", trained[0])[2] == f"handgrad: loads {trained[0]}/model.safetensors\n"


def test_the_directory_of_an_unfinished_run_is_no_model(trained: tuple[Path, str], tmp_path: Path, invoke) -> None:
    copied = copy_run(trained[0], tmp_path / "run")
    (copied / "model.safetensors").unlink()
    for arguments in (("evaluate", copied), ("train", "--teacher", copied)):
        code, output, errors = invoke(*arguments)
        assert (code, output) == (2, "")
        assert errors == (
            f"handgrad: {copied} has no model.safetensors yet: continue the run with handgrad train --resume {copied}\n"
        )


@pytest.mark.parametrize(
    ("epoch", "more"),
    [
        (1, ()),
        (2, ()),
        (4, ()),
        (6, ()),
        (2, ("--threads", 2, "--rotation", 5)),
        (4, ("--threads", 3, "--shift", 1, "--dropout", 0.1)),
    ],
)
def test_an_interrupted_ensemble_resumes_to_the_same_bits(
    epoch: int, more: tuple[object, ...], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke
) -> None:
    arguments = ("train", *SMALL, "--members", 2, "--epochs", 3, "--ema-decay", "0.9", "--batch-norm", "--data", data)
    arguments += more
    assert invoke(*arguments, "--out", tmp_path / "complete")[0] == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "time", Clock(0))  # writing takes no time, so that every epoch is saved
        interrupt_in_epoch(patch, epoch)
        code, _, errors = invoke(*arguments, "--out", tmp_path / "stopped")
    member, saved = divmod(epoch - 1, 3)
    assert code == 130
    assert errors == (
        f"interrupted: {saved} of 3 epochs of member {member + 1} of 2 saved; "
        f"to continue, run handgrad train --resume {tmp_path / 'stopped'}\n"
    )
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    code, _, errors = invoke("train", "--resume", tmp_path / "stopped")
    assert code == 0, errors
    assert_same_runs(tmp_path / "complete", tmp_path / "stopped")
    assert {path.name for path in (tmp_path / "complete").iterdir()} == {
        *("model.safetensors", "config.json", "report.png", "model.md", "history-1.json", "history-2.json"),
        "result.json",
        *("checkpoint-1.safetensors", "checkpoint-2.safetensors"),
    }


def test_the_interrupt_message_names_the_last_saved_epoch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke
) -> None:
    """If writing takes as long as an epoch, most epochs are not saved, because writing may take 5 % of the time."""
    monkeypatch.setattr(callbacks, "time", Clock(1))
    interrupt_in_epoch(monkeypatch, 4)
    code, output, errors = invoke("train", *SMALL, "--epochs", 6, "--data", data, "--out", tmp_path / "run")
    assert code == 130
    assert "epoch 3/6" in output
    assert errors.startswith("interrupted: 1 of 6 epochs saved; ")
    monkeypatch.undo()
    code, output, _ = invoke("train", "--resume", tmp_path / "run")
    assert code == 0
    assert "continuing after epoch 1\n" in output
    assert len(json.loads((tmp_path / "run/history.json").read_text())["loss"]) == 6


def test_a_run_of_an_older_version_without_a_setting_can_be_resumed(trained: tuple[Path, str], tmp_path: Path, invoke):
    config = json.loads((trained[0] / "config.json").read_text())
    del config["tta"], config["temperature"]
    for name in ("checkpoint.safetensors", "history.json"):
        (tmp_path / name).write_bytes((trained[0] / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, output, errors = invoke("train", "--resume", tmp_path, "--quiet")
    assert code == 0, errors
    assert output.splitlines()[0] in trained[1]


# ---- Ensembles and teachers ------------------------------------------------------------------------------------------


def test_an_ensemble_is_the_one_that_its_recipe_trains(data: Path, tmp_path: Path, invoke) -> None:
    settings = ("train", *SMALL, "--epochs", 2, "--seed", 4, "--validation", 0, "--data", data)
    code, output, errors = invoke(*settings, "--members", 2, "--out", tmp_path / "run")
    assert code == 0, errors
    assert "\nmember 1 of 2\n" in output
    assert "\nmember 2 of 2\n" in output
    assert "\ntrained 4 epochs in " in output
    dataset = handgrad.data.load(str(data))
    trained = read_recipe(tmp_path / "run").train(dataset.x_train, dataset.y_train, 10)
    saved = handgrad.load(tmp_path / "run/model.safetensors")
    ensemble = unwrap(saved).core
    assert isinstance(ensemble, Ensemble)
    np.testing.assert_array_equal(saved.outputs(dataset.x_test), trained.outputs(dataset.x_test))
    assert f"test: {saved.evaluate(dataset.x_test, dataset.y_test).correct} / 300" in output
    assert invoke(*settings, "--out", tmp_path / "single")[0] == 0
    single = handgrad.load(tmp_path / "single/model.safetensors")
    np.testing.assert_array_equal(unwrap(single).core.parameters, ensemble.members[0].parameters)


@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_a_teacher_recipe_is_trained_once_and_an_interrupted_run_resumes(
    epoch: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke
) -> None:
    monkeypatch.setitem(RECIPES, "wise", RECIPES["post"].replace(name="wise", epochs=2, batch_size=50))
    arguments = ("train", *SMALL, "--loss", "cross_entropy", "--temperature", 3, "--teacher", "wise")
    arguments += ("--epochs", 2, "--seed", 3, "--data", data)
    code, output, errors = invoke(*arguments, "--out", tmp_path / "complete")
    assert code == 0, errors
    assert re.findall(r"^recipe (\w+):", output, re.MULTILINE) == ["wise", "post"]
    with pytest.MonkeyPatch.context() as patch:
        interrupt_in_epoch(patch, epoch)
        code, _, errors = invoke(*arguments, "--out", tmp_path / "stopped")
    assert code == 130
    assert f"--resume {tmp_path / 'stopped'}" in errors
    code, output, errors = invoke("train", "--resume", tmp_path / "stopped")
    assert code == 0, errors
    assert output.startswith("recipe wise: ") == (epoch <= 2)  # a trained teacher is not trained again
    assert_same_runs(tmp_path / "complete", tmp_path / "stopped")

    teacher_recipe = read_recipe(tmp_path / "complete/teacher")
    assert (teacher_recipe.name, teacher_recipe.seed, teacher_recipe.validation) == ("wise", 3, 100)
    assert_trained_by_teacher(tmp_path / "complete", tmp_path / "complete/teacher/model.safetensors", data)


@pytest.mark.parametrize("given", [".", "model.safetensors"])
def test_a_teacher_can_be_a_file_or_a_run_directory(
    given: str, trained: tuple[Path, str], data: Path, tmp_path: Path, invoke
) -> None:
    teacher = trained[0] / "model.safetensors"
    arguments = ("train", *SMALL, "--loss", "cross_entropy", "--teacher", trained[0] / given, "--epochs", 2)
    arguments += ("--data", data)
    code, _, errors = invoke(*arguments, "--out", tmp_path / "run")
    assert code == 0, errors
    assert not (tmp_path / "run" / "teacher").exists()
    assert_trained_by_teacher(tmp_path / "run", teacher, data)


def assert_trained_by_teacher(run: Path, teacher: Path, data: Path) -> None:
    """The model of a run is the one that a trainer with this teacher gives."""
    train, _, _ = handgrad.data.load(str(data)).split(100)
    trainer = read_recipe(run).trainer((28, 28), 10, teacher=handgrad.load(teacher))
    with blas_threads(trainer.network, 50):
        trainer.fit(*train, epochs=2)
    network = unwrap(handgrad.load(run / "model.safetensors")).core
    np.testing.assert_array_equal(network.parameters, trainer.network.parameters)


# ---- Fine-tuning -----------------------------------------------------------------------------------------------------


@pytest.fixture
def two_classes(data: Path, tmp_path: Path) -> Path:
    """The synthetic digits with the classes "even" and "odd"."""
    x_train, y_train, x_test, y_test = (getattr(handgrad.data.load(str(data)), n) for n in DATASET)
    names = np.array(["even", "odd"])
    path = tmp_path / "parity.npz"
    np.savez(path, x_train=x_train, y_train=names[y_train % 2], x_test=x_test, y_test=names[y_test % 2])
    return path


DATASET = ("x_train", "y_train", "x_test", "y_test")


@pytest.mark.parametrize("given", [".", "model.safetensors"])
def test_fine_tuning_starts_from_a_run_or_a_model_file(
    given: str, trained: tuple[Path, str], two_classes: Path, tmp_path: Path, invoke
) -> None:
    start, out = trained[0] / given, tmp_path / "run"
    arguments = ("train", "--from", start, "--freeze", 1, "--epochs", 2, "--data", two_classes, "--out", out)
    code, text, errors = invoke(*arguments)
    assert (code, errors) == (0, "")
    model = trained[0] / "model.safetensors"
    assert f"start: {model.resolve()}; 2 classes instead of 10: the last layer is new; 1 layer frozen" in text
    before, after = (unwrap(handgrad.load(path)).core for path in (model, out / "model.safetensors"))
    np.testing.assert_array_equal(after.layers[0].W, before.layers[0].W)
    assert (after.n_out, after.classes) == (2, ("even", "odd"))
    recipe, base = read_recipe(out), read_recipe(trained[0])
    assert (recipe.lr, recipe.batch_size, recipe.hidden) == (base.lr, base.batch_size, base.hidden)
    assert json.loads((out / "config.json").read_text())["freeze"] == 1
    assert str(model.resolve()) in (out / "model.md").read_text()
    code, _, errors = invoke("export", out, "--to", "torch", "--train")
    assert (code, errors.count("\n")) == (2, 1)
    assert "was fine-tuned, but --train exports a training from random weights" in errors


def test_fine_tuning_of_the_same_classes_keeps_the_last_layer(
    trained: tuple[Path, str], data: Path, tmp_path: Path, invoke
) -> None:
    arguments = ("train", "--from", trained[0], "--lr", 1e-9, "--epochs", 1, "--data", data, "--out", tmp_path / "run")
    code, text, errors = invoke(*arguments)
    assert (code, errors) == (0, "")
    assert "; the same classes\n" in text
    before, after = (unwrap(handgrad.load(run / "model.safetensors")).core for run in (trained[0], tmp_path / "run"))
    np.testing.assert_allclose(after.parameters, before.parameters, atol=1e-6)


def test_a_model_without_a_run_is_fine_tuned_with_the_recipe_quick(
    trained: tuple[Path, str], data: Path, tmp_path: Path, invoke
) -> None:
    shutil.copy(trained[0] / "model.safetensors", tmp_path / "m.safetensors")
    arguments = (
        "train",
        "--from",
        tmp_path / "m.safetensors",
        "--epochs",
        1,
        "--data",
        data,
        "--out",
        tmp_path / "run",
    )
    assert invoke(*arguments)[0] == 0
    recipe, origin = read_recipe(tmp_path / "run"), read_recipe(trained[0])
    assert (recipe.name, recipe.optimizer, recipe.hidden) == ("quick", "adam", origin.hidden)
    assert (recipe.deskew, recipe.activation, recipe.loss) == (False, origin.activation, origin.loss)


def test_an_interrupted_fine_tuning_resumes_to_the_same_bits_without_the_original_model(
    trained: tuple[Path, str], two_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke
) -> None:
    shutil.copytree(trained[0], tmp_path / "origin")
    arguments = ("train", "--from", tmp_path / "origin", "--epochs", 3, "--freeze", 1, "--data", two_classes)
    assert invoke(*arguments, "--out", tmp_path / "whole")[0] == 0
    interrupt_in_epoch(monkeypatch, 2)
    code, _, errors = invoke(*arguments, "--out", tmp_path / "resumed")
    assert "1 of 3 epochs saved" in errors
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "origin")
    code, text, _ = invoke("train", "--resume", tmp_path / "resumed")
    assert code == 0
    assert "2 classes instead of 10: the last layer is new; 1 layer frozen" in text
    assert_same_runs(tmp_path / "whole", tmp_path / "resumed")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--freeze", 1), "--freeze 1 needs --from"),
        (("--from", "nothing"), "cannot read nothing"),
        (("--from", "RUN", "--hidden", "3", "--deskew"), "leave out --hidden, --deskew"),
        (("--from", "RUN", "--freeze", -1), "--freeze must be an integer >= 0"),
        (("--from", "RUN", "--freeze", 2), "freeze 2: the network has 2 Dense layers"),
        (("--resume", "RUN", "--from", "RUN"), "--resume continues with the settings of the run: leave out --from"),
    ],
)
def test_invalid_fine_tuning_is_rejected(
    arguments: tuple[object, ...], says: str, trained: tuple[Path, str], data: Path, tmp_path: Path, invoke
) -> None:
    arguments = tuple(trained[0] if argument == "RUN" else argument for argument in arguments)
    where = () if "--resume" in arguments else ("--data", data, "--out", tmp_path / "run")
    code, _, errors = invoke("train", *arguments, *where)
    assert code == 2
    assert says in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_teacher_whose_name_has_a_nul_character_is_rejected_with_one_line(tmp_path: Path, invoke) -> None:
    code, output, errors = invoke("train", "--teacher", "a\0b", "--data", "synthetic", "--out", tmp_path / "run")
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert "is not the name of a file: it contains a NUL character" in errors
    assert not (tmp_path / "run").exists()
