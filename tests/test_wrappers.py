"""Calibrated, Ensemble, Preprocessed and TestTimeAugmentation: their equations, and what they reject."""

import copy
import math
import pickle
import tracemalloc

import numpy as np
import pytest

from handgrad import (
    SGD,
    BinaryCrossEntropy,
    CrossEntropy,
    Dense,
    Deskew,
    Ensemble,
    Network,
    Preprocessed,
    SquaredError,
    Tanh,
    TestTimeAugmentation,
    Trainer,
    wrappers,
)
from handgrad.io import load, save
from handgrad.losses import softmax
from handgrad.preprocessing import Preprocessing
from handgrad.wrappers import Calibrated, fit_temperature, unwrap

X = np.random.default_rng(0).random((9, 6))
Y = np.arange(9) % 4
CLOSE = {"rtol": 1e-12, "atol": 1e-14}
LOSSES = {
    "cross_entropy": CrossEntropy(),
    "binary_cross_entropy": BinaryCrossEntropy(),
    "squared_error": SquaredError("sigmoid"),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def members(loss="cross_entropy", count=3, dtype=np.float64):
    """Networks of different sizes with different predictions."""
    made = [Network([6, 5 + i, 4], activation="tanh", loss=loss, rng=i, dtype=dtype) for i in range(count)]
    for i, network in enumerate(made):
        network.parameters += np.random.default_rng(i).standard_normal(network.parameters.size).astype(dtype)
    return made


# ---- Ensemble: the mean ----------------------------------------------------------------------------------------------


@every_loss
def test_ensemble_predicts_the_mean_probability_of_its_members(loss):
    first, second, third = members(loss)
    expected = (first.predict_proba(X) + second.predict_proba(X) + third.predict_proba(X)) / 3
    ensemble = Ensemble([first, second, third])
    np.testing.assert_allclose(ensemble.predict_proba(X), expected, **CLOSE)
    np.testing.assert_allclose(ensemble.loss.activation(ensemble.outputs(X)), expected, **CLOSE)
    assert not any(np.allclose(expected, member.predict_proba(X)) for member in (first, second, third))


def test_ensemble_averages_probabilities_rather_than_logits():
    """Weights of 0 leave the biases: p = (0.8, 0.2) and (0.1, 0.9); the mean logits would give (0.4, 0.6)."""
    networks = [Network([Dense(1, 2)], loss="cross_entropy", rng=0, dtype=np.float64) for _ in range(2)]
    for network, z in zip(networks, [[math.log(4), 0], [0, math.log(9)]], strict=True):
        network.parameters[...] = 0
        network.layers[0].b[...] = z
    np.testing.assert_allclose(Ensemble(networks).predict_proba([[7.0]]), [[0.45, 0.55]], **CLOSE)


@every_loss
def test_all_predictions_of_an_ensemble_follow_from_the_mean(loss):
    ensemble = Ensemble(members(loss))
    p, t = ensemble.predict_proba(X), np.eye(4)[Y]
    value = {
        SquaredError: ((p - t) ** 2).sum() / 18,
        BinaryCrossEntropy: -np.log(np.where(t == 1, p, 1 - p)).sum() / 9,
        CrossEntropy: -np.log(p[t == 1]).mean(),
    }[type(loss)]
    labels = p.argmax(axis=1)
    np.testing.assert_array_equal(ensemble.predict(X), labels)
    evaluation = ensemble.evaluate(X, Y)
    assert evaluation == (pytest.approx(value, rel=1e-12), (labels == Y).sum(), 9)
    assert 0 < evaluation.correct < 9  # some predictions are correct and some are not
    matrix = ensemble.confusion_matrix(X, Y)
    assert matrix.sum() == 9
    assert np.trace(matrix) == evaluation.correct
    np.testing.assert_allclose(ensemble.soft_labels(X, 3), softmax(np.log(p) / 3), **CLOSE)


@every_loss
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-4), (np.float64, 1e-11)])
def test_ensemble_of_one_member_predicts_as_its_member(loss, dtype, rtol):
    (alone,) = members(loss, 1, dtype)
    ensemble = Ensemble([alone])
    np.testing.assert_array_equal(ensemble.predict_proba(X), alone.predict_proba(X))
    np.testing.assert_array_equal(ensemble.predict(X), alone.predict(X))
    one, other = ensemble.evaluate(X, Y), alone.evaluate(X, Y)
    assert one == (pytest.approx(other.loss, rel=rtol), other.correct, other.total)
    assert ensemble.outputs(X).dtype == ensemble.soft_labels(X, 2).dtype == dtype


