"""Training: Trainer, the loop over epochs and mini-batches; Callback, the interface of what watches it.

    trainer = Trainer(network, SGD(lr=0.5), batch_size=10, rng=0)
    history = trainer.fit(x, y, epochs=30, validation=(x_validation, y_validation))

An epoch uses every example once, in a new random order. A second `fit` continues from where the trainer is.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import (
    Array,
    Rows,
    Seed,
    aligned_empty,
    as_array,
    as_floats,
    check_fraction,
    check_inputs,
    check_int,
    check_sample_weight,
    row_blocks,
    spawn_rngs,
)
from .checks import after_training, before_training
from .errors import (
    HandgradError,
    HandgradWarning,
    KnownAttributes,
    Misnamed,
    MisnamedError,
    calls_of_handgrad,
    check_attributes,
    closest,
)
from .history import History as History
from .history import format_metric
from .losses import Loss
from .model import Evaluation, Model, NotFiniteError
from .network import Network, check_views
from .optimizers import Optimizer, make_optimizer
from .schedules import Schedule, make_schedule
from .tables import Table

if TYPE_CHECKING:
    from .distributed.data_parallel import Communicator, DataParallel
    from .progress import ProgressBar

# Floats that are gathered, and converted from integer pixels, at a time: 1.5 MiB in float32, few enough to stay in the
# cache and many enough to make the cost of the calls negligible. The data set itself is never copied, except as the
# outputs of fixed layers.
GATHER_FLOATS = 400_000
MAX_FIXED_BYTES = 1 << 30  # of the outputs of fixed layers. Larger ones are computed in every step

# Floats of the targets above which they are made for each block, instead of once: 16 MB in float32.
TARGET_FLOATS = 4_000_000

MAX_COUNT = 1 << 63  # larger integers are not counts, and may not fit into a float

# What users of Keras and scikit-learn pass to `fit`.
_ELSEWHERE = {
    "batch_size": "it is an option of Trainer and of network.fit",
    "callbacks": "they are an option of Trainer",
    "class_weight": "use sample_weight",
    "initial_epoch": "use until_epoch after resume",
    "learning_rate": "it is lr of network.fit and of the optimizer",
    "lr": "it is an option of the optimizer",
    "random_state": "it is rng of network.fit and of Trainer",
    "seed": "it is rng of network.fit and of Trainer",
    "shuffle": "every epoch has a new random order",
    "validation_data": "use validation=(x, y)",
    "validation_split": "use validation=0.1",
    "verbose": "use progress=True or False",
}

Item = TypeVar("Item")


class DivergedError(HandgradError):
    """The outputs are not finite any more. The network has the weights of the start of the epoch."""


class Totals(NamedTuple):
    """Sums over the examples that an epoch has used so far, see `Trainer.totals`.

    Attributes
    ----------
    loss : float
        Sum of the losses, each with the weights before the step of its batch.
    correct : int
        Number of correct predictions, 0 for a regression.
    examples : int
        Number of examples.
    """

    loss: float
    correct: int
    examples: int


class AugmentFunction(Protocol):
    """A function that makes new training images, see `handgrad.images.Augmentation`."""

    def __call__(self, x: NDArray[Any], rng: np.random.Generator, out: Array) -> Array:
        """Write new images for x (count, height, width), uint8, into `out` (count, n_in), floats in [0, 1]."""


class Perturbation(Protocol):
    """A function that changes a batch before its step, see `handgrad.adversarial`.

    If it has a method `refresh()`, `Trainer.fit` calls this method before the first step. A perturbation that keeps a
    copy of the network drops the copy then, because the layers and the loss may have changed since the last `fit`.
    Checkpoints contain the state of a perturbation with the methods `state_dict()` and `load_state_dict(state)`.
    """

    def __call__(self, network: Network, x: Array, t: Array) -> tuple[Array, Array]:
        """Return the batch to train on for x (batch, n_in) and t (batch, n_out), which are only read."""


class Callback(KnownAttributes):
    """Base class of callbacks, which watch and influence a training. A subclass overrides what it needs.

    Callbacks with a lower `order` are called first, and callbacks with the same `order` in the order of the list. The
    `order` of EMA and SWA is -1, that of EarlyStopping is 1, that of Checkpoint is 2, and that of all others is 0.

    A callback with `shows_progress` replaces the progress bar that `Trainer.fit` adds by default. In a training with
    several processes, a callback with `main_process_only`, because it writes a file or prints, is only called in the
    process with rank 0; the other callbacks are called in every process.
    """

    order: float = 0
    shows_progress = False
    main_process_only = False

    def on_train_begin(self, trainer: Trainer) -> None:
        """Run before the first step of a `fit`."""

    def on_batch_end(self, trainer: Trainer) -> None:
        """Run after each step: `trainer.batch` of `trainer.batches` are done. This method must be fast.

        For derivatives, read `trainer.network.gradient` first: see `Network.gradient`.
        """

    def on_evaluation_begin(self, trainer: Trainer) -> None:
        """Run after the last step of an epoch, before the validation: replace the weights that are evaluated.

        Numbers that are added to `trainer.metrics` here become metrics of `trainer.history`.
        """

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Run after each epoch, with its numbers in `trainer.metrics` and, already recorded, in `trainer.history`."""

    def on_evaluation_end(self, trainer: Trainer) -> None:
        """Run after `on_epoch_end` of all callbacks: put the weights back that are trained."""

    def on_train_end(self, trainer: Trainer) -> None:
        """Run after the last step of a `fit`, unless it ended with an exception."""

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to continue: arrays, and values that JSON can represent."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""

    def __repr__(self) -> str:
        """Show the arguments of the constructor that are attributes."""
        import inspect  # late: few programs print a callback

        names = [name for name in inspect.signature(type(self)).parameters if hasattr(self, name)]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


