"""Folders of images: one folder of image files per class."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import check_int
from ..errors import HandgradError, optional
from .dataset import Dataset, has_bright_background

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm", ".npy")
TRAIN = ("train", "training", "trainingset", "training_set", "train_set")
TEST = ("test", "testing", "testset", "test_set", "val", "valid", "validation", "eval")
HIDDEN = (".", "__")  # such as .ipynb_checkpoints and __MACOSX
MAX_SIDE = 64  # pixels; larger images are reduced unless a size is given
LARGEST_SIDE = 4096  # of a size that is given


def load_folder(
    path: Path, *, size: tuple[int, int] | None = None, classes: Any = None, divide: bool = True
) -> Dataset:
    """Load a folder with one folder of images per class as a data set.

    Colour becomes grey. Images of other sizes are resized to the most common size, which is reduced to at most 64
    pixels per side, or to `size`. If the images have a bright background, all of them are inverted, because handgrad
    expects bright strokes on a dark background. If the folder has the folders train and test, each of them contains the
    folders of the classes, and other folders are left out. Otherwise a fifth of the images is the test set.

    Parameters
    ----------
    path : Path
        The folder.
    size : (height, width), optional
        Size of the images in pixels.
    classes, divide
        See `Dataset.from_arrays`. By default, the names of the classes are those of the folders.

    Raises
    ------
    HandgradError
        If there are fewer than two folders with images, or if an image cannot be read.
    """
    if size is not None:
        size = _check_size(size)
    parts = _parts(path)
    files = {part: _files(folder) for part, folder in parts.items()}
    if any(len({label for _, label in found}) < 2 for part, found in files.items() if part == "train"):
        raise HandgradError(
            f"{path} contains neither IDX files nor a folder of images for each class: expected PATH/CLASS/IMAGE.png, "
            "with at least two classes"
        )
    notes: list[str] = []
    if "test" in files and not files["test"]:  # such as Kaggle's images without classes
        del files["test"]
        notes.append(f"{parts['test'].name} is left out, because it has no folders of the classes")
    if parts["train"] != path:
        others = [entry.name for entry in _entries(path) if entry.is_dir() and entry not in parts.values()]
        kind = "folder" if len(others) == 1 else "folders"
        notes += [f"left out: the {kind} {', '.join(map(repr, others))}"] if others else []
    images = {part: [_read(file) for file, _ in found] for part, found in files.items()}
    shapes = Counter(image.shape for found in images.values() for image in found)
    if size is None:
        height, width = max(shapes, key=lambda shape: (shapes[shape], shape))
        reduction = max(1.0, max(height, width) / MAX_SIDE)
        size = max(1, round(height / reduction)), max(1, round(width / reduction))
    other = sum(count for shape, count in shapes.items() if shape != size)
    if other:
        notes.append(f"{other:,} images of {sum(shapes.values()):,} are resized to {size[0]}x{size[1]} pixels")
    x = {part: np.stack([_resize(image, size) for image in found]) for part, found in images.items()}
    if has_bright_background(x["train"]):
        x = {part: 255 - values for part, values in x.items()}
        notes.append("the images are inverted, because their background is bright")
    y = {part: [label for _, label in found] for part, found in files.items()}
    name = path.resolve().name
    if "test" not in x:
        return Dataset.from_arrays(x["train"], y["train"], classes=classes, divide=divide, name=name, notes=notes)
    order = np.random.default_rng(0).permutation(len(x["train"]))
    y_train = np.array(y["train"])[order]
    return Dataset.from_arrays(
        x["train"][order], y_train, x["test"], y["test"], classes=classes, name=name, notes=notes
    )


def prepare_image(levels: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Prepare the grey levels of an image as `load_folder` does: resized, and inverted if its background is bright."""
    image = _resize(_reduce(levels), size)
    return 255 - image if has_bright_background(image[None]) else image


def _check_size(size: Any) -> tuple[int, int]:
    """The size as two integers. Raises HandgradError if it is something else."""
    try:
        height, width = (check_int("size", side, 1) for side in size)
    except (TypeError, ValueError):
        raise HandgradError(f"size must be (height, width) in pixels, got {size!r}") from None
    if max(height, width) > LARGEST_SIDE:
        raise HandgradError(f"size must be at most {LARGEST_SIDE} pixels per side, got {size!r}")
    return height, width


def _parts(path: Path) -> dict[str, Path]:
    """The folders of the training set and of the test set, or the folder itself."""
    folders = {entry.name.lower(): entry for entry in _entries(path) if entry.is_dir()}
    train = next((folders[name] for name in TRAIN if name in folders), None)
    test = next((folders[name] for name in TEST if name in folders), None)
    if train is None or not any(entry.is_dir() for entry in _entries(train)):
        return {"train": path}
    return {"train": train} | ({} if test is None else {"test": test})


def _entries(path: Path) -> list[Path]:
    """The files and folders in a folder, without hidden ones, sorted by name."""
    try:
        return sorted(entry for entry in path.iterdir() if not entry.name.startswith(HIDDEN))
    except OSError as error:
        raise HandgradError(f"cannot read {path}: {error.strerror}") from error


def _files(folder: Path) -> list[tuple[Path, str]]:
    """(image file, class) of all images in the folders of the classes, also in folders below them."""
    found = []
    for entry in _entries(folder):
        if entry.is_dir():
            for directory, folders, names in os.walk(entry):
                folders[:] = sorted(name for name in folders if not name.startswith(HIDDEN))
                files = (Path(directory, name) for name in sorted(names) if not name.startswith("."))
                found += [(file, entry.name) for file in files if file.suffix.lower() in SUFFIXES]
    return found


def _read(path: Path) -> NDArray[np.uint8]:
    from ..images.reading import read_image  # late: Pillow

    return _reduce(read_image(path))


def _reduce(levels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round the grey levels of an image, and reduce a large one."""
    grey = np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
    factor = min(grey.shape) // (8 * MAX_SIDE)  # so that photographs do not fill the memory
    return grey if factor < 2 else np.asarray(optional("PIL.Image").fromarray(grey).reduce(factor))


def _resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if image.shape == tuple(size):
        return image
    pillow = optional("PIL.Image")
    smaller = image.shape[0] >= size[0] and image.shape[1] >= size[1]
    resample = pillow.Resampling.BOX if smaller else pillow.Resampling.BILINEAR
    resized: NDArray[np.uint8] = np.asarray(pillow.fromarray(image).resize((size[1], size[0]), resample))
    return resized
