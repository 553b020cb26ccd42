"""What a comparison with PyTorch makes of its numbers; the comparison itself is in test_parity_peers.py."""

import json
import sys

import numpy as np
import pytest

from handgrad import Network
from handgrad.diagnostics.parity import Gradient, Parity, Steps, compare, random_batch


def parity(dtype="float64", loss=1.0, gradient=1e-15, steps=1e-14):
    gradients = [Gradient("0 Dense W", (3, 4), 2.0, 2.0, gradient), Gradient("0 Dense b", (3,), 1.0, 1.0, 1e-16)]
    return Parity(1.0, loss, gradients, [Steps("sgd", 0.05, {1: steps, 10: 1e-15})], dtype)


def test_the_largest_difference_is_judged_wherever_it_is():
    assert parity().passed
    assert parity().largest == 1e-14
    for wrong in ({"loss": 1 + 1e-8}, {"gradient": 1e-8}, {"steps": 1e-8}):
        assert not parity(**wrong).passed
        assert parity(**wrong).largest == pytest.approx(1e-8)


def test_what_is_no_number_does_not_pass():
    assert not parity(gradient=np.nan).passed
    assert not parity(steps=np.inf).passed
    assert not parity(loss=np.nan).passed


def test_in_float32_steps_are_told_and_not_judged():
    assert parity("float32", steps=1.0).passed
    assert not parity("float32", gradient=1e-2).passed


def test_it_is_told_in_a_table_and_in_json():
    table = list(parity().told("title"))
    assert table[0] == "title"
    assert any(line.split() == ["0", "Dense", "W", "3", "x", "4", "2", "2", "1.0e-15"] for line in table)
    assert any(line.split() == ["sgd,", "lr", "0.05", "1.0e-14", "1.0e-15"] for line in table)
    assert "the same to rounding" in table[-1]
    assert "NOT THE SAME" in list(parity(steps=1e-3).told("title"))[-1]
    rows = [json.loads(line) for line in parity().as_json()]
    assert rows[0]["loss"] == 1.0
    assert rows[-1] == {"largest": 1e-14, "tolerance": 1e-9, "passed": True}
    assert max(map(len, table)) <= 110


@pytest.mark.parametrize("loss", ["cross_entropy", "poisson"])
def test_a_batch_drawn_at_random_fits_the_network(loss):
    network = Network([4, 3], loss=loss, rng=0)
    x, y = random_batch(network, 5, np.random.default_rng(0))
    t = network.loss.targets(y, 5, 3, np.float64)
    assert (x.shape, t.shape) == ((5, 4), (5, 3))


def test_an_optimizer_that_pytorch_does_not_have_is_refused(refused):
    with refused("unknown optimizer 'muon'"):
        compare(Network([4, 3], rng=0), np.ones((2, 4)), [0, 1], optimizers=["muon"])


def test_a_batch_of_one_is_none_for_batch_norm(refused):
    with refused("a batch of one example: PyTorch's BatchNorm1d takes two or more"):
        compare(Network([4, 3, 3], batch_norm=True, rng=0), np.ones((1, 4)), [0])


def test_without_pytorch_one_line_says_what_installs_it(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "torch", None)
    with refused(r"'torch' is not installed: it comes with pip install 'handgrad\[peers\]'"):
        compare(Network([4, 3], rng=0), np.ones((2, 4)), [0, 1])
