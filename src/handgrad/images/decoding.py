"""Decoding of image files: PNG, JPEG, GIF, BMP, TIFF, WebP, PPM and npy, in bounded memory.

The size is checked before the pixels are decoded, and large images are reduced strip by strip.
"""

from __future__ import annotations

import io
import math
import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import HandgradError, optional

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of red, green and blue in grey: ITU-R BT.601
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # JPEG includes MPO, photographs of some telephones
# Endings of the names of the files that are read in a directory.
_NAMES = ".png .jpg .jpeg .jpe .mpo .gif .bmp .dib .tif .tiff .webp .ppm .pgm .pbm .pnm .npy"
SUFFIXES = frozenset(_NAMES.split())
MAX_PIXELS = 128_000_000  # of an image file
MAX_WEBP_PIXELS = 32_000_000  # the decoder needs 16 bytes per pixel, others 4
MAX_ASPECT = 100  # longer side relative to the shorter side
MAX_BYTES = 1 << 30  # of an npy file or a pipe
KEPT_PIXELS = 2_000_000  # larger images are reduced to at most this number of pixels
STRIP_PIXELS = 4_000_000  # number of pixels that are converted at a time
MIN_HIDDEN = 24  # grey levels between the strokes and the colour of transparent pixels
ORIENTATION = 0x0112  # EXIF tag
TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {  # by the value of the EXIF tag
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x.swapaxes(0, 1)[::-1],
}


class Picture(NamedTuple):
    """The pixels of an image.

    Attributes
    ----------
    levels : ndarray of float32, shape (height, width, 1) or (height, width, 3)
        Grey levels or red, green and blue, 0 to 255. Reduced if the image is large.
    height, width : int
        Size of the image before it was reduced.
    """

    levels: NDArray[np.float32]
    height: int
    width: int


def open_picture(source: Any) -> Picture:
    """Read an image from a file, a binary stream, bytes, a Pillow image or an array.

    Parameters
    ----------
    source : str, path-like, binary stream, bytes, PIL.Image.Image or array-like
        See `handgrad.images.predict_image`.

    Returns
    -------
    Picture

    Raises
    ------
    HandgradError
        If the image cannot be read, is too large, or holds values that are not grey levels.
    """
    if isinstance(source, bytes | bytearray):
        return _decode("the image", io.BytesIO(source))
    if hasattr(source, "read") and not hasattr(source, "getbands"):
        return _decode("the image", io.BytesIO(_limited("the image", source)))
    if hasattr(source, "getbands"):  # a Pillow image
        try:
            return _from_pillow(source)
        except OSError as error:
            raise HandgradError(f"the image cannot be read: {error}") from error
    if not isinstance(source, str | os.PathLike):
        return from_array(source)
    path = Path(source)
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return _decode(str(path), io.BytesIO(_limited(str(path), file)))
            return _decode(str(path), file)
    except OSError as error:
        raise HandgradError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # a name with a null character
        raise (
            error if isinstance(error, HandgradError) else HandgradError(f"cannot read {path!s:.200}: {error}")
        ) from error


def _limited(what: str, stream: Any) -> bytes:
    """Read a stream that cannot be positioned, at most MAX_BYTES."""
    data = stream.read(MAX_BYTES + 1)
    if not isinstance(data, bytes):
        raise HandgradError(f"{what} is a text stream: expected a file opened in binary mode")
    if len(data) > MAX_BYTES:
        raise HandgradError(f"{what} has more than {MAX_BYTES:,} bytes")
    return data


def _decode(what: str, file: BinaryIO) -> Picture:
    """Decode an npy file or an image file."""
    magic = file.read(6)
    file.seek(0)
    if magic == np.lib.format.MAGIC_PREFIX or what.endswith(".npy"):
        array = _read_npy(what, file)
        try:
            return from_array(array)
        except HandgradError as error:
            raise HandgradError(f"{what}: {error}") from error
    if magic[:4] == b"PK\3\4":
        raise HandgradError(f"{what} is a zip or npz file: expected one image, or a file saved by numpy.save")
    module = optional("PIL.Image")
    module.init()  # registers the formats
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of oddities, and of images below our limit
            with module.open(file, formats=FORMATS) as image:
                return _from_pillow(image, what)
    except module.UnidentifiedImageError as error:
        raise HandgradError(
            f"cannot read {what}: not an image, or damaged; expected PNG, JPEG, GIF, BMP, TIFF, WebP, PPM or npy"
        ) from error
    except module.DecompressionBombError as error:
        raise HandgradError(f"{what} is too large: {error}") from error
    except HandgradError:
        raise
    except Exception as error:  # Pillow raises exceptions of more than ten kinds for damaged files
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise HandgradError(f"cannot read {what}: not an image, or a truncated or damaged image: {reason}") from error


