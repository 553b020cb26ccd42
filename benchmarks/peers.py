"""Peers and benchmark cases: the same training in handgrad, PyTorch, JAX, scikit-learn and examples/post.py.

Every peer trains the same network from the same weights on the same batches. `Peer` is the interface. Each class below
is written as experienced users of its library would write it, and documents which variants were measured.

A library is imported when its peer is created, so that each worker process imports only one of them.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from handgrad import Network, Trainer
from handgrad.arrays import aligned_empty, as_floats, spawn_rngs
from handgrad.data import load
from handgrad.data.mnist import MnistNotFoundError, load_mnist
from handgrad.optimizers import OPTIMIZERS

Floats = NDArray[np.float32]

EXAMPLES = 60_000  # of an epoch
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # parameters of Adam for all peers

# If a library counts the steps in float32, 1 - βᵗ is computed as -expm1(t ln β). The plain difference has an error of
# 1.3e-5 in the first step, which grows to 1e-2 of the change of the weights after 20 steps with 2,048 ReLUs.


# ---- Cases -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A network and its batches: sigmoids with binary cross-entropy, or ReLUs with softmax cross-entropy.

    batches   number of batches in memory, which the steps use in turn
    targets   goal for the ratio of the peer's time to handgrad's time
    share     goal for the share of the peak FLOP/s of the machine
    """

    sizes: tuple[int, ...]
    batch: int
    batches: int
    softmax: bool = False
    targets: Mapping[str, float] = field(default_factory=dict)
    share: float | None = None

    @property
    def name(self) -> str:
        """The sizes and the batch size, e.g. 784-30-10/64."""
        return "-".join(map(str, self.sizes)) + f"/{self.batch}"

    @property
    def weights(self) -> int:
        """Σ n_in n_out. The forward pass of an example takes twice this number of floating-point operations."""
        return sum(n_in * n_out for n_in, n_out in itertools.pairwise(self.sizes))

    @property
    def flop(self) -> int:
        """Floating-point operations of the matrix products of a step: three per layer, two in the first, without dx.

        2 batch (3 Σ n_in n_out - n_in₁ n_out₁)
        """
        return 2 * self.batch * (3 * self.weights - self.sizes[0] * self.sizes[1])


@dataclass(frozen=True)
class Task:
    """A case and its optimizer."""

    case: Case
    optimizer: str  # "sgd" or "adam"
    lr: float

    def network(self) -> Network:
        """Create the network with its initial weights."""
        activation, loss = ("relu", "cross_entropy") if self.case.softmax else ("sigmoid", "binary_cross_entropy")
        return Network(list(self.case.sizes), activation=activation, loss=loss, rng=0)

    def batches(self, order: NDArray[np.int64] | None = None) -> list[tuple[Floats, Floats]]:
        """Return batches of x in [0, 1] and one-hot t: the first ones of the training set, or those of an order."""
        x, t = floats()
        if order is None:
            x, t = (a[: self.case.batch * self.case.batches] for a in (x, t))
        else:
            x, t = x[order], t[order]
        rows = [slice(first, first + self.case.batch) for first in range(0, len(x), self.case.batch)]
        return [(x[r], t[r]) for r in rows]

    def pairs(self, theta: Floats) -> list[tuple[Floats, Floats]]:
        """Return (W, b) of each layer, views into θ."""
        pairs, first = [], 0
        for n_in, n_out in itertools.pairwise(self.case.sizes):
            middle, last = first + n_in * n_out, first + n_in * n_out + n_out
            pairs.append((theta[first:middle].reshape(n_out, n_in), theta[middle:last]))
            first = last
        return pairs


CASES = (
    Case(
        (784, 30, 10),
        10,
        500,
        targets={"torch": 10, "torch-compile": 8, "jax-scan": 1.4, "sklearn": 5, "post": 12},
    ),
    Case(
        (784, 100, 10),
        10,
        500,
        targets={"torch": 6, "torch-compile": 5, "jax-scan": 1.5, "sklearn": 4.5, "post": 10},
    ),
    Case((784, 30, 10), 64, 100, targets={"torch": 4, "torch-compile": 3.5, "jax-scan": 1.6, "sklearn": 3.5}),
    Case(
        (784, 512, 512, 10),
        128,
        20,
        softmax=True,
        targets={"torch": 1.6, "torch-compile": 1.4, "jax-scan": 1.1, "sklearn": 2},
        share=0.8,
    ),
    Case(
        (784, 2048, 2048, 10),
        256,
        2,
        softmax=True,
        targets={"torch": 1.3, "torch-compile": 1.3, "jax-scan": 1.0, "sklearn": 1.6},
        share=0.88,
    ),
)


