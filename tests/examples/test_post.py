"""examples/post.py, the oracle of the other tests, is itself right; and docs/errata.md says what is so."""

import ast
import contextlib
import copy
import gzip
import importlib.util
import math
import os
import re
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
POST = ROOT / "examples" / "post.py"
ERRATA = ROOT / "docs" / "errata.md"

spec = importlib.util.spec_from_file_location("post", POST)
assert spec is not None
assert spec.loader is not None
post = importlib.util.module_from_spec(spec)
spec.loader.exec_module(post)


def column(*numbers):
    return np.array(numbers, np.float64).reshape(-1, 1)


def examples(n, n_in, n_out, rng):
    """n pairs (x, y): x uniform, y one-hot."""
    return [(rng.random((n_in, 1)), np.eye(n_out)[:, [i % n_out]]) for i in range(n)]


def quadratic_loss(y, yhat):
    return np.sum((yhat - y) ** 2) / 2


LOSSES = {"cross-entropy": post.cross_entropy_loss, "quadratic": quadratic_loss}


# ---- sigmoid and cross-entropy ----


def test_sigmoid_against_hand_worked_numbers():
    z = column(0.0, math.log(3), -math.log(3))
    np.testing.assert_allclose(post.sigmoid(z), column(1 / 2, 3 / 4, 1 / 4), rtol=1e-15)
    np.testing.assert_allclose(post.sigmoid_d(z), column(1 / 4, 3 / 16, 3 / 16), rtol=1e-15)


def test_sigmoid_neither_overflows_nor_loses_its_tail():
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        assert post.sigmoid(column(-1e4, 1e4)).tolist() == [[0.0], [1.0]]
        np.testing.assert_allclose(post.sigmoid(column(-300.0)), column(math.exp(-300)), rtol=1e-13)
        assert post.sigmoid_d(column(-1e4, 1e4)).tolist() == [[0.0], [0.0]]


def test_sigmoid_d_is_the_slope_of_sigmoid():
    z, eps = np.linspace(-6, 6, 25), 1e-5
    slope = (post.sigmoid(z + eps) - post.sigmoid(z - eps)) / (2 * eps)
    np.testing.assert_allclose(post.sigmoid_d(z), slope, rtol=1e-6)


def test_cross_entropy_against_hand_worked_numbers():
    # -[ln(1 - 1/4) + ln(1/2)] = ln(4/3) + ln 2
    assert post.cross_entropy_loss(column(0, 1), column(1 / 4, 1 / 2)) == pytest.approx(math.log(8 / 3), rel=1e-14)
    # two examples, the mean of ln(8/3) and 2 ln 2
    y, yhat = np.array([[0, 1], [1, 0]]), np.array([[1 / 4, 1 / 2], [1 / 2, 1 / 2]])
    assert post.cross_entropy_loss(y, yhat) == pytest.approx((math.log(8 / 3) + math.log(4)) / 2, rel=1e-14)


def test_cross_entropy_is_safe_at_0_and_at_1():
    right = post.cross_entropy_loss(column(0, 1), column(0, 1))
    wrong = post.cross_entropy_loss(column(0, 1), column(1, 0))
    assert 0 <= right < 1e-15
    assert 700 < wrong < math.inf


def test_the_derivative_of_cross_entropy_by_z_is_a_minus_y():
    rng, eps = np.random.default_rng(0), 1e-5
    z, y = rng.standard_normal((4, 1)), rng.random((4, 1))
    for i in range(4):
        step = eps * np.eye(4)[:, [i]]
        rise = post.cross_entropy_loss(y, post.sigmoid(z + step)) - post.cross_entropy_loss(y, post.sigmoid(z - step))
        assert rise / (2 * eps) == pytest.approx(float(post.sigmoid(z)[i, 0] - y[i, 0]), rel=1e-7)


# ---- backprop ----


