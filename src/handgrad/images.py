"""Any picture of a digit -> the one that a network learnt from: MNIST's own preparation.

MNIST's digits were cut out, scaled with their proportions kept to fit 20 of the field's 28 pixels, and placed with
their centre of mass in the field's middle, light ink on dark paper: LeCun et al. (1998), section III.A. A network that
learnt from such digits reads only such digits.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import HandgradError, optional

Grey = NDArray[np.float32]  # (height, width)

BOX = 20 / 28  # of the field is the digit's; the rest is margin
FINE = 4  # times the field's resolution, at which strokes are measured
FAINTEST = 24  # grey levels of 255 between ink and paper, below which a picture is taken to be empty
THINNEST = 1.6 / 20  # of the box: MNIST's strokes are 2 to 3 of its 20 pixels wide, and far thinner ones are not read
THICK = 2.2 / 20  # of the box, to which those are thickened
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # red, green and blue as the eye weighs them: ITU-R BT.601


def read_picture(path: str | os.PathLike[str]) -> Grey:
    """The grey levels, 0 to 255, of a picture file: PNG, JPEG, what else Pillow reads, or npy.

    An npy file holds (height, width) or (height, width, channels), bytes or floats in [0, 1].
    Raises HandgradError for what is no picture.
    """
    path = Path(path)
    try:
        grey = _read_npy(path) if path.suffix == ".npy" else _read_image(path)
    except OSError as error:
        raise HandgradError(
            f"cannot read {path}: {error.strerror or 'it is no picture, or only a part of one'}"
        ) from error
    if not np.isfinite(grey).all():
        raise HandgradError(f"{path} holds a value that is not a finite number")
    return grey


def _read_npy(path: Path) -> Grey:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        raise HandgradError(f"{path} holds no array of numbers: expected one that numpy.save wrote") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise HandgradError(f"{path} holds several arrays: expected one that numpy.save wrote")
    if array.dtype.kind not in "uifb" or 0 in array.shape:
        raise HandgradError(f"{path} holds {array.dtype} of shape {array.shape}: expected one picture (height, width)")
    if not (np.abs(array) < 1e6).all():  # nor is a NaN
        raise HandgradError(f"{path} holds values that are no grey levels: expected 0 to 255, or floats in [0, 1]")
    try:
        return _grey(array * 255.0 if array.dtype.kind in "fb" and array.max() <= 1 else array)
    except HandgradError as error:
        raise HandgradError(f"{path} holds {error}") from error


def _read_image(path: Path) -> Grey:
    image_module, ops = optional("PIL.Image"), optional("PIL.ImageOps")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd in a file that can be read all the same
            warnings.simplefilter("error", image_module.DecompressionBombWarning)
            with image_module.open(path) as image:
                image = ops.exif_transpose(image)
                if image.mode.startswith(("I", "F")):  # 16 bits a pixel and more
                    deep = np.asarray(image, np.float32)
                    return deep * np.float32(255 / 65535 if deep.max() > 255 else 1)
                return _grey(np.asarray(image.convert("RGBA")))
    except (image_module.DecompressionBombError, image_module.DecompressionBombWarning) as error:
        raise HandgradError(f"{path} is too large a picture: {error}") from error
    except (ValueError, SyntaxError, EOFError) as error:
        raise HandgradError(f"{path} is no picture, or only a part of one: {error}") from error


def _grey(picture: NDArray[Any]) -> Grey:
    """The grey levels (height, width) of a picture (height, width), or with 1, 3 or 4 channels: grey, RGB, RGBA.

    Transparent parts are paper: that of the rest, or where only strokes are to be seen, white under dark ones and black
    under light ones.
    """
    levels = np.asarray(picture, np.float32)
    channels = levels.shape[2] if levels.ndim == 3 else 1
    if levels.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise HandgradError(
            f"an array of shape {levels.shape}: expected a picture, (height, width) or (height, width, channels) with "
            "1, 3 or 4 channels"
        )
    if channels == 1:
        return levels.reshape(levels.shape[:2])
    grey: Grey = levels[..., :3] @ LUMA
    if channels == 3:
        return grey
    alpha = levels[..., 3] / 255
    seen = grey[alpha > 0.5]
    if 2 * seen.size > grey.size:
        paper = float(np.median(seen))
    else:
        paper = 0.0 if alpha.any() and np.average(grey, weights=alpha) >= 128 else 255.0
    return np.asarray(alpha * grey + (1 - alpha) * paper, np.float32)


def as_digit(picture: NDArray[Any], shape: tuple[int, int] = (28, 28)) -> NDArray[np.uint8]:
    """The digit in a picture, dark on light or light on dark, as (height, width) = `shape`, ink 255.

    picture: levels of 0 to 255, (height, width), or (height, width, channels) of 1 grey, 3 RGB or 4 RGBA.
    Raises HandgradError for another shape, and where there is no ink to be seen.
    """
    grey = _grey(picture)
    ink = _ink(grey)
    top, bottom, left, right = _box(ink)
    cut = ink[top:bottom, left:right]
    target = round(BOX * min(shape))
    prepared = grey.shape == shape and 0.8 * target <= max(cut.shape) <= 1.2 * target
    if not prepared:  # a digit of the field's own size that fits it is as it should be: scaling would only blur it
        cut = _scaled(cut, target)
    return _centred(cut * (255 / cut.max()), shape)


def _ink(picture: Grey) -> Grey:
    """0 on paper, 1 in the darkest ink (or the lightest, on dark paper)."""
    if min(picture.shape) < 3:
        raise HandgradError(f"a picture of {picture.shape[1]}x{picture.shape[0]} pixels is too small to hold a digit")
    if not np.isfinite(picture).all():
        raise HandgradError("a picture with a value that is not a finite number")
    ink: Grey = picture - _paper(picture)
    if -ink.min() > ink.max():  # the strokes are what differs most from the paper
        ink = -ink
    if ink.max() < FAINTEST:
        raise HandgradError("there is no digit in it: ink and paper have nearly the same grey, of 0 to 255")
    ink /= ink.max()
    # The lowest tenth is what is left of paper, grain and JPEG noise.
    clear: Grey = np.clip((ink - np.float32(0.1)) / np.float32(0.9), 0, 1)
    return np.pad(clear, 2)  # strokes that run to the rim have an edge as well


def _paper(picture: Grey) -> Grey:
    """The paper's grey as a plane a + b row + c column, fitted to the picture's rim: light falls from one side."""
    height, width = picture.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    rim = np.zeros(picture.shape, bool)
    rim[:2], rim[-2:], rim[:, :2], rim[:, -2:] = True, True, True, True
    terms = np.stack([np.ones_like(rows), rows / height, columns / width], axis=-1)
    paper: Grey = np.full_like(picture, np.median(picture[rim]))
    for reach in (64, 12):  # grey levels from the last fit: further off is a stroke that runs over the rim, or its edge
        near = rim & (np.abs(picture - paper) <= reach)
        plane, *_ = np.linalg.lstsq(terms[near], picture[near], rcond=None)
        paper = terms @ plane.astype(np.float32)
    return paper


def _box(ink: Grey) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the strokes; specks that a median filter removes are none."""
    image_module, filters = optional("PIL.Image"), optional("PIL.ImageFilter")
    strokes = ink > 0.3
    filtered = np.asarray(image_module.fromarray(strokes.astype(np.uint8) * 255).filter(filters.MedianFilter(3))) > 0
    if 2 * filtered.sum() > strokes.sum():  # else the strokes themselves are a pixel thin
        strokes = filtered
    rows, columns = np.flatnonzero(strokes.any(axis=1)), np.flatnonzero(strokes.any(axis=0))
    return int(rows[0]) - 1, int(rows[-1]) + 2, int(columns[0]) - 1, int(columns[-1]) + 2  # with their grey edge