def test_ensemble_of_regressions_predicts_the_mean():
    networks = [Network([6, 5, 2], loss="huber", rng=i, dtype=np.float64) for i in range(3)]
    expected = np.mean([network.predict(X) for network in networks], axis=0)
    np.testing.assert_allclose(Ensemble(networks).predict(X), expected, **CLOSE)
    assert Ensemble(networks).evaluate(X, X[:, :2]).accuracy is None


def test_loss_of_the_mean_is_less_than_the_mean_of_the_losses():
    """-ln is convex."""
    networks = members()
    assert Ensemble(networks).evaluate(X, Y).loss < np.mean([network.evaluate(X, Y).loss for network in networks])


def test_ensemble_does_not_change_its_members_and_inputs():
    networks = members()
    before, x = [network.parameters.copy() for network in networks], X.copy()
    ensemble = Ensemble(networks)
    ensemble.evaluate(x, Y)
    assert ensemble.members == tuple(networks)
    for network, parameters in zip(networks, before, strict=True):
        np.testing.assert_array_equal(network.parameters, parameters)
    np.testing.assert_array_equal(x, X)


@pytest.mark.parametrize("rows", [1, 4, 9])
def test_block_size_does_not_change_the_predictions(rows, monkeypatch):
    images = X.reshape(9, 2, 3)
    (network, *_) = networks = members()
    models = [Ensemble(networks), Preprocessed(network, Deskew(2, 3))]
    for each in networks:
        each.image_shape = (2, 3)
    models += [TestTimeAugmentation(network, 9), Ensemble([TestTimeAugmentation(each) for each in networks])]
    expected = [model.predict_proba(images) for model in models]
    monkeypatch.setattr(wrappers, "PREDICT_ROWS", rows)
    for model, p in zip(models, expected, strict=True):
        np.testing.assert_allclose(model.predict_proba(images), p, **CLOSE)


def test_ensemble_reads_images_and_rows_as_its_members_do():
    networks = members()
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 3), dtype=np.uint8)
    expected = np.mean([network.predict_proba(images) for network in networks], axis=0)
    for x in (images, images.reshape(5, 6) / 255, (images / 255).tolist(), images.astype(np.int64)):
        np.testing.assert_allclose(Ensemble(networks).predict_proba(x), expected, **CLOSE)


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_of_wrappers_give_the_same_predictions(copied):
    networks, images = members(), X.reshape(9, 2, 3)
    for network in networks:
        network.image_shape = (2, 3)
    model = Preprocessed(Ensemble([TestTimeAugmentation(network, 5) for network in networks]), Deskew(2, 3))
    np.testing.assert_array_equal(copied(model).outputs(images), model.outputs(images))
    assert repr(copied(model)) == repr(model)


# ---- Ensemble: its members -------------------------------------------------------------------------------------------


def test_ensemble_has_the_attributes_of_its_members():
    networks = members()
    names, shapes = (list("abcd"), ("a", "b", "c", "d"), np.array(list("abcd"))), ([2, 3], (2, 3), np.array([2, 3]))
    for network, classes, shape in zip(networks, names, shapes, strict=True):
        network.classes, network.image_shape = classes, shape
    networks[0].loss.label_smoothing = 0.1
    ensemble = Ensemble(iter(networks))
    assert (ensemble.n_in, ensemble.n_out, ensemble.dtype) == (6, 4, np.float64)
    assert (ensemble.classes, ensemble.image_shape) == (("a", "b", "c", "d"), (2, 3))
    assert ensemble.loss is networks[0].loss
    assert repr(ensemble) == f"Ensemble([{networks[0]!r}, {networks[1]!r}, {networks[2]!r}])"


