"""Networks of one output, 0 or 1, no or yes: their training, answers, files, teachers, attacks, pictures, commands."""

import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from click.testing import CliRunner
from PIL import Image

from handgrad import (
    SGD,
    Adam,
    Ensemble,
    BinaryCrossEntropy,
    Dense,
    Network,
    Quadratic,
    Trainer,
    check_gradient,
    cli,
    load,
    save,
    deepfool,
)
from handgrad.data.idx import write_idx
from handgrad.diagnostics import plots
from handgrad.model import by_class

both_losses = pytest.mark.parametrize("loss", ["binary_cross_entropy", "quadratic"])
RNG = np.random.default_rng(3)
X = RNG.random((300, 16)).astype(np.float32)  # pictures of 4 x 4: is the left half darker than the right?
Y = (X.reshape(-1, 4, 4)[:, :, :2].sum(axis=(1, 2)) > X.reshape(-1, 4, 4)[:, :, 2:].sum(axis=(1, 2))).astype(int)


@pytest.fixture(scope="module", params=["binary_cross_entropy", "quadratic"])
def learnt(request):
    """A network that has learnt it, and its history."""
    network = Network([16, 8, 1], activation="tanh", loss=request.param, rng=0)
    network.image_shape = (4, 4)
    history = Trainer(network, Adam(0.02), batch_size=20, rng=0).fit(X, Y, epochs=30, validation=(X[:50], Y[:50]))
    return network, history


def by_hand(loss, w, b):
    """z = w x + b of one input."""
    layer = Dense(1, 1)
    network = Network([layer], loss=loss, rng=0, dtype=np.float64)
    layer.W[...], layer.b[...] = w, b
    return network


# ---- Answers ---------------------------------------------------------------------------------------------------------


def test_it_learns_and_knows_again(learnt):
    network, history = learnt
    assert history["accuracy"][0] < history["accuracy"][-1]
    assert history["accuracy"][-1] > 0.95
    evaluation = network.evaluate(X, Y)
    assert evaluation.accuracy > 0.95
    assert evaluation.correct == (network.predict(X) == Y).sum() == np.trace(network.confusion_matrix(X, Y))
    assert set(network.predict(X)) == {0, 1}


@pytest.mark.parametrize(
    ("loss", "b", "answers", "p"),
    [
        # σ(x) is over ½ where x is over 0
        (
            "binary_cross_entropy",
            0,
            [0, 0, 0, 1, 1],
            [1 / (1 + np.e**2), 1 / (1 + np.e), 0.5, 1 / (1 + np.e**-1), None],
        ),
        ("quadratic", 0, [0, 0, 0, 1, 1], [-2, -1, 0, 1, 2]),  # a is over ½ where x is
        ("quadratic", -1, [0, 0, 0, 0, 1], [-3, -2, -1, 0, 1]),
    ],
)
def test_answers_worked_by_hand(loss, b, answers, p):
    network, x = by_hand(loss, 1, b), np.array([[-2], [-1], [0], [1], [2.0]])
    np.testing.assert_array_equal(network.predict(x), answers)
    for got, expected in zip(network.predict_proba(x)[:, 0], p, strict=True):
        assert expected is None or got == pytest.approx(expected, rel=1e-12)
    y = np.array([0, 1, 0, 1, 1])
    right = (np.array(answers) == y).sum()
    assert (network.evaluate(x, y).correct, network.evaluate(x, y[:, None]).correct) == (right, right)
    expected = [[int(((y == i) & (np.array(answers) == j)).sum()) for j in (0, 1)] for i in (0, 1)]
    np.testing.assert_array_equal(network.confusion_matrix(x, y), expected)
    assert (network.n_classes, network.classes) == (2, ("0", "1"))


def test_the_loss_is_that_of_a_yes_and_a_no():
    """-ln σ(1) and -ln (1 - σ(2)); ½ (1 - 1)² and ½ (2 - 0)²"""
    x, y = np.array([[1], [2.0]]), [1, 0]
    expected = (np.log1p(np.exp(-1)) + np.log1p(np.exp(2))) / 2
    assert by_hand("binary_cross_entropy", 1, 0).evaluate(x, y).loss == pytest.approx(expected, rel=1e-12)
    assert by_hand("quadratic", 1, 0).evaluate(x, y).loss == pytest.approx(1, rel=1e-12)


