"""Histograms of activations and gradients by epoch: counts, thinning, checkpoints, plot."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from handgrad import Adam, Callback, Checkpoint, Dense, Dropout, Network, ReLU, Trainer
from handgrad.callbacks import resume
from handgrad.diagnostics import Histogram, Histograms, histograms, plots

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 4)), np.arange(30) % 3


class KeepNetworks(Callback):
    """Copies of the network after each epoch."""

    def __init__(self) -> None:
        self.networks: list[Network] = []

    def on_epoch_end(self, trainer: Trainer) -> None:
        self.networks.append(copy.deepcopy(trainer.network))


def train(*callbacks: Callback, epochs: int = 3, layers: Any = None) -> Trainer:
    network = Network(layers or [Dense(4, 6), ReLU(), Dropout(0.3), Dense(6, 3)], loss="cross_entropy", rng=0)
    trainer = Trainer(network, Adam(0.05), batch_size=10, callbacks=callbacks, rng=0)
    trainer.fit(X, Y, epochs=epochs, progress=False)
    return trainer


def test_histograms_count_the_activations_and_gradients_of_each_epoch() -> None:
    recorded, kept = Histograms(X, Y, bins=7), KeepNetworks()
    train(recorded, kept)
    assert recorded.epochs == [1, 2, 3]
    assert list(recorded.activations) == ["Dense 0", "ReLU 1", "Dense 3"]
    assert list(recorded.gradients) == ["Dense 0", "Dense 3"]
    for i, network in enumerate(kept.networks):
        outputs = network.activations(X)
        for name, a in (("Dense 0", outputs[0]), ("ReLU 1", outputs[1]), ("Dense 3", outputs[3])):
            counts, edges = np.histogram(a.astype(float), 7)
            np.testing.assert_array_equal(recorded.activations[name][i].counts, counts)
            np.testing.assert_allclose(recorded.activations[name][i].edges, edges)
        network.backprop(X.astype(np.float32), np.eye(3, dtype=np.float32)[Y])
        dW = network.layers[3].dW
        expected = np.histogram(np.log10(np.abs(dW[dW != 0])).astype(float), 7)
        np.testing.assert_array_equal(recorded.gradients["Dense 3"][i].counts, expected[0])
        np.testing.assert_allclose(recorded.gradients["Dense 3"][i].edges, expected[1])


def test_recording_does_not_change_the_training() -> None:
    plain, recorded = train(), train(Histograms(X, Y))
    np.testing.assert_array_equal(plain.network.parameters, recorded.network.parameters)


def test_old_epochs_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histograms, "MAX_RECORDS", 4)
    recorded = Histograms(X, Y)
    train(recorded, epochs=21)
    assert recorded.epochs == [8, 16]
    assert {len(records) for records in (*recorded.activations.values(), *recorded.gradients.values())} == {2}
    every_third = Histograms(X, Y, every=3)
    train(every_third, epochs=10)
    assert every_third.epochs == [3, 6, 9]


def test_only_the_first_512_examples_are_used() -> None:
    recorded = Histograms(np.tile(X, (20, 1)), np.tile(Y, 20))
    train(recorded, epochs=1)
    assert recorded.activations["Dense 3"][0].counts.sum() == 512 * 3


@pytest.mark.parametrize("interrupted", [1, 2])
def test_resumed_training_continues_the_histograms(interrupted: int, tmp_path: Path) -> None:
    whole = Histograms(X, Y, bins=5)
    train(whole, Checkpoint(tmp_path / "whole"))
    train(Histograms(X, Y, bins=5, every=2), Checkpoint(tmp_path / "c"), epochs=interrupted)  # 1: still empty
    train(Histograms(X, Y, bins=5), Checkpoint(tmp_path / "d"), epochs=interrupted)
    resumed = Histograms(X, Y, bins=5)
    trainer = train(resumed, Checkpoint(tmp_path / "e"), epochs=0)
    resume(trainer, tmp_path / "c")
    assert resumed.epochs == [2] * (interrupted == 2)
    resume(trainer, tmp_path / "d")
    trainer.fit(X, Y, until_epoch=3, progress=False)
    assert resumed.epochs == whole.epochs == [1, 2, 3]
    for a, b in ((resumed.activations, whole.activations), (resumed.gradients, whole.gradients)):
        assert list(a) == list(b)
        for name in a:
            for ours, theirs in zip(a[name], b[name], strict=True):
                np.testing.assert_array_equal([*ours.counts, *ours.edges], [*theirs.counts, *theirs.edges])


def test_second_training_starts_without_the_histograms_of_the_first() -> None:
    recorded = Histograms(X, Y)
    train(recorded, epochs=3)
    train(recorded, epochs=1, layers=[4, 3])
    assert recorded.epochs == [1]
    assert list(recorded.activations) == ["Dense 0"]


@pytest.mark.parametrize(
    "change",
    [{"epochs": 3}, {"activations": np.zeros((3, 2, 5))}, {"gradients": "x"}, {"step": 0}, {"epochs": [1.5, 2]}],
)
def test_damaged_state_is_rejected(change: dict[str, Any], rejects: Any) -> None:
    recorded = Histograms(X, Y)
    train(recorded, epochs=2)
    state = recorded.state_dict()
    with rejects("Histograms: "):
        recorded.load_state_dict(state | change)
    with rejects("not one of histograms with 9 bins"):
        Histograms(X, Y, bins=9).load_state_dict(state)
    assert recorded.epochs == [1, 2]


def test_constant_infinite_and_missing_values_have_a_histogram() -> None:
    for values, total in (([2.0, 2.0], 2), ([0.0], 1), ([], 0), ([1.0, np.inf, np.nan, 2.0], 2)):
        counts, edges = histograms.histogram(values, 4)
        assert (counts.sum(), len(edges)) == (total, 5)
        assert (np.diff(edges) > 0).all()


def test_plot_is_darkest_where_the_values_are(tmp_path: Path) -> None:
    edges = np.linspace(0, 1, 11)
    low, high = np.zeros(10), np.zeros(10)
    low[:2], high[8:] = 5, 3
    figure = plots.histograms(
        [2, 4, 5], {"a": [Histogram(c, edges) for c in (low, low, high)]}, path=tmp_path / "h.png"
    )
    assert isinstance(figure, Figure)
    (axes,) = (axes for axes in figure.axes if axes.axison)
    (mesh,) = axes.collections
    image = mesh.get_array()
    rows = np.linspace(0, 1, len(image))
    for column, (first, last) in enumerate([(0, 0.2), (0, 0.2), (0.8, 1)]):
        assert first - 0.02 < rows[image[:, column] > 0.9].mean() < last + 0.02
        assert image[(rows > 0.25) & (rows < 0.75), column].max() == 0
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], [1, 3, 4.5, 5.5])
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")


def test_plot_has_a_panel_for_each_layer_and_works_for_one_epoch() -> None:
    recorded = Histograms(X, Y)
    train(recorded, epochs=1)
    titles = [axes.get_title(loc="left") for axes in recorded.plot().axes if axes.axison]
    gradients = [f"log10 |gradient| of {name}" for name in ("Dense 0", "Dense 3")]
    assert titles == ["Dense 0", "ReLU 1", "Dense 3", *gradients]


def test_invalid_examples_are_rejected_before_the_first_step(rejects: Any) -> None:
    with rejects("4"):
        train(Histograms(X[:, :3], Y))
    with rejects("y"):
        train(Histograms(X, Y[:5]))
    with rejects("bins must be an integer >= 2"):
        Histograms(X, Y, bins=1)
    with rejects("there are no histograms"):
        Histograms(X, Y).plot()