class Trainer:
    """A network, its optimizer, and the state of the training.

    Parameters
    ----------
    network : Network
        The network to train.
    optimizer : Optimizer or str
        The update rule, or a name in `handgrad.optimizers.OPTIMIZERS`, as "adam", for its default learning rate.
    batch_size : int
        Number of examples in a mini-batch, at most the number of training examples. The last batch of an epoch may be
        smaller; its gradient is the mean over its examples.
    schedule : Schedule or str, optional
        Learning rate schedule, or a name in `handgrad.schedules.SCHEDULES`, as "cosine". Constant by default.
    callbacks : sequence of Callback
        Called after each step and epoch.
    augment : AugmentFunction, optional
        Makes new images at each epoch, in a background thread, one block before the steps that use it.
    teacher : Model, optional
        Knowledge distillation: its soft labels, at the temperature of the network's loss, replace y. It receives what
        the network receives.
    perturb : Perturbation, optional
        Changes a batch before its step.
    rng : int, numpy.random.Generator or None
        Seed of shuffling and of `augment`.
    comm : Communicator, optional
        Data-parallel training: the communicator of several processes, as MPI.COMM_WORLD of mpi4py. Every process calls
        `fit` with the same examples, computes the gradient of its rows of each batch, and receives the sum. See
        `handgrad.distributed`.
    sync_every : int, optional
        Local SGD, with `comm`: every process takes steps with the gradient of its own rows, and the weights are
        averaged after this number of steps. By default, the gradients are summed at every step.

    Attributes
    ----------
    history : History
        "loss", "accuracy", "lr", "seconds", and with a validation set "val_loss", "val_accuracy": one number per epoch.
    metrics : dict of str to float
        The numbers of the last epoch.
    validation : Evaluation or None
        The last epoch's evaluation of the validation set.
    has_validation : bool
        Whether the current `fit` has a validation set.
    epoch, epochs, first_epoch : int
        Number of finished epochs; number after which `fit` ends; number of finished epochs when it began.
    batch, batches : int
        Number of finished batches of this epoch; number of batches per epoch.
    stop : bool
        Set it to True to end the training after this epoch.

    Raises
    ------
    HandgradError
        If the teacher has other inputs or outputs than the network.
    """

    lr, learning_rate = (Misnamed("the learning rate is trainer.optimizer.lr") for _ in range(2))

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer | str,
        *,
        batch_size: int = 10,
        schedule: Schedule | str | None = None,
        callbacks: Sequence[Callback] = (),
        augment: AugmentFunction | None = None,
        teacher: Model | None = None,
        perturb: Perturbation | None = None,
        rng: Seed = None,
        comm: Communicator | None = None,
        sync_every: int | None = None,
    ) -> None:
        if not isinstance(network, Network):
            raise HandgradError(f"Trainer: network must be a Network, got {network!r}")
        for callback in callbacks if isinstance(callbacks, Sequence) else [callbacks]:
            if not isinstance(callbacks, Sequence) or not isinstance(callback, Callback):
                raise HandgradError(f"Trainer: callbacks must be a list of Callback objects, got {callback!r}")
        if not isinstance(teacher, Model | None):
            raise HandgradError(f"Trainer: teacher must be a model, as a Network, got {teacher!r}")
        for name, function in (("augment", augment), ("perturb", perturb)):
            if function is not None and not callable(function):
                raise HandgradError(f"Trainer: {name} must be a function, got {function!r}")
        self.network, self.optimizer = network, make_optimizer(optimizer)
        self._trained = network  # without its fixed first layers, while their outputs are the inputs
        self.augment, self.perturb, self.teacher = augment, perturb, teacher
        if teacher is not None and (teacher.n_in, teacher.n_out) != (network.n_in, network.n_out):
            raise HandgradError(
                f"the teacher has {teacher.n_in} inputs and {teacher.n_out} outputs: "
                f"expected {network.n_in} and {network.n_out}, as the network"
            )
        self.batch_size = check_int("batch_size", batch_size, 1)
        self.schedule = make_schedule(schedule)
        self.callbacks = list(callbacks)
        self.shuffling = spawn_rngs(rng).shuffling
        (self.augmenting,) = self.shuffling.spawn(1)
        self.history = History()
        self.metrics: dict[str, float] = {}
        self.validation: Evaluation | None = None
        self.has_validation = False
        self.epoch = self._epochs = self.first_epoch = 0
        self.batch = self.batches = 0
        self.stop = False
        self._last_good: tuple[Array, dict[str, Any]] | None = None
        self._totals = Totals(0.0, 0, 0)  # of the finished blocks of this epoch
        self._block: tuple[Array, Array, Array | None, int] | None = None  # z, t, w and the first batch of this block
        self._warned: set[str] = set()
        self._progress: ProgressBar | None = None  # the progress bar of the current `fit`
        self._parallel: DataParallel | None = None
        if comm is not None or sync_every is not None:
            from .distributed.data_parallel import DataParallel  # late: a feature on the core

            self._parallel = DataParallel(self, comm, sync_every)

    @property
    def epochs(self) -> int:
        """Number of epochs after which `fit` ends."""
        return self._epochs

    @epochs.setter
    def epochs(self, epochs: int) -> None:
        raise MisnamedError("epochs of a Trainer cannot be set: pass it to fit, or set stop = True to end the run")

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        epochs: int | None = None,
        *,
        until_epoch: int | None = None,
        sample_weight: ArrayLike | None = None,
        validation: tuple[ArrayLike, ArrayLike] | float | None = None,
        progress: bool | None = None,
        **unknown: Any,
    ) -> History:
        """Train the network.

        Parameters
        ----------
        x : array-like of shape (count, n_in) or (count, height, width), or Rows
            Numbers, or images: see `handgrad.arrays.check_inputs`. Training on images sets the network's `image_shape`.
        y : array-like of shape (count,) or (count, n_out)
            Labels, or one row of targets per example.
        epochs : int
            Number of epochs to train, from here. The schedule runs over these epochs.
        until_epoch : int
            Instead of `epochs`: continue a run, up to this number of epochs in total, as if it had not been
            interrupted. Use it after `handgrad.callbacks.resume`.
        sample_weight : array-like of shape (count,), optional
            Weights w, scaled to a mean of 1. The loss of a batch is the mean of wᵢ Lᵢ, so that an example of weight 2
            counts as two examples. Accuracy, validation and the statistics of BatchNorm are not weighted.
        validation : (x, y) or float, optional
            Validation set, evaluated after each epoch. A fraction in (0, 1) takes this share of the examples out of the
            training set, at random. The choice depends only on the number of examples: it is the same in every `fit`.
        progress : bool, optional
            Show a `handgrad.progress.ProgressBar`. By default, it is shown if the program runs in a terminal or a
            notebook, unless a callback shows the progress.
        **unknown
            Options of other libraries, which are rejected with a hint.

        Returns
        -------
        History
            The metrics of each epoch. Loss and accuracy are those of each batch before its step, for the labels of the
            teacher if there is one. The history of a regression has no accuracy.

        Raises
        ------
        DivergedError
            If the outputs are not finite any more.
        HandgradError
            For invalid input, before the first step.

        Warns
        -----
        HandgradWarning
            Once, for features that are not scaled, a very large initial loss, hidden units that give the same output
            for every example, and an accuracy at chance level.
        """
        for option in unknown:
            raise HandgradError(f"fit has no option '{option}': {_hint(option)}")
        if (epochs is None) == (until_epoch is None):
            raise HandgradError("fit needs either epochs (to train from here) or until_epoch (to continue a run)")
        network, names = self.network, getattr(x, "columns", None)
        check_attributes(self, self.optimizer, network, *network.layers)
        check_views(network)
        x = network.check_inputs(x)
        t = make_targets(network.loss, y, len(x), network.n_out, network.dtype)
        image_shape = x.shape[1:] if x.ndim == 3 else network.image_shape
        if sample_weight is not None:
            check_sample_weight(sample_weight, len(x), network.dtype)
        if isinstance(validation, int | float | np.number):
            chosen, others = split(len(x), float(validation))
            validation = _subset(x, others), as_array("y", y)[others]
            x, t = _subset(x, chosen), _subset(t, chosen)
            sample_weight = None if sample_weight is None else as_array("sample_weight", sample_weight)[chosen]
        if validation is not None:  # before the first epoch, not after it
            if not isinstance(validation, tuple | list) or len(validation) != 2:
                raise HandgradError(
                    f"validation must be (x, y) or a fraction in (0, 1), got {type(validation).__name__}"
                )
            x_validation = check_inputs(validation[0], network.n_in, image_shape)
            network.loss.targets(validation[1], len(x_validation), network.n_out, network.dtype)
        w = None if sample_weight is None else check_sample_weight(sample_weight, len(x), network.dtype)
        if epochs is not None:
            self.first_epoch, self._epochs, self.stop = self.epoch, self.epoch + check_int("epochs", epochs, 0), False
        elif until_epoch is not None:
            self._epochs = check_int("until_epoch", until_epoch, self.epoch)
        network.image_shape = image_shape
        if x.ndim == 3 and x.dtype != np.uint8:
            x = x.reshape(len(x), network.n_in)
        self.optimizer.refresh()
        if self.perturb is not None and hasattr(self.perturb, "refresh"):
            self.perturb.refresh()
        if self._parallel is not None:
            self._parallel.start(x, t, w)
        known, first = t if self.teacher is None else None, self.epoch
        if self.epoch == 0:
            self._warn(before_training(network, x, known, self.epochs * len(x), names))
        self._progress, self.has_validation = self._progress_bar(progress), validation is not None
        try:
            with contextlib.nullcontext() if self._parallel is None else self._parallel.limited_threads():
                history = self._run(x, t, w, validation)
        finally:
            self._trained = network
            if self._progress is not None:
                self._progress.close()
                self._progress = None
        if self.epoch > first:
            examples, steps = (self.epoch - first) * len(x), self.epoch * self.batches
            self._warn(after_training(network, x, known, examples, steps, self.metrics.get("accuracy")))
        return history

    def _progress_bar(self, progress: bool | None) -> ProgressBar | None:
        """The progress bar of a `fit`. By default there is one in a terminal or a notebook."""
        if progress not in (None, True, False):
            raise HandgradError(f"progress must be True, False or None, got {progress!r}")
        if progress is False or not self.is_main_process:
            return None
        from .progress import ProgressBar, is_interactive  # late: a feature on the core

        if progress or (is_interactive() and not any(callback.shows_progress for callback in self.callbacks)):
            return ProgressBar()
        return None

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes and prints: the one with rank 0, or the only one."""
        return self._parallel is None or self._parallel.rank == 0

    def _warn(self, problems: dict[str, str]) -> None:
        """Warn of each kind of problem once."""
        for kind, message in problems.items():
            if kind not in self._warned and self.is_main_process:
                self._warned.add(kind)
                warnings.warn(message, HandgradWarning, stacklevel=calls_of_handgrad())

    @np.errstate(under="ignore")  # small numbers become 0, also for programs with np.seterr(all="raise")
    def _run(
        self, x: NDArray[Any], t: Array, w: Array | None, validation: tuple[ArrayLike, ArrayLike] | None
    ) -> History:
        """Train up to `epochs` epochs on validated inputs; w is (count, 1) with a mean of 1."""
        network, fixed = self.network, self.fixed_layers(x)
        features: Array | None = None
        self._batch_size = min(self.batch_size, len(t))
        self.batches = -(-len(t) // self._batch_size)
        self._notify("on_train_begin")
        while self.epoch < self.epochs and not self.stop:
            begin, self.batch = time.perf_counter(), 0
            lr = self._lr()
            self._last_good = network.parameters.copy(), self.optimizer.state_dict()
            with np.errstate(over="ignore", invalid="ignore"):  # divergence is reported by DivergedError
                train_epoch = self._train_epoch if self._parallel is None else self._parallel.train_epoch
                if fixed:
                    features = network.outputs_of(fixed - 1, x) if features is None else features
                    self._trained = network.without_first(fixed)  # with the attributes that its layers have now
                loss, accuracy = train_epoch(x if features is None else features, t, w)
                size = float(np.vdot(network.parameters, network.parameters))
                self.metrics = {"loss": loss, "lr": lr} | ({} if accuracy is None else {"accuracy": accuracy})
                if math.isfinite(loss + size):
                    self._notify("on_evaluation_begin")
                    self.validation = None
                    if validation is not None:
                        self._validate(*validation)
            # Only the losses: the metric of a callback may be infinite, or NaN in an epoch without a measurement.
            if not math.isfinite(loss + self.metrics.get("val_loss", 0.0) + size):
                self._raise_diverged(self.batch)
            self.metrics["seconds"] = time.perf_counter() - begin
            self._record()
            self.epoch += 1
            try:
                self._notify("on_epoch_end")
            finally:
                self._notify("on_evaluation_end")
        self._last_good = None
        self._notify("on_train_end")
        return self.history

    def fixed_layers(self, x: NDArray[Any]) -> int:
        """Return the number of first layers whose outputs for x `fit` computes only once.

        These are layers that are fixed. It is 0 if the inputs change between epochs or are needed by a teacher, if the
        outputs are too large, or x is in files, and with several processes or threads.
        """
        count, width = 0, self.network.n_in
        for layer in self.network.layers:
            if not layer.fixed or layer.parameter_shapes:
                break
            count, width = count + 1, layer.width(width)
        changing = any(part is not None for part in (self.augment, self.perturb, self.teacher, self._parallel))
        if not count or changing or isinstance(x, Rows):
            return 0
        return count if len(x) * width * self.network.dtype.itemsize <= MAX_FIXED_BYTES else 0

    def _validate(self, x: ArrayLike, y: ArrayLike) -> None:
        try:
            model = self.network if self._parallel is None else self._parallel
            self.validation = evaluation = model.evaluate(x, y)
        except NotFiniteError:
            self._raise_diverged(self.batch)
        self.metrics["val_loss"] = evaluation.loss
        if evaluation.accuracy is not None:
            self.metrics["val_accuracy"] = evaluation.accuracy

    def _record(self) -> None:
        """Append the metrics to the history, with NaN for each epoch in which a metric was not measured."""
        for name in {**self.history, **self.metrics}:
            values = self.history.setdefault(name, [math.nan] * self.epoch)
            values.append(float(self.metrics.get(name, math.nan)))  # a callback may add a number of NumPy

    def _train_epoch(self, x: NDArray[Any], t: Array, w: Array | None) -> tuple[float, float | None]:
        """Train one epoch. Returns the mean loss and the accuracy of its batches, each before its step."""
        network, batch_size = self._trained, self._batch_size
        watching = [c.on_batch_end for c in self._ordered() if type(c).on_batch_end is not Callback.on_batch_end]
        loss_sum, correct, count = 0.0, 0, 0
        for x_block, t_block, w_block in self._shuffled_blocks(x, t, w):
            begin, z_block = self.batch, np.empty_like(t_block)
            self._totals, self._block = Totals(loss_sum, correct, count), (z_block, t_block, w_block, begin)
            count += len(t_block)
            for first in range(0, len(t_block), batch_size):
                rows = slice(first, first + batch_size)
                batch = x_block[rows], t_block[rows]
                if self.perturb is not None:
                    batch = self.perturb(network, *batch)
                z_block[rows] = self._train_step(*batch, None if w_block is None else w_block[rows])
                self.batch += 1
                for on_batch_end in watching:
                    on_batch_end(self)
            z_block = np.asfortranarray(z_block)  # argmax and sums over ten classes take a fifth and a half of the time
            finite = np.isfinite(z_block).all(axis=1)
            if not finite.all():
                self._raise_diverged(begin + int(finite.argmin()) // batch_size)
            if w_block is None:
                loss_sum += network.loss.value(z_block, t_block) * len(z_block)
            else:
                loss_sum += float(network.loss.per_example(z_block, t_block) @ w_block[:, 0])
            if network.loss.is_classification:
                correct += network.loss.correct(z_block, t_block)
        return loss_sum / len(t), correct / len(t) if network.loss.is_classification else None

    def totals(self) -> Totals:
        """Return the sums over the examples of this epoch so far, for a callback that shows the loss between epochs.

        They cost one evaluation of the loss for the last few hundred examples: do not call it after each step.
        """
        if self._block is None:
            return self._totals
        (loss_sum, correct, count), (z, t, w, begin) = self._totals, self._block
        rows = min((self.batch - begin) * self._batch_size, len(t))
        if rows == 0:
            return self._totals
        z, t, loss = z[:rows], t[:rows], self.network.loss
        with np.errstate(all="ignore"):
            losses = loss.per_example(z, t)
            loss_sum += float(losses.sum() if w is None else losses @ w[:rows, 0])
        correct += loss.correct(z, t) if loss.is_classification else 0
        return Totals(loss_sum, correct, count + rows)

    def _train_step(self, x: Array, t: Array, w: Array | None) -> Array:
        """One step on a batch, whose loss is the mean of wᵢ Lᵢ. Returns the logits."""
        z = self.optimizer.train_step(self._trained, x, t, self._lr(), None if w is None else w / len(w))
        self.network.gradient_scale = self._trained.gradient_scale
        return z

    def _raise_diverged(self, step: int) -> NoReturn:
        assert self._last_good is not None  # set at the start of the epoch
        self.network.parameters[...], state = self._last_good
        self.optimizer.load_state_dict(state)
        unscaled = self._warned & {"scale", "targets"}
        remedy = "scale the data, see the warning" if unscaled else f"try a learning rate below {self.optimizer.lr:g}"
        raise DivergedError(
            f"training diverged at step {step} of epoch {self.epoch + 1}: the outputs are not finite; the weights were "
            f"restored to the start of the epoch; {remedy}"
        )

    def _permutation(self, count: int) -> NDArray[np.intp]:
        """The order (count,) of the examples in the next epoch."""
        return self.shuffling.permutation(count)

    def _gather(self, x: NDArray[Any], chosen: NDArray[np.intp], out: NDArray[Any]) -> None:
        """Write the chosen rows of x into `out`."""
        # mode="clip": the indices are valid, and the default mode would write to `out` through a temporary array
        np.take(x, chosen, axis=0, out=out, mode="clip")

    def _batches_per_block(self) -> int:
        return max(1, GATHER_FLOATS // (self._trained.n_in * self._batch_size))

    def _shuffled_blocks(
        self, x: NDArray[Any], t: Array, w: Array | None
    ) -> Iterator[tuple[Array, Array, Array | None]]:
        """The examples, targets and weights in a new order, several whole batches at a time, in the same buffers."""
        order: Any
        order = source_rows = x.in_order(self.shuffling) if isinstance(x, Rows) else self._permutation(len(t))
        if not isinstance(x, Rows):
            source_rows = x
        n_in, n_out, dtype = self._trained.n_in, t.shape[1], self.network.dtype
        block = self._batches_per_block() * self._batch_size
        rows, count = min(block, len(t)), -(-len(t) // block)
        background = self.augment is not None or self.teacher is not None
        buffers = [
            [aligned_empty(rows * width, dtype).reshape(rows, width) for width in (n_in, n_out)]
            for _ in range(1 + background)  # in the background, one is filled while the other is used
        ]
        direct = x.dtype == dtype and x.ndim == 2
        gathered = np.empty((0 if direct else rows, *x.shape[1:]), x.dtype)

        def fill(number: int) -> tuple[Array, Array, Array | None]:
            chosen = order[number * block : (number + 1) * block]
            parallel = self._parallel
            if parallel is not None and (self.augment is None or parallel.is_local):
                chosen = chosen[parallel.own_rows(len(chosen))]
            x_block, t_block = (buffer[: len(chosen)] for buffer in buffers[number % len(buffers)])
            source = x_block if direct else gathered[: len(chosen)]
            if len(chosen):  # a rank may have no row in the last batch
                self._gather(source_rows, chosen, source)
            if self.augment is not None:
                rng = self.augmenting if parallel is None else parallel.augmenting()
                if len(chosen):
                    made = self.augment(source, rng, x_block)
                    if made is not None and not np.may_share_memory(made, x_block):
                        raise HandgradError("augment returned a new array: write the images into out, and return out")
                if parallel is not None and not parallel.is_local:  # all images were made
                    own = parallel.own_rows(len(chosen))
                    chosen, x_block, t_block = chosen[own], x_block[own], t_block[: len(own)]
            elif not direct:
                as_floats(source, out=x_block)
            if self.teacher is not None and len(chosen):
                t_block[...] = self.teacher.soft_labels(x_block, self.network.loss.temperature)
            else:
                np.take(t, chosen, axis=0, out=t_block, mode="clip")
            return x_block, t_block, None if w is None else w[chosen]

        return prefetch(fill, count) if background else map(fill, range(count))

    def _lr(self) -> float:
        """The learning rate of the next step."""
        return self._scheduled_lr(self.first_epoch, self._epochs)

    def _scheduled_lr(self, first: int, last: int) -> float:
        """The learning rate of the next step, for a schedule that runs from the epoch `first` to the epoch `last`."""
        epoch, epochs = self.epoch - first + self.batch / self.batches, last - first
        factor = self.schedule(epoch, epochs)
        if factor < 0:  # as that of 1 - epoch / (epochs - 1) in the last epoch
            raise HandgradError(f"the schedule is {factor:g} at epoch {epoch:g} of {epochs}: expected a factor >= 0")
        return self.optimizer.lr * factor

    def _ordered(self) -> list[Callback]:
        callbacks = self.callbacks if self._progress is None else [*self.callbacks, self._progress]
        if self._parallel is not None:
            callbacks = self._parallel.callbacks(callbacks)
        return sorted(callbacks, key=lambda callback: callback.order)

    def _notify(self, event: str) -> None:
        for callback in self._ordered():
            getattr(callback, event)(self)

    def synchronize(self) -> None:
        """Replace the state of this training by that of the process with rank 0, as `fit` does when it begins.

        All processes must call it, for example after rank 0 has resumed a run. Without `comm`, it does nothing.
        """
        if self._parallel is not None:
            self._parallel.synchronize()

    # ---- Interrupt and continue --------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return everything the next epoch depends on: arrays, and values that JSON can represent, with flat names."""
        state: dict[str, Any] = {
            "parameters": self.network.parameters.copy(),
            "epoch": self.epoch,
            "first_epoch": self.first_epoch,
            "stop": self.stop,
            "history": {name: list(values) for name, values in self.history.items()},
        }
        for name, part in self._parts().items():
            state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        for name, rng in self._rngs().items():
            state[name] = rng.bit_generator.state
        return state | {
            f"layers.{i}.lr_scale": layer.lr_scale for i, layer in enumerate(self.network.layers) if layer.lr_scale != 1
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`; then call `fit` with `until_epoch`.

        Raises HandgradError if it is the state of another network, optimizer or set of callbacks, or is damaged.
        Nothing is changed in that case.
        """
        before, ours = self.state_dict(), self.network.parameters
        optional = {f"layers.{i}.lr_scale" for i in range(len(self.network.layers))}
        expected, found = set(before) - optional, set(state) - optional
        if expected != found:
            missing, unknown = (", ".join(sorted(names)) for names in (expected - found, found - expected))
            problem = f"it lacks {missing}" if missing else f"it also has {unknown}"
            raise HandgradError(f"the checkpoint is from another training: {problem}")
        saved = state["parameters"]
        if not isinstance(saved, np.ndarray) or saved.shape != ours.shape or saved.dtype != ours.dtype:
            count, dtype = (f"{saved.size:,}", saved.dtype) if isinstance(saved, np.ndarray) else ("no", "numbers")
            raise HandgradError(
                f"the checkpoint has {count} parameters in {dtype}: expected {ours.size:,} in {ours.dtype}"
            )
        _check_progress(state)
        if not np.isfinite(saved).all():
            raise HandgradError("the checkpoint is damaged: the parameters are not finite")
        for name in (name for name in state if name.startswith("optimizer.") and name.endswith("state")):
            vectors = state[name]  # (n_slots, n_parameters), or (n_slots, 0) before the first step
            if not isinstance(vectors, np.ndarray) or (
                vectors.size
                and (vectors.shape[-1:] != ours.shape or vectors.dtype != ours.dtype or np.isnan(vectors).any())
            ):
                raise HandgradError(f"the checkpoint is damaged: {name} has another size or dtype, or contains NaN")
        try:
            self._load_parts(state)
        except Exception as error:
            self._load_parts(before, ignored=(Exception,))  # a callback that raised may raise again
            if isinstance(error, HandgradError):
                raise
            raise HandgradError(f"the checkpoint is damaged: {error!r}") from error
        ours[...] = saved
        self.epoch, self.first_epoch, self.stop = state["epoch"], state["first_epoch"], state["stop"]
        self.history = History({name: list(values) for name, values in state["history"].items()})
        last = {name: values[-1] for name, values in self.history.items() if values}
        self.metrics = {name: value for name, value in last.items() if not math.isnan(value)}

    def _load_parts(self, state: dict[str, Any], ignored: tuple[type[Exception], ...] = ()) -> None:
        """Load the states of the optimizer, the callbacks, the perturbation, the random generators and the layers."""
        for name, part in self._parts().items():
            own = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
            with contextlib.suppress(*ignored):
                part.load_state_dict(own)
        for name, rng in self._rngs().items():
            set_rng_state(rng, state[name])
        for i, layer in enumerate(self.network.layers):
            layer.lr_scale = state.get(f"layers.{i}.lr_scale", 1.0)

    def _parts(self) -> dict[str, Any]:
        """The parts that have a state."""
        parts: dict[str, Any] = {"optimizer": self.optimizer}
        if hasattr(self.perturb, "state_dict"):
            parts["perturb"] = self.perturb
        return parts | {f"callbacks.{i}": callback for i, callback in enumerate(self.callbacks)}

    def _rngs(self) -> dict[str, np.random.Generator]:
        layers = {f"layers.{i}.rng": layer.rng for i, layer in enumerate(self.network.layers) if layer.rng is not None}
        return {"shuffling": self.shuffling, "augmenting": self.augmenting, **layers}

    def __repr__(self) -> str:
        parts = {"batch_size": self.batch_size, "schedule": self.schedule, "callbacks": self.callbacks}
        options = ", ".join(f"{name}={value!r}" for name, value in parts.items())
        return f"Trainer({self.network!r}, {self.optimizer!r}, {options}): epoch {self.epoch}"

    def _repr_html_(self) -> str:
        """Return a table of the parts, the settings and the last metrics."""
        size = f"{self.network.n_in} inputs, {self.network.n_out} outputs, {self.network.parameters.size:,} parameters"
        settings = {
            "network": size,
            "loss": repr(self.network.loss),
            "optimizer": repr(self.optimizer),
            "batch size": str(self.batch_size),
            "schedule": repr(self.schedule),
            "callbacks": ", ".join(map(repr, self.callbacks)) or "none",
            "epoch": str(self.epoch),
        }
        metrics = {name: format_metric(name, value) for name, value in self.metrics.items()}
        return Table(("Trainer", ""), [*settings.items(), *metrics.items()])._repr_html_()


class Targets:
    """The targets t (count, n_out) of many labels, made when they are used.

    Eight million rows of ten floats take 320 MB, their labels 8 MB as bytes. The values are the same.

    Parameters
    ----------
    loss : Loss
        Makes the targets of each row from its label.
    y : ndarray of shape (count,)
        Labels.
    n_out : int
        Number of outputs.
    dtype : numpy.dtype
        Type of the targets.
    """

    def __init__(self, loss: Loss, y: NDArray[Any], n_out: int, dtype: np.dtype[Any]) -> None:
        self.loss, self.y, self.dtype, self.shape = loss, y, dtype, (len(y), n_out)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, rows: Any) -> Array:
        y = self.y[rows]
        return self.loss.targets(y, len(y), self.shape[1], self.dtype)

    def subset(self, rows: NDArray[np.intp]) -> Targets:
        """Return the targets of these rows."""
        return Targets(self.loss, self.y[rows], self.shape[1], self.dtype)

    def take(self, rows: NDArray[np.intp], axis: int, out: Array, mode: str) -> Array:
        """Write the targets of these rows to `out`: `numpy.take` calls this method."""
        out[...] = self[rows]
        return out


def make_targets(loss: Loss, y: ArrayLike, count: int, n_out: int, dtype: np.dtype[Any]) -> Any:
    """Validate y and return the targets (count, n_out): an array, or `Targets` if the array would be large."""
    labels = as_array("y", y)
    if count * n_out <= TARGET_FLOATS or labels.shape != (count,):
        return loss.targets(y, count, n_out, dtype)
    targets = Targets(loss, labels, n_out, dtype)
    for rows in row_blocks(count, TARGET_FLOATS // 4 // n_out + 1):
        targets[rows]
    return targets


def _subset(values: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[Any]:
    """The rows of an array, or of values that are made when they are used."""
    part: Any = values.subset(rows) if isinstance(values, Rows | Targets) else values[rows]
    return part  # type: ignore[no-any-return]


def split(count: int, fraction: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Choose the examples of a validation set at random: (indices to train on, indices to validate on), both sorted.

    The choice depends only on `count` and `fraction`. A training that is continued, or a second one of the same
    network, therefore never trains on examples of the validation set.
    """
    size = max(1, round(count * check_fraction("validation", fraction, "(0, 1)")))
    if size >= count:
        raise HandgradError(f"validation={fraction:g} of {count} examples leaves none to train on")
    order = np.random.default_rng(0).permutation(count)
    return np.sort(order[size:]), np.sort(order[:size])


def _hint(option: str) -> str:
    """What to use instead of an option that `fit` does not have."""
    if option in _ELSEWHERE:
        return _ELSEWHERE[option]
    known = ("epochs", "until_epoch", "sample_weight", "validation", "progress")
    near = closest(option, known)
    return f"did you mean '{near}'?" if near else f"expected {', '.join(known)}"


def set_rng_state(rng: np.random.Generator, state: Any) -> None:
    """Set the position of a random generator. Raises HandgradError if the state is not one of this generator."""
    try:
        rng.bit_generator.state = state
        unchanged = rng.bit_generator.state == state
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        unchanged = False
    if not unchanged:
        kind = type(rng.bit_generator).__name__
        raise HandgradError(f"invalid state of a random generator: expected a state of {kind}")


def _check_progress(state: dict[str, Any]) -> None:
    """Raise HandgradError unless the epochs, the stop flag and the history of a state are valid and consistent."""
    epoch, first, stop, history = (state[name] for name in ("epoch", "first_epoch", "stop", "history"))
    if not (type(epoch) is type(first) is int and 0 <= first <= epoch and isinstance(stop, bool)):
        raise HandgradError("the checkpoint is damaged: invalid numbers of epochs")
    valid = isinstance(history, dict) and all(
        isinstance(name, str)
        and isinstance(values, list)
        and len(values) == epoch
        and all(isinstance(value, float) or (isinstance(value, int) and abs(value) < MAX_COUNT) for value in values)
        for name, values in history.items()
    )
    if not valid or (epoch > 0 and not history):
        raise HandgradError("the checkpoint is damaged: expected a history with one number per epoch for each metric")


def prefetch(make: Callable[[int], Item], count: int) -> Iterator[Item]:
    """Yield make(0), ..., make(count - 1), each computed in a background thread while the one before it is used."""
    from concurrent.futures import ThreadPoolExecutor  # late: few trainings need it

    with ThreadPoolExecutor(1) as background:
        pending = background.submit(make, 0)
        for number in range(count):
            block = pending.result()
            if number + 1 < count:
                pending = background.submit(make, number + 1)
            yield block