def test_classes_and_image_shape_set_on_an_ensemble_are_those_of_its_members():
    ensemble = Ensemble(members())
    ensemble.classes, ensemble.image_shape = list("abcd"), (3, 2)
    assert {member.classes for member in (ensemble, *ensemble.members)} == {("a", "b", "c", "d")}
    assert {member.image_shape for member in (ensemble, *ensemble.members)} == {(3, 2)}


@pytest.mark.parametrize("names", ["abc", 5, None, ("a", "b")], ids=repr)
def test_classes_of_wrappers_are_validated_as_those_of_the_model(names, rejects):
    network = images_network()
    for model in (Ensemble([network]), TestTimeAugmentation(network), Preprocessed(network, Deskew(6, 8))):
        with rejects("classes must be 3 names|classes has 2 names: expected 3"):
            model.classes = names
        assert network.classes == ("0", "1", "2")
        model.classes = iter("012")
        assert network.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("sizes", "loss", "dtype", "says"),
    [
        ([5, 4], "cross_entropy", np.float64, "n_in 5: expected 6"),
        ([6, 3], "cross_entropy", np.float64, "n_out 3: expected 4"),
        (
            [6, 4],
            "binary_cross_entropy",
            np.float64,
            r"loss BinaryCrossEntropy \(sigmoid\): expected CrossEntropy .softmax.",
        ),
        ([6, 4], "cross_entropy", np.float32, "dtype float32: expected float64"),
    ],
    ids=["inputs", "outputs", "loss", "dtype"],
)
def test_members_that_do_not_fit_together_are_rejected(sizes, loss, dtype, says, rejects):
    with rejects(f"member 2 of the ensemble has {says}, as member 0"):
        Ensemble([*members(count=2), Network(sizes, loss=loss, dtype=dtype)])


@pytest.mark.parametrize(("name", "value"), [("classes", ("0", "1", "2", "9")), ("image_shape", (2, 3))])
def test_members_with_other_classes_or_image_shape_are_rejected(name, value, rejects):
    networks = members()
    setattr(networks[1], name, value)
    with rejects(f"member 1 of the ensemble has {name} "):
        Ensemble(networks)


@pytest.mark.parametrize("models", [[], [3], [Tanh()]])
def test_ensemble_without_models_is_rejected(models, rejects):
    with rejects("an ensemble needs at least one model"):
        Ensemble(models)


@pytest.mark.parametrize("x", [np.ones(6), np.ones((9, 5)), np.ones((0, 6))], ids=["one", "inputs", "empty"])
def test_ensemble_rejects_invalid_inputs(x, rejects):
    with rejects("x has shape"):
        Ensemble(members()).outputs(x)


def test_nan_is_reported_with_its_index_in_the_whole_input(rejects, monkeypatch):
    monkeypatch.setattr(wrappers, "PREDICT_ROWS", 2)
    x = X.copy()
    x[5, 3] = np.nan
    with rejects(r"x\[5, 3\] is nan"):
        Ensemble(members()).predict(x)


def test_members_may_be_trained_at_different_temperatures():
    """Their probabilities are at temperature 1."""
    hot, plain = members(CrossEntropy(temperature=5), 1), members(CrossEntropy(), 1)
    np.testing.assert_array_equal(Ensemble([*hot, *plain]).predict_proba(X), plain[0].predict_proba(X))


# ---- Preprocessed ----------------------------------------------------------------------------------------------------

IMAGES = np.random.default_rng(1).integers(0, 256, (20, 6, 8), dtype=np.uint8)


def images_network(shape=(6, 8), rng=0, dtype=np.float32, **options):
    network = Network([shape[0] * shape[1], 5, 3], loss="cross_entropy", rng=rng, dtype=dtype, **options)
    network.image_shape = shape
    return network


