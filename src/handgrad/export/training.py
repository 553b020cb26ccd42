"""A recipe's training as another framework can have it, line for line beside handgrad's own; or why it cannot.

Of a recipe the two scripts translate the chain, its first weights, the loss and its smoothing, the optimizer and the
decay, the schedule, the batches and the digits held out. What makes new pictures or new labels, or ends with other
weights than the last step's, is handgrad's: it is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..errors import HandgradError
from ..network import Network
from ..optimizers import Optimizer
from ..recipes import RECIPES, Recipe
from ..wrappers import Ensemble
from .graph import InferenceGraph
from .templates import paragraphs, shown

# By the recipe's word: the word that a script has it by, and what it must be told. (Adam's β and ε are the usual ones.)
OPTIMIZERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "sgd": ("sgd", ()),
    "momentum": ("momentum", ("momentum",)),
    "nesterov": ("nesterov", ("momentum",)),
    "adam": ("adam", ()),
    "adamw": ("adam", ()),  # the decay is a line of its own
}
SCHEDULES = {
    "constant": "",
    "cosine": """

def schedule(epoch, epochs):  #: schedules.cosine()
    \"\"\"The factor on the learning rate, `epoch` in fractions.\"\"\"
    return (1 + math.cos(math.pi * epoch / epochs)) / 2
""",
    "one_cycle": """

def schedule(epoch, epochs):  #: schedules.one_cycle(rise=0.3, start=1/25, final=1e-4)
    \"\"\"The factor on the learning rate, `epoch` in fractions: up, then down.\"\"\"
    t = epoch / epochs
    if t < 0.3:
        return 1 - (1 - 1 / 25) * (1 + math.cos(math.pi * t / 0.3)) / 2
    return 1e-4 + (1 - 1e-4) * (1 + math.cos(math.pi * (t - 0.3) / 0.7)) / 2
""",
}

# Every field of a recipe is one of these: what a script translates, what it refuses where it is not as it is here, and
# what says nothing where those are refused.
TRANSLATED = {"hidden", "activation", "loss", "init", "batch_norm", "dropout", "label_smoothing", "optimizer", "lr"}
TRANSLATED |= {"weight_decay", "schedule", "batch_size", "epochs", "validation", "deskew", "shrink", "seed", "views"}
REFUSED = {"average", "rotation", "scale", "shear", "shift", "elastic", "adversarial", "members", "teacher"}
REFUSED |= {"temperature"}
SILENT = {"name", "smoothness"}


@dataclass(frozen=True)
class Training:
    """A network before its first step, and all that its training is made of."""

    plain: InferenceGraph
    recipe: Recipe
    network: Network
    optimizer: Optimizer
    own: bool  # whether the network is the recipe's own
    views: int  # over how many shifts handgrad answers

    @property
    def made(self) -> tuple[str, dict[str, Any]]:
        """The optimizer's word for the translator, and its options."""
        word, names = OPTIMIZERS[self.recipe.optimizer]
        return word, {"lr": self.optimizer.lr} | {name: getattr(self.optimizer, name) for name in names}

    @property
    def told(self) -> str:
        """The optimizer as handgrad makes it."""
        options = self.made[1] | ({"weight_decay": decay} if (decay := self.optimizer.weight_decay) else {})
        return f"{type(self.optimizer).__name__}({', '.join(f'{name}={value!r}' for name, value in options.items())})"

    @property
    def moves(self) -> bool:
        """Whether the learning rate changes from step to step."""
        return self.recipe.schedule != "constant"

    def values(self, framework: str, name: str, notes: Sequence[str] = ()) -> dict[str, Any]:
        """What both templates ask for."""
        recipe, network, e, n_out = self.recipe, self.network, self.recipe.label_smoothing, self.network.n_out
        loss = type(network.loss).__name__
        return self.plain.values | {
            "head": self.head(framework, name, notes),
            "seed": recipe.seed,
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "optimizer_told": self.told,
            "decay": self.optimizer.weight_decay,
            "moves": self.moves,
            "lr": repr(self.optimizer.lr) + " * schedule(epoch + batch / batches, epochs)" * self.moves,
            "schedule": SCHEDULES[recipe.schedule].rstrip("\n").split("\n") if self.moves else [],
            "loss_name": loss,
            "loss_told": f"{loss}({f'label_smoothing={e!r}' if e else ''})",
            "smoothed": f"t * (1 - {e!r}) + {e!r} / {n_out}  #: t *= 1 - ε; t += ε / n_out" if e else "t",
            "deskew": "" if network.preprocessing is None else repr(network.preprocessing),
            "program": self.program(),
            "trained": f"{(name.rpartition('.')[0] or name).removesuffix('_train')}_trained",
        }

    def program(self) -> list[str]:
        """The script's end up to what it saves: the digits read, those held out apart, the training, what it reads."""
        held = self.recipe.validation
        upto, last = (f"[:-{held}]", f"[-{held}:]") if held else ("", "")
        return [
            'if __name__ == "__main__":',
            '    digits = load(sys.argv[1] if len(sys.argv) > 1 else "mnist")  #: handgrad train --data',
            f"    x, y = digits.x_train{upto}, digits.y_train{upto}" + f"  #: dataset.split({held})" * bool(held),
            "    train(pixels(x), targets(y))",
            *([f'    tell("held out", digits.x_train{last}, digits.y_train{last})'] if held else []),
            '    tell("test", digits.x_test, digits.y_test)',
        ]

    def head(self, framework: str, name: str, notes: Sequence[str] = ()) -> list[str]:
        """The lines that the script begins with."""
        recipe = self.recipe
        does = "reads" if self.network.preprocessing is None else "reads and deskews"
        told = [
            "At the right of a line stands handgrad's that does the same. DATA is as handgrad train --data has it: "
            f"mnist, drawn, or a directory of four IDX files. handgrad {does} the pictures and does no more here. "
            "Inputs are floats in [0, 1], pixels / 255."
        ]
        if not self.own:
            told.append("The recipe is of another network: this is the model's, trained as the recipe trains.")
        if self.views > 1:
            told.append(f"handgrad then answers by the mean over {self.views} shifts, this by the picture alone.")
        begin = (
            f"The training of {self.plain.source or 'a network'}, by the recipe {shown(recipe.name)}, in {framework}: "
            f"written by handgrad {__version__}."
        )
        opening, *rest = paragraphs([f'"""{begin}'])
        return [opening, *rest, "", f"    python {name} [DATA]", "", *paragraphs([*told, *notes]), '"""']


