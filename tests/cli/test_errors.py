"""Invalid arguments and settings: one line on stderr, exit code 2, nothing written. Help of every command."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from handgrad import cli


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--activation", "sigmod"], "did you mean 'sigmoid'"),
        (["train", "--optimizer", "sdg"], "did you mean 'sgd'"),
        (["train", "--recipe", "pots"], "did you mean 'post'"),
        (["train", "--hidden", "30,0"], "must be an integer >= 1"),
        (["train", "--hidden", "512;512"], "'512;512': expected integers with commas between them, as 512,512: see "),
        (["train", "--hidden", "9,9", "--activation", "relu,tanh,relu"], "activation has 3 names for 2 hidden layers"),
        (["train", "--hidden", "99999999999"], "expected smaller layers"),
        (["train", "--dropout", "1"], "must be in [0, 1)"),
        (["train", "--ema-decay", "1"], "decay must be in [0, 1)"),
        (["train", "--shrink", "2"], "shrink 2 needs deskew"),
        (["train", "--tta", "4"], "tta must be one of 1, 5, 9"),
        (["train", "--temperature", "2"], "temperature 2.0 needs the loss cross_entropy"),
        (["train", "--teacher", "nothing.safetensors"], "nothing.safetensors"),
        (["train", "--teacher", "post", "--lr", "-1"], "lr must be a finite number > 0"),
        (["train", "--teacher", "post", "--validation", "1500"], "expected less than the 1500 training examples"),
        (["train", "--lr", "nan"], "lr must be a finite number > 0"),
        (["train", "--batch-size", "0"], "batch_size must be an integer >= 1"),
        (["train", "--epochs", "1.5"], "'1.5' is not a valid integer: see handgrad train --help"),
        (["train", "--resume", "nowhere"], "cannot read nowhere"),
        (["train", "--resume", "nowhere", "--lr", "1", "--batch-norm"], "leave out --lr, --batch-norm"),
        (["train", "--resume", "nowhere", "--recipe", "post"], "leave out --recipe"),
        (["train", "--resume", "nowhere", "--data", "synthetic"], "leave out --data"),
        (["train", "--data", "nowhere"], "there is no data set 'nowhere': expected mnist"),
        (["train", "--epoch-count", "1"], "No such option"),
        (["train", "extra"], "unexpected extra argument (extra)"),
        (["check", "--seed", "-1"], "-1 is not in the range"),
        (["profile", "--batch-size", "99999999999999999999"], "not enough memory"),
        (["profile", "--seconds", "nan"], "seconds must be a finite number >= 0"),
        (["show-augmentation", "--recipe", "post", "--data", "synthetic"], "has no data augmentation: add --rotation"),
        (["show-augmentation", "--lr", "1"], "No such option"),
        (["export", "nothing.safetensors", "--to", "onxx"], "did you mean 'onnx'"),
        (["export", "nothing.safetensors", "--to", "c", "--recipe", "post"], "add --train"),
        (["predict"], "Missing argument 'MODEL'"),
        (["tran"], "No such command 'tran'"),
        (["data", "show"], "handgrad data --help"),
        (["data", "fetch", "--from", "nowhere"], "nowhere"),
        (["evaluate", "nothing.safetensors"], "cannot read nothing.safetensors"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_arguments_give_one_line_and_exit_code_2(
    arguments: list[str], expected: str, data: Path, tmp_path: Path, monkeypatch, invoke
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "train" and not {"--data", "--resume"} & set(arguments):
        arguments = [*arguments, "--data", str(data)]
        if "--validation" not in arguments:
            arguments += ["--validation", "0"]
    code, output, errors = invoke(*arguments)
    assert (code, output, errors.count("\n")) == (2, "", 1), errors
    assert errors.startswith("handgrad: ")
    assert expected in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "config",
    ["", "[]", "null", {"epochs": "3"}, {"hidden": 30}, {"sizes": [784, 30, 10]}],
    ids=str,
)
def test_an_invalid_configuration_gives_one_line(
    trained: tuple[Path, str], config: str | dict[str, object], tmp_path: Path, monkeypatch, invoke
) -> None:
    if isinstance(config, dict):
        config = json.dumps(json.loads((trained[0] / "config.json").read_text()) | config)
    (tmp_path / "config.json").write_text(config)
    monkeypatch.chdir(tmp_path)
    code, output, errors = invoke("train", "--resume", ".")
    assert (code, output, errors.count("\n")) == (2, "", 1), errors
    assert "config.json" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_diverging_run_gives_one_line(data: Path, tmp_path: Path, run) -> None:
    settings = ("--activation", "relu", "--optimizer", "momentum", "--init", "normal", "--lr", "1e38")
    done = run("train", "--data", data, "--validation", 0, *settings, "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    *warnings, error = done.stderr.splitlines()
    assert all(line.startswith("handgrad: warning: ") for line in warnings), done.stderr
    assert error.startswith("handgrad: training diverged at step ")
    assert not (tmp_path / "run/model.safetensors").exists()


def test_an_unwritable_directory_gives_one_line(data: Path, tmp_path: Path, run) -> None:
    (tmp_path / "file").write_text("a file")
    done = run("train", "--data", data, "--validation", 0, "--epochs", 1, "--out", "file/run", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("handgrad: cannot start a run in file/run: ")


def commands(group: click.Group, *names: str) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        found += [(*names, name)]
        if isinstance(command, click.Group):
            found += commands(command, *names, name)
    return found


@pytest.mark.parametrize("command", [(), *commands(cli.handgrad)], ids=" ".join)
def test_every_command_and_option_has_a_help_text(command: tuple[str, ...], invoke) -> None:
    code, output, errors = invoke(*command, "--help")
    assert (code, errors) == (0, "")
    assert output.startswith("Usage: handgrad")
    found: click.Command = cli.handgrad
    for name in command:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    assert found.help
    assert all(option.help for option in found.params if isinstance(option, click.Option))


def test_the_targets_of_export_are_in_its_help(invoke) -> None:
    from handgrad.export import TARGETS

    assert f"--to {'|'.join(TARGETS)}" in invoke("export", "--help")[1]