class Negative(Preprocessing):
    """A custom preprocessing of numbers."""

    n_in = n_out = 6

    def __call__(self, x, out=None):
        return np.subtract(1, x, out=out)

    def config(self):
        return {}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_preprocessed_model_predicts_for_the_preprocessed_images(dtype):
    deskew, network = Deskew(6, 8, 2), images_network((3, 4))
    x = IMAGES if dtype == np.uint8 else (IMAGES / np.float32(255))
    model = Preprocessed(network, deskew)
    np.testing.assert_array_equal(model.outputs(x), network.outputs(deskew(x)))
    np.testing.assert_array_equal(model.predict_proba(x), network.predict_proba(deskew(x)))
    np.testing.assert_array_equal(model.predict(x), network.predict(deskew(x)))
    assert (model.n_in, model.image_shape, network.n_in) == (48, (6, 8), 12)


def test_preprocessed_model_reads_rows_as_images():
    model = Preprocessed(images_network((3, 4)), Deskew(6, 8, 2))
    np.testing.assert_array_equal(model.outputs(IMAGES.reshape(20, 48)), model.outputs(IMAGES))


def test_custom_preprocessing_of_numbers():
    network = Network([6, 4], rng=0, dtype=np.float64)
    np.testing.assert_array_equal(Preprocessed(network, Negative()).outputs(X), network.outputs(1 - X))


def test_training_on_preprocessed_images_and_wrapping_gives_the_predictions_of_the_network():
    deskew, y = Deskew(6, 8), np.arange(20) % 3
    network = Network([48, 5, 3], rng=0)
    Trainer(network, SGD(0.1), batch_size=5, rng=0).fit(deskew(IMAGES), y, epochs=2)
    model = Preprocessed(network, deskew)
    assert model.evaluate(IMAGES, y) == network.evaluate(deskew(IMAGES), y)


def test_preprocessing_is_equal_to_one_with_the_same_options():
    assert Deskew(6, 8, 2) == Deskew(6, 8, 2) != Deskew(6, 8)
    assert Negative() != Deskew(6, 8)
    assert len({Deskew(6, 8), Deskew(6, 8), Negative()}) == 2
    assert repr(Preprocessed(images_network((3, 4)), Deskew(6, 8, 2))).endswith("Deskew(height=6, width=8, shrink=2))")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: Preprocessed(images_network(), Deskew(6, 8, 2)),
            "returns 12 values .* the model expects 48",
        ),
        (lambda: Preprocessed(images_network(), lambda x: x), "preprocessing must be a Preprocessing"),
        (lambda: Preprocessed(Dense(3, 4), Deskew(6, 8)), "Preprocessed needs a model, got Dense"),
        (lambda: TestTimeAugmentation(images_network(), 4), "shifts must be 1, 5 or 9, got 4"),
        (lambda: TestTimeAugmentation(Network([48, 3])), "needs a model of images: set its image_shape"),
        (lambda: TestTimeAugmentation("model"), "TestTimeAugmentation needs a model, got 'model'"),
    ],
    ids=["size", "function", "layer", "shifts", "no images", "text"],
)
def test_wrappers_reject_what_does_not_fit(make, says, rejects):
    with rejects(says):
        make()


def test_wrappers_share_the_classes_of_the_model():
    network = images_network()
    model = Preprocessed(TestTimeAugmentation(network), Deskew(6, 8))
    model.classes = ("a", "b", "c")
    assert network.classes == model.classes == ("a", "b", "c")


# ---- Test-time augmentation ------------------------------------------------------------------------------------------


def shift(images, down, right):
    """Shift by whole pixels, pixel by pixel."""
    shifted = np.zeros_like(images)
    _, height, width = images.shape
    for v in range(height):
        for u in range(width):
            if 0 <= v + down < height and 0 <= u + right < width:
                shifted[:, v + down, u + right] = images[:, v, u]
    return shifted


SHIFTS = {
    1: [(0, 0)],
    5: [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)],
    9: [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)],
}


