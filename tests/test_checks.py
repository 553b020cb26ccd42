"""Training checks: what is warned of, with which remedy; what is not; frozen layers; names of other libraries."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pandas
import pytest

import handgrad
from handgrad import (
    HOG,
    SGD,
    Adam,
    AdamW,
    BatchNorm,
    Dense,
    Dropout,
    HandgradError,
    Layer,
    Lookahead,
    Momentum,
    Muon,
    Nesterov,
    Network,
    ReLU,
    Sigmoid,
    Tanh,
    Trainer,
)
from handgrad.errors import HandgradWarning
from handgrad.training import DivergedError

RNG = np.random.default_rng(1)
Y = np.arange(1200) % 3
X = (RNG.normal(size=(1200, 6)) + 2 * np.eye(6)[Y]).astype(np.float32)


def fit(network, x=X, y=Y, lr=0.1, epochs=4, **options):
    """Train, and return the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = Trainer(network, SGD(lr), batch_size=10, rng=0)
        trainer.fit(x, y, epochs=epochs, **options)
    assert all(warning.category is HandgradWarning for warning in caught)
    assert all(warning.filename == __file__ for warning in caught)
    return [str(warning.message) for warning in caught]


def small(**options):
    return Network([6, 12, 3], activation="relu", loss="cross_entropy", rng=0, **options)


def test_a_training_that_works_gives_no_warning() -> None:
    assert fit(small()) == []
    assert fit(Network([6, 12, 3], rng=0)) == []
    assert fit(small(), x=X * 5) == []


# ---- Scale -----------------------------------------------------------------------------------------------------------


def test_a_large_feature_is_named_with_the_remedy() -> None:
    x = X.copy()
    x[:, 2] = 5000 + 100 * x[:, 2]
    (message,) = fit(small(), x=x, lr=1e-6, epochs=3)[:1]
    assert message.startswith("column 2 of x has values from ")
    assert "scale = Standardize.fit(x)" in message
    frame = pandas.DataFrame(x, columns=["a", "b", "income", "d", "e", "f"])
    assert fit(small(), x=frame, lr=1e-6, epochs=3)[0].startswith("column 'income' of x")
    assert fit(small(), x=handgrad.Standardize.fit(x)(x)) == []
    assert fit(small(batch_norm=True), x=x, lr=1e-6, epochs=3)[0].startswith("column 2")  # after the Dense
    assert fit(Network([BatchNorm(6), Dense(6, 3)], loss="cross_entropy", rng=0), x=x) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_pixels_as_numbers_are_told_to_be_divided(dtype) -> None:
    x = RNG.integers(0, 256, (600, 64)).astype(dtype)
    network = Network([64, 5, 3], rng=0, loss="cross_entropy")
    assert fit(network, x=x, y=Y[:600], lr=1e-6, epochs=9)[0].endswith("divide the pixels by 255")
    images = x.reshape(-1, 8, 8) / 255 if dtype == np.float32 else x.reshape(-1, 8, 8)
    network = Network([64, 5, 3], rng=0, loss="cross_entropy")
    assert not any("pixels" in message for message in fit(network, x=images, y=Y[:600], epochs=9))


def test_images_of_small_integers() -> None:
    x = (X[:, :4] > 0).astype(np.int64).reshape(-1, 2, 2)
    (message,) = fit(Network([4, 9, 3], loss="cross_entropy", rng=0), x=x, lr=0.5)[:1]
    assert message.startswith("the brightest of the integer pixels is 1, but")


def test_divergence_of_large_features_names_the_scale_and_not_the_learning_rate() -> None:
    trainer = Trainer(Network([6, 4, 1], activation="relu", loss="squared_error", rng=0), SGD(0.1), rng=0)
    with pytest.warns(HandgradWarning, match="column"), pytest.raises(DivergedError, match="scale the data"):
        trainer.fit(X * 1e6, Y[:, None].astype(float), epochs=20)
    trainer = Trainer(Network([6, 4, 1], activation="relu", loss="squared_error", rng=0), SGD(1e6), rng=0)
    with pytest.raises(DivergedError, match="try a learning rate below 1e\\+06"):
        trainer.fit(X, Y[:, None].astype(float), epochs=20)