def test_one_sigmoid_is_a_softmax_of_two():
    """With z₀ = 0: the same probabilities, losses, answers, gradients and soft labels."""
    rng = np.random.default_rng(0)
    one = Network([5, 1], loss="binary_cross_entropy", rng=0, dtype=np.float64)
    two = Network([5, 2], loss="cross_entropy", rng=0, dtype=np.float64)
    two.parameters[...] = 0
    two.layers[0].W[1], two.layers[0].b[1] = one.layers[0].W[0], one.layers[0].b[0]
    x, y = rng.standard_normal((20, 5)), rng.integers(0, 2, 20)
    np.testing.assert_allclose(by_class(one.predict_proba(x)), two.predict_proba(x), rtol=1e-12)
    np.testing.assert_array_equal(one.predict(x), two.predict(x))
    np.testing.assert_allclose(one.evaluate(x, y), two.evaluate(x, y), rtol=1e-12)
    np.testing.assert_array_equal(one.confusion_matrix(x, y), two.confusion_matrix(x, y))
    for temperature in (0.5, 1, 4):
        np.testing.assert_allclose(
            by_class(one.soft_labels(x, temperature)), two.soft_labels(x, temperature), rtol=1e-10
        )
    for network in (one, two):
        network.backprop(x, network.loss.targets(y, 20, network.n_out, np.float64))
    np.testing.assert_allclose(one.layers[0].dW[0], two.layers[0].dW[1], rtol=1e-10)


@both_losses
def test_labels_of_any_integer_kind_are_a_column(loss):
    made = {"binary_cross_entropy": BinaryCrossEntropy, "quadratic": Quadratic}[loss]()
    for y in ([1, 0, 1], np.array([1, 0, 1], np.uint8), np.array([True, False, True]), [[1], [0], [1]]):
        t = made.targets(y, 3, 1, np.float32)
        np.testing.assert_array_equal(t, [[1], [0], [1]])
        assert t.dtype == np.float32


@both_losses
def test_smoothing_goes_to_both_classes(loss):
    made = {"binary_cross_entropy": BinaryCrossEntropy, "quadratic": Quadratic}[loss](0.2)
    np.testing.assert_allclose(made.targets([0, 1], 2, 1, np.float64), [[0.1], [0.9]], rtol=1e-14)
    two = made.targets([0, 1], 2, 2, np.float64)
    np.testing.assert_allclose(two[:, 1:], made.targets([0, 1], 2, 1, np.float64), rtol=1e-14)


@both_losses
def test_its_gradient_passes(loss):
    check_gradient(Network([16, 4, 1], loss=loss, rng=0), X[:7], Y[:7])


@pytest.mark.parametrize(
    ("y", "says"),
    [
        ([0, 2], "the label 2: of 2 classes the labels are 0 to 1"),
        ([0, -1], "the label -1: of 2 classes"),
        ([0.0, 1.0], r"\(2,\) integer labels, or \(2, 1\)"),
        (np.eye(2), r"shape \(2, 2\)"),
    ],
)
def test_labels_that_are_none_are_refused(y, says, refused):
    with refused(says):
        BinaryCrossEntropy().targets(y, 2, 1, np.float32)


def test_a_softmax_of_one_is_refused(refused):
    with refused("cross_entropy of one output.*expected binary_cross_entropy, or 2 outputs"):
        Trainer(Network([16, 1], loss="cross_entropy", rng=0), SGD(0.1)).fit(X, Y, epochs=1)


def test_by_class_leaves_several_outputs_as_they_are():
    p = np.array([[0.25, 0.75]])
    assert by_class(p) is p
    np.testing.assert_array_equal(by_class(np.array([[0.25], [1]])), [[0.75, 0.25], [0, 1]])


# ---- With others -----------------------------------------------------------------------------------------------------


def test_a_committee_answers_by_the_mean(learnt):
    network, _ = learnt
    other = Network([16, 8, 1], activation="tanh", loss=network.loss, rng=5)
    other.image_shape = (4, 4)
    ensemble = Ensemble([network, other])
    mean = (network.predict_proba(X) + other.predict_proba(X)) / 2
    np.testing.assert_allclose(ensemble.predict_proba(X), mean, rtol=1e-6)
    np.testing.assert_array_equal(ensemble.predict(X), mean[:, 0] > 0.5)
    assert ensemble.confusion_matrix(X, Y).shape == (2, 2)


def test_it_teaches_both_answers(learnt):
    """Not yes alone, as a softmax of one column would."""
    network, _ = learnt
    pupil = Network([16, 8, 1], activation="tanh", rng=9)
    Trainer(pupil, Adam(0.02), batch_size=20, teacher=network, rng=0).fit(X, np.zeros(300, int), epochs=30)
    assert (pupil.predict(X) == network.predict(X)).mean() > 0.95


def test_the_smallest_change_flips_it_either_way(learnt):
    network, _ = learnt
    for answer in (0, 1):
        x = X[np.flatnonzero(network.predict(X) == answer)[0]]
        found = deepfool(network, x)
        assert (found.answer_before, found.answer_after) == (answer, 1 - answer)
        assert network.predict_proba(found.picture[None])[0, 0] == pytest.approx(0.5, abs=0.01)
        assert 0 < found.l2 < 2


