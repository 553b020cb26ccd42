"""Published tables: that what is trained for them is what their settings say, and read where their rows say."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))  # the reproductions are no part of the package

from handgrad import SGD, Adam, Augmentation, Dense, Dropout, Momentum, Network, ReLU, Sigmoid, Tanh, Trainer
from handgrad.data.dataset import Dataset, Split
from handgrad.losses import BinaryCrossEntropy, Quadratic, CrossEntropy
from handgrad.model import Evaluation
from reproductions import glorot, gradients, he, neurons, nielsen, page, plain, simard, srivastava, tables
from reproductions.tables import Figures, Run, Table

HELD_OUT = 10_000  # the scripts hold out so many, so there must be more of them


# ---- What is kept can be made again ----------------------------------------------------------------------------------


def kept(chosen: Table, run: str, seed: int) -> dict[str, float]:
    """The figures of one run as they stand in NAME.json."""
    record = json.loads((tables.HERE / f"{chosen.name}.json").read_text())
    (figures,) = [done["figures"] for done in record["runs"][run]["done"] if done["seed"] == seed]
    return dict(figures)


@pytest.mark.parametrize("run", neurons.RUNS)
def test_the_neurons_are_those_that_are_kept(run: str) -> None:
    assert neurons.train(neurons.RUNS[run].settings, 0) == pytest.approx(kept(neurons.TABLE, run, 0), rel=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("run", gradients.RUNS)
def test_the_gradients_are_those_that_are_kept(run: str, seed: int, mnist: Path) -> None:
    figures = gradients.train(gradients.RUNS[run].settings, seed)
    assert figures == pytest.approx(kept(gradients.TABLE, run, seed), rel=1e-4)


# ---- A training that is watched --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def patterns() -> Dataset:
    """In MNIST's place: ten patterns of 28x28 bytes under noise, as many as the scripts hold out and 100 more."""
    rng = np.random.default_rng(3)
    drawn = rng.integers(0, 2, (10, 28, 28), np.uint8) * 120
    x, y = rng.integers(0, 136, (HELD_OUT + 400, 28, 28), np.uint8), rng.integers(0, 10, HELD_OUT + 400, np.uint8)
    x += drawn[y]
    return Dataset(x[300:], y[300:], x[:300], y[:300], "patterns", tuple("0123456789"))


@dataclasses.dataclass
class Watched:
    """What one `train` did: its trainer, what `fit` was given, the weights before it, what was evaluated afterwards."""

    dataset: Dataset
    trainer: Trainer | None = None
    given: dict[str, Any] = dataclasses.field(default_factory=dict)
    born: Network | None = None
    began: dict[str, Any] = dataclasses.field(default_factory=dict)  # the state of the shuffling
    fitting: bool = False
    evaluated: list[tuple[NDArray[Any], NDArray[Any], Evaluation]] = dataclasses.field(default_factory=list)

    @property
    def split(self) -> Split:
        return self.dataset.split(HELD_OUT)

    def done(self) -> tuple[Trainer, Any, Network]:
        """The trainer, its optimizer, the network as it was before the first step."""
        assert self.trainer is not None
        assert self.born is not None
        return self.trainer, self.trainer.optimizer, self.born

    def took(self, part: tuple[Any, Any], images: int, epochs: int, batch_size: int) -> None:
        """It trained on the first `images` of this part, so many epochs of batches of that size."""
        trainer, optimizer, _ = self.done()
        np.testing.assert_array_equal(self.given["x"], part[0][:images])
        np.testing.assert_array_equal(self.given["y"], part[1][:images])
        assert (self.given["epochs"], trainer.epoch) == (epochs, epochs)
        assert trainer.batch_size == batch_size
        assert optimizer.steps == epochs * math.ceil(images / batch_size)

    def read(self, *part: Any) -> float:
        """The accuracy on this set, the only one that was evaluated beside those within `fit`, and after it."""
        ((x, y, evaluation),) = self.evaluated
        np.testing.assert_array_equal(x, part[0])
        np.testing.assert_array_equal(y, part[1])
        return evaluation.accuracy