def test_large_targets_of_a_regression() -> None:
    def regression(y, loss="squared_error", **options):
        network = Network([6, 12, y.shape[1]], activation="relu", loss=loss, rng=0, **options)
        return fit(network, y=y, lr=1e-9, epochs=1)

    y = X[:, :1] - X[:, 1:2]  # mean 0, standard deviation about 1.5
    assert regression(y) == regression(20 * y + 50) == regression(np.abs(200 * y), "poisson") == []
    (message,) = regression(2e4 * y + 5e4)
    assert message.startswith("y has values from ")
    assert "train on (y - mean) / std" in message
    assert regression(np.hstack([y, y + 1000]), "huber")[0].startswith("column 1 of y has values from ")
    mean, std = (2e4 * y + 5e4).mean(axis=0), (2e4 * y + 5e4).std(axis=0)
    assert regression((2e4 * y + 5e4 - mean) / std) == []


# ---- Loss, units, accuracy -------------------------------------------------------------------------------------------


def test_a_large_initial_loss() -> None:
    network = small()
    network.parameters *= 40
    (message,) = fit(network, lr=1e-5)[:1]
    assert message.startswith("the loss before training is ")
    assert message.endswith(
        'that of equal probabilities for 3 classes is 1.1: the initial weights are too large; use init="kaiming_normal"'
    )
    network = Network([6, 3], loss="cross_entropy", rng=0)
    network.parameters *= 400
    assert fit(network, lr=1e-5)[0].endswith('use init="xavier_normal"')


@pytest.mark.parametrize(
    ("layer", "word", "init"),
    [(ReLU, "dead", "kaiming_normal"), (Sigmoid, "saturated", "lecun"), (Tanh, "saturated", "xavier_normal")],
)
def test_units_that_give_the_same_output_for_every_example(layer, word, init) -> None:
    network = Network([Dense(6, 20), layer(), Dense(20, 3)], loss="cross_entropy", rng=0)
    network.layers[0].b[:17] = -200
    message = next(message for message in fit(network) if "units" in message)
    assert message.startswith(f"17 of the 20 units of layer 1 ({layer.__name__}()) are {word}")
    assert f'scaled inputs and init="{init}"' in message
    network.layers[0].b[:10] = 0
    assert not any("units" in message for message in fit(network))


@pytest.mark.parametrize("fixed", [True, False])
def test_a_custom_layer_is_checked_if_it_is_fixed(fixed) -> None:
    class Squares(Layer):
        def forward(self, x):
            return x * x

        def backward(self, dy):
            return dy

    Squares.fixed = fixed
    dead = Network([Squares(), Dense(6, 20), ReLU(), Dense(20, 3)], loss="cross_entropy", rng=0)
    dead.layers[1].b[:] = -200
    large = Network([Squares(), Dense(6, 20), ReLU(), Dense(20, 3)], loss="cross_entropy", rng=0)
    large.parameters[...] *= 100
    assert any("units of layer 2 (ReLU()) are dead" in message for message in fit(dead)) is fixed
    assert any("initial weights are too large" in message for message in fit(large, lr=1e-9)) is fixed


def test_hog_is_checked() -> None:
    network = Network([HOG(4, 4, cells=2), Dense(32, 20), ReLU(), Dense(20, 3)], loss="cross_entropy", rng=0)
    network.layers[1].b[:] = -200
    x = np.random.default_rng(0).random((1200, 16), np.float32)
    assert any("20 of the 20 units of layer 2 (ReLU()) are dead" in message for message in fit(network, x))


def test_a_network_without_dense_layers_is_trained() -> None:
    assert fit(Network([BatchNorm(6), Sigmoid()], loss="squared_error", rng=0), y=X) == []


def test_accuracy_at_chance_level() -> None:
    network = small()
    (message,) = fit(network, y=RNG.permutation(Y), lr=1e-9)
    assert "always choosing the most common class gives 33.3%" in message
    y = np.where(np.arange(1200) < 1170, 0, 1)  # a rare class
    assert fit(small(), y=y) == []


def fit_five_times(trainer: Trainer) -> None:
    for _ in range(5):
        trainer.fit(X, RNG.permutation(Y), epochs=3)


def test_each_warning_is_given_once() -> None:
    trainer = Trainer(small(), SGD(1e-9), batch_size=10, rng=0)
    with pytest.warns(HandgradWarning) as caught:
        fit_five_times(trainer)
    assert len(caught) == 1


