"""The README is true: its snippets run and print what they say, its commands work, its map and figures are current."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import handgrad
import handgrad.export
import handgrad.recipes

sys.path.insert(0, str(Path(__file__).parents[1]))  # the benchmarks are no part of the package

from benchmarks import readme
from benchmarks.tables import between

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(word: str) -> list[list[str]]:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(word + " ")]


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_every_snippet_runs_and_prints_what_it_says(number: int, request: pytest.FixtureRequest) -> None:
    snippet = blocks("python")[number]
    if '"mnist"' in snippet:
        request.getfixturevalue("mnist")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(snippet, "README.md", "exec"), {})
    expected = re.findall(r"^print\(.*\)  # (.*)$", snippet, re.MULTILINE)
    printed = said.getvalue().splitlines()
    assert len(printed) == len(expected) > 0
    for line, promise in zip(printed, expected, strict=True):
        if promise.startswith("about "):
            assert float(line) == pytest.approx(float(promise.removeprefix("about ")), abs=0.01)
        else:
            assert line == promise


def test_every_handgrad_command_works(mnist: Path, tmp_path: Path) -> None:
    picture = np.full((60, 60), 255, np.uint8)
    picture[10:50, 28:32] = 0
    Image.fromarray(picture).save(tmp_path / "digit.png")
    environment = {**os.environ, "HANDGRAD_DATA": str(mnist)}
    told = commands("handgrad")
    assert len(told) >= 6
    for command in told:
        if command[1] == "parity" and find_spec("torch") is None:  # of the extra peers
            continue
        if command[1] == "train":  # as it stands, but for one epoch
            command = [*command, "--epochs", "1"] if "--resume" not in command else command
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr)


def test_every_make_target_and_extra_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = {command[1] for command in commands("make")} | set(re.findall(r"`make ([a-z-]+)`", README))
    assert {"train", "test"} <= told <= targets
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"\[(\w+)\]\"", " ".join(" ".join(c) for c in blocks("console")))) <= set(extras)


def test_what_commands_made_is_as_they_made_it() -> None:
    """The race, the records, the book's figures, and the map with the lines of code as they are: `make readme`."""
    assert readme.render(README) == README
    for part in ("| 784-30-10, 10, SGD |", "| `minute` ", "| 784-30-10, cross-entropy ", "| `layers.py` |"):
        assert part in README


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('"""Doc\n\nstring."""\n\n# comment\nx = 1  # and one\n\n', 1),
        ('def f(\n    a,\n):\n    """Doc."""\n    return """a\nb"""\n', 5),
        ('async def f():\n    """Doc."""\n\n\nclass C:\n    """Doc.\n\n    And so on."""\n', 2),
        ('x = """\n\n# no comment\n"""\n"""no docstring,\n\nfor it comes later"""\n', 4 + 3),
        ('x = f"""\n\n# {1}\n\n{\n2}"""\n', 6),
        ("x = (\n    1,  # one\n\n    # none\n)\n", 3),
        ('def é(): "é"; return """a\n\nb"""\n', 3),
        ('def f():\n    "a" \\\n    "docstring"\n', 1),
        ("", 0),
    ],
)
def test_a_line_of_code_is_neither_blank_nor_comment_nor_docstring(source: str, lines: int) -> None:
    assert readme.code_lines(source) == lines


def test_the_map_wants_words_for_every_file() -> None:
    with pytest.raises(SystemExit, match=r"not in both: layers\.py"):
        readme.source_map(README.replace("| `layers.py` |", "| `strata` |"))


def test_a_part_that_has_no_place_is_refused() -> None:
    text = "above\n<!-- map -->\nold\n<!-- /map -->\nbelow"
    assert between(text, {"map": "new"}) == "above\n<!-- map -->\n\nnew\n\n<!-- /map -->\nbelow"
    for bad in (text.replace("/map", "/race"), text.replace("<!-- map", "<!-- race"), ""):
        with pytest.raises(ValueError, match="no place for map"):
            between(bad, {"map": "new"})


