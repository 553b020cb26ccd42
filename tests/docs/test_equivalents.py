"""docs/howto/coming-from.md: handgrad's equivalents compute the same numbers as PyTorch and Keras."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from handgrad import (
    SGD,
    AbsoluteError,
    Adam,
    AdamW,
    BatchNorm,
    BinaryCrossEntropy,
    CrossEntropy,
    Dense,
    EarlyStopping,
    Huber,
    LogCosh,
    Loss,
    Momentum,
    Nesterov,
    Network,
    Optimizer,
    Poisson,
    SquaredError,
    Tanh,
    Trainer,
    one_hot,
    schedules,
)

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

N_OUT = 4


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="make test-peers installs it")


@pytest.fixture
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras", reason="make test-peers installs it")


def random_batch(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((9, 6), np.float32), rng.integers(0, N_OUT, 9)


def small_network() -> Network:
    return Network([Dense(6, 5, "lecun"), Tanh(), Dense(5, N_OUT, "lecun")], loss="cross_entropy", rng=0)


def keras_model(keras: Any, network: Network, **options: Any) -> Any:
    """The same network in Keras."""
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((6,)), dense(5, activation="tanh", **options), dense(N_OUT, **options)])
    model.set_weights([p.T.copy() for p in network.named_parameters.values()])
    return model


def keras_loss(keras: Any) -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def keras_parameters(model: Any) -> np.ndarray:
    return np.concatenate([p.T.ravel() for p in model.get_weights()])


# ---- Losses ----------------------------------------------------------------------------------------------------------

# (loss, factor c, in PyTorch, in Keras)
LOSSES: list[tuple[Loss, float, Any, Any]] = [
    (CrossEntropy(), 1, lambda nn: nn.CrossEntropyLoss(), lambda k: k.CategoricalCrossentropy(from_logits=True)),
    (
        CrossEntropy(label_smoothing=0.1),
        1,
        lambda nn: nn.CrossEntropyLoss(label_smoothing=0.1),
        lambda k: k.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
    ),
    (BinaryCrossEntropy(), N_OUT, lambda nn: nn.BCEWithLogitsLoss(), lambda k: k.BinaryCrossentropy(from_logits=True)),
    (SquaredError(), N_OUT / 2, lambda nn: nn.MSELoss(), lambda k: k.MeanSquaredError()),
    (AbsoluteError(), N_OUT, lambda nn: nn.L1Loss(), lambda k: k.MeanAbsoluteError()),
    (Huber(delta=0.5), N_OUT, lambda nn: nn.HuberLoss(delta=0.5), lambda k: k.Huber(delta=0.5)),
    (Huber(delta=0.5), N_OUT * 0.5, lambda nn: nn.SmoothL1Loss(beta=0.5), None),
    (LogCosh(), N_OUT, None, lambda k: k.LogCosh()),
    (Poisson(), N_OUT, lambda nn: nn.PoissonNLLLoss(), lambda k: k.Poisson()),
]


@pytest.mark.parametrize(("loss", "factor", "in_torch", "in_keras"), LOSSES, ids=lambda value: repr(value)[:24])
def test_a_loss_is_a_multiple_of_the_mean_over_all_outputs(
    loss: Loss, factor: float, in_torch: Any, in_keras: Any, torch: Any, keras: Any
) -> None:
    rng = np.random.default_rng(0)
    z, t = rng.standard_normal((12, N_OUT)), rng.random((12, N_OUT))
    t /= t.sum(axis=1, keepdims=True)
    value = loss.value(z, loss.targets(t, 12, N_OUT, np.float64))
    is_poisson = isinstance(loss, Poisson)
    if is_poisson:
        value -= (t * np.log(t) - t).sum() / 12  # a constant, which the other libraries leave out
    if in_torch is not None:
        other = in_torch(torch.nn)(torch.from_numpy(z), torch.from_numpy(t)).item()
        assert value == pytest.approx(factor * other, rel=1e-5)
    if in_keras is not None:
        other = float(in_keras(keras.losses)(t, np.exp(z) if is_poisson else z))
        assert value == pytest.approx(factor * other, rel=1e-5)


def test_squared_error_with_sigmoid_is_a_multiple_of_the_mean_squared_error_of_the_sigmoid(torch: Any) -> None:
    rng = np.random.default_rng(0)
    z, t = rng.standard_normal((12, N_OUT)), rng.random((12, N_OUT))
    other = torch.nn.MSELoss()(torch.from_numpy(z).sigmoid(), torch.from_numpy(t)).item()
    assert SquaredError("sigmoid").value(z, t) == pytest.approx(N_OUT / 2 * other)


def test_sgd_takes_the_same_steps_with_the_learning_rate_and_the_penalty_converted(torch: Any) -> None:
    network, model = Network([6, N_OUT], loss="squared_error", init="lecun", rng=0), torch.nn.Linear(6, N_OUT)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(network.parameters.copy()), model.parameters())
    groups = [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias]}]
    other, c = torch.optim.SGD(groups, lr=0.2), N_OUT / 2
    optimizer = SGD(0.2 / c, l2=c * 0.1)
    for seed in range(20):
        x, y = random_batch(seed)
        optimizer.train_step(network, x, one_hot(y, N_OUT), optimizer.lr)
        other.zero_grad()
        torch.nn.functional.mse_loss(model(torch.from_numpy(x)), torch.from_numpy(one_hot(y, N_OUT))).backward()
        other.step()
    expected = torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
    np.testing.assert_allclose(network.parameters, expected, atol=1e-6)


# ---- Optimizers ------------------------------------------------------------------------------------------------------

# (optimizer, torch.optim and a function of the weight decay that gives the parameter groups -> optimizer of PyTorch)
IN_TORCH: list[tuple[Callable[[], Optimizer], Any]] = [
    (lambda: SGD(0.5, l2=0.05), lambda optim, groups: optim.SGD(groups(0.05), lr=0.5)),
    (lambda: Momentum(0.1, 0.9), lambda optim, groups: optim.SGD(groups(0.0), lr=0.1, momentum=0.9)),
    (lambda: Nesterov(0.1, 0.9), lambda optim, groups: optim.SGD(groups(0.0), lr=0.1, momentum=0.9, nesterov=True)),
    (lambda: Adam(0.01), lambda optim, groups: optim.Adam(groups(0.0), lr=0.01)),
    (lambda: AdamW(0.01), lambda optim, groups: optim.AdamW(groups(0.01), lr=0.01)),
    (lambda: SGD(0.5, clip_norm=0.1), lambda optim, groups: optim.SGD(groups(0.0), lr=0.5)),
]


@pytest.mark.parametrize("number", range(len(IN_TORCH)))
def test_an_optimizer_takes_the_steps_of_pytorch_and_has_its_state(number: int, torch: Any) -> None:
    network, nn = small_network(), torch.nn
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, N_OUT))
    nn.utils.vector_to_parameters(torch.from_numpy(network.parameters.copy()), model.parameters())

    def groups(decay: float) -> list[dict[str, Any]]:
        parameters = list(model.parameters())
        return [
            {"params": parameters[0::2], "weight_decay": decay},
            {"params": parameters[1::2], "weight_decay": 0.0},
        ]

    optimizer, other = IN_TORCH[number][0](), IN_TORCH[number][1](torch.optim, groups)
    for seed in range(30):
        x, y = random_batch(seed)
        network.backprop(x, one_hot(y, N_OUT))
        optimizer.step(network)
        other.zero_grad()
        nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        if optimizer.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), optimizer.clip_norm)
        other.step()
    expected = nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
    np.testing.assert_allclose(network.parameters, expected, atol=2e-6)
    states = [other.state[p] for p in model.parameters()]
    slots = {"momentum_buffer": (0, 1.0), "exp_avg": (0, 0.1), "exp_avg_sq": (1, 0.001)}
    for name, (slot, scale) in slots.items():
        if states[0].get(name) is not None:
            state = np.concatenate([state[name].numpy().ravel() for state in states])
            np.testing.assert_allclose(state, scale * optimizer.state[slot], atol=1e-6)


# (optimizer, in Keras, options of the layers in Keras)
IN_KERAS: list[tuple[Callable[[], Optimizer], Any, Any]] = [
    (lambda: SGD(0.5), lambda k: k.optimizers.SGD(0.5), None),
    (lambda: Momentum(0.1), lambda k: k.optimizers.SGD(0.1, momentum=0.9), None),
    (lambda: Nesterov(0.1), lambda k: k.optimizers.SGD(0.1, momentum=0.9, nesterov=True), None),
    (lambda: SGD(0.5, clip_norm=0.1), lambda k: k.optimizers.SGD(0.5, global_clipnorm=0.1), None),
    (
        lambda: SGD(0.5, l2=0.05),
        lambda k: k.optimizers.SGD(0.5),
        lambda k: {"kernel_regularizer": k.regularizers.L2(0.025)},
    ),
    (
        lambda: SGD(0.5, l1=0.01),
        lambda k: k.optimizers.SGD(0.5),
        lambda k: {"kernel_regularizer": k.regularizers.L1(0.01)},
    ),
    (
        lambda: SGD(0.5, max_norm=0.8),
        lambda k: k.optimizers.SGD(0.5),
        lambda k: {"kernel_constraint": k.constraints.MaxNorm(0.8, axis=0)},
    ),
]


@pytest.mark.parametrize("number", range(len(IN_KERAS)))
def test_an_optimizer_takes_the_steps_of_keras(number: int, keras: Any) -> None:
    make, in_keras, options = IN_KERAS[number]
    optimizer, network = make(), small_network()
    model = keras_model(keras, network, **(options(keras) if options else {}))
    model.compile(optimizer=in_keras(keras), loss=keras_loss(keras))
    for seed in range(30):
        x, y = random_batch(seed)
        optimizer.train_step(network, x, one_hot(y, N_OUT), optimizer.lr)
        model.train_on_batch(x, y)
    np.testing.assert_allclose(network.parameters, keras_parameters(model), atol=5e-6)


def test_adam_takes_the_steps_of_keras_with_epsilon_converted(keras: Any) -> None:
    network, optimizer = small_network(), Adam(0.01)
    model = keras_model(keras, network)
    model.compile(optimizer=keras.optimizers.Adam(0.01, epsilon=0.1), loss=keras_loss(keras))
    for seed in range(30):
        x, y = random_batch(seed)
        optimizer.epsilon = 0.1 / np.sqrt(1 - 0.999 ** (seed + 1))  # Keras adds ε to √v, handgrad adds it to √v̂
        optimizer.train_step(network, x, one_hot(y, N_OUT), optimizer.lr)
        model.train_on_batch(x, y)
    np.testing.assert_allclose(network.parameters, keras_parameters(model), atol=5e-6)


# ---- Training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("patience", "in_keras", "min_delta"), [(1, 0, 0), (1, 1, 0), (3, 3, 0), (3, 3, 0.003)])
def test_early_stopping_ends_at_the_same_epoch_as_in_keras(
    patience: int, in_keras: int, min_delta: float, keras: Any
) -> None:
    x, y = (np.concatenate(parts) for parts in zip(*(random_batch(seed) for seed in range(6)), strict=True))
    validation = x[-20:] + 0.1, (y[-20:] + 1) % N_OUT
    network = small_network()
    model = keras_model(keras, network)
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss=keras_loss(keras), metrics=["accuracy"])
    callback = keras.callbacks.EarlyStopping(patience=in_keras, min_delta=min_delta, restore_best_weights=True)
    options = {"batch_size": 54, "shuffle": False, "verbose": 0, "validation_data": validation}
    other = model.fit(x, y, epochs=40, callbacks=[callback], **options).history
    stopping = EarlyStopping(patience=patience, min_delta=min_delta)
    trainer = Trainer(network, SGD(0.5), batch_size=54, callbacks=[stopping], rng=0)
    history = trainer.fit(x, y, epochs=40, validation=validation)
    assert len(history["loss"]) == len(other["loss"]) < 40
    assert set(other) <= set(history)
    np.testing.assert_allclose(network.parameters, keras_parameters(model), atol=1e-6)


def test_sample_weights_are_those_of_keras_divided_by_their_mean(keras: Any) -> None:
    (x, y), w = random_batch(0), np.random.default_rng(0).random(9)
    networks = [small_network(), small_network()]
    model = keras_model(keras, networks[0])
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss=keras_loss(keras))
    for network, scale in zip(networks, (1, 7), strict=True):
        Trainer(network, SGD(0.5), batch_size=9, rng=0).fit(x, y, epochs=10, sample_weight=scale * w)
    for _ in range(10):
        model.train_on_batch(x, y, sample_weight=np.float32(w / w.mean()))
    for network in networks:
        np.testing.assert_allclose(network.parameters, keras_parameters(model), atol=1e-6)


def test_the_loss_of_keras_includes_the_penalty_and_ours_does_not(keras: Any) -> None:
    network, (x, y) = small_network(), random_batch(0)
    model = keras_model(keras, network, kernel_regularizer=keras.regularizers.L2(0.5))
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss=keras_loss(keras))
    other = model.fit(x, y, epochs=1, batch_size=9, verbose=0).history["loss"][0]
    penalty = sum(float((W**2).sum()) for W, _ in network.weights) / 2
    loss = network.evaluate(x, y).loss
    assert other == pytest.approx(loss + penalty, rel=1e-5)
    history = Trainer(network, SGD(1e-9, l2=1.0), batch_size=9, rng=0).fit(x, y, epochs=1)
    assert history["loss"][0] == pytest.approx(loss, rel=1e-5)


def test_the_running_variance_of_keras_has_another_divisor(keras: Any) -> None:
    x, _ = random_batch(0)
    norm = keras.layers.BatchNormalization(momentum=0.9)
    norm(x, training=True)
    layer = BatchNorm(6, momentum=0.1, epsilon=1e-3)
    Network([layer, Dense(6, 2)], rng=0).forward(x)
    mean, variance = (np.array(p) for p in norm.get_weights()[2:])
    np.testing.assert_allclose(layer.running_mean, mean, atol=1e-6)
    np.testing.assert_allclose(layer.running_var - 0.9, (variance - 0.9) * 9 / 8, atol=1e-6)


def test_the_defaults_of_keras_are_those_in_the_tables(keras: Any) -> None:
    assert (keras.optimizers.AdamW().weight_decay, keras.optimizers.Adam().epsilon) == (0.004, 1e-7)
    norm = keras.layers.BatchNormalization()
    assert (norm.momentum, norm.epsilon) == (0.99, 1e-3)
    assert keras.layers.LeakyReLU().negative_slope == pytest.approx(0.3)
    assert inspect.signature(keras.activations.leaky_relu).parameters["negative_slope"].default == 0.2


# ---- Schedules -------------------------------------------------------------------------------------------------------


def torch_rates(torch: Any, make: Any, count: int) -> list[float]:
    """The learning rates of a scheduler of PyTorch, stepped after every step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = make(optimizer), []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_schedules_give_the_learning_rates_of_pytorch_and_keras(torch: Any, keras: Any) -> None:
    in_torch, in_keras = torch.optim.lr_scheduler, keras.optimizers.schedules
    steps, epochs = [step / 10 for step in range(50)], range(5)  # 5 epochs of 10 batches
    cosine, exponential, step = schedules.cosine(), schedules.exponential(0.9), schedules.step(2, 0.1)

    def ours(schedule: schedules.Schedule, times: Any) -> list[float]:
        return [schedule(time, 5) for time in times]

    pairs = [
        (ours(cosine, steps), torch_rates(torch, lambda o: in_torch.CosineAnnealingLR(o, T_max=50), 50)),
        (ours(step, epochs), torch_rates(torch, lambda o: in_torch.StepLR(o, step_size=2, gamma=0.1), 5)),
        (ours(exponential, epochs), torch_rates(torch, lambda o: in_torch.ExponentialLR(o, gamma=0.9), 5)),
        (ours(cosine, steps), [float(in_keras.CosineDecay(1.0, 50)(i)) for i in range(50)]),
        (ours(exponential, steps), [float(in_keras.ExponentialDecay(1.0, 10, 0.9)(i)) for i in range(50)]),
        (ours(step, steps), [float(in_keras.ExponentialDecay(1.0, 20, 0.1, staircase=True)(i)) for i in range(50)]),
    ]
    for actual, expected in pairs:
        np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_one_cycle_differs_from_pytorch_by_less_than_a_step(torch: Any) -> None:
    def make(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=51, cycle_momentum=False)

    expected = torch_rates(torch, make, 50)
    one_cycle = schedules.one_cycle(final=4e-6)
    difference = np.abs(np.array([one_cycle(step / 10, 5) for step in range(50)]) - expected)
    assert difference.max() < np.abs(np.diff(expected)).max()
