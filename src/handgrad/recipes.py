"""Named trainings with known results.

A recipe is every choice that a training makes, as plain values: the command line's flags override them one by one, and
the run's config.json holds them, so that a run says what it was. It knows neither the pictures' size nor the number of
classes: its lengths are in pixels of pictures 28 high, MNIST's, and are scaled to those it meets.

`records/` has what each reaches, over seeds, on MNIST's test set; docs/records.md tells how they were found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from .adversarial import Adversarial
from .augmentation import Augmentation
from .averaging import ExponentialAverage
from .classifier import Classifier
from .committee import Committee
from .errors import HandgradError, unknown
from .losses import LOSSES
from .network import SHIFTS, Network
from .optimizers import OPTIMIZERS
from .preprocessing import Deskew
from .schedules import SCHEDULES
from .threads import blas_threads
from .training import Callback, Trainer

HEIGHT = 28  # of the pictures in whose pixels a recipe's lengths are


def _choice(default: Any, words: str) -> Any:
    """A field with its help, which the command line prints for the flag of the same name."""
    return field(default=default, metadata={"help": words})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A network and its training."""

    name: str
    hidden: tuple[int, ...] = _choice((30,), "Width of each hidden layer.")
    activation: str = _choice("relu", "Of the hidden layers: sigmoid, tanh, relu, ..., or one for each: tanh,relu.")
    loss: str = _choice("softmax_cross_entropy", "quadratic, cross_entropy (of sigmoids) or softmax_cross_entropy.")
    init: str | None = _choice(None, "normal, lecun, xavier_normal, ...; by default what the activation needs.")
    batch_norm: bool = _choice(False, "Normalise each hidden layer's units over the batch.")
    dropout: float = _choice(0.0, "Share of the hidden units that each step leaves out.")
    label_smoothing: float = _choice(0.0, "Share of each label, not of a teacher's, that is spread over all classes.")
    optimizer: str = _choice("adam", "sgd, momentum, nesterov, adam, adamw or muon.")
    lr: float = _choice(1e-3, "Learning rate, a step on the mean loss.")
    weight_decay: float = _choice(0.0, "W becomes smaller by lr times this at each step; 0: as the optimizer has it.")
    schedule: str = _choice("one_cycle", "constant, cosine or one_cycle.")
    batch_size: int = _choice(128, "Examples in a mini-batch.")
    epochs: int = _choice(10, "Times through the training set, those before --resume included.")
    average: float = _choice(0.0, "End with averaged weights: the share that a step leaves of the average, as 0.999.")
    validation: int = _choice(0, "Examples held out of the training set to watch it by.")
    deskew: bool = _choice(False, "Set every picture upright, and its ink in the middle.")
    shrink: int = _choice(1, "Average so many pixels of an upright picture 28 high, each way, into one.")
    rotation: float = _choice(0.0, "Turn pictures, by up to so many degrees.")
    scale: float = _choice(0.0, "Make pictures taller and wider, or less so, by up to this share.")
    shear: float = _choice(0.0, "Slant pictures, by up to so many pixels a pixel of height.")
    shift: float = _choice(0.0, "Shift pictures, by up to so many pixels of a picture 28 high.")
    elastic: float = _choice(0.0, "Bend pictures: by so many pixels of a picture 28 high, root mean square.")
    smoothness: float = _choice(5.0, "Pixels of a picture 28 high over which the bending is smooth.")
    adversarial: float = _choice(
        0.0, "Move half of each batch against its labels: by an L2 norm of so much at 28x28 pixels."
    )
    views: int = _choice(1, "Answer by the mean over so many shifts of a picture: 1, 5 or 9.")
    members: int = _choice(1, "Train so many networks, and let the mean of their probabilities answer.")
    teacher: str | None = _choice(None, "Learn from the answers of this: a model file, or a recipe, trained first.")
    temperature: float = _choice(1.0, "Of the teacher's answers: above 1 they are softer.")
    seed: int = _choice(0, "Of the first weights, the order of the examples, and all else that is drawn.")

    def trainer(
        self,
        image_shape: tuple[int, int] = (HEIGHT, HEIGHT),
        n_out: int = 10,
        *,
        member: int = 0,
        teacher: Classifier | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Trainer:
        """A new network for pictures (height, width) in n_out classes, and its trainer, from the recipe's seed.

        `member` counts the networks of a committee from 0: each is drawn from a seed of its own.
        """
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, OPTIMIZERS)
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        for name, least in (("epochs", 1), ("seed", 0), ("members", 1), ("shrink", 1)):
            if getattr(self, name) < least:
                raise HandgradError(f"{name} {getattr(self, name)}: expected {least} or more")
        if self.views not in SHIFTS:  # it is set once all is trained
            raise HandgradError(f"views {self.views}: expected one of {', '.join(map(str, SHIFTS))}")
        rng = np.random.default_rng(self.seed if member == 0 else (self.seed, member))
        network = self._network(image_shape, n_out, rng)
        averaging = [ExponentialAverage(self.average)] if self.average else []
        decay = {"weight_decay": self.weight_decay} if self.weight_decay else {}  # adamw has one of its own
        # A norm grows as the root of the number of pixels does.
        epsilon = self.adversarial * math.sqrt(network.n_in) / HEIGHT
        return Trainer(
            network,
            OPTIMIZERS[self.optimizer](self.lr, **decay),
            batch_size=self.batch_size,
            schedule=SCHEDULES[self.schedule](),
            callbacks=[*averaging, *callbacks],
            augment=self.augmentation(image_shape),
            perturb=Adversarial(epsilon) if epsilon else None,
            teacher=teacher,
            rng=rng,
        )

    def augmentation(self, image_shape: tuple[int, int]) -> Augmentation | None:
        """How it makes new pictures of those of this size, once they are deskewed; None where it makes none."""
        if not (self.rotation or self.scale or self.shear or self.shift or self.elastic):
            return None
        if self.deskew:
            image_shape = self._deskew(image_shape).image_shape
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

    def classifier(self, networks: Sequence[Network]) -> Network | Committee:
        """What answers once the members are trained: batch normalisation folded away, views and members averaged.

        Pictures less than half as high as MNIST's answer in one view: a shift by a pixel is too far for them.
        """
        answering = [network.folded() for network in networks]
        for network in answering:
            if network.input_shape is not None and 2 * network.input_shape[0] >= HEIGHT:
                network.views = self.views
        return answering[0] if len(answering) == 1 else Committee(answering)

    def _deskew(self, image_shape: tuple[int, int]) -> Deskew:
        """Shrinking by the nearest factor that divides both sides, as near as may be to what it is at 28 pixels."""
        height, width = image_shape
        wanted = max(1, round(self.shrink * height / HEIGHT))
        return Deskew(height, width, max(s for s in range(1, wanted + 1) if height % s == width % s == 0))

    def _network(self, image_shape: tuple[int, int], n_out: int, rng: np.random.Generator) -> Network:
        if self.loss not in LOSSES:
            raise unknown("loss", self.loss, LOSSES)
        options = {"label_smoothing": self.label_smoothing}
        if self.temperature != 1:
            if self.loss != "softmax_cross_entropy":
                raise HandgradError(f"temperature {self.temperature}: expected with the loss softmax_cross_entropy")
            options["temperature"] = self.temperature
        if self.shrink > 1 and not self.deskew:
            raise HandgradError(f"shrink {self.shrink}: expected with deskew, which does it")
        deskew = self._deskew(image_shape) if self.deskew else None
        network = Network(
            [math.prod(image_shape) if deskew is None else deskew.n_out, *self.hidden, n_out],
            activation=self.activation.split(",") if "," in self.activation else self.activation,
            loss=LOSSES[self.loss](**options),
            init=self.init,
            batch_norm=self.batch_norm,
            dropout=self.dropout,
            preprocessing=deskew,
            rng=rng,
        )
        network.image_shape = image_shape
        return network

    def train(
        self,
        x: NDArray[np.uint8],
        y: NDArray[np.uint8],
        n_out: int,
        *,
        teacher: Classifier | None = None,
        change: Callable[[Trainer], None] = lambda trainer: None,
    ) -> Network | Committee:
        """What answers after training on pictures x (count, height, width), labels y (count,): the whole of it.

        The teacher, where it is a recipe, is trained first, on the same, unless one is given; `change` may alter each
        trainer before it begins; `validation` is not held out.
        """
        height, width = x.shape[1:]
        if self.teacher is not None and teacher is None:
            if self.teacher not in RECIPES:
                raise unknown("recipe", self.teacher, RECIPES)
            teacher = RECIPES[self.teacher].with_choices(seed=self.seed).train(x, y, n_out)
        networks = []
        for member in range(self.members):
            trainer = self.trainer((height, width), n_out, member=member, teacher=teacher)
            change(trainer)
            with blas_threads(trainer.network, self.batch_size):
                trainer.fit(x, y, epochs=self.epochs)
            networks.append(trainer.network)
        return self.classifier(networks)

    def with_choices(self, **choices: Any) -> Recipe:
        """The recipe with those of `choices` that are not None in place of its own."""
        return replace(self, **{name: value for name, value in choices.items() if value is not None})

    def config(self) -> dict[str, Any]:
        """The recipe as values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Recipe:
        """The recipe that gave `config`. Raises HandgradError where a value is missing, too many or of another kind."""
        kinds = get_type_hints(cls) | {"hidden": list | tuple}
        if set(config) != set(kinds):
            wrong = ", ".join(sorted(set(config) ^ set(kinds)))
            raise HandgradError(f"the configuration is not this handgrad's: {wrong} is missing or not known")
        for name, kind in kinds.items():
            if not isinstance(config[name], int | float if kind is float else kind):
                raise HandgradError(f"the configuration is not this handgrad's: its {name} is {config[name]!r}")
        return cls(**{**config, "hidden": tuple(config["hidden"])})


# The post's network, with the settings of Nielsen's book, chapter 3, for the same: 50,000 digits to train on.
POST = Recipe(
    name="post",
    hidden=(30,),
    activation="sigmoid",
    loss="cross_entropy",
    optimizer="sgd",
    lr=0.5,
    schedule="constant",
    batch_size=10,
    epochs=30,
    validation=10_000,
)

# All that follow normalise over the batch and learn by Adam in one cycle; most set the digits upright first, which is
# worth more than any other choice in them. Measured on 10,000 digits held out of the 60,000 to train on.
SECOND = Recipe(
    name="second",
    hidden=(128,),
    batch_norm=True,
    deskew=True,
    shrink=2,
    lr=0.02,
    batch_size=256,
    epochs=2,
)

QUICK = SECOND.with_choices(name="quick", hidden=(256, 256), lr=0.01, batch_size=128, epochs=4)

MINUTE = Recipe(
    name="minute",
    hidden=(512, 512),
    batch_norm=True,
    deskew=True,
    rotation=7.5,
    scale=0.15,
    shift=1.0,
    elastic=1.5,
    lr=0.012,
    batch_size=256,
    epochs=20,
    views=5,
)

# No picture is moved, and none is looked at as a picture: shuffle the pixels, and it learns as well.
PURE = Recipe(
    name="pure",
    hidden=(800, 800),
    batch_norm=True,
    adversarial=1.0,
    lr=0.008,
    batch_size=256,
    epochs=20,
    average=0.999,
)

SMALL = Recipe(
    name="small",
    hidden=(96, 56),
    batch_norm=True,
    deskew=True,
    shrink=2,
    rotation=5.0,
    scale=0.08,
    shift=0.5,
    elastic=0.8,
    lr=0.01,
    epochs=60,
)

BEST = MINUTE.with_choices(name="best", hidden=(1024, 1024), epochs=150, average=0.9995, views=9)

COMMITTEE = MINUTE.with_choices(name="committee", members=5)

RECIPES = {recipe.name: recipe for recipe in (POST, SECOND, QUICK, MINUTE, PURE, SMALL, BEST, COMMITTEE)}
