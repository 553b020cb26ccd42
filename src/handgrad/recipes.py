"""Recipes: named trainings with known results.

A recipe contains every setting of a training as a plain value. The flags of the command line override them one by one,
and config.json of a run contains them. A recipe does not contain the image size and the number of classes: its lengths
are in pixels of images with a height of 28, as in MNIST, and are scaled to the images it is used for.

`records/` has the accuracy of each recipe on the test set of MNIST over several seeds; docs/explanation/records.md
describes how they were found.
"""

from __future__ import annotations

import copy
import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import NDArray

from .adversarial.perturb import Adversarial
from .arrays import Rows, check_int, check_non_negative, check_positive, spawn_rngs
from .blas import blas_threads
from .callbacks import EMA, EarlyStopping
from .errors import HandgradError, check_name, printable, unknown
from .images.augmentation import Augmentation
from .images.deskew import Deskew
from .images.hog import HOG, ORIENTATIONS
from .ladder import Ladder
from .layers import ACTIVATIONS, BatchNorm, Dense, Dropout, Layer
from .losses import LOSSES, CrossEntropy, Loss, SquaredError
from .model import Model
from .muon import Muon
from .network import Network, mlp
from .optimizers import OPTIMIZERS as CORE_OPTIMIZERS
from .optimizers import Optimizer
from .preprocessing import Preprocessing, Standardize
from .schedules import SCHEDULES, warm_up
from .training import Callback, Trainer
from .wrappers import (
    SHIFTS,
    Calibrated,
    Ensemble,
    Preprocessed,
    TestTimeAugmentation,
    fit_temperature,
    fold_batchnorm,
    unwrap,
)

if TYPE_CHECKING:
    from .distributed.data_parallel import Communicator

HEIGHT = 28  # height of the images in whose pixels a recipe's lengths are
MAX_SETTING = 1 << 63  # larger numbers are no settings
OPTIMIZERS = {**CORE_OPTIMIZERS, "muon": Muon}
SYNC_EVERY = 8  # steps of a thread between two averages of the weights
# Settings that fine-tuning takes from the model it starts from.
NETWORK_SETTINGS = (
    *("hidden", "hog", "hog_order", "activation", "loss", "init", "batch_norm", "dropout", "ladder"),
    *("deskew", "shrink"),
)
# Settings that need images. The others train on numbers too.
IMAGE_SETTINGS = ("deskew", "shrink", "rotation", "scale", "shear", "shift", "elastic", "hog")
CLASSIFICATION_LOSSES = ("cross_entropy", "binary_cross_entropy", "squared_error")


# Groups of settings, in the order in which the help of a command lists them.
GROUPS = ("Network", "Training", "Regularization", "Preprocessing and augmentation")
MOMENTUM_OPTIMIZERS = ("momentum", "nesterov", "muon")


def _setting(default: Any, group: str, text: str) -> Any:
    """A field with its help text, which the command line prints for the flag of the same name in this group."""
    return field(default=default, metadata={"help": text, "group": group})


