"""Each optimizer equals its equation for every block size; penalties and limits apply to weights only."""

import copy
import functools
import math
import pickle

import numpy as np
import pytest

from handgrad import SGD, Adam, AdamW, Dense, Lookahead, Momentum, Muon, Nesterov, Network, Tanh, Trainer, optimizers
from handgrad.optimizers import OPTIMIZERS

EXACT = {"rtol": 1e-12, "atol": 1e-14}  # float64, a few roundings apart
KINDS = OPTIMIZERS | {"muon": Muon, "lookahead": lambda lr, **options: Lookahead(Adam(lr, **options), k=2)}
every_optimizer = pytest.mark.parametrize("name", KINDS)


def make_network(dtype=np.float64, rng=0):
    return Network([Dense(5, 4), Tanh(), Dense(4, 3)], rng=rng, dtype=dtype)


def gradients(network, count=3, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=network.parameters.size).astype(network.dtype) for _ in range(count)]


def take_steps(optimizer, network, gs):
    for g in gs:
        network.gradient[...] = g
        optimizer.step(network)
    return network.parameters.copy()


def weight_mask(network):
    """True where θ holds a weight, False where it holds a bias: 4 x 5, 4, 3 x 4, 3."""
    mask = np.concatenate([np.ones(20, bool), np.zeros(4, bool), np.ones(12, bool), np.zeros(3, bool)])
    assert mask.size == network.parameters.size
    return mask


# ---- Naive reference optimizers --------------------------------------------------------------------------------------


def sgd(theta, gs, lr):
    for g in gs:
        theta = theta - lr * g
    return theta


def momentum(theta, gs, lr, mu):
    v = 0
    for g in gs:
        v = mu * v + g
        theta = theta - lr * v
    return theta


def nesterov(theta, gs, lr, mu):
    v = 0
    for g in gs:
        v = mu * v + g
        theta = theta - lr * (g + mu * v)
    return theta


def adam(theta, gs, lr, beta_1, beta_2, epsilon):
    m, v = 0, 0
    for t, g in enumerate(gs, start=1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        m_hat, v_hat = m / (1 - beta_1**t), v / (1 - beta_2**t)
        theta = theta - lr * m_hat / (np.sqrt(v_hat) + epsilon)
    return theta


@pytest.mark.parametrize(
    ("optimizer", "equation"),
    [
        (SGD(0.3), functools.partial(sgd, lr=0.3)),
        (Momentum(0.1), functools.partial(momentum, lr=0.1, mu=0.9)),
        (Momentum(0.1, 0.5), functools.partial(momentum, lr=0.1, mu=0.5)),
        (Nesterov(0.1), functools.partial(nesterov, lr=0.1, mu=0.9)),
        (Nesterov(0.1, 0.7), functools.partial(nesterov, lr=0.1, mu=0.7)),
        (Adam(), functools.partial(adam, lr=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-8)),
        (Adam(0.02, 0.8, 0.95, 1e-3), functools.partial(adam, lr=0.02, beta_1=0.8, beta_2=0.95, epsilon=1e-3)),
    ],
    ids=["sgd", "momentum", "momentum-0.5", "nesterov", "nesterov-0.7", "adam", "adam-other"],
)
def test_three_steps_match_the_equation(optimizer, equation):
    network = make_network()
    before, gs = network.parameters.copy(), gradients(network)
    np.testing.assert_allclose(take_steps(optimizer, network, gs), equation(before, gs), **EXACT)


@every_optimizer
def test_lr_of_a_step_overrides_the_lr_of_the_optimizer(name):
    a, b = make_network(), make_network()
    (g,) = gradients(a, 1)
    a.gradient[...] = b.gradient[...] = g
    KINDS[name](0.5).step(a, 0.01)
    KINDS[name](0.01).step(b)
    np.testing.assert_array_equal(a.parameters, b.parameters)


@every_optimizer
def test_float32_steps_stay_float32_and_close_to_float64(name):
    double, single = make_network(), make_network(np.float32)
    gs = gradients(double)
    take_steps(KINDS[name](0.01), double, gs)
    optimizer = KINDS[name](0.01)
    take_steps(optimizer, single, gs)
    assert single.parameters.dtype == optimizer.state.dtype == np.float32
    np.testing.assert_allclose(single.parameters, double.parameters, rtol=1e-4, atol=1e-4)


# ---- Penalties and limits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "penalty"),
    [
        ({"l2": 0.1}, lambda W: 0.1 * W),
        ({"l1": 0.2}, lambda W: 0.2 * np.sign(W)),
        ({"l1": 0.2, "l2": 0.1}, lambda W: 0.1 * W + 0.2 * np.sign(W)),
    ],
    ids=["l2", "l1", "both"],
)
def test_penalties_add_their_derivative_to_weights_only(options, penalty):
    network = make_network()
    network.parameters[...] = np.random.default_rng(3).normal(size=network.parameters.size)  # biases other than 0
    before, gs = network.parameters.copy(), gradients(network)
    is_weight, theta = weight_mask(network), before
    for g in gs:
        theta = theta - 0.3 * (g + np.where(is_weight, penalty(theta), 0))
    np.testing.assert_allclose(take_steps(SGD(0.3, **options), network, gs), theta, **EXACT)


