"""docs/explanation/errata.md: the printed listing raises the stated errors, and runs with the stated fixes."""

import contextlib
import importlib.util
import math
import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
ERRATA = ROOT / "docs" / "explanation" / "errata.md"

spec = importlib.util.spec_from_file_location("post", ROOT / "examples" / "post.py")
post = importlib.util.module_from_spec(spec)
spec.loader.exec_module(post)

PRINTED = '''\
def cross_entropy_loss(y, yhat):
    Cross Entropy Loss
    Inputs: target label and ground truth target label
    Output: loss l

    lsum = np.sum(np.multiply(y, np.log(yhat)))
    _, m = y.shape
    l = -(1./m) * lsum
    return l

def sgd(self, epochs, batch_size, lr, train, test=None):
    for i in range(epochs):
        mini_batch = [train[b:batch_size] for b in range(0, len(train), batch_size)]
        for batch in mini_batch:
            self.update(batch, lr)
        print("Epoch {0} complete".format(i))

class Network():

    def __init__(self, size):
        self.size = size
        self.layers = len(size)
        self.bias = np.random.randn(x, 1) for x in size[1:]
        self.weights = [np.random.randn(y, x)
                        for x, y in zip(size[:-1, size[1:]])]

def sigmoid(z):
    """Outputs the sigmoid of the input"""
    s = 1./(1. + np.exp(-z))
    return s

def sigmoid_d(z):
    """Returns the derivative of the current input for sigmoid function"""
    return sigmoid(z) * (1-(sigmoid(z))

def ff(self, a):
    Makes a forward pass through the network for the input
    ## Only used during testing phase
    for w, b in zip(self.weights, bias):
        layer_i = (, a)+b)
        a = sigmoid(layer_i)

    return a

def backprop(self, x, y):
    temp = x
    activations = [x]
    combination = []

    ## Feedforward pass
    for w, b in zip(self.weights, bias):
        z =, activation) + b

    ## Backward pass
    delta = (activations[-1] - y) * sigmoid_d(combination[-1])
    gradient_b[-1] = delta
    gradient_w[-1] =, activations[-2].transpose())

    for n in range(2, self.layers):
        linear_comb = combination[-l]
        derivative = sigmoid_d(linear_comb)
        delta =[-l+1].transpose(), delta) * derivative
        gradient_b[-l] = delta
        gradient_w[-] =, activations[-l-1].transpose())

    return (gradient_b, gradient_w)

def update(self, mini_batch, rate):
    n = len(mini_batch)
    for b in self.bias:
        gradient_b = [np.zeros(b.shape)]
    for w in self.weights:
        gradient_w = [np.zeros(w.shape)]

    for X, y in mini_batch:
        delta_b, delta_w = self.backprop(X, y)
        gradient_b = [a+b for a,b in zip(gradient_b, delta_b)]
        gradient_w = [a+b for a,b in zip(gradient_w, delta_w)]

    #Update rule
    for w, dw in zip(self.weights, gradient_w):
        self.weights = [w - (rate/n) * dw]
    for b, db in zip(self.bias, gradient_b):
        self.bias = [b - (rate/n) * db]
'''


class Defect(NamedTuple):
    """A row of the first table: what the listing raises if all other rows are fixed, and the fix."""

    row: int
    error: type[Exception]
    message: str
    fix: tuple[tuple[str, str], ...]  # (printed, fixed); the printed "" is the end of the listing