_network = functools.partial(_setting, group="Network")
_training = functools.partial(_setting, group="Training")
_regularization = functools.partial(_setting, group="Regularization")
_images = functools.partial(_setting, group="Preprocessing and augmentation")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A network and its training.

    Raises
    ------
    HandgradError
        For unknown names, values out of range, and settings that need another one.
    """

    name: str
    hidden: tuple[int, ...] = _network((30,), text="Width of each hidden layer.")
    hog: int = _network(
        0,
        text="Number of cells along each side of the histograms of oriented gradients (HOG), which replace the pixels; "
        "0: pixels.",
    )
    hog_order: int = _network(
        1,
        text="Order of the gradients of HOG: 1, or 2 for HOG of each direction of HOG. Without effect on pixels.",
    )
    activation: str = _network("relu", text="Activation of the hidden layers, or one for each: tanh,relu.")
    loss: str = _network("cross_entropy", text="cross_entropy, binary_cross_entropy, or squared_error (of sigmoids).")
    init: str | None = _network(None, text="Weight initializer; depends on the activation by default.")
    batch_norm: bool = _network(False, text="Batch normalization in every hidden layer.")
    members: int = _network(1, text="Ensemble size.")
    tta: int = _network(1, text="Test-time augmentation: number of shifts, 1, 5 or 9.")
    optimizer: str = _training("adam", text="sgd, momentum, nesterov, adam, adamw or muon.")
    lr: float = _training(1e-3, text="Learning rate.")
    momentum: float | None = _training(
        None, text="Momentum of momentum, nesterov and muon; the optimizer's default if not given."
    )
    schedule: str = _training("one_cycle", text="Learning rate schedule: constant, cosine or one_cycle.")
    warm_up: float = _training(0.0, text="Epochs in which the learning rate increases linearly from 0.")
    clip_norm: float = _training(0.0, text="Largest norm of the gradient; 0: no clipping.")
    batch_size: int = _training(128, text="Number of examples in a mini-batch.")
    epochs: int = _training(10, text="Number of epochs in total, including those before --resume.")
    threads: int = _training(
        1,
        text="Number of threads. Each one trains on its rows of every batch, and every 8 steps their weights are "
        "averaged (local SGD). Not used with several processes.",
    )
    validation: int = _training(0, text="Number of validation examples, the last ones of the training set.")
    early_stopping: int = _training(
        0,
        text="Stop after this number of epochs without a lower validation loss, with the weights of the best epoch; "
        "0: never.",
    )
    teacher: str | None = _training(
        None, text="Knowledge distillation: a model file, a run directory, or a recipe that is trained first."
    )
    temperature: float = _training(1.0, text="Temperature of knowledge distillation.")
    seed: int = _training(0, text="Random seed.")
    dropout: float = _regularization(0.0, text="Dropout rate of the hidden layers.")
    l2: float = _regularization(0.0, text="L2 penalty of the weights: l2/2 times the sum of their squares.")
    weight_decay: float | None = _regularization(
        None, text="Decoupled weight decay; the optimizer's default if not given."
    )
    label_smoothing: float = _regularization(0.0, text="Label smoothing, 0 to 1.")
    calibration: float = _regularization(
        1.0,
        text="Temperature that divides the logits of a model trained with label smoothing, e.g. 0.5; a validation set "
        "replaces it.",
    )
    adversarial: float = _regularization(0.0, text="Adversarial training: L2 radius for 28x28 pixels.")
    ladder: float = _regularization(
        0.0,
        text="Factor of the reconstruction error of a ladder network, e.g. 2000; 0: no ladder network. It needs "
        "batch_norm and relu.",
    )
    ema_decay: float = _regularization(0.0, text="Decay of the weight average (EMA), e.g. 0.999; 0: no average.")
    deskew: bool = _images(False, text="Deskew and centre each image.")
    shrink: int = _images(1, text="Average blocks of N x N pixels after deskewing, for images 28 pixels high.")
    rotation: float = _images(0.0, text="Largest rotation in degrees.")
    scale: float = _images(0.0, text="Largest relative change of height and width.")
    shear: float = _images(0.0, text="Largest horizontal shear, pixels per pixel of height.")
    shift: float = _images(0.0, text="Largest shift in pixels, for images 28 pixels high.")
    elastic: float = _images(0.0, text="Elastic distortion, root mean square in pixels at a height of 28.")
    smoothness: float = _images(5.0, text="Smoothness of the elastic distortion in pixels at a height of 28.")

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, OPTIMIZERS)
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        if self.loss not in CLASSIFICATION_LOSSES:
            raise unknown("loss", self.loss, CLASSIFICATION_LOSSES)
        for name in ("batch_size", "epochs", "members", "shrink", "threads"):
            check_int(name, getattr(self, name), 1)
        for name in ("hog", "seed", "validation", "early_stopping"):
            check_int(name, getattr(self, name), 0)
        for name in ("l2", "clip_norm", "warm_up"):
            check_non_negative(name, getattr(self, name))
        if self.hog_order not in (1, 2):
            raise HandgradError(f"hog_order must be 1 or 2, got {self.hog_order}")
        check_positive("calibration", self.calibration)
        if self.momentum is not None and self.optimizer not in MOMENTUM_OPTIMIZERS:
            raise HandgradError(
                f"momentum {self.momentum:g} needs the optimizer {', '.join(MOMENTUM_OPTIMIZERS[:-1])} or "
                f"{MOMENTUM_OPTIMIZERS[-1]}, got {self.optimizer}"
            )
        if self.threads > self.batch_size:
            raise HandgradError(f"threads must be at most the batch size, {self.batch_size}, got {self.threads}")
        if self.threads > 1 and self.adversarial:
            raise HandgradError(
                f"adversarial {self.adversarial:g} needs the whole batch: expected threads=1, got {self.threads}"
            )
        check_non_negative("ladder", self.ladder)
        if self.ladder:
            self._check_ladder()
        if self.early_stopping and not self.validation:
            raise HandgradError(
                f"early_stopping {self.early_stopping} needs validation examples, got validation 0: choose a number, "
                "for example a sixth of the training examples"
            )
        if self.tta not in SHIFTS:
            raise HandgradError(f"tta must be one of {', '.join(map(str, SHIFTS))}, got {self.tta}")
        if self.temperature != 1 and self.loss != "cross_entropy":
            raise HandgradError(f"temperature {self.temperature} needs the loss cross_entropy, got {self.loss}")
        if self.shrink > HEIGHT:
            raise HandgradError(
                f"shrink must be at most {HEIGHT}, the height of the images it is given for, got {self.shrink}"
            )
        if self.shrink > 1 and not self.deskew:
            raise HandgradError(f"shrink {self.shrink} needs deskew")

    def _check_ladder(self) -> None:
        """Raise HandgradError for settings that a `Ladder` does not have."""
        needed = {"activation": "relu", "loss": "cross_entropy", "batch_norm": True}
        needed |= {"init": None, "dropout": 0.0, "threads": 1}
        for name, value in needed.items():
            if getattr(self, name) != value:
                raise HandgradError(f"ladder {self.ladder:g} needs {name}={value!r}, got {getattr(self, name)!r}")
        if self.optimizer == "muon":  # which leaves the last matrix to Nesterov, here one of the decoder
            raise HandgradError(f"ladder {self.ladder:g} needs another optimizer than muon, for example adam")

    # ---- Training ----------------------------------------------------------------------------------------------------

    def train(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        n_out: int,
        *,
        teacher: Model | None = None,
        start: Model | None = None,
        freeze: int = 0,
        classes: Sequence[str] | None = None,
        on_trainer: Callable[[Trainer, int], None] = lambda trainer, member: None,
        comm: Communicator | None = None,
        sync_every: int | None = None,
    ) -> Model:
        """Train as the recipe describes. The command line uses this method too.

        Parameters
        ----------
        x : ndarray of shape (count, height, width), uint8, or of shape (count, n), floats
            Images, or numbers, which are standardized. The last `validation` of them are the validation set.
        y : ndarray of shape (count,)
            Labels.
        n_out : int
            Number of classes.
        teacher : Model, optional
            Replaces the teacher that the recipe names. A recipe as the teacher is trained first, on the same examples.
        start : Model, optional
            Fine-tuning: start from the network in this model and use its preprocessing, instead of those that the
            recipe describes. The last layer is new if the classes differ.
        freeze : int
            Fine-tuning: number of Dense layers, from the first, whose weights do not change.
        classes : sequence of str, optional
            Names of the classes.
        on_trainer : callable
            Called with each trainer and the number of the ensemble member, from 0, before its training: to add
            callbacks, to set class names, to load a checkpoint. With several threads, the trainer is that of the first
            one: its callbacks must not have a state, and must not change the optimizer or the network.
        comm, sync_every
            Training with several processes, see `Trainer`. Every process calls this method and returns the model. A
            checkpoint only has to be loaded by rank 0.

        Returns
        -------
        Network, TestTimeAugmentation, Calibrated, Preprocessed or Ensemble
            The model for inference, with BatchNorm folded into the Dense layers. It is calibrated on the validation
            set, or with the temperature `calibration`.
        """
        if not 0 <= self.validation < len(x):
            raise HandgradError(
                f"validation {self.validation}: expected less than the {len(x)} training examples, for example "
                f"{len(x) // 6}"
            )
        shape = x.shape[1:]
        if start is None:
            recipe, origin = self, None
        else:
            recipe, origin = self.starting_from(start), _Origin(start, freeze, classes)
        processes: dict[str, Any] = {"comm": comm, "sync_every": sync_every}
        recipe._trainer(shape, n_out, 0, None, origin=origin, **processes)  # raises errors before a teacher is trained
        if self.teacher is not None and teacher is None:
            teacher = self._train_teacher(x, y, n_out, **processes)
        preprocessing = recipe.fit_preprocessing(x, start)
        if teacher is not None:
            teacher = _without_preprocessing(teacher, preprocessing)
        if preprocessing is not None:
            x = x.transformed(preprocessing) if isinstance(x, Rows) else preprocessing(x)
        count = len(x) - self.validation
        validation = (x[count:], y[count:]) if self.validation else None

        in_threads = self.threads > 1 and comm is None

        def fit(member: int, comm: Communicator | None, sync_every: int | None) -> Network:
            trainer = recipe._trainer(shape, n_out, member, teacher, origin=origin, comm=comm, sync_every=sync_every)
            if classes is not None:
                trainer.network.classes = tuple(classes)
            if not in_threads:
                on_trainer(trainer, member)
            elif trainer.is_main_process:
                before = {**vars(trainer), "callbacks": list(trainer.callbacks)}
                on_trainer(trainer, member)
                _check_shared(trainer, before)
            trainer.synchronize()
            with blas_threads(trainer.network, self.batch_size):
                # A checkpoint may be that of the epoch after which early stopping has ended the training.
                until_epoch = trainer.epoch if trainer.stop else self.epochs
                trainer.fit(x[:count], y[:count], until_epoch=until_epoch, validation=validation)
            return trainer.network

        def fit_in_threads(member: int) -> Network:
            from .distributed.threads import run_threads  # late, because few recipes need it

            return run_threads(self.threads, lambda thread: fit(member, thread, SYNC_EVERY))[0]

        networks = [
            fit_in_threads(member) if in_threads else fit(member, comm, sync_every) for member in range(self.members)
        ]
        if validation is None:
            return recipe.assemble(networks, shape, preprocessing)
        return _calibrate(recipe.replace(calibration=1.0).assemble(networks, shape, preprocessing), *validation)

    def for_examples(self, count: int) -> Recipe:
        """Return the recipe for `count` training examples: at most a sixth of them are the validation set."""
        return self.replace(validation=min(self.validation, count // 6))

    def _train_teacher(self, x: NDArray[Any], y: NDArray[Any], n_out: int, **processes: Any) -> Model:
        if self.teacher not in RECIPES:
            from .io import load  # late, because few recipes need it

            path = Path(str(self.teacher))
            if not os.path.exists(path):  # unlike path.exists(), also for names that are too long
                hint = unknown("recipe", printable(path.name, 50), RECIPES)
                raise HandgradError(
                    f"the teacher {printable(str(path), 200)} is neither a model file nor a recipe: {hint}"
                )
            model: Model = load(path)
            return model
        recipe = RECIPES[self.teacher].replace(validation=self.validation, seed=self.seed)
        return recipe.train(x, y, n_out, **processes)

    def trainer(
        self,
        image_shape: tuple[int, ...] = (HEIGHT, HEIGHT),
        n_out: int = 10,
        *,
        member: int = 0,
        teacher: Model | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Trainer:
        """Create a network and its trainer. It expects images that `preprocessing` has already been applied to.

        It trains in one thread: `train` uses the setting `threads`.

        Parameters
        ----------
        image_shape : (height, width) or (n,)
            Size of the images before preprocessing, or the number of numbers in an example.
        n_out : int
            Number of classes.
        member : int
            Number of the ensemble member, from 0. Each has its own random numbers.
        teacher : Model, optional
            Must have the preprocessing of this recipe.
        callbacks : sequence of Callback
            Added to those of the recipe.
        """
        if teacher is not None:
            teacher = _without_preprocessing(teacher, self.preprocessing(image_shape))
        return self._trainer(image_shape, n_out, member, teacher, callbacks)

    def _trainer(
        self,
        shape: tuple[int, ...],
        n_out: int,
        member: int,
        teacher: Model | None,
        callbacks: Sequence[Callback] = (),
        origin: _Origin | None = None,
        **processes: Any,
    ) -> Trainer:
        """The trainer with a teacher that receives preprocessed examples."""
        sequence = np.random.SeedSequence(self.seed if member == 0 else (self.seed, member))
        if origin is None:
            network = self._network(shape, n_out, sequence)
        else:
            network = self._network_from(origin, shape, n_out, sequence)
        schedule = SCHEDULES[self.schedule]()
        callbacks = [
            *([EMA(self.ema_decay)] if self.ema_decay else []),
            *([EarlyStopping(patience=self.early_stopping)] if self.early_stopping else []),
            *callbacks,
        ]
        epsilon = self.adversarial * math.sqrt(network.n_in) / HEIGHT  # a norm grows as √(number of pixels)
        return Trainer(
            network,
            self._optimizer(),
            batch_size=self.batch_size,
            schedule=warm_up(self.warm_up, schedule) if self.warm_up else schedule,
            callbacks=callbacks,
            augment=self.augmentation(shape, None if origin is None else unwrap(origin.model).preprocessing),
            perturb=Adversarial(epsilon) if epsilon else None,
            teacher=teacher,
            rng=sequence,
            **processes,
        )

    def _optimizer(self) -> Optimizer:
        options = {"weight_decay": self.weight_decay, "momentum": self.momentum}
        options |= {"l2": self.l2 or None, "clip_norm": self.clip_norm or None}
        given = {name: value for name, value in options.items() if value is not None}
        return OPTIMIZERS[self.optimizer](self.lr, **given)

    def _network(self, shape: tuple[int, ...], n_out: int, rng: np.random.SeedSequence) -> Network:
        if n_out < 2:
            raise HandgradError(
                f"the data have {n_out} class: expected at least 2, so that there is something to learn"
            )
        preprocessing = self.preprocessing(shape)
        seen: tuple[int, ...] = shape if preprocessing is None else preprocessing.image_shape_out
        hog = self._hog(seen)
        sizes = [hog[-1].n_out if hog else math.prod(seen), *self.hidden, n_out]
        layers: list[Layer] = [Ladder(sizes, cost_factor=self.ladder)] if self.ladder else self._mlp(sizes)
        network = Network([*hog, *layers], loss=self._loss(), rng=rng)
        network.image_shape = (seen[0], seen[1]) if len(seen) == 2 else None
        return network

    def _mlp(self, sizes: list[int]) -> list[Layer]:
        return mlp(
            sizes,
            activation=self.activation.split(",") if "," in self.activation else self.activation,
            init=self.init,
            batch_norm=self.batch_norm,
            dropout=self.dropout,
        )

    def _hog(self, shape: tuple[int, ...]) -> list[HOG]:
        """The first layers of a network for images of this size. A cell has at least 2 x 2 pixels.

        Images with a side below 4 pixels have no second-order gradients: that of a single cell is 0.
        """
        if not self.hog:
            return []
        height, width = shape
        half = max(1, min(height // 2, width // 2))
        if self.hog_order == 1 or half == 1:
            return [HOG(height, width, min(self.hog, half))]
        return [HOG(height, width, half), HOG(half, half, max(1, min(self.hog, half // 2)), channels=ORIENTATIONS)]

    def _network_from(
        self, origin: _Origin, shape: tuple[int, ...], n_out: int, rng: np.random.SeedSequence
    ) -> Network:
        """The network in a model, for these classes, with the loss of the recipe and frozen layers."""
        if n_out < 2:
            raise HandgradError(
                f"the data have {n_out} class: expected at least 2, so that there is something to learn"
            )
        model, freeze = origin.model, check_int("freeze", origin.freeze, 0)
        expected: tuple[int, ...] = model.image_shape or (model.n_in,)
        if shape != expected and not (expected == (math.prod(shape),) and isinstance(model, Network)):
            given, wanted = (
                "x".join(map(str, size)) if len(size) == 2 else f"{size[0]} numbers" for size in (shape, expected)
            )
            raise HandgradError(f"an example of the data is {given}: the model to start from expects {wanted}")
        network = _core(model)
        if keeps_output(model, n_out, origin.classes):
            network = copy.deepcopy(network)
            rngs = spawn_rngs(rng)
            for layer in network.layers:
                layer.seed(rngs)
        else:
            network = network.with_new_output(n_out, rng)
        loss = self._loss()
        if (type(loss), loss.output_activation) == (type(network.loss), network.loss.output_activation):
            network.loss = loss  # with the label smoothing and the temperature of the recipe
        dense = [i for i, layer in enumerate(network.layers) if isinstance(layer, Dense)]
        if freeze >= len(dense):
            raise HandgradError(
                f"freeze {freeze}: the network has {len(dense)} Dense layers, of which at most {len(dense) - 1} "
                "can be frozen"
            )
        for i, layer in enumerate(network.layers):
            layer.trainable = i >= dense[freeze] or freeze == 0
        return network

    def _loss(self) -> Loss:
        if self.loss == "squared_error":
            return SquaredError("sigmoid", self.label_smoothing)
        if self.loss == "cross_entropy":
            return CrossEntropy(self.label_smoothing, self.temperature)
        return LOSSES[self.loss](self.label_smoothing)  # type: ignore[call-arg]

    def fit_preprocessing(self, x: NDArray[Any], start: Model | None = None) -> Preprocessing | None:
        """Return the preprocessing for these training examples: `Deskew` or None for images, `Standardize` for numbers.

        The validation examples do not influence it. Fine-tuning uses the preprocessing of the model `start`.
        """
        if start is not None:
            return unwrap(start).preprocessing
        return self.preprocessing(x.shape[1:]) if x.ndim > 2 else Standardize.fit(x[: len(x) - self.validation])

    def preprocessing(self, image_shape: tuple[int, ...]) -> Deskew | None:
        """Return the preprocessing of images of this size, or None. It raises HandgradError for the size of numbers.

        `shrink` becomes the factor that divides both sides and is closest to the same reduction.
        """
        used = self._image_settings
        if len(image_shape) != 2 and used:
            *others, last = (name for name, other in RECIPES.items() if not other.needs_images)
            raise HandgradError(
                f"the recipe {self.name} needs images ({', '.join(used)}), but an example of the data is "
                f"{image_shape[0]} numbers: choose the recipe {', '.join(others)} or {last}, or turn these settings off"
            )
        if not self.deskew:
            return None
        height, width = image_shape
        return Deskew(height, width, _shrink(self.shrink, height, width))

    @property
    def needs_images(self) -> bool:
        """Whether a setting, such as `deskew`, is about images."""
        return bool(self._image_settings)

    @property
    def _image_settings(self) -> list[str]:
        """The names of the settings about images that are used."""
        return [name for name in IMAGE_SETTINGS if getattr(self, name) != getattr(Recipe, name)]

    def augmentation(
        self, image_shape: tuple[int, ...], preprocessing: Preprocessing | None = None
    ) -> Augmentation | None:
        """Return the data augmentation for images of this size before preprocessing, or None.

        The preprocessing is that of the recipe, unless it is given.
        """
        if not (self.rotation or self.scale or self.shear or self.shift or self.elastic):
            return None
        own = self.preprocessing(image_shape)  # raises HandgradError for numbers
        seen = preprocessing or own
        if seen is not None and seen.image_shape_out is not None:
            image_shape = seen.image_shape_out
        pixel = image_shape[0] / HEIGHT
        return Augmentation(
            *image_shape,
            rotation=self.rotation,
            scale=self.scale,
            shear=self.shear,
            shift=self.shift * pixel,
            elastic=self.elastic * pixel,
            smoothness=self.smoothness * pixel,
        )

    def assemble(
        self, networks: Sequence[Network], image_shape: tuple[int, ...], preprocessing: Preprocessing | None = None
    ) -> Model:
        """Build the model for inference: fold BatchNorm, average shifts and members, calibrate, add the preprocessing.

        The preprocessing of images is that of `image_shape`; that of numbers must be given.

        Images of less than half of MNIST's height are not shifted, because one pixel is too far for them.
        """
        members: list[Model] = []
        for network in map(fold_batchnorm, networks):
            shift = self.tta > 1 and network.image_shape is not None and 2 * network.image_shape[0] >= HEIGHT
            members.append(TestTimeAugmentation(network, self.tta) if shift else network)
        model = members[0] if len(members) == 1 else Ensemble(members)
        if self.calibration != 1 and self.label_smoothing:
            model = Calibrated(model, self.calibration)
        if preprocessing is None and len(image_shape) == 2:
            preprocessing = self.preprocessing(image_shape)
        return model if preprocessing is None else Preprocessed(model, preprocessing)

    # ---- Configuration -----------------------------------------------------------------------------------------------

    def starting_from(self, model: Model) -> Recipe:
        """Return the recipe for fine-tuning a model: with the settings of its network and of its preprocessing.

        Raises HandgradError for an ensemble, and for a regression.
        """
        network, preprocessing = _core(model), unwrap(model).preprocessing
        names = {kind: name for name, kind in ACTIVATIONS.items()}
        activations = [names[type(layer)] for layer in network.layers if type(layer) in names]
        losses = {kind: name for name, kind in LOSSES.items() if name in CLASSIFICATION_LOSSES}
        deskew = preprocessing if isinstance(preprocessing, Deskew) else None
        hog = [layer for layer in network.layers if isinstance(layer, HOG)]
        return self.replace(
            hidden=tuple(len(W) for W, _ in network.weights[:-1]),
            hog=hog[-1].cells if hog else 0,
            hog_order=1 if len(hog) < 2 else 2,
            activation=",".join(activations if len(set(activations)) > 1 else activations[:1]) or self.activation,
            loss=losses.get(type(network.loss), self.loss),
            batch_norm=any(isinstance(layer, BatchNorm) for layer in network.layers),
            ladder=0.0,
            dropout=next((layer.rate for layer in network.layers if isinstance(layer, Dropout)), 0.0),
            deskew=deskew is not None,
            shrink=1 if deskew is None else _shrink_setting(deskew),
        )

    def replace(self, **settings: Any) -> Recipe:
        """Return a recipe with other settings; None keeps a setting. Raises HandgradError for unknown settings."""
        known = [setting.name for setting in fields(self)]
        for name in settings:
            check_name("setting", name, known)
        return replace(self, **{name: value for name, value in settings.items() if value is not None})

    def config(self) -> dict[str, Any]:
        """Return the settings as values that JSON can represent."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Recipe:
        """Create a recipe from its `config`. Settings that an older version did not have get their defaults.

        Raises HandgradError for unknown settings and values of the wrong type.
        """
        types = get_type_hints(cls) | {"hidden": list | tuple}
        unknown_names = sorted(set(config) - set(types))
        if unknown_names or "name" not in config:
            problem = f"unknown setting {', '.join(unknown_names)}" if unknown_names else "no name"
            raise HandgradError(f"the configuration is invalid: {problem}; was it written by another version?")
        for name, value in config.items():
            kind = int | types[name] if types[name] in (float, float | None) else types[name]
            if not isinstance(value, kind) or not _is_setting(name, value, kind):
                raise HandgradError(f"the configuration is invalid: {name} is {value!r}")
        return cls(**{**config, "hidden": tuple(config.get("hidden", cls.hidden))})