def check_gradients(network, x, y, loss, tolerance=1e-7):
    """Every gradient of network.backprop against the central difference of the loss."""
    eps = 1e-5
    gradient_b, gradient_w = network.backprop(x, y)
    assert len(gradient_b) == len(network.bias)
    assert len(gradient_w) == len(network.weights)
    for parameter, gradient in zip([*network.bias, *network.weights], [*gradient_b, *gradient_w], strict=True):
        assert parameter.shape == gradient.shape
        for i in np.ndindex(parameter.shape):
            was = parameter[i]
            parameter[i] = was + eps
            above = loss(y, network.ff(x))
            parameter[i] = was - eps
            below = loss(y, network.ff(x))
            parameter[i] = was
            slope = (above - below) / (2 * eps)
            assert abs(gradient[i] - slope) <= tolerance * max(1e-2, abs(slope)), (i, gradient[i], slope)


@pytest.mark.parametrize("cost", LOSSES)
@pytest.mark.parametrize("size", [[1, 1], [5, 3], [4, 3, 2], [2, 7, 1], [3, 5, 4, 1, 3, 2]], ids=str)
def test_backprop_against_finite_differences(size, cost):
    rng = np.random.default_rng(1)
    network = post.Network(size, cost=cost, rng=rng)
    check_gradients(network, rng.standard_normal((size[0], 1)), rng.random((size[-1], 1)), LOSSES[cost])


@pytest.mark.parametrize("plant", ["0.1 % off", "one layer lost", "the other cost's", "rows for columns"])
def test_a_planted_error_is_caught(plant):
    rng = np.random.default_rng(2)
    network = post.Network([3, 3, 3], rng=rng)
    x, y = rng.standard_normal((3, 1)), rng.random((3, 1))
    gradient_b, gradient_w = network.backprop(x, y)
    if plant == "0.1 % off":
        gradient_w[0] = gradient_w[0] * 1.001
    elif plant == "one layer lost":
        gradient_b[0] = np.zeros_like(gradient_b[0])
    elif plant == "the other cost's":
        gradient_b, gradient_w = post.Network.backprop(as_quadratic(network), x, y)
    else:
        gradient_w[1] = gradient_w[1].transpose()
    network.backprop = lambda x, y: (gradient_b, gradient_w)
    with pytest.raises(AssertionError):
        check_gradients(network, x, y, post.cross_entropy_loss)


def as_quadratic(network):
    network = copy.copy(network)
    network.cost = "quadratic"
    return network


def test_backprop_leaves_the_network_and_the_example_as_they_were():
    rng = np.random.default_rng(3)
    network = post.Network([4, 3, 2], rng=rng)
    x, y = rng.random((4, 1)), column(0, 1)
    before = copy.deepcopy([network.bias, network.weights, [x, y]])
    network.backprop(x, y)
    for was, now in zip(before, [network.bias, network.weights, [x, y]], strict=True):
        for a, b in zip(was, now, strict=True):
            np.testing.assert_array_equal(a, b)


# ---- update and sgd ----


@pytest.mark.parametrize(("cost", "factor"), [("cross-entropy", 1), ("quadratic", 1 / 4)])
def test_update_against_a_hand_worked_step(cost, factor):
    # With w = b = 0 each output is 1/2, so delta is -1/2, -1/2, 1/2, or a quarter of that (sigmoid' = 1/4):
    # the mean of delta is -1/6, the mean of delta x is (-1 - 1 + 4) / 6 = 1/3. A rate of 3 takes b to 1/2 and w to -1.
    network = post.Network([1, 1], cost=cost, rng=0)
    network.weights, network.bias = [np.zeros((1, 1))], [np.zeros((1, 1))]
    mini_batch = [(column(1), column(1)), (column(1), column(1)), (column(4), column(0))]
    network.update(mini_batch, 3.0)
    assert network.weights[0].item() == pytest.approx(-factor, rel=1e-15)
    assert network.bias[0].item() == pytest.approx(factor / 2, rel=1e-15)


