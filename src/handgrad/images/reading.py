"""Images of digits: finding the digits, preparing each one as in MNIST, and predicting its class.

The digits of MNIST were cropped, scaled with their aspect ratio kept to fit 20 of the 28 pixels, and placed with their
centre of mass at the centre of the image, bright strokes on a dark background: LeCun et al. (1998), section III.A. A
network that is trained on such digits only recognizes digits that are prepared in the same way. An image for a network
with other classes is prepared as the images of a folder of training images.
"""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import HandgradError, optional
from ..model import Model, binary_to_two_columns
from . import detector
from .decoding import LUMA, Picture, from_array, open_picture
from .segmentation import Region, find_filling_digit, find_regions, label

Grey = NDArray[np.float32]  # (height, width), grey levels

DIGIT_SIZE = 20 / 28  # the longer side of the digit, as a fraction of the image
OVERSAMPLING = 4  # resolution at which strokes are measured, relative to the result
MIN_STROKE = 1.6 / 20  # stroke width relative to the digit: MNIST has 2 to 3 of 20 pixels, thinner strokes are misread
TARGET_STROKE = 2.2 / 20  # stroke width relative to the digit after thickening

SURE = 0.6  # an answer with a lower confidence is "not sure"
MAX_DIGITS = 64  # regions of an image that are read; more are text or texture
# Shapes outside these limits are not digits. Of the 60,000 training digits of MNIST, 0.2 % are outside.
MAX_STROKE = 0.36  # thickness of the strokes, relative to the longer side
MAX_LENGTH = 6.5  # length of the strokes, relative to the longer side
MAX_HOLES = 2  # enclosed areas
MAX_WIDTH = 1.6  # width relative to the height
NO_DIGIT = "no digit found: expected strokes that differ from the background by at least 24 of 255 grey levels"
# Degrees. A digit keeps its class if it is turned a little, a letter often does not.
ROTATIONS = (0, 10, -10, 20, -20)
DETECTOR_ROTATIONS = 3  # the first of them, which the detector was trained on
# The lowest probability of the predicted digit that the detector may give. `records/detector.py` measures it on digits
# that the detector was not trained on: less than 1 % of the digits become "not sure" because of it.
MIN_LIKENESS = 0.4


class Reading(NamedTuple):
    """The answer of a model for one region of an image.

    Attributes
    ----------
    box : (left, top, right, bottom) or None
        The bounding box in pixels of the image; None if the image is empty.
    label : str or None
        The name of the class; None if the model is not sure.
    confidence : float
        Probability of the most probable class, 0 to 1.
    reason : str
        Why the answer is not sure; empty if it is.
    probabilities : dict
        Probability of each class. The sum is at most 1.
    digit : ndarray of uint8
        The prepared image that the model has read.
    """

    box: tuple[int, int, int, int] | None
    label: str | None
    confidence: float
    reason: str
    probabilities: dict[str, float]
    digit: NDArray[np.uint8]


def predict_image(model: Model, image: str | os.PathLike[str] | ArrayLike | Any) -> list[Reading]:
    """Find the digits in an image and predict the class of each one, or predict the class of the whole image.

    The image is searched for digits or letters if the names of all classes are single digits or letters. The light may
    be uneven, the paper may be ruled or squared, and there may be dust, a frame or the edge of a table. The strokes may
    be dark on a bright background or bright on a dark one.

    For a model with other classes, the whole image is prepared as `handgrad.data.load` prepares a folder of images.

    Parameters
    ----------
    model : Model
        A classifier of images: its `image_shape` is set.
    image : str, path-like, binary stream, bytes, PIL.Image.Image or array-like
        A file in one of the formats PNG, JPEG, GIF, BMP, TIFF, WebP, PPM or npy; an image of Pillow; or an array
        (height, width), (height, width, channels) or (channels, height, width) with 1, 3 or 4 channels. Arrays hold
        integers 0 to 255, floats in [0, 1], or standardized floats.

    Returns
    -------
    list of Reading
        One for each digit, line by line from left to right, or one for the whole image. An answer that is not sure
        has the label None and a reason: the confidence is below 60 %, the shape is not a digit's (a letter, a block, a
        scribble), or the image is empty. The list is never empty.

    Raises
    ------
    HandgradError
        If the image cannot be read, or if the model is not a classifier of images.

    Notes
    -----
    The confidence is the mean probability over five rotations of the digit, from -20 to 20 degrees. A digit that the
    model knows has the same class in all of them. Letters and damaged digits often have not.

    A second network, the detector, has learned the difference between digits and letters, scribbles or symbols. It is
    used if the model reads digits, and it must agree with the model.

    Examples
    --------
    >>> from handgrad.images import predict_image
    >>> [reading.label for reading in predict_image(model, "42.png")]  # doctest: +SKIP
    ['4', '2']
    """
    if model.image_shape is None:
        raise HandgradError("the model has no image shape: it was not trained on images")
    if not model.loss.is_classification:
        raise HandgradError(f"the model is a regression with the loss {model.loss!r}: expected a classifier")
    shape = model.image_shape
    picture = open_picture(image)
    if not reads_characters(model):
        return [_read_whole(model, picture, shape)]
    regions = _regions(picture.levels)
    if not regions:
        return [Reading(None, None, 0.0, NO_DIGIT, dict.fromkeys(model.classes, 0.0), np.zeros(shape, np.uint8))]
    scale_y, scale_x = picture.height / picture.levels.shape[0], picture.width / picture.levels.shape[1]
    digits = [_prepare(region.strokes, shape, picture.levels.shape[:2]) for region in regions]
    views = np.stack([_rotate(digit, degrees) for digit in digits for degrees in ROTATIONS])
    detected = _detect(views) if detector.reads_digits(model) else None
    readings = []
    for i, (region, digit, p) in enumerate(zip(regions, digits, _mean_probabilities(model, views), strict=True)):
        left, top, right, bottom = region.box
        box = (
            round(left * scale_x),
            round(top * scale_y),
            min(round(right * scale_x), picture.width),
            min(round(bottom * scale_y), picture.height),
        )
        reason = shape_reason(region.strokes) or _confidence_reason(p)
        if not reason and detected is not None:
            reason = _detector_reason(detected[i], int(p.argmax()))
        readings.append(_reading(model, box, p, reason, digit))
    return readings


