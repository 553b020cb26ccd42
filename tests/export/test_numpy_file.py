"""The Python file: predictions equal those of the model, including Deskew and test-time augmentation."""

import ast
import importlib.util
import itertools
import subprocess
import sys

import numpy as np
import pytest

from handgrad import (
    HOG,
    Dense,
    Deskew,
    Network,
    Poisson,
    Preprocessed,
    ReLU,
    SquaredError,
    TestTimeAugmentation,
)
from handgrad.data.synthetic import synthetic_digits
from handgrad.export import export
from handgrad.layers import ACTIVATIONS
from handgrad.losses import LOSSES


def exported(model, path, **options):
    """Export to a Python file and import it."""
    export(model, path, to="python", **options)
    spec = importlib.util.spec_from_file_location(f"exported_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(path, *arguments):
    command = [sys.executable, "-I", "-W", "error", path, *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


def test_the_file_imports_only_numpy_and_prints_class_names(tmp_path):
    network = Network([4, 5, 3], rng=1)
    network.image_shape, network.classes = (2, 2), ("cat", 'd"o\\g', "ö\n")
    export(network, tmp_path / "net.py", to="python")
    x = np.array([[[0, 255], [51, 102]], [[255, 255], [0, 0]]], np.uint8)
    np.save(tmp_path / "x.npy", x)
    done = run(tmp_path / "net.py", tmp_path / "x.npy")
    assert done.returncode == 0, done.stderr
    p, labels = network.predict_proba(x), network.predict(x)
    assert done.stdout == "".join(f"{network.classes[k]}  {row[k]:.2%}\n" for k, row in zip(labels, p, strict=True))
    tree = ast.parse((tmp_path / "net.py").read_text(encoding="utf-8"))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert modules == {"base64", "sys", "numpy"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))


def test_the_file_without_arguments_prints_its_usage(tmp_path):
    network = Network([4, 3], rng=1)
    network.image_shape = (2, 2)
    export(network, tmp_path / "net.py", to="python")
    done = run(tmp_path / "net.py")
    assert done.returncode == 1
    assert "python net.py images.npy" in done.stderr


def test_the_file_of_a_regression_prints_numbers(tmp_path):
    network = Network([4, 3], loss="huber", rng=0)
    export(network, tmp_path / "net.py", to="python")
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    done = run(tmp_path / "net.py", tmp_path / "x.npy")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(" ".join(f"{number:.6g}" for number in y) + "\n" for y in network.predict(x))


def test_a_single_output_prints_the_probability_of_the_predicted_class(tmp_path):
    network = Network([1, 1], rng=0)
    network.parameters[...] = 1, 0
    network.classes = ("no", "yes")
    export(network, tmp_path / "net.py", to="python")
    np.save(tmp_path / "x.npy", np.log([[1 / 3], [1.25]]))
    assert run(tmp_path / "net.py", tmp_path / "x.npy").stdout == "no  75.00%\nyes  55.56%\n"


@pytest.mark.parametrize(
    ("activation", "loss"), list(zip(itertools.cycle(ACTIVATIONS), [*LOSSES, SquaredError("sigmoid")], strict=False))
)
def test_predictions_equal_those_of_the_network(activation, loss, tmp_path):
    network = Network([5, 7, 6, 3], activation=activation, loss=loss, init="lecun", rng=1)
    x = np.random.default_rng(0).standard_normal((200, 5)).astype(np.float32) * 3
    module = exported(network, tmp_path / "net.py")
    if network.loss.is_classification:
        p = module.predict_proba(x)
        assert (module.predict(x) == network.predict(x)).all()
    else:
        p = module.predict(x)
        assert not {"predict_proba", "CLASSES"} & set(dir(module))
    assert p.dtype == np.float32
    np.testing.assert_allclose(p, network.predict_proba(x), rtol=1e-5, atol=1e-6)


def test_integers_are_divided_by_255_only_for_models_of_images(tmp_path):
    network = Network([4, 3], rng=1)
    x = np.random.default_rng(0).integers(0, 4, (20, 4)).astype(np.uint8)
    np.testing.assert_allclose(
        exported(network, tmp_path / "numbers.py").predict_proba(x), network.predict_proba(x), rtol=1e-5
    )
    network.image_shape = (2, 2)
    np.testing.assert_allclose(
        exported(network, tmp_path / "images.py").predict_proba(x), network.predict_proba(x), rtol=1e-5
    )


def test_poisson_prediction_that_overflows_is_infinite(tmp_path):
    network = Network([1, 1], loss=Poisson(), rng=0)
    network.parameters[...] = 100, 0
    assert exported(network, tmp_path / "net.py").predict(np.ones((1, 1))) == np.inf


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_test_time_augmentation_averages_the_predictions_of_a_regression(loss, tmp_path):
    network = Network([12, 5, 2], activation="tanh", loss=loss, rng=0)
    network.image_shape = (4, 3)
    model = Preprocessed(TestTimeAugmentation(network, 5), Deskew(4, 3))
    x = np.random.default_rng(0).random((20, 12), np.float32)
    np.testing.assert_allclose(exported(model, tmp_path / "net.py").predict(x), model.predict(x), rtol=1e-4)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize(
    ("deskew", "shifts"), [(None, 5), (Deskew(14, 10), 1), (Deskew(28, 20, shrink=2), 9)], ids=["tta", "deskew", "both"]
)
def test_deskew_and_test_time_augmentation_equal_those_of_the_model(deskew, shifts, loss, tmp_path):
    n_out = 10 if loss == "cross_entropy" else 1
    network = Network([140, 12, n_out], loss=loss, activation="relu", init="normal", rng=0)
    network.image_shape = (14, 10)
    model = network if shifts == 1 else TestTimeAugmentation(network, shifts)
    model = model if deskew is None else Preprocessed(model, deskew)
    height, width = model.image_shape
    digits = synthetic_digits(300, 1, seed=2)[0]
    x = np.zeros((300, height, width), np.uint8)
    x[...] = digits[:, 28 - height :, (28 - width) // 2 :][:, :height, :width]
    x[0], x[1], x[2] = 0, 255, 0
    x[2, 3] = 200  # an image of zeros, a uniform image, and a single row of ink
    x[3, :2, :2] = 255
    module = exported(model, tmp_path / "net.py")
    floats = x.astype(np.float32) / 255
    np.testing.assert_allclose(module.predict_proba(floats), model.predict_proba(floats), rtol=0, atol=2e-5)
    assert (module.predict(floats) == model.predict(floats)).all()
    # With the same arithmetic, all deskewed bytes are rounded to the same bytes.
    np.testing.assert_allclose(module.predict_proba(x), model.predict_proba(x), rtol=0, atol=2e-6)
    assert (module.predict(x) == model.predict(x)).all()
    assert (height, width) == module.IMAGE_SHAPE


@pytest.mark.parametrize("hog", [[HOG(9, 7, 3)], [HOG(9, 7, 4), HOG(4, 4, 2, channels=8)]], ids=["first", "second"])
def test_hog_equals_that_of_the_network(hog, tmp_path):
    """More images than are processed at once, as bytes and as floats."""
    network = Network([*hog, Dense(hog[-1].n_out, 8), ReLU(), Dense(8, 4)], loss="cross_entropy", rng=0)
    network.image_shape = (9, 7)
    module = exported(network, tmp_path / "net.py")
    images = np.random.default_rng(0).integers(0, 256, (2001, 9, 7)).astype(np.uint8)
    images[0] = 0  # its outputs are √ε
    for x in (images, images.astype(np.float32) / 255):
        p = module.predict_proba(x)
        assert p.dtype == np.float32
        np.testing.assert_allclose(p, network.predict_proba(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("value", "deskew"), [(1.5, False), (-0.5, False), (np.nan, False), (256, False), (-1, False), (1.5, True)]
)
def test_pixels_out_of_range_are_an_error(value, deskew, tmp_path):
    network = Network([4, 3], rng=0)
    network.image_shape = (2, 2)
    module = exported(Preprocessed(network, Deskew(2, 2)) if deskew else network, tmp_path / "net.py")
    x = np.array([[0, 1, 1, 0], [1, value, value, value]])
    with pytest.raises(ValueError, match=r"expected integers 0 to 255, or floats in \[0, 1\]"):
        module.predict(x)


def test_without_preprocessing_the_network_alone_is_exported(tmp_path):
    network = Network([4, 3], rng=0)
    module = exported(Preprocessed(network, Deskew(2, 2)), tmp_path / "net.py", without_preprocessing=True)
    x = np.random.default_rng(0).random((5, 4), np.float32)
    np.testing.assert_allclose(module.predict_proba(x), network.predict_proba(x), atol=1e-6)