def test_weight_decay_is_decoupled_from_the_gradient_and_applies_to_weights_only():
    network = make_network()
    network.parameters[...] = np.random.default_rng(3).normal(size=network.parameters.size)
    before, (g,) = network.parameters.copy(), gradients(network, 1)
    after = take_steps(Adam(0.1, weight_decay=0.5), network, [g])
    decayed = np.where(weight_mask(network), before * (1 - 0.1 * 0.5), before)
    np.testing.assert_allclose(after, adam(decayed, [g], 0.1, 0.9, 0.999, 1e-8), **EXACT)


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_clip_norm_shortens_only_gradients_that_are_longer(share):
    network = make_network()
    before, (g,) = network.parameters.copy(), gradients(network, 1)
    after = take_steps(SGD(1.0, clip_norm=share * np.linalg.norm(g)), network, [g])
    np.testing.assert_allclose(before - after, min(share, 1) * g, rtol=1e-11, atol=1e-13)


def test_clip_norm_includes_the_penalties():
    network = make_network()
    before, (g,) = network.parameters.copy(), gradients(network, 1)
    after = take_steps(SGD(1.0, clip_norm=0.01, l2=5.0), network, [g])
    penalized = g + np.where(weight_mask(network), 5.0 * before, 0)
    np.testing.assert_allclose(before - after, 0.01 * penalized / np.linalg.norm(penalized), rtol=1e-10, atol=1e-13)


def test_max_norm_rescales_only_rows_that_exceed_it():
    network = make_network()
    dense = network.layers[0]
    dense.W[...] = 0
    dense.W[0] = [3, 4, 0, 0, 0]  # norm 5
    dense.W[1] = [0.3, 0.4, 0, 0, 0]  # norm 0.5
    dense.b[...] = 7
    take_steps(SGD(0.1, max_norm=1.0), network, [np.zeros(network.parameters.size)])
    np.testing.assert_allclose(dense.W[0], [0.6, 0.8, 0, 0, 0], rtol=1e-14)
    np.testing.assert_array_equal(dense.W[1:, :2], [[0.3, 0.4], [0, 0], [0, 0]])
    np.testing.assert_array_equal(dense.b, 7)


def test_max_norm_applies_to_the_weights_after_the_step():
    network = make_network()
    take_steps(SGD(10.0, max_norm=0.5), network, gradients(network, 1))
    for W, _ in network.weights:
        np.testing.assert_allclose(np.linalg.norm(W, axis=1), 0.5, rtol=1e-12)


# ---- AdamW -----------------------------------------------------------------------------------------------------------


