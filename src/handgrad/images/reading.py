"""Image files: reading them and preparing a digit as in MNIST.

The digits of MNIST were cropped, scaled with their aspect ratio kept to fit 20 of the 28 pixels, and placed with their
centre of mass at the centre of the image, bright strokes on a dark background: LeCun et al. (1998), section III.A. A
network that is trained on such digits only recognizes digits that are prepared in the same way.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import HandgradError, optional

Grey = NDArray[np.float32]  # (height, width), grey levels

DIGIT_SIZE = 20 / 28  # the longer side of the digit, as a fraction of the image
OVERSAMPLING = 4  # resolution at which strokes are measured, relative to the result
MIN_CONTRAST = 24  # grey levels (of 255) between strokes and background; an image with less contrast is empty
MIN_STROKE = 1.6 / 20  # stroke width relative to the digit: MNIST has 2 to 3 of 20 pixels, thinner strokes are misread
TARGET_STROKE = 2.2 / 20  # stroke width relative to the digit after thickening
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of red, green and blue in grey: ITU-R BT.601


def read_image(path: str | os.PathLike[str]) -> Grey:
    """Read the grey levels of an image file.

    Parameters
    ----------
    path : str or path-like
        A PNG or JPEG file, any other format that Pillow reads, or an npy file. An npy file holds an array
        (height, width) or (height, width, channels) of integers 0 to 255 or floats in [0, 1].

    Returns
    -------
    ndarray of float32, shape (height, width)
        Grey levels, 0 (black) to 255 (white). The rotation in a photograph's EXIF data is applied.

    Raises
    ------
    HandgradError
        If the file cannot be read, is not a complete image, or holds values that are not grey levels.
    """
    path = Path(path)
    try:
        grey = _read_npy(path) if path.suffix == ".npy" else _read_pillow(path)
    except OSError as error:
        raise HandgradError(f"cannot read {path}: {error.strerror or 'not an image, or a truncated image'}") from error
    if not np.isfinite(grey).all():
        raise HandgradError(f"{path} contains NaN or infinity: expected grey levels")
    return grey


def _read_npy(path: Path) -> Grey:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        raise HandgradError(f"{path} does not contain a numeric array: expected a file saved by numpy.save") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise HandgradError(f"{path} contains several arrays: expected a file saved by numpy.save")
    if array.dtype.kind not in "uifb" or 0 in array.shape:
        raise HandgradError(
            f"{path} contains {array.dtype} of shape {array.shape}: expected one image (height, width) of numbers"
        )
    if not (np.abs(array) < 1e6).all():  # false for NaN, too
        raise HandgradError(f"{path} contains values outside 0 to 255: expected grey levels, or floats in [0, 1]")
    try:
        return _to_grey(array * 255.0 if array.dtype.kind in "fb" and array.max() <= 1 else array)
    except HandgradError as error:
        raise HandgradError(f"{path}: {error}") from error


def _read_pillow(path: Path) -> Grey:
    image_module, ops = optional("PIL.Image"), optional("PIL.ImageOps")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of oddities in files that it can read
            warnings.simplefilter("error", image_module.DecompressionBombWarning)
            with image_module.open(path) as image:
                image = ops.exif_transpose(image)
                if image.mode.startswith(("I", "F")):  # 16 or more bits per pixel
                    deep = np.asarray(image, np.float32)
                    return deep * np.float32(255 / 65535 if deep.max() > 255 else 1)
                return _to_grey(np.asarray(image.convert("RGBA")))
    except (image_module.DecompressionBombError, image_module.DecompressionBombWarning) as error:
        raise HandgradError(f"{path} is too large: {error}") from error
    except (ValueError, SyntaxError, EOFError) as error:
        raise HandgradError(f"{path} is not an image, or is truncated: {error}") from error


def _to_grey(image: NDArray[Any]) -> Grey:
    """Convert an image (height, width), or with 1 (grey), 3 (RGB) or 4 (RGBA) channels, to grey (height, width).

    Transparent pixels become background: the median of the visible pixels if most pixels are visible. If only strokes
    are visible, the background is white for dark strokes and black for bright strokes.
    """
    levels = np.asarray(image, np.float32)
    channels = levels.shape[2] if levels.ndim == 3 else 1
    if levels.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise HandgradError(
            f"image has shape {levels.shape}: expected (height, width) or (height, width, channels) with "
            "1, 3 or 4 channels"
        )
    if channels == 1:
        return levels.reshape(levels.shape[:2])
    grey: Grey = levels[..., :3] @ LUMA
    if channels == 3:
        return grey
    alpha = levels[..., 3] / 255
    visible = grey[alpha > 0.5]
    if 2 * visible.size > grey.size:
        background = float(np.median(visible))
    else:
        background = 0.0 if alpha.any() and np.average(grey, weights=alpha) >= 128 else 255.0
    return np.asarray(alpha * grey + (1 - alpha) * background, np.float32)


def as_digit(image: NDArray[Any], shape: tuple[int, int] = (28, 28)) -> NDArray[np.uint8]:
    """Crop, scale and centre the digit in an image, as in MNIST.

    The strokes may be dark on a bright background or bright on a dark one.

    Parameters
    ----------
    image : ndarray, shape (height, width) or (height, width, channels)
        Levels from 0 to 255. Channels: 1 grey, 3 RGB or 4 RGBA.
    shape : tuple of int, default (28, 28)
        Height and width of the result.

    Returns
    -------
    ndarray of uint8, shape `shape`
        The digit: background 0, strokes up to 255.

    Raises
    ------
    HandgradError
        If the image has another shape, is smaller than 3x3 pixels, contains NaN or infinity, or is empty.

    Examples
    --------
    >>> network.predict(as_digit(read_image("seven.png"))[None])  # doctest: +SKIP
    array([7])
    """
    grey = _to_grey(image)
    strokes = _strokes(grey)
    top, bottom, left, right = _bounding_box(strokes)
    cropped = strokes[top:bottom, left:right]
    target = round(DIGIT_SIZE * min(shape))
    prepared = grey.shape == shape and 0.8 * target <= max(cropped.shape) <= 1.2 * target
    if not prepared:  # an image that already has the right size is not scaled, because scaling would blur it
        cropped = _scale(cropped, target)
    return _centre(cropped * (255 / cropped.max()), shape)


def _strokes(image: Grey) -> Grey:
    """Separate strokes from background: 0 for background, 1 for the strongest stroke; padded by 2 pixels."""
    if min(image.shape) < 3:
        raise HandgradError(f"image of {image.shape[1]}x{image.shape[0]} pixels: expected at least 3x3 pixels")
    if not np.isfinite(image).all():
        raise HandgradError("the image contains NaN or infinity: expected grey levels")
    strokes: Grey = image - _background(image)
    if -strokes.min() > strokes.max():  # the strokes differ most from the background
        strokes = -strokes
    if strokes.max() < MIN_CONTRAST:
        raise HandgradError(
            f"no digit found: expected strokes that differ from the background by at least {MIN_CONTRAST} of 255 "
            "grey levels"
        )
    strokes /= strokes.max()
    # The lowest tenth is background texture and JPEG noise.
    clear: Grey = np.clip((strokes - np.float32(0.1)) / np.float32(0.9), 0, 1)
    return np.pad(clear, 2)  # so that strokes at the border have an edge, too


def _background(image: Grey) -> Grey:
    """Fit the plane a + b row + c column to the border of the image, because light often comes from one side."""
    height, width = image.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    border = np.zeros(image.shape, bool)
    border[:2], border[-2:], border[:, :2], border[:, -2:] = True, True, True, True
    terms = np.stack([np.ones_like(rows), rows / height, columns / width], axis=-1)
    background: Grey = np.full_like(image, np.median(image[border]))
    for tolerance in (64, 12):  # grey levels from the last fit; pixels farther away belong to strokes on the border
        near = border & (np.abs(image - background) <= tolerance)
        plane, *_ = np.linalg.lstsq(terms[near], image[near], rcond=None)
        background = terms @ plane.astype(np.float32)
    return background


def _bounding_box(strokes: Grey) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the strokes, without the specks that a median filter removes."""
    image_module, filters = optional("PIL.Image"), optional("PIL.ImageFilter")
    mask = strokes > 0.3
    filtered = np.asarray(image_module.fromarray(mask.astype(np.uint8) * 255).filter(filters.MedianFilter(3))) > 0
    if 2 * filtered.sum() > mask.sum():  # otherwise the strokes are one pixel wide, and the filter removes them
        mask = filtered
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]) - 1, int(rows[-1]) + 2, int(columns[0]) - 1, int(columns[-1]) + 2  # includes the soft edges


