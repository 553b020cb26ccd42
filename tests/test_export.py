"""What an export holds and what it refuses; the file for NumPy alone, run. The others are run in test_export_peers."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner

import handgrad
from handgrad import (
    BatchNorm,
    Ensemble,
    BinaryCrossEntropy,
    Dense,
    Deskew,
    Dropout,
    Layer,
    Network,
    Quadratic,
    ReLU,
    CrossEntropy,
    cli,
    errors,
    save,
)
from handgrad.data.synthetic import synthetic_digits
from handgrad.export import TARGETS, export
from handgrad.export import training as written_training
from handgrad.export.graph import READINGS, as_plain
from handgrad.export.templates import render, identifier, quoted, shown
from handgrad.images.deskew import Preprocessing
from handgrad.layers import ACTIVATIONS
from handgrad.losses import LOSSES, REGRESSION, Poisson
from handgrad.losses import LOSSES as EVERY_LOSS
from handgrad.recipes import RECIPES, Recipe

TEXTS = [name for name in TARGETS if name != "onnx"]


def small(**options: object) -> Network:
    network = Network([4, 5, 3], rng=1, **options)  # type: ignore[arg-type]
    network.image_shape = (2, 2)
    return network


def written(directory: Path, network: Network, to: str, **options: object) -> str:
    """The text of an export."""
    path = directory / f"net{TARGETS[to].ending}"
    export(network, path, to=to, **options)  # type: ignore[arg-type]
    return path.read_text(encoding="utf-8")


def module(path: Path) -> ModuleType:
    """A written Python file, imported."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(f"written_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


# ---- NumPy alone -----------------------------------------------------------------------------------------------------


def test_the_python_file_needs_numpy_alone_and_reads_a_digit(tmp_path: Path) -> None:
    network = small()
    network.classes = ("cat", 'd"o\\g', "ö\n")
    written(tmp_path, network, "python")
    x = np.array([[[0, 255], [51, 102]], [[255, 255], [0, 0]]], np.uint8)
    np.save(tmp_path / "x.npy", x)
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", tmp_path / "net.py", tmp_path / "x.npy"],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    p = network.predict_proba(x)
    told = "".join(f"{network.classes[k]}  {row[k]:.2%}\n" for k, row in zip(network.predict(x), p, strict=True))
    assert done.stdout == told
    tree = ast.parse((tmp_path / "net.py").read_text(encoding="utf-8"))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert modules == {"base64", "sys", "numpy"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))