def test_adamw_is_adam_with_a_decay_of_one_hundredth():
    a, b, c = make_network(), make_network(), make_network()
    gs = gradients(a)
    after = take_steps(AdamW(0.1), a, gs)
    np.testing.assert_array_equal(after, take_steps(Adam(0.1, weight_decay=0.01), b, gs))
    assert not np.array_equal(after, take_steps(Adam(0.1), c, gs))


def test_adamw_is_a_class_with_its_own_name():
    assert isinstance(AdamW(), Adam)
    assert AdamW().state_dict()["kind"] == "AdamW"
    assert repr(AdamW(0.1)).startswith("AdamW(lr=0.1, ")
    assert "weight_decay=0.01" in repr(AdamW(0.1))


# ---- Blocks, state, copies -------------------------------------------------------------------------------------------


@every_optimizer
def test_blocks_give_the_same_bits(name, monkeypatch):
    options = {"l2": 0.01, "clip_norm": 1.0, "max_norm": 1.5}
    a, b = make_network(), make_network()
    gs = gradients(a)
    expected = take_steps(KINDS[name](0.05, **options), a, gs)
    monkeypatch.setattr(optimizers, "UPDATE_CHUNK", 7)
    np.testing.assert_array_equal(take_steps(KINDS[name](0.05, **options), b, gs), expected)


@every_optimizer
def test_state_dict_continues_to_the_same_bits(name):
    network = make_network()
    gs = gradients(network, 5)
    optimizer = KINDS[name](0.05)
    take_steps(optimizer, network, gs[:2])
    state, parameters = optimizer.state_dict(), network.parameters.copy()
    expected = take_steps(optimizer, network, gs[2:])

    again, fresh = make_network(), KINDS[name](0.05)
    again.parameters[...] = parameters
    fresh.load_state_dict(state)
    np.testing.assert_array_equal(take_steps(fresh, again, gs[2:]), expected)
    assert fresh.steps == 5


def test_state_dict_is_a_copy_in_both_directions():
    network, optimizer, other = make_network(), Adam(), Adam()
    gs = gradients(network)
    take_steps(optimizer, network, gs)
    state = optimizer.state_dict()
    saved = state["state"].copy()
    other.load_state_dict(state)
    take_steps(other, network, gs)
    take_steps(optimizer, network, gs)
    np.testing.assert_array_equal(state["state"], saved)


@every_optimizer
def test_another_network_starts_with_an_empty_state(name):
    used, expected_of = make_network(rng=1), make_network(rng=2)
    gs = gradients(used)
    optimizer = KINDS[name](0.05)
    take_steps(optimizer, used, gs)
    expected = take_steps(KINDS[name](0.05), expected_of, gs)
    np.testing.assert_array_equal(take_steps(optimizer, make_network(rng=2), gs), expected)
    assert optimizer.steps == 3


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, "network first") for name in KINDS),
        *(("lookahead", how) for how in ("optimizer first", "one by one", "pickle")),
    ],
)
def test_copies_continue_to_the_same_bits_without_changing_the_original(name, how):
    network, optimizer = make_network(), KINDS[name](0.05)
    gs = gradients(network, 5)
    take_steps(optimizer, network, gs[:2])
    if how == "network first":
        twin, its_optimizer = copy.deepcopy((network, optimizer))
    elif how == "optimizer first":
        its_optimizer, twin = copy.deepcopy((optimizer, network))
    elif how == "one by one":
        twin, its_optimizer = copy.deepcopy(network), copy.copy(optimizer)
    else:
        twin, its_optimizer = pickle.loads(pickle.dumps((network, optimizer)))
    before = network.parameters.copy()
    after = take_steps(its_optimizer, twin, gs[2:])
    np.testing.assert_array_equal(network.parameters, before)
    np.testing.assert_array_equal(take_steps(optimizer, network, gs[2:]), after)
    assert not np.array_equal(after, before)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (SGD(0.5), "SGD(lr=0.5)"),
        (Momentum(0.1, 0.8, l2=1e-3, clip_norm=2.0), "Momentum(lr=0.1, l2=0.001, clip_norm=2.0, momentum=0.8)"),
        (Adam(0.01), "Adam(lr=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-08)"),
        (AdamW(0.1), "AdamW(lr=0.1, weight_decay=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-08)"),
        (AdamW(0.1, weight_decay=0), "AdamW(lr=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-08, weight_decay=0.0)"),
        (Lookahead(SGD(0.1, l1=0.2), k=3), "Lookahead(inner=SGD(lr=0.1, l1=0.2), k=3, alpha=0.5)"),
    ],
    ids=["sgd", "momentum", "adam", "adamw", "adamw without decay", "lookahead"],
)
def test_repr_shows_the_options_and_can_be_evaluated(optimizer, expected):
    assert repr(optimizer) == expected
    assert repr(eval(expected)) == expected