def tasks() -> list[Task]:
    """Return every case with plain SGD and with Adam."""
    return [task_of(case, optimizer) for case in CASES for optimizer in ("sgd", "adam")]


def task_of(case: Case, optimizer: str) -> Task:
    """Return the task of a case with a suitable learning rate, that of the blog post for its network."""
    return Task(case, optimizer, 1e-3 if optimizer == "adam" else 0.05 if case.softmax else 0.5)


@functools.cache
def pixels() -> tuple[NDArray[np.uint8], NDArray[np.uint8], str]:
    """Return (x, y, name): images of MNIST if it is on this machine, synthetic digits otherwise."""
    try:
        digits = load_mnist(fetch=False)
    except MnistNotFoundError:
        digits = load("synthetic")
    return digits.x_train[:EXAMPLES], digits.y_train[:EXAMPLES], digits.name


@functools.cache
def floats() -> tuple[Floats, Floats]:
    """Return (x, t) of the same set: x (count, 784) in [0, 1], t one-hot."""
    x, y, _ = pixels()
    return as_floats(x, out=aligned_empty(x.size, np.float32).reshape(len(x), -1)), np.eye(10, dtype=np.float32)[y]


def order_of(count: int, seed: int) -> NDArray[np.int64]:
    """Return the order of the first epoch of a Trainer with this seed and `count` examples."""
    return spawn_rngs(seed).shuffling.permutation(count)


# ---- Peers -----------------------------------------------------------------------------------------------------------


class Peer(ABC):
    """A way to train the network of one task.

    `load` sets the weights and creates a new optimizer. `steps` and `epoch` train. All methods return when the
    computation is finished.
    """

    most: ClassVar[int] = EXAMPLES  # largest number of examples of an epoch
    forms: ClassVar[tuple[str, ...]] = ("",)  # variants, of which the fastest is used for each task
    needs: ClassVar[str] = "numpy"  # the package that it uses
    epsilon_inside = False  # Adam divides by √v + ε before the bias correction, not by √v̂ + ε

    def __init__(self, task: Task, form: str = "", threads: int = 1) -> None:
        self.task, self.batch = task, task.case.batch

    @staticmethod
    def enters(task: Task) -> bool:
        """Return whether the peer supports a task."""
        return True

    @abstractmethod
    def load(self, theta: Floats) -> None:
        """Set the weights θ and create a new optimizer."""

    @abstractmethod
    def steps(self, count: int) -> None:
        """Train `count` steps on the batches in memory, which are used in turn."""

    @abstractmethod
    def epoch(self, count: int, seed: int) -> None:
        """Train on the first `count` examples in the order of `order_of(count, seed)`.

        This includes creating the order and gathering the batches.
        """

    @abstractmethod
    def parameters(self) -> Floats:
        """Return the current weights θ, in the order of handgrad."""

    @abstractmethod
    def images(self, count: int) -> Any:
        """Return the first `count` examples in the form that `predict` takes, float32 if possible."""

    @abstractmethod
    def predict(self, images: Any) -> Any:
        """Return the predicted class of each image."""