def _scaled(cut: Grey, target: float) -> Grey:
    """The strokes, `target` pixels in their longer direction; thickened where they would be too thin to be read."""
    image_module, filters = optional("PIL.Image"), optional("PIL.ImageFilter")
    fine = _fine(cut, target)
    strokes = fine > 0.5
    perimeter = int((strokes[1:] != strokes[:-1]).sum() + (strokes[:, 1:] != strokes[:, :-1]).sum())
    thickness = 2 * int(strokes.sum()) / perimeter / FINE  # of a long stroke: twice its area by its outline
    if thickness < THINNEST * target:
        growth = max(1, round((THICK * target - thickness) * FINE / 2))  # on either side
        fine = np.pad(_fine(cut, target - 2 * growth / FINE), FINE)
        levels = image_module.fromarray(np.uint8(255 * fine))
        fine = np.float32(1 / 255) * np.asarray(levels.filter(filters.MaxFilter(2 * growth + 1)), np.float32)
    height, width = (n // FINE for n in fine.shape)
    small: Grey = fine.reshape(height, FINE, width, FINE).mean(axis=(1, 3))
    return small


def _fine(cut: Grey, target: float) -> Grey:
    """The strokes at FINE times the field's resolution, 0 to 1, a field pixel of paper around them."""
    image_module = optional("PIL.Image")
    height, width = (FINE * max(1, round(n * target / max(cut.shape))) for n in cut.shape)
    scaled = np.asarray(image_module.fromarray(cut).resize((width, height), image_module.Resampling.BICUBIC))
    padded: Grey = np.pad(np.clip(scaled / scaled.max(), 0, 1), FINE)
    return padded


def _centred(cut: Grey, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The digit in an empty field, its centre of mass within half a pixel of the middle."""
    cut = cut[cut.any(axis=1)][:, cut.any(axis=0)]
    field = np.zeros(shape, np.uint8)
    place, part = [], []
    for axis, size in enumerate(shape):
        mass = cut.sum(axis=1 - axis)
        centre = float(mass @ np.arange(len(mass))) / float(mass.sum())
        first = round(size / 2 - centre)
        first = min(max(first, 0), max(size - len(mass), 0))  # all of it in the field, as far as it fits
        place.append(slice(first, first + len(mass)))
        part.append(slice(0, size - first))
    rounded = np.rint(np.clip(cut, 0, 255)).astype(np.uint8)[tuple(part)]
    field[tuple(place)] = rounded
    return field
