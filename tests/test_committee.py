"""The ensemble: the mean of its members, every answer that follows from it, and whom it refuses."""

import copy
import math
import pickle

import numpy as np
import pytest

from handgrad import Ensemble, Dense, Network, CrossEntropy, Tanh
from handgrad.losses import LOSSES, softmax

X = np.random.default_rng(0).random((9, 6))
Y = np.arange(9) % 4
CLOSE = {"rtol": 1e-12, "atol": 1e-14}
every_loss = pytest.mark.parametrize("loss", LOSSES)


def members(loss="cross_entropy", count=3, dtype=np.float64, **options):
    """Networks of other sizes, whose answers differ."""
    made = [Network([6, 5 + i, 4], activation="tanh", loss=loss, rng=i, dtype=dtype, **options) for i in range(count)]
    for i, network in enumerate(made):
        network.parameters += np.random.default_rng(i).standard_normal(network.parameters.size).astype(dtype)
    return made


# ---- The mean --------------------------------------------------------------------------------------------------------


@every_loss
def test_probabilities_are_the_mean_of_the_members(loss):
    first, second, third = members(loss)
    expected = (first.predict_proba(X) + second.predict_proba(X) + third.predict_proba(X)) / 3
    together = Ensemble([first, second, third])
    np.testing.assert_allclose(together.predict_proba(X), expected, **CLOSE)
    np.testing.assert_allclose(together.loss.activation(together.outputs(X)), expected, **CLOSE)
    assert not any(np.allclose(expected, each.predict_proba(X)) for each in (first, second, third))


def test_the_mean_is_of_probabilities_and_not_of_outputs():
    """Weights of 0 leave the biases: p = (0.8, 0.2) and (0.1, 0.9); of the mean of z they were (0.4, 0.6)."""
    sure = [Network([Dense(1, 2)], loss="cross_entropy", rng=0, dtype=np.float64) for _ in range(2)]
    for network, z in zip(sure, [[math.log(4), 0], [0, math.log(9)]], strict=True):
        network.parameters[...] = 0
        network.layers[0].b[...] = z
    np.testing.assert_allclose(Ensemble(sure).predict_proba([[7.0]]), [[0.45, 0.55]], **CLOSE)


@every_loss
def test_every_answer_follows_from_the_mean(loss):
    together = Ensemble(members(loss))
    p, t = together.predict_proba(X), np.eye(4)[Y]
    value = {
        "quadratic": ((p - t) ** 2).sum() / 18,
        "binary_cross_entropy": -np.log(np.where(t == 1, p, 1 - p)).sum() / 9,
        "cross_entropy": -np.log(p[t == 1]).mean(),
    }[loss]
    answers = p.argmax(axis=1)
    np.testing.assert_array_equal(together.predict(X), answers)
    evaluation = together.evaluate(X, Y)
    assert evaluation == (pytest.approx(value, rel=1e-12), (answers == Y).sum(), 9)
    assert 0 < evaluation.correct < 9  # some right, some wrong: the comparison saw both
    matrix = together.confusion_matrix(X, Y)
    assert matrix.sum() == 9
    assert np.trace(matrix) == evaluation.correct
    np.testing.assert_allclose(together.soft_labels(X, 3), softmax(np.log(p) / 3), **CLOSE)


def test_soft_labels_are_the_mean_made_more_even():
    together = Ensemble(members())
    p = together.predict_proba(X)
    np.testing.assert_allclose(together.soft_labels(X, 1), p, **CLOSE)
    np.testing.assert_allclose(together.soft_labels(X, 2), np.sqrt(p) / np.sqrt(p).sum(axis=1, keepdims=True), **CLOSE)


@every_loss
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-4), (np.float64, 1e-11)])
def test_a_committee_of_one_is_its_network(loss, dtype, rtol):
    (alone,) = members(LOSSES[loss](0.1), 1, dtype)
    together = Ensemble([alone])
    np.testing.assert_array_equal(together.predict_proba(X), alone.predict_proba(X))
    np.testing.assert_array_equal(together.predict(X), alone.predict(X))
    one, other = together.evaluate(X, Y), alone.evaluate(X, Y)
    assert one == (pytest.approx(other.loss, rel=rtol), other.correct, other.total)
    assert together.outputs(X).dtype == together.soft_labels(X, 2).dtype == dtype


def test_the_loss_of_the_mean_is_at_most_the_mean_of_the_losses():
    """-ln is convex."""
    each = members()
    assert Ensemble(each).evaluate(X, Y).loss < np.mean([network.evaluate(X, Y).loss for network in each])