def test_without_a_digit_the_python_file_says_how_it_is_used(tmp_path: Path) -> None:
    written(tmp_path, small(), "python")
    done = subprocess.run([sys.executable, tmp_path / "net.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "python net.py digit.npy" in done.stderr


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_the_python_file_answers_as_the_network_does(activation: str, loss: str, tmp_path: Path) -> None:
    network = Network([5, 7, 6, 3], activation=activation, loss=loss, init="lecun", rng=1)
    written(tmp_path, network, "python")
    x = np.random.default_rng(0).standard_normal((200, 5)).astype(np.float32) * 3
    made = module(tmp_path / "net.py")
    p = made.predict_proba(x)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p, network.predict_proba(x), rtol=1e-5, atol=1e-6)
    assert (made.predict(x) == network.predict(x)).all()


@pytest.mark.parametrize("n_out", [1, 3])
@pytest.mark.parametrize("loss", list(REGRESSION))
def test_the_python_file_answers_with_numbers_as_the_network_does(loss: str, n_out: int, tmp_path: Path) -> None:
    network = Network([5, 7, n_out], activation="tanh", loss=loss, init="lecun", rng=1)
    written(tmp_path, network, "python")
    x = np.random.default_rng(0).standard_normal((200, 5)).astype(np.float32) * 3
    made = module(tmp_path / "net.py")
    y = made.predict(x)
    assert (y.dtype, y.shape) == (np.float32, (200, n_out))
    np.testing.assert_allclose(y, network.predict(x), rtol=1e-5, atol=1e-6)
    assert (y.min() > 0) == (loss == "poisson")
    assert not {"probabilities", "CLASSES"} & set(dir(made))


def test_the_python_file_prints_its_numbers(tmp_path: Path) -> None:
    network = Network([4, 3], loss="huber", rng=0)
    written(tmp_path, network, "python")
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    command = [sys.executable, "-I", "-W", "error", tmp_path / "net.py", tmp_path / "x.npy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(" ".join(f"{number:.6g}" for number in y) + "\n" for y in network.predict(x))


def test_an_expected_count_too_large_for_a_float_is_infinite(tmp_path: Path) -> None:
    network = Network([1, 1], loss=Poisson(), rng=0)
    network.parameters[...] = 100, 0
    written(tmp_path, network, "python")
    assert module(tmp_path / "net.py").predict(np.ones((1, 1))) == np.inf


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_the_mean_over_views_is_of_numbers_too(loss: str, tmp_path: Path) -> None:
    network = Network([12, 5, 2], activation="tanh", loss=loss, preprocessing=Deskew(4, 3), rng=0)
    network.image_shape, network.views = (4, 3), 5
    written(tmp_path, network, "python")
    x = np.random.default_rng(0).random((20, 12), np.float32)
    np.testing.assert_allclose(module(tmp_path / "net.py").predict(x), network.predict(x), rtol=1e-4)


SEEN: dict[str, Callable[[Network], None]] = {
    "upright": lambda network: setattr(network, "preprocessing", Deskew(14, 10)),
    "shifted": lambda network: setattr(network, "views", 5),
}


@pytest.mark.parametrize("views", [1, 5, 9])
@pytest.mark.parametrize("deskew", [None, Deskew(14, 10), Deskew(28, 20, shrink=2)], ids=["plain", "upright", "shrunk"])
def test_the_python_file_sees_pictures_as_the_network_does(deskew: Deskew | None, views: int, tmp_path: Path) -> None:
    network = Network(
        [140, 12, 10], loss="cross_entropy", activation="relu", init="normal", preprocessing=deskew, rng=0
    )
    network.image_shape = (14, 10) if deskew is None else (deskew.height, deskew.width)
    network.views = views
    height, width = network.image_shape
    drawn = synthetic_digits(300, 1, seed=2)[0]
    x = np.zeros((300, height, width), np.uint8)
    x[...] = drawn[:, 28 - height :, (28 - width) // 2 :][:, :height, :width]
    x[0], x[1], x[2] = 0, 255, 0
    x[2, 3] = 200  # no ink, ink alone, and ink in a single row
    x[3, :2, :2] = 255
    written(tmp_path, network, "python")
    made = module(tmp_path / "net.py")
    floats = x.astype(np.float32) / 255
    np.testing.assert_allclose(made.predict_proba(floats), network.predict_proba(floats), rtol=0, atol=2e-5)
    assert (made.predict(floats) == network.predict(floats)).all()
    # Of bytes handgrad makes bytes: one that lies halfway may be rounded the other way.
    p = made.predict_proba(x)
    far = np.abs(p - network.predict_proba(x)).max(axis=1)
    assert np.median(far) < 1e-5
    assert (made.predict(x) == network.predict(x)).mean() > 0.99
    assert (height, width) == made.IMAGE_SHAPE


def test_the_large_numbers_of_a_batch_norm_are_folded_before_they_are_rounded(tmp_path: Path) -> None:
    network = Network([Dense(3, 2), BatchNorm(2)], rng=0, dtype=np.float64)
    network.layers[1].running_mean[...] = 1e6
    network.layers[0].b[...] = 1e6
    written(tmp_path, network, "python")
    x = np.random.default_rng(0).random((5, 3))
    np.testing.assert_allclose(module(tmp_path / "net.py").predict_proba(x), network.predict_proba(x), atol=1e-6)


# ---- The head --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", TEXTS)
def test_every_file_says_what_wrote_it_what_goes_in_and_what_comes_out(to: str, tmp_path: Path) -> None:
    network = small(loss="cross_entropy", dtype=np.float64)
    network.classes = ("ant", "bee", "cow")
    save(network, tmp_path / "model.safetensors")
    text = written(tmp_path, network, to, model=tmp_path / "model.safetensors")
    head = " ".join(re.sub(r"^[/ *]+", "", line) for line in text.splitlines()[:20])
    for words in (
        f"written by handgrad {handgrad.__version__}",
        "model.safetensors, 4-5-3",
        "floats in [0, 1], bytes / 255",
        "2 high and 2 wide",
        "softmax",
        "trained in float64",
    ):
        assert words in head
    assert str(tmp_path) not in text
    assert all(name in text for name in network.classes)
    assert len(max(text.splitlines(), key=len)) <= 120
    assert not [line for line in text.splitlines() if line != line.rstrip()]
    assert "«" not in text


@pytest.mark.parametrize(("loss", "how"), [("huber", "outputs as they are"), ("poisson", "e^z of each")])
@pytest.mark.parametrize("to", TEXTS)
def test_a_file_that_gives_numbers_says_so_and_offers_nothing_else(
    to: str, loss: str, how: str, tmp_path: Path
) -> None:
    network = Network([4, 5, 3], loss=loss, rng=1)
    network.classes = ("height", "width", "mass")
    text = written(tmp_path, network, to)
    head = " ".join(re.sub(r"^[/ *]+", "", line) for line in text.splitlines()[:20])
    assert "The answers are numbers, 3 for each example: " in head
    assert how in head
    assert "There is no label." in head
    assert "predict(" in text
    code = text.replace("There is no label.", "").lower()
    assert not [word for word in ("label", "probabilit", "classes", "argmax", "digit", "«") if word in code]
    assert len(max(text.splitlines(), key=len)) <= 120
    assert not [line for line in text.splitlines() if line != line.rstrip()]


@pytest.mark.parametrize("to", ["torch", "keras"])
def test_a_training_says_the_same(to: str, tmp_path: Path) -> None:
    recipe = RECIPES["quick"].with_choices(hidden=(8,), dropout=0.2, label_smoothing=0.1, weight_decay=0.01)
    network = recipe.trainer().network
    text = written(tmp_path, network, to, train=recipe, without_preprocessing=True)
    for words in (handgrad.__version__, "recipe quick", "floats in [0, 1]", "network.backward(dz)", "Deskew(height=28"):
        assert words in text
    assert "«" not in text
    assert "#:" not in text
    assert len(max(text.splitlines(), key=len)) <= 140
    ast.parse(text)


def test_the_comments_of_a_training_stand_in_one_column(tmp_path: Path) -> None:
    text = written(tmp_path, RECIPES["post"].trainer().network, "torch", train=RECIPES["post"])
    loop = text[text.index("def train(") : text.index("def pixels(")].splitlines()
    columns = {line.index("# ") for line in loop if "# " in line}
    assert len(columns) == 1
    assert sum("# " in line for line in loop) >= 10


def test_the_script_for_pytorch_is_short(tmp_path: Path) -> None:
    text = written(tmp_path, small(), "torch")
    body = text[text.index('"""', 3) + 3 :]
    assert sum(bool(line.strip()) for line in body.splitlines()) <= 33


# ---- Names -----------------------------------------------------------------------------------------------------------


def test_names_are_safe_whatever_they_are() -> None:
    for name in ("int", "9 lives", "-", "", "ä", "a b.c", "__x", "Model", "*/ \n"):
        assert re.fullmatch(r"[a-z][a-z0-9_]*", identifier(name)), name
        assert not re.search(r"[^\w .,+=@()_-]", shown(name)), name
    assert identifier("model") == "model"
    for text in ('"', "\\", "'", "ä\n\t\0", "\U0001f600", "\udc80", '\\"{x}'):
        assert ast.literal_eval(quoted(text)) == text
        assert quoted(text).isascii()


def test_what_a_template_asks_for_is_filled_in() -> None:
    template = "\nbegin «word»\n    «lines»\n  «none»\n«?yes»  «word»!\n«?no»gone\nend «word»«word»\n"
    values = {"word": "w", "lines": ["a", "", "  b"], "none": [], "yes": 1, "no": ""}
    assert render(template, values) == "begin w\n    a\n\n      b\n  w!\nend ww\n"
    with pytest.raises(KeyError):
        render("«other»", values)


@pytest.mark.parametrize("to", TEXTS)
def test_a_file_name_of_every_kind_is_safe(to: str, tmp_path: Path) -> None:
    network = small()
    model = tmp_path / 'a"""*\n\\u{x}ä.safetensors'
    save(network, model)
    path = tmp_path / f'1 "*`$-ö{TARGETS[to].ending}'
    export(network, path, to=to, model=model)
    if path.suffix == ".py":
        tree = ast.parse(path.read_text(encoding="utf-8"))
        strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert (model.name in strings) == (to != "python")  # it loads that file


# ---- Refusals --------------------------------------------------------------------------------------------------------


class Doubled(Layer):
    """A layer of one's own."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return 2 * x

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return 2 * dy


class MyLoss(Quadratic):
    """A loss of one's own."""


class MySight(Preprocessing):
    """A preprocessing of one's own."""

    n_in = n_out = 4

    def __call__(self, x, out=None):
        return x

    def config(self):
        return {}


NOT_HELD: dict[str, tuple[Callable[[], Network | Ensemble], str]] = {
    "ensemble": (lambda: Ensemble([small(), small()]), "ensemble of 2 networks"),
    "layer": (lambda: Network([Dense(4, 3), Doubled()]), "Doubled, a layer of your own"),
    "loss": (lambda: small(loss=MyLoss()), "MyLoss"),
    "preprocessing": (lambda: small(preprocessing=MySight()), "MySight"),
    "nan": (lambda: _nan(), "not finite"),
}


def _nan() -> Network:
    network = small()
    network.parameters[3] = np.nan
    return network


@pytest.mark.parametrize("to", list(TARGETS))
@pytest.mark.parametrize("what", list(NOT_HELD))
def test_what_no_export_holds_is_refused_by_name(what: str, to: str, tmp_path: Path, refused) -> None:
    make, words = NOT_HELD[what]
    with refused(words):
        export(make(), tmp_path / "net", to=to)
    assert not list(tmp_path.iterdir())


def test_every_loss_is_read_or_refused(tmp_path: Path, refused) -> None:
    """One that is new to the library is refused until READINGS says how it is read."""
    assert set(READINGS) == {CrossEntropy, BinaryCrossEntropy, Quadratic, *REGRESSION.values()}
    for loss in EVERY_LOSS.values():
        if loss not in READINGS:
            with refused(loss.__name__):
                as_plain(small(loss=loss()), "x")


@pytest.mark.parametrize("to", [name for name in TARGETS if name not in ("python", "onnx")])
def test_a_preprocessing_and_views_are_left_out_on_demand_alone(to: str, tmp_path: Path, refused) -> None:
    network = Network([4, 3], preprocessing=Deskew(4, 4, shrink=2), rng=0)
    network.image_shape, network.views = (4, 4), 5
    with refused(r"Deskew\(height=4, width=4, shrink=2\) and answers by the mean over 5 shifts.*--without-prep"):
        written(tmp_path, network, to)
    assert not list(tmp_path.iterdir())
    text = written(tmp_path, network, to, without_preprocessing=True)
    flat = re.sub(r"\s+(//|\*)?\s*", " ", text)
    assert "must be what handgrad's Deskew(height=4, width=4, shrink=2) makes of a picture" in flat
    assert "mean over 5 shifts" in flat
    assert "4 pixels of a picture 2 high and 2 wide" in flat


def test_the_python_file_leaves_a_preprocessing_out_on_demand(tmp_path: Path) -> None:
    network = Network([4, 3], preprocessing=Deskew(2, 2), rng=0)
    text = written(tmp_path, network, "python", without_preprocessing=True)
    assert "def deskew" not in text
    x = np.random.default_rng(0).random((5, 4), np.float32)
    np.testing.assert_allclose(
        module(tmp_path / "net.py").predict_proba(x), network.preprocessed().predict_proba(x), atol=1e-6
    )


def test_an_unknown_target_gets_the_nearest(tmp_path: Path, refused) -> None:
    with refused("unknown target 'pytorch': did you mean 'torch'"):
        export(small(), tmp_path / "x", to="pytorch")


def test_a_missing_extra_is_named(tmp_path: Path, refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with refused(r"'onnx' is not installed.*handgrad\[onnx\]"):
        export(small(), tmp_path / "x.onnx", to="onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", [name for name in TARGETS if name not in ("torch", "keras")])
def test_no_training_is_written_for_what_does_not_train(to: str, tmp_path: Path, refused) -> None:
    with refused(f"--train does not go with {to}.*torch, keras"):
        export(small(), tmp_path / "x", to=to, train=RECIPES["post"])


@pytest.mark.parametrize("to", ["torch", "keras"])
@pytest.mark.parametrize("loss", list(REGRESSION))
def test_no_training_is_written_for_a_loss_for_numbers(loss: str, to: str, tmp_path: Path, refused) -> None:
    network = Network([784, 10], loss=loss, rng=0)
    network.image_shape = (28, 28)
    with refused(f"--train is of classes.*{REGRESSION[loss].__name__}, a loss for numbers"):
        export(network, tmp_path / "x.py", to=to, train=RECIPES["post"])
    assert not list(tmp_path.iterdir())


# ---- Weights beside a script -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["torch", "keras"])
def test_a_script_has_its_weights_beside_it_and_nothing_is_written_over(to: str, tmp_path: Path, refused) -> None:
    network, other = small(), Network([4, 3], rng=2)
    made = export(network, tmp_path / "net.py", to=to)  # of a network that is in no file
    assert made == [tmp_path / "net.py", tmp_path / "net.safetensors"]
    assert '"net.safetensors"' in (tmp_path / "net.py").read_text()
    assert (handgrad.load(tmp_path / "net.safetensors").parameters == network.parameters).all()
    with refused("net.safetensors is there already"):
        export(other, tmp_path / "net.py", to=to)
    assert export(network, tmp_path / "net.py", to=to, model=tmp_path / "net.safetensors") == [tmp_path / "net.py"]

    (tmp_path / "elsewhere").mkdir()
    for _ in range(2):  # the second finds its own copy
        export(network, tmp_path / "elsewhere" / "a.py", to=to, model=tmp_path / "net.safetensors")
    copy = tmp_path / "elsewhere" / "a.safetensors"
    assert copy.read_bytes() == (tmp_path / "net.safetensors").read_bytes()
    save(other, copy)
    with refused("another model"):
        export(network, tmp_path / "elsewhere" / "a.py", to=to, model=tmp_path / "net.safetensors")
    assert (handgrad.load(copy).parameters == other.parameters).all()
    with refused("named as its weights"):
        export(network, tmp_path / "b.safetensors", to=to)
    with refused("is the model itself"):
        export(network, tmp_path / "net.safetensors", to=to, model=tmp_path / "net.safetensors")


# ---- The training ----------------------------------------------------------------------------------------------------


def test_every_choice_of_a_recipe_is_translated_or_refused() -> None:
    """A field that is new to the recipes must be put somewhere, so that no script drops it in silence."""
    sets = written_training.TRANSLATED, written_training.REFUSED, written_training.SILENT
    assert sorted(name for names in sets for name in names) == sorted(field.name for field in fields(Recipe))


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"optimizer": "muon"}, "optimizer muon"),
        ({"average": 0.99}, "average 0.99"),
        ({"rotation": 5.0, "elastic": 1.0}, "elastic 1.0, rotation 5.0"),
        ({"adversarial": 1.0}, "adversarial 1.0"),
        ({"teacher": "best", "temperature": 2.0}, "teacher best, temperature 2.0"),
        ({"members": 3}, "members 3"),
    ],
)
def test_what_a_script_cannot_train_with_is_refused_by_name(
    choices: dict[str, object], words: str, tmp_path: Path, refused
) -> None:
    recipe = RECIPES["post"].with_choices(**choices)
    network = RECIPES["post"].trainer().network
    with refused(f"cannot translate the recipe post, which has {words}: .*post, quick, second"):
        export(network, tmp_path / "x.py", to="torch", train=recipe)
    assert not list(tmp_path.iterdir())