# What the history is made to say, so that the first, the best and the last epoch are told apart.
ACCURACY, WATCHED_ACCURACY = [0.3, 0.6, 0.4], [0.25, 0.75, 0.5]
EPOCHS = 3

Train = Callable[[dict[str, Any], int], Figures]


@pytest.fixture
def watch(patterns: Dataset, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Watched, Figures]]:
    """Called with (train, settings, seed): what was done, and the figures; trained in earnest, on few pictures."""
    for module in (tables, nielsen, plain):
        monkeypatch.setattr(module, "load", {"mnist": patterns}.__getitem__)
    fit, evaluate, current = Trainer.fit, Network.evaluate, [Watched(patterns)]

    def watched_fit(trainer: Trainer, x: Any, y: Any, *, validation: Any = None, **rest: Any) -> Any:
        seen = current[0]
        assert seen.trainer is None, "trained twice"
        seen.trainer, seen.given = trainer, {"x": x, "y": y, "validation": validation, **rest}
        seen.born, seen.began = trainer.network.astype(np.float32), trainer.shuffling.bit_generator.state
        seen.fitting = True
        few = None if validation is None else tuple(part[:50] for part in validation)
        history = fit(trainer, x, y, validation=few, **rest)
        seen.fitting = False
        assert len(history["accuracy"]) == EPOCHS
        history["accuracy"] = list(ACCURACY)
        if validation is not None:
            history["val_accuracy"] = list(WATCHED_ACCURACY)
        return history

    def watched_evaluate(network: Network, x: Any, y: Any) -> Evaluation:
        evaluation, seen = evaluate(network, x, y), current[0]
        if not seen.fitting:
            assert seen.trainer is not None, "evaluated before it was trained"
            assert seen.trainer.network is network
            seen.evaluated.append((x, y, evaluation))
        return evaluation

    def run(train: Train, settings: dict[str, Any], seed: int = 0) -> tuple[Watched, Figures]:
        current[0] = Watched(patterns)
        figures = train({**settings, "epochs": EPOCHS}, seed)
        return current[0], figures

    monkeypatch.setattr(Trainer, "fit", watched_fit)
    monkeypatch.setattr(Network, "evaluate", watched_evaluate)
    return run


def dense(network: Network) -> list[Dense]:
    return [layer for layer in network.layers if isinstance(layer, Dense)]


def widths(network: Network) -> list[int]:
    """Of the inputs, and of every layer."""
    return [network.n_in, *(layer.n_out for layer in dense(network))]