DEFECTS = [
    Defect(1, NameError, "name 'np' is not defined", (("def cross", "import numpy as np\n\ndef cross"),)),
    Defect(
        2,
        SyntaxError,
        "invalid syntax",
        (("    Cross Entropy Loss", '    """Cross Entropy Loss'), ("Output: loss l", 'Output: loss l"""')),
    ),
    Defect(
        3,
        AttributeError,
        "'Network' object has no attribute 'sgd'",
        (("", "\nNetwork.sgd, Network.ff, Network.backprop, Network.update = sgd, ff, backprop, update\n"),),
    ),
    Defect(4, ZeroDivisionError, "division by zero", (("train[b:batch_size]", "train[b:b+batch_size]"),)),
    Defect(
        5,
        SyntaxError,
        "invalid syntax",
        (("np.random.randn(x, 1) for x in size[1:]", "[np.random.randn(x, 1) for x in size[1:]]"),),
    ),
    Defect(
        6,
        TypeError,
        "list indices must be integers or slices, not tuple",
        (("zip(size[:-1, size[1:]])", "zip(size[:-1], size[1:])"),),
    ),
    Defect(7, SyntaxError, "'(' was never closed", (("(1-(sigmoid(z))", "(1-(sigmoid(z)))"),)),
    Defect(
        8,
        SyntaxError,
        "invalid syntax",
        (("Makes a forward pass through the network for the input", '"""Makes a forward pass through the network"""'),),
    ),
    Defect(9, NameError, "name 'bias' is not defined", (("bias):\n        layer_i", "self.bias):\n        layer_i"),)),
    Defect(10, SyntaxError, "unmatched ')'", (("(, a)+b)", "(np.dot(w, a)+b)"),)),
    Defect(
        11,
        NameError,
        "name 'gradient_b' is not defined",
        (
            (
                "    activations = [x]\n",
                "    activations = [x]\n"
                "    gradient_b = [np.zeros(b.shape) for b in self.bias]\n"
                "    gradient_w = [np.zeros(w.shape) for w in self.weights]\n",
            ),
        ),
    ),
    Defect(12, UnboundLocalError, "cannot access local variable 'activation'", (("temp = x", "activation = x"),)),
    Defect(13, NameError, "name 'bias' is not defined", (("bias):\n        z", "self.bias):\n        z"),)),
    Defect(14, SyntaxError, "unmatched ')'", (("z =, activation)", "z = np.dot(w, activation)"),)),
    Defect(
        15,
        ValueError,
        "shapes (10,30) and (784,1) not aligned",
        (("\n\n    ## Backward", "\n        activation = sigmoid(z)\n\n    ## Backward"),),
    ),
    Defect(
        16,
        ValueError,
        "operands could not be broadcast together with shapes (784,1) (10,1)",
        (
            (
                "\n\n    ## Backward",
                "\n        combination.append(z)\n        activations.append(activation)\n\n    ## Backward",
            ),
        ),
    ),
    Defect(17, SyntaxError, "unmatched ')'", (("gradient_w[-1] =,", "gradient_w[-1] = np.dot(delta,"),)),
    Defect(18, NameError, "name 'l' is not defined", (("for n in range(2", "for l in range(2"),)),
    Defect(19, SyntaxError, "unmatched ')'", (("delta =[-l+1]", "delta = np.dot(self.weights[-l+1]"),)),
    Defect(20, SyntaxError, "invalid syntax", (("gradient_w[-] ", "gradient_w[-l] "),)),
    Defect(21, SyntaxError, "unmatched ')'", (("=, activations[-l-1]", "= np.dot(delta, activations[-l-1]"),)),
    Defect(
        22,
        ValueError,
        "operands could not be broadcast together with shapes (10,1) (30,1)",
        (
            (
                "    for b in self.bias:\n        gradient_b = [np.zeros(b.shape)]",
                "    gradient_b = [np.zeros(b.shape) for b in self.bias]",
            ),
            (
                "    for w in self.weights:\n        gradient_w = [np.zeros(w.shape)]",
                "    gradient_w = [np.zeros(w.shape) for w in self.weights]",
            ),
        ),
    ),
    Defect(
        23,
        ValueError,
        "shapes (10,30) and (784,1) not aligned",
        (
            (
                "    for w, dw in zip(self.weights, gradient_w):\n        self.weights = [w - (rate/n) * dw]",
                "    self.weights = [w - (rate/n) * dw for w, dw in zip(self.weights, gradient_w)]",
            ),
            (
                "    for b, db in zip(self.bias, gradient_b):\n        self.bias = [b - (rate/n) * db]",
                "    self.bias = [b - (rate/n) * db for b, db in zip(self.bias, gradient_b)]",
            ),
        ),
    ),
]


