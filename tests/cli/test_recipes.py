"""handgrad recipes, the help of handgrad train, and the completion of the shell."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from handgrad.recipes import GROUPS, RECIPES, RESULTS, Recipe


def test_recipes_lists_network_epochs_accuracy_time_and_what_each_recipe_needs(invoke) -> None:
    code, output, errors = invoke("recipes")
    assert (code, errors) == (0, "")
    header, _, *rows, _, hint = output.splitlines()
    cells = [re.split(r"\s{2,}", row.strip()) for row in (header, *rows)]
    assert cells[0] == ["recipe", "network", "epochs", "test accuracy", "time", "cores", "needs"]
    assert [row[0] for row in cells[1:]] == list(RECIPES)
    table = {row[0]: row[1:] for row in cells[1:]}
    assert table["post"] == ["784-30-10", "30", "95.31%", "6.1 s", "1", "images or numbers"]
    members = "4 x 784-HOG 1568-HOG 1600-512-512-10"
    assert table["ensemble"] == [members, "30", *map(str, RESULTS["ensemble"]), "images"]
    assert hint == "train one: handgrad train --recipe NAME"


def test_recipes_prints_json(invoke) -> None:
    rows = [json.loads(line) for line in invoke("recipes", "--json")[1].splitlines()]
    assert rows[2] == {
        "recipe": "quick",
        "network": "784-HOG 200-256-256-10",
        "epochs": 6,
        "test accuracy": RESULTS["quick"].accuracy,
        "time": RESULTS["quick"].duration,
        "cores": 2,
        "needs": "images",
    }


def test_the_result_of_post_is_that_of_its_run(mnist: Path, tmp_path: Path, run) -> None:
    done = run("train", "--json", "--quiet", "--data", mnist, cwd=tmp_path)
    accuracy = json.loads(done.stdout)["test"]["accuracy"]
    assert abs(100 * accuracy - float(RESULTS["post"].accuracy.rstrip("%"))) < 0.6  # other processors round differently


def test_the_help_of_train_lists_every_setting_in_its_group_with_its_default(invoke) -> None:
    code, output, _ = invoke("train", "--help")
    assert code == 0
    head, *parts = re.split(r"^(\S.*):\n", output, flags=re.MULTILINE)
    assert head.count("\n    handgrad train ") >= 2
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    assert list(sections) == ["Recipe and data", *GROUPS, "Output"]
    entries = {
        title: {
            entry.split()[0]: " ".join(entry.split()) for entry in re.split(r"^  (?=-)", text, flags=re.MULTILINE)[1:]
        }
        for title, text in sections.items()
    }
    assert list(entries["Recipe and data"]) == [
        "--recipe",
        "--data",
        "--label",
        "--shuffle",
        "--from",
        "--freeze",
        "--resume",
    ]
    assert list(entries["Output"]) == ["--out", "--quiet", "--json", "-h,"]
    post = RECIPES["post"]
    for setting in fields(Recipe):
        if setting.name != "name":
            entry = entries[setting.metadata["group"]][f"--{setting.name.replace('_', '-')}"]
            assert ("[default: " in entry) == (getattr(post, setting.name) is not None), entry
    assert entries["Network"]["--hidden"].endswith("[default: 30]")
    assert entries["Training"]["--lr"].endswith("[default: 0.5]")
    assert entries["Network"]["--batch-norm"].endswith("[default: no-batch-norm]")


def test_the_help_of_show_augmentation_has_the_defaults_of_its_recipe(invoke) -> None:
    output = " ".join(invoke("show-augmentation", "--help")[1].split())
    assert "Largest rotation in degrees. [default: 3]" in output
    assert "[default: deskew]" in output


@pytest.fixture
def handgrad_script(tmp_path: Path, environment):
    """A function that runs the installed script `handgrad` with these environment variables: its output."""

    def handgrad_script(**variables: str) -> str:
        program = "import sys; sys.argv = ['handgrad']; from handgrad.__main__ import main; main()"
        command = [sys.executable, "-c", program]
        environ = environment(tmp_path, variables)
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=True).stdout

    return handgrad_script


@pytest.mark.parametrize(
    ("words", "expected"),
    [("handgrad tr", ["train"]), ("handgrad train --recipe s", ["second", "small"])],
)
def test_the_shell_completes_commands_and_recipes(words: str, expected: list[str], handgrad_script) -> None:
    output = handgrad_script(COMP_WORDS=words, COMP_CWORD=str(words.count(" ")), _HANDGRAD_COMPLETE="bash_complete")
    assert [line.split(",")[1] for line in output.splitlines()] == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_completion_script_of_a_shell_is_printed(shell: str, handgrad_script) -> None:
    assert f"_HANDGRAD_COMPLETE={shell}_complete" in handgrad_script(_HANDGRAD_COMPLETE=f"{shell}_source")