def _shrink(shrink: int, height: int, width: int) -> int:
    """The factor that divides both sides of an image and is closest to the reduction by `shrink` at 28 pixels."""
    wanted = max(1, round(shrink * height / HEIGHT))
    candidates = range(1, min(wanted, height, width) + 1)
    return max(s for s in candidates if height % s == width % s == 0)


def _shrink_setting(deskew: Deskew) -> int:
    """The setting `shrink` of a recipe whose preprocessing is `deskew`; 1 if there is none."""
    settings = range(1, HEIGHT + 1)
    return next((s for s in settings if _shrink(s, *deskew.image_shape_in) == deskew.shrink), 1)


def _check_shared(trainer: Trainer, before: dict[str, Any]) -> None:
    """Raise HandgradError if `on_trainer` gave the first of several threads something that the others do not have."""
    for name in ("optimizer", "schedule", "augment", "teacher", "perturb"):
        if getattr(trainer, name) is not before[name]:
            raise HandgradError(
                f"on_trainer replaced {name} of the first thread only: change a setting of the recipe, or use threads=1"
            )
    for callback in trainer.callbacks:
        if callback not in before["callbacks"] and callback.state_dict():
            raise HandgradError(
                f"the callback {callback!r} has a state, which the other threads do not have: use the settings "
                "ema_decay and early_stopping, or threads=1"
            )