def test_the_outputs_of_short_trainings_are_not_checked() -> None:
    network = small()
    network.parameters *= 40  # a large initial loss
    assert fit(network, x=X[:100], y=Y[:100], lr=1e-9, epochs=2) == []


def test_checks_change_no_bit_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def train():
        network = Network([Dense(6, 9), BatchNorm(9), ReLU(), Dropout(0.3), Dense(9, 3)], loss="cross_entropy", rng=0)
        Trainer(network, Adam(), batch_size=10, rng=0).fit(X, Y, epochs=3)
        return network.parameters

    with_checks = train()
    monkeypatch.setattr("handgrad.training.before_training", lambda *_: {})
    monkeypatch.setattr("handgrad.training.after_training", lambda *_: {})
    np.testing.assert_array_equal(train(), with_checks)


# ---- Frozen layers ---------------------------------------------------------------------------------------------------

OPTIMIZERS = [
    lambda: SGD(0.1),
    lambda: SGD(0.1, l2=0.1, l1=0.1, clip_norm=1.0, max_norm=0.5),
    lambda: Momentum(0.1, weight_decay=0.1),
    lambda: Nesterov(0.1),
    lambda: Adam(),
    lambda: AdamW(),
    lambda: Muon(),
    lambda: Lookahead(Momentum(0.1), k=3),
]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_frozen_layer_keeps_its_parameters_to_the_bit(make) -> None:
    layers = [Dense(6, 8), BatchNorm(8), Tanh(), Dense(8, 7), Tanh(), Dense(7, 3)]
    network = Network(layers, loss="cross_entropy", rng=0)
    trainer = Trainer(network, make(), batch_size=32, rng=0)
    trainer.fit(X, Y, epochs=1)  # the momentum is not 0
    layers[0].trainable = layers[1].trainable = layers[3].trainable = False
    before = {name: p.copy() for name, p in network.named_parameters.items()}
    trainer.fit(X, Y, epochs=2)
    changed = {name[0] for name, p in network.named_parameters.items() if not np.array_equal(p, before[name])}
    assert changed == {"5"}
    assert not layers[0].dW.any()
    assert not layers[3].db.any()
    layers[0].trainable = True
    trainer.fit(X, Y, epochs=1)
    assert not np.array_equal(layers[0].W, before["0.W"])
    np.testing.assert_array_equal(layers[3].W, before["3.W"])


def test_a_layer_before_a_frozen_layer_gets_the_same_gradient() -> None:
    def step(frozen: bool):
        layers = [Dense(6, 8), Tanh(), Dense(8, 3)]
        network = Network(layers, loss="cross_entropy", rng=0)
        layers[2].trainable = not frozen
        Trainer(network, SGD(0.1), batch_size=len(X), rng=0).fit(X, Y, epochs=1)
        return layers

    free, frozen = step(False), step(True)
    np.testing.assert_allclose(free[0].W, frozen[0].W, rtol=1e-5, atol=1e-7)
    assert not np.array_equal(free[2].W, frozen[2].W)


# ---- Names of other libraries, replaced arrays -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name", "hint"),
    [
        (lambda: SGD(0.1), "learning_rate", "the learning rate is lr"),
        (lambda: SGD(0.1), "momentum", "use the optimizer Momentum"),
        (lambda: Lookahead(Adam()), "learning_rate", "the learning rate is lr"),
        (lambda: Dense(2, 2), "requires_grad", "layer.trainable = False"),
        (lambda: Dense(2, 2), "weight", "layer.W"),
        (lambda: Dense(2, 2), "kernel", "layer.W"),
        (lambda: Dense(2, 2), "bias", "layer.b"),
        (small, "trainable", "layer.trainable = False for each layer"),
        (small, "lr", "of the optimizer"),
        (small, "learning_rate", "of the optimizer"),
        (small, "save", r"handgrad.save\(model, path\)"),
        (lambda: handgrad.Ensemble([small()]), "score", r"model.evaluate\(x, y\).accuracy"),
        (small, "state_dict", "network.named_parameters"),
        (small, "to", "network.astype"),
        (small, "train", "use fit"),
        (lambda: Trainer(small(), SGD(0.1)), "learning_rate", "trainer.optimizer.lr"),
    ],
)
def test_names_of_other_libraries_raise_with_a_hint(rejects, make, name, hint) -> None:
    thing = make()
    with rejects(f"has no attribute '{name}': .*{hint}"):
        setattr(thing, name, 0.5)
    assert not hasattr(thing, name)
    assert Momentum(0.1, momentum=0.5).momentum == 0.5