@both_losses
def test_the_smallest_change_of_a_plane_is_the_way_to_it(loss):
    """z = 3 x₀ + 4 x₁ - 2: the plane is |z - z½| / 5 away, z½ = 0 of a sigmoid, ½ of an answer as it is."""
    layer = Dense(2, 1)
    network = Network([layer], loss=loss, rng=0, dtype=np.float64)
    layer.W[...], layer.b[...] = [[3, 4]], -2
    half = 0 if loss == "binary_cross_entropy" else 0.5
    found = deepfool(network, np.array([0.2, 0.1]))
    assert found.l2 == pytest.approx((1 + half) / 5, rel=1e-3)
    np.testing.assert_allclose(found.change / found.l2, [0.6, 0.8], atol=1e-3)
    back = deepfool(network, np.array([0.9, 0.9]))
    assert (back.answer_before, back.answer_after) == (1, 0)
    assert back.l2 == pytest.approx((6.3 - 2 - half) / 5, rel=1e-3)


# ---- Files -----------------------------------------------------------------------------------------------------------


def test_a_file_keeps_it_and_the_names_of_both_classes(learnt, tmp_path):
    network, _ = learnt
    network = network.folded()
    network.classes = ("right", "left")
    save(network, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert (again.classes, again.n_classes) == (("right", "left"), 2)
    np.testing.assert_array_equal(again.outputs(X), network.outputs(X))


def rewritten(path, classes):
    """The file with other names of its classes in it, and of the first format, as an older handgrad wrote it."""
    with safetensors.safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["handgrad"])
    description |= {"classes": classes, "format": 1}
    arrays = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(arrays, path, {"handgrad": json.dumps(description)})
    return path


@pytest.mark.parametrize(
    ("theirs", "ours"), [(["0"], ("0", "1")), (["a seven"], ("not a seven", "a seven")), (["no", "yes"], ("no", "yes"))]
)
def test_a_file_from_before_with_one_name_is_read(learnt, theirs, ours, tmp_path):
    network, _ = learnt
    save(network, tmp_path / "m.safetensors")
    again = load(rewritten(tmp_path / "m.safetensors", theirs))
    assert again.classes == ours
    np.testing.assert_array_equal(again.predict(X), network.predict(X))
    save(again, tmp_path / "again.safetensors")
    assert load(tmp_path / "again.safetensors").classes == ours


@pytest.mark.parametrize("classes", [[], ["a", "b", "c"], 5, None])
def test_a_file_with_other_than_one_or_two_names_is_refused(learnt, classes, tmp_path, refused):
    save(learnt[0], tmp_path / "m.safetensors")
    with refused("description"):
        load(rewritten(tmp_path / "m.safetensors", classes))


def test_one_name_is_not_written_and_none_of_two_outputs_is_made_up(tmp_path, refused):
    one, two = Network([4, 1], rng=0), Network([4, 2], rng=0)
    one.classes = ("yes",)
    with refused("expected the names of 2 classes"):
        save(one, tmp_path / "m.safetensors")
    save(two, tmp_path / "m.safetensors")
    with refused("expected the names of 2 classes"):
        load(rewritten(tmp_path / "m.safetensors", ["0"]))
    numbers = Network([4, 1], loss="huber", rng=0)
    save(numbers, tmp_path / "m.safetensors")
    assert load(tmp_path / "m.safetensors").classes == ("0",)


# ---- Pictures of it --------------------------------------------------------------------------------------------------


def test_the_report_has_the_mistakes_of_both_classes(learnt, tmp_path, monkeypatch):
    network, history = learnt
    captions, drawn = [], plots._pictures

    def watching(axes, pictures, columns, words=(), **look):
        captions.extend(words)
        drawn(axes, pictures, columns, words, **look)

    monkeypatch.setattr(plots, "_pictures", watching)
    y = np.where(np.arange(300) < 10, 1 - network.predict(X), network.predict(X))  # ten that it has wrong
    assert len(set(y[:10])) == 2
    plots.report(tmp_path / "r.png", network, history, X, y, title="left or right")
    assert sorted(captions) == sorted(f"{1 - k}, {k}" for k in y[:10])
    probabilities = network.predict_proba(X[:10])[:, 0]
    surest = 1 - y[np.argmax(np.abs(probabilities - 0.5))]
    assert captions[0] == f"{surest}, {1 - surest}"
    with Image.open(tmp_path / "r.png") as report:
        assert report.size == (1400, 1050)