def training_of(plain: InferenceGraph, model: Network | Ensemble, recipe: Recipe) -> Training:
    """The recipe's training of the network of a model file. Raises HandgradError for what no script can translate.

    Where the recipe makes the model's network, it is that, its BatchNorms not yet folded; else the model's own chain is
    trained as the recipe trains.
    """
    assert isinstance(model, Network)  # `as_plain` refuses all else
    if not plain.is_classification:
        raise HandgradError(
            f"--train is of classes, and the model was trained with {type(model.loss).__name__}, a loss for numbers, "
            "which no recipe has"
        )
    if model.image_shape is None:
        raise HandgradError("--train is of pictures, and the model does not say what size its pictures are")
    if left := _untranslated(recipe):
        fit = ", ".join(sorted(name for name, other in RECIPES.items() if not _untranslated(other)))
        raise HandgradError(
            f"--train cannot translate the recipe {recipe.name}, which has {', '.join(left)}: "
            f"give --recipe, one of {fit}"
        )
    trainer = recipe.trainer(model.image_shape, model.n_out)
    own = _chain(trainer.network.folded()) == _chain(model.folded())
    return Training(
        plain, recipe, trainer.network if own else model, trainer.optimizer, own, max(recipe.views, model.views)
    )


def _untranslated(recipe: Recipe) -> list[str]:
    """The choices of a recipe that no script translates."""
    plain = Recipe(name="")
    left = [name for name in sorted(REFUSED) if getattr(recipe, name) != getattr(plain, name)]
    left += [
        name
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES))
        if getattr(recipe, name) not in known
    ]
    return [f"{name} {getattr(recipe, name)}" for name in left]


def _chain(network: Network) -> tuple[Any, ...]:
    """What two networks of the same architecture have in common."""
    layers = [(type(layer), {k: v for k, v in layer.config().items() if k != "init"}) for layer in network.layers]
    return layers, type(network.loss), repr(network.preprocessing)


def beside(text: str) -> str:
    """The text with what follows a `#: ` as a comment, in one column from one empty line to the next."""
    blocks = [[line.partition("  #: ") for line in block.split("\n")] for block in text.split("\n\n")]
    lines = []
    for block in blocks:
        column = max((len(code) for code, mark, _ in block if mark), default=0)
        lines.append("\n".join(f"{code:{column}}  # {comment}" if mark else code for code, mark, comment in block))
    return "\n\n".join(lines)