class _Origin(NamedTuple):
    """What fine-tuning starts from."""

    model: Model
    freeze: int
    classes: Sequence[str] | None


def _core(model: Model) -> Network:
    """The network in a model to start from: of a ladder network, its encoder."""
    network = unwrap(model).core
    if not isinstance(network, Network):
        raise HandgradError(f"the model to start from is a {type(network).__name__}: expected a single network")
    if not network.loss.is_classification:
        raise HandgradError(f"the model to start from is a regression with {network.loss!r}: expected a classifier")
    has_decoder = any(isinstance(layer, Ladder) for layer in network.layers)
    return fold_batchnorm(network) if has_decoder else network


def keeps_output(model: Model, n_out: int, classes: Sequence[str] | None = None) -> bool:
    """Return whether fine-tuning keeps the last layer of a model, because the classes are the same.

    Parameters
    ----------
    model : Model
        The model to start from.
    n_out : int
        Number of classes of the data.
    classes : sequence of str, optional
        Their names. Without names, as many classes as before are the same classes.
    """
    return n_out == model.n_classes if classes is None else tuple(classes) == model.classes


def _calibrate(model: Model, x: NDArray[Any], y: NDArray[Any]) -> Model:
    """The model with the temperature of the validation set, whose examples are preprocessed."""
    if isinstance(model, Preprocessed):
        return Preprocessed(_calibrate(model.model, x, y), model.preprocessing)
    return Calibrated(model, fit_temperature(model, x, y))