# ---- train_step ------------------------------------------------------------------------------------------------------


class SlowSGD(SGD):
    """A subclass of SGD, which uses the `train_step` that all other optimizers use."""


BATCH = np.random.default_rng(3).normal(size=(7, 5)), np.eye(3)[np.arange(7) % 3]


def train(optimizer, network, lrs):
    for lr in lrs:
        optimizer.train_step(network, *BATCH, lr)
    return network.parameters.copy()


def test_sgd_takes_the_same_steps_with_lr_in_the_loss_and_in_the_update():
    rates = [0.5, 0.1, 0.0, 0.3]
    fused, plain = SGD(1.0), SlowSGD(1.0)
    np.testing.assert_allclose(train(fused, make_network(), rates), train(plain, make_network(), rates), **EXACT)
    assert fused.steps == plain.steps == 4


def test_sgd_does_not_move_a_layer_that_is_frozen_between_two_steps():
    network, optimizer = make_network(), SGD(0.1)
    optimizer.train_step(network, *BATCH, 0.1)
    layer = network.layers[0]
    layer.trainable, before = False, layer.W.copy()
    for _ in range(2):
        optimizer.train_step(network, *BATCH, 0.1)
        assert not network.gradient[: layer.W.size].any()
    np.testing.assert_array_equal(layer.W, before)


def test_step_after_train_step_uses_the_unscaled_gradient():
    network, twin, optimizer = make_network(), make_network(), SGD(0.5)
    optimizer.train_step(network, *BATCH, 0.5)
    optimizer.step(network)
    twin.backprop(*BATCH)
    twin.parameters -= 0.5 * twin.gradient  # two steps with the same gradient
    twin.parameters -= 0.5 * twin.gradient
    np.testing.assert_allclose(network.parameters, twin.parameters, **EXACT)


@pytest.mark.parametrize(
    ("penalty", "value"), [("l2", 0.5), ("l1", 0.5), ("clip_norm", 0.01), ("weight_decay", 0.5), ("max_norm", 0.1)]
)
def test_penalty_set_after_construction_is_used(penalty, value):
    late = SGD(0.5)
    setattr(late, penalty, value)
    ours = train(late, make_network(), [0.5] * 3)
    np.testing.assert_array_equal(ours, train(SGD(0.5, **{penalty: value}), make_network(), [0.5] * 3))
    assert (ours != train(SGD(0.5), make_network(), [0.5] * 3)).any()


def test_subclass_of_sgd_uses_its_own_update():
    class Uphill(SGD):
        def update(self, theta, g, state, scratch, lr):
            theta += lr * g

    network, twin = make_network(), make_network()
    before = network.parameters.copy()
    train(Uphill(0.5), network, [0.5])
    np.testing.assert_allclose(network.parameters - before, before - train(SGD(0.5), twin, [0.5]), **EXACT)


