"""Measurements: gradients, saturated and dead units, confusion, decision boundary, gradient check, walkthrough."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from handgrad import HOG, SGD, BatchNorm, CrossEntropy, Dense, Network, ReLU, Sigmoid, Tanh, fold_batchnorm
from handgrad.lab import measure
from handgrad.lab.examples import Library
from handgrad.lab.measure import Predictions, Probe
from handgrad.lab.presets import all_presets


def test_gradient_norms_are_those_of_backprop():
    network = Network([4, 5, 3], loss="cross_entropy", rng=0)
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((30, 4)).astype(np.float32), rng.integers(0, 3, 30)
    probe, theta = Probe(network, x, y), network.parameters.copy()
    network.parameters[...] = 0  # the probe measures the parameters that it is given
    measured = probe.measure(theta)
    network.parameters[...] = theta
    network.backprop(x, network.loss.targets(y, 30, 3, np.float32))
    first, second = network.layers[0], network.layers[2]
    expected = [np.hypot(np.linalg.norm(layer.dW), np.linalg.norm(layer.db)) for layer in (first, second)]
    np.testing.assert_allclose(measured.gradient_norms, expected, rtol=1e-5)


def test_measuring_does_not_change_the_network():
    network = Network([4, 5, 3], activation="relu", dropout=0.5, batch_norm=True, rng=0)
    state = [layer.rng.bit_generator.state for layer in network.layers if layer.rng is not None]
    before = network.parameters.copy(), network.gradient_buffer.copy()
    Probe(network, np.ones((10, 4), np.float32), np.zeros(10, int)).measure(network.parameters)
    np.testing.assert_array_equal(before[0], network.parameters)
    np.testing.assert_array_equal(before[1], network.gradient_buffer)
    assert [layer.rng.bit_generator.state for layer in network.layers if layer.rng is not None] == state


def test_saturated_share_counts_outputs_near_an_end_of_the_range():
    a = np.array([[0.005, 0.5], [0.995, 0.02]])
    assert measure.saturated_share(Sigmoid(), a) == 0.5
    assert measure.saturated_share(Tanh(), 2 * a - 1) == 0.5
    assert measure.saturated_share(ReLU(), a) is None


def test_dead_share_counts_units_that_are_never_positive():
    a = np.array([[0.0, 0.0, 1.0, 0.0], [0.0, 2.0, 0.0, 0.0]])
    assert measure.dead_share(ReLU(), a) == 0.5
    assert measure.dead_share(Sigmoid(), a) is None


def test_saturation_has_an_entry_for_each_row_of_the_table_that_has_an_activation():
    network = Network([4, 5, 6, 3], activation=["tanh", "relu"], dropout=0.1, rng=0)
    measured = Probe(network, np.ones((10, 4), np.float32), np.zeros(10, int)).measure(network.parameters)
    rows = [row for row in measure.layer_table(network) if row["kind"] in ("activation", "output")]
    assert [row["name"] for row in rows] == ["Tanh", "ReLU", "Sigmoid of the output"]
    assert [value is None for value in measured.saturated] == [False, True, False]
    assert [value is None for value in measured.dead] == [True, False, True]


def test_update_ratio_is_relative_to_the_weights_before_the_step():
    network = Network([Dense(1, 1), ReLU(), Dense(1, 1)], rng=0)
    network.parameters[...] = [3, 4, 0, 0]
    before = network.parameters.copy()
    network.parameters[...] = [3, 4.5, 1, 0]
    assert measure.update_ratios(network, before) == [pytest.approx(0.1), None]


def test_cell_has_the_images_with_the_most_confident_first():
    predicted = Predictions(np.array([9, 4, 9, 9]), np.array([0.5, 0.9, 0.8, 0.7]))
    y = np.array([4, 4, 4, 9])
    assert measure.cell(predicted, y, 4, 9).tolist() == [2, 0]
    assert measure.cell(predicted, y, 4, None).tolist() == [1, 2, 0]
    assert measure.cell(predicted, y, 0, 1).tolist() == []
    table = measure.confusion(predicted, y, tuple("0123456789"))
    assert table["matrix"][4][9] == 2
    assert table["accuracy"] == 0.5


def test_boundary_has_the_smallest_coordinates_first():
    network = Network([Dense(2, 2)], loss="cross_entropy", rng=0)
    network.parameters[...] = [0, 0, 0, 9, 0, 0]  # class 1 above the x axis
    grid, (low, high) = measure.boundary(network, np.array([[1.0, -2.0]]))
    assert grid.shape == (measure.BOUNDARY, measure.BOUNDARY)
    assert high == -low == pytest.approx(2.2)
    assert (grid[0] < 0.01).all()
    assert (grid[-1] > 0.99).all()


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "cross_entropy", "squared_error"])
def test_gradient_check_passes_for_a_network_and_fails_for_a_wrong_gradient(loss, monkeypatch):
    network = Network([3, 4, 2], loss=loss if loss != "squared_error" else "binary_cross_entropy", rng=0)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((10, 3)).astype(np.float32), rng.integers(0, 2, 10)
    result = measure.check(network, x, y)
    assert result["ok"]
    assert result["largest_relative_error"] < 1e-6
    monkeypatch.setattr(Sigmoid, "backward", lambda self, da: da * self.a)
    assert not measure.check(network, x, y)["ok"]


def test_gradient_check_is_not_misled_by_the_kinks_of_relu(monkeypatch):
    network = Network([3, 8, 2], activation="relu", loss="cross_entropy", rng=0)
    x = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    x[0] = 0  # with biases of 0, all hidden units are at their kink
    y = np.arange(20) % 2
    assert measure.check(network, x, y)["ok"]
    monkeypatch.setattr(measure, "ATTEMPTS", 1)
    assert not measure.check(network, x, y)["ok"]


@pytest.mark.parametrize("hog", [[HOG(28, 28, 4)], [HOG(28, 28, 8), HOG(8, 8, 2, channels=8)]], ids=["first", "second"])
def test_gradient_check_is_not_misled_by_the_kinks_of_hog_in_the_background(hog):
    examples = Library().examples("synthetic", 60)
    layers = [*hog, Dense(hog[-1].n_out, 12), Tanh(), Dense(12, 10)]
    found = measure.check(Network(layers, loss="cross_entropy", rng=0), examples.x_train, examples.y_train)
    assert found["ok"], found
    assert [row["name"].rsplit(" ", 1)[0] for row in found["per_layer"]][:2] == [f"layer {len(hog)} Dense"] * 2


def test_walkthrough_shows_the_gradient_of_backprop():
    network, x, y, lr = measure.small_network()
    steps = measure.walkthrough(network, x, y, lr)["steps"]
    network.backprop(x, network.loss.targets(y, 1, 1, np.float64))
    shown = {(step["layer"], name): np.array(value["all"]) for step in steps for name, value in step["values"].items()}
    for i in (0, 2):
        np.testing.assert_allclose(shown[i, "dW"], network.layers[i].dW)
        np.testing.assert_allclose(shown[i, "W"], network.layers[i].W - lr * network.layers[i].dW)
    titles = [step["title"] for step in steps]
    assert titles[0] == "Input"
    assert sum(title.startswith("Backward") for title in titles) == 4
    assert sum(title.startswith("Step") for title in titles) == 2
    SGD(lr).step(network)
    z = network.forward(x)
    assert titles[-1] == "Forward again"
    np.testing.assert_allclose(shown[None, "p"], network.loss.activation(z)[0])
    np.testing.assert_allclose(shown[None, "L"], network.loss.value(z, np.zeros((1, 1))))


def test_small_walkthrough_has_the_numbers_of_the_tutorial():
    page = Path(__file__).parents[2] / "docs/tutorials/backprop-by-numbers.md"
    if not page.is_file():
        pytest.skip("the documentation is not in an installed package")
    rows = re.findall(r"^\| `(\w+)(?:\[([0-9, ]+)\])?` \|.*\| (-?[0-9.]+) \|$", page.read_text(encoding="utf-8"), re.M)
    steps = measure.walkthrough(*measure.small_network())["steps"][:-1]  # without the second forward pass
    found: dict[str, np.ndarray] = {}
    for step in steps:
        for name, value in step["values"].items():
            number = "" if name[-1].isdigit() or name in "xtpL" else str(1 + step["layer"] // 2)
            if not step["title"].startswith("Step"):
                found[name + number] = np.array(value["all"]).squeeze()
    assert len(rows) == 7 + 1 + 5 + 2 + 6
    for name, index, number in rows:
        at = tuple(map(int, index.split(", "))) if index else ()
        assert found[name][at] == pytest.approx(float(number), abs=5e-5)


def test_second_forward_pass_keeps_the_units_that_are_dropped():
    network = Network([4, 50, 3], activation="relu", loss="cross_entropy", dropout=0.5, rng=0, dtype=np.float64)
    steps = measure.walkthrough(network, np.ones((1, 4)), [1], 1e-9)["steps"]
    before, after = (step["values"]["L"]["all"][0] for step in steps if "L" in step["values"])
    assert after < before == pytest.approx(after)


def test_walkthrough_uses_the_running_statistics_of_batch_norm():
    layers = [HOG(4, 4, 1), Dense(8, 3), BatchNorm(3), Tanh(), Dense(3, 2)]
    network = Network(layers, loss="cross_entropy", rng=0, dtype=np.float64)
    x, y = np.random.default_rng(0).random((60, 16)), np.arange(60) % 2
    network.fit(x, y, 3, lr=0.01, progress=False, rng=0)
    steps = measure.walkthrough(network, x[:1], y[:1], 0.1)["steps"]
    shown = {step["title"]: step["values"] for step in steps}
    dx = fold_batchnorm(network).input_gradient(x[:1], network.loss.targets(y[:1], 1, 2, np.float64))
    np.testing.assert_allclose(shown["Backward: HOG 16-8"]["dx"]["all"], dx[0], atol=1e-12)
    assert np.abs(dx).max() > 1e-6


def test_walkthrough_summarizes_large_arrays():
    network = Network([784, 30, 10], rng=0)
    steps = measure.walkthrough(network, np.ones((1, 784)), [3], 0.5)["steps"]
    W = steps[1]["values"]["W"]
    assert W["shape"] == [30, 784]
    assert len(W["first"]) == measure.SHOWN
    assert W["max"] == pytest.approx(network.layers[0].W.max())


def test_flip_changes_the_answer():
    library = Library()
    examples = library.examples("synthetic", 500)
    network = Network([784, 20, 10], activation="relu", loss=CrossEntropy(), rng=0)
    network.fit(examples.x_train, examples.y_train, 3, progress=False, rng=0)
    found = measure.flip(network, examples.x_validation[0])
    assert found["from"] == str(network.predict(examples.x_validation[:1])[0])
    assert found["to"] != found["from"]
    assert found["pixels"].shape == found["change"].shape == (28, 28)
    assert found["norm"] > 0


# ---- What the presets promise, on synthetic digits, after a few steps --------------------------------------


def started(name, experiment, finish, steps=2):
    preset = next(one for one in all_presets("synthetic") if one.name == name)
    lab = experiment(*(replace(one, n_train=1000) for one in preset.runs))
    for _ in range(steps):
        finish(lab, "step")
    return lab


def test_squared_error_starts_with_smaller_gradients_than_cross_entropy(experiment, finish, events):
    lab = started("quadratic", experiment, finish, 1)
    squared, entropy = (point["gradient_norms"] for point in events(lab, "point"))
    assert all(2 * a < b for a, b in zip(squared, entropy, strict=True))


def test_normal_weights_saturate_hidden_units_and_xavier_weights_do_not(experiment, finish, events):
    lab = started("initialization", experiment, finish, 1)
    normal, xavier = (point["saturated"][0] for point in events(lab, "point"))
    assert normal > 0.5
    assert xavier < 0.01


def test_gradients_vanish_through_sigmoids_and_not_through_relu(experiment, finish, events):
    lab = started("deep", experiment, finish, 1)
    sigmoid, relu = (point["gradient_norms"] for point in events(lab, "point"))
    assert 50 * sigmoid[0] < sigmoid[-1]
    assert relu[-1] < 5 * relu[0]


def test_large_rate_saturates_the_hidden_units(experiment, finish, events):
    lab = started("large-rate", experiment, finish, 3)
    large, small = events(lab, "point")[-2:]
    assert large["saturated"][0] > 0.9
    assert small["saturated"][0] < 0.1