def _without_preprocessing(teacher: Model, preprocessing: Preprocessing | None) -> Model:
    """The teacher for preprocessed examples."""
    theirs = teacher.preprocessing if isinstance(teacher, Preprocessed) else None
    if theirs != preprocessing:
        raise HandgradError(f"the teacher has the preprocessing {theirs!r}: expected {preprocessing!r}")
    teacher = teacher.model if isinstance(teacher, Preprocessed) else teacher
    return teacher.model if isinstance(teacher, Calibrated) else teacher  # the soft labels have their own temperature


def _is_setting(name: str, value: Any, kind: Any) -> bool:
    """Whether numbers in a configuration are finite and no larger than settings can be, and no booleans."""
    if name == "hidden":
        return all(type(n) is int and abs(n) < MAX_SETTING for n in value)
    numbers = [value] if isinstance(value, int | float) and kind is not bool else []
    return all(type(n) in (int, float) and (name == "seed" or abs(n) < MAX_SETTING) for n in numbers)


# The network of the blog post with the settings of Nielsen's book, chapter 3: 50,000 training examples.
POST = Recipe(
    name="post",
    hidden=(30,),
    activation="sigmoid",
    loss="binary_cross_entropy",
    optimizer="sgd",
    lr=0.5,
    schedule="constant",
    batch_size=10,
    epochs=30,
    validation=10_000,
)

