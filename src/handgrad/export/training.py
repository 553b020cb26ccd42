"""The training of a recipe, translated to another framework, with handgrad's equivalent of each line as a comment.

The scripts contain the layers, the initializers, the loss with label smoothing, the optimizer with weight decay, the
schedule, the mini-batches and the validation set of a recipe. Other settings, such as data augmentation, distillation
and weight averages, cannot be translated: `translate_training` raises an error that names them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..errors import HandgradError
from ..images.deskew import Deskew
from ..losses import Loss
from ..model import Model
from ..network import Network
from ..optimizers import Optimizer
from ..recipes import RECIPES, Recipe
from ..wrappers import fold_batchnorm, unwrap
from .graph import InferenceGraph
from .templates import paragraphs, safe_filename

OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam", "adamw")
SCHEDULES = {
    "constant": "",
    "cosine": '''

def schedule(epoch, epochs):  # schedules.cosine()
    """Return the factor of the learning rate. `epoch` may be a fraction."""
    return (1 + math.cos(math.pi * epoch / epochs)) / 2''',
    "one_cycle": '''

def schedule(epoch, epochs):  # schedules.one_cycle(rise=0.3, start=1/25, final=1e-4)
    """Return the factor of the learning rate, which first increases and then decreases. `epoch` may be a fraction."""
    t = epoch / epochs
    if t < 0.3:
        return 1 - (1 - 1 / 25) * (1 + math.cos(math.pi * t / 0.3)) / 2
    return 1e-4 + (1 - 1e-4) * (1 + math.cos(math.pi * (t - 0.3) / 0.7)) / 2''',
}

# Each field of a recipe is in one of these sets: translated; rejected unless it has its default value; without effect
# on the predicted classes if the rejected ones have their defaults.
TRANSLATED = {"hidden", "activation", "loss", "init", "batch_norm", "dropout", "label_smoothing", "optimizer", "lr"}
TRANSLATED |= {"weight_decay", "schedule", "batch_size", "epochs", "validation", "deskew", "shrink", "seed", "tta"}
TRANSLATED |= {"momentum", "hog", "hog_order"}
REJECTED = {"ema_decay", "rotation", "scale", "shear", "shift", "elastic", "adversarial", "members", "teacher"}
REJECTED |= {"ladder", "temperature", "l2", "clip_norm", "warm_up", "early_stopping", "threads"}
WITHOUT_EFFECT = {"name", "smoothness", "calibration"}


@dataclass(frozen=True)
class Training:
    """A network and its training.

    Attributes
    ----------
    graph : InferenceGraph
        The model, for the head of the script.
    recipe : Recipe
        The settings.
    network : Network
        The network before training.
    loss : Loss
        The loss of the network with the label smoothing and the temperature of the recipe.
    optimizer : Optimizer
        The optimizer of the recipe.
    preprocessing : Deskew or None
        Applied to all images before training.
    shifts : int
        Number of shifts of handgrad's test-time augmentation, which the scripts leave out.
    is_network_of_recipe : bool
        Whether the recipe creates a network with these layers.
    """

    graph: InferenceGraph
    recipe: Recipe
    network: Network
    loss: Loss
    optimizer: Optimizer
    preprocessing: Deskew | None
    shifts: int
    is_network_of_recipe: bool

    @property
    def has_schedule(self) -> bool:
        """Whether the learning rate changes."""
        return self.recipe.schedule != "constant"

    def values(self, framework: str, name: str, notes: Sequence[str] = ()) -> dict[str, Any]:
        """Return the values that the templates of all frameworks need."""
        recipe, e, n_out = self.recipe, self.recipe.label_smoothing, self.network.n_out
        deskew = "" if self.preprocessing is None else f"images = {self.preprocessing!r}(images)"
        return self.graph.values | {
            "head": self._head(framework, name, notes),
            "import_math": "import math" if self.has_schedule else "",
            "import_deskew": "from handgrad import Deskew" if deskew else "",
            "seed": recipe.seed,
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "handgrad_optimizer": self._optimizer(),
            "lr": repr(self.optimizer.lr) + " * schedule(epoch + batch / batches, epochs)" * self.has_schedule,
            "schedule": SCHEDULES[recipe.schedule],
            "loss_name": type(self.loss).__name__,
            "handgrad_loss": repr(self.loss),
            "smooth": f"t * (1 - {e!r}) + {e!r} / {n_out}  # t *= 1 - ε; t += ε / n_out" if e else "t",
            "deskew": f"{deskew}  # x = preprocessing(x)" if deskew else "",
            "main": self._main(),
            "trained": f"{(name.rpartition('.')[0] or name).removesuffix('_train')}_trained",
        }

    def _optimizer(self) -> str:
        """The code that creates the optimizer in handgrad, as "Adam(lr=0.01, weight_decay=0.01)"."""
        options = [f"{k}={v!r}" for k, v in self.optimizer.config().items() if k in ("lr", "momentum", "weight_decay")]
        return f"{type(self.optimizer).__name__}({', '.join(options)})"

    def _main(self) -> str:
        """The main program except for saving: load the data, split off a validation set, train, evaluate."""
        n = self.recipe.validation
        first, last = (f"[:-{n}]", f"[-{n}:]") if n else ("", "")
        lines = [
            'if __name__ == "__main__":',
            '    data = load(sys.argv[1] if len(sys.argv) > 1 else "mnist")  # handgrad train --data',
            f"    x, y = data.x_train{first}, data.y_train{first}" + f"  # --validation {n}" * bool(n),
            "    train(to_floats(x), to_targets(y))",
        ]
        if n:
            lines.append(f'    evaluate("validation", data.x_train{last}, data.y_train{last})')
        return "\n".join([*lines, '    evaluate("test", data.x_test, data.y_test)'])

    def _head(self, framework: str, name: str, notes: Sequence[str]) -> str:
        """The docstring of the script."""
        loads = "loads" if self.preprocessing is None else "loads and deskews"
        title = (
            f"Training of {self.graph.source or 'a network'} with the recipe {safe_filename(self.recipe.name)} in "
            f"{framework}. Written by handgrad {__version__}."
        )
        about = [
            "The comments show the equivalent lines of handgrad. DATA is mnist, synthetic, or a directory with four "
            f"IDX files, as for handgrad train --data. The script uses handgrad only where it {loads} the images. "
            "The inputs are floats in [0, 1], pixels / 255."
        ]
        if not self.is_network_of_recipe:
            about.append("The recipe describes another network. This script trains the layers of the model.")
        if self.shifts > 1:
            about.append(f"handgrad averages the predictions over {self.shifts} shifts of the image. This does not.")
        quotes = '"""'
        return "\n".join(
            [paragraphs([quotes + title]), "", f"    python {name} [DATA]", "", paragraphs([*about, *notes]), quotes]
        )