# ---- Pillow ----------------------------------------------------------------------------------------------------------


def check_size(what: str, height: int, width: int, limit: int | None = None) -> None:
    """Check the size of an image before its pixels are decoded. Raises HandgradError if it is too large."""
    limit = MAX_PIXELS if limit is None else limit
    if height * width > limit:
        raise HandgradError(f"{what} is too large: {width}x{height} pixels, expected at most {limit:,} pixels")
    if max(height, width) > MAX_ASPECT * max(min(height, width), 1):
        raise HandgradError(
            f"{what} has {width}x{height} pixels: expected an image at most {MAX_ASPECT} times as long as wide"
        )


def _from_pillow(image: Any, what: str = "the image") -> Picture:
    width, height = image.size
    check_size(what, height, width, MAX_WEBP_PIXELS if image.format == "WEBP" else MAX_PIXELS)
    factor = _factor(height, width)
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # damaged EXIF data: exceptions of many kinds
        orientation = None
    if factor > 1 and image.format in ("JPEG", "MPO"):
        image.draft(None, (width // factor, height // factor))  # the decoder itself reduces by 2, 4 or 8
        factor = _factor(image.size[1], image.size[0])
    try:
        levels = _levels(image, factor)
    except HandgradError as error:
        raise HandgradError(f"{what}: {error}") from error
    if orientation in TURNS:
        levels = TURNS[orientation](levels)
        height, width = (width, height) if orientation >= 5 else (height, width)
    return Picture(np.ascontiguousarray(levels), height, width)


def _factor(height: int, width: int) -> int:
    """The factor by which both sides are reduced."""
    return max(1, math.ceil(math.sqrt(height * width / KEPT_PIXELS)))


def _levels(image: Any, factor: int) -> NDArray[np.float32]:
    """The pixels, reduced strip by strip: (height, width, 1 or 3)."""
    if image.mode.startswith(("I", "F")):  # 16 or more bits per pixel
        deep = _reduced(image, None, factor)
        if image.mode.startswith("I") and deep.max() > 255:
            deep = deep * np.float32(255 / 65535)
        return from_array(deep).levels
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        premultiplied = _reduced(image, "RGBa", factor).astype(np.float32)
        return _on_background(premultiplied[..., :3], premultiplied[..., 3] / np.float32(255))
    grey = image.mode in ("L", "1")
    levels = _reduced(image, "L" if grey else "RGB", factor).astype(np.float32)
    return levels[..., None] if grey else levels


def _reduced(image: Any, mode: str | None, factor: int) -> NDArray[Any]:
    """Convert to a mode and reduce: mean over blocks of factor x factor pixels."""
    width, height = image.size
    rows = max(1, STRIP_PIXELS // max(width, 1) // factor) * factor
    strips = []
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height))) if rows < height else image
        if mode is not None and strip.mode != mode:
            if mode == "RGBa" and strip.mode != "RGBA":
                strip = strip.convert("RGBA")
            strip = strip.convert(mode)
        if mode is None:
            strips.append(block_mean(np.asarray(strip), factor))
        else:
            strips.append(np.asarray(strip if factor == 1 else strip.reduce(factor)))
    return strips[0] if len(strips) == 1 else np.concatenate(strips)


def block_mean(x: NDArray[Any], factor: int) -> NDArray[np.float32]:
    """Mean over blocks of factor x factor pixels; incomplete blocks at the border count their own pixels."""
    if factor == 1:
        return np.asarray(x, np.float32)
    for axis in (0, 1):
        starts = np.arange(0, x.shape[axis], factor)
        counts = np.diff(np.append(starts, x.shape[axis])).astype(np.float32)
        x = np.add.reduceat(x, starts, axis=axis, dtype=np.float32)
        x = x / counts.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return np.asarray(x, np.float32)


