"""Settings: everything that defines a run, as plain values that come from JSON and are checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..arrays import FLOAT_MAX
from ..errors import HandgradError, unknown
from ..initializers import INITIALIZERS
from ..layers import ACTIVATIONS
from ..losses import LOSSES, Loss, SquaredError
from ..network import INITIALIZER_FOR, Network
from ..optimizers import OPTIMIZERS, Optimizer
from ..preprocessing import Preprocessing
from ..recipes import CLASSIFICATION_LOSSES, RECIPES, Recipe
from ..training import Callback, Trainer
from .examples import N_TRAIN, TITLES, Examples
from .points import POINTS

MAX_LAYERS, MAX_UNITS = 4, 512
MAX_RECIPE_UNITS = 1200  # of the recipe pure
MAX_POINTS = 5000  # training examples of the data sets of points
# Smallest and largest value of each number.
LIMITS: dict[str, tuple[float, float]] = {
    "n_train": (4, N_TRAIN),
    "lr": (1e-6, 1000),
    "batch_size": (1, 1000),
    "l2": (0, 1),
    "dropout": (0, 0.9),
    "epochs": (1, 1000),
    "seed": (0, 2**32 - 1),
}
INTEGERS = ("n_train", "batch_size", "epochs", "seed")
# Recipes whose training is one network without a teacher, and takes minutes at most.
RECIPE_NAMES = ("post", "second", "quick", "minute", "small", "pure")
RECIPE_TITLES = {
    "post": "The network of the blog post",
    "second": "98 % in a second",
    "quick": "99.5 % in seconds",
    "minute": "99.6 % with augmentation",
    "small": "A small network with augmentation",
    "pure": "Without image structure, adversarial training",
}
FROM_PAGE = ("hidden", "lr", "batch_size", "epochs", "seed")  # settings that a run may change in its recipe


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a run.

    Parameters
    ----------
    data : str
        Name of a data set.
    n_train : int
        Number of training examples.
    recipe : str, optional
        A recipe. It determines all other settings except hidden, lr, batch_size, epochs and seed.
    hidden : tuple of int
        Width of each hidden layer, at most 4 of 512 units.
    activation, loss, optimizer : str
        Names in handgrad's tables. "squared_error" has a sigmoid.
    initializer : str, optional
        Initializer of the weights; None is that of the activation.
    lr : float
        Learning rate at the start.
    batch_size : int
        Examples per step.
    l2 : float
        L2 penalty.
    dropout : float
        Dropout rate of the hidden layers.
    epochs : int
        Number of epochs after which the run is finished.
    seed : int
        Seed of the weights, of the order of the examples and of dropout.

    Raises
    ------
    HandgradError
        For unknown names and values out of range.
    """

    data: str = "mnist"
    n_train: int = 10_000
    recipe: str | None = None
    hidden: tuple[int, ...] = (30,)
    activation: str = "sigmoid"
    loss: str = "binary_cross_entropy"
    initializer: str | None = None
    optimizer: str = "sgd"
    lr: float = 0.5
    batch_size: int = 10
    l2: float = 0.0
    dropout: float = 0.0
    epochs: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.data, str) or self.data not in TITLES:
            raise unknown("data set", printable_name(self.data), TITLES)
        for name, known in NAMES.items():
            value = getattr(self, name)
            if not isinstance(value, str) or value not in known:
                if value is None and name in ("recipe", "initializer"):
                    continue
                raise unknown(name, printable_name(value), known)
        for name, (low, high) in LIMITS.items():
            self._check_number(name, low, high)
        most = MAX_UNITS if self.recipe is None else MAX_RECIPE_UNITS
        sizes = isinstance(self.hidden, tuple) and all(type(n) is int and 1 <= n <= most for n in self.hidden)
        if not sizes or len(self.hidden) > MAX_LAYERS:
            raise HandgradError(f"hidden must be at most {MAX_LAYERS} widths of 1 to {most} units")
        if self.data in POINTS and self.n_train > MAX_POINTS:
            raise HandgradError(f"n_train must be at most {MAX_POINTS:,} for {self.data}, got {self.n_train:,}")
        if self.batch_size > self.n_train:
            raise HandgradError(f"batch_size is {self.batch_size}: expected at most n_train, {self.n_train}")

    def _check_number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        kinds: tuple[type, ...] = (int,) if name in INTEGERS else (int, float)
        if type(value) not in kinds or not low <= value <= high:  # NaN is not in any range
            if name in INTEGERS:
                raise HandgradError(f"{name} must be an integer from {low:,} to {high:,}")
            raise HandgradError(f"{name} must be a number from {low:g} to {high:g}")

    # ---- JSON --------------------------------------------------------------------------------------------------------

    @classmethod
    def from_json(cls, value: Any) -> Settings:
        """Create settings from a JSON object. Missing values are the defaults, or those of the recipe.

        Raises HandgradError for anything that is not an object of valid settings.
        """
        if not isinstance(value, dict):
            raise HandgradError("the settings of a run must be an object")
        names = [setting.name for setting in fields(cls)]
        for name in value:
            if name not in names:
                raise unknown("setting", printable_name(name), names)
        given = dict(value)
        if isinstance(given.get("hidden"), list):
            given["hidden"] = tuple(given["hidden"])
        for name in ("lr", "l2", "dropout"):
            if type(given.get(name)) is int:
                given[name] = _as_float(given[name])
        if given.get("recipe") is not None:
            return cls._of_recipe(given)
        return cls(**given)

    @classmethod
    def _of_recipe(cls, given: dict[str, Any]) -> Settings:
        """The settings of a recipe, with the values of FROM_PAGE that are given."""
        recipe = given["recipe"]
        if not isinstance(recipe, str) or recipe not in RECIPE_NAMES:
            raise unknown("recipe", printable_name(recipe), RECIPE_NAMES)
        kept = {name: given[name] for name in (*FROM_PAGE, "data", "n_train") if name in given}
        if kept.get("data") in tuple(POINTS):
            raise HandgradError(f"the recipe {recipe} needs images: choose mnist or synthetic, or no recipe")
        return replace(recipe_settings(recipe), **kept)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as values of JSON."""
        return {**asdict(self), "hidden": list(self.hidden)}

    # ---- Objects -----------------------------------------------------------------------------------------------------

    def make_recipe(self) -> Recipe | None:
        """Return the recipe with the settings of the run and one thread, or None without one."""
        if self.recipe is None:
            return None
        return RECIPES[self.recipe].replace(threads=1, **{name: getattr(self, name) for name in FROM_PAGE})

    def preprocessing(self, examples: Examples) -> Preprocessing | None:
        """Return the preprocessing of the recipe, or None."""
        recipe = self.make_recipe()
        return None if recipe is None else recipe.preprocessing(examples.shape)

    def make_trainer(self, examples: Examples, callbacks: Sequence[Callback] = ()) -> Trainer:
        """Create the network, the optimizer and the trainer. `handgrad.lab.code` prints these calls."""
        recipe, n_out = self.make_recipe(), len(examples.classes)
        if recipe is not None:
            trainer = recipe.trainer(examples.shape, n_out, callbacks=callbacks)
        else:
            network = Network(
                [examples.n_in, *self.hidden, n_out],
                activation=self.activation,
                loss=self.make_loss(),
                init=self.initializer,
                dropout=self.dropout,
                rng=self.seed,
            )
            trainer = Trainer(
                network, self.make_optimizer(), batch_size=self.batch_size, callbacks=callbacks, rng=self.seed
            )
            if examples.is_images:
                network.image_shape = (examples.shape[0], examples.shape[1])
        trainer.network.classes = examples.classes
        return trainer

    def make_loss(self) -> Loss:
        """Return the loss, which takes logits."""
        return SquaredError("sigmoid") if self.loss == "squared_error" else LOSSES[self.loss]()

    def make_optimizer(self) -> Optimizer:
        """Return the optimizer."""
        make: Callable[..., Optimizer] = OPTIMIZERS[self.optimizer]
        return make(self.lr, **({"l2": self.l2} if self.l2 else {}))


NAMES: Mapping[str, Sequence[str]] = {
    "recipe": RECIPE_NAMES,
    "activation": [name for name in ACTIVATIONS if name != "identity"],
    "loss": CLASSIFICATION_LOSSES,
    "initializer": list(INITIALIZERS),
    "optimizer": list(OPTIMIZERS),
}


def recipe_settings(name: str) -> Settings:
    """Return the settings of a recipe as the page shows them."""
    recipe = RECIPES[name]
    return Settings(
        recipe=name,
        n_train=50_000,
        hidden=tuple(recipe.hidden),
        activation=recipe.activation,
        loss=recipe.loss,
        initializer=recipe.init,
        optimizer=recipe.optimizer,
        lr=recipe.lr,
        batch_size=recipe.batch_size,
        l2=recipe.l2,
        dropout=recipe.dropout,
        epochs=recipe.epochs,
        seed=recipe.seed,
    )


def default_initializer(activation: str) -> str:
    """Return the name of the initializer that None stands for."""
    return INITIALIZER_FOR.get(activation, "kaiming_normal")


def check_lr(value: Any) -> float:
    """Validate a learning rate from JSON. Raises HandgradError."""
    low, high = LIMITS["lr"]
    if type(value) not in (int, float) or not low <= value <= high:
        raise HandgradError(f"lr must be a number from {low:g} to {high:g}")
    return float(value)


def printable_name(value: Any) -> str:
    """Return a name for an error message, also of a value that is no string."""
    return str(value)[:50] if isinstance(value, str | int | float) else type(value).__name__


def _as_float(value: int) -> float:
    """An integer as float, infinite if it is too large for one."""
    return float(value) if abs(value) < FLOAT_MAX else math.inf
