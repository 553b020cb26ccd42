"""export: the head of each file, names from the model, the weights next to a script, and errors."""

import re
import sys

import numpy as np
import pytest

import handgrad
from handgrad import BatchNorm, Dense, Deskew, Ensemble, Network, Preprocessed, ReLU, TestTimeAugmentation, save
from handgrad.export import TARGETS, export
from handgrad.recipes import RECIPES

TEXTS = [name for name in TARGETS if name != "onnx"]
SCRIPTS = ["torch", "keras"]


def small(**options):
    network = Network([4, 5, 3], rng=1, **options)
    network.image_shape = (2, 2)
    return network


def deep_model(loss):
    """An ensemble with two kinds of preprocessing, many members and different shifts."""
    members = [Network([196, 6, 5], loss=loss, rng=seed) for seed in range(30)]
    for member in members:
        member.image_shape = (14, 14)
    inner = Ensemble([TestTimeAugmentation(member, 5 if i % 2 else 9) for i, member in enumerate(members)])
    return Ensemble([Preprocessed(inner, Deskew(28, 28, 2)), Preprocessed(members[0], Deskew(28, 28, shrink=2))])


def head(text):
    return " ".join(re.sub(r"^[/ *]+", "", line) for line in text.splitlines()[:20])


def exported(model, directory, to, **options):
    """The text of an exported file."""
    path = directory / f"net{TARGETS[to].suffix}"
    export(model, path, to=to, **options)
    return path.read_text(encoding="utf-8")


# ---- Content ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", TEXTS)
def test_the_head_describes_the_network_its_input_and_its_output(to, tmp_path):
    network = small(loss="cross_entropy", dtype=np.float64)
    network.classes = ("ant", "bee", "cow")
    save(network, tmp_path / "model.safetensors")
    text = exported(network, tmp_path, to, model_file=tmp_path / "model.safetensors")
    for words in (
        f"Written by handgrad {handgrad.__version__}",
        "4-5-3 of model.safetensors",
        "floats in [0, 1] (bytes / 255)",
        "height 2 and width 2",
        "softmax",
        "trained in float64",
    ):
        assert words in head(text)
    assert str(tmp_path) not in text
    assert all(name in text for name in network.classes)
    assert "«" not in text


@pytest.mark.parametrize(
    ("to", "loss", "how"),
    [*((to, "poisson", "e^z for") for to in TEXTS), (TEXTS[0], "huber", "the outputs of the last layer")],
)
def test_the_file_of_a_regression_mentions_no_classes(to, loss, how, tmp_path):
    text = exported(Network([4, 5, 3], loss=loss, rng=1), tmp_path, to)
    assert f"3 numbers per example, {how}" in head(text)
    assert "predict(" in text
    assert not [word for word in ("label", "probabilit", "classes", "argmax", "«") if word in text.lower()]


@pytest.mark.parametrize("to", TEXTS)
def test_lines_are_short_and_have_no_trailing_spaces(to, tmp_path):
    for loss in ("cross_entropy", "poisson"):
        (tmp_path / loss).mkdir()
        for model in (Network([40, 30, 20], loss=loss, rng=0), deep_model(loss)):
            directory = tmp_path / loss / type(model).__name__
            directory.mkdir()
            lines = exported(model, directory, to).splitlines()
            assert max(map(len, lines)) <= 120
            assert not [line for line in lines if line != line.rstrip()]


# ---- Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_an_error_and_leave_no_file(value, tmp_path, rejects):
    broken = small()
    broken.layers[-1].b[1] = value
    for model in (broken, Ensemble([small(), broken])):
        for to in TARGETS:
            with rejects("not finite"):
                export(model, tmp_path / "net", to=to)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folded", [True, False])
def test_a_negative_running_variance_is_an_error(folded, tmp_path, rejects):
    layers = [Dense(4, 3), BatchNorm(3)] if folded else [BatchNorm(4), ReLU(), Dense(4, 3)]
    network = Network(layers, rng=0)
    next(layer for layer in layers if isinstance(layer, BatchNorm)).running_var[1] = -1
    for to in TARGETS:
        with rejects("not finite"):
            export(network, tmp_path / "net", to=to)


def test_the_members_of_an_ensemble_without_their_preprocessing_need_the_same_inputs(tmp_path, rejects):
    large = Network([16, 3], rng=0)
    large.image_shape = (4, 4)
    model = Ensemble([Preprocessed(small(), Deskew(4, 4, shrink=2)), large])
    with rejects("the members of the ensemble have different preprocessing"):
        export(model, tmp_path / "net.c", to="c", without_preprocessing=True)
    export(model, tmp_path / "net.c", to="c")


def test_an_unknown_target_suggests_the_closest(tmp_path, rejects):
    with rejects("unknown target 'pytorch': did you mean 'torch'"):
        export(small(), tmp_path / "x", to="pytorch")


def test_a_missing_extra_is_named(tmp_path, rejects, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with rejects(r"'onnx' is not installed.*handgrad\[onnx\]"):
        export(small(), tmp_path / "x.onnx", to="onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", [name for name in TARGETS if name not in SCRIPTS])
def test_only_scripts_can_train(to, tmp_path, rejects):
    with rejects(f"--train cannot be used with the target {to}: expected torch or keras"):
        export(small(), tmp_path / "x", to=to, train=RECIPES["post"])


# ---- Weights next to a script ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", SCRIPTS)
def test_a_script_has_its_weights_next_to_it_and_no_other_model_is_overwritten(to, tmp_path, rejects):
    network, other = small(), Network([4, 3], rng=2)
    weights = tmp_path / "net.safetensors"
    assert export(network, tmp_path / "net.py", to=to) == [tmp_path / "net.py", weights]  # there is no model file
    assert '"net.safetensors"' in (tmp_path / "net.py").read_text()
    assert (handgrad.load(weights).parameters == network.parameters).all()
    with rejects("net.safetensors already exists"):
        export(other, tmp_path / "net.py", to=to)
    assert export(network, tmp_path / "net.py", to=to, model_file=weights) == [tmp_path / "net.py"]

    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "a.safetensors"
    for _ in range(2):  # the second call finds the copy of the first one
        export(network, copy.with_suffix(".py"), to=to, model_file=weights)
    assert copy.read_bytes() == weights.read_bytes()
    save(other, copy)
    with rejects("is another model"):
        export(network, copy.with_suffix(".py"), to=to, model_file=weights)
    assert (handgrad.load(copy).parameters == other.parameters).all()


def test_a_script_loads_the_file_that_a_link_in_another_directory_points_to(tmp_path, rejects):
    network, link = small(), tmp_path / "latest.safetensors"
    (tmp_path / "run").mkdir()
    save(network, tmp_path / "run/model.safetensors")
    link.symlink_to(tmp_path / "run/model.safetensors")
    export(network, tmp_path / "run/net.py", to="torch", model_file=link)
    assert 'with_name("model.safetensors")' in (tmp_path / "run/net.py").read_text()
    with rejects("cannot read .*: No such file or directory"):
        export(network, tmp_path / "net.py", to="torch", model_file=tmp_path / "run/missing.safetensors")


def test_the_export_must_not_overwrite_the_model(tmp_path, rejects):
    with rejects("is the name of the file with the weights"):
        export(small(), tmp_path / "b.safetensors", to="torch")
    save(small(), tmp_path / "net.safetensors")
    with rejects("is the model file"):
        export(small(), tmp_path / "net.safetensors", to="torch", model_file=tmp_path / "net.safetensors")