def test_a_training_is_of_pictures(tmp_path: Path, refused) -> None:
    with refused("what size its pictures are"):
        export(Network([4, 3], rng=0), tmp_path / "x.py", to="torch", train=RECIPES["post"])


def test_the_training_of_a_folded_model_has_its_batch_norms_back(tmp_path: Path) -> None:
    recipe = RECIPES["second"].with_choices(hidden=(6, 5))
    model = recipe.classifier([recipe.trainer().network])
    assert not any(isinstance(layer, BatchNorm) for layer in model.layers)
    options = {"train": recipe, "without_preprocessing": True}
    assert written(tmp_path, model, "torch", **options).count("nn.BatchNorm1d(") == 2
    assert "The recipe is of another network" not in written(tmp_path, model, "torch", **options)
    wider = RECIPES["second"].with_choices(hidden=(7, 5))
    text = written(tmp_path, model, "torch", train=wider, without_preprocessing=True)
    assert "The recipe is of another network" in text
    assert "nn.Linear(196, 6)" in text


def test_a_chain_of_the_users_own_is_trained_as_it_is(tmp_path: Path) -> None:
    network = Network([Dense(784, 8, "lecun"), ReLU(), Dropout(0.2), Dense(8, 10, "xavier_uniform")], rng=0)
    network.image_shape = (28, 28)
    text = written(tmp_path, network, "torch", train=RECIPES["post"])
    assert 'nn.init.kaiming_normal_(network[0].weight, nonlinearity="linear")' in text
    assert "nn.init.xavier_uniform_(network[3].weight)" in text
    assert "nn.Dropout(0.2)" in text