def test_a_parameter_that_is_another_array_is_rejected_before_training(rejects) -> None:
    network = small()
    network.layers[0].W = np.zeros((12, 6), np.float32)
    with rejects(r"W of layer 0 is not the network's array any more: .* network.layers\[0\].W\[...\] = values"):
        Trainer(network, SGD(0.1)).fit(X, Y, epochs=1)
    network = small()
    network.parameters = network.parameters.copy()
    with pytest.raises(HandgradError, match="not the network's array"):
        Trainer(network, SGD(0.1)).fit(X, Y, epochs=1)


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, pickle.dumps, lambda network: network.astype("f8")])
def test_a_parameter_that_is_another_array_is_rejected_in_a_copy(copied, rejects) -> None:
    network = small()
    network.layers[0].W = np.zeros((12, 6), np.float32)
    with rejects("W of layer 0 is not the network's array any more"):
        copied(network)


@pytest.mark.parametrize(
    "use", [lambda n: n.predict(X), lambda n: n.fit(X, Y), copy.deepcopy], ids=["predict", "fit", "copy"]
)
def test_a_layer_that_was_added_later_is_rejected(use, rejects) -> None:
    network = small()
    network.predict(X[:9])
    network.layers[0] = Dense(6, 12)
    with rejects(r"layer 0 \(Dense\(.*\)\) was added after the network was built: build a new Network"):
        use(network)
    network = small()
    network.layers.insert(2, Dropout(0.5))
    with rejects(r"layer 2 \(Dropout\(rate=0.5\)\) was added after"):
        use(network)


def test_a_large_feature_of_a_small_data_set_is_named() -> None:
    x = X[:40].copy()
    x[:, 4] *= 1e5
    assert fit(small(), x=x, y=Y[:40], lr=1e-9, epochs=1)[0].startswith("column 4 of x has values from ")


@pytest.mark.parametrize("shape", [(-1, 8, 8), (-1, 64)])
def test_pixels_that_were_divided_by_255_twice(shape) -> None:
    x = (RNG.integers(0, 256, (600, 64)) / 255).reshape(shape)
    networks = [Network([64, 5, 3], rng=0, loss="cross_entropy") for _ in range(2)]
    assert not any("pixel" in message for message in fit(networks[0], x=x, y=Y[:600], epochs=9))
    message, *others = fit(networks[1], x=x / 255, y=Y[:600], epochs=9)
    assert message.startswith("the largest pixel is 0.0039: the pixels seem to be divided by 255 twice")
    assert not any("pixel" in other for other in others)


@pytest.mark.parametrize(("activation", "init"), [("sigmoid", "lecun"), ("tanh", "xavier_normal")])
def test_units_that_are_saturated_by_large_weights(activation, init) -> None:
    network = Network([6, 20, 3], activation=activation, loss="cross_entropy", rng=0)
    network.layers[0].W *= 1000
    low = 0 if activation == "sigmoid" else -1
    messages = [message for message in fit(network) if "saturated" in message]  # before the training, once
    assert len(messages) == 1
    assert f"of their outputs are {low} or 1 within 0.001" in messages[0]
    assert f'use init="{init}", scaled inputs' in messages[0]
    network = Network([6, 20, 3], activation=activation, loss="cross_entropy", rng=0)
    trainer = Trainer(network, SGD(0.1), batch_size=10, rng=0)
    trainer.fit(X, Y, epochs=1)
    network.layers[0].W *= 1000
    with pytest.warns(HandgradWarning, match="saturated"):  # after the training
        trainer.fit(X, Y, epochs=4)


def test_the_shortcut_fit_warns_at_the_line_of_the_user() -> None:
    with pytest.warns(HandgradWarning, match="column 2") as caught:
        small().fit(X * 1e4, Y, epochs=1, lr=1e-9)
    assert caught[0].filename == __file__