def test_steps_are_counted_per_network():
    optimizer, network = SGD(0.5), make_network()
    train(optimizer, network, [0.5] * 5)
    optimizer.step(network)
    assert optimizer.steps == 6
    train(optimizer, make_network(rng=1), [0.5])
    assert optimizer.steps == 1


# ---- Lookahead -------------------------------------------------------------------------------------------------------


def lookahead(inner, network, gs, k, alpha):
    """The equation, with a separate optimizer for the steps."""
    phi = network.parameters.copy()
    for i, g in enumerate(gs, start=1):
        take_steps(inner, network, [g])
        if i % k == 0:
            phi = phi + alpha * (network.parameters - phi)
            network.parameters[...] = phi
    return network.parameters.copy()


@pytest.mark.parametrize(("inner", "k", "alpha"), [(SGD, 1, 0.5), (Adam, 2, 0.5), (Muon, 3, 0.2), (Adam, 5, 0.8)])
def test_seven_steps_of_lookahead_match_the_equation(inner, k, alpha):
    a, b = make_network(), make_network()
    gs = gradients(a, 7)
    ours = take_steps(Lookahead(inner(0.05), k, alpha), a, gs)
    np.testing.assert_allclose(ours, lookahead(inner(0.05), b, gs, k, alpha), **EXACT)
    assert np.abs(ours - take_steps(inner(0.05), make_network(), gs)).max() > 1e-3


def test_lookahead_starts_from_the_weights_of_another_network():
    optimizer = Lookahead(SGD(0.1), k=1, alpha=0.5)
    take_steps(optimizer, make_network(rng=1), gradients(make_network()))
    network = make_network(rng=2)
    before, (g,) = network.parameters.copy(), gradients(network, 1)
    np.testing.assert_allclose(take_steps(optimizer, network, [g]), before - 0.05 * g, **EXACT)


def test_lookahead_reads_and_sets_the_options_of_the_inner_optimizer():
    options = {"lr": 0.2, "l2": 0.1, "l1": 0.2, "clip_norm": 3.0, "weight_decay": 0.4, "max_norm": 5.0}
    optimizer = Lookahead(SGD(**options))
    for name, value in options.items():
        assert getattr(optimizer, name) == value
        setattr(optimizer, name, 2 * value)
        assert getattr(optimizer.inner, name) == 2 * value
    optimizer.inner.lr = 0.7
    assert optimizer.lr == 0.7


@pytest.mark.parametrize(("option", "value"), [("lr", 0.01), ("l2", 0.5), ("weight_decay", 0.5), ("max_norm", 0.1)])
def test_option_set_on_lookahead_changes_its_steps(option, value):
    outside, inside, plain = Lookahead(SGD(0.5), k=2), Lookahead(SGD(0.5), k=2), Lookahead(SGD(0.5), k=2)
    setattr(outside, option, value)
    setattr(inside.inner, option, value)
    networks = [make_network() for _ in range(3)]
    gs = gradients(networks[0])
    after = [take_steps(o, n, gs) for o, n in zip((outside, inside, plain), networks, strict=True)]
    np.testing.assert_array_equal(after[0], after[1])
    assert (after[0] != after[2]).any()


@pytest.mark.parametrize(
    ("theirs", "ours", "says"),
    [
        (Lookahead(Momentum(0.1)), Lookahead(Adam(0.1)), "state of Momentum: expected Adam"),
        (Lookahead(Momentum(0.1)), SGD(0.1), "state of Lookahead: expected SGD"),
        (Adam(), Lookahead(Adam()), "state of Adam: expected Lookahead"),
        (SGD(0.1), Adam(), "state of SGD: expected Adam"),
        (Nesterov(0.1), Momentum(0.1), "state of Nesterov: expected Momentum"),
        (AdamW(), Adam(), "state of AdamW: expected Adam"),
        (Adam(), AdamW(), "state of Adam: expected AdamW"),
    ],
    ids=["another inner", "lookahead", "not lookahead", "sgd", "nesterov", "adamw", "adam"],
)
def test_state_of_another_optimizer_is_rejected_and_changes_nothing(theirs, ours, says, rejects):
    network = make_network()
    take_steps(theirs, network, gradients(network))
    with rejects(says):
        ours.load_state_dict(theirs.state_dict())
    assert (ours.steps, ours.state.size) == (0, 0)