def _on_background(premultiplied: NDArray[np.float32], alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """Place an image with transparent pixels on a background from which its strokes differ.

    If most pixels are visible, the background is their median. If only the strokes are visible, it is white or black:
    the pixels at the edge of a stroke are between the stroke and the background that it was drawn on. If they have the
    colour of the stroke, the background is white for dark strokes and black for bright strokes.
    """
    colours = premultiplied / np.maximum(alpha, 1 / 255)[..., None]
    grey = colours @ LUMA
    visible = alpha > 0.5
    background = np.full(3, 255, np.float32)
    if visible.any():
        inside = visible.copy()
        inside[1:] &= visible[:-1]
        inside[:-1] &= visible[1:]
        inside[:, 1:] &= visible[:, :-1]
        inside[:, :-1] &= visible[:, 1:]
        edge = visible & ~inside
        if 2 * visible.sum() > visible.size and float(grey[visible].std()) > MIN_HIDDEN / 2:
            background = np.median(colours[visible], axis=0).astype(np.float32)
        else:
            stroke = float(np.median(grey[inside if inside.any() else visible]))
            change = float(grey[edge].mean()) - stroke if inside.any() and edge.any() else 0.0
            white = change > 0 if abs(change) > 4 else stroke < 128
            if (white and stroke > 255 - MIN_HIDDEN) or (not white and stroke < MIN_HIDDEN):
                white = not white
            background = np.full(3, 255 if white else 0, np.float32)
    return premultiplied + (1 - alpha[..., None]) * background


# ---- Arrays ----------------------------------------------------------------------------------------------------------


def _read_npy(what: str, file: BinaryIO) -> NDArray[Any]:
    """Map an npy file into memory, after its header was checked."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
    except Exception as error:  # a damaged header is parsed as Python text: exceptions of many kinds
        raise HandgradError(f"{what} does not contain a numeric array: expected a file saved by numpy.save") from error
    if dtype.kind not in "uifb" or not shape or min(shape) < 1:
        raise HandgradError(f"{what} contains {dtype} of shape {shape}: expected one image (height, width) of numbers")
    height_width = sorted(shape)[-2:]
    check_size(what, *(height_width if len(shape) > 1 else (1, 1)))
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_BYTES:
        raise HandgradError(f"{what} is too large: {size:,} bytes, expected at most {MAX_BYTES:,}")
    data = file.read(size)
    if len(data) < size:
        raise HandgradError(f"{what} is truncated: {len(data):,} bytes of pixels, expected {size:,}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def from_array(array: Any) -> Picture:
    """Convert an array to levels from 0 to 255.

    Parameters
    ----------
    array : array-like
        Shape (height, width), or with 1, 3 or 4 channels last or first; leading axes of length 1 are ignored. Integers
        and floats up to 255 are grey levels. Floats in [0, 1] and booleans are multiplied by 255. Numbers below 0 or
        above 255, for example standardized pixels, are scaled so that the lowest is 0 and the highest is 255.

    Raises
    ------
    HandgradError
        For other shapes, values that are not finite, and other dtypes.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = np.asarray(array)
    except Exception as error:  # ragged lists, tensors on other devices
        raise HandgradError(f"expected an image file or an array, got {type(array).__name__}: {error}") from error
    if array.dtype.kind not in "uifb":
        raise HandgradError(f"the image has dtype {array.dtype}: expected numbers (height, width)")
    array = _channels_last(array)
    height, width = array.shape[:2]
    if min(height, width) < 3:
        raise HandgradError(f"image of {width}x{height} pixels: expected at least 3x3 pixels")
    check_size("the image", height, width)
    kind = array.dtype.kind
    with np.errstate(over="ignore", invalid="ignore"):  # checked below
        levels = block_mean(array, _factor(height, width))
    if not np.abs(levels).max() < 1e6:  # false for NaN, too
        if not np.isfinite(levels).all():
            raise HandgradError("the image contains NaN or infinity: expected grey levels")
        raise HandgradError("the image has values outside 0 to 255: expected grey levels, or floats in [0, 1]")
    low, high = float(levels.min()), float(levels.max())
    if low < 0 or high > 255.5:
        low, high = (0.0, 65535.0) if kind == "u" else (low, max(high, low + 1e-3))
        levels = (levels - np.float32(low)) * np.float32(255 / (high - low))
    elif kind == "b" or (kind == "f" and high <= 1):
        levels = levels * np.float32(255)
    if levels.shape[2] == 4:
        alpha = np.clip(levels[..., 3:] / np.float32(255), 0, 1)
        levels = _on_background(levels[..., :3] * alpha, alpha[..., 0])
    return Picture(levels, height, width)


def _channels_last(array: NDArray[Any]) -> NDArray[Any]:
    """(height, width, channels) with 1, 3 or 4 channels."""
    shape = array.shape
    while array.ndim > 3 and len(array) == 1:
        array = array[0]
    if array.ndim == 2:
        array = array[..., None]
    elif array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise HandgradError(
            f"image has shape {shape}: expected (height, width) or (height, width, channels) with 1, 3 or 4 channels"
        )
    return array