# All other recipes use batch normalization and Adam with a one-cycle schedule. Most deskew the digits and replace their
# pixels by HOG. These two settings improve the accuracy most, as measured on 10,000 validation examples of the 60,000
# training examples.
SECOND = Recipe(
    name="second",
    hidden=(128,),
    batch_norm=True,
    deskew=True,
    shrink=2,
    lr=0.03,
    batch_size=256,
    epochs=4,
    label_smoothing=0.1,
    calibration=0.5,
)

QUICK = SECOND.replace(name="quick", hidden=(256, 256), hog=5, shrink=1, lr=0.01, batch_size=128, epochs=6)

# Weak augmentation: HOG changes little if a stroke moves. Two threads share the augmentation, HOG and the operations
# between the matrix products, which BLAS threads do not.
MINUTE = Recipe(
    name="minute",
    hidden=(512, 512),
    hog=7,
    batch_norm=True,
    deskew=True,
    rotation=3.0,
    scale=0.1,
    shift=0.4,
    elastic=1.2,
    lr=0.015,
    batch_size=512,
    threads=2,
    epochs=30,
    tta=5,
    label_smoothing=0.1,
    calibration=0.5,
)

# No augmentation and no use of the image structure: the result does not change if the pixels are permuted.
PURE = Recipe(
    name="pure",
    hidden=(1200, 600, 300),
    batch_norm=True,
    adversarial=1.0,
    lr=0.004,
    batch_size=128,
    epochs=50,
    ema_decay=0.998,
)

