"""The command line: handgrad train, evaluate, predict, attack, import, inspect, export, check, parity, profile, data.

Each command is the shortest way through the library; what it prints is for people, or with --json for programs.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import click
import numpy as np

from .. import __version__
from .._blas import blas_threads
from ..adversarial.deepfool import deepfool
from ..arrays import as_floats, check_int
from ..data import load
from ..data.dataset import Bytes, Dataset
from ..diagnostics.inspect import chain_of, plain, told
from ..diagnostics.inspect import inspect as inspect_file
from ..diagnostics.parity import compare, random_batch
from ..diagnostics.profiler import profile as profile_step
from ..errors import HandgradError, unknown
from ..export import TARGETS, export, target_of
from ..gradcheck import TOLERANCE, check_all
from ..io.atomic import read_json
from ..io.models import load as load_model
from ..io.models import save
from ..model import Model, by_class
from ..network import Network
from ..recipes import RECIPES, Recipe
from ..wrappers import Ensemble
from .run_directory import Run, ProgressReporter, count_of, sizes_of, describe
from .run_directory import train as train_run


class Commands(click.Group):
    """Commands whose bad input ends in one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        logging.basicConfig(format="handgrad: %(message)s")
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its warnings are of its own cache
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            path = (error.ctx or ctx).command_path
            line = f"{error.format_message().rstrip('.')}: see {path} --help"
        except MemoryError as error:
            line = f"not enough memory: {error}"
        except HandgradError as error:
            line = str(error)
        click.echo(f"handgrad: {line}", err=True)
        raise SystemExit(2)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="handgrad")
def handgrad() -> None:
    """A neural network for handwritten digits, written out by hand in NumPy alone."""