def falls_as_a_half_cosine(trainer: Trainer) -> None:
    assert [trainer.schedule(epoch, 4) for epoch in (0, 1, 2, 3)] == pytest.approx(
        [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    )


# Settings that are no table's, so that a number written into a script is not taken for the one it was given.
ODD = {"lr": 0.0123, "momentum": 0.7, "batch_size": 7, "images": 45, "epochs": EPOCHS}
SMALL: dict[str, tuple[Table, dict[str, Any]]] = {
    "he": (he.TABLE, {"layers": 4, "init": "kaiming_normal", "l2": 1e-3, **ODD}),
    "simard": (simard.TABLE, {"hidden": 21, "moves": {}, **ODD}),
    "srivastava": (srivastava.TABLE, {"hidden": [21, 23], "dropout": [0.1, 0.4], "max_norm": 0.9, **ODD}),
    "glorot": (glorot.TABLE, {"hidden": [21, 23], "activation": "tanh", "normalised": True, **ODD}),
    "nielsen": (nielsen.TABLE, {**nielsen.settings(21), "images": 45, "epochs": EPOCHS}),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_settings_here_are_those_that_the_script_has(name: str) -> None:
    chosen, settings = SMALL[name]
    assert all(set(run.settings) == set(settings) for run in chosen.runs.values())


@pytest.mark.parametrize("name", SMALL)
def test_a_seed_is_a_start_and_an_order(name: str, watch: Any) -> None:
    chosen, settings = SMALL[name]
    (first, figures), (again, same), (other, _) = (watch(chosen.train, settings, seed) for seed in (4, 4, 5))
    assert figures == same
    assert first.began == again.began != other.began
    np.testing.assert_array_equal(first.trainer.network.parameters, again.trainer.network.parameters)
    for one, two in zip(dense(first.born), dense(other.born), strict=True):
        assert not np.any(one.W == two.W)


# ---- Nielsen ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", nielsen.RUNS)
def test_every_run_of_nielsen_is_watched_where_its_rows_say(run: str, watch: Any) -> None:
    seen, figures = watch(nielsen.train, {**nielsen.RUNS[run].settings, "images": 30})
    x, y = seen.given["validation"]
    (said,) = {row.measured.split(",")[0] for row in nielsen.ROWS if row.run == run and row.figure != "train"}
    expected = {"test": seen.split.test, "validation": seen.split.validation}[said]
    np.testing.assert_array_equal(x, expected[0])
    np.testing.assert_array_equal(y, expected[1])
    assert (figures["first"], figures["best"], figures["last"]) == (0.25, 0.75, 0.5)
    seen.took(seen.split.train, 30, EPOCHS, 10)


@pytest.mark.parametrize(("loss", "kind"), [("quadratic", Quadratic), ("binary_cross_entropy", BinaryCrossEntropy)])
@pytest.mark.parametrize("init", ["large", "scaled"])
def test_nielsens_settings_are_what_is_trained(loss: str, kind: type, init: str, watch: Any) -> None:
    settings = nielsen.settings(41, 43, loss=loss, init=init, lr=0.0123, lambda_=0.9, images=45)
    seen, figures = watch(nielsen.train, settings)
    trainer, optimizer, born = seen.done()
    seen.took(seen.split.train, 45, EPOCHS, 10)
    assert type(optimizer) is SGD
    assert (optimizer.lr, optimizer.l2) == (0.0123, pytest.approx(0.9 / 45))
    assert [trainer.schedule(epoch, EPOCHS) for epoch in range(EPOCHS)] == [1] * EPOCHS
    assert type(born.loss) is kind
    assert widths(born) == [784, 41, 43, 10]
    assert [type(layer) for layer in born.layers] == [Dense, Sigmoid] * 2 + [Dense] + [Sigmoid] * (kind is Quadratic)
    for layer in dense(born):
        n_in = layer.W.shape[1]
        assert layer.W.std() == pytest.approx(1 if init == "large" else 1 / math.sqrt(n_in), rel=0.1)
    assert np.concatenate([layer.b for layer in dense(born)]).std() == pytest.approx(1, rel=0.25)
    train = seen.given["x"], seen.given["y"]
    assert figures["train"] == seen.read(*train)
    assert trainer.augment is None


# ---- He, Simard, Srivastava, Glorot ----------------------------------------------------------------------------------


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("name", ["simard", "srivastava", "glorot"])
def test_errors_are_read_on_the_test_set_or_on_what_is_held_out(name: str, held_out: bool, watch: Any) -> None:
    chosen, settings = SMALL[name]
    seen, figures = watch(chosen.train, settings | {"held_out": True} if held_out else settings)
    train, validation, test = seen.split
    assert seen.given["validation"] is None
    assert figures["error"] == 1 - seen.read(*(validation if held_out else test))
    assert figures["train error"] == 1 - ACCURACY[-1]
    seen.took(train if held_out else (seen.dataset.x_train, seen.dataset.y_train), 45, EPOCHS, 7)


@pytest.mark.parametrize("name", ["he", "simard", "srivastava", "glorot"])
def test_steps_loss_and_batches_are_as_the_settings_say(name: str, watch: Any) -> None:
    chosen, settings = SMALL[name]
    seen, _ = watch(chosen.train, settings)
    trainer, optimizer, born = seen.done()
    assert type(optimizer) is Momentum
    assert (optimizer.lr, optimizer.momentum) == (0.0123, 0.7)
    assert optimizer.l2 == settings.get("l2", 0)
    assert optimizer.max_norm == settings.get("max_norm")
    assert (optimizer.l1, optimizer.weight_decay, optimizer.clip_norm) == (0, 0, None)
    assert type(born.loss) is CrossEntropy
    assert trainer.augment is None
    falls_as_a_half_cosine(trainer)
    seen.took((seen.dataset.x_train, seen.dataset.y_train), 45, EPOCHS, 7)


@pytest.mark.parametrize(("layers", "init"), [(4, "kaiming_normal"), (5, "xavier_normal"), (22, "xavier_normal")])
def test_hes_layers_and_their_starts(layers: int, init: str, watch: Any) -> None:
    settings = {**SMALL["he"][1], "layers": layers, "init": init}
    seen, figures = watch(he.train, settings)
    _, _, born = seen.done()
    assert widths(born) == [784, *[64] * (layers - 1), 10]
    assert [type(layer) for layer in born.layers] == [Dense, ReLU] * (layers - 1) + [Dense]
    for layer in dense(born)[1:-1]:
        assert layer.W.std() == pytest.approx(math.sqrt((2 if init == "kaiming_normal" else 1) / 64), rel=0.05)
        assert abs(layer.W).max() > 2.5 * layer.W.std()  # evenly drawn ones end at 1.7
        assert not np.any(layer.b)
    z = seen.given["x"].reshape(45, 784) / 255
    for layer in dense(born)[:-1]:
        z = np.maximum(z @ layer.W.T, 0)
    z = z @ dense(born)[-1].W.T
    assert figures["first outputs"] == pytest.approx(math.sqrt(np.mean(z * z)), rel=1e-4)
    assert figures["last"] == seen.read(*seen.split.test)
    assert [figures[f"train, epoch {epoch}"] for epoch in (1, 2, 3)] == ACCURACY
    seen.took((seen.dataset.x_train, seen.dataset.y_train), 45, EPOCHS, 7)


@pytest.mark.parametrize("run", simard.RUNS)
def test_simards_digits_are_moved_as_its_run_says(run: str, watch: Any) -> None:
    moves = simard.RUNS[run].settings["moves"]
    seen, _ = watch(simard.train, {**SMALL["simard"][1], "moves": moves})
    trainer, _, born = seen.done()
    assert widths(born) == [784, 21, 10]
    assert [type(layer) for layer in born.layers] == [Dense, ReLU, Dense]
    assert dense(born)[0].W.std() == pytest.approx(math.sqrt(2 / 784), rel=0.05)
    if not moves:
        assert trainer.augment is None
        return
    augment, expected = trainer.augment, Augmentation(28, 28, **moves)
    assert type(augment) is Augmentation
    np.testing.assert_array_equal(augment.basis, expected.basis)
    for name in ("height", "width", "rotation", "scale", "shear", "shift"):
        assert getattr(augment, name) == getattr(expected, name), name
    still, _ = watch(simard.train, SMALL["simard"][1])
    assert np.any(still.trainer.network.parameters != trainer.network.parameters)


@pytest.mark.parametrize("dropout", [[0.0, 0.0], [0.1, 0.4], [0.0, 0.4], [0.1, 0.0]])
def test_srivastavas_dropout_is_below_the_first_layer_and_above_each_hidden_one(dropout: Any, watch: Any) -> None:
    seen, _ = watch(srivastava.train, {**SMALL["srivastava"][1], "dropout": dropout})
    _, _, born = seen.done()
    at_input, hidden = dropout
    told = [layer.rate if isinstance(layer, Dropout) else type(layer) for layer in born.layers]
    block = [Dense, ReLU, *([hidden] if hidden else [])]
    assert told == [*([at_input] if at_input else []), *block, *block, Dense]
    assert widths(born) == [784, 21, 23, 10]


def test_srivastavas_rows_are_held_to_their_length(watch: Any) -> None:
    lengths = {}
    for max_norm in (None, 0.9):
        seen, _ = watch(srivastava.train, {**SMALL["srivastava"][1], "max_norm": max_norm})
        trained = [np.linalg.norm(W, axis=1).max() for W, _ in seen.trainer.network.weights]
        lengths[max_norm] = max(trained)
    assert lengths[0.9] <= 0.9 * (1 + 1e-5)
    assert lengths[None] > 1


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize(("name", "kind"), [("tanh", Tanh), ("softsign", glorot.Softsign), ("sigmoid", Sigmoid)])
def test_glorots_layers_and_their_starts(name: str, kind: type, normalised: bool, watch: Any) -> None:
    seen, _ = watch(glorot.train, {**SMALL["glorot"][1], "activation": name, "normalised": normalised})
    _, _, born = seen.done()
    assert widths(born) == [784, 21, 23, 10]
    assert [type(layer) for layer in born.layers] == [Dense, kind, Dense, kind, Dense]
    for layer in dense(born):
        n_out, n_in = layer.W.shape
        r = math.sqrt(6 / (n_in + n_out)) if normalised else 1 / math.sqrt(n_in)
        assert 0.95 * r < abs(layer.W).max() <= r * (1 + 1e-6)
        assert not np.any(layer.b)


def test_glorots_row_without_momentum_is_adams(watch: Any) -> None:
    seen, _ = watch(glorot.train, {**SMALL["glorot"][1], "momentum": None})
    _, optimizer, _ = seen.done()
    assert type(optimizer) is Adam
    assert optimizer.lr == 0.0123


def test_one_run_is_of_its_settings_and_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("reproductions.made")
    runs = {"a": Run({"lr": 0.25}, 3), "b": Run({"lr": 1 / 3}, 3)}
    vars(module)["TABLE"] = Table("made", "", lambda choices, seed: {"seed": seed, "lr": choices["lr"]}, runs, [])
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for seed in (0, 3):
        done = tables.one("made", "b", seed)
        assert done == {"seed": seed, "figures": {"seed": seed, "lr": 0.333333}, "seconds": done["seconds"]}


# ---- InferenceGraph -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lambda_", [0.0, 2.0])
def test_plain_takes_the_steps_that_handgrad_takes(
    lambda_: float, patterns: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every z of every batch is handgrad's, from the same weights, in the same order; 43 digits, so the last are 3."""
    epochs, n, hidden, lr, seed = 6, 43, 12, 0.5, 6
    theirs: list[NDArray[Any]] = []
    sigmoid = plain.sigmoid
    monkeypatch.setattr(plain, "load", {"mnist": patterns}.__getitem__)
    monkeypatch.setattr(plain, "sigmoid", lambda z: (theirs.append(z), sigmoid(z))[1])
    settings = nielsen.settings(hidden, lr=lr, lambda_=lambda_, images=n, epochs=epochs)
    figures = plain.train(settings, seed)

    rng = np.random.default_rng(seed)
    network = Network([784, hidden, 10], dtype=np.float64)
    for p in network.named_parameters.values():
        p[...] = rng.standard_normal(p.shape)
    x, t, x_test = patterns.x_train[:n].reshape(n, 784) / 255, np.eye(10)[patterns.y_train[:n]], patterns.x_test
    optimizer, first, ours, accuracy = SGD(lr, l2=lambda_ / n), dense(network)[0], [], []
    for _ in range(epochs):
        order = rng.permutation(n)
        for batch in np.split(order, range(10, n, 10)):
            z = optimizer.train_step(network, x[batch], t[batch], lr)
            ours += [first.z.copy(), z.copy()]
        ours.append(x_test.reshape(-1, 784) / 255 @ first.W.T + first.b)
        accuracy.append(network.evaluate(x_test, patterns.y_test).accuracy)

    assert len(theirs) == len(ours)
    for there, here in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-9, atol=1e-9)
    assert max(accuracy) > accuracy[-1]  # so that best and last are told apart
    assert figures == {"best": max(accuracy), "last": accuracy[-1]}


# ---- The page --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [path.stem for path in sorted(tables.HERE.glob("*.md"))])
def test_a_table_that_was_spoilt_is_put_back(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = page.with_tables(page.PAGE.read_text())
    before, begin, rest = whole.partition(f"<!-- {name} -->\n")
    inside, end, after = rest.partition(f"\n<!-- /{name} -->")
    made = (tables.HERE / f"{name}.md").read_text()
    assert begin
    assert end
    assert inside.strip() == made[made.index("\n\n") :].strip()
    place = tmp_path / "page.md"
    monkeypatch.setattr(page, "PAGE", place)
    for spoilt in (f"9{inside}", inside.replace("| ", "| 9"), "", "another\n"):
        place.write_text(f"{before}{begin}{spoilt}{end}{after}")
        page.main()
        assert place.read_text() == whole
    with pytest.raises(ValueError, match=f"no place for {name}"):
        page.with_tables(whole.replace(f"<!-- /{name} -->", ""))