# ---- The command -----------------------------------------------------------------------------------------------------


def command(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.handgrad, ["export", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file in a directory of its own, with the configuration of a run beside it."""
    recipe = RECIPES["post"].with_choices(hidden=(6,), epochs=7, optimizer="adam", lr=0.004)
    (tmp_path / "run").mkdir()
    save(recipe.classifier([recipe.trainer().network]), tmp_path / "run" / "model.safetensors")
    config = {**recipe.config(), "data": "mnist", "handgrad": handgrad.__version__}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    return tmp_path / "run" / "model.safetensors"


@pytest.mark.parametrize("to", TEXTS)
def test_the_command_writes_beside_the_model_and_says_what_to_try(model: Path, to: str) -> None:
    code, said, wrong = command(model, "--to", to)
    assert (code, wrong) == (0, "")
    made = model.with_name("model" + TARGETS[to].ending)
    lines = said.splitlines()
    assert lines[0] == f"{made}: {made.stat().st_size:,} bytes"
    assert lines[1].startswith("try: ")
    assert str(made) in lines[1]
    assert len({path.name for path in model.parent.iterdir()}) == 3


def test_the_training_is_the_one_that_made_the_model(model: Path) -> None:
    code, said, _ = command(model, "--to", "torch", "--train")
    assert code == 0
    made = model.with_name("model_torch_train.py")
    assert str(made) in said
    text = made.read_text()
    assert "epochs=7" in text
    assert "torch.optim.Adam(network.parameters(), lr=0.004" in text
    assert command(model, "--to", "torch", "--train", "--recipe", "post")[0] == 0
    text = made.read_text()
    assert "epochs=30" in text
    assert "torch.optim.SGD(network.parameters(), lr=0.5)" in text
    assert "of another network" in text
    (model.parent / "config.json").unlink()
    assert command(model, "--to", "torch", "--train")[0] == 0
    assert made.read_text() == text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--to", "tensorflow"), "unknown target 'tensorflow'"),
        (("--to", "c", "--train"), "--train does not go with c"),
        (("--to", "torch", "--recipe", "post"), "give --train too"),
        (("--to", "torch", "--train", "--recipe", "psot"), "did you mean 'post'"),
        (("--to", "c", "--out", "no/such/place.c"), "cannot write no/such/place.c"),
        (("--to", "c", "--out", "."), "cannot write"),
        ((), "Missing option '--to'"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    model: Path, arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said, wrong = command(model, *arguments)
    assert (code, said) == (2, "")
    assert wrong.startswith("handgrad: ")
    assert wrong.count("\n") == 1
    assert words in wrong
    assert len(list(model.parent.iterdir())) == 2


def test_no_config_of_a_run_is_one_line(model: Path) -> None:
    (model.parent / "config.json").write_text("{}")
    code, _, wrong = command(model, "--to", "torch", "--train")
    assert code == 2
    assert "is not as handgrad train writes it" in wrong
    assert command(model, "--to", "torch")[0] == 0


def test_the_error_is_the_librarys_own() -> None:
    with pytest.raises(errors.HandgradError):
        as_plain(Ensemble([small()]), "x")