data_option = click.option(
    "--data", metavar="mnist|drawn|DIR", help="MNIST, digits drawn by handgrad, or a directory of four IDX files."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, a line for each thing told.")


def _widths(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    try:
        return None if value is None else tuple(int(n) for n in value.split(",") if value)
    except ValueError:
        raise click.BadParameter(f"'{value}': expected whole numbers with commas between, as in 512,512") from None


def _shape(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    try:
        height, width = (None, None) if value is None else map(int, value.lower().split("x"))
    except ValueError:
        raise click.BadParameter(f"'{value}': expected height and width in pixels, as in 28x28") from None
    return None if height is None or width is None else (height, width)


def choices(*names: str, default: str = "post") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """--recipe, and an option for each of these fields of it, or for all: the field's own help is its."""
    kinds, options = get_type_hints(Recipe), []
    for choice in fields(Recipe):
        flag, words = f"--{choice.name.replace('_', '-')}", choice.metadata.get("help")
        if words is None or choice.name not in (names or kinds):
            continue
        if choice.name == "hidden":
            options.append(click.option(flag, metavar="N,N,...", callback=_widths, help=words))
        elif kinds[choice.name] is bool:
            options.append(click.option(f"{flag}/--no-{flag[2:]}", default=None, help=words))
        else:
            kind = kinds[choice.name] if kinds[choice.name] in (int, float) else str
            options.append(click.option(flag, type=kind, help=words))
    start = click.option("--recipe", help=f"The training to start from: {', '.join(RECIPES)}.  [default: {default}]")

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed([start, *options]):
            command = option(command)
        return command

    return decorate


# ---- train -----------------------------------------------------------------------------------------------------------


@handgrad.command()
@choices()
@data_option
@click.option("--out", type=click.Path(path_type=Path), help="Directory for the results.  [default: runs/RECIPE]")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with the run in this directory.")
@click.option("--quiet", is_flag=True, help="Print the result alone.")
@json_option
def train(
    recipe: str | None,
    data: str | None,
    out: Path | None,
    resume: Path | None,
    quiet: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Train a network, and leave a model, its history and a report behind.

    Without options it is the post's network on MNIST: [784, 30, 10], sigmoid, cross-entropy, batches of 10, 30 epochs.
    """
    tell = ProgressReporter(quiet=quiet, as_json=as_json)
    if resume is None:
        chosen, place = _new("post" if recipe is None else recipe, out, choices)
    else:
        chosen, place, data = _again(resume, choices | {"recipe": recipe, "data": data, "out": out})
    dataset, data = _dataset("mnist" if data is None else data, tell)
    run = Run(place, {**chosen.config(), "data": data, "handgrad": __version__}, new=resume is None)
    try:
        classifier, trainers = train_run(chosen, dataset, run, tell)
    except KeyboardInterrupt:
        tell.stop()
        click.echo(f"stopped: {tell.kept()}; go on with: handgrad train --resume {place}", err=True)
        raise SystemExit(130) from None
    finally:
        tell.stop()
    result = classifier.evaluate(dataset.x_test, dataset.y_test)
    from ..diagnostics.plots import report  # late: matplotlib takes longer to import than an epoch does to train

    title, history = f"{chosen.name}: {sizes_of(trainers[-1].network)} on {dataset.name}", trainers[-1].history
    report(place / "report.png", classifier, history, dataset.x_test, dataset.y_test, title=title)
    tell.result(result, trainers, place)


def _new(recipe: str, out: Path | None, choices: dict[str, Any]) -> tuple[Recipe, Path]:
    """The recipe as the flags have it, and a directory that holds no run yet."""
    chosen = _recipe(recipe, choices)
    if chosen.teacher is not None and chosen.teacher not in RECIPES:  # a file, to be found from anywhere
        chosen = chosen.with_choices(teacher=str(Path(chosen.teacher).resolve()))
    if out is not None and (out / "config.json").exists():
        raise HandgradError(f"{out} holds a run: go on with it by --resume {out}, or name another directory")
    number, run = 1, out or Path("runs") / recipe
    while out is None and run.exists():
        number += 1
        run = run.with_name(f"{recipe}-{number}")
    return chosen, run


def _recipe(name: str, choices: dict[str, Any]) -> Recipe:
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name].with_choices(**choices)


def _again(run: Path, choices: dict[str, Any]) -> tuple[Recipe, Path, str]:
    """The recipe and the data of a run that is there."""
    others = [
        f"--{name.replace('_', '-')}" for name, value in choices.items() if value is not None and name != "epochs"
    ]
    if others:
        raise HandgradError(f"--resume goes on as the run began: leave out {', '.join(others)}")
    recipe, data = _config(run)
    return recipe.with_choices(epochs=choices["epochs"]), run, data


def _config(run: Path) -> tuple[Recipe, str]:
    """The recipe and the data that a run's config.json tells of."""
    config = read_json(run / "config.json")
    try:
        data, _ = config.pop("data"), config.pop("handgrad")
        recipe: Recipe = _named(run / "config.json", Recipe.from_config, config)
    except (KeyError, TypeError, AttributeError) as error:
        raise HandgradError(f"{run / 'config.json'} is not as handgrad train writes it: {error}") from error
    return recipe, str(data)


def _dataset(data: str, tell: ProgressReporter) -> tuple[Dataset, str]:
    """The set that --data names, and the name under which a resumed run finds it again."""
    from ..data.mnist import MnistNotFoundError

    if data != "mnist":
        return load(data), data if data == "synthetic" else str(Path(data).resolve())
    try:
        return load(data), data
    except MnistNotFoundError as error:
        tell.warn(f"MNIST is not here: training on digits that handgrad draws itself. {error}")
        return load("synthetic"), "synthetic"


# ---- evaluate, predict -----------------------------------------------------------------------------------------------


@handgrad.command()
@click.argument("model", type=click.Path(path_type=Path))
@data_option
@json_option
def evaluate(model: Path, data: str | None, as_json: bool) -> None:
    """Read the test set with a model: its loss, its right answers, and what it takes for what."""
    network = _classifier(model)
    dataset = load("mnist" if data is None else data)
    result = network.evaluate(dataset.x_test, dataset.y_test)
    confusion = network.confusion_matrix(dataset.x_test, dataset.y_test)
    if as_json:
        numbers = {"loss": result.loss, "accuracy": result.accuracy, "correct": result.correct, "total": result.total}
        click.echo(json.dumps({**numbers, "confusion_matrix": confusion.tolist(), "classes": network.classes}))
        return
    click.echo(f"{dataset.name} test: {count_of(result)} right, loss {result.loss:.4f}")
    cell = max(len(f"{confusion.max():,}"), *map(len, network.classes)) + 1
    click.echo("truth by row, answer by column")
    click.echo(" " * (cell + 1) + "".join(f"{name:>{cell}}" for name in network.classes))
    for name, row in zip(network.classes, confusion, strict=True):
        click.echo(f"{name:>{cell}} " + "".join(f"{count:>{cell},}" if count else f"{'.':>{cell}}" for count in row))


@handgrad.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("pictures", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--show", type=click.Path(path_type=Path), metavar="PNG", help="Write what the network saw here.")
@json_option
def predict(model: Path, pictures: tuple[Path, ...], show: Path | None, as_json: bool) -> None:
    """Read digits from pictures: PNG, JPEG or npy, dark on light or light on dark, of any size.

    Each is cut out, scaled and centred as the digits were that the network learnt from.
    """
    network = _classifier(model)
    digits = np.stack(_digits(network, model, pictures))
    probabilities = by_class(network.predict_proba(digits))
    captions = []
    for path, p in zip(pictures, probabilities, strict=True):
        likeliest = np.argsort(p)[::-1][:2]
        answer = network.classes[likeliest[0]]
        captions.append(f"{answer}  {p.max():.1%}")
        if as_json:
            named = {name: float(value) for name, value in zip(network.classes, p, strict=True)}
            click.echo(json.dumps({"file": str(path), "answer": answer, "probabilities": named}))
        else:
            click.echo(f"{path}: " + ", or ".join(f"{network.classes[k]} ({p[k]:.1%})" for k in likeliest))
    if show is not None:
        from ..diagnostics.plots import digit_grid

        digit_grid(show, digits, captions)
        if not as_json:
            click.echo(f"what the network saw: {show}")


def _classifier(model: Path) -> Network | Ensemble:
    """What a model file holds. Raises HandgradError where its answers are numbers: a digit is none."""
    network = load_model(model)
    if not network.loss.is_classification:
        raise HandgradError(f"{model} answers by numbers, for it learnt with {network.loss!r}: expected one of classes")
    return network


def _digits(network: Model, model: Path, pictures: tuple[Path, ...]) -> list[Bytes]:
    """The digit in each of the pictures, as `model` was trained to see it."""
    from ..images.reading import as_digit, read_picture

    if network.image_shape is None:
        raise HandgradError(f"{model} does not say what size its pictures are: it was not trained on pictures")
    return [_named(path, as_digit, read_picture(path), network.image_shape) for path in pictures]


def _named(path: Path, function: Any, *arguments: Any) -> Any:
    """function(*arguments), its errors told of `path`."""
    try:
        return function(*arguments)
    except HandgradError as error:
        raise HandgradError(f"{path}: {error}") from error


# ---- attack ----------------------------------------------------------------------------------------------------------


@handgrad.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("pictures", metavar="[FILE...]", nargs=-1, type=click.Path(path_type=Path))
@click.option("--digit", "indices", type=int, multiple=True, metavar="INDEX", help="And this one of the test set.")
@data_option
@click.option("--out", type=click.Path(path_type=Path), metavar="PNG", help="Draw each picture, its change, and both.")
@json_option
def attack(
    model: Path, pictures: tuple[Path, ...], indices: tuple[int, ...], data: str | None, out: Path | None, as_json: bool
) -> None:
    """Find the smallest change of a picture that makes a model read another digit.

    Pictures are read as in predict. Of a change it tells the length, √Σ(change of a pixel)², and the largest change of
    a pixel; ink is 1, paper 0. At the smallest change the two answers are all but equally likely.
    """
    network = _classifier(model)
    if not isinstance(network, Network):
        raise HandgradError(f"{model} is a ensemble of {len(network.members)} networks: attack takes one")
    digits, names = _digits(network, model, pictures), [str(path) for path in pictures]
    if not digits and not indices:
        raise HandgradError("nothing to attack: expected a FILE or more, or --digit INDEX")
    if indices:
        dataset = load("mnist" if data is None else data)
        theirs, ours = dataset.x_test.shape[1:], network.image_shape
        if theirs != ours:
            raise HandgradError(f"{dataset.name} has pictures of (height, width) = {theirs}, {model} reads {ours}")
        for index in indices:
            if not 0 <= index < len(dataset.x_test):
                raise HandgradError(
                    f"--digit {index}: {dataset.name} has the digits 0 to {len(dataset.x_test) - 1} to test on"
                )
            digits.append(dataset.x_test[index])
            names.append(f"{dataset.name} test {index}")
    seen = network.preprocess(np.stack(digits).reshape(len(digits), -1))
    network = network.preprocessed()  # what is changed is the picture as the first layer sees it
    network.views = 1  # and what is to err, the network itself: its mean over shifts has other slopes
    x = as_floats(seen, out=np.empty((len(digits), network.n_in), network.dtype))
    changes, captions = [], []
    for name, picture, p_before in zip(names, x, by_class(network.predict_proba(x)), strict=True):
        found = _named(Path(name), deepfool, network, picture)
        before, after = found.answer_before, found.answer_after
        p_after = by_class(network.predict_proba(found.picture[None]))[0]
        changes.append(found.change)
        answers = [f"{network.classes[k]}  {p[k]:.1%}" for k, p in ((before, p_before), (after, p_after))]
        captions.append((answers[0], f"length {found.l2:.2f}, at most {found.largest:.2f}", answers[1]))
        if as_json:
            numbers = {"before": network.classes[before], "p_before": float(p_before[before])}
            numbers |= {"after": network.classes[after], "p_after": float(p_after[after])}
            click.echo(json.dumps({"file": name, **numbers, "l2": found.l2, "largest": found.largest}))
        else:
            was, now = (f"{network.classes[k]} ({p[k]:.1%})" for k, p in ((before, p_before), (after, p_after)))
            click.echo(f"{name}: {was} becomes {now}; length {found.l2:.3f}, largest pixel change {found.largest:.3f}")
    if out is not None:
        from ..diagnostics.plots import change_rows

        shape = (-1, *(network.image_shape or ()))
        change_rows(out, x.reshape(shape), np.stack(changes).reshape(shape), captions)
        if not as_json:
            click.echo(f"the pictures, their changes, and both: {out}")


# ---- import, inspect -------------------------------------------------------------------------------------------------


@handgrad.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="MODEL", help="Write the model here.")
@click.option(
    "--activation", help="Of the hidden layers of a .safetensors file: relu, ..., or one for each: tanh,relu."
)
@click.option("--loss", help="cross_entropy, squared_error, ...; by default as interop.from_torch has it.")
@click.option("--classes", metavar="NAME,NAME,...", help="What the outputs are called.  [default: 0,1,...]")
@click.option("--image-shape", metavar="HEIGHTxWIDTH", callback=_shape, help="Where the inputs are pictures: 28x28.")
def import_(
    file: Path,
    out: Path,
    activation: str | None,
    loss: str | None,
    classes: str | None,
    image_shape: tuple[int, int] | None,
) -> None:
    """Make a handgrad model of a network of PyTorch, a .safetensors file, or of Keras, a .keras file.

    From PyTorch: safetensors.torch.save_file(model.state_dict(), "model.safetensors").
    """
    if file.suffix == ".keras":
        if activation is not None:
            raise HandgradError(f"--activation {activation}: {file} has its own, leave it out")
        network = interop.from_keras(file, loss=loss)
    else:
        names = activation.split(",") if activation is not None and "," in activation else activation
        network = interop.from_torch(file, activation=names, loss=loss)
    if classes is not None:
        network.classes = tuple(classes.split(","))
    network.image_shape = network.image_shape if image_shape is None else image_shape
    if out.exists() and file.samefile(out):
        raise HandgradError(f"--out {out} is the file that is read: expected another")
    save(network, out)
    for line in told(inspect_file(out), arrays=False):
        click.echo(line)


@handgrad.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def inspect(file: Path, as_json: bool) -> None:
    """Tell what is in a .safetensors file: a model, a ensemble, a checkpoint, or anybody's arrays."""
    try:
        found = inspect_file(file)
    except HandgradError as error:
        raise HandgradError(plain(str(error), most=1000)) from error  # it may hold names from the file
    for line in [json.dumps(found)] if as_json else told(found):
        click.echo(line)


# ---- show-augmentation -----------------------------------------------------------------------------------------------


@handgrad.command("show-augmentation")
@choices("rotation", "scale", "shear", "shift", "elastic", "smoothness", "deskew", "shrink", "seed", default="minute")
@data_option
@click.option("--digits", type=click.IntRange(min=1), default=8, show_default=True, help="How many to show.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PNG",
    default="augmentation.png",
    show_default=True,
    help="Where.",
)
def show_augmentation(recipe: str | None, data: str | None, digits: int, out: Path, **choices: Any) -> None:
    """Draw what a recipe makes of the pictures that it learns from: each as it is, and eleven times anew."""
    from ..diagnostics.plots import augmentation_grid

    chosen = _recipe("minute" if recipe is None else recipe, choices)
    dataset, _ = _dataset("mnist" if data is None else data, ProgressReporter(quiet=True, as_json=False))
    x = dataset.x_train[:digits]
    count, height, width = x.shape
    trainer = chosen.trainer((height, width), len(dataset.classes))
    if trainer.augment is None:
        raise HandgradError(f"the recipe {chosen.name} shows pictures as they are: give --rotation, --elastic, ...")
    seen = trainer.network.preprocess(x.reshape(count, -1)).reshape(-1, *(trainer.network.input_shape or ()))
    augmentation_grid(out, seen, trainer.augment, trainer.augmenting)
    click.echo(f"{count} of {dataset.name}, made anew as {chosen.name} has it: {out}")


# ---- check -----------------------------------------------------------------------------------------------------------


@handgrad.command()
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the inputs and directions tried."
)
def check(seed: int) -> None:
    """Check every hand-derived gradient against finite differences.

    Every layer, every loss, every activation with every loss, and whole networks; exits 1 at the first that fails.
    """
    count = 0
    for result in check_all(rng=seed):
        count += 1
        click.echo(f"{result.name:60} {result.error:8.1e}  {'ok' if result.passed else 'WRONG'}")
        if not result.passed:
            click.echo(f"handgrad: {result.name}: the error is above {TOLERANCE:.0e}", err=True)
            raise SystemExit(1)
    click.echo(f"{count} gradients are the derivatives they claim to be, to {TOLERANCE:.0e} or better")


# ---- parity ----------------------------------------------------------------------------------------------------------


@handgrad.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@choices("hidden", "activation", "loss", "label_smoothing", "init", "batch_norm", "batch_size", "seed")
@data_option
@click.option("--dtype", type=click.Choice(["float64", "float32"]), default="float64", show_default=True)
@json_option
def parity(model: Path | None, recipe: str | None, data: str | None, dtype: str, as_json: bool, **choices: Any) -> None:
    """Show the same network in handgrad and in PyTorch, on one batch: the loss, each gradient, the weights after steps.

    The network of MODEL, or a recipe's as it begins, on a batch of MNIST where that is here and fits, else of numbers
    drawn at random. Dropout is left out of both. Exits 1 where a difference is more than rounding.
    """
    network, what, count, seed = _to_compare(model, recipe, choices)
    rng = np.random.default_rng(seed)
    source, x, y = _batch(network, data, count, rng)
    found = compare(network.astype(dtype), x, y)
    what = f"{what}: {' → '.join(chain_of(network))}, {network.loss!r}"
    for line in found.as_json() if as_json else found.told(f"{what}, in {dtype}, on {source}"):
        click.echo(line)
    if not found.passed:
        click.echo(f"handgrad: the largest difference, {found.largest:.1e}, is above {found.tolerance:.0e}", err=True)
        raise SystemExit(1)


def _to_compare(model: Path | None, recipe: str | None, choices: dict[str, Any]) -> tuple[Network, str, int, int]:
    """The network of a file or of a recipe, what it is called, the size of the batch, and the seed."""
    if model is None:
        chosen = _recipe("post" if recipe is None else recipe, choices)
        network = chosen.trainer().network
        return network, chosen.name, chosen.batch_size, chosen.seed
    count, seed = choices.pop("batch_size"), choices.pop("seed")
    others = [
        f"--{name.replace('_', '-')}" for name, value in {"recipe": recipe, **choices}.items() if value is not None
    ]
    if others:
        raise HandgradError(f"{model} is a network already: leave out {', '.join(others)}")
    found = load_model(model)
    if not isinstance(found, Network):
        raise HandgradError(f"{model} is a ensemble of networks: parity takes one")
    return found, str(model), 64 if count is None else count, check_int("seed", 0 if seed is None else seed, 0)


def _batch(network: Network, data: str | None, count: int, rng: np.random.Generator) -> tuple[str, Any, Any]:
    """What it is of, x and y: the set that --data names, MNIST where it is here, or numbers drawn at random."""
    from ..data.mnist import find_mnist

    count = check_int("batch_size", count, 1)
    if data is not None or (network.n_in == 784 and network.n_classes == 10 and find_mnist() is not None):
        dataset = load("mnist" if data is None else data)
        n_in, labels = math.prod(dataset.x_train.shape[1:]), len(dataset.classes)
        if network.loss.is_classification and (n_in, labels) == (network.n_in, network.n_classes):
            if count > len(dataset.x_train):
                raise HandgradError(f"batch_size {count}: expected at most the {len(dataset.x_train)} examples")
            some = rng.choice(len(dataset.x_train), count, replace=False)
            return f"{count} examples of {dataset.name}", dataset.x_train[some], dataset.y_train[some]
        if data is not None:
            raise HandgradError(f"{dataset.name} has {n_in} pixels and {labels} classes: the network takes others")
    return f"{count} examples drawn at random", *random_batch(network, count, rng)


# ---- profile ---------------------------------------------------------------------------------------------------------


@handgrad.command()
@choices("hidden", "activation", "loss", "init", "batch_norm", "dropout", "optimizer", "batch_size")
@click.option("--seconds", type=float, default=2, show_default=True, help="Time to take steps for.")
@json_option
def profile(recipe: str | None, seconds: float, as_json: bool, **choices: Any) -> None:
    """Show where the time of a training step goes, layer by layer, against what this machine allows.

    The floor of a part is the time of its products at the speed of a large one, or of its bytes at the speed of the
    cache that they fit into, whichever is longer. BLAS has the threads that it has in handgrad train.
    """
    chosen = _recipe("post" if recipe is None else recipe, choices)
    trainer = chosen.trainer()
    with blas_threads(trainer.network, trainer.batch_size):
        measured = profile_step(trainer.network, trainer.optimizer, trainer.batch_size, seconds=seconds)
    step, total, peak = measured.step, measured.total, measured.peak
    examples, flops = measured.batch_size / step, total.flops / step
    if as_json:
        for part in measured.parts:
            click.echo(json.dumps(part._asdict()))
        numbers = {"step": step, "sum": total.seconds, "floor": total.floor, "examples_per_second": examples}
        click.echo(json.dumps({**numbers, "flops_per_second": flops, "peak_flops_per_second": peak}))
        return
    click.echo(describe(chosen, trainer.network))
    click.echo(f"{'part':32}{'us':>12}{'of the step':>14}{'floor us':>12}{'x floor':>10}")
    for name, took, floor, *_ in [*measured.parts, total]:
        times = f"{took / floor:.1f}" if floor else "-"
        click.echo(f"{name:32}{took * 1e6:12,.2f}{took / step:14.1%}{floor * 1e6:12,.2f}{times:>10}")
    click.echo(f"{'between them':32}{(step - total.seconds) * 1e6:12,.2f}{1 - total.seconds / step:14.1%}")
    click.echo(f"{'the step, measured as a whole':32}{step * 1e6:12,.2f}{1:14.1%}")
    click.echo(
        f"{examples:,.0f} examples/s; {flops / 1e9:.1f} GFLOP/s, {flops / peak:.0%} of the {peak / 1e9:.1f} "
        "that a large product reaches here"
    )


# ---- export ----------------------------------------------------------------------------------------------------------


@handgrad.command("export")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--to", required=True, metavar="|".join(TARGETS), help="The language to write it in.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="The file.  [default: beside MODEL]")
@click.option("--train", is_flag=True, help="Write the training of MODEL, line beside line, to torch or keras.")
@click.option("--recipe", help="For --train.  [default: the one in config.json beside MODEL, or else post]")
@click.option("--without-preprocessing", is_flag=True, help="Write the net behind a preprocessing or several views.")
def export_model(
    model: Path, to: str, out: Path | None, train: bool, recipe: str | None, without_preprocessing: bool
) -> None:
    """Write a model as a script of another framework, or as a file that needs none.

    torch and keras are scripts that load MODEL, which must lie beside them; onnx is a graph, python a file that needs
    NumPy alone, c and js files that need nothing. Each tells at its head what goes in and what comes out.
    """
    target = target_of(to)
    if recipe is not None and not train:
        raise HandgradError("--recipe names the training that --train writes: give --train too")
    chosen = None
    if train:
        beside = recipe is None and (model.parent / "config.json").exists()
        chosen = _config(model.parent)[0] if beside else _recipe("post" if recipe is None else recipe, {})
    if out is None:
        ending = target.ending.replace(".", "_train.") if train else target.ending
        out = model.with_name(model.stem + ending)
    network = load_model(model)
    made = export(network, out, to=to, model=model, train=chosen, without_preprocessing=without_preprocessing)
    for path in made:
        click.echo(f"{path}: {path.stat().st_size:,} bytes")
    tried = f"python {out} [DATA]" if train else target.tried(out)
    if tried:
        click.echo(f"try: {tried}")


# ---- data ------------------------------------------------------------------------------------------------------------


@handgrad.group(invoke_without_command=True)
@click.pass_context
def data(ctx: click.Context) -> None:
    """Show where MNIST is looked for and what is there; fetch it; verify it."""
    if ctx.invoked_subcommand is None:
        from ..data.mnist import survey

        for copy in survey():
            click.echo(str(copy))


@data.command()
@click.option("--from", "source", type=click.Path(path_type=Path), metavar="DIR", help="Take the files from here.")
def fetch(source: Path | None) -> None:
    """Bring MNIST into the cache, from mirrors or from a directory; what is there and whole stays."""
    from ..data.mnist import fetch_mnist, take_local

    click.echo(str(fetch_mnist() if source is None else take_local(source)))


@data.command()
def verify() -> None:
    """Check the hash of every file of the copy that training uses; exits 1 where there is none."""
    from ..data.mnist import find_mnist

    place = find_mnist()
    if place is None:
        click.echo("handgrad: no whole copy of MNIST was found: run handgrad data fetch", err=True)
        raise SystemExit(1)
    click.echo(f"{place}: whole, every SHA-256 as expected")
