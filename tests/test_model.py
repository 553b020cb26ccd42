"""Models: predictions, evaluation, confusion matrix, class names, single outputs, several threads."""

import math
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from handgrad import (
    SGD,
    Adam,
    BinaryCrossEntropy,
    CrossEntropy,
    Dense,
    Ensemble,
    Evaluation,
    Model,
    Network,
    SquaredError,
    Trainer,
    check_gradient,
    images,
    one_hot,
)
from handgrad.losses import LOSSES
from handgrad.model import binary_to_two_columns

X = np.random.default_rng(0).random((9, 6))
Y = np.arange(9) % 4
CLOSE = {"rtol": 1e-12, "atol": 1e-14}
CLASSIFICATION = {
    "cross_entropy": CrossEntropy(),
    "binary_cross_entropy": BinaryCrossEntropy(),
    "squared_error_of_sigmoid": SquaredError("sigmoid"),
}
REGRESSION = [name for name in LOSSES if name not in CLASSIFICATION]
every_regression = pytest.mark.parametrize("loss", REGRESSION)


@pytest.fixture(params=CLASSIFICATION)
def classifier(request):
    """A network of each classification loss, with large random weights."""
    made = Network([6, 5, 4], activation="tanh", loss=CLASSIFICATION[request.param], rng=0, dtype=np.float64)
    made.parameters[...] = np.random.default_rng(1).standard_normal(made.parameters.size)
    return made


# ---- Classification --------------------------------------------------------------------------------------------------


def test_all_predictions_agree_with_plain_numpy(classifier):
    first, _, last = classifier.layers
    z = np.tanh(X @ first.W.T + first.b) @ last.W.T + last.b
    sigma, rows = 1 / (1 + np.exp(-z)), np.eye(4)[Y]
    softmax = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    p, loss = {
        SquaredError: (sigma, ((sigma - rows) ** 2).sum(axis=1).mean() / 2),
        BinaryCrossEntropy: (sigma, -np.log(np.where(rows == 1, sigma, 1 - sigma)).sum(axis=1).mean()),
        CrossEntropy: (softmax, -np.log(softmax[np.arange(9), Y]).mean()),
    }[type(classifier.loss)]
    labels = p.argmax(axis=1)
    matrix = np.zeros((4, 4), int)
    for true, predicted in zip(Y, labels, strict=True):
        matrix[true, predicted] += 1

    np.testing.assert_allclose(classifier.outputs(X), z, **CLOSE)
    np.testing.assert_allclose(classifier.predict_proba(X), p, **CLOSE)
    np.testing.assert_array_equal(classifier.predict(X), labels)
    np.testing.assert_array_equal(classifier.confusion_matrix(X, Y), matrix)
    evaluation = classifier.evaluate(X, Y)
    assert evaluation == Evaluation(pytest.approx(loss, rel=1e-12), np.trace(matrix), 9)
    assert evaluation.accuracy == np.mean(labels == Y)
    assert 0 < evaluation.correct < 9  # some are correct and some are not


def test_rows_of_the_confusion_matrix_are_true_classes():
    made = Network([Dense(3, 3)], rng=0)
    made.layers[0].W[...] = np.eye(3)  # the prediction is the largest input
    x = np.eye(3)[[0, 1, 1, 2]]
    np.testing.assert_array_equal(made.confusion_matrix(x, [0, 1, 2, 0]), [[1, 0, 1], [0, 1, 0], [0, 1, 0]])


def test_labels_and_one_hot_rows_are_evaluated_alike(classifier):
    rows = np.eye(4)[Y]
    assert classifier.evaluate(X, Y) == classifier.evaluate(X, rows) == classifier.evaluate(X.tolist(), Y.tolist())
    for same in (rows, rows.astype(int), rows.tolist()):
        np.testing.assert_array_equal(classifier.confusion_matrix(X, same), classifier.confusion_matrix(X, Y))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (Y[:-1], r"shape \(8,\)"),
        (Y + 1, "label 4: expected 0 to 3 for 4 classes"),
        (Y - 1, "label -1"),
        (Y.astype(float), "integer"),
        (Y[:, None], r"shape \(9, 1\)"),
        (np.eye(5)[Y], r"shape \(9, 5\)"),
        ([[1, 0, 0, 0]] * 8 + [[1]], "different lengths"),
    ],
)
def test_invalid_labels_are_rejected(y, message, rejects):
    model = Network([6, 4], rng=0)
    for method in (model.evaluate, model.confusion_matrix):
        with rejects(message):
            method(X, y)


