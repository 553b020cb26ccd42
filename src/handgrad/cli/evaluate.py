"""handgrad evaluate, predict and attack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from ..adversarial import deepfool
from ..arrays import as_floats
from ..data import load as load_dataset
from ..errors import HandgradError
from ..io.atomic import encode_json
from ..io.models import load as load_model
from ..model import Model, binary_to_two_columns
from ..network import Network
from ..wrappers import Ensemble, unwrap
from .echo import echo
from .options import data_option, json_option, model_argument, with_path
from .progress import format_correct


@click.command()
@model_argument
@data_option
@json_option
def evaluate(model: Path, data: str | None, as_json: bool) -> None:
    """Evaluate a model on the test set.

    Prints the accuracy, the loss and the confusion matrix.
    """
    classifier = _load_classifier(model)
    dataset = load_dataset("mnist" if data is None else data).with_classes(classifier.classes)
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
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--show", type=click.Path(path_type=Path), metavar="PNG", help="Write the prepared images to a PNG file.")
@json_option
def predict(model: Path, images: tuple[Path, ...], show: Path | None, as_json: bool) -> None:
    """Predict the digits in image files.

    Each IMAGE is a PNG, JPEG or npy file of any size with one digit, dark on a bright background or bright on a dark
    one. The digit is cropped, scaled and centred as in MNIST.
    """
    classifier = _load_classifier(model)
    digits = np.stack(_read_digits(classifier, model, images))
    captions = []
    for path, p in zip(images, binary_to_two_columns(classifier.predict_proba(digits)), strict=True):
        first, second = np.argsort(p)[::-1][:2]
        captions.append(f"{classifier.classes[first]}  {p[first]:.1%}")
        if as_json:
            probabilities = {name: float(value) for name, value in zip(classifier.classes, p, strict=True)}
            row = {"file": str(path), "prediction": classifier.classes[first], "probabilities": probabilities}
            echo(encode_json(row))
        else:
            best, next_best = _with_probability(classifier, first, p), _with_probability(classifier, second, p)
            echo(f"{path}: {best}, second choice {next_best}")
    if show is not None:
        from ..diagnostics.plots import digit_grid

        digit_grid(show, digits, captions)
        if not as_json:
            echo(f"prepared images: {show}")


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

    Finds the smallest perturbation with DeepFool and prints its L2 norm and its largest change of a pixel, where the
    background is 0 and strokes are 1. The old and the new class then have almost the same probability. Images are read
    as in handgrad predict. If the model has a preprocessing, the preprocessed image is perturbed. Test-time
    augmentation is not used.
    """
    classifier = _load_classifier(model)
    network, preprocessing, _ = unwrap(classifier)
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


def _load_classifier(path: Path) -> Model:
    """Load a model. Raises HandgradError if it is a regression."""
    model: Model = load_model(path)
    if not model.loss.is_classification:
        raise HandgradError(f"{path} is a regression model with the loss {model.loss!r}: expected a classifier")
    return model


def _read_digits(model: Model, path: Path, images: Sequence[Path]) -> list[NDArray[np.uint8]]:
    """Read image files, prepared as the training images of the model at `path`."""
    from ..images.reading import as_digit, read_image  # late: Pillow

    if model.image_shape is None:
        raise HandgradError(f"{path} has no image shape: it was not trained on images")
    return [with_path(image, as_digit, read_image(image), model.image_shape) for image in images]


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
