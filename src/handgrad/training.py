"""The loop: epochs of mini-batches, what they did, and what may watch and stop them.

    trainer = Trainer(network, SGD(lr=0.5), batch_size=10, rng=0)
    history = trainer.fit(x, y, epochs=30, validation=(x_held_out, y_held_out))

An epoch is every example once, in an order drawn anew. `fit` goes on from where the trainer stands, so a second
`fit`, or one after `restore`, continues; the bits are those of a run that never stopped. Only where EarlyStopping
brought the best weights back at the end of a `fit` does the next one go on from those.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .adversarial import Adversarial
from .arrays import Array, Seed, aligned, as_examples, as_floats, as_weights, as_whole, streams
from .classifier import Classifier, Evaluation
from .errors import HandgradError
from .network import Network
from .optimizers import Optimizer
from .schedules import Schedule, constant
from .threads import one_ahead

# (pictures as bytes, stream, out) -> out, new pictures made of those: see `handgrad.augmentation`.
Augment = Callable[[NDArray[Any], "np.random.Generator", Array], Array]

History = dict[str, list[float]]  # "loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds": a number an epoch

# Floats that are gathered, and converted from bytes, at a time: few enough to stay in the processor's cache (1.5 MiB
# in float32), many enough that the cost of a call vanishes. The set itself is never copied.
BLOCK = 400_000


class DivergedError(HandgradError):
    """The outputs stopped being finite numbers. The network is back at the last epoch's end."""