def test_members_and_the_inputs_stay_as_they_were():
    each = members()
    before, x = [network.parameters.copy() for network in each], X.copy()
    together = Ensemble(each)
    together.evaluate(x, Y)
    assert together.members == tuple(each)
    for network, parameters in zip(each, before, strict=True):
        np.testing.assert_array_equal(network.parameters, parameters)
    np.testing.assert_array_equal(x, X)


@pytest.mark.parametrize("block", [1, 4, 9, 1000])
def test_blocks_change_no_answer(block, monkeypatch):
    together = Ensemble(members())
    whole = together.predict_proba(X)
    monkeypatch.setattr(ensemble, "BLOCK", block)
    np.testing.assert_allclose(together.predict_proba(X), whole, **CLOSE)


def test_images_rows_and_bytes_are_examples_as_for_a_network():
    together = Ensemble(members())
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 3), dtype=np.uint8)
    expected = together.predict_proba(images.reshape(5, 6) / 255)
    for x in (images, images.reshape(5, 6), images / 255, (images / 255).tolist()):
        np.testing.assert_allclose(together.predict_proba(x), expected, **CLOSE)


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_gives_the_same_answers(copied):
    together = Ensemble(members())
    np.testing.assert_array_equal(copied(together).outputs(X), together.outputs(X))


# ---- Whom it takes ---------------------------------------------------------------------------------------------------


def test_it_is_what_its_members_are():
    each = members()
    each[0].classes, each[1].classes, each[2].classes = "abcd", ("a", "b", "c", "d"), np.array(list("abcd"))
    each[0].image_shape, each[1].image_shape, each[2].image_shape = [2, 3], (2, 3), np.array([2, 3])
    each[0].loss.label_smoothing = 0.1
    together = Ensemble(iter(each))
    assert (together.n_in, together.n_out, together.dtype) == (6, 4, np.float64)
    assert (together.classes, together.image_shape) == (("a", "b", "c", "d"), (2, 3))
    assert together.loss is each[0].loss
    assert repr(together) == f"Ensemble([{each[0]!r}, {each[1]!r}, {each[2]!r}])"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda: Network([5, 4], loss="cross_entropy", dtype=np.float64), "n_in 5, and member 0 6"),
        (lambda: Network([6, 3], loss="cross_entropy", dtype=np.float64), "n_out 3, and member 0 4"),
        (
            lambda: Network([6, 4], loss="binary_cross_entropy", dtype=np.float64),
            "loss BinaryCrossEntropy, and .* SoftmaxCross",
        ),
        (lambda: Network([6, 4], loss="cross_entropy"), "dtype float32, and member 0 float64"),
    ],
)
def test_members_that_answer_another_question_are_refused(change, says, refused):
    with refused(f"member 2 of the ensemble has {says}"):
        Ensemble([*members(count=2), change()])


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [("classes", ("0", "1", "2", "9"), "'9'.* '3'"), ("image_shape", (2, 3), r"\(2, 3\), and member 0 None")],
)
def test_members_of_other_classes_and_pictures_are_refused(name, value, says, refused):
    each = members()
    setattr(each[1], name, value)
    with refused(f"member 1 of the ensemble has {name} .*{says}"):
        Ensemble(each)


@pytest.mark.parametrize("networks", [[], [3], [Tanh()], [None, None]])
def test_a_committee_of_no_networks_is_refused(networks, refused):
    with refused("expected one Network or more"):
        Ensemble(networks)


@pytest.mark.parametrize("x", [np.ones(6), np.ones((9, 5)), np.ones((0, 6)), np.full((9, 6), np.nan)])
def test_inputs_that_are_none_are_refused(x, refused):
    with refused("x"):
        Ensemble(members()).outputs(x)


def test_the_example_that_is_not_finite_is_named_in_the_whole(refused, monkeypatch):
    monkeypatch.setattr(ensemble, "BLOCK", 2)
    x = X.copy()
    x[5, 3] = np.nan
    with refused(r"x\[5, 3\] is nan"):
        Ensemble(members()).predict(x)


def test_members_may_have_learnt_at_other_temperatures():
    """Their probabilities are at temperature 1, whatever they learnt at."""
    hot, plain = members(CrossEntropy(temperature=5), 1), members(CrossEntropy(), 1)
    np.testing.assert_array_equal(Ensemble([*hot, *plain]).predict_proba(X), plain[0].predict_proba(X))
