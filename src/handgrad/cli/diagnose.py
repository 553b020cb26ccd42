"""handgrad check, parity, profile and show-augmentation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from ..arrays import check_int
from ..blas import blas_threads
from ..data import Dataset
from ..data import load as load_dataset
from ..errors import HandgradError
from ..gradcheck import TOLERANCE, Check, check_all, gradient_errors
from ..images.hog import HOG
from ..io.atomic import encode_json
from ..io.models import load as load_model
from ..ladder import Ladder
from ..model import Model
from ..network import Network
from ..recipes import HEIGHT
from ..wrappers import Ensemble, Preprocessed, unwrap
from .echo import echo, echo_error, warn
from .options import (
    choose_recipe,
    data_option,
    given_flags,
    json_option,
    load_data,
    parse_model,
    recipe_options,
)
from .progress import changed_settings, describe

_TOLERANCE_TEXT = f"{TOLERANCE:.0e}".replace("e-0", "e-")  # 1e-6


@click.command()
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed of inputs and directions."
)
def check(seed: int) -> None:
    """Check all gradients against finite differences.

    Checks every layer, every loss, every activation with every loss, and several networks. Exit code 1 at the first
    wrong gradient.
    """
    echo(f"{'gradient':90} {'error':>8}")
    count = 0
    for result in itertools.chain(check_all(rng=seed), _check_features(seed)):
        count += 1
        echo(f"{result.name:90} {result.error:8.1e}  {'ok' if result.passed else 'WRONG'}")
        if not result.passed:
            echo_error(f"the gradient {result.name} is wrong: relative error {result.error:.1e} > {_TOLERANCE_TEXT}")
            raise SystemExit(1)
    echo(f"all {count} gradient checks passed (relative error <= {_TOLERANCE_TEXT})")


def _check_features(seed: int) -> Iterator[Check]:
    """HOG and Ladder are not in the core of the package, and therefore not in `check_all`."""
    rng = np.random.default_rng(seed)
    # The batch normalization of two examples is too steep for finite differences.
    for layer, batches in ((HOG(6, 5, cells=2), (1, 2, 7)), (Ladder([30, 5, 4, 3], cost_factor=5.0), (1, 7, 8))):
        for batch in batches:
            for check in gradient_errors(layer, rng.random((batch, 30)), rng=rng):
                yield check._replace(name=f"{check.name}, batch {batch}")


# ---- parity ----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path), callback=parse_model)
@recipe_options(
    *("hidden", "hog", "hog_order", "activation", "loss", "label_smoothing", "init", "batch_norm", "batch_size", "seed")
)
@data_option
@click.option(
    "--dtype",
    type=click.Choice(["float64", "float32"]),
    default="float64",
    show_default=True,
    help="Precision of both networks.",
)
@json_option
def parity(
    model: Path | None, recipe: str | None, data: str | None, dtype: str, as_json: bool, **settings: Any
) -> None:
    """Compare a network with its equivalent in PyTorch.

    Compares the loss, each gradient, and the weights after 1, 10 and 100 steps of each optimizer. The network is that
    of MODEL, a model file or a run directory, or the initial network of a recipe. The batch is from MNIST if it is
    available and fits the network, otherwise it is random. Dropout is left out. HOG is computed by handgrad for both.
    Exit code 1 if a difference is larger than rounding.
    """
    from ..diagnostics.inspect import describe_layers  # late: few commands need it
    from ..diagnostics.parity import compare

    compared, title, batch_size, seed = _model_to_compare(model, recipe, settings)
    network = unwrap(compared).core
    if not isinstance(network, Network):
        kind = "an ensemble" if isinstance(network, Ensemble) else f"a {type(network).__name__}"
        raise HandgradError(f"{title} is {kind}: parity needs a single network")
    source, x, y = _batch(compared, data, batch_size, np.random.default_rng(seed))
    found = compare(compared, x, y, dtype=dtype)
    title = f"{title}: {' → '.join(describe_layers(network))}, {network.loss!r}; {dtype}, {source}"
    for line in found.as_json() if as_json else found.table(title):
        echo(line)
    if not found.passed:
        echo_error(f"the largest difference is {found.largest:.1e} > {found.tolerance:.0e}")
        raise SystemExit(1)


def _model_to_compare(path: Path | None, recipe: str | None, settings: dict[str, Any]) -> tuple[Model, str, int, int]:
    """The model of a file or of a recipe, its name, the batch size and the seed."""
    if path is None:
        chosen = choose_recipe(recipe, settings)
        network, preprocessing = chosen.trainer().network, chosen.preprocessing((HEIGHT, HEIGHT))
        model = network if preprocessing is None else Preprocessed(network, preprocessing)
        return model, f"recipe {chosen.name}", chosen.batch_size, chosen.seed
    batch_size, seed = settings.pop("batch_size"), settings.pop("seed")
    others = given_flags({"recipe": recipe, **settings})
    if others:
        raise HandgradError(f"{path} already contains a network: leave out {others}")
    seed = check_int("seed", 0 if seed is None else seed, 0)
    return load_model(path), str(path), 64 if batch_size is None else batch_size, seed


def _batch(
    model: Model, data: str | None, count: int, rng: np.random.Generator
) -> tuple[str, NDArray[Any], NDArray[Any]]:
    """The source of the examples, and x and y: of the data set of --data, of MNIST if it fits, or random."""
    from ..data.mnist import find_mnist
    from ..diagnostics.parity import random_batch

    count = check_int("batch_size", count, 1)
    if data is not None or ((model.n_in, model.n_classes) == (784, 10) and find_mnist() is not None):
        dataset = load_dataset("mnist" if data is None else data)
        if _fits(dataset, model):
            if count > len(dataset.x_train):
                raise HandgradError(f"batch_size {count}: {dataset.name} has {len(dataset.x_train)} training examples")
            chosen = rng.choice(len(dataset.x_train), count, replace=False)
            return f"{count} examples of {dataset.name}", dataset.x_train[chosen], dataset.y_train[chosen]
        if data is not None:
            raise HandgradError(
                f"{dataset.name} has {math.prod(dataset.x_train.shape[1:])} pixels and {len(dataset.classes)} classes: "
                f"expected {model.n_in} and {model.n_classes}, as the network"
            )
    return f"{count} random examples", *random_batch(model, count, rng)


def _fits(dataset: Dataset, model: Model) -> bool:
    sizes = math.prod(dataset.x_train.shape[1:]), len(dataset.classes)
    return model.loss.is_classification and sizes == (model.n_in, model.n_classes)


# ---- profile ---------------------------------------------------------------------------------------------------------


@click.command()
@recipe_options(
    *("hidden", "hog", "hog_order", "activation", "loss", "init", "batch_norm", "dropout", "optimizer", "batch_size")
)
@click.option("--seconds", type=float, default=2, show_default=True, help="Duration of the measurement.")
@json_option
def profile(recipe: str | None, seconds: float, as_json: bool, **settings: Any) -> None:
    """Measure the time of each part of a training step.

    The floor of a part is a lower bound of its time on this machine: the time of its matrix products at the speed of a
    large product, or the time to move its bytes at the speed of the cache that they fit into, whichever is longer.
    BLAS uses as many threads as in handgrad train --threads 1. A training without augmentation computes HOG only once.
    In this case, HOG is not a part of the step, and the layers are numbered without HOG.
    """
    from ..diagnostics.profiler import profile as measure

    chosen = choose_recipe(recipe, settings)
    trainer = chosen.trainer()
    fixed = trainer.fixed_layers(np.zeros((1, trainer.network.n_in)))
    network = trainer.network.without_first(fixed) if fixed else trainer.network
    with blas_threads(trainer.network, trainer.batch_size):
        measured = measure(network, trainer.optimizer, trainer.batch_size, seconds=seconds)
    step, total, peak = measured.step, measured.total, measured.peak
    examples, flops = measured.batch_size / step, total.flops / step
    if as_json:
        for part in measured.parts:
            echo(encode_json(part._asdict()))
        numbers = {"step": step, "sum": total.seconds, "floor": total.floor, "examples_per_second": examples}
        echo(encode_json({**numbers, "flops_per_second": flops, "peak_flops_per_second": peak}))
        return
    echo(*describe(chosen, trainer.network))
    echo(f"{'part':32}{'time us':>12}{'% of step':>14}{'floor us':>12}{'time/floor':>12}")
    for name, duration, floor, *_ in [*measured.parts, total]:
        ratio = f"{duration / floor:.1f}" if floor else "-"
        echo(f"{name:32}{duration * 1e6:12,.2f}{duration / step:14.1%}{floor * 1e6:12,.2f}{ratio:>12}")
    between = step - total.seconds
    echo(f"{'between the parts (Python)':32}{between * 1e6:12,.2f}{between / step:14.1%}")
    echo(f"{'complete step':32}{step * 1e6:12,.2f}{1:14.1%}")
    echo(
        f"{examples:,.0f} examples/s; {flops / 1e9:.1f} GFLOP/s, {flops / peak:.0%} of the {peak / 1e9:.1f} GFLOP/s "
        "of a large matrix product"
    )


# ---- show-augmentation -----------------------------------------------------------------------------------------------


_AUGMENTATION_SETTINGS = ("rotation", "scale", "shear", "shift", "elastic", "smoothness")


@click.command("show-augmentation")
@recipe_options(*_AUGMENTATION_SETTINGS, "deskew", "shrink", "seed", default="minute")
@data_option
@click.option("--digits", type=click.IntRange(min=1), default=8, show_default=True, help="Number of training images.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PNG",
    default="augmentation.png",
    show_default=True,
    help="Output file.",
)
def show_augmentation(recipe: str | None, data: str | None, digits: int, out: Path, **settings: Any) -> None:
    """Plot augmented training images.

    Each row has a training image, deskewed if the recipe deskews images, and eleven versions of it with the data
    augmentation of the recipe.
    """
    from ..diagnostics.plots import VERSIONS, augmentation_grid

    chosen = choose_recipe(recipe, settings, default="minute")
    dataset, *_ = load_data(data, warn)
    x = dataset.x_train[:digits]
    trainer = chosen.trainer(x.shape[1:], len(dataset.classes))
    if trainer.augment is None:
        raise HandgradError(f"the recipe {chosen.name} has no data augmentation: add --rotation, --elastic, ...")
    preprocessing = chosen.preprocessing(x.shape[1:])
    shown = "training image" if preprocessing is None else "deskewed training image"
    title = f"{shown} (left of the line) and {VERSIONS} augmented versions"
    title += f"\nrecipe {chosen.name}: {changed_settings(chosen, _AUGMENTATION_SETTINGS)}"
    images = x if preprocessing is None else preprocessing(x)
    augmentation_grid(out, images, trainer.augment, trainer.augmenting, title=title)
    echo(f"{len(x)} images of {dataset.name}, each with {VERSIONS} augmented versions of recipe {chosen.name}: {out}")


COMMANDS = (check, parity, profile, show_augmentation)
