"""Results of a comparison with PyTorch, without PyTorch. The comparison itself is tested in test_parity_peers.py."""

import json
import sys

import numpy as np
import pytest

from handgrad import Ensemble, Network
from handgrad.diagnostics.parity import Gradient, Parity, Steps, compare, random_batch


def parity(dtype="float64", loss=1.0, gradient=1e-15, steps=1e-14):
    gradients = [Gradient("0 Dense W", (3, 4), 2.0, 2.0, gradient), Gradient("0 Dense b", (3,), 1.0, 1.0, 1e-16)]
    return Parity(1.0, loss, gradients, [Steps("sgd", 0.05, {1: steps, 10: 1e-15})], dtype)


def test_the_largest_difference_of_loss_gradients_and_weights_decides():
    assert parity().passed
    assert parity().largest == 1e-14
    for wrong in ({"loss": 1 + 1e-8}, {"gradient": 1e-8}, {"steps": 1e-8}):
        assert not parity(**wrong).passed
        assert parity(**wrong).largest == pytest.approx(1e-8)


def test_nan_and_infinity_do_not_pass():
    assert not parity(gradient=np.nan).passed
    assert not parity(steps=np.inf).passed
    assert not parity(loss=np.nan).passed


def test_float32_does_not_judge_the_weights():
    assert parity("float32", steps=1.0).passed
    assert not parity("float32", gradient=1e-2).passed


def test_table_and_json_have_the_same_numbers():
    table = list(parity().table("title"))
    assert table[0] == "title"
    assert any(line.split() == ["0", "Dense", "W", "3", "x", "4", "2", "2", "1.0e-15"] for line in table)
    assert any(line.split() == ["sgd,", "lr", "0.05", "1.0e-14", "1.0e-15"] for line in table)
    assert "equal to rounding" in table[-1]
    assert "NOT EQUAL" in list(parity(steps=1e-3).table("title"))[-1]
    rows = [json.loads(line) for line in parity().as_json()]
    assert rows[0]["loss"] == 1.0
    assert rows[-1] == {"largest": 1e-14, "tolerance": 1e-9, "passed": True}
    assert max(map(len, table)) <= 110


@pytest.mark.parametrize("loss", ["cross_entropy", "poisson"])
def test_a_random_batch_fits_the_network(loss):
    network = Network([4, 3], loss=loss, rng=0)
    x, y = random_batch(network, 5, np.random.default_rng(0))
    t = network.loss.targets(y, 5, 3, np.float64)
    assert (x.shape, t.shape) == ((5, 4), (5, 3))


def test_optimizers_that_pytorch_does_not_have_are_rejected(rejects):
    with rejects("unknown optimizer 'muon'"):
        compare(Network([4, 3], rng=0), np.ones((2, 4)), [0, 1], optimizers=["muon"])


def test_an_ensemble_is_rejected(rejects):
    with rejects("expected a single network, got Ensemble: compare its members"):
        compare(Ensemble([Network([4, 3], rng=0)]), np.ones((2, 4)), [0, 1])


def test_batch_norm_needs_two_examples(rejects):
    with rejects("x has 1 example: PyTorch's BatchNorm1d expects at least 2"):
        compare(Network([4, 3, 3], batch_norm=True, rng=0), np.ones((1, 4)), [0])


def test_without_pytorch_the_message_names_the_command_that_installs_it(monkeypatch, rejects):
    monkeypatch.setitem(sys.modules, "torch", None)
    with rejects(r"'torch' is not installed: run pip install 'handgrad\[peers\]'"):
        compare(Network([4, 3], rng=0), np.ones((2, 4)), [0, 1])