def _scale(strokes: Grey, target: float) -> Grey:
    """Scale the longer side to `target` pixels, and thicken strokes that would be too thin to be recognized."""
    image_module, filters = optional("PIL.Image"), optional("PIL.ImageFilter")
    fine = _oversample(strokes, target)
    mask = fine > 0.5
    perimeter = int((mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum())
    thickness = 2 * int(mask.sum()) / perimeter / OVERSAMPLING  # of a long stroke: twice its area over its perimeter
    if thickness < MIN_STROKE * target:
        growth = max(1, round((TARGET_STROKE * target - thickness) * OVERSAMPLING / 2))  # on each side
        fine = np.pad(_oversample(strokes, target - 2 * growth / OVERSAMPLING), OVERSAMPLING)
        levels = image_module.fromarray(np.uint8(255 * fine))
        fine = np.float32(1 / 255) * np.asarray(levels.filter(filters.MaxFilter(2 * growth + 1)), np.float32)
    height, width = (n // OVERSAMPLING for n in fine.shape)
    scaled: Grey = fine.reshape(height, OVERSAMPLING, width, OVERSAMPLING).mean(axis=(1, 3))
    return scaled


def _oversample(strokes: Grey, target: float) -> Grey:
    """Resize to OVERSAMPLING times the final resolution, values 0 to 1, padded by one final pixel."""
    image_module = optional("PIL.Image")
    height, width = (OVERSAMPLING * max(1, round(n * target / max(strokes.shape))) for n in strokes.shape)
    scaled = np.asarray(image_module.fromarray(strokes).resize((width, height), image_module.Resampling.BICUBIC))
    padded: Grey = np.pad(np.clip(scaled / scaled.max(), 0, 1), OVERSAMPLING)
    return padded


def _centre(strokes: Grey, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Place the digit in an empty image, its centre of mass within half a pixel of the centre of the image."""
    strokes = strokes[strokes.any(axis=1)][:, strokes.any(axis=0)]
    image = np.zeros(shape, np.uint8)
    destination, source = [], []
    for axis, size in enumerate(shape):
        mass = strokes.sum(axis=1 - axis)
        centre = float(mass @ np.arange(len(mass))) / float(mass.sum())
        first = round(size / 2 - centre)
        first = min(max(first, 0), max(size - len(mass), 0))  # keeps the whole digit inside the image if it fits
        destination.append(slice(first, first + len(mass)))
        source.append(slice(0, size - first))
    rounded = np.rint(np.clip(strokes, 0, 255)).astype(np.uint8)[tuple(source)]
    image[tuple(destination)] = rounded
    return image
