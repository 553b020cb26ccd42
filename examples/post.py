"""The network of the blog post that handgrad is based on, with all errors of its printed listing fixed.

The names and the loops are those of the blog post: one example at a time, with NumPy only.
docs/explanation/errata.md lists every fix and its reason. To train on MNIST, with a directory that contains the four
original files:

    python examples/post.py MNIST_DIRECTORY [EPOCHS] [EXAMPLES]
"""
# ruff: noqa: B905, RUF007  (the zips are those of the blog post)

import gzip
import sys

import numpy as np


def cross_entropy_loss(y, yhat):
    """Compute the cross-entropy: -[y log(yhat) + (1 - y) log(1 - yhat)], summed over outputs, mean over examples.

    Inputs: ground truth y and prediction yhat, both (n, m), one column for each of the m examples
    Output: loss
    """
    limits = np.finfo(np.float64)
    yhat = np.clip(yhat, limits.tiny, 1 - limits.epsneg)  # a sigmoid can round to 0 or 1; log(0) is -inf
    lsum = np.sum(np.multiply(y, np.log(yhat)) + np.multiply(1 - y, np.log(1 - yhat)))
    _, m = y.shape
    return -(1 / m) * lsum


def sigmoid(z):
    """Compute the sigmoid 1 / (1 + exp(-z))."""
    e = np.exp(-np.abs(z))  # exp(-|z|) cannot overflow
    return np.where(z >= 0, 1, e) / (1 + e)


def sigmoid_d(z):
    """Compute the derivative of the sigmoid at z."""
    return sigmoid(z) * (1 - sigmoid(z))


class Network:
    """A network of sigmoid layers with size[0] inputs and size[-1] outputs.

    x (size[0], 1) and y (size[-1], 1) are columns.

    cost: "cross-entropy", or "quadratic", the sum of (a - y)^2 / 2 over the outputs
    rng: a NumPy Generator or a seed, for the initial weights and for shuffling
    """

    def __init__(self, size, *, cost="cross-entropy", rng=None):
        if cost not in ("cross-entropy", "quadratic"):
            raise ValueError(f"cost is {cost!r}; it can be 'cross-entropy' or 'quadratic'")
        self.size = size
        self.layers = len(size)
        self.cost = cost
        self.rng = np.random.default_rng(rng)
        self.bias = [self.rng.standard_normal((x, 1)) for x in size[1:]]
        self.weights = [self.rng.standard_normal((y, x)) for x, y in zip(size[:-1], size[1:])]

    def sgd(self, epochs, batch_size, lr, train, test=None):
        """Train on a list of pairs (x, y). After each epoch, print the number of correct predictions for test."""
        for i in range(epochs):
            shuffled = [train[j] for j in self.rng.permutation(len(train))]
            mini_batch = [shuffled[b : b + batch_size] for b in range(0, len(train), batch_size)]
            for batch in mini_batch:
                self.update(batch, lr)
            if test is None:
                print(f"Epoch {i} complete")
            else:
                right = sum(np.argmax(self.ff(x)) == np.argmax(y) for x, y in test)
                print(f"Epoch {i}: {right} / {len(test)}")

    def ff(self, a):
        """Compute the output of the network for the input a."""
        ## Only used during testing phase
        for w, b in zip(self.weights, self.bias):
            layer_i = np.dot(w, a) + b
            a = sigmoid(layer_i)

        return a

    def backprop(self, x, y):
        """Compute the gradients of the cost of one example with respect to all biases and all weights."""
        gradient_b = [np.zeros(b.shape) for b in self.bias]
        gradient_w = [np.zeros(w.shape) for w in self.weights]
        activation = x
        activations = [x]
        combination = []

        ## Feedforward pass
        for w, b in zip(self.weights, self.bias):
            z = np.dot(w, activation) + b
            combination.append(z)
            activation = sigmoid(z)
            activations.append(activation)

        ## Backward pass
        delta = activations[-1] - y
        if self.cost == "quadratic":
            delta = delta * sigmoid_d(combination[-1])
        gradient_b[-1] = delta
        gradient_w[-1] = np.dot(delta, activations[-2].transpose())

        for n in range(2, self.layers):
            linear_comb = combination[-n]
            derivative = sigmoid_d(linear_comb)
            delta = np.dot(self.weights[-n + 1].transpose(), delta) * derivative
            gradient_b[-n] = delta
            gradient_w[-n] = np.dot(delta, activations[-n - 1].transpose())

        return (gradient_b, gradient_w)

    def update(self, mini_batch, rate):
        """Take one step of gradient descent with the mean gradient of the mini-batch."""
        n = len(mini_batch)
        gradient_b = [np.zeros(b.shape) for b in self.bias]
        gradient_w = [np.zeros(w.shape) for w in self.weights]

        for X, y in mini_batch:
            delta_b, delta_w = self.backprop(X, y)
            gradient_b = [a + b for a, b in zip(gradient_b, delta_b)]
            gradient_w = [a + b for a, b in zip(gradient_w, delta_w)]

        # Update rule
        self.weights = [w - (rate / n) * dw for w, dw in zip(self.weights, gradient_w)]
        self.bias = [b - (rate / n) * db for b, db in zip(self.bias, gradient_b)]


def read_idx(path):
    """Read a gzipped IDX file of bytes: 0, 0, 8, number of axes, size of each axis in 4 bytes, data."""
    with gzip.open(path) as file:
        data = file.read()
    if data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an IDX file of bytes")
    shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def read_mnist(directory, name):
    """Return a list of pairs (x, y): x (784, 1) in [0, 1], y (10, 1) one-hot."""
    images = read_idx(f"{directory}/{name}-images-idx3-ubyte.gz")
    labels = read_idx(f"{directory}/{name}-labels-idx1-ubyte.gz")
    return list(zip(images.reshape(-1, 784, 1) / 255, np.eye(10)[labels].reshape(-1, 10, 1)))


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 4:
        sys.exit("usage: python post.py MNIST_DIRECTORY [EPOCHS] [EXAMPLES]")
    try:
        epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 30
        examples = int(sys.argv[3]) if len(sys.argv) > 3 else 60000
        train = read_mnist(sys.argv[1], "train")[:examples]
        test = read_mnist(sys.argv[1], "t10k")
    except (OSError, EOFError, ValueError) as error:
        sys.exit(f"post.py: {error}")
    network = Network([784, 30, 10], rng=0)
    network.sgd(epochs, batch_size=10, lr=0.5, train=train, test=test)
    loss = np.mean([cross_entropy_loss(y, network.ff(x)) for x, y in test])
    print(f"Cross-entropy on the {len(test)} test images: {loss:.4f}")