def test_predictions_are_new_arrays(classifier):
    z, p = classifier.outputs(X), classifier.predict_proba(X)
    kept = z.copy(), p.copy()
    classifier.outputs(2 * X), classifier.predict_proba(2 * X)
    np.testing.assert_array_equal(z, kept[0])
    np.testing.assert_array_equal(p, kept[1])


def test_repr_of_an_evaluation():
    assert repr(Evaluation(0.5, 3, 4)) == "Evaluation(loss=0.5000, accuracy=75.00% (3/4))"
    assert repr(Evaluation(0.5, None, 4)) == "Evaluation(loss=0.5000)"


def test_a_model_needs_outputs_only():
    class Constant(Model):
        loss, n_in, n_out, dtype = CrossEntropy(), 6, 4, np.dtype(np.float64)

        def outputs(self, x):
            return np.tile([0.0, 0, 1, 0], (len(self.check_inputs(x)), 1))

    model = Constant()
    np.testing.assert_array_equal(model.predict(X), 2)
    assert model.evaluate(X, np.full(9, 2)) == (pytest.approx(math.log(3 + math.e) - 1), 9, 9)
    assert model.confusion_matrix(X, Y)[:, 2].sum() == 9


# ---- Knowledge distillation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1, 4])
def test_soft_labels_are_the_softmax_of_log_probabilities(classifier, temperature):
    e = classifier.predict_proba(X) ** (1 / temperature)  # exp(z / T) for a softmax, except for a factor of the row
    soft = classifier.soft_labels(X, temperature)
    np.testing.assert_allclose(soft, e / e.sum(axis=1, keepdims=True), **CLOSE)
    assert classifier.astype(np.float32).soft_labels(X, np.float64(temperature)).dtype == np.float32
    assert classifier.loss.targets(soft, 9, 4, np.float64) is not None


def test_the_gradient_of_a_network_for_its_own_soft_labels_is_0():
    made = Network([6, 5, 4], loss=CrossEntropy(temperature=3), rng=0, dtype=np.float64)
    made.backprop(X, made.soft_labels(X, 3))
    np.testing.assert_allclose(made.gradient, 0, atol=1e-14)


def test_the_loss_of_an_evaluation_is_that_of_the_predictions_at_any_temperature():
    made = Network([6, 5, 4], loss=CrossEntropy(temperature=3), rng=0, dtype=np.float64)
    expected = -np.log(made.predict_proba(X)[np.arange(9), Y]).mean()
    assert made.evaluate(X, Y).loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf, "2"])
def test_soft_labels_rejects_an_invalid_temperature(temperature, rejects):
    with rejects("temperature must be a finite number > 0"):
        Network([6, 4], rng=0).soft_labels(X, temperature)


# ---- Regression ------------------------------------------------------------------------------------------------------


@every_regression
def test_a_regression_has_no_accuracy(loss):
    made, t = Network([6, 3], loss=loss, rng=0), np.ones((9, 3))
    evaluation = made.evaluate(X, t)
    assert evaluation == (made.loss.value(made.outputs(X), t.astype(np.float32)), None, 9)
    assert evaluation.accuracy is None
    assert "accuracy" not in repr(evaluation)


@every_regression
def test_a_regression_has_no_labels_and_no_confusion_matrix(loss, rejects):
    made, t = Network([6, 3], loss=loss, rng=0), np.ones((9, 3), np.float32)
    z = made.outputs(X)
    for call in (
        lambda: made.loss.labels(z),
        lambda: made.loss.correct(z, t),
        lambda: made.confusion_matrix(X, Y),
        lambda: made.confusion_matrix(X, t),
        lambda: made.confusion_matrix(X, t[:, 0]),
    ):
        with rejects("is a regression loss: its predictions are numbers, not classes"):
            call()


@every_regression
@pytest.mark.parametrize("n_out", [1, 3])
def test_a_regression_predicts_numbers(loss, n_out):
    made = Network([6, n_out], loss=loss, rng=0)
    z = made.outputs(X)
    np.testing.assert_allclose(made.predict(X), np.exp(z) if loss == "poisson" else z, rtol=1e-6)
    assert made.predict(X).shape == (9, n_out)
    np.testing.assert_array_equal(made.predict_proba(X), made.predict(X))
    np.testing.assert_array_equal(made.soft_labels(X, 4), made.predict(X))
    assert (made.n_classes, made.classes) == (n_out, tuple(map(str, range(n_out))))