class Callback:
    """What may watch a training, and act on it. A subclass overrides what it needs."""

    def on_train_begin(self, trainer: Trainer) -> None:
        """Before the first step of a `fit`."""

    def on_batch_end(self, trainer: Trainer) -> None:
        """After each step; `trainer.batch` of `trainer.batches` are done. It is called often: be quick."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After each epoch; `trainer.history` has its numbers."""

    def on_train_end(self, trainer: Trainer) -> None:
        """After the last step of a `fit`, however it ended other than by an error."""

    def state(self) -> dict[str, Any]:
        """What `restore` needs to continue: arrays, and values that JSON can hold."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""


class Trainer:
    """A network, its optimizer, and where they stand.

    batch_size   examples in a mini-batch; the last of an epoch is smaller where they do not come out even, and its
                 gradient is the mean over the examples it has
    schedule     the learning rate over the run: see `handgrad.schedules`
    callbacks    told of each step and epoch, in this order
    augment      makes new pictures of the examples at each epoch, in a thread of its own, a block ahead of the steps
    teacher      labels the examples, in place of y, at the temperature of the network's loss; it sees what the network
                 sees, after its preprocessing
    perturb      changes a batch before its step
    rng          seed or generator of the shuffling, and of what `augment` draws
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        *,
        batch_size: int = 10,
        schedule: Schedule | None = None,
        callbacks: Sequence[Callback] = (),
        augment: Augment | None = None,
        teacher: Classifier | None = None,
        perturb: Adversarial | None = None,
        rng: Seed = None,
    ) -> None:
        self.network, self.optimizer = network, optimizer
        self.augment, self.perturb = augment, perturb
        if teacher is not None and not teacher.sees_through(network.preprocessing):
            raise HandgradError(
                f"the teacher sees other pictures than the network, which has the preprocessing "
                f"{network.preprocessing!r}: expected a teacher with the same"
            )
        self.teacher = None if teacher is None else teacher.preprocessed()
        if self.teacher is not None and (self.teacher.n_raw, self.teacher.n_out) != (network.n_in, network.n_out):
            raise HandgradError(
                f"the teacher takes {self.teacher.n_raw} inputs to {self.teacher.n_out} outputs, the network "
                f"{network.n_in} to {network.n_out}: expected one that sees what the network sees"
            )
        self.batch_size = as_whole("batch_size", batch_size, 1)
        self.schedule = schedule or constant()
        self.callbacks = list(callbacks)
        self.shuffling = streams(rng).shuffling
        (self.augmenting,) = self.shuffling.spawn(1)
        self.history: History = {}
        self.validation: Evaluation | None = None  # the last epoch's
        self.epoch = 0  # epochs done
        self.epochs = 0  # epochs to do
        self.batch = 0  # batches done of this epoch
        self.batches = 0  # batches in an epoch
        self.stop = False  # set it, and training ends after this epoch; it stays set

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        epochs: int,
        sample_weight: ArrayLike | None = None,
        validation: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> History:
        """Train until `epochs` epochs are done in all, those before a `restore` included.

        x (count, n_in) floats or uint8 pixels, or images (count, height, width); y (count,) labels or (count, n_out)
        rows. The history's loss and accuracy are those of each batch as training saw it, before its step, by the
        teacher's labels where there is a teacher; those of `validation` (x, y) are taken after the epoch. A loss for
        numbers has no accuracy.

        With `sample_weight` (count,), w, scaled to a mean of 1, the loss of a batch is the mean of wᵢ Lᵢ, and so that
        of an epoch is Σᵢ wᵢ Lᵢ / Σᵢ wᵢ: an example of weight 2 counts as two of weight 1, one of weight 0 not at all.
        The accuracy and `validation` are without weights, and so are the statistics of a BatchNorm.

        Raises DivergedError, HandgradError.
        """
        self.epochs, network = as_whole("epochs", epochs, 0), self.network
        x = network.preprocess(as_examples(x, network.n_raw))
        t = network.loss.targets(y, len(x), network.n_out, network.dtype)
        if validation is not None:  # now, not after the first epoch
            network.loss.targets(
                validation[1], len(as_examples(validation[0], network.n_raw)), network.n_out, network.dtype
            )
        w = None if sample_weight is None else as_weights(sample_weight, len(x), network.dtype)
        if self.batch_size > len(x):
            raise HandgradError(f"batch_size {self.batch_size}: expected at most the {len(x)} examples there are")
        return self._run(x, t, w, validation)

    def _run(
        self, x: NDArray[Any], t: Array, w: Array | None, validation: tuple[ArrayLike, ArrayLike] | None
    ) -> History:
        """Epoch after epoch, up to `epochs`, on inputs that have been seen to fit; w (count, 1) of a mean of 1."""
        network = self.network
        self.batches = -(-len(t) // self.batch_size)
        self._tell("on_train_begin")
        while self.epoch < self.epochs and not self.stop:
            begin, self.batch = time.perf_counter(), 0
            lr = self._lr()
            self._last_good = network.parameters.copy(), self.optimizer.state()
            with np.errstate(over="ignore", invalid="ignore"):  # one that diverges is told of in one line, not in many
                loss, accuracy = self._train_epoch(x, t, w)
                numbers = {"loss": loss, "accuracy": accuracy, "lr": lr}
                if validation is not None:
                    self.validation = network.evaluate(*validation)
                    numbers |= {"val_loss": self.validation.loss, "val_accuracy": self.validation.accuracy}
                if not network.loss.classifies:
                    numbers = {name: value for name, value in numbers.items() if "accuracy" not in name}
                size = float(np.vdot(network.parameters, network.parameters))
            if not math.isfinite(sum(numbers.values()) + size):
                self._diverged(self.batch)
            numbers["seconds"] = time.perf_counter() - begin
            for name, value in numbers.items():
                self.history.setdefault(name, []).append(value)
            self.epoch += 1
            self._tell("on_epoch_end")
        self._tell("on_train_end")
        return self.history

    def _train_epoch(self, x: NDArray[Any], t: Array, w: Array | None) -> tuple[float, float]:
        """One epoch; the mean loss and the accuracy of its batches, each as it was before its step."""
        network, batch_size = self.network, self.batch_size
        watching = [c.on_batch_end for c in self.callbacks if type(c).on_batch_end is not Callback.on_batch_end]
        loss_sum, correct = 0.0, 0
        for x_block, t_block, w_block in self._shuffled_blocks(x, t, w):
            # By columns: the largest of each row of ten is found in a fifth of the time, their sum in half of it.
            begin, z_block = self.batch, np.empty_like(t_block, order="F")
            for first in range(0, len(t_block), batch_size):
                rows = slice(first, first + batch_size)
                batch = x_block[rows], t_block[rows]
                if self.perturb is not None:
                    batch = self.perturb(network, *batch)
                z_block[rows] = self._learn(*batch, None if w_block is None else w_block[rows])
                self.batch += 1
                for on_batch_end in watching:
                    on_batch_end(self)
            finite = np.isfinite(z_block).all(axis=1)
            if not finite.all():
                self._diverged(begin + int(finite.argmin()) // batch_size)
            if w_block is None:
                loss_sum += network.loss.value(z_block, t_block) * len(z_block)
            else:
                loss_sum += float(network.loss.each(z_block, t_block) @ w_block[:, 0])
            correct += network.loss.correct(z_block, t_block)
        return loss_sum / len(t), correct / len(t)

    def _learn(self, x: Array, t: Array, w: Array | None) -> Array:
        """One step on a batch, its loss the mean of wᵢ Lᵢ; its outputs."""
        return self.optimizer.learn(self.network, x, t, self._lr(), None if w is None else w / len(w))

    def _diverged(self, step: int) -> NoReturn:
        self.network.parameters[...], memory = self._last_good
        self.optimizer.restore(memory)
        raise DivergedError(
            f"training diverged by step {step} of epoch {self.epoch + 1}: its weights give no finite outputs; "
            f"those from before the epoch are back; try a learning rate below {self.optimizer.lr:g}"
        )

    def _order(self, count: int) -> NDArray[np.intp]:
        """The order (count,) of the examples in the next epoch."""
        return self.shuffling.permutation(count)

    def _gather(self, x: NDArray[Any], chosen: NDArray[np.intp], out: NDArray[Any]) -> None:
        """The chosen rows of x, written into `out`."""
        # mode="clip": the indices are right, and with the default mode `out` would be written through a buffer
        np.take(x, chosen, axis=0, out=out, mode="clip")

    def _shuffled_blocks(
        self, x: NDArray[Any], t: Array, w: Array | None
    ) -> Iterator[tuple[Array, Array, Array | None]]:
        """The examples, targets and weights in a new order, some whole batches at a time, through the same memory."""
        order = self._order(len(t))
        block = max(1, BLOCK // (x.shape[1] * self.batch_size)) * self.batch_size
        dtype, rows, count = self.network.dtype, min(block, len(t)), -(-len(t) // block)
        made = self.augment is not None or self.teacher is not None
        rooms = [
            [aligned(rows * a.shape[1], dtype).reshape(rows, -1) for a in (x, t)] for _ in range(1 + made)
        ]  # one to use and one to fill
        raw = np.empty((rows, x.shape[1]), x.dtype) if x.dtype != dtype else None

        def fill(number: int) -> tuple[Array, Array, Array | None]:
            chosen = order[number * block : (number + 1) * block]
            x_block, t_block = (room[: len(chosen)] for room in rooms[number % len(rooms)])
            x_raw = x_block if raw is None else raw[: len(chosen)]
            self._gather(x, chosen, x_raw)
            if self.augment is not None:
                self.augment(x_raw, self.augmenting, x_block)
            elif raw is not None:
                as_floats(x_raw, out=x_block)
            if self.teacher is not None:
                t_block[...] = self.teacher.soft_labels(x_block, self.network.loss.temperature)
            else:
                np.take(t, chosen, axis=0, out=t_block, mode="clip")
            return x_block, t_block, None if w is None else w[chosen]

        return one_ahead(fill, count) if made else map(fill, range(count))

    def _lr(self) -> float:
        """The learning rate of the next step."""
        return self.optimizer.lr * self.schedule(self.epoch + self.batch / self.batches, self.epochs)

    def _tell(self, event: str) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self)

    # ---- Stop and continue -------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on: arrays, and values that JSON can hold, under flat names."""
        state: dict[str, Any] = {
            "parameters": self.network.parameters.copy(),
            "epoch": self.epoch,
            "stop": self.stop,
            "history": {name: list(values) for name, values in self.history.items()},
        }
        for name, part in self._parts().items():
            state |= {f"{name}.{key}": value for key, value in part.state().items()}
        for name, rng in self._streams().items():
            state[name] = rng.bit_generator.state
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Stand where `state` was taken. Raises HandgradError where it is another network's or optimizer's."""
        theirs, ours = state["parameters"], self.network.parameters
        if theirs.shape != ours.shape or theirs.dtype != ours.dtype:
            raise HandgradError(
                f"the checkpoint is of another network: it holds {theirs.size:,} parameters in {theirs.dtype}, "
                f"this one has {ours.size:,} in {ours.dtype}"
            )
        lacking = sorted(set(self.state()) - set(state))
        if lacking:
            raise HandgradError(f"the checkpoint is of another training: it lacks {', '.join(lacking)}")
        for name, part in self._parts().items():
            part.restore({k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")})
        for name, rng in self._streams().items():
            rng.bit_generator.state = state[name]
        ours[...] = theirs
        self.epoch, self.stop = state["epoch"], state["stop"]
        self.history = {name: list(values) for name, values in state["history"].items()}

    def _parts(self) -> dict[str, Optimizer | Callback | Adversarial]:
        parts: dict[str, Optimizer | Callback | Adversarial] = {"optimizer": self.optimizer}
        if self.perturb is not None:
            parts["perturb"] = self.perturb
        return parts | {f"callbacks.{i}": callback for i, callback in enumerate(self.callbacks)}

    def _streams(self) -> dict[str, np.random.Generator]:
        layers = {f"layers.{i}.rng": layer.rng for i, layer in enumerate(self.network.layers) if layer.rng is not None}
        return {"shuffling": self.shuffling, "augmenting": self.augmenting, **layers}