class Handgrad(Peer):
    """handgrad: `Optimizer.train_step` for a step, `Trainer.fit` on integer pixels for an epoch.

    An epoch of handgrad therefore also converts pixels to floats, checks for divergence, and computes loss and
    accuracy. Of the other peers, only scikit-learn computes its loss.
    """

    def __init__(self, task: Task, form: str = "", threads: int = 1) -> None:
        super().__init__(task)
        self.network = task.network()
        self.x, self.y, _ = pixels()

    @functools.cached_property
    def batches(self) -> list[tuple[Floats, Floats]]:
        """Created on first use, because an epoch does not need them."""
        return self.task.batches()

    def load(self, theta: Floats) -> None:
        self.network.parameters[...] = theta
        self.optimizer = OPTIMIZERS[self.task.optimizer](self.task.lr)

    def steps(self, count: int) -> None:
        network, optimizer, lr = self.network, self.optimizer, self.task.lr
        for x, t in itertools.islice(itertools.cycle(self.batches), count):
            optimizer.train_step(network, x, t, lr)

    def epoch(self, count: int, seed: int) -> None:
        trainer = Trainer(self.network, self.optimizer, batch_size=self.batch, rng=seed)
        trainer.fit(self.x[:count], self.y[:count], epochs=1)

    def parameters(self) -> Floats:
        return self.network.parameters.copy()

    def images(self, count: int) -> Floats:
        return as_floats(self.x[:count], out=np.empty((count, self.network.n_in), np.float32))

    def predict(self, images: Floats) -> Any:
        return self.network.predict(images)


class Torch(Peer):
    """PyTorch in eager mode: Sequential, a loss on logits, torch.optim.

    The optimizer implementations "fused" and "foreach" are measured. The batches of an epoch are views into blocks of
    512 examples, which index_select gathers into one buffer. Measured with a batch size of 10, this takes 29 ms per
    epoch, compared with 104 ms for x[rows] batch by batch and 143 ms for x[order] at once.
    """

    forms: ClassVar[tuple[str, ...]] = ("fused", "foreach")
    needs = "torch"

    def __init__(self, task: Task, form: str = "fused", threads: int = 1) -> None:
        super().__init__(task)
        import torch

        torch.set_num_threads(threads)
        self.torch, self.form = torch, form
        x, t = floats()
        self.x = torch.from_numpy(x)
        self.t = torch.from_numpy(t.argmax(axis=1) if task.case.softmax else t)  # class indices for cross_entropy
        count = self.batch * task.case.batches
        self.batches = list(
            zip(self.x[:count].split(self.batch), self.t[:count].split(self.batch), strict=True),
        )
        self.block = max(1, 512 // self.batch) * self.batch
        self.x_block = torch.empty(self.block, *self.x.shape[1:])
        self.t_block = torch.empty(self.block, *self.t.shape[1:], dtype=self.t.dtype)
        self.prepare()

    def prepare(self) -> None:
        """Create the model."""
        nn, sizes = self.torch.nn, self.task.case.sizes
        layers: list[Any] = []
        for n_in, n_out in itertools.pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU() if self.task.case.softmax else nn.Sigmoid()]
        self.model = nn.Sequential(*layers[:-1])

    def loss(self, z: Any, t: Any) -> Any:
        """Return the loss of handgrad: the sum over the outputs, the mean over the batch."""
        functional = self.torch.nn.functional
        if self.task.case.softmax:
            return functional.cross_entropy(z, t)
        return functional.binary_cross_entropy_with_logits(z, t, reduction="sum") / len(z)

    def load(self, theta: Floats) -> None:
        torch = self.torch
        with torch.no_grad():
            for ours, theirs in zip(itertools.chain(*self.task.pairs(theta)), self.model.parameters(), strict=True):
                theirs.copy_(torch.from_numpy(np.array(ours)))
        kind = torch.optim.Adam if self.task.optimizer == "adam" else torch.optim.SGD
        self.optimizer = kind(self.model.parameters(), lr=self.task.lr, **{self.form: True})

    def step(self, x: Any, t: Any) -> None:
        """Train one step."""
        self.optimizer.zero_grad()
        self.loss(self.model(x), t).backward()
        self.optimizer.step()

    def steps(self, count: int) -> None:
        for x, t in itertools.islice(itertools.cycle(self.batches), count):
            self.step(x, t)

    def epoch(self, count: int, seed: int) -> None:
        gather = self.torch.index_select
        for rows in self.torch.from_numpy(order_of(count, seed)).split(self.block):
            x = gather(self.x, 0, rows, out=self.x_block[: len(rows)])
            t = gather(self.t, 0, rows, out=self.t_block[: len(rows)])
            for x_batch, t_batch in zip(x.split(self.batch), t.split(self.batch), strict=True):
                self.step(x_batch, t_batch)

    def parameters(self) -> Floats:
        return np.concatenate([p.detach().numpy().ravel() for p in self.model.parameters()])

    def images(self, count: int) -> Any:
        return self.x[:count]

    def predict(self, images: Any) -> Any:
        with self.torch.inference_mode():
            return self.model(images).argmax(1)


