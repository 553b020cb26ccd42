"""HOG in C and JavaScript: images of any size, in any network, wrapper and ensemble."""

import shutil
import subprocess

import numpy as np
import pytest

from handgrad import HOG, Dense, Deskew, Ensemble, Network, Preprocessed, ReLU, TestTimeAugmentation
from handgrad.export import TARGETS, export
from handgrad.export.graph import inference_graph
from handgrad.wrappers import Calibrated


def hog_network(height, width, cells, before=()):
    layers = [*before, HOG(height, width, cells), Dense(8 * cells**2, 6), ReLU(), Dense(6, 3)]
    network = Network(layers, loss="cross_entropy", rng=0)
    network.parameters *= 3
    network.image_shape = (height, width)
    return network


def second_order_network():
    network = Network([HOG(9, 7, 4), HOG(4, 4, 2, channels=8), Dense(256, 3)], loss="cross_entropy", rng=2)
    network.image_shape = (9, 7)
    return network


def pixel_network():
    network = Network([Dense(63, 3)], loss="cross_entropy", rng=1)
    network.image_shape = (9, 7)
    return network


def wrapped_ensemble():
    """An ensemble in which one network has HOG and one has not, in all wrappers."""
    ensemble = Ensemble([hog_network(9, 7, 3), pixel_network(), hog_network(9, 7, 2)])
    return Preprocessed(Calibrated(TestTimeAugmentation(ensemble, 5), 0.7), Deskew(18, 14, shrink=2))


MODELS = {
    "9x7 pixels": lambda: hog_network(9, 7, 3),
    "5x12 pixels": lambda: hog_network(5, 12, 5),
    "1 pixel": lambda: hog_network(1, 1, 1),
    "second-order gradients": second_order_network,
    "two HOG layers after a layer that works in place": lambda: hog_network(9, 8, 2, [ReLU(), HOG(9, 8, 3)]),
    "wrapped ensemble": wrapped_ensemble,
}


def command(to, path):
    """The command that runs an exported file. A C file is compiled without warnings."""
    tool = {"c": "gcc", "js": "node"}[to]
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    if to == "js":
        return [tool, path]
    program = path.with_suffix(".bin")
    flags = ["-O2", "-Wall", "-Wextra", "-std=c99", "-pedantic", "-DNET_MAIN"]
    done = subprocess.run([tool, *flags, path, "-o", program, "-lm"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return [program]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("to", ["c", "js"])
def test_predictions_are_those_of_handgrad(to, name, tmp_path):
    model, rng = MODELS[name](), np.random.default_rng(0)
    images = rng.integers(0, 256, (20, *model.image_shape)).astype(np.uint8)
    images[rng.random(images.shape) < 0.5] = 0
    images[0], images[1] = 0, 255  # without an edge, and with edges at the border only
    x = images if inference_graph(model).takes_bytes else images.astype(np.float32) / np.float32(255)
    path = tmp_path / f"net{TARGETS[to].suffix}"
    export(model, path, to=to)
    done = subprocess.run(command(to, path), input=x.tobytes(), capture_output=True, check=True)
    printed = np.array([line.split() for line in done.stdout.splitlines()], float)
    np.testing.assert_allclose(printed[:, 1:], model.predict_proba(images), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(printed[:, 0], model.predict(images))
