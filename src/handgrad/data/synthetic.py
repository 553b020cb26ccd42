"""Synthetic digits: labelled 28x28 images in MNIST's format, rendered from a table of strokes.

Use them if MNIST is not available.

    glyph ──► control points ──► path ────► 20x20 box ─────► intensity ──► 28x28 image
              jitter, bend,      x = c C    longer side      separable     centre of mass
              slant, rotation               fills the box    brush         at pixel (14, 14)

A glyph is one way to write a digit: one or more strokes, each a smooth curve through a few control points. The table
GLYPHS lists the glyphs. Every image applies a random jitter and deformation to its glyph. The size of the box and the
centring are those of MNIST.

References
----------
LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document recognition", 1998, section III.A.
Catmull & Rom, "A class of local interpolating splines", 1974.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import HandgradError

Float = NDArray[np.float32]
Double = NDArray[np.float64]
Bytes = NDArray[np.uint8]

# The glyphs of each digit, separated by two or more spaces. Each word is a control point "xy": x to the right, y down,
# both in ninths of the unit square. The path is smooth through the points, has a corner at a point marked with ', and
# is interrupted at a /. All glyphs of a digit have the same probability; therefore the plain vertical 1, which is the
# most common form, is listed four times.
GLYPHS = (
    """
    50 21 05 28 59 88 95 81 50           50 12 06 29 59 87 93 71 40           60 22 06 18 49 87 94 81 60
    60 20 05 29 69 95 70 51 42           50 31 15 28 49 78 85 71 50           70 42 15 18 39 68 86 82 70
    50 21 05 28 59 88 95 81 60 23        42 60 30 04 17 39 79 96 82 50        60 30 14 07 38 68 86 83 71 51
    71 40 12 05 28 59 88 95 81 50 30     60 31 14 07 29 69 96 93 81 50 31     83 61 31 04 17 49 88 95 82 50 22
    """,  # 0
    """
    50 54 59                             50 54 59                             50 54 59
    50 54 59                             50 43 56 49                          31 50' 54 59
    22 50' 54 59 / 29 59 89
    """,  # 1
    """
    02 31 52 45 08' 48 97                01 40 80' 44 09' 59 99               12 31 61 63 45 09' 48 88
    13 41 62 64 37 08 06 37 77           02 20 60 82 74 37 09' 49 99          13 20 60 73 55 28 09' 48 99
    01 40 70 72 55 37 08' 57 97          02 20 50 63 55 27 09' 39 59          12 40 71 63 37 09 08 37 58 99
    12 30 61 63 46 19 08 17 48 99        03 20 60 73 46 08 07 27 68 99        01 40 71 64 38 19 07 26 58 88
    02 20 60 82 75 39 09 07 26 58 98     22 50 72 64 47 19 08 27 48 69 98     02 30 60 72 54 37 09 06 26 47 99
    """,  # 2
    """
    01 30 71 63 44' 75 87 59 08          21 50 81 63 34' 65 67 49 09          21 60 91 73 54' 75 77 39 08
    11 40 71 63 44' 75 77 49 08          01 50 72 44 34' 75 87 49 08          21 40 61 63 44' 75 77 49 18
    11 40 62 43' 65 77 59 39 08          01 50 61 53 34' 66 68 49 09          12 50 81 73 45' 66 68 29 08
    11 50 72 64 34' 75 78 49 07          10 50 71 53 34' 64 76 58 09          00 50 81 54 33 64 76 68 39 08
    00 40 60 62 44 33 64 76 59 09        01 40 81 73 44' 85 97 69 29 07       11 40 71 63 34' 65 77 69 39 18
    01 40 72 44 34' 75 97 79 29 07       11 40 70 62 34' 65 76 58 28 06       02 40 81 72 44 34 54 86 88 59 18
    02 30 60 72 44 54 86 87 49 09 18     02 20 60 72 54 34' 64 86 78 49 08
    """,  # 3
    """
    10 04 25 65 80' 74 69                20 05' 75 / 80 64 59                 10 04 35 94 / 90 65 49
    20 04 25 84 / 92 75 59               30 06' 55 95 / 71 64 59              11 05 26 66 95 / 81 75 69
    10 03 04 35 75 / 80 75 79            30 13 15 45 84 / 80 65 49            10 13 05' 55 95 / 80 74 79
    60 33 06' 56 96 / 60 65 69           20 13 06' 56 96 / 63 66 69           20 13 05' 46 74 / 80 64 49
    70 25 06' 55 95 / 71 65 58
    """,  # 4
    """
    90 40' 33' 65 67 38 08               90 50 22 24 55 77 59 18 08           90 40 30 23 45 67 49 19 08
    91 40 12 04 44 86 78 49 08           80 50 30' 14 44 66 68 39 17          90 50 10' 04' 43 76 78 49 08
    90 50 20' 13' 43 66 68 39 09         30 14' 45 67 49 18 / 40 91           30 15' 34 55 58 29 08 / 30 60 80
    21 14' 34 66 58 29 08 / 31 60 90     10 12 04' 43 85 88 49 08 / 10 40 80  20 22 13' 43 75 78 49 08 / 20 50 90
    30 22 14' 44 76 68 39 08 / 30 60 91  10 12 04' 33 65 78 59 19 / 11 50 90
    """,  # 5
    """
    30 04 18 49 78 66 35 17              60 23 06 18 59 87 75 45 17           50 24 07 29 69 87 65 27 08
    40 13 06 28 69 97 85 46 28           40 14 07 39 79 87 66 37 28           70 43 16 18 49 78 76 56 27
    60 42 15 18 49 78 75 54 26           10 05 18 49 88 85 63 45 37           20 06 19 59 96 84 55 47 68
    30 15 07 29 69 87 65 37 39           80 41 15 08 39 79 86 64 36           50 13 07 39 69 87 75 55 37 39
    60 33 06 08 39 79 97 86 57 39        70 40 14 07 29 69 77 65 36 28
    """,  # 6
    """
    01 50 81 74 49                       00 40 90' 64 49                      00 40 80' 75 79
    02 31 81' 75 69                      01 30 70 91 64 49                    02 20 50 81' 64 39
    12 11 40 80' 74 69                   03 00' 50 90' 64 49                  03 01 30 61 72 55 39
    02 11 40 80 73 56 39                 10 80' 64 49 / 34 74                 00 40 90' 64 49 / 25 55 85
    00 40 80' 64 49 / 34 64 94           01 40 80' 65 59 / 35 64 94
    """,  # 7
    """
    90 40 12 34 66 78 49 18 36 63 90     81 50 12 23 65 87 49 08 16 44 72 71  50 22 33 64 86 78 49 18 26 54 73 71 50
    72 50 21 23 55 77 59 28 26 53 72 60  91 50 21 23 55 67 48 18 16 44 72 90  82 60 31 23 54 66 58 39 18 26 54 72 91
    71 40 11 13 44 67 59 29 07 35 72 71  40 11 33 65 78 59 28 26 53 81 80 51  70 30 11 13 54 87 59 18 16 44 82 80 50
    80 40 11 23 54 76 68 39 27 45 73 81  61 40 21 33 65 67 48 28 26 54 62 61  50 22 24 74 72 50 / 54 16 18 49 88 86 54
    90 60 31 23 54 66 58 29 17 35 72 90  70 30 11 23 65 77 58 38 46 73 81 70
    """,  # 8
    """
    80 30 11 14 44 82' 65 49             90 40 11 13 43 83' 65 59             80 50 11 04 34 72' 75 69
    82 60 31 13 25 54 82 76 59           72 60 31 23 34 63 72 66 49           71 50 31 13 34 63 71 75 69
    70 40 12 13 43 72 74 57 39           82 50 12 04 36 74 81' 85 79          80 40 11 04 35 73 80' 75 69
    71 40 12 14 35 63 71' 75 59          81 50 22 14 35 63 82' 65 49          80 50 22 14 44 73 80' 65 49
    70 30 02 05 35 63 81' 75 69          60 31 13 24 44 62 70' 65 59          90 50 21 13 34 63 81' 65 39
    80 40 02 04 35 64 81' 64 49          80 50 22 04 25 54 82' 66 49          81 50 21 24 54 81 75 78 49 19
    81 60 31 03 15 45 72 81' 65 39
    """,  # 9
)

# Parameters of the random variation. Each varying quantity is uniform in centre ± spread. The values were tuned with
# networks that were trained on synthetic digits alone and evaluated on a validation split of MNIST's training set.
# ASPECT_RATIO and SLANT have one value per digit; they and PEN_RADIUS started from values measured there.
ASPECT_RATIO = np.array([0.9, 0.9, 0.9, 0.8, 0.75, 0.9, 0.7, 0.8, 0.75, 0.7], np.float32)  # width / height
ASPECT_SPREAD = 0.35  # ± log of the aspect ratio
SLANT = np.array([0.2, 0.25, 0.05, 0.1, 0.17, 0.12, 0.1, 0.1, 0.07, 0.02], np.float32)  # to the right
SLANT_SPREAD = 0.47  # ± horizontal shift per height
ROTATION_SPREAD = 0.17  # ± radians
BEND_SPREAD = 0.64  # ± each coefficient of x², xy and y² that is added to x and to y, in heights
JITTER_SPREAD = 0.07  # ± each coordinate of each control point, in heights
PEN_RADIUS = 1.35  # pixels; half the width of a stroke whose length is the height of the digit
PEN_SPREAD = 0.48  # ± log of the pen radius
PEN_EXPONENT = 0.2  # pen radius ∝ path length ^ -PEN_EXPONENT: the pen radius of a 1 would fill the loops of an 8
PRESSURE_SPREAD = 0.52  # ± change of intensity from the middle of the path to its end, the opposite at its start

BOX_SIZE, IMAGE_SIZE, CENTRE = 20, 28, 14  # pixels
EDGE_WIDTH = 1.1  # pixels from background to full intensity (anti-aliasing)
CAP_INTENSITY = 0.4  # intensity added at both ends of a stroke; the line itself has 1
N_SAMPLES = 60  # sample points of a path; they are one pixel apart on a long path
CHUNK_SIZE = 256  # images rendered at once; their largest array has 2.5 MB


def synthetic_digits(train: int = 60_000, test: int = 10_000, *, seed: int = 0) -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """Render a training set and a test set of digits.

    The two sets use independent random streams of one seed. Neither set depends on the size of the other.

    Parameters
    ----------
    train, test : int
        Number of images in each set.
    seed : int
        Random seed. The same seed gives the same images on the same machine.

    Returns
    -------
    x_train : ndarray of uint8, shape (train, 28, 28)
        Training images, background 0 and strokes up to 255.
    y_train : ndarray of uint8, shape (train,)
        Training labels 0 to 9.
    x_test : ndarray of uint8, shape (test, 28, 28)
        Test images.
    y_test : ndarray of uint8, shape (test,)
        Test labels.

    Raises
    ------
    HandgradError
        If `train` or `test` is negative.
    """
    train_rng, test_rng = (np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(2))
    return *render_digits(train, rng=train_rng), *render_digits(test, rng=test_rng)


def render_digits(count: int, *, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
    """Render random digits.

    Parameters
    ----------
    count : int
        Number of images.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    images : ndarray of uint8, shape (count, 28, 28)
        Images, background 0 and strokes up to 255.
    labels : ndarray of uint8, shape (count,)
        Labels 0 to 9, all with the same probability.

    Raises
    ------
    HandgradError
        If `count` is negative.
    """
    if count < 0:
        raise HandgradError(f"cannot render {count} digits: the number of images must be 0 or more")
    images = np.zeros((count, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    labels = np.empty(count, np.uint8)
    for start in range(0, count, CHUNK_SIZE):
        chunk = slice(start, start + CHUNK_SIZE)
        _render_chunk(images[chunk], labels[chunk], rng)
    return images, labels


class GlyphArrays(NamedTuple):
    """All glyphs as arrays of K control points (padded with zeros) and P samples.

    Attributes
    ----------
    control : ndarray of shape (glyphs, 2, K)
        Control points c: rows x and y, with the origin in the middle of the unit square.
    curve : ndarray of shape (glyphs, K, P)
        Matrix C: the samples of the path are c C.
    tangent : ndarray of shape (glyphs, K, P)
        Matrix T: the vector from one sample to the next is c T.
    ends : ndarray of shape (glyphs, P)
        1 where a stroke starts or ends, else 0.
    first : ndarray of shape (11,)
        The glyphs of digit d have the indices first[d], ..., first[d + 1] - 1.
    """

    control: Float
    curve: Float
    tangent: Float
    ends: Float
    first: NDArray[np.intp]


@functools.cache
def glyph_arrays() -> GlyphArrays:
    """Convert the table of glyphs to arrays, once.

    Returns
    -------
    GlyphArrays
        Control points, spline matrices, stroke ends and offsets.
    """
    glyphs = [re.split(r"\s{2,}", text.strip()) for text in GLYPHS]
    n_points = max(len(glyph.replace("/", "").split()) for of_digit in glyphs for glyph in of_digit)
    arrays = [_glyph_to_arrays(glyph, n_points) for of_digit in glyphs for glyph in of_digit]
    control, curve, tangent, ends = (np.stack(part).astype(np.float32) for part in zip(*arrays, strict=True))
    return GlyphArrays(control, curve, tangent, ends, first=np.cumsum([0, *map(len, glyphs)]))


def _glyph_to_arrays(glyph: str, n_points: int) -> tuple[Double, Double, Double, Double]:
    """Return control (2, n_points), C and T (n_points, P) and ends (P,) of a glyph with equidistant samples.

    Between the control points c₁ and c₂ the path is a Catmull-Rom spline, 0 <= t <= 1,

        x(t) = (1 t t² t³) M (c₀ c₁ c₂ c₃)ᵀ,    linear in c.

    If c₁ is the first point of a smooth piece, c₀ is the reflection 2 c₁ - c₂. The last point is treated the same way.
    """
    strokes = [stroke.split() for stroke in glyph.split("/")]
    points = [[int(word[0]), int(word[1])] for words in strokes for word in words]
    control = np.zeros((n_points, 2))
    control[: len(points)] = np.array(points) / 9 - 0.5

    neighbours, stroke_of = [], []  # of each segment: the matrix that selects c₀ c₁ c₂ c₃; the index of its stroke
    select = np.eye(n_points)
    for stroke, words in enumerate(strokes):
        corners = [i for i, word in enumerate(words) if word.endswith("'")]
        for start, end in itertools.pairwise([0, *corners, len(words) - 1]):
            piece = select[start : end + 1]
            c = np.vstack([2 * piece[0] - piece[1], piece, 2 * piece[-1] - piece[-2]])
            neighbours += [c[i : i + 4] for i in range(end - start)]
            stroke_of += [stroke] * (end - start)
        select = select[len(words) :]
    M = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
    spline = M @ np.stack(neighbours)  # (segments, 4, n_points)

    def velocity(t: Double) -> Double:
        return np.stack([0 * t, t**0, 2 * t, 3 * t**2], axis=-1)

    fine = (np.arange(64) + 0.5) / 64
    speed = np.linalg.norm(velocity(fine) @ spline @ control, axis=-1)  # |dx/dt| (segments, 64)
    length = np.cumsum([0, *speed.ravel() / 64])
    step = length[-1] / N_SAMPLES
    position = np.interp(step * (np.arange(N_SAMPLES) + 0.5), length, np.arange(length.size) / 64)  # segment + t
    segment = position.astype(int)
    t = position - segment
    at = spline[segment]  # (P, 4, n_points)
    curve = np.einsum("pi,pik->pk", np.stack([t**0, t, t**2, t**3], axis=-1), at)
    tangent = np.einsum("pi,pik->pk", velocity(t), at)
    tangent *= step / np.linalg.norm(tangent @ control, axis=-1, keepdims=True)

    sample_stroke = np.array([-1, *np.array(stroke_of)[segment], -1])
    changes = sample_stroke[1:] != sample_stroke[:-1]
    ends = changes[1:] | changes[:-1]
    return control.T, curve.T, tangent.T, ends.astype(float)


def _render_chunk(images: Bytes, labels: Bytes, rng: np.random.Generator) -> None:
    """Write random digits to images (n, 28, 28), which must be 0, and labels (n,)."""
    n = len(images)
    control, curve, tangent, ends, first = glyph_arrays()
    n_points = control.shape[2]
    uniform = rng.random((n, 13 + 2 * n_points), dtype=np.float32)  # in [0, 1), one row per image
    u_digit, u_glyph = uniform[:, :2].T.astype(np.float64)  # in float32, 10 times the largest value rounds to 10
    labels[:] = digit = (10 * u_digit).astype(np.intp)
    glyph = (first[digit] + u_glyph * (first[digit + 1] - first[digit])).astype(np.intp)
    variation = 2 * uniform[:, 2:] - 1
    aspect, slant, rotation, pen, pressure = variation[:, :5].T
    bend, jitter = variation[:, 5:11].reshape(n, 2, 3), variation[:, 11:].reshape(n, 2, n_points)

    # Control points: add jitter, bend, then scale, slant and rotate.
    c = control[glyph] + JITTER_SPREAD * jitter  # (n, 2, K)
    x, y = c[:, :1], c[:, 1:]
    c += BEND_SPREAD * bend @ np.concatenate([x * x, x * y, y * y], axis=1)
    width = ASPECT_RATIO[digit] * np.exp(ASPECT_SPREAD * aspect)
    shear = SLANT[digit] + SLANT_SPREAD * slant  # y points down: a slant to the right is x - shear y
    cos, sin = np.cos(ROTATION_SPREAD * rotation), np.sin(ROTATION_SPREAD * rotation)
    A = np.array([[width * cos, -shear * cos - sin], [width * sin, -shear * sin + cos]])
    c = A.transpose(2, 0, 1) @ c

    # Path and pen radius w, scaled so that the longer side of the bounding box of the stroke is 20 pixels.
    path = c @ curve[glyph]  # (n, 2, P)
    dx, dy = np.moveaxis(c @ tangent[glyph], 1, 0)
    length = np.sqrt(dx * dx + dy * dy)  # (n, P)
    low, high = path.min(axis=2, keepdims=True), path.max(axis=2, keepdims=True)
    side = (high - low).max(axis=(1, 2))
    w = PEN_RADIUS * np.exp(PEN_SPREAD * pen) * (side / length.sum(axis=1)) ** PEN_EXPONENT
    scale = (BOX_SIZE - 2 * w) / side
    path = (path - (low + high) / 2) * scale[:, None, None] + (BOX_SIZE - 1) / 2
    weight = 1 + PRESSURE_SPREAD * pressure[:, None] * np.linspace(-1, 1, N_SAMPLES, dtype=np.float32)
    _paste_centred(_rasterize(path, length * scale[:, None], ends[glyph], weight, w), images)


def _rasterize(path: Float, length: Float, ends: Float, pressure: Float, w: Float) -> Float:
    """Return intensities (n, 20, 20) from 0 to 255 of paths (n, 2, P) with sample spacing `length` (n, P), in pixels.

    ends (n, P) is 1 where a stroke starts or ends; pressure (n, P) has the mean 1; w (n,) is the pen radius.

    The brush is separable, so that the intensities of an image are one product of two matrices:

        g(r, c) = Σₚ mₚ exp(-(r - yₚ)² / 2s²) exp(-(c - xₚ)² / 2s²)
        mₚ = (lengthₚ / (s √2π) + CAP_INTENSITY endsₚ) pressureₚ

    At the distance u from a long straight line, g(u) = exp(-u² / 2s²). The intensity of a stroke of radius w is

        255 (½ + (g - g(w)) s² / (w g(w) EDGE_WIDTH)) = slope g / g(w) + 255/2 - slope,
        slope = 255 s² / (w EDGE_WIDTH),

    clipped to [0, 255]: half the maximum at u = w, where it decreases by 1 / EDGE_WIDTH of the maximum per pixel.
    The intensity is 0 where g = 0 if s² >= w EDGE_WIDTH / 2.
    """
    s = np.sqrt(np.maximum(w * w, w * EDGE_WIDTH) / 2)
    slope = 255 * s * s / (w * EDGE_WIDTH)
    m = (length / (math.sqrt(2 * math.pi) * s)[:, None] + CAP_INTENSITY * ends) * pressure
    m *= (slope * np.exp(w * w / (2 * s * s)))[:, None]  # slope / g(w)
    pixel = np.arange(BOX_SIZE, dtype=np.float32)
    brush = path[:, :, None] - pixel[:, None]  # (n, 2, 20, P); computed in place, which halves the time of the function
    brush *= brush
    brush *= (-0.5 / (s * s))[:, None, None, None]
    with np.errstate(under="ignore"):  # far from the stroke
        np.exp(brush, out=brush)
    across, down = brush[:, 0], brush[:, 1]
    intensity: Float = (down * m[:, None]) @ across.swapaxes(1, 2)
    intensity += (255 / 2 - slope)[:, None, None]
    return np.clip(intensity, 0, 255, out=intensity)


def _paste_centred(intensity: Float, images: Bytes) -> None:
    """Copy intensity (n, 20, 20) into images (n, 28, 28) so that the centre of mass is near pixel (14, 14).

    The box moves by whole pixels, therefore the centre of mass is at most half a pixel away. The distance is larger
    only if the box would leave the image; the box then touches the border of the image.
    """
    pixel = np.arange(BOX_SIZE, dtype=np.float32)
    rows, columns = intensity.sum(axis=2), intensity.sum(axis=1)
    centre = np.stack([rows @ pixel, columns @ pixel]) / rows.sum(axis=1)
    top, left = np.rint(CENTRE - centre).clip(0, IMAGE_SIZE - BOX_SIZE).astype(int).tolist()
    for image, box, i, j in zip(images, np.rint(intensity).astype(np.uint8), top, left, strict=True):
        image[i : i + BOX_SIZE, j : j + BOX_SIZE] = box