class TorchCompile(Torch):
    """PyTorch with torch.compile: the complete step is one graph with torch.func.grad and an in-place update.

    It uses the C++ wrapper and no guards, because the shapes never change. A step of 784-30-10 with batch size 10 and
    one thread takes 62 µs. It takes 87 µs with guards, and 92 µs with the Python wrapper. With loss.backward() and
    torch.optim in the compiled function, it takes 138 µs with trace_autograd_ops and 303 µs without, because the graph
    breaks. The eager step takes 258 µs.
    """

    forms = ("",)

    def prepare(self) -> None:
        torch, case = self.torch, self.task.case
        functional = torch.nn.functional
        lr, adam = self.task.lr, self.task.optimizer == "adam"
        activation = torch.relu if case.softmax else torch.sigmoid
        self.theta = [(torch.zeros(n_out, n_in), torch.zeros(n_out)) for n_in, n_out in itertools.pairwise(case.sizes)]
        flat = list(itertools.chain(*self.theta))
        self.moments = [[torch.zeros_like(p) for p in flat] for _ in range(2)] if adam else [[], []]
        self.count = torch.zeros(())

        def outputs(theta: Any, x: Any) -> Any:
            for W, b in theta[:-1]:
                x = activation(functional.linear(x, W, b))
            return functional.linear(x, *theta[-1])

        def loss(theta: Any, x: Any, t: Any) -> Any:
            return self.loss(outputs(theta, x), t)

        def step(theta: Any, moments: Any, count: Any, x: Any, t: Any) -> None:
            gradient = itertools.chain(*torch.func.grad(loss)(theta, x, t))
            flat = itertools.chain(*theta)
            if not adam:
                for p, g in zip(flat, gradient, strict=True):
                    p.sub_(g, alpha=lr)
                return
            count.add_(1)
            bias_1, bias_2 = (-torch.expm1(count * math.log(beta)) for beta in (BETA_1, BETA_2))
            for p, g, m, v in zip(flat, gradient, *moments, strict=True):
                m.lerp_(g, 1 - BETA_1)
                v.mul_(BETA_2).addcmul_(g, g, value=1 - BETA_2)
                p.sub_(lr * (m / bias_1) / ((v / bias_2).sqrt() + EPSILON))

        torch.compiler.reset()  # without guards, the code of another network would be reused
        options = {"cpp_wrapper": True, "guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
        self.compiled = torch.compile(step, fullgraph=True, options=options)
        self.compiled_predict = torch.compile(lambda theta, x: outputs(theta, x).argmax(1), dynamic=False)

    def load(self, theta: Floats) -> None:
        for ours, theirs in zip(self.task.pairs(theta), self.theta, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                b.copy_(self.torch.from_numpy(np.array(a)))
        for tensor in (self.count, *itertools.chain(*self.moments)):
            tensor.zero_()

    def step(self, x: Any, t: Any) -> None:
        self.compiled(self.theta, self.moments, self.count, x, t)

    def parameters(self) -> Floats:
        return np.concatenate([p.numpy().ravel() for p in itertools.chain(*self.theta)])

    def predict(self, images: Any) -> Any:
        return self.compiled_predict(self.theta, images)


class JaxScan(Peer):
    """JAX: one jitted lax.scan over all steps, with donated state. The body of the scan gathers the batch.

    Both layouts of W are measured. A step of 784-30-10 with batch size 10 takes 25 µs with x Wᵀ and 32 µs with x W. One
    image through 784-2048-2048-10 takes 3.7 ms with x Wᵀ and 0.4 ms with x W. Unrolling the scan 4 times is not faster.
    Gathering the complete epoch before the scan takes 40 % longer than gathering in its body.
    """

    needs = "jax"
    forms = ("x Wᵀ", "x W")

    def __init__(self, task: Task, form: str = "x Wᵀ", threads: int = 1) -> None:
        super().__init__(task)
        self.columns = form == "x W"
        import jax
        import jax.numpy as jnp

        self.jax, self.jnp = jax, jnp
        step, batch = self.step, self.batch
        x, y, _ = pixels()
        self.examples = (
            jnp.array(x.reshape(len(x), -1)) * jnp.float32(1 / 255),
            jax.nn.one_hot(y, 10, dtype=jnp.float32),
        )
        count = batch * task.case.batches
        self.batches = tuple(a[:count].reshape(-1, batch, a.shape[1]) for a in self.examples)

        def scan(state: Any, batches: Any) -> Any:
            return jax.lax.scan(lambda state, b: (step(state, *b), None), state, batches)[0]

        def scan_rows(state: Any, x: Any, t: Any, order: Any) -> Any:
            order = order.reshape(-1, batch)
            return jax.lax.scan(lambda state, rows: (step(state, x[rows], t[rows]), None), state, order)[0]

        self.scan, self.scan_rows = jax.jit(scan, donate_argnums=0), jax.jit(scan_rows, donate_argnums=0)
        self.jitted_predict = jax.jit(lambda theta, x: self.outputs(theta, x).argmax(1))

    def outputs(self, theta: Any, x: Any) -> Any:
        """Return the logits z of a batch."""
        activation = self.jax.nn.relu if self.task.case.softmax else self.jax.nn.sigmoid
        for number, (W, b) in enumerate(theta, start=1):
            x = x @ (W if self.columns else W.T) + b
            if number < len(theta):
                x = activation(x)
        return x

    def loss(self, theta: Any, x: Any, t: Any) -> Any:
        """Return the loss of handgrad: the sum over the outputs, the mean over the batch."""
        z = self.outputs(theta, x)
        losses = -t * self.jax.nn.log_softmax(z) if self.task.case.softmax else self.jnp.logaddexp(0, z) - t * z
        return losses.sum() / len(x)

    def step(self, state: Any, x: Any, t: Any) -> Any:
        """Return the state after one step."""
        jnp, tree_map, lr = self.jnp, self.jax.tree.map, self.task.lr
        theta, *moments = state
        gradient = self.jax.grad(self.loss)(theta, x, t)
        if not moments:
            return [tree_map(lambda p, g: p - lr * g, theta, gradient)]
        m, v, count = moments
        count = count + 1
        m = tree_map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, m, gradient)
        v = tree_map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, v, gradient)
        bias_1, bias_2 = (-jnp.expm1(count * math.log(beta)) for beta in (BETA_1, BETA_2))
        theta = tree_map(lambda p, m, v: p - lr * (m / bias_1) / (jnp.sqrt(v / bias_2) + EPSILON), theta, m, v)
        return [theta, m, v, count]

    def load(self, theta: Floats) -> None:
        jnp, tree_map = self.jnp, self.jax.tree.map
        start = [(jnp.array(W.T if self.columns else W), jnp.array(b)) for W, b in self.task.pairs(theta)]
        self.state = [start]
        if self.task.optimizer == "adam":
            self.state += [tree_map(jnp.zeros_like, start), tree_map(jnp.zeros_like, start), jnp.zeros((), jnp.float32)]
        self.jax.block_until_ready(self.state)

    def steps(self, count: int) -> None:
        rounds, rest = divmod(count, self.task.case.batches)
        for _ in range(rounds):
            self.state = self.scan(self.state, self.batches)
        if rest:
            self.state = self.scan(self.state, tuple(a[:rest] for a in self.batches))
        self.jax.block_until_ready(self.state)

    def epoch(self, count: int, seed: int) -> None:
        self.state = self.scan_rows(self.state, *self.examples, self.jnp.array(order_of(count, seed), self.jnp.int32))
        self.jax.block_until_ready(self.state)

    def parameters(self) -> Floats:
        pairs = ((W.T if self.columns else W, b) for W, b in self.state[0])
        return np.concatenate([np.ravel(p) for pair in pairs for p in pair])

    def images(self, count: int) -> Any:
        return self.examples[0][:count]

    def predict(self, images: Any) -> Any:
        return self.jitted_predict(self.state[0], images).block_until_ready()