# ---- A single output: 0 or 1 -----------------------------------------------------------------------------------------

SINGLE = {"binary_cross_entropy": BinaryCrossEntropy(), "squared_error": SquaredError("sigmoid")}
every_single = pytest.mark.parametrize("loss", SINGLE.values(), ids=SINGLE)


def linear(loss, w, b):
    """z = w x + b with one input."""
    layer = Dense(1, 1)
    made = Network([layer], loss=loss, rng=0, dtype=np.float64)
    layer.W[...], layer.b[...] = w, b
    return made


@every_single
@pytest.mark.parametrize(("b", "predictions"), [(0, [0, 0, 0, 1, 1]), (-1, [0, 0, 0, 0, 1])])
def test_predictions_of_a_single_output_worked_by_hand(loss, b, predictions):
    """σ(z) exceeds ½ if z exceeds 0."""
    made, x = linear(loss, 1, b), np.array([[-2], [-1], [0], [1], [2.0]])
    np.testing.assert_array_equal(made.predict(x), predictions)
    np.testing.assert_allclose(made.predict_proba(x), 1 / (1 + np.exp(-x - b)), rtol=1e-12)
    y = np.array([0, 1, 0, 1, 1])
    correct = (np.array(predictions) == y).sum()
    assert made.evaluate(x, y).correct == made.evaluate(x, y[:, None]).correct == correct
    expected = [[int(((y == i) & (np.array(predictions) == j)).sum()) for j in (0, 1)] for i in (0, 1)]
    np.testing.assert_array_equal(made.confusion_matrix(x, y), expected)
    np.testing.assert_array_equal(made.confusion_matrix(x, y[:, None]), expected)
    assert (made.n_classes, made.classes) == (2, ("0", "1"))


def test_loss_of_a_single_output_worked_by_hand():
    """-ln σ(1) and -ln (1 - σ(2)); ½ (σ(1) - 1)² and ½ σ(2)²."""
    x, y = np.array([[1], [2.0]]), [1, 0]
    expected = (np.log1p(np.exp(-1)) + np.log1p(np.exp(2))) / 2
    assert linear(BinaryCrossEntropy(), 1, 0).evaluate(x, y).loss == pytest.approx(expected, rel=1e-12)
    a = 1 / (1 + np.exp(-x[:, 0]))
    expected = ((a[0] - 1) ** 2 + a[1] ** 2) / 4
    assert linear(SquaredError("sigmoid"), 1, 0).evaluate(x, y).loss == pytest.approx(expected, rel=1e-12)


def test_a_single_sigmoid_equals_a_softmax_of_two_outputs():
    """With z₀ = 0: the same probabilities, losses, predictions, gradients and soft labels."""
    rng = np.random.default_rng(0)
    one = Network([5, 1], loss="binary_cross_entropy", rng=0, dtype=np.float64)
    two = Network([5, 2], loss="cross_entropy", rng=0, dtype=np.float64)
    two.parameters[...] = 0
    two.layers[0].W[1], two.layers[0].b[1] = one.layers[0].W[0], one.layers[0].b[0]
    x, y = rng.standard_normal((20, 5)), rng.integers(0, 2, 20)
    np.testing.assert_allclose(binary_to_two_columns(one.predict_proba(x)), two.predict_proba(x), rtol=1e-12)
    np.testing.assert_array_equal(one.predict(x), two.predict(x))
    np.testing.assert_allclose(one.evaluate(x, y), two.evaluate(x, y), rtol=1e-12)
    np.testing.assert_array_equal(one.confusion_matrix(x, y), two.confusion_matrix(x, y))
    for temperature in (0.5, 1, 4):
        soft = binary_to_two_columns(one.soft_labels(x, temperature))
        np.testing.assert_allclose(soft, two.soft_labels(x, temperature), rtol=1e-10)
    for made in (one, two):
        made.backprop(x, made.loss.targets(y, 20, made.n_out, np.float64))
    np.testing.assert_allclose(one.layers[0].dW[0], two.layers[0].dW[1], rtol=1e-10)


