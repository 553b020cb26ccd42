"""Digits drawn by formula: training images in MNIST's format where MNIST itself is out of reach.

    hand ──► control points ──► pen path ──► 20x20 box ──► ink ──────► 28x28 field
             jitter, bend,      x = c C      longer side   separable   centre of mass
             lean, turn                      fills it      brush       on pixel (14, 14)

A hand is one way to write a digit: a few strokes, each a smooth curve through a few control points. They are written
down in the table below; no pixel comes from anywhere else. Every image jitters and bends its hand anew. The box and the
centring are MNIST's (LeCun, Bottou, Bengio & Haffner 1998, section III.A).
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

# The hands of each digit, parted by two spaces or more. A word is a control point: x to the right, y down, in ninths.
# The pen runs through them smoothly, turns sharply at a point marked ', and is lifted between strokes at a /.
# Every hand of a digit is equally likely; the bare 1, which most people write, stands four times.
HANDS = (
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

# What varies from image to image is uniform, a middle ± a reach. Tuned by networks that train on drawn digits alone and
# read a validation split of MNIST's training set; proportion, lean and pen start from what is measured there.
PROPORTION = np.array([0.9, 0.9, 0.9, 0.8, 0.75, 0.9, 0.7, 0.8, 0.75, 0.7], np.float32)  # width / height of each digit
LEAN = np.array([0.2, 0.25, 0.05, 0.1, 0.17, 0.12, 0.1, 0.1, 0.07, 0.02], np.float32)  # forward, of each digit
STRETCH = 0.35  # ± log of the proportion
SHEAR = 0.47  # ± lean, width per height
TURN = 0.17  # ± radians
BEND = 0.64  # ± each coefficient of x², xy and y² that is added to x and to y, in heights
JITTER = 0.07  # ± each coordinate of each control point, in heights
PEN = 1.35  # pixels, half the width of a stroke as long as the digit is high
PEN_SPREAD = 0.48  # ± log of the pen
SLIMMING = 0.2  # pen ∝ path length ^ -SLIMMING: the pen of a 1 would fill the loops of an 8
PRESSURE = 0.52  # ± change of ink from the middle of the path to its end, and the opposite to its beginning

BOX, FIELD, CENTRE = 20, 28, 14  # pixels
EDGE = 1.1  # pixels from paper to full ink: the anti-aliasing
CAP = 0.4  # ink that a resting pen adds at either end of a stroke; the line itself has 1
SAMPLES = 60  # points of a pen path, a pixel apart on a long one
BLOCK = 256  # images drawn at once; their largest array is 2.5 MB


def drawn_digits(train: int = 60_000, test: int = 10_000, *, seed: int = 0) -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """x_train (train, 28, 28), y_train (train,), x_test (test, 28, 28), y_test (test,), all uint8.

    Two independent streams of one seed; neither part depends on the size of the other.
    """
    train_rng, test_rng = (np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(2))
    return *draw(train, rng=train_rng), *draw(test, rng=test_rng)


def draw(count: int, *, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
    """images (count, 28, 28) uint8, ink 255 on paper 0; labels (count,) uint8, every digit equally likely.

    HandgradError: the count is negative.
    """
    if count < 0:
        raise HandgradError(f"cannot draw {count} digits: the count must be 0 or more")
    images = np.zeros((count, FIELD, FIELD), np.uint8)
    labels = np.empty(count, np.uint8)
    for start in range(0, count, BLOCK):
        block = slice(start, start + BLOCK)
        _draw_block(images[block], labels[block], rng)
    return images, labels


class Templates(NamedTuple):
    """The hands as arrays, of K control points (zeros where a hand has fewer) and P samples."""

    control: Float  # c (hands, 2, K): rows x and y, the origin in the middle of the unit square
    curve: Float  # C (hands, K, P): the samples of the path are c C
    tangent: Float  # T (hands, K, P): from one sample to the next it is c T
    ends: Float  # (hands, P): 1 where a stroke begins or ends, else 0
    first: NDArray[np.intp]  # (11,): the hands of digit d are first[d], ..., first[d + 1] - 1


@functools.cache
def templates() -> Templates:
    """The table of hands, compiled once."""
    hands = [re.split(r"\s{2,}", text.strip()) for text in HANDS]
    n_points = max(len(hand.replace("/", "").split()) for of_digit in hands for hand in of_digit)
    compiled = [_compile(hand, n_points) for of_digit in hands for hand in of_digit]
    control, curve, tangent, ends = (np.stack(part).astype(np.float32) for part in zip(*compiled, strict=True))
    return Templates(control, curve, tangent, ends, first=np.cumsum([0, *map(len, hands)]))


def _compile(hand: str, n_points: int) -> tuple[Double, Double, Double, Double]:
    """control (2, n_points), C and T (n_points, P), ends (P,) of one hand, its samples equally far apart.

    Between the control points c₁ and c₂ the pen follows the Catmull-Rom spline (Catmull & Rom 1974), 0 <= t <= 1,

        x(t) = (1 t t² t³) M (c₀ c₁ c₂ c₃)ᵀ,    linear in c,

    with a point reflected where the smooth piece has no further one: c₀ = 2 c₁ - c₂.
    """
    strokes = [stroke.split() for stroke in hand.split("/")]
    points = [[int(word[0]), int(word[1])] for words in strokes for word in words]
    control = np.zeros((n_points, 2))
    control[: len(points)] = np.array(points) / 9 - 0.5

    neighbours, stroke_of = [], []  # of each segment: which control points are its c₀ c₁ c₂ c₃; its stroke
    pick = np.eye(n_points)
    for stroke, words in enumerate(strokes):
        corners = [i for i, word in enumerate(words) if word.endswith("'")]
        for start, end in itertools.pairwise([0, *corners, len(words) - 1]):
            piece = pick[start : end + 1]
            c = np.vstack([2 * piece[0] - piece[1], piece, 2 * piece[-1] - piece[-2]])
            neighbours += [c[i : i + 4] for i in range(end - start)]
            stroke_of += [stroke] * (end - start)
        pick = pick[len(words) :]
    M = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
    spline = M @ np.stack(neighbours)  # (segments, 4, n_points)

    def velocity(t: Double) -> Double:
        return np.stack([0 * t, t**0, 2 * t, 3 * t**2], axis=-1)

    fine = (np.arange(64) + 0.5) / 64
    speed = np.linalg.norm(velocity(fine) @ spline @ control, axis=-1)  # |dx/dt| (segments, 64)
    length = np.cumsum([0, *speed.ravel() / 64])
    step = length[-1] / SAMPLES
    where = np.interp(step * (np.arange(SAMPLES) + 0.5), length, np.arange(length.size) / 64)
    segment = where.astype(int)
    t = where - segment
    at = spline[segment]  # (P, 4, n_points)
    curve = np.einsum("pi,pik->pk", np.stack([t**0, t, t**2, t**3], axis=-1), at)
    tangent = np.einsum("pi,pik->pk", velocity(t), at)
    tangent *= step / np.linalg.norm(tangent @ control, axis=-1, keepdims=True)

    pen = np.array([-1, *np.array(stroke_of)[segment], -1])
    lifted = pen[1:] != pen[:-1]
    ends = lifted[1:] | lifted[:-1]
    return control.T, curve.T, tangent.T, ends.astype(float)


def _draw_block(images: Bytes, labels: Bytes, rng: np.random.Generator) -> None:
    """Fill labels (n,) and images (n, 28, 28), which come blank."""
    n = len(images)
    control, curve, tangent, ends, first = templates()
    n_points = control.shape[2]
    chance = rng.random((n, 13 + 2 * n_points), dtype=np.float32)  # in [0, 1), one row per image
    which_digit, which_hand = chance[:, :2].T.astype(np.float64)  # in float32, 10 times the largest chance is 10
    labels[:] = digit = (10 * which_digit).astype(np.intp)
    hand = (first[digit] + which_hand * (first[digit + 1] - first[digit])).astype(np.intp)
    vary = 2 * chance[:, 2:] - 1
    stretch, shear, turn, pen, press = vary[:, :5].T
    bend, jitter = vary[:, 5:11].reshape(n, 2, 3), vary[:, 11:].reshape(n, 2, n_points)

    # Control points: jittered, bent, then stretched, slanted and turned.
    c = control[hand] + JITTER * jitter  # (n, 2, K)
    x, y = c[:, :1], c[:, 1:]
    c += BEND * bend @ np.concatenate([x * x, x * y, y * y], axis=1)
    width = PROPORTION[digit] * np.exp(STRETCH * stretch)
    lean = LEAN[digit] + SHEAR * shear  # y points down: forward is x - lean y
    cos, sin = np.cos(TURN * turn), np.sin(TURN * turn)
    A = np.array([[width * cos, -lean * cos - sin], [width * sin, -lean * sin + cos]])
    c = A.transpose(2, 0, 1) @ c

    # Path, and a pen of half the width w, scaled so that the longer side of the inked box is 20 pixels.
    path = c @ curve[hand]  # (n, 2, P)
    dx, dy = np.moveaxis(c @ tangent[hand], 1, 0)
    length = np.sqrt(dx * dx + dy * dy)  # (n, P)
    low, high = path.min(axis=2, keepdims=True), path.max(axis=2, keepdims=True)
    side = (high - low).max(axis=(1, 2))
    w = PEN * np.exp(PEN_SPREAD * pen) * (side / length.sum(axis=1)) ** SLIMMING
    scale = (BOX - 2 * w) / side
    path = (path - (low + high) / 2) * scale[:, None, None] + (BOX - 1) / 2
    pressure = 1 + PRESSURE * press[:, None] * np.linspace(-1, 1, SAMPLES, dtype=np.float32)
    _place(_ink(path, length * scale[:, None], ends[hand], pressure, w), images)


def _ink(path: Float, length: Float, ends: Float, pressure: Float, w: Float) -> Float:
    """Grey (n, 20, 20), paper 0 to ink 255, of paths (n, 2, P) whose samples are `length` (n, P) long, all in pixels.

    ends (n, P) is 1 where a stroke begins or ends; pressure (n, P) is 1 on average; w (n,) is half the line's width.

    The brush is separable, so the ink of an image is one product of two matrices:

        g(r, c) = Σₚ mₚ exp(-(r - yₚ)² / 2s²) exp(-(c - xₚ)² / 2s²)
        mₚ = (lengthₚ / (s √2π) + CAP endsₚ) pressureₚ

    Beside a long line that is g(u) = exp(-u² / 2s²) at the distance u. Where half the stroke is w wide, the grey is

        255 (½ + (g - g(w)) s² / (w g(w) EDGE)) = slope g / g(w) + 255/2 - slope,    slope = 255 s² / (w EDGE),

    cut off at 0 and 255: half grey at u = w, falling there by 1 / EDGE per pixel; no g is no grey if s² >= w EDGE / 2.
    """
    s = np.sqrt(np.maximum(w * w, w * EDGE) / 2)
    slope = 255 * s * s / (w * EDGE)
    m = (length / (math.sqrt(2 * math.pi) * s)[:, None] + CAP * ends) * pressure
    m *= (slope * np.exp(w * w / (2 * s * s)))[:, None]  # slope / g(w)
    pixel = np.arange(BOX, dtype=np.float32)
    brush = path[:, :, None] - pixel[:, None]  # (n, 2, 20, P), in place from here on: the function takes half the time
    brush *= brush
    brush *= (-0.5 / (s * s))[:, None, None, None]
    np.exp(brush, out=brush)
    across, down = brush[:, 0], brush[:, 1]
    grey: Float = (down * m[:, None]) @ across.swapaxes(1, 2)
    grey += (255 / 2 - slope)[:, None, None]
    return np.clip(grey, 0, 255, out=grey)


def _place(grey: Float, images: Bytes) -> None:
    """Copy grey (n, 20, 20) into images (n, 28, 28), by whole pixels, the centre of mass to pixel (14, 14).

    It comes within half a pixel, unless the box would leave the field: then the box lies at the field's edge.
    """
    pixel = np.arange(BOX, dtype=np.float32)
    rows, columns = grey.sum(axis=2), grey.sum(axis=1)
    centre = np.stack([rows @ pixel, columns @ pixel]) / rows.sum(axis=1)
    top, left = np.rint(CENTRE - centre).clip(0, FIELD - BOX).astype(int).tolist()
    for image, ink, i, j in zip(images, np.rint(grey).astype(np.uint8), top, left, strict=True):
        image[i : i + BOX, j : j + BOX] = ink