def test_training_says_what_the_readme_shows(mnist: Path, tmp_path: Path) -> None:
    """Line by line; of what was measured the words alone, for figures differ between machines."""
    command = [sys.executable, "-m", "handgrad", "train", "--recipe", "post", "--epochs", "2"]
    environment = {**os.environ, "HANDGRAD_DATA": str(mnist)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)

    def words(text: str) -> list[str]:
        lines = [line for line in text.splitlines() if line != "..."]
        return [re.sub(r" *\d[\d,.]*", " 0", x) if x.startswith(("epoch ", "test:")) else x for x in lines]

    (shown,) = re.findall(r"<!-- train -->\n\n```text\n(.*?)```", README, re.DOTALL)
    assert words(shown) == words(done.stdout)


def test_the_picture_is_one_and_can_be_read() -> None:
    assert readme.PICTURE.relative_to(ROOT).as_posix() in re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    with Image.open(readme.PICTURE) as picture:
        picture.load()
        assert picture.width > 600


# ---- You want, write -------------------------------------------------------------------------------------------------

# What each piece of code makes, in the namespace that it was run in.
MADE: dict[str, Callable[[Any, SimpleNamespace], Any]] = {
    "network.predict(x)": lambda made, n: np.array_equal(made, n.answers),
    "network.predict_proba(x)": lambda made, n: made.shape == (40, 10) and np.allclose(made.sum(axis=1), 1),
    "network.evaluate(x, y)": lambda made, n: made.accuracy == np.mean(n.answers == n.y),
    "network.confusion_matrix(x, y)": lambda made, n: (
        made.shape == (10, 10) and made.sum() == 40 and np.trace(made) == np.sum(n.answers == n.y)
    ),
    "network.activations(x)": lambda made, n: any(
        np.allclose(a, np.tanh(n.x @ n.network.layers[0].W.T + n.network.layers[0].b), atol=1e-5) for a in made
    ),
    'handgrad.save(network, "model.safetensors")': lambda made, n: same(handgrad.load("model.safetensors"), n),
    'handgrad.load("model.safetensors")': lambda made, n: same(made, n),
    'torch_model.load_state_dict(safetensors.torch.load_file("model.safetensors"))': lambda made, n: np.allclose(
        n.torch_model(n.torch.from_numpy(n.x)).detach(), n.network.outputs(n.x), atol=1e-5
    ),
    "interop.from_torch(model)": lambda made, n: np.allclose(
        made.outputs(n.x), n.model(n.torch.from_numpy(n.x)).detach(), atol=1e-5
    ),
    "interop.from_sklearn(estimator)": lambda made, n: np.allclose(
        made.predict_proba(n.x), n.estimator.predict_proba(n.x), atol=1e-5
    ),
    "interop.from_keras(file)": lambda made, n: np.allclose(
        made.predict_proba(n.x), n.keras_model.predict(n.x, verbose=0), atol=1e-5
    ),
    'handgrad.export.export(network, "model.c", to="c")': lambda made, n: "int main(" in Path("model.c").read_text(),
    "handgrad.check_gradient(MyLayer(), x)": lambda made, n: [check.name for check in made] == ["MyLayer dx"],
    "trainer.fit(x, y, sample_weight=w, epochs=5)": lambda made, n: len(made["loss"]) == 5,
    "handgrad.Ensemble([a, b, c])": lambda made, n: np.allclose(
        made.predict_proba(n.x), np.mean([member.predict_proba(n.x) for member in (n.a, n.b, n.c)], axis=0), atol=1e-5
    ),
    "Trainer(..., augment=Augmentation(28, 28, rotation=10, elastic=1.5))": lambda made, n: (
        (made.augment.height, made.augment.width) == (28, 28) and learns(made, n)
    ),
    "Trainer(..., teacher=ensemble)": lambda made, n: isinstance(made.teacher, handgrad.Ensemble) and learns(made, n),
    "Trainer(..., perturb=Adversarial(1.0))": lambda made, n: made.perturb.epsilon == 1 and learns(made, n),
    "deepfool(network, x)": lambda made, n: (
        made.answer_before == n.answers[0] != made.answer_after == n.network.predict(made.picture[None])[0]
    ),
    'handgrad.recipes.RECIPES["quick"].train(x, y, n_out=10)': lambda made, n: made.predict(n.x).shape == (200,),
}
WANTED = [
    code
    for row in re.findall(r"^\| you want \| write \|\n\|.*\n((?:\|.*\n)+)", README, re.MULTILINE)[0].splitlines()
    for code in re.findall(r"`([^`]+)`", row.split(" | ", 1)[1])
    if "(" in code  # and not the name of an extra
]
FOREIGN = re.compile(r"torch|keras")


