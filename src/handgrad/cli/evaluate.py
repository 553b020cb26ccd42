"""handgrad evaluate, predict and attack."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from ..adversarial import deepfool
from ..arrays import as_floats
from ..data import load as load_dataset
from ..data import table_file
from ..errors import HandgradError, optional
from ..io.atomic import as_path, encode_json, read_json
from ..io.models import load as load_model
from ..model import Model, binary_to_two_columns
from ..network import Network
from ..wrappers import Ensemble, unwrap
from .echo import echo, echo_error
from .options import data_option, json_option, label_option, model_argument, with_path
from .progress import format_correct

if TYPE_CHECKING:
    from ..images import Reading


@click.command()
@model_argument
@data_option
@label_option
@json_option
def evaluate(model: Path, data: str | None, label: str | None, as_json: bool) -> None:
    """Evaluate a model on the test set.

    MODEL is a model file or a run directory. Prints the accuracy, the loss and the confusion matrix. Without --data,
    the model of a run is evaluated on the data set of the run. If this data set has no test set, the same random fifth
    as in the training is the test set. If other data have no test set, all examples are used.
    """
    classifier = _load_classifier(model)
    of_run, label_of_run = _data_of_run(model)
    name = _default_data(model, classifier, of_run) if data is None else data
    divide = data is None or str(Path(data).resolve()) == of_run
    label = label or _label_of_table(name, label_of_run)
    size, feature_names = classifier.image_shape, classifier.feature_names
    dataset = load_dataset(name, label=label, size=size, divide=divide, feature_names=feature_names)
    dataset = dataset.with_classes(classifier.classes)
    _echo_notes(dataset.notes)
    result = classifier.evaluate(dataset.x_test, dataset.y_test)
    confusion = classifier.confusion_matrix(dataset.x_test, dataset.y_test)
    if as_json:
        numbers = {"loss": result.loss, "accuracy": result.accuracy, "correct": result.correct, "total": result.total}
        echo(encode_json({**numbers, "confusion_matrix": confusion.tolist(), "classes": classifier.classes}))
        return
    echo(f"{dataset.name} test: {format_correct(result)}, loss {result.loss:.4f}")
    echo("confusion matrix (rows: true class, columns: predicted class)")
    cell = max(len(f"{confusion.max():,}"), *map(len, classifier.classes)) + 1
    echo(" " * (cell + 1) + "".join(f"{name:>{cell}}" for name in classifier.classes))
    for name, row in zip(classifier.classes, confusion, strict=True):
        cells = (f"{n:>{cell},}" if n else f"{'.':>{cell}}" for n in row)
        echo(f"{name:>{cell}} " + "".join(cells))


@click.command()
@model_argument
@click.argument("images", metavar="[IMAGE...]", nargs=-1, type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--data",
    metavar="PATH",
    help="Predict the classes of all images in an IDX or .npy file or a directory of images*.npy files, which can be "
    "larger than memory; of numbers in a CSV, .npy or .npz file with or without labels; or of the test examples of a "
    "data set: all examples in their order if it has no test set.",
)
@label_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --data: write the class indices to an .npy file, or the names of the classes and their probabilities to "
    "a .csv file.",
)
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="With --data: number of processes, for example the number of cores. They share the memory of the model.  "
    "[default: 1]",
)
@click.option("--show", type=click.Path(path_type=Path), metavar="PNG", help="Write the prepared digits to a PNG file.")
@json_option
def predict(
    model: Path,
    images: tuple[Path, ...],
    data: str | None,
    label: str | None,
    out: Path | None,
    workers: int | None,
    show: Path | None,
    as_json: bool,
) -> None:
    """Predict the digits in image files, or the classes of all examples of a data set.

    MODEL is a model file or a run directory. Each IMAGE is a PNG, JPEG, GIF, BMP, TIFF, WebP, PPM or npy file of any
    size, a directory of such files, or - for standard input. Photographs, ruled paper and several digits in one image
    are read: every digit is found, cropped, scaled and centred as in MNIST. The answer is "not sure" if the confidence
    is below 60 % or if the shape does not look like a digit. If an image cannot be read or has no digit, the other
    images are still read, and the exit code is 2. If the classes of the model are not digits or letters, each image is
    prepared as a whole, as the images of a folder of training images.

    \b
    Examples:
      handgrad predict runs/quick photo.jpg
      handgrad predict runs/quick --data images.npy --out answers.npy --workers 4
      handgrad predict runs/post --data flowers.csv --out answers.csv
    """  # noqa: D301 (click needs the backspace)
    if data is not None or label is not None or out is not None or workers is not None:
        if data is None or out is None or images or show is not None:
            raise HandgradError("--data and --out belong together, and exclude IMAGE and --show; --workers needs both")
        _predict_all(model, data, label, out, 1 if workers is None else workers, as_json)
        return
    classifier = _load_classifier(model)
    if not images:
        raise HandgradError("no image to predict: expected an IMAGE, or --data with --out")
    if classifier.image_shape is None:
        raise HandgradError(f"{model} has no image shape: it was not trained on images; pass numbers with --data FILE")
    digits, captions, failed = [], [], False
    for path in images:
        try:
            files = _image_files(path)
        except HandgradError as error:
            echo_error(str(error))
            failed = True
            continue
        _check_output("--show", show, files)
        for file in files:
            try:
                readings = _read(classifier, file)
            except HandgradError as error:
                echo_error(str(error))
                failed = True
                continue
            found = [reading for reading in readings if reading.box is not None]
            if as_json:
                echo(encode_json(_json_row(file, readings)))
            elif found:
                for reading in found:
                    echo(f"{file}{_position(reading.box, len(found))}: {_answer(reading)}")
            if not found:
                echo_error(f"{file}: {readings[0].reason}")
                failed = True
            digits += [reading.digit for reading in found]
            captions += [f"{file.name}\n{_caption(reading)}" for reading in found]
    if show is not None and digits:
        from ..diagnostics.plots import digit_grid

        digit_grid(show, np.stack(digits), captions)
        if not as_json:
            echo(f"prepared images: {show}")
    if failed:
        raise SystemExit(2)


def _predict_all(path: Path, data: str, label: str | None, out: Path, workers: int, as_json: bool) -> None:
    """Write the classes of all examples of a data set to a file."""
    from ..data.answers import Processes, files_to_read, read_examples, write_answers

    classifier = _load_classifier(path, mmap=workers > 1)

    if out.suffix not in (".npy", ".csv"):
        raise HandgradError(f"--out {out}: expected a name that ends in .npy or .csv")
    _check_output("--out", out, files_to_read(data))
    read = functools.partial(read_examples, data, label=label or _label_of_table(data, _data_of_run(path)[1]))
    x, notes = read(classifier)
    _echo_notes(notes)
    bar = optional("tqdm").tqdm(total=len(x), unit=" examples", unit_scale=True, leave=False, disable=None)
    with bar:
        counts = write_answers(classifier, x, out, bar.update, Processes(workers, path, read))
    if as_json:
        echo(
            encode_json(
                {"out": str(out), "count": len(x), "classes": dict(zip(classifier.classes, counts, strict=True))}
            )
        )
    else:
        echo(f"{len(x):,} answers in {out}")


def _check_output(option: str, out: Path | None, inputs: Sequence[Path]) -> None:
    """Raise HandgradError if the file to write is one of the files to read."""
    if out is not None and out.exists() and any(path.exists() and out.samefile(path) for path in inputs):
        raise HandgradError(f"{option} {out} is an input file: choose another name")


def _image_files(path: Path) -> list[Path]:
    """The file itself, or the images in a directory and its subdirectories, sorted."""
    from ..data.folders import HIDDEN
    from ..images.decoding import SUFFIXES

    if not path.is_dir():
        return [path]
    files: list[Path] = []
    for directory, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(HIDDEN)]  # such as .ipynb_checkpoints
        images = [name for name in names if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")]
        files += [Path(directory, name) for name in images]
    if not files:
        raise HandgradError(f"{path} is a directory without images: expected PNG, JPEG, ... or npy files")
    return sorted(files)


def _read(classifier: Model, file: Path) -> list[Reading]:
    """The readings of a file, or of standard input if its name is a hyphen."""
    from ..images import predict_image

    if str(file) != "-":
        return predict_image(classifier, file)
    if sys.stdin is None:
        raise HandgradError("-: standard input is closed: expected an image")
    try:
        return predict_image(classifier, sys.stdin.buffer)
    except HandgradError as error:
        raise HandgradError(f"-: {error}") from error


def _position(box: tuple[int, int, int, int] | None, count: int) -> str:
    """Where a digit is, if there are several: " at (10, 20) to (50, 90)"."""
    if box is None or count == 1:
        return ""
    left, top, right, bottom = box
    return f" at ({left}, {top}) to ({right}, {bottom})"


def _answer(reading: Reading) -> str:
    """The class and the next one with their probabilities, or why the answer is not sure."""
    (best, p), *others = sorted(reading.probabilities.items(), key=lambda item: -item[1])
    if reading.label is None:
        return f"not sure: {reading.reason}; the most probable class is {best} ({_percent(p)})"
    second = f", second choice {others[0][0]} ({_percent(others[0][1])})" if others else ""
    return f"{best} ({_percent(p)}){second}"


def _caption(reading: Reading) -> str:
    return "not sure" if reading.label is None else f"{reading.label}  {_percent(reading.confidence)}"


def _percent(p: float) -> str:
    """A probability, rounded down, so that the sum of an answer is at most 100 %."""
    return f"{math.floor(1000 * p) / 10:.1f}%"


def _json_row(file: Path, readings: list[Reading]) -> dict[str, Any]:
    """The readings of a file as JSON values. The prediction is that of a single digit."""
    found = [reading for reading in readings if reading.box is not None]
    rows = [
        {
            "box": reading.box,
            "prediction": reading.label,
            "confidence": reading.confidence,
            "reason": reading.reason,
            "probabilities": reading.probabilities,
        }
        for reading in found
    ]
    single = readings[0] if len(readings) == 1 else None
    return {
        "file": str(file),
        "prediction": single.label if single else None,
        "probabilities": single.probabilities if single else None,
        "reason": single.reason if single else f"{len(found)} digits",
        "readings": rows,
    }


@click.command()
@model_argument
@click.argument("images", metavar="[IMAGE...]", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--digit", "indices", type=int, multiple=True, metavar="INDEX", help="Index of a test image; may be repeated."
)
@data_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PNG",
    help="Write each image, its perturbation and their sum to a PNG file.",
)
@json_option
def attack(
    model: Path, images: tuple[Path, ...], indices: tuple[int, ...], data: str | None, out: Path | None, as_json: bool
) -> None:
    """Perturb an image so that the predicted class changes.

    Finds a small perturbation with DeepFool and prints its L2 norm and its largest change of a pixel, where the
    background is 0 and strokes are 1. The old and the new class then have almost the same probability. Images are read
    as in handgrad predict. If the model has a preprocessing, the preprocessed image is perturbed. Test-time
    augmentation is not used.
    """
    _check_output("--out", out, images)
    classifier = _load_classifier(model)
    network, preprocessing, _, _ = unwrap(classifier)
    if isinstance(network, Ensemble):
        raise HandgradError(f"{model} is an ensemble of {len(network.members)} networks: attack needs a single network")
    if not isinstance(network, Network):
        raise HandgradError(f"{model} is a {type(network).__name__}: attack needs a network")
    digits, names = _read_digits(classifier, model, images), [str(path) for path in images]
    if not images and not indices:
        raise HandgradError("no image to attack: expected an IMAGE or --digit INDEX")
    if indices:
        test_digits, test_names = _test_digits(classifier, model, indices, data)
        digits, names = digits + test_digits, names + test_names
    seen = np.stack(digits)
    if preprocessing is not None:
        seen = preprocessing(seen)
        if not as_json:
            echo(f"the images are perturbed after the preprocessing {preprocessing!r}")
    x = as_floats(seen, out=np.empty((len(seen), network.n_in), network.dtype))
    perturbations, captions = [], []
    for name, image, p_before in zip(names, x, binary_to_two_columns(network.predict_proba(seen)), strict=True):
        found = with_path(Path(name), deepfool, network, image)
        before, after = found.class_before, found.class_after
        p_after = binary_to_two_columns(network.predict_proba(found.image[None]))[0]
        perturbations.append(found.perturbation)
        texts = [f"{network.classes[k]}  {p[k]:.1%}" for k, p in ((before, p_before), (after, p_after))]
        captions.append((texts[0], f"L2 {found.l2:.2f}, max {found.linf:.2f}", texts[1]))
        if as_json:
            row = {"file": name, "before": network.classes[before], "p_before": float(p_before[before])}
            row |= {"after": network.classes[after], "p_after": float(p_after[after])}
            echo(encode_json({**row, "l2": found.l2, "linf": found.linf}))
        else:
            was, now = _with_probability(network, before, p_before), _with_probability(network, after, p_after)
            echo(f"{name}: {was} becomes {now}, L2 norm {found.l2:.3f}, largest pixel change {found.linf:.3f}")
    if out is not None:
        from ..diagnostics.plots import perturbation_grid

        shape = (-1, *(network.image_shape or ()))
        perturbation_grid(out, x.reshape(shape), np.stack(perturbations).reshape(shape), captions)
        if not as_json:
            echo(f"image, perturbation and sum: {out}")


def _data_of_run(path: Path) -> tuple[str | None, str | None]:
    """The name of the data set of the run that a model is from, and the column of the labels if it was chosen."""
    found: list[Any] = [None, None]
    with contextlib.suppress(HandgradError, AttributeError):  # there is none, or it is damaged
        config = read_json(path.parent / "config.json")
        found = [config.get(name) for name in ("data", "label")]
    data, label = (value if isinstance(value, str) else None for value in found)
    return data, label


def _label_of_table(data: str, label_of_run: str | None) -> str | None:
    """The column of the labels that the run had, if the data are a CSV file."""
    return None if table_file(as_path(data)) is None else label_of_run


def _default_data(path: Path, model: Model, of_run: str | None) -> str:
    """The data set of the run, or MNIST if there is no run. Raises HandgradError if the model does not read images.

    Prints the name of a data set that is not MNIST to stderr.
    """
    if of_run not in (None, "mnist"):  # also if there is no such file: other data would give a wrong result
        echo(f"data: {of_run}, as in {path.parent / 'config.json'}", err=True)
        return of_run
    if model.image_shape is None:
        raise HandgradError(f"{path} expects rows of {model.n_in} numbers: give their file with --data")
    return "mnist"


def _echo_notes(notes: Sequence[str]) -> None:
    """Print what was done to the data to stderr."""
    if notes:
        echo(f"data: {'; '.join(notes)}", err=True)


def _load_classifier(path: Path, *, mmap: bool = False) -> Model:
    """Load a model. Raises HandgradError if it is a regression."""
    model: Model = load_model(path, mmap=mmap)
    if not model.loss.is_classification:
        raise HandgradError(f"{path} is a regression model with the loss {model.loss!r}: expected a classifier")
    return model


def _read_digits(model: Model, path: Path, images: Sequence[Path]) -> list[NDArray[np.uint8]]:
    """Read image files, prepared as the training images of the model at `path`."""
    from ..data.folders import prepare_image
    from ..images.reading import as_digit, read_image, reads_characters  # late: Pillow

    if model.image_shape is None:
        raise HandgradError(f"{path} has no image shape: it was not trained on images")
    prepare = as_digit if reads_characters(model) else prepare_image
    return [with_path(image, prepare, read_image(image), model.image_shape) for image in images]


def _test_digits(
    model: Model, path: Path, indices: Sequence[int], data: str | None
) -> tuple[list[NDArray[np.uint8]], list[str]]:
    """Test images and their names."""
    dataset = load_dataset("mnist" if data is None else data)
    x = dataset.x_test
    if x.shape[1:] != model.image_shape:
        raise HandgradError(f"{dataset.name} has images of {x.shape[1:]} pixels: {path} expects {model.image_shape}")
    for index in indices:
        if not 0 <= index < len(x):
            raise HandgradError(f"--digit {index}: {dataset.name} has the test images 0 to {len(x) - 1}")
    return [x[index] for index in indices], [f"{dataset.name} test image {index}" for index in indices]


def _with_probability(model: Model, k: int, p: NDArray[np.floating]) -> str:
    """Class k with its probability: "7 (99.8%)"."""
    return f"{model.classes[k]} ({p[k]:.1%})"


COMMANDS = (evaluate, predict, attack)