@pytest.mark.parametrize(("shifts", "dtype"), [*((shifts, np.uint8) for shifts in SHIFTS), (5, np.float64)])
def test_test_time_augmentation_is_the_mean_over_the_shifted_images(shifts, dtype):
    network = images_network(dtype=np.float64)
    x = IMAGES if dtype == np.uint8 else IMAGES / 255
    expected = np.mean([network.predict_proba(shift(x, *each)) for each in SHIFTS[shifts]], axis=0)
    model = TestTimeAugmentation(network, shifts)
    np.testing.assert_allclose(model.predict_proba(x), expected, rtol=1e-10)
    np.testing.assert_array_equal(model.predict(x), expected.argmax(axis=1))
    if shifts > 1:
        assert np.abs(model.predict_proba(x) - network.predict_proba(x)).max() > 1e-3


@pytest.mark.parametrize(
    ("loss", "n_out"),
    [*((loss, 3) for loss in LOSSES.values()), (BinaryCrossEntropy(), 1), (SquaredError("sigmoid"), 1)],
)
def test_test_time_augmentation_averages_probabilities_for_every_loss(loss, n_out):
    network = Network([48, 5, n_out], loss=loss, rng=0, dtype=np.float64)
    network.image_shape = (6, 8)
    expected = np.mean([network.predict_proba(shift(IMAGES, *each)) for each in SHIFTS[5]], axis=0)
    model = TestTimeAugmentation(network, 5)
    np.testing.assert_allclose(model.predict_proba(IMAGES), expected, rtol=1e-10)
    labels = expected.argmax(axis=1) if n_out > 1 else (expected[:, 0] > 0.5).astype(int)
    np.testing.assert_array_equal(model.predict(IMAGES), labels)