def test_state_of_another_size_is_rejected_at_the_first_step(rejects):
    theirs, network = make_network(), Network([3, 2], rng=0, dtype=np.float64)
    optimizer, other = Momentum(0.1), Momentum(0.1)
    take_steps(optimizer, theirs, gradients(theirs))
    other.load_state_dict(optimizer.state_dict())
    with rejects("state of 39 parameters, the network has 8"):
        other.step(network)


# ---- Invalid options -------------------------------------------------------------------------------------------------

sgd_of = functools.partial(SGD, 0.1)


@pytest.mark.parametrize(
    ("make", "name", "value", "expected"),
    [
        *((SGD, "lr", v, "must be a finite number > 0") for v in (0, math.nan, "0.1")),
        *((sgd_of, name, -1.0, "must be a finite number > 0") for name in ("clip_norm", "max_norm")),
        *((sgd_of, name, math.nan, "must be a finite number >= 0") for name in ("l1", "l2", "weight_decay")),
        *((kind, "weight_decay", -0.1, "must be a finite number >= 0") for kind in (Adam, AdamW)),
        *((functools.partial(Nesterov, 0.1), "momentum", v, r"must be in \[0, 1\)") for v in (-0.1, 1.0)),
        *((Adam, name, 1.0, r"must be in \[0, 1\)") for name in ("beta_1", "beta_2")),
        (Adam, "epsilon", 0, "must be a finite number > 0"),
        (functools.partial(Lookahead, SGD(0.1)), "k", 2.5, "must be an integer >= 1"),
        *((functools.partial(Lookahead, SGD(0.1)), "alpha", v, r"must be in \(0, 1\]") for v in (0, 1.1)),
        *((Lookahead, "inner", v, "must be an optimizer") for v in (0.1, SGD)),
    ],
)
def test_invalid_value_is_rejected_with_the_name_of_the_option(make, name, value, expected, rejects):
    with rejects(f"{name} {expected}"):
        make(**{name: value})


@pytest.mark.parametrize("optimizer", [SGD(0.1), Lookahead(Adam(0.1))], ids=["sgd", "lookahead"])
def test_invalid_lr_is_rejected_after_construction_too(optimizer, rejects):
    with rejects("lr must be a finite number > 0"):
        optimizer.lr = 0
    assert optimizer.lr == 0.1


@pytest.mark.parametrize(
    ("make", "option", "says"),
    [
        (Adam, "learning_rate", "Adam has no option 'learning_rate': did you mean 'lr'?"),
        (Adam, "learning_rate_init", "did you mean 'lr'?"),
        (Adam, "eps", "did you mean 'epsilon'?"),
        (AdamW, "beta1", "did you mean 'beta_1'?"),
        (functools.partial(Momentum, 0.1), "momentom", "did you mean 'momentum'?"),
        (AdamW, "weightdecay", "AdamW has no option 'weightdecay': did you mean 'weight_decay'?"),
        (functools.partial(Momentum, 0.1), "Clip_Norm", "did you mean 'clip_norm'?"),
        (
            Muon,
            "nesterov",
            "Muon has no option 'nesterov': expected lr, momentum, fallback_lr_scale, iterations",
        ),
    ],
)
def test_unknown_option_names_the_right_one(make, option, says, rejects):
    with rejects(says.replace("?", r"\?")):
        make(**{option: 0.1})