@every_single
def test_a_single_output_learns_and_teaches(loss):
    """Its soft labels teach both classes, not only class 1 as a softmax of one column would."""
    rng = np.random.default_rng(3)
    x = rng.random((300, 16)).astype(np.float32)
    y = (x[:, :8].sum(axis=1) > x[:, 8:].sum(axis=1)).astype(int)
    teacher, student = (Network([16, 8, 1], activation="tanh", loss=loss, rng=seed) for seed in (0, 9))
    Trainer(teacher, Adam(0.02), batch_size=20, rng=0).fit(x, y, epochs=30)
    evaluation = teacher.evaluate(x, y)
    assert evaluation.accuracy > 0.95
    assert evaluation.correct == (teacher.predict(x) == y).sum() == np.trace(teacher.confusion_matrix(x, y))
    Trainer(student, Adam(0.02), batch_size=20, teacher=teacher, rng=0).fit(x, np.zeros(300, int), epochs=30)
    assert (student.predict(x) == teacher.predict(x)).mean() > 0.95
    check_gradient(teacher, x[:7], y[:7])


def test_binary_to_two_columns_leaves_several_outputs_unchanged():
    p = np.array([[0.25, 0.75]])
    assert binary_to_two_columns(p) is p
    np.testing.assert_array_equal(binary_to_two_columns(np.array([[0.25], [1]])), [[0.75, 0.25], [0, 1]])


# ---- Class names and image shape -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_out", "loss", "names"),
    [
        (4, "cross_entropy", ["a", "b", "c", "d"]),
        (1, "binary_cross_entropy", ("no", "yes")),
        (1, "squared_error", ["height"]),
        (2, "huber", (0, 1)),
    ],
)
def test_class_names_are_kept_as_text(n_out, loss, names):
    made = Network([6, n_out], loss=loss, rng=0)
    made.classes = names
    assert made.classes == tuple(map(str, names))


@pytest.mark.parametrize(
    ("n_out", "loss", "names", "message"),
    [
        (4, "cross_entropy", ("a",), "classes has 1 names: expected 4"),
        (4, "cross_entropy", (), "0 names: expected 4"),
        (4, "cross_entropy", tuple("abcde"), "5 names: expected 4"),
        (1, "binary_cross_entropy", ("yes",), "1 names: expected 2"),
        (1, "squared_error", ("no", "yes"), "2 names: expected 1"),
        (4, "cross_entropy", 4, "classes must be 4 names, got 4"),
        (4, "cross_entropy", None, "classes must be 4 names, got None"),
    ],
)
def test_the_wrong_number_of_class_names_is_rejected(n_out, loss, names, message, rejects):
    made = Network([6, n_out], loss=loss, rng=0)
    before = made.classes
    with rejects(message):
        made.classes = names
    assert made.classes == before


@pytest.mark.parametrize("shape", [(99, 99), (6,), 6, (-2, -3), (2.9, 3), "23", (None, 6)], ids=str)
def test_an_image_shape_of_another_size_is_rejected(shape, rejects):
    made = Network([6, 4], rng=0)
    made.image_shape = (3, 2)
    with rejects(r"image_shape must be \(height, width\) with 6 pixels"):
        made.image_shape = shape
    assert made.image_shape == (3, 2)


def test_an_image_shape_is_two_integers_or_none():
    made = Network([6, 4], rng=0)
    made.image_shape = np.array([2, 3])
    assert made.image_shape == (2, 3)
    assert {type(side) for side in made.image_shape} == {int}
    made.image_shape = None
    assert made.image_shape is None


# ---- Several threads -------------------------------------------------------------------------------------------------