def test_wrappers_need_no_memory_of_the_size_of_the_data():
    images = np.zeros((40_000, 6, 8), np.uint8)
    (first, second) = (images_network(rng=rng) for rng in (0, 1))
    model = Preprocessed(Ensemble([TestTimeAugmentation(first, 5), second]), Deskew(6, 8))
    model.outputs(images[:10])
    tracemalloc.start()
    model.outputs(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < images.nbytes  # the images as floats would take four times as much


def test_test_time_augmentation_shifts_the_preprocessed_images():
    """In Preprocessed(TestTimeAugmentation(network), Deskew) the shifts are of the images that the network receives."""
    network, deskew = images_network(dtype=np.float64), Deskew(6, 8)
    model = Preprocessed(TestTimeAugmentation(network, 5), deskew)
    expected = np.mean([network.predict_proba(shift(deskew(IMAGES), *each)) for each in SHIFTS[5]], axis=0)
    np.testing.assert_allclose(model.predict_proba(IMAGES), expected, rtol=1e-10)


def test_unwrap_returns_the_parts():
    network, deskew = images_network(), Deskew(6, 8)
    shifted = TestTimeAugmentation(network, 9)
    ensemble = Ensemble([shifted, shifted])
    assert unwrap(network) == (network, None, 1, 1.0)
    assert unwrap(shifted) == (network, None, 9, 1.0)
    assert unwrap(Preprocessed(shifted, deskew)) == (network, deskew, 9, 1.0)
    assert unwrap(Preprocessed(ensemble, deskew)) == (ensemble, deskew, 1, 1.0)
    assert unwrap(Preprocessed(Calibrated(shifted, 1.5), deskew)) == (network, deskew, 9, 1.5)


def test_unwrap_rejects_wrappers_in_another_order(rejects):
    with rejects(r"expected Preprocessed\(Calibrated\(TestTimeAugmentation\(network\)\)\)"):
        unwrap(TestTimeAugmentation(Preprocessed(images_network(), Deskew(6, 8))))


@pytest.mark.parametrize("loss", [CrossEntropy(), BinaryCrossEntropy(), SquaredError("sigmoid")], ids=str)
def test_calibration_divides_the_outputs_and_keeps_the_classes(loss, tmp_path):
    network = Network([6, 9, 3], loss=loss, rng=0)
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    model = Calibrated(network, 2.5)
    np.testing.assert_allclose(model.outputs(x), network.outputs(x) / 2.5, rtol=1e-6)
    np.testing.assert_array_equal(model.predict(x), network.predict(x))
    assert np.abs(model.predict_proba(x) - 0.5).max() < np.abs(network.predict_proba(x) - 0.5).max() + 1e-6
    save(model, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert repr(again) == repr(model)
    np.testing.assert_array_equal(again.outputs(x), model.outputs(x))


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_fitted_temperature_is_the_factor_of_overconfident_outputs(factor):
    """Labels drawn from softmax(z), and a network that returns factor * z: T is the factor."""
    rng = np.random.default_rng(1)
    network = Network([4, 4], loss=CrossEntropy(label_smoothing=0.1), rng=0, dtype=np.float64)
    network.parameters[:] = 0
    network.layers[0].W[...] = factor * np.eye(4)
    z = rng.normal(size=(20_000, 4)) * 2
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    y = (rng.random((len(z), 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, 3)
    assert fit_temperature(network, z, y) == pytest.approx(factor, rel=0.03)


def test_fitted_temperature_minimizes_the_loss():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 5))
    for loss in (CrossEntropy(), BinaryCrossEntropy(), SquaredError("sigmoid")):
        network = Network([5, 8, 3], loss=loss, rng=3, dtype=np.float64)
        y = (network.outputs(x) + rng.normal(size=(300, 3))).argmax(axis=1)
        network.parameters *= 1.5
        best = fit_temperature(network, x, y)
        at_best = Calibrated(network, best).evaluate(x, y).loss
        for factor in (0.9, 1.1):
            assert at_best <= Calibrated(network, best * factor).evaluate(x, y).loss


@pytest.mark.parametrize(
    ("loss", "plain"),
    [
        (CrossEntropy(0.1, 3.0), CrossEntropy()),
        (BinaryCrossEntropy(0.1), BinaryCrossEntropy()),
        (SquaredError("sigmoid", 0.1), SquaredError("sigmoid")),
    ],
    ids=str,
)
def test_loss_of_a_calibrated_model_is_that_of_the_labels_without_smoothing(loss, plain):
    smooth, plain = Network([6, 3], loss=loss, rng=0), Network([6, 3], loss=plain, rng=0)
    x, y = np.random.default_rng(0).random((20, 6)), np.arange(20) % 3
    assert Calibrated(smooth, 1.0).evaluate(x, y) == plain.evaluate(x, y)
    assert smooth.evaluate(x, y) != plain.evaluate(x, y)
    assert Calibrated(plain, 2.0).loss is plain.loss


@pytest.mark.parametrize("temperature", [0, float("nan"), "2"])
def test_calibration_rejects_temperatures_that_are_not_positive(temperature, rejects):
    with rejects("temperature must be"):
        Calibrated(Network([6, 3], rng=0), temperature)


def test_calibration_rejects_a_regression(rejects):
    network = Network([6, 3], loss="squared_error", rng=0)
    with rejects("calibration needs a classifier"):
        Calibrated(network, 2.0)
    with rejects("calibration needs a classifier"):
        fit_temperature(network, np.zeros((4, 6)), np.zeros((4, 3)))


def test_regression_and_classification_by_squared_error_do_not_mix(rejects):
    members = [Network([6, 3], loss="squared_error", rng=0), Network([6, 3], loss=SquaredError("sigmoid"), rng=0)]
    with rejects(r"member 1 of the ensemble has loss SquaredError \(sigmoid\)"):
        Ensemble(members)


def test_wrappers_use_the_current_loss_of_the_model() -> None:
    network = Network([6, 3], rng=0)
    ensemble = Ensemble([network])
    network.loss = CrossEntropy()
    np.testing.assert_allclose(ensemble.predict_proba(np.ones((2, 6))), network.predict_proba(np.ones((2, 6))))
    assert repr(ensemble.loss) == "CrossEntropy()"