def listing(*unfixed):
    """The printed listing with all DEFECTS fixed except these rows."""
    source = PRINTED
    for defect in DEFECTS:
        for before, after in defect.fix if defect.row not in unfixed else ():
            assert before == "" or source.count(before) == 1, (defect.row, before)
            source = source.replace(before, after) if before else source + after
    return source


def load(source):
    names = {}
    exec(compile(source, "the listing", "exec"), names)
    return names


@contextlib.contextmanager
def global_seed(seed):
    """The listing uses NumPy's global random generator."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def printed_network(size):
    with global_seed(0):
        return load(listing())["Network"](size)


def train_and_predict(source):
    x, y = np.random.default_rng(10).random((784, 1)), np.eye(10)[:, [3]]
    network = load(source)["Network"]([784, 30, 10])
    network.sgd(1, 10, 0.5, 20 * [(x, y)])
    return network.ff(x)


def column(*numbers):
    return np.array(numbers, np.float64).reshape(-1, 1)


def examples(n, n_in, n_out, rng):
    """n pairs (x, y): x uniform, y one-hot."""
    return [(rng.random((n_in, 1)), np.eye(n_out)[:, [i % n_out]]) for i in range(n)]


def rows():
    """Number and text of each row of the tables."""
    return {int(m[1]): m[0] for m in re.finditer(r"^\| (\d+) \|.*$", ERRATA.read_text(encoding="utf-8"), re.MULTILINE)}


# ---- What does not run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: str(defect.row))
def test_each_defect_alone_raises_the_error_of_its_row(defect):
    with pytest.raises(defect.error) as caught:
        train_and_predict(listing(defect.row))
    assert type(caught.value) is defect.error
    assert defect.message in str(caught.value)
    row = rows()[defect.row]
    assert defect.error.__name__ in row
    assert defect.message in row
    if defect.row not in {2, 3, 8}:  # docstrings, and a replacement for indenting four functions
        for _, after in defect.fix:
            assert all(line.strip() in PRINTED or line.strip() in row for line in after.splitlines())


def test_fixed_listing_trains_as_post_py_with_the_quadratic_cost(capsys):
    """The listing does not shuffle."""
    network = printed_network([6, 5, 4, 3])
    ours = post.Network([6, 5, 4, 3], cost="quadratic")
    ours.weights, ours.bias = list(network.weights), list(network.bias)
    train = examples(10, 6, 3, np.random.default_rng(11))
    network.sgd(2, 4, 1.0, train)
    for batch in 2 * [train[0:4], train[4:8], train[8:10]]:
        ours.update(batch, 1.0)
    assert capsys.readouterr().out == "Epoch 0 complete\nEpoch 1 complete\n"
    for a, b in zip([*network.bias, *network.weights], [*ours.bias, *ours.weights], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    np.testing.assert_allclose(network.ff(train[0][0]), ours.ff(train[0][0]), rtol=1e-12)


# ---- What runs but is wrong ------------------------------------------------------------------------------------------


def test_row_24_printed_loss_ignores_outputs_with_target_0():
    loss = load(listing())["cross_entropy_loss"]
    assert loss(column(0, 1, 0), column(1, 1, 1)) == 0
    z, y, eps = column(0.3, -0.2), column(0, 1), 1e-5
    a = post.sigmoid(z)
    for i in range(2):
        step = eps * np.eye(2)[:, [i]]
        slope = (loss(y, post.sigmoid(z + step)) - loss(y, post.sigmoid(z - step))) / (2 * eps)
        assert slope == pytest.approx((y * (a - 1))[i, 0], abs=1e-9)


def test_row_25_printed_loss_of_a_perfect_prediction_is_nan():
    loss = load(listing())["cross_entropy_loss"]
    with pytest.warns(RuntimeWarning, match="divide by zero|invalid value"):
        assert math.isnan(loss(column(0, 1), column(0, 1)))
    with pytest.warns(RuntimeWarning, match="divide by zero encountered in log"):
        assert loss(column(0, 1), column(1, 0)) == math.inf


def test_row_27_arrays_that_are_not_columns_fail_but_numbers_do_not():
    rng = np.random.default_rng(15)
    x, y = rng.random((784, 1)), np.eye(10)[:, [3]]
    network = printed_network([784, 30, 10])
    with pytest.raises(ValueError, match=re.escape("not enough values to unpack (expected 2, got 1)")):
        load(listing())["cross_entropy_loss"](y[:, 0], network.ff(x)[:, 0])
    with pytest.raises(ValueError, match=re.escape("shapes (10,10) and (1,30) not aligned")):
        network.backprop(x, y[:, 0])
    with pytest.raises(ValueError, match=re.escape("shapes (30,30) and (784,) not aligned")):
        network.backprop(x[:, 0], y)
    gradient_b, _ = network.backprop(x, 3)
    assert np.all(gradient_b[-1] < 0)


def test_row_28_without_shuffling_sorted_data_is_not_learned():
    rng = np.random.default_rng(16)
    classes = np.repeat(np.arange(3), 40)
    train = [(np.eye(3)[:, [c]] + 0.1 * rng.standard_normal((3, 1)), np.eye(3)[:, [c]]) for c in classes]
    network, ours = printed_network([3, 4, 3]), post.Network([3, 4, 3], cost="quadratic", rng=0)
    counts = []
    for trained in (network, ours):
        trained.sgd(2, 4, 3.0, train)
        counts.append(sum(int(trained.ff(x).argmax()) == int(y.argmax()) for x, y in train))
    assert counts[0] == 40  # only the last class
    assert counts[1] > 100


def test_row_33_printed_delta_makes_a_wrong_saturated_output_learn_slowly():
    """One neuron with a = 0.9999 and y = 0."""
    x, y = column(1), column(0)
    network = printed_network([1, 1])
    network.weights, network.bias = [np.zeros((1, 1))], [column(math.log(9999))]
    ours = post.Network([1, 1], rng=0)
    ours.weights, ours.bias = network.weights, network.bias
    assert network.backprop(x, y)[0][-1].item() == pytest.approx(1e-4, rel=1e-3)
    assert ours.backprop(x, y)[0][-1].item() == pytest.approx(1, rel=1e-3)


# ---- What the text says ----------------------------------------------------------------------------------------------


def test_row_41_gradient_can_grow_while_the_cost_decreases():
    """C = -exp(-w²), from w = 2."""
    w, costs, slopes = 2.0, [], []
    for _ in range(10):
        costs.append(-math.exp(-w * w))
        slopes.append(2 * w * math.exp(-w * w))
        w -= 0.1 * slopes[-1]
    assert costs == sorted(costs, reverse=True)
    assert slopes == sorted(slopes)


def test_row_43_learning_rate_that_is_too_high_increases_the_cost():
    """C = w² / 2: a learning rate of 3 moves w to -2w and multiplies the cost by four."""
    w = 1.0
    w -= 3 * w
    assert w**2 / 2 == 4 * (1.0**2 / 2)


def test_row_45_the_batch_size_divides_the_sum_of_the_gradients():
    rng = np.random.default_rng(19)
    network = post.Network([3, 2], rng=rng)
    batch = examples(10, 3, 2, rng)
    gradients = [network.backprop(x, y)[1][0] for x, y in batch]
    before = network.weights[0]
    network.update(batch, 0.5)
    np.testing.assert_allclose(before - network.weights[0], 0.5 / 10 * np.sum(gradients, axis=0), rtol=1e-12)


def test_program_that_counts_runs_and_has_the_rows_of_its_table(monkeypatch, capsys):
    section = ERRATA.read_text(encoding="utf-8").split("## The counts")[1]
    program = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    monkeypatch.setitem(sys.modules, "post", post)
    monkeypatch.setattr(sys, "argv", ["counts.py", "unused"])
    monkeypatch.setattr(post, "read_mnist", lambda directory, name: examples(20, 784, 10, np.random.default_rng(9)))
    exec(compile(program, "the program", "exec"), {})
    printed = [line[:32].strip() for line in capsys.readouterr().out.splitlines()]
    assert printed == re.findall(r"^\| (.+) \| \d+ \| \d+ \| \d+ \|$", section, re.MULTILINE)