def same(other: handgrad.Network, n: SimpleNamespace) -> bool:
    return np.array_equal(other.predict_proba(n.x), n.network.predict_proba(n.x))


def learns(trainer: handgrad.Trainer, n: SimpleNamespace) -> bool:
    before = trainer.network.parameters.copy()
    history = trainer.fit(n.x, n.y, epochs=1)
    return bool(np.isfinite(history["loss"][0]) and not np.array_equal(trainer.network.parameters, before))


class MyLayer(handgrad.Layer):
    """a = z²"""

    def forward(self, z: Any) -> Any:
        self.z = z
        return z * z

    def backward(self, da: Any) -> Any:
        return 2 * self.z * da


def test_all_that_is_told_to_write_is_tried_and_nothing_else() -> None:
    assert list(MADE) == WANTED


PEERS = (pytest.mark.peers, pytest.mark.filterwarnings("ignore"))


@pytest.mark.parametrize("code", [pytest.param(c, marks=PEERS) if FOREIGN.search(c) else c for c in WANTED])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_what_is_wanted_is_written_so(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 784), np.float32), np.arange(40) % 10

    def trained(seed: int) -> handgrad.Network:
        network = handgrad.Network([784, 8, 10], activation="tanh", loss="cross_entropy", rng=seed)
        handgrad.Trainer(network, handgrad.SGD(0.1), rng=seed).fit(x, y, epochs=3)
        return network

    a, b, c = (trained(seed) for seed in range(3))
    names: dict[str, Any] = {"handgrad": handgrad, "x": x, "y": y, "w": rng.random(40), "network": a, "a": a, "b": b}
    names |= {
        "c": c,
        "ensemble": handgrad.Ensemble([b, c]),
        "MyLayer": MyLayer,
        "answers": a.outputs(x).argmax(axis=1),
    }
    names |= {name: getattr(handgrad, name) for name in ("Network", "Trainer", "Augmentation", "Adversarial")}
    names |= {"deepfool": handgrad.deepfool, "trainer": handgrad.Trainer(b, handgrad.SGD(0.1), rng=0)}
    if not code.startswith("handgrad.save"):
        handgrad.save(a, "model.safetensors")
    if code.startswith("deepfool"):  # of one picture
        names["x"] = x[0]
    if "augment" in code:
        names["x"] = np.uint8(255 * x)
    if code.startswith("handgrad.recipes"):  # pictures as they are
        names["x"] = rng.integers(0, 256, (200, 28, 28)).astype(np.uint8)
        names["y"] = np.arange(200) % 10
    if "sklearn" in code:
        from sklearn.neural_network import MLPClassifier

        names["estimator"] = MLPClassifier((5,), max_iter=2, random_state=0).fit(x, y)
    if "torch" in code:
        torch = pytest.importorskip("torch", reason="make test-peers installs it")
        import safetensors.torch

        model = torch.nn.Sequential(torch.nn.Linear(784, 8), torch.nn.Tanh(), torch.nn.Linear(8, 10))
        names |= {"torch": torch, "safetensors": safetensors, "model": model, "torch_model": model}
    if "keras" in code:
        monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))
        keras = pytest.importorskip("keras", reason="make test-peers installs it")
        dense = keras.layers.Dense
        model = keras.Sequential([keras.layers.Input((784,)), dense(8, "tanh"), dense(10, "softmax")])
        model.save("model.keras")
        names |= {"keras_model": model, "file": "model.keras"}
    program = code.replace("Trainer(...", "Trainer(network, SGD(0.1), rng=0") if "..." in code else code
    made = eval(compile(program, "README.md", "eval"), names | {"SGD": handgrad.SGD})
    assert MADE[code](made, SimpleNamespace(**names))
