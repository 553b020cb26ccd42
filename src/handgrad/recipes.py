"""Named trainings with known results.

A recipe is every choice that a training makes, as plain values: the command line's flags override them one by one, and
the run's config.json holds them, so that a run says what it was.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, get_type_hints

import numpy as np

from .errors import HandgradError, unknown
from .network import Network
from .optimizers import OPTIMIZERS
from .schedules import SCHEDULES
from .training import Callback, Trainer


@dataclass(frozen=True)
class Recipe:
    """A network and its training. `lr` is the learning rate, a step on the mean loss."""

    name: str
    sizes: tuple[int, ...]
    activation: str  # of the hidden layers: one name for all, or one for each with commas between
    loss: str
    init: str | None  # None: the one that the activation calls for
    optimizer: str
    lr: float
    schedule: str
    batch_size: int
    epochs: int
    validation: int  # examples held out of the end of the training set
    seed: int = 0

    def trainer(self, callbacks: tuple[Callback, ...] = ()) -> Trainer:
        """A new network and its trainer, both from the recipe's seed."""
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, OPTIMIZERS)
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        for name, value, least in (("epochs", self.epochs, 1), ("seed", self.seed, 0)):
            if value < least:
                raise HandgradError(f"{name} {value}: expected {least} or more")
        rng = np.random.default_rng(self.seed)
        activation = self.activation.split(",") if "," in self.activation else self.activation
        network = Network(list(self.sizes), activation=activation, loss=self.loss, init=self.init, rng=rng)
        return Trainer(
            network,
            OPTIMIZERS[self.optimizer](self.lr),
            batch_size=self.batch_size,
            schedule=SCHEDULES[self.schedule](),
            callbacks=callbacks,
            rng=rng,
        )

    def with_choices(self, **choices: Any) -> Recipe:
        """The recipe with those of `choices` that are not None in place of its own."""
        return replace(self, **{name: value for name, value in choices.items() if value is not None})

    def config(self) -> dict[str, Any]:
        """The recipe as values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Recipe:
        """The recipe that gave `config`. Raises HandgradError where a value is missing, too many or of another kind."""
        kinds = get_type_hints(cls) | {"sizes": list | tuple, "lr": int | float}
        if set(config) != set(kinds):
            wrong = ", ".join(sorted(set(config) ^ set(kinds)))
            raise HandgradError(f"the configuration is not this handgrad's: {wrong} is missing or not known")
        for name, kind in kinds.items():
            if not isinstance(config[name], kind):
                raise HandgradError(f"the configuration is not this handgrad's: its {name} is {config[name]!r}")
        return cls(**{**config, "sizes": tuple(config["sizes"])})


# The post's network, with the settings of Nielsen's book, chapter 3, for the same: 50,000 digits to train on.
POST = Recipe(
    name="post",
    sizes=(784, 30, 10),
    activation="sigmoid",
    loss="cross_entropy",
    init=None,
    optimizer="sgd",
    lr=0.5,
    schedule="constant",
    batch_size=10,
    epochs=30,
    validation=10_000,
)

RECIPES = {recipe.name: recipe for recipe in (POST,)}