def test_optimizers_are_made_by_name(rejects):
    assert repr(optimizers.make_optimizer("adam")) == repr(Adam())
    assert repr(optimizers.make_optimizer("adamw")) == repr(AdamW())
    for name, kind in OPTIMIZERS.items():
        assert repr(optimizers.make_optimizer(name, 0.3)) == repr(kind(0.3))
    given = SGD(0.1)
    assert optimizers.make_optimizer(given) is given


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sgd",), "the optimizer 'sgd' has no default learning rate"),
        (("Adm",), "unknown optimizer 'Adm': did you mean 'adam'"),
        ((Adam,), "optimizer must be an optimizer, as SGD"),
        ((SGD(0.1), 0.1), "lr is for the name of an optimizer"),
        (("adam", -1), "lr must be a finite number > 0"),
    ],
)
def test_invalid_optimizer_is_rejected(arguments, says, rejects):
    with rejects(says):
        optimizers.make_optimizer(*arguments)


# ---- Learning rate of a layer ----------------------------------------------------------------------------------------


@every_optimizer
def test_lr_scale_is_a_factor_on_the_learning_rate_of_a_layer(name, monkeypatch):
    monkeypatch.setattr(optimizers, "UPDATE_CHUNK", 7)
    options = {"l2": 0.01, "weight_decay": 0.1}
    scaled, slow, usual = make_network(), make_network(), make_network()
    scaled.layers[0].lr_scale = 0.2
    gs = gradients(scaled, count=5)
    take_steps(KINDS[name](0.1, **options), scaled, gs)
    take_steps(KINDS[name](0.02, **options), slow, gs)
    take_steps(KINDS[name](0.1, **options), usual, gs)
    for p, expected in zip(scaled.named_parameters.items(), slow.named_parameters.values(), strict=True):
        if p[0].startswith("0."):
            np.testing.assert_allclose(p[1], expected, **EXACT)
    np.testing.assert_allclose(scaled.layers[2].W, usual.layers[2].W, **EXACT)
    np.testing.assert_allclose(scaled.layers[2].b, usual.layers[2].b, **EXACT)
    assert not np.allclose(slow.layers[0].W, usual.layers[0].W)


@pytest.mark.parametrize("options", [{}, {"l2": 0.01}])
def test_training_with_lr_scale_equals_a_loop_by_hand(options):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 5)), np.arange(12) % 3
    network, twin = make_network(), make_network()
    network.layers[2].lr_scale = 0.25
    Trainer(network, SGD(0.5, **options), batch_size=12, rng=0).fit(x, y, epochs=4, progress=False)
    for _ in range(4):
        twin.backprop(x, twin.loss.targets(y, 12, 3, np.float64))
        for layer, lr in ((twin.layers[0], 0.5), (twin.layers[2], 0.5 * 0.25)):
            layer.W -= lr * (layer.dW + options.get("l2", 0) * layer.W)
            layer.b -= lr * layer.db
    np.testing.assert_allclose(network.parameters, twin.parameters, **EXACT)


def test_lr_scale_that_changes_between_two_fits_is_used():
    x, y = np.eye(5), np.arange(5) % 3
    network, twin = make_network(), make_network()
    trainers = [Trainer(made, SGD(0.5), batch_size=5, rng=0) for made in (network, twin)]
    for trainer in trainers:
        trainer.fit(x, y, epochs=1, progress=False)
    np.testing.assert_array_equal(network.parameters, twin.parameters)
    for layer in network.layers:
        layer.lr_scale = 3
    trainers[0].fit(x, y, epochs=1, progress=False)
    trainers[1].optimizer.lr = 1.5
    trainers[1].fit(x, y, epochs=1, progress=False)
    np.testing.assert_allclose(network.parameters, twin.parameters, **EXACT)


@pytest.mark.parametrize("value", [0, -1, math.nan, "0.1"])
def test_invalid_lr_scale_is_rejected(value, rejects):
    with rejects("lr_scale must be"):
        Dense(2, 2).lr_scale = value


def test_summary_shows_lr_scale():
    network = make_network()
    network.layers[0].lr_scale = 0.1
    assert "(lr_scale 0.1)" in str(network.summary())