def reads_characters(model: Model) -> bool:
    """Whether the names of all classes are single characters, digits or letters: they are prepared as in MNIST."""
    return all(len(name) == 1 for name in model.classes)


def _read_whole(model: Model, picture: Picture, shape: tuple[int, int]) -> Reading:
    """Predict the class of a whole image, which is prepared as the images of a folder of training images."""
    from ..data.folders import prepare_image  # late: few programs read images of other classes

    image = prepare_image(_to_luma(picture.levels), shape)
    (p,) = _probabilities(model, image[None])
    return _reading(model, (0, 0, picture.width, picture.height), p, _confidence_reason(p), image)


def _reading(
    model: Model, box: tuple[int, int, int, int], p: NDArray[np.float64], reason: str, image: NDArray[np.uint8]
) -> Reading:
    best = int(p.argmax())
    probabilities = {name: float(value) for name, value in zip(model.classes, p, strict=True)}
    return Reading(box, None if reason else model.classes[best], float(p[best]), reason, probabilities, image)


def _confidence_reason(p: NDArray[np.float64]) -> str:
    """Return that the confidence is too low, or an empty string."""
    return f"the confidence {math.floor(100 * p.max())}% is below {SURE:.0%}" if p.max() < SURE else ""


def _probabilities(model: Model, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The probabilities (count, classes); no row has a sum above 1."""
    p = binary_to_two_columns(model.predict_proba(images)).astype(np.float64)
    p /= np.maximum(p.sum(axis=1, keepdims=True), 1)  # one sigmoid per class: the sum may be above 1
    return p


def _mean_probabilities(model: Model, views: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The mean probabilities (count, classes) over the rotations of each digit."""
    p = _probabilities(model, views)
    return np.asarray(p.reshape(-1, len(ROTATIONS), p.shape[1]).mean(axis=1))


def _detect(views: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The mean probabilities (count, 11) of the detector over the smaller rotations of each digit."""
    small = views.reshape(-1, len(ROTATIONS), *detector.SHAPE)[:, :DETECTOR_ROTATIONS]
    p = detector.probabilities(small.reshape(-1, *detector.SHAPE)).astype(np.float64)
    return np.asarray(p.reshape(len(small), DETECTOR_ROTATIONS, -1).mean(axis=1))


def _detector_reason(p: NDArray[np.float64], best: int) -> str:
    """Return why the detector does not agree that a shape is the digit `best`, or an empty string."""
    if p[best] >= MIN_LIKENESS:
        return ""
    other = int(p.argmax())
    return "this does not look like a digit" if other in (best, detector.OTHER) else f"this may also be a {other}"


def _rotate(digit: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Rotate a digit around the centre of the image, with bilinear interpolation."""
    if degrees == 0:
        return digit
    height, width = digit.shape
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    centre = np.array([[height - 1], [width - 1]]) / 2
    at = matrix @ (np.indices(digit.shape).reshape(2, -1) - centre) + centre + 1
    padded = np.pad(digit.astype(np.float32), 1)
    at = np.clip(at, 0, np.array([[height + 1], [width + 1]]) - 1e-3)
    r, c = at.astype(int)
    fr, fc = at - (r, c)
    upper = padded[r, c] * (1 - fc) + padded[r, np.minimum(c + 1, width + 1)] * fc
    below = np.minimum(r + 1, height + 1)
    lower = padded[below, c] * (1 - fc) + padded[below, np.minimum(c + 1, width + 1)] * fc
    result: NDArray[np.uint8] = np.rint(upper * (1 - fr) + lower * fr).astype(np.uint8).reshape(digit.shape)
    return result


def shape_reason(strokes: Grey) -> str:
    """Return why the shape of a region is not that of a single digit, or an empty string.

    Parameters
    ----------
    strokes : ndarray of shape (height, width)
        0 for background, 1 for strokes.
    """
    mask = strokes > 0.5
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return "there are no strokes"
    mask = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1)
    height, width = mask.shape[0] - 2, mask.shape[1] - 2
    size, area = max(height, width), int(mask.sum())
    perimeter = int((mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum()) * 0.85  # of slanted edges
    thickness = 2 * area / perimeter
    if width > MAX_WIDTH * height and size >= 8:
        return "the shape is wider than a digit: several connected digits, or a line"
    if thickness > MAX_STROKE * size and size >= 8 and area > 0.6 * height * width and height < 3 * width:
        return "the shape is a filled area, not the strokes of a digit"
    if area / thickness > MAX_LENGTH * size and size >= 16:
        return "the strokes are longer than those of a digit: a scribble or a drawing"
    holes = label(~mask)
    large = int((np.bincount(holes[0].ravel())[1:] > 0.004 * size * size).sum()) - 1  # without the outside
    if large > MAX_HOLES and size >= 16:
        return f"the shape has {large} enclosed areas: a scribble or a drawing"
    return ""


def read_image(path: str | os.PathLike[str]) -> Grey:
    """Read the grey levels of an image file.

    Parameters
    ----------
    path : str or path-like
        A PNG, JPEG, GIF, BMP, TIFF, WebP or PPM file, or an npy file. An npy file holds an array (height, width), or
        with 1, 3 or 4 channels last or first, of integers 0 to 255, floats in [0, 1] or standardized floats.

    Returns
    -------
    ndarray of float32, shape (height, width)
        Grey levels, 0 (black) to 255 (white). The rotation in a photograph's EXIF data is applied. Images of more than
        two megapixels are reduced.

    Raises
    ------
    HandgradError
        If the file cannot be read, is not a complete image, or holds values that are not grey levels.
    """
    return _to_luma(open_picture(path).levels)


def _to_luma(levels: NDArray[np.float32]) -> Grey:
    return levels[..., 0] if levels.shape[2] == 1 else levels @ LUMA


def as_digit(image: NDArray[Any], shape: tuple[int, int] = (28, 28)) -> NDArray[np.uint8]:
    """Find the digit in an image, crop, scale and centre it as in MNIST.

    `predict_image` reads files, and images with several digits.

    Parameters
    ----------
    image : ndarray, shape (height, width), (height, width, channels) or (channels, height, width)
        Levels from 0 to 255, floats in [0, 1] or standardized floats. Channels: 1 grey, 3 RGB or 4 RGBA.
    shape : tuple of int, default (28, 28)
        Height and width of the result.

    Returns
    -------
    ndarray of uint8, shape `shape`
        The digit: background 0, strokes up to 255.

    Raises
    ------
    HandgradError
        If the image has another shape, is smaller than 3x3 pixels, contains NaN or infinity, is empty, or has several
        digits.

    Examples
    --------
    >>> network.predict(as_digit(read_image("seven.png"))[None])  # doctest: +SKIP
    array([7])
    """
    levels = from_array(image).levels
    regions = _regions(levels)
    if not regions:
        raise HandgradError(NO_DIGIT)
    if len(regions) > 1:
        raise HandgradError(f"{len(regions)} digits found: expected one digit; predict_image reads several")
    return _prepare(regions[0].strokes, shape, levels.shape[:2])


def _regions(levels: NDArray[np.float32]) -> list[Region]:
    """The regions of an image, or none if there are too many."""
    height, width = levels.shape[:2]
    if min(height, width) < 3:
        raise HandgradError(f"image of {width}x{height} pixels: expected at least 3x3 pixels")
    filling = find_filling_digit(levels)
    if filling is not None and not shape_reason(filling.strokes):
        return [filling]
    regions = find_regions(levels)
    if len(regions) > MAX_DIGITS:
        raise HandgradError(f"{len(regions)} shapes found: expected at most {MAX_DIGITS} digits")
    return regions


def _prepare(strokes: Grey, shape: tuple[int, int], image_shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Scale and centre cropped strokes."""
    rows, columns = np.flatnonzero((strokes > 0.3).any(axis=1)), np.flatnonzero((strokes > 0.3).any(axis=0))
    cropped = strokes[rows[0] - 1 : rows[-1] + 2, columns[0] - 1 : columns[-1] + 2]  # includes the soft edges
    target = round(DIGIT_SIZE * min(shape))
    prepared = image_shape == shape and 0.8 * target <= max(cropped.shape) <= 1.2 * target
    if not prepared:  # an image that already has the right size is not scaled, because scaling would blur it
        cropped = _scale(cropped, target)
    return _centre(cropped * (255 / cropped.max()), shape)


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