def translate_training(graph: InferenceGraph, model: Model, recipe: Recipe) -> Training:
    """Prepare the training of a model with a recipe.

    If the recipe creates the network of the model, it is trained with the BatchNorm layers that inference folds.
    Otherwise the layers of the model are trained with the settings of the recipe.

    Raises
    ------
    HandgradError
        For regressions, models without an image shape, custom preprocessing, and settings that the scripts cannot
        translate.
    """
    network, preprocessing, shifts = unwrap(model)[:3]
    if not isinstance(network, Network):
        raise HandgradError("--train needs a single network: the model is an ensemble; train one with --members 1")
    if not graph.is_classification or network.n_out == 1:
        what = f"a regression with {type(network.loss).__name__}" if not graph.is_classification else "a single output"
        raise HandgradError(f"--train needs a classification with at least 2 outputs: the model has {what}")
    if model.image_shape is None:
        raise HandgradError("--train needs a model of images: set its image_shape")
    if settings := _untranslatable(recipe):
        possible = ", ".join(sorted(name for name, other in RECIPES.items() if not _untranslatable(other)))
        raise HandgradError(
            f"--train cannot translate {', '.join(settings)} of the recipe {recipe.name}: "
            f"choose a --recipe among {possible}"
        )
    if preprocessing is not None and type(preprocessing) is not Deskew:
        raise HandgradError(f"--train cannot translate the custom preprocessing {preprocessing!r}")
    trainer = recipe.trainer(model.image_shape, model.n_out)
    is_own = recipe.preprocessing(model.image_shape) == preprocessing and (
        _architecture(fold_batchnorm(trainer.network)) == _architecture(fold_batchnorm(network))
    )
    network = trainer.network if is_own else network
    loss: Any = copy.copy(network.loss)
    loss.label_smoothing, loss.temperature = recipe.label_smoothing, recipe.temperature
    shifts = max(shifts, recipe.tta)
    return Training(graph, recipe, network, loss, trainer.optimizer, preprocessing, shifts, is_own)


def _untranslatable(recipe: Recipe) -> list[str]:
    """The settings of a recipe that no script can translate, as "rotation 5.0"."""
    default = Recipe(name="")
    names = [name for name in sorted(REJECTED) if getattr(recipe, name) != getattr(default, name)]
    names += ["optimizer"] * (recipe.optimizer not in OPTIMIZERS)
    names += ["schedule"] * (recipe.schedule not in SCHEDULES)
    return [f"{name} {getattr(recipe, name)}" for name in names]


def _architecture(network: Network) -> tuple[Any, ...]:
    """What two networks with the same architecture have in common."""
    layers = [(type(layer), {k: v for k, v in layer.config().items() if k != "init"}) for layer in network.layers]
    return layers, type(network.loss)