# The widths, the batch size and the factor are those of Rasmus et al. (2015). As `pure`, it does not use the image
# structure.
LADDER = Recipe(
    name="ladder",
    hidden=(1000, 500, 250, 250, 250),
    batch_norm=True,
    ladder=2000.0,
    lr=0.003,
    schedule="cosine",
    batch_size=100,
    epochs=100,
)

SMALL = Recipe(
    name="small",
    hidden=(94, 56),
    hog=5,
    batch_norm=True,
    deskew=True,
    rotation=7.5,
    scale=0.12,
    shift=0.75,
    elastic=1.2,
    lr=0.01,
    epochs=60,
)

# Second-order gradients: the second HOG, and 1,600 inputs of a Dense layer instead of 392, take about as long each.
BEST = MINUTE.replace(name="best", hog=5, hog_order=2, tta=9)

ENSEMBLE = BEST.replace(name="ensemble", members=4)

RECIPES = {recipe.name: recipe for recipe in (POST, SECOND, QUICK, MINUTE, PURE, LADDER, SMALL, BEST, ENSEMBLE)}


class Result(NamedTuple):
    """The result of a recipe on the test set of MNIST.

    Attributes
    ----------
    accuracy : str
        Mean accuracy over three to five seeds and its standard deviation, or the accuracy of a single run.
    duration : str
        Median time of a training with its evaluation.
    cores : int
        Number of processor cores in this time.
    """

    accuracy: str
    duration: str
    cores: int


# From records/*.json, which `make records` writes; records/ is not a part of the installed package. The result of post
# is that of one run, `handgrad train`.
RESULTS = {
    "post": Result("95.31%", "6.1 s", 1),
    "second": Result("98.71% ± 0.06", "0.8 s", 2),
    "quick": Result("99.48% ± 0.05", "4.0 s", 2),
    "minute": Result("99.63% ± 0.02", "66 s", 2),
    "pure": Result("99.22% ± 0.03", "10 min", 1),
    "ladder": Result("99.25%", "80 min", 1),
    "small": Result("99.49% ± 0.03", "96 s", 1),
    "best": Result("99.66% ± 0.03", "2.1 min", 2),
    "ensemble": Result("99.67%", "16 min", 2),
}