@pytest.mark.parametrize("pictures", [True, False])
def test_the_report_of_numbers_has_its_loss_and_no_accuracy(pictures, tmp_path, monkeypatch):
    network = Network([16, 4, 1], loss="squared_error", rng=0)
    network.image_shape = (4, 4) if pictures else None
    history = Trainer(network, SGD(0.1), rng=0).fit(X, Y, epochs=2, validation=(X, Y))
    curves, drawn = [], plots._curve
    monkeypatch.setattr(
        plots, "_curve", lambda axes, h, name, *rest, **more: curves.append(name) or drawn(axes, h, name, *rest, **more)
    )
    for examples in ((None, None), (X, Y)):
        plots.report(tmp_path / "r.png", network, history, *examples, title="numbers")
    assert curves == ["loss", "loss"]
    with Image.open(tmp_path / "r.png") as report:
        assert report.size == (1400, 1050)


# ---- The command line ------------------------------------------------------------------------------------------------


def within(*arguments):
    done = CliRunner().invoke(cli.handgrad, [str(a) for a in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """A directory of IDX files of bars, standing 1 and lying 0, a network that knows them, and two pictures."""
    place, rng = tmp_path_factory.mktemp("bars"), np.random.default_rng(0)
    y = (np.arange(200) % 2).astype(np.uint8)
    x = np.zeros((200, 28, 28), np.uint8)
    for picture, label in zip(x, y, strict=True):
        middle = rng.integers(12, 15)
        rows, columns = slice(4, 24), slice(middle, middle + 3)
        picture[(rows, columns) if label else (columns, rows)] = 255
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    for name, array in zip(names, (x[:100], y[:100], x[100:], y[100:]), strict=True):
        write_idx(place / f"{name}.gz", array)
    network = Network([784, 1], rng=0, init="zeros")
    network.image_shape, network.classes = (28, 28), ("lying", "standing")
    Trainer(network, SGD(0.1), rng=0).fit(x[:100], y[:100], epochs=3)
    assert network.evaluate(x, y).accuracy == 1
    save(network, place / "m.safetensors")
    for label, name in enumerate(("lying", "standing")):
        Image.fromarray(255 - x[y == label][0]).save(place / f"{name}.png")
    return place


def test_evaluate_tells_both_classes(bars):
    code, said, _ = within("evaluate", bars / "m.safetensors", "--data", bars, "--json")
    told = json.loads(said)
    assert (code, told["correct"], told["total"], told["classes"]) == (0, 100, 100, ["lying", "standing"])
    assert told["confusion_matrix"] == [[50, 0], [0, 50]]
    code, said, _ = within("evaluate", bars / "m.safetensors", "--data", bars)
    assert code == 0
    assert [line.split() for line in said.splitlines()[2:]] == [
        ["lying", "standing"],
        ["lying", "50", "."],
        ["standing", ".", "50"],
    ]


def test_predict_names_the_class_and_the_probabilities_of_both(bars, tmp_path):
    pictures = bars / "lying.png", bars / "standing.png"
    code, said, _ = within("predict", bars / "m.safetensors", *pictures, "--json")
    assert code == 0
    for name, line in zip(("lying", "standing"), said.splitlines(), strict=True):
        told = json.loads(line)
        assert told["answer"] == name == max(told["probabilities"], key=told["probabilities"].get)
        assert set(told["probabilities"]) == {"lying", "standing"}
        assert sum(told["probabilities"].values()) == pytest.approx(1, rel=1e-6)
    code, said, _ = within("predict", bars / "m.safetensors", *pictures, "--show", tmp_path / "seen.png")
    assert code == 0
    first, second, _ = said.splitlines()
    assert first.split(": ")[1].startswith("lying (")
    assert ", or standing (" in first
    assert second.split(": ")[1].startswith("standing (")


def test_attack_makes_the_one_the_other(bars):
    code, said, _ = within("attack", bars / "m.safetensors", bars / "lying.png", bars / "standing.png", "--json")
    assert code == 0
    told = [json.loads(line) for line in said.splitlines()]
    assert [(t["before"], t["after"]) for t in told] == [("lying", "standing"), ("standing", "lying")]
    for change in told:
        assert change["p_before"] > 0.5
        assert change["p_after"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("command", ["evaluate", "predict", "attack"])
def test_a_model_of_numbers_is_refused_in_one_line(bars, command, tmp_path):
    network = Network([784, 1], loss="huber", rng=0)
    network.image_shape = (28, 28)
    save(network, tmp_path / "m.safetensors")
    more = ("--data", bars) if command == "evaluate" else (bars / "lying.png",)
    code, said, complained = within(command, tmp_path / "m.safetensors", *more)
    assert (code, said) == (2, "")
    assert "answers by numbers" in complained
    assert complained.count("\n") == 1