@pytest.mark.parametrize("cost", LOSSES)
def test_update_goes_down_the_mean_of_the_gradients(cost):
    rng = np.random.default_rng(4)
    network = post.Network([4, 3, 3, 2], cost=cost, rng=rng)
    mini_batch = examples(7, 4, 2, rng)
    gradients = [network.backprop(x, y) for x, y in mini_batch]
    bias = [b - 0.3 * np.mean([gb[n] for gb, _ in gradients], axis=0) for n, b in enumerate(network.bias)]
    weights = [w - 0.3 * np.mean([gw[n] for _, gw in gradients], axis=0) for n, w in enumerate(network.weights)]
    network.update(mini_batch, 0.3)
    for expected, got in zip([*bias, *weights], [*network.bias, *network.weights], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-15)


def test_sgd_shows_every_example_once_an_epoch_in_a_new_order():
    rng = np.random.default_rng(5)
    network = post.Network([3, 2], rng=rng)
    train = examples(23, 3, 2, rng)
    order = [id(x) for x, _ in train]
    batches = []
    network.update = lambda batch, rate: batches.append(([id(x) for x, _ in batch], rate))
    network.sgd(2, 5, 0.1, train)
    assert [len(batch) for batch, _ in batches] == 2 * [5, 5, 5, 5, 3]  # the last one is ragged
    assert {rate for _, rate in batches} == {0.1}
    first, second = ([x for batch, _ in batches[i : i + 5] for x in batch] for i in (0, 5))
    assert sorted(first) == sorted(second) == sorted(order)
    assert order != first != second != order
    assert [id(x) for x, _ in train] == order  # the caller's list stays as it was


def test_sgd_prints_a_line_an_epoch(capsys):
    rng = np.random.default_rng(6)
    network = post.Network([3, 2], rng=rng)
    train, test = examples(4, 3, 2, rng), examples(6, 3, 2, rng)
    network.sgd(2, 2, 0.0, train)
    assert capsys.readouterr().out == "Epoch 0 complete\nEpoch 1 complete\n"
    network.sgd(1, 2, 0.0, train, test)
    right = sum(int(network.ff(x).argmax()) == int(y.argmax()) for x, y in test)
    assert capsys.readouterr().out == f"Epoch 0: {right} / 6\n"


