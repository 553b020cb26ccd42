"""examples/post.py, the oracle of other tests, is itself correct."""

import gzip
import importlib.util
import math
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

POST = Path(__file__).parents[2] / "examples" / "post.py"

spec = importlib.util.spec_from_file_location("post", POST)
post = importlib.util.module_from_spec(spec)
spec.loader.exec_module(post)


def column(*numbers):
    return np.array(numbers, np.float64).reshape(-1, 1)


def quadratic_loss(y, yhat):
    return np.sum((yhat - y) ** 2) / 2


LOSSES = {"cross-entropy": post.cross_entropy_loss, "quadratic": quadratic_loss}


def test_sigmoid_and_its_derivative_have_hand_worked_values():
    z = column(0.0, math.log(3), -math.log(3))
    np.testing.assert_allclose(post.sigmoid(z), column(1 / 2, 3 / 4, 1 / 4), rtol=1e-15)
    np.testing.assert_allclose(post.sigmoid_d(z), column(1 / 4, 3 / 16, 3 / 16), rtol=1e-15)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        assert post.sigmoid(column(-1e4, 1e4)).tolist() == [[0.0], [1.0]]


def test_cross_entropy_has_hand_worked_values_and_is_finite():
    # -[ln(1 - 1/4) + ln(1/2)] = ln(8/3), and the mean of ln(8/3) and 2 ln 2
    assert post.cross_entropy_loss(column(0, 1), column(1 / 4, 1 / 2)) == pytest.approx(math.log(8 / 3), rel=1e-14)
    y, yhat = np.array([[0, 1], [1, 0]]), np.array([[1 / 4, 1 / 2], [1 / 2, 1 / 2]])
    assert post.cross_entropy_loss(y, yhat) == pytest.approx((math.log(8 / 3) + math.log(4)) / 2, rel=1e-14)
    assert 0 <= post.cross_entropy_loss(column(0, 1), column(0, 1)) < 1e-15
    assert 700 < post.cross_entropy_loss(column(0, 1), column(1, 0)) < math.inf


def check_gradients(network, x, y, loss, tolerance=1e-7):
    """Compare every gradient of network.backprop with the central difference of the loss."""
    eps = 1e-5
    gradient_b, gradient_w = network.backprop(x, y)
    for parameter, gradient in zip([*network.bias, *network.weights], [*gradient_b, *gradient_w], strict=True):
        assert parameter.shape == gradient.shape
        for i in np.ndindex(parameter.shape):
            value = parameter[i]
            parameter[i] = value + eps
            above = loss(y, network.ff(x))
            parameter[i] = value - eps
            below = loss(y, network.ff(x))
            parameter[i] = value
            slope = (above - below) / (2 * eps)
            assert abs(gradient[i] - slope) <= tolerance * max(1e-2, abs(slope)), (i, gradient[i], slope)


@pytest.mark.parametrize("cost", LOSSES)
@pytest.mark.parametrize("size", [[1, 1], [2, 7, 1], [3, 5, 4, 1, 3, 2]], ids=str)
def test_backprop_agrees_with_finite_differences(size, cost):
    rng = np.random.default_rng(1)
    network = post.Network(size, cost=cost, rng=rng)
    check_gradients(network, rng.standard_normal((size[0], 1)), rng.random((size[-1], 1)), LOSSES[cost])


@pytest.mark.parametrize("error", ["0.1 % off", "other cost", "transposed"])
def test_planted_error_is_detected(error):
    rng = np.random.default_rng(2)
    network = post.Network([3, 3, 3], rng=rng)
    x, y = rng.standard_normal((3, 1)), rng.random((3, 1))
    if error == "other cost":
        network.cost = "quadratic"
    gradient_b, gradient_w = network.backprop(x, y)
    if error == "0.1 % off":
        gradient_w[0] = gradient_w[0] * 1.001
    elif error == "transposed":
        gradient_w[1] = gradient_w[1].transpose()
    network.backprop = lambda x, y: (gradient_b, gradient_w)
    with pytest.raises(AssertionError):
        check_gradients(network, x, y, post.cross_entropy_loss)


@pytest.mark.parametrize(("cost", "factor"), [("cross-entropy", 1), ("quadratic", 1 / 4)])
def test_update_takes_a_hand_worked_step(cost, factor):
    # With w = b = 0 each output is 1/2, so delta is -1/2, -1/2, 1/2, or a quarter of that (sigmoid' = 1/4):
    # the mean of delta is -1/6, the mean of delta x is (-1 - 1 + 4) / 6 = 1/3. A rate of 3 takes b to 1/2 and w to -1.
    network = post.Network([1, 1], cost=cost, rng=0)
    network.weights, network.bias = [np.zeros((1, 1))], [np.zeros((1, 1))]
    network.update([(column(1), column(1)), (column(1), column(1)), (column(4), column(0))], 3.0)
    assert network.weights[0].item() == pytest.approx(-factor, rel=1e-15)
    assert network.bias[0].item() == pytest.approx(factor / 2, rel=1e-15)


def test_sgd_uses_every_example_once_per_epoch_in_a_new_order():
    network = post.Network([3, 2], rng=5)
    train = [(column(i, 0, 0), column(0, 1)) for i in range(23)]
    batches = []
    network.update = lambda batch, rate: batches.append([x[0, 0] for x, _ in batch])
    network.sgd(2, 5, 0.1, train)
    assert [len(batch) for batch in batches] == 2 * [5, 5, 5, 5, 3]
    first, second = ([x for batch in batches[i : i + 5] for x in batch] for i in (0, 5))
    assert sorted(first) == sorted(second) == list(range(23))
    assert list(range(23)) != first != second
    assert [x[0, 0] for x, _ in train] == list(range(23))  # the list of the caller is not changed


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + array.tobytes())


@pytest.fixture
def stripes(tmp_path):
    """A data set in which the digit d is a bright band at height d."""
    rng = np.random.default_rng(9)
    for name, n in [("train", 300), ("t10k", 40)]:
        labels = (np.arange(n) % 10).astype(np.uint8)
        images = rng.integers(0, 60, (n, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 4 : 2 * label + 6, 4:24] = 250
        write_idx(tmp_path / f"{name}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte.gz", labels)
    return tmp_path


def run(*arguments):
    command = [sys.executable, "-W", "error", str(POST), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_script_trains(stripes):
    done = run(stripes, 12, 250)
    assert (done.returncode, done.stderr) == (0, "")
    *epochs, loss = done.stdout.splitlines()
    counts = [int(re.fullmatch(rf"Epoch {i}: (\d+) / 40", line)[1]) for i, line in enumerate(epochs)]
    assert len(counts) == 12
    assert counts[-1] >= 36
    assert re.fullmatch(r"Cross-entropy on the 40 test images: \d\.\d{4}", loss)


@pytest.mark.parametrize("problem", ["directory", "truncated", "number"])
def test_script_reports_invalid_input_in_one_line(stripes, problem):
    labels = stripes / "train-labels-idx1-ubyte.gz"
    if problem == "truncated":
        labels.write_bytes(labels.read_bytes()[:-20])
    done = run(stripes / "missing" if problem == "directory" else stripes, "many" if problem == "number" else 1)
    assert done.returncode != 0
    assert done.stdout == ""
    assert re.fullmatch(r"post\.py: .+\n", done.stderr)