class JaxStep(JaxScan):
    """JAX: one jitted step with donated state. In an epoch, the step gathers its batch from an order on the device."""

    def __init__(self, task: Task, form: str = "x Wᵀ", threads: int = 1) -> None:
        super().__init__(task, form)
        jax = self.jax
        self.single_batches = list(zip(*(map(self.jnp.array, a) for a in map(np.asarray, self.batches)), strict=True))
        step, batch = self.step, self.batch

        def step_rows(state: Any, number: Any, x: Any, t: Any, order: Any) -> Any:
            rows = jax.lax.dynamic_slice_in_dim(order, number * batch, batch)
            return step(state, x[rows], t[rows]), number + 1

        self.jitted, self.jitted_rows = jax.jit(step, donate_argnums=0), jax.jit(step_rows, donate_argnums=(0, 1))

    def steps(self, count: int) -> None:
        jitted, state = self.jitted, self.state
        for x, t in itertools.islice(itertools.cycle(self.single_batches), count):
            state = jitted(state, x, t)
        self.state = self.jax.block_until_ready(state)

    def epoch(self, count: int, seed: int) -> None:
        jitted, state, (x, t) = self.jitted_rows, self.state, self.examples
        order = self.jnp.array(order_of(count, seed), self.jnp.int32)
        number = self.jnp.zeros((), self.jnp.int32)
        for _ in range(count // self.batch):
            state, number = jitted(state, number, x, t, order)
        self.state = self.jax.block_until_ready(state)


class Sklearn(Peer):
    """scikit-learn: MLPClassifier without penalty and momentum, in float32. partial_fit trains on all batches.

    With one-hot rows, which it treats as multi-label targets, it uses logistic outputs and binary cross-entropy. With
    class indices, it uses softmax. It always computes the loss of each batch too.
    """

    needs = "sklearn"
    epsilon_inside = True

    def __init__(self, task: Task, form: str = "", threads: int = 1) -> None:
        super().__init__(task)
        from sklearn.neural_network import MLPClassifier

        case = task.case
        self.x, t = floats()
        self.y = t.argmax(axis=1) if case.softmax else t.astype(int)
        self.model = MLPClassifier(
            case.sizes[1:-1],
            activation="relu" if case.softmax else "logistic",
            solver=task.optimizer,
            alpha=0,
            batch_size=case.batch,
            learning_rate_init=task.lr,
            shuffle=False,  # the order is given
            momentum=0,
            nesterovs_momentum=False,
            beta_1=BETA_1,
            beta_2=BETA_2,
            epsilon=EPSILON,
        )
        self.model.partial_fit(self.x[: case.batch], self.y[: case.batch], classes=np.arange(10))

    def load(self, theta: Floats) -> None:
        for (W, b), coefficient, intercept in zip(
            self.task.pairs(theta), self.model.coefs_, self.model.intercepts_, strict=True
        ):
            coefficient[...], intercept[...] = W.T, b
        vars(self.model).pop("_optimizer", None)  # the next partial_fit creates a new one

    def steps(self, count: int) -> None:
        rounds, rest = divmod(count, self.task.case.batches)
        for batches in [self.task.case.batches] * rounds + [rest] * bool(rest):
            self.fit(self.x[: batches * self.batch], self.y[: batches * self.batch])

    def epoch(self, count: int, seed: int) -> None:
        order = order_of(count, seed)
        self.fit(self.x[order], self.y[order])

    def fit(self, x: Any, y: Any) -> None:
        """Train on each batch of x once."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            self.model.partial_fit(x, y)

    def parameters(self) -> Floats:
        pairs = zip(self.model.coefs_, self.model.intercepts_, strict=True)
        return np.concatenate([part for W, b in pairs for part in (W.T.ravel(), b)])

    def images(self, count: int) -> Floats:
        return self.x[:count]

    def predict(self, images: Floats) -> Any:
        if self.task.case.softmax:
            return self.model.predict(images)
        return self.model.predict_proba(images).argmax(1)  # predict would return one label per output


class Post(Peer):
    """examples/post.py: the corrected listing of the blog post, one example at a time, float64 columns."""

    most = 6_000  # the columns take 38 MB

    def __init__(self, task: Task, form: str = "", threads: int = 1) -> None:
        super().__init__(task)
        path = Path(__file__).parents[1] / "examples" / "post.py"
        spec = importlib.util.spec_from_file_location("post", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} does not exist")
        post = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(post)
        self.network = post.Network(list(task.case.sizes), rng=0)
        x, t = floats()
        self.pairs = [(x[i][:, None].astype(float), t[i][:, None].astype(float)) for i in range(self.most)]
        batches = range(0, self.batch * task.case.batches, self.batch)
        self.batches = [self.pairs[first : first + self.batch] for first in batches]

    @staticmethod
    def enters(task: Task) -> bool:
        return task.case.batch == 10 and task.optimizer == "sgd" and not task.case.softmax

    def load(self, theta: Floats) -> None:
        pairs = self.task.pairs(theta)
        self.network.weights = [W.astype(float) for W, _ in pairs]
        self.network.bias = [b[:, None].astype(float) for _, b in pairs]

    def steps(self, count: int) -> None:
        for batch in itertools.islice(itertools.cycle(self.batches), count):
            self.network.update(batch, self.task.lr)

    def epoch(self, count: int, seed: int) -> None:
        shuffled = [self.pairs[i] for i in order_of(count, seed)]
        for first in range(0, count, self.batch):
            self.network.update(shuffled[first : first + self.batch], self.task.lr)

    def parameters(self) -> Floats:
        pairs = zip(self.network.weights, self.network.bias, strict=True)
        return np.concatenate([part.ravel() for pair in pairs for part in pair]).astype(np.float32)

    def images(self, count: int) -> list[Any]:
        return [x for x, _ in self.pairs[:count]]

    def predict(self, images: list[Any]) -> list[Any]:
        return [np.argmax(self.network.ff(x)) for x in images]


PEERS: dict[str, type[Peer]] = {
    "handgrad": Handgrad,
    "torch": Torch,
    "torch-compile": TorchCompile,
    "jax-step": JaxStep,
    "jax-scan": JaxScan,
    "sklearn": Sklearn,
    "post": Post,
}


# ---- Agreement -------------------------------------------------------------------------------------------------------

# Largest difference due to float32 rounding, relative to the change of the weights. A learning rate that is wrong by
# 1 % causes 1e-2. After 20 steps, rounding causes 3e-6 with SGD and sigmoids, and 1e-3 with 2,048 ReLUs, where a z can
# be 0 in one library only. It causes 3e-3 with Adam, and once 6e-3 with 2,048 ReLUs, because Adam divides a gradient by
# its size even if it consists of rounding errors: the error compared with float64 is 2.9e-3 for handgrad and 2.0e-3 for
# PyTorch.
TOLERANCE = 7e-3


def reference(task: Task, count: int, epsilon_inside: bool, seed: int | None = None) -> Floats:
    """Return the weights of handgrad after `count` steps on the batches in memory, or of an epoch with this seed.

    With `epsilon_inside`, handgrad computes scikit-learn's version of Adam, lr √(1 - β₂ᵗ) / (1 - β₁ᵗ) · m / (√v + ε).
    It equals lr m̂ / (√v̂ + ε') with ε' = ε / √(1 - β₂ᵗ), which is 32 ε in the first step. With the same ε, the weights
    would differ by 5e-2.
    """
    ours = Handgrad(task)
    ours.load(ours.parameters())
    batches = task.batches() if seed is None else task.batches(order_of(count * task.case.batch, seed))
    for number, (x, t) in enumerate(itertools.islice(itertools.cycle(batches), count), start=1):
        if epsilon_inside and task.optimizer == "adam":
            ours.optimizer.epsilon = EPSILON / math.sqrt(1 - BETA_2**number)  # type: ignore[attr-defined]
        ours.network.backprop(x, t)
        ours.optimizer.step(ours.network)
    return ours.parameters()


def disagreement(task: Task, theirs: Floats, ours: Floats) -> float:
    """Return ‖θ - θ'‖ / ‖θ' - θ₀‖ of the W or b with the largest difference."""
    start = task.network().parameters
    triples = zip(*(itertools.chain(*task.pairs(theta)) for theta in (theirs, ours, start)), strict=True)
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b - c)) for a, b, c in triples)