@pytest.fixture
def frequent_switches():
    """The interpreter switches between threads 1,000 times as often as by default."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(interval / 1000)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize(
    ("counts", "repetitions"), [((1, 64, 7, 64), 150), ((200, 400, 800, 2000), 25)], ids=["small", "large"]
)
def test_predictions_from_several_threads_are_correct(counts, repetitions, frequent_switches):
    """Small predictions keep their buffers for the next one, and no two threads may use the same buffers."""
    made = Network([6, 40, 40, 4], activation="relu", dropout=0.2, batch_norm=True, rng=0)
    x = np.random.default_rng(1).random((2000, 6), np.float32)
    sets = [x[:count] for count in counts]
    expected = [(made.predict_proba(s), made.activations(s)[1]) for s in sets]

    def wrong(i):
        count = 0
        for _ in range(repetitions):
            p, a = made.predict_proba(sets[i]), made.activations(sets[i])[1]
            count += not (np.array_equal(p, expected[i][0]) and np.array_equal(a, expected[i][1]))
        return count

    with ThreadPoolExecutor(len(sets)) as pool:
        assert list(pool.map(wrong, range(len(sets)))) == [0] * len(sets)


@pytest.mark.parametrize("loss", CLASSIFICATION.values(), ids=CLASSIFICATION)
def test_predictions_while_another_thread_computes_gradients_are_correct(loss, frequent_switches):
    """Each thread has its own buffers: predictions do not disturb gradients, and gradients do not disturb them."""
    made = Network([6, 40, 40, 4], activation="relu", loss=loss, rng=0)
    rng = np.random.default_rng(1)
    x, t = rng.random((50, 6), np.float32), one_hot(rng.integers(0, 4, 50), 4)
    many, y = rng.random((100, 6), np.float32), rng.integers(0, 4, 100)
    made.backprop(x, t)
    gradient, p, evaluation = made.gradient.copy(), made.predict_proba(many), made.evaluate(many, y)
    wrong, done = [], threading.Event()

    def predict():
        while not done.is_set():
            if not np.array_equal(made.predict_proba(many), p) or made.evaluate(many, y) != evaluation:
                wrong.append("prediction")

    threads = [threading.Thread(target=predict) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        made.backprop(x, t)
        if not np.array_equal(made.gradient, gradient):
            wrong.append("gradient")
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_training_while_another_thread_predicts_gives_the_same_bits():
    x, y = np.random.default_rng(1).random((300, 6), np.float32), np.arange(300) % 4
    alone, watched = (Network([6, 40, 4], activation="relu", dropout=0.2, rng=0) for _ in range(2))
    Trainer(alone, SGD(0.1), batch_size=10, rng=0).fit(x, y, epochs=5)
    done = threading.Event()

    def predict():
        while not done.is_set():
            watched.predict(x)

    thread = threading.Thread(target=predict)
    thread.start()
    Trainer(watched, SGD(0.1), batch_size=10, rng=0).fit(x, y, epochs=5)
    done.set()
    thread.join()
    np.testing.assert_array_equal(watched.parameters, alone.parameters)


def test_html_of_an_evaluation():
    html = Evaluation(0.5, 3, 4)._repr_html_()
    assert "75.00%" in html
    assert "0.5000" in html
    assert "accuracy" not in Evaluation(0.5, None, 4)._repr_html_()


@pytest.mark.parametrize(("loss", "value"), [*((loss, 3e38) for loss in sorted(LOSSES)), ("cross_entropy", math.nan)])
def test_outputs_that_are_not_finite_are_an_error(loss, value, rejects):
    network = Network([4, 3, 2], activation="relu", loss=loss, rng=0)
    network.parameters[...] = value
    x, y = np.ones((5, 4)), np.array([0, 1, 0, 1, 0])
    y = y if network.loss.is_classification else one_hot(y, 2)
    methods = [lambda: network.predict(x), lambda: network.predict_proba(x), lambda: network.evaluate(x, y)]
    methods += [lambda: network.confusion_matrix(x, y)] if network.loss.is_classification else []
    for method in methods:
        with rejects("outputs of the model for example 0 are not finite"):
            method()


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_an_output_of_minus_infinity_is_an_error_with_the_number_of_its_example(loss, rejects):
    network = Network([2, 3], loss=loss, rng=0)
    network.layers[0].W[...] = [[1, 1], [-3e38, -3e38], [0, 1]]  # the sum overflows for an input of 1
    network.layers[0].b[...] = 0
    for predict in (network.predict, network.predict_proba, Ensemble([network, network]).predict_proba):
        with rejects("outputs of the model for example 2 are not finite"):
            predict([[0, 0], [1e-9, 0], [1, 1], [1, 1]])


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_finite_outputs_whose_squares_overflow_are_predictions(loss):
    network = Network([1, 3], loss=loss, rng=0)
    network.layers[0].W[...] = [[-3e38], [0], [-1e30]]
    network.layers[0].b[...] = 0
    assert np.isfinite(network.predict_proba([[1]])).all()


def test_predict_image_reads_the_digits_of_an_image():
    network = Network([64, 10], loss="cross_entropy", rng=0)
    network.image_shape = (8, 8)
    image = np.full((60, 40), 255, np.uint8)
    image[10:50, 18:22] = 0
    (reading,) = network.predict_image(image)
    (expected,) = images.predict_image(network, image)
    assert reading.probabilities == expected.probabilities
    np.testing.assert_array_equal(reading.digit, expected.digit)