def test_the_same_seed_gives_the_same_network():
    def trained(seed):
        network = post.Network([4, 3, 2], rng=seed)
        network.sgd(2, 3, 0.5, examples(10, 4, 2, np.random.default_rng(7)))
        return [*network.bias, *network.weights]

    for a, b in zip(trained(0), trained(0), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(np.any(a != b) for a, b in zip(trained(0), trained(1), strict=True))


def test_everything_is_float64():
    network = post.Network([4, 3, 2], rng=0)
    network.update(examples(3, 4, 2, np.random.default_rng(8)), 0.5)
    assert {p.dtype for p in [*network.bias, *network.weights]} == {np.dtype(np.float64)}


def test_an_unknown_cost_is_refused():
    with pytest.raises(ValueError, match="'hinge'; it can be 'cross-entropy' or 'quadratic'"):
        post.Network([2, 1], cost="hinge")


@pytest.mark.parametrize(("cost", "lr"), [("cross-entropy", 1.0), ("quadratic", 5.0)])
def test_it_learns_exclusive_or(cost, lr):
    xor = [(column(p, q), column(p ^ q)) for p in (0, 1) for q in (0, 1)]
    network = post.Network([2, 4, 1], cost=cost, rng=0)
    network.sgd(1500, 4, lr, xor)
    for x, y in xor:
        assert abs(network.ff(x) - y).item() < 0.1


# ---- the script ----


def run(*arguments):
    command = [sys.executable, "-W", "error", str(POST), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + array.tobytes())


def write_stripes(directory, n_train, n_test):
    """A set like MNIST, where the digit d is a bright band at height d."""
    rng = np.random.default_rng(9)
    for name, n in [("train", n_train), ("t10k", n_test)]:
        labels = (np.arange(n) % 10).astype(np.uint8)
        images = rng.integers(0, 60, (n, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 4 : 2 * label + 6, 4:24] = 250
        write_idx(directory / f"{name}-images-idx3-ubyte.gz", images)
        write_idx(directory / f"{name}-labels-idx1-ubyte.gz", labels)


@pytest.fixture
def stripes(tmp_path):
    write_stripes(tmp_path, 300, 40)
    return tmp_path


def test_the_script_trains(stripes):
    done = run(stripes, 12, 250)
    assert (done.returncode, done.stderr) == (0, "")
    *epochs, loss = done.stdout.splitlines()
    counts = [int(re.fullmatch(rf"Epoch {i}: (\d+) / 40", line)[1]) for i, line in enumerate(epochs)]
    assert len(counts) == 12
    assert counts[-1] >= 36
    assert re.fullmatch(r"Cross-entropy on the 40 test images: \d\.\d{4}", loss)


def test_reading_a_set(stripes):
    pairs = post.read_mnist(stripes, "t10k")
    assert len(pairs) == 40
    x, y = pairs[13]
    assert (x.shape, y.shape, x.dtype, y.dtype) == ((784, 1), (10, 1), np.float64, np.float64)
    assert y.argmax() == 3
    assert y.sum() == 1
    assert x.reshape(28, 28)[10:12, 4:24] == pytest.approx(250 / 255)
    assert x.min() >= 0


def test_the_script_without_arguments_says_how_to_use_it():
    done = run()
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr == "usage: python post.py MNIST_DIRECTORY [EPOCHS] [EXAMPLES]\n"


@pytest.mark.parametrize("trouble", ["no such directory", "not gzip", "cut short", "not IDX", "not a number"])
def test_the_script_answers_bad_input_with_one_line(stripes, trouble):
    labels = stripes / "train-labels-idx1-ubyte.gz"
    arguments = [stripes, 1]
    if trouble == "no such directory":
        arguments = [stripes / "nowhere"]
    elif trouble == "not gzip":
        labels.write_bytes(b"digits")
    elif trouble == "cut short":
        labels.write_bytes(labels.read_bytes()[:-20])
    elif trouble == "not IDX":
        labels.write_bytes(gzip.compress(b"digits"))
    else:
        arguments = [stripes, "many"]
    done = run(*arguments)
    assert done.returncode != 0
    assert done.stdout == ""
    assert re.fullmatch(r"post\.py: .+\n", done.stderr)


# ---- the file ----


def test_it_imports_numpy_alone():
    imports = [
        node
        for node in ast.walk(ast.parse(POST.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert {alias.name for node in imports for alias in node.names} == {"gzip", "sys", "numpy"}


def test_its_code_is_about_a_hundred_lines():
    tree = ast.parse(POST.read_text(encoding="utf-8"))
    ours = (ast.Module, ast.ClassDef, ast.FunctionDef)
    prose = set()
    for node in ast.walk(tree):
        if isinstance(node, ours) and ast.get_docstring(node) is not None:
            prose.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(POST.read_text(encoding="utf-8").splitlines(), start=1)
    code = [line for i, line in lines if i not in prose and line.strip() and not line.strip().startswith("#")]
    assert len(code) <= 115


# ---- the errata ----

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


@dataclass(frozen=True)
class Defect:
    """A row of the errata's first table: what the listing raises when all else is mended, and the mend."""

    row: int
    error: type[Exception]
    message: str
    mend: tuple[tuple[str, str], ...]  # (as printed, mended); the printed "" is the end of the listing

    def __str__(self):
        return str(self.row)


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


def listing(*but):
    """The printed listing with all of DEFECTS mended but these rows."""
    source = PRINTED
    for defect in DEFECTS:
        if defect.row in but:
            continue
        for printed, mended in defect.mend:
            if printed == "":
                source += mended
            else:
                assert source.count(printed) == 1, (defect.row, printed)
                source = source.replace(printed, mended)
    return source


def load(source):
    names = {}
    exec(compile(source, "the listing", "exec"), names)
    return names


@contextlib.contextmanager
def global_seed(seed):
    """The listing draws from NumPy's global generator."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def train_and_ask(source, size, train):
    with global_seed(0):
        network = load(source)["Network"](size)
        network.sgd(1, 10, 0.5, train)
        return network.ff(train[0][0])


def printed_network(size, seed=0):
    with global_seed(seed):
        return load(listing())["Network"](size)


def rows():
    """The errata's tables: {row number: (heading of its section, the row)}."""
    found, heading = {}, ""
    for line in ERRATA.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif match := re.match(r"\| (\d+) \|", line):
            assert int(match[1]) not in found
            found[int(match[1])] = (heading, line)
    return found


def test_the_tables_are_numbered_through():
    assert list(rows()) == list(range(1, len(rows()) + 1))
    assert all(line.count(" | ") == 4 for _, line in rows().values())


def test_the_first_table_is_the_list_of_what_does_not_run():
    first = [number for number, (heading, _) in rows().items() if heading == "What does not run"]
    assert first == [defect.row for defect in DEFECTS]


@pytest.mark.parametrize("defect", DEFECTS, ids=str)
def test_what_does_not_run(defect):
    """With all else mended, each defect alone raises what its row says."""
    train = examples(20, 784, 10, np.random.default_rng(10))
    with pytest.raises(defect.error) as caught:
        train_and_ask(listing(defect.row), [784, 30, 10], train)
    assert type(caught.value) is defect.error
    assert defect.message in str(caught.value)
    row = rows()[defect.row][1]
    assert f"`{defect.error.__name__}`" in row or f"`{defect.error.__name__}: " in row
    assert defect.message in row
    if defect.row not in {2, 3, 8}:  # prose, and a stand-in for indenting four functions
        for _, mended in defect.mend:
            for code in map(str.strip, mended.splitlines()):
                assert code in PRINTED or code in row


def test_nothing_else_keeps_the_listing_from_running(capsys):
    """With the first table's mends alone the listing runs, and is examples/post.py with the quadratic cost."""
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


def test_row_4_all_mini_batches_but_the_first_are_empty():
    train, batch_size = list(range(35)), 10
    mini_batch = [train[b:batch_size] for b in range(0, len(train), batch_size)]
    assert mini_batch == [list(range(10)), [], [], []]


def test_row_12_is_a_plain_name_error_as_long_as_row_15_is_not_mended():
    train = examples(4, 5, 3, np.random.default_rng(20))
    with pytest.raises(NameError, match="name 'activation' is not defined") as caught:
        train_and_ask(listing(12, 15), [5, 4, 3], train)
    assert caught.type is NameError


def test_row_16_equal_ends_run_into_the_other_empty_list():
    train = examples(4, 3, 3, np.random.default_rng(12))
    with pytest.raises(IndexError, match="list index out of range"):
        train_and_ask(listing(16), [3, 4, 3], train)


@pytest.mark.parametrize("but", [18, 22, 23])
def test_rows_18_22_and_23_a_network_without_hidden_layers_does_not_notice(but):
    train = examples(4, 5, 3, np.random.default_rng(13))
    np.testing.assert_array_equal(train_and_ask(listing(but), [5, 3], train), train_and_ask(listing(), [5, 3], train))


def test_row_24_the_printed_loss_does_not_see_a_wrong_one():
    loss = load(listing())["cross_entropy_loss"]
    assert loss(column(0, 1, 0), column(1, 1, 1)) == 0
    # and its derivative by z, y (a - 1), is not a - y
    z, y, eps = column(0.3, -0.2), column(0, 1), 1e-5
    a = post.sigmoid(z)
    for i in range(2):
        step = eps * np.eye(2)[:, [i]]
        slope = (loss(y, post.sigmoid(z + step)) - loss(y, post.sigmoid(z - step))) / (2 * eps)
        assert slope == pytest.approx((y * (a - 1))[i, 0], abs=1e-9)
    assert (y * (a - 1))[0, 0] == 0
    assert (a - y)[0, 0] > 0.5


def test_row_24_after_a_softmax_the_printed_loss_is_right():
    loss, rng, eps = load(listing())["cross_entropy_loss"], np.random.default_rng(14), 1e-5

    def softmax(z):
        return np.exp(z) / np.exp(z).sum()

    z, y = rng.standard_normal((4, 1)), column(0, 0, 1, 0)
    for i in range(4):
        step = eps * np.eye(4)[:, [i]]
        slope = (loss(y, softmax(z + step)) - loss(y, softmax(z - step))) / (2 * eps)
        assert slope == pytest.approx((softmax(z) - y)[i, 0], rel=1e-7)


def test_row_25_the_printed_loss_is_nan_for_a_perfect_answer():
    loss = load(listing())["cross_entropy_loss"]
    with pytest.warns(RuntimeWarning) as caught:
        assert math.isnan(loss(column(0, 1), column(0, 1)))
    assert [str(w.message) for w in caught] == [
        "divide by zero encountered in log",
        "invalid value encountered in multiply",
    ]
    with pytest.warns(RuntimeWarning, match="divide by zero encountered in log"):
        assert loss(column(0, 1), column(1, 0)) == math.inf


def test_rows_26_and_29_nothing_calls_the_loss_or_ff_or_reads_test():
    tree = ast.parse(listing())
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    called |= {n.func.attr for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)}
    assert {"sigmoid", "update", "backprop"} <= called
    assert called.isdisjoint({"cross_entropy_loss", "ff"})
    assert "test" not in {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}


def test_row_27_what_is_not_a_column():
    rng = np.random.default_rng(15)
    x, y = rng.random((784, 1)), np.eye(10)[:, [3]]
    network = printed_network([784, 30, 10])
    with pytest.raises(ValueError, match=re.escape("not enough values to unpack (expected 2, got 1)")):
        load(listing())["cross_entropy_loss"](y[:, 0], network.ff(x)[:, 0])
    with pytest.raises(ValueError, match=re.escape("shapes (10,10) and (1,30) not aligned")):
        network.backprop(x, y[:, 0])
    with pytest.raises(ValueError, match=re.escape("shapes (30,30) and (784,) not aligned")):
        network.backprop(x[:, 0], y)
    # a label that is a plain number is taken without a word, and pulls every output towards it
    gradient_b, _ = network.backprop(x, 3)
    assert gradient_b[-1].shape == (10, 1)
    assert np.all(gradient_b[-1] < 0)


def test_row_28_the_order_is_always_the_same(capsys):
    """On a set sorted by class only shuffling learns: the last class's batches undo the others."""
    rng = np.random.default_rng(16)
    classes = np.repeat(np.arange(3), 40)
    train = [(np.eye(3)[:, [c]] + 0.1 * rng.standard_normal((3, 1)), np.eye(3)[:, [c]]) for c in classes]

    def right(network):
        return sum(int(network.ff(x).argmax()) == int(y.argmax()) for x, y in train)

    network = printed_network([3, 4, 3])
    seen = []
    step = network.update
    network.update = lambda batch, rate: (seen.append([id(x) for x, _ in batch]), step(batch, rate))
    network.sgd(2, 4, 3.0, train)
    assert seen[:30] == seen[30:]
    assert right(network) == 40
    assert network.ff(train[0][0]).argmax() == 2
    ours = post.Network([3, 4, 3], cost="quadratic", rng=0)
    ours.sgd(2, 4, 3.0, train)
    assert right(ours) > 100


def test_row_30_the_global_generator_decides():
    a, b = printed_network([3, 2], seed=1), printed_network([3, 2], seed=2)
    assert np.any(a.weights[0] != b.weights[0])
    assert post.Network([3, 2], rng=1).weights[0].tolist() == post.Network([3, 2], rng=1).weights[0].tolist()


def test_row_31_a_wide_layer_starts_saturated():
    """A hundred bright pixels of 784, and a bias: the variance of z is 101."""
    rng = np.random.default_rng(17)
    x = np.zeros((784, 1))
    x[rng.permutation(784)[:100]] = 1
    network = post.Network([784, 3000, 10], rng=rng)
    z = network.weights[0] @ x + network.bias[0]
    assert z.std() == pytest.approx(math.sqrt(101), rel=0.1)
    assert np.mean(abs(z) > 5) > 0.5
    assert np.mean(abs(z / math.sqrt(784)) > 5) == 0


def test_row_32_the_printed_sigmoid_overflows():
    sigmoid = load(listing())["sigmoid"]
    with pytest.warns(RuntimeWarning, match="overflow encountered in exp"):
        assert sigmoid(column(-710.0)).item() == 0


def test_row_33_the_printed_delta_is_the_quadratic_costs():
    rng = np.random.default_rng(18)
    network = printed_network([4, 3, 2])
    x, y = rng.random((4, 1)), column(0, 1)
    check_gradients(network, x, y, quadratic_loss)
    with pytest.raises(AssertionError):
        check_gradients(network, x, y, post.cross_entropy_loss)


def test_row_33_the_worse_the_error_the_slower_it_learns():
    """One neuron at a = 0.9999 with y = 0: the quadratic delta is a ten-thousandth, cross-entropy's is one."""
    x, y = column(1), column(0)
    quadratic, binary_cross_entropy = post.Network([1, 1], cost="quadratic", rng=0), post.Network([1, 1], rng=0)
    for network in (quadratic, binary_cross_entropy):
        network.weights, network.bias = [np.zeros((1, 1))], [column(math.log(9999))]
    assert quadratic.backprop(x, y)[0][-1].item() == pytest.approx(1e-4, rel=1e-3)
    assert binary_cross_entropy.backprop(x, y)[0][-1].item() == pytest.approx(1, rel=1e-3)


def test_row_34_running_the_listing_prints_nothing(capsys):
    load(listing())
    assert capsys.readouterr() == ("", "")


def test_the_text_on_the_gradient_always_decreasing():
    """C = -exp(-w^2), from w = 2: the cost falls at each step while the slope grows."""
    w, costs, slopes = 2.0, [], []
    for _ in range(10):
        costs.append(-math.exp(-w * w))
        slopes.append(2 * w * math.exp(-w * w))
        w -= 0.1 * slopes[-1]
    assert costs == sorted(costs, reverse=True)
    assert slopes == sorted(slopes)


def test_the_text_on_too_high_a_rate():
    """C = w^2 / 2: the rate 3 takes w to -2 w, and so the cost to four times itself."""
    w = 1.0
    w -= 3 * w
    assert w == -2
    assert w**2 / 2 == 4 * (1.0**2 / 2)


def test_the_text_on_the_division_by_the_size_of_the_mini_batch():
    """Eta / l of the mean gradient is a step l times too short; of the sum of the gradients, the right one."""
    rng = np.random.default_rng(19)
    network = post.Network([3, 2], rng=rng)
    batch = examples(10, 3, 2, rng)
    gradients = [network.backprop(x, y)[1][0] for x, y in batch]
    before = network.weights[0]
    network.update(batch, 0.5)
    step = before - network.weights[0]
    np.testing.assert_allclose(step, 0.5 / 10 * np.sum(gradients, axis=0), rtol=1e-12)
    np.testing.assert_allclose(step, 10 * (0.5 / 10 * np.mean(gradients, axis=0)), rtol=1e-12)


def test_the_program_that_counts_runs(tmp_path):
    """On a small set; its lines are the rows of the table above it."""
    write_stripes(tmp_path, 20, 10)
    section = ERRATA.read_text(encoding="utf-8").split("## The counts")[1]
    program = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(POST.parent)},
    )
    assert done.stderr == ""
    printed = [line[:32].strip() for line in done.stdout.splitlines()]
    table = [line.split(" | ") for line in section.splitlines() if re.fullmatch(r"\| .+ \| \d+ \| \d+ \| \d+ \|", line)]
    assert printed == [name.removeprefix("| ") for name, *_ in table]
    tables = ERRATA.read_text(encoding="utf-8").split("## The counts")[0]
    for name, mean, *_ in table:
        assert f"{int(mean):,}" in (rows()[int(name[2:4])][1] if name[2:4].isdigit() else tables)
