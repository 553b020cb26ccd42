"""Train the detector of digits: the network in handgrad.images that decides whether a shape looks like a digit.

    python -m records.detector            writes src/handgrad/images/detector.npz and records/detector.json
    python -m records.detector --quick    few images, without writing anything
    python -m records.detector --report --fonts /usr/share/fonts/truetype/lato    only the report, with these fonts, too

The network has eleven outputs: the digits 0 to 9, and "not a digit". Digits are those of MNIST's training set,
synthetic digits, drawn digits and printed digits. All other shapes are drawn here: letters from the table of strokes
below, letters of other alphabets and punctuation marks from the fonts of Matplotlib, random scribbles, and filled
shapes. Letters that have the shape of a digit (O, I, S, Z, ...) are not used. Every shape is prepared by the same
function as in `predict_image`.

The threshold of `predict_image`, MIN_LIKENESS, was chosen on the last 10,000 digits of MNIST's training set, which are
not used in the training, and on drawings of other seeds. The report has the fractions of images that are accepted, and
accepted with a confidence above 90 %, at each threshold; 0 is without the detector. The model is the recipe `quick`,
trained on the first 50,000 digits, and the images take the whole path of `predict_image`. The report is repeated for
MNIST's test set, and for printed letters in the fonts of a directory, which should not be those of the training.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmarks.tables import machine, save_json
from handgrad import Model
from handgrad.data import load
from handgrad.data.synthetic import GLYPHS as SYNTHETIC_GLYPHS
from handgrad.data.synthetic import _glyph_to_arrays, render_digits
from handgrad.images import detector, predict_image, reading
from handgrad.images.reading import ROTATIONS, _detect, _prepare, _rotate, shape_reason
from handgrad.recipes import RECIPES, Recipe
from handgrad.wrappers import unwrap

Bytes = NDArray[np.uint8]
Labels = NDArray[np.integer[Any]]
Drawing = NDArray[np.float32]  # (height, width), 0 for paper, 1 for ink
Rng = np.random.Generator

HELD = 10_000  # digits at the end of MNIST's training set, on which the threshold is chosen
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
SIDE = 84  # pixels of a drawing
WEIGHTS = Path(detector.__file__).with_name("detector.npz")

# Letters and symbols as they are written by hand, in the format of handgrad.data.synthetic: each word is a control
# point "xy" in ninths, y down; ' marks a corner, / a new stroke; two spaces separate the variants of a letter.
GLYPHS = {
    "A": "09 50' 99 / 26 76  09 40 50 99 / 16 87  09 14 41 71 94 99 / 05 95  08 50' 98 / 15 85",
    "C": "92 61 22 05 27 69 98  81 51 22 15 17 38 68 87  93 71 31 04 06 38 78 96",
    "D": "00 09 / 00 50 83 86 59 09  10 19 / 00 40 82 87 49 09",
    "E": "90 00' 09' 99 / 04 74  80 00' 09' 89 / 04 84  81 41 12 23 54 24 06 28 58 87  80 10' 19' 99 / 14 64",
    "F": "90 00' 09 / 04 74  80 00' 09 / 05 65  90 11 / 40 49 / 24 74",
    "G": "82 51 22 05 28 68 86' 55  92 61 22 05 28 78 95' 55 / 95 99",
    "H": "00 09 / 90 99 / 04 94  10 09 / 90 89 / 05 95  00 09 / 80 89 / 05 34 84",
    "J": "80 87 59 28 06  30 90 / 60 67 49 18 06",
    "K": "00 09 / 80 04' 89  00 09 / 80 05 / 34 99  10 09 / 90 15' 54 89",
    "L": "00 09' 89  10 19' 79  20 05 09' 39 88",
    "M": "09 00' 55' 90' 99  09 20' 57' 80' 99  09 10 36 55 73 80 99  08 03 00' 46' 90' 93 98",
    "N": "09 00' 99' 90  09 10' 89' 90  08 01 00' 57 99' 95 90",
    "P": "00 09 / 00 50 82 83 64 05  10 09 / 00 60 93 65 05",
    "R": "00 09 / 00 50 82 83 64 05' 99  10 09 / 01 40 81 83 54 15' 57 99",
    "T": "00 90 / 50 59  01 90 / 50 48  00 99 / 50 59",
    "U": "00 05 28 58 86 90  00 06 28 68 96 90' 99  00 05 38 68 95 90",
    "V": "00 49' 90  00 35 49' 65 90",
    "W": "00 29' 42' 69' 90  00 17 28 46 42 46 68 87 90  00 28' 50' 78' 90",
    "X": "00 99 / 90 09  10 45 89 / 80 45 09  01 20 49 78 97 / 90 09",
    "Y": "00 44' 90 / 44 49  00 25 54 / 90 74 49",
    "a": "82 50 13 07 39 68 82 / 82 88 99  71 41 13 06 38 67 81' 79  83 51 14 16 38 67 81' 77 99",
    "printed a": "12 40 72 79 / 75 34 07 29 57 74",
    "d": "74 44 15 18 49 77 / 80 79  75 44 16 18 49 76 80' 78 99",
    "e": "05 85 82 51 22 06 28 59 88  15 75 83 52 22 15 18 49 88  06 55 83 61 22 06 28 68 97",
    "f": "91 60 42 49 / 24 84  81 60 43 48 29 / 24 84  81 61 30 33 69 38 46 75",
    "h": "00 09 / 06 34 64 77 79  10 09 / 06 34 64 66 69 99  20 19 / 17 45 74 79",
    "k": "00 09 / 73 06' 79  10 09 / 64 06' 69  00 09 / 07 44 73 54 16' 58 79",
    "m": "03 09 / 05 23 34 39 / 35 53 74 79  02 09 / 04 22 34 39 / 34 63 85 89  03 09 15 33 49 55 73 89 98",
    "n": "01 09 / 05 32 73 79  02 09 / 05 43 85 89  01 19 / 15 42 74 79 98",
    "p": "00 09 / 01 40 72 74 45 05  11 09 / 03 41 82 74 56 16",
    "r": "01 09 / 05 31 81  10 19 / 14 42 71 83  02 30 33 49 / 43 71 92",
    "t": "40 47 59 88 / 03 83  50 48 69 97 / 03 93  50 49 / 13 93",
    "u": "00 06 28 58 86 / 80 89  00 07 39 68 90' 98  01 06 38 68 86 / 81 88 99",
    "w": "00 06 28 45 42 45 68 86 90  01 29' 43' 69' 91",
    "y": "00 45 / 90 19  01 05 36 66 82 / 81 87 59 28",
    "+": "50 59 / 05 95  40 59 / 04 95",
    "tick": "05 39' 90  15 38' 90  06 19 39' 80  04 49' 91",
    "cross": "00 99 / 90 09  10 99 / 90 18  02 97 / 91 07",
    "#": "30 29 / 70 69 / 03 93 / 06 96",
    "*": "50 59 / 12 87 / 82 17  50 59 / 05 95 / 11 88 / 81 18",
    "=": "03 93 / 06 96  02 92 / 07 97",
    "arrow right": "05 95 / 62 95' 68  04 85 / 51 85' 59",
    "arrow left": "05 95 / 32 05' 38",
    "arrow up": "50 59 / 22 50' 82  50 48 / 14 50' 84",
    "arrow down": "50 59 / 26 59' 86  40 59 / 15 49' 95",
    "arrow slanted": "09 90 / 30 90' 96  00 99 / 93 99' 39  90 09 / 03 09' 69",
    "triangle": "50 09' 99' 50  00 90' 49' 00  00 95' 09' 00",
    "square": "00 09' 99' 90' 00  10 19' 89' 80' 10  02 09' 99' 92' 02",
    "diamond": "50 05' 59' 95' 50  50 15' 59' 85' 50",
    "heart": "52 30 02 15 59' 85 92 70 52",
    "star": "09 50' 99' 03' 93' 09",
    "house": "04 50' 94 / 14 19' 89' 84",
    "spiral": "55 46 34 42 63 76 58 27 14 21 61 93 97",
    "wave": "05 23 47 73 95  04 12 37 52 76 83",
    "zigzag": "00 28' 30' 58' 60' 89  08 20' 39' 50' 69' 90  00 92' 04' 96' 08  01 90' 25' 84' 09",
    "alpha": "90 56 28 06 04 22 44 77 99  91 57 38 07 04 32 54 77 98",
    "phi": "50 59 / 52 13 15 47 86 84 52  50 59 / 13 16 47 86 83 52 22",
    "pi": "01 91 / 31 29 / 71 79  02 81 / 31 38 / 60 68 79",
    "omega": "20 04 08 38 56 38 68 98 94 80  09 29 06 02 40 81 95 69 99",
    "lambda": "10 30 89 / 45 09  00 99 / 44 09",
    "brackets": "60 20' 29' 69  20 60' 69' 29  50 23 26 59 / 70 93 96 79",
    "division": "05 95 / 51 52 / 58 59",
    "stairs": "09 06' 36' 33' 63' 60' 90",
    "cup": "00 09' 69' 60 / 62 93 75 66",
    "mu": "00 09 / 05 37 66 80' 86 98",
    "capital sigma": "90 00' 54' 09' 99  81 10' 45' 18' 88",
    "capital gamma": "90 00' 09  91 10' 19",
    "capital pi": "09 00' 90' 99  08 01' 91' 98",
    "psi": "00 05 37 67 95 90 / 50 59",
    "ampersand": "99 23 31 50 62 54 17 29 58 95",
}
# Digits with straight strokes, in addition to those of handgrad.data.synthetic.
DIGIT_GLYPHS = (
    "50 04 09 99 94 50  50 05 59 95 50",
    "50 59  23 50' 59  14 50' 59  23 50' 59 / 19 89",
    "02 30 70 83 09' 99  01 50 92 46 09' 99  00 90' 94' 04' 09' 99",
    "00 90' 43' 86 69 08  01 50 82 44' 87 59 08",
    "70 79 / 70 05' 95  60 69 / 60 06' 96  80 89 / 80 06' 96  70 06' 96 / 70 79  10 05' 95 / 60 69  00 04' 94 / 90 99",
    "90 10' 04' 64 87 69 08  80 00' 04' 53 86 59 09  80 00' 04' 84' 89' 09",
    "60 14 08 59 86 64 16  50 05 18 69 87 55 16",
    "00 90' 39  00 80' 29  00 90' 39 / 24 74  02 00' 90' 49",
    "50 21 53 82 50 / 53 16 59 86 53  80 20 89 19 80",
    "80 30 02 35 82 80' 89  70 20 03 35 81 80' 59",
)
# Letters with the shape of a digit: 0 O o Q, 1 I l i, 2 Z z, 5 S s, 6 b, 8 B, 9 g q. They are a group of the report.
LOOK_ALIKES = "BIOQSZbgiloqsz"
LETTERS = "ACDEFGHJKLMNPRTUVWXYacdefhjkmnprtuvwxy"
# Other shapes of the fonts: punctuation, Greek and Cyrillic letters that do not have the shape of a digit.
SYMBOLS = "?&@#%$+*=<>^~[]{}÷×√∞∑∏∂∫≠≤≥→←↑↓✓✗★♥♠♣♦☺§¶©®†‡¥£"
GREEK = "ΓΔΘΛΞΠΣΦΨΩαγεζηλμνξπστφχψω"
CYRILLIC = "ДЖИЙЛПФЦШЩЪЫЭЮЯджилнптфцшщъыэюя"
# Fonts of Matplotlib.
FONTS = [
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSerif-BoldItalic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "STIXGeneralBolIta",
    "cmr10",
    "cmb10",
    "cmss10",
    "cmtt10",
    "cmti10",
    "cmmi10",
]


# ---- Drawings --------------------------------------------------------------------------------------------------------


def strokes(rng: Rng, glyph: str) -> Drawing:
    """A glyph of the table with jitter, bending, slant, rotation and a random pen, as synthetic digits are drawn."""
    count = len(glyph.replace("/", "").split())
    control, curve, _, ends = _arrays(glyph, count)
    x, y = c = control + rng.normal(0, 0.035, control.shape)
    c = c + rng.uniform(-0.4, 0.4, (2, 3)) @ np.stack([x * x, x * y, y * y])
    aspect, slant, turn = np.exp(rng.uniform(-0.45, 0.35)), rng.uniform(-0.15, 0.5), rng.uniform(-0.2, 0.2)
    shear = np.array([[aspect, -slant], [0, 1]])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    path = (rotation @ shear @ c) @ curve
    path = path + rng.uniform(0, 0.02) * _wobble(rng, path.shape[1])
    cuts = np.flatnonzero(ends > 0)[1:-1:2] + 1  # the ends of strokes come in pairs
    pieces = [piece.T for piece in np.split(path, cuts, axis=1)]
    if rng.random() < 0.15:  # the pen moves to the first stroke, and away from the last one
        hook = rng.uniform(0.05, 0.2, (2, 2)) * rng.choice([-1, 1], (2, 2)) * (rng.random((2, 1)) < 0.6)
        pieces[0] = np.concatenate([pieces[0][:1] + hook[:1], pieces[0]])
        pieces[-1] = np.concatenate([pieces[-1], pieces[-1][-1:] + hook[1:]])
    return _lines(pieces, _pen(rng))


def _wobble(rng: Rng, count: int) -> NDArray[Any]:
    """A smooth random displacement (2, count) along a path, with a standard deviation of about 1."""
    phases, waves = rng.uniform(0, 2 * np.pi, (2, 3, 1)), rng.uniform(1, 6, (2, 3, 1))
    wobble: NDArray[Any] = np.sin(phases + 2 * np.pi * waves * np.linspace(0, 1, count)).sum(axis=1)
    return wobble


_CACHE: dict[str, Any] = {}


def _arrays(glyph: str, count: int) -> Any:
    if glyph not in _CACHE:
        _CACHE[glyph] = _glyph_to_arrays(glyph, count)
    return _CACHE[glyph]


def _pen(rng: Rng) -> float:
    """Width of the pen relative to the drawing."""
    return float(np.exp(rng.uniform(np.log(0.04), np.log(0.2))))


def _lines(pieces: list[NDArray[Any]], pen: float) -> Drawing:
    """Draw polylines (count, 2), scaled to the drawing, with round ends."""
    points = np.concatenate(pieces)
    low, high = points.min(axis=0), points.max(axis=0)
    size = SIDE * 0.9 - pen * SIDE
    scale = size / max(float((high - low).max()), 1e-9)
    image = Image.new("L", (SIDE, SIDE))
    draw, width = ImageDraw.Draw(image), max(1, round(pen * SIDE))
    for piece in pieces:
        at = (piece - (low + high) / 2) * scale + SIDE / 2
        draw.line([tuple(point) for point in at.tolist()], fill=255, width=width, joint="curve")
        for px, py in at[[0, -1]].tolist():
            draw.ellipse((px - width / 2, py - width / 2, px + width / 2, py + width / 2), fill=255)
    return np.asarray(image, np.float32) / 255


def letter(rng: Rng) -> Drawing:
    """A handwritten letter or symbol."""
    return strokes(rng, str(rng.choice(_variants()[str(rng.choice(list(GLYPHS)))])))


def digit(rng: Rng, k: int) -> Drawing:
    """A digit, drawn as the letters are."""
    glyphs = re.split(r"\s{2,}", (DIGIT_GLYPHS if rng.random() < 0.5 else SYNTHETIC_GLYPHS)[k].strip())
    return strokes(rng, str(rng.choice(glyphs)))


def _variants() -> dict[str, list[str]]:
    return {name: re.split(r"\s{2,}", text.strip()) for name, text in GLYPHS.items()}


def printed(rng: Rng, characters: str, fonts: list[str]) -> Drawing:
    """A character of a font, slanted and stretched a little; empty if the font does not have it."""
    character, path = str(rng.choice(list(characters))), fonts[rng.integers(len(fonts))]
    key = (path, int(rng.integers(60, 90)))
    font = _CACHE.setdefault(str(key), ImageFont.truetype(*key))
    image = Image.new("L", (2 * SIDE, 2 * SIDE))
    missing = _CACHE.setdefault("missing" + str(key), bytes(font.getmask("\uffff")))
    if bytes(font.getmask(character)) in (missing, b""):
        return np.zeros((3, 3), np.float32)
    stroke = int(rng.integers(0, 3)) if rng.random() < 0.3 else 0
    ImageDraw.Draw(image).text((SIDE, SIDE), character, fill=255, font=font, anchor="mm", stroke_width=stroke)
    angle, slant, aspect = rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.3), np.exp(rng.uniform(-0.3, 0.3))
    M = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ [[aspect, slant], [0, 1]]
    offset = SIDE - M @ [SIDE, SIDE]
    rows = (*M[0].tolist(), offset[0], *M[1].tolist(), offset[1])
    image = image.transform(image.size, Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32) / 255


def scribble(rng: Rng) -> Drawing:
    """Random curves, zigzags, polylines, crossing strokes and loops, long or short, thick or thin."""
    kind, pieces = rng.random(), []
    pen = float(np.exp(rng.uniform(np.log(0.02), np.log(0.15))))
    if kind < 0.12:  # several short strokes in random directions, which cross each other
        for _ in range(rng.integers(3, 7)):
            pieces.append(rng.uniform(0.2, 0.8, 2) + rng.normal(0, 0.35, (2, 2)))
    elif kind < 0.3:  # loops: the frequencies of the two directions differ
        t, (a, b, c) = np.linspace(0, rng.uniform(1.2, 2.5), 120)[:, None], rng.uniform(0, 2 * np.pi, (3, 2))
        waves = [[1, 2], [1, 3], [3, 1]][rng.integers(3)] * np.ones((1, 2))  # (2, 1) is an 8
        pieces.append(np.sin(2 * np.pi * waves * t + a) + 0.4 * np.sin(4 * t + b) + rng.uniform(0, 1) * t * np.sin(c))
    else:
        for _ in range(rng.integers(1, 4)):
            n = int(rng.integers(5, 15))  # shorter ones look like 1, 2 and 7
            points = rng.uniform(0, 1, (n, 2))
            if kind < 0.5:  # a random walk
                points = np.cumsum(rng.normal(0, 1, (n, 2)), axis=0)
            elif kind < 0.65:  # hatching
                points = np.stack([np.arange(n) % 2 + rng.normal(0, 0.2, n), np.arange(n) / n * 2], axis=1)
                turn = rng.uniform(0, np.pi)
                points = points @ [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
            pieces.append(_smooth(points) if rng.random() < 0.6 else points)
        pieces = pieces if kind > 0.85 else pieces[:1]
    return _lines(pieces, pen)


def _smooth(points: NDArray[Any]) -> NDArray[Any]:
    """A Catmull-Rom spline through the points."""
    c = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.arange(8)[:, None, None] / 8
    a, b, d, e = c[:-3], c[1:-2], c[2:-1], c[3:]
    curve = b + t * (d - a) / 2 + t**2 * (a - 2.5 * b + 2 * d - 0.5 * e) + t**3 * (1.5 * (b - d) + (e - a) / 2)
    return np.concatenate([curve.transpose(1, 0, 2).reshape(-1, 2), points[-1:]])


def block(rng: Rng) -> Drawing:
    """A filled polygon, rectangle or ellipse, turned at random, several blots, or thick bars."""
    image = Image.new("L", (SIDE, SIDE))
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.25:  # thick bars at right angles, and a crescent
        return _bars(rng)
    for _ in range(1 if rng.random() < 0.8 else 3):
        n = int(rng.choice([3, 4, 5, 6, 8, 40]))
        angles = (
            np.sort(rng.uniform(0, 2 * np.pi, n)) if rng.random() < 0.4 else np.arange(n) * 2 * np.pi / n + np.pi / 4
        )
        radius = np.array([1, rng.uniform(0.5, 1)]) * rng.uniform(0.25, 1) * SIDE * 0.4  # narrower ones look like a 1
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius
        if rng.random() < 0.3:
            points *= rng.uniform(0.5, 1, (n, 1))
        turn = rng.uniform(0, np.pi) if rng.random() < 0.6 else rng.normal(0, 0.05)
        points = points @ [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        points += SIDE / 2 + (rng.uniform(-0.2, 0.2, 2) * SIDE)
        draw.polygon([tuple(point) for point in points.tolist()], fill=255)
    return np.asarray(image, np.float32) / 255


def _bars(rng: Rng) -> Drawing:
    """A cross, T, angle or staircase of thick bars, or a rectangle or ellipse with a bite."""
    image = Image.new("L", (SIDE, SIDE))
    draw = ImageDraw.Draw(image)
    low, high, thick = 0.1 * SIDE, 0.9 * SIDE, rng.uniform(0.2, 0.4) * SIDE
    if rng.random() < 0.5:
        x, y = rng.uniform(low, high - thick, 2)
        bar = thick * rng.uniform(0.8, 1.25)
        left = low + rng.uniform(0, 0.3) * SIDE
        draw.rectangle((x, low, x + thick, high), fill=255)
        draw.rectangle((left, y, high, min(y + bar, high)), fill=255)
    else:
        shape = draw.rectangle if rng.random() < 0.5 else draw.ellipse
        shape((low, low, high, rng.uniform(0.6, 0.9) * SIDE), fill=255)
        x, y = rng.uniform(0, 0.7, 2) * SIDE
        draw.ellipse((x, y, x + rng.uniform(0.3, 0.6) * SIDE, y + rng.uniform(0.3, 0.6) * SIDE), fill=0)
    turned = image.rotate(float(rng.uniform(0, 360)) if rng.random() < 0.4 else 90.0 * float(rng.integers(4)))
    return np.asarray(turned, np.float32) / 255


# ---- Images ----------------------------------------------------------------------------------------------------------


def enlarged(digit: Bytes, rng: Rng) -> Drawing:
    """A digit of MNIST, enlarged to 40 to 129 pixels."""
    size = int(rng.integers(40, 130))
    large = np.asarray(Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255
    return np.clip(large, 0, 1)


def prepared(drawing: Drawing, rng: Rng) -> Bytes | None:
    """The image that predict_image makes of a drawing, or None if it rejects the shape without the detector."""
    level = rng.uniform(0.25, 0.5)  # of the local threshold, with soft edges
    soft = np.clip((drawing - 0.1) / 0.9, 0, 1) if rng.random() < 0.5 else np.clip((drawing - level) * 3 + 0.5, 0, 1)
    if not (soft > 0.5).any():
        return None
    padded = np.pad(soft.astype(np.float32), 2)
    if shape_reason(padded):
        return None
    if rng.random() < 0.25:  # an image that already has the size of MNIST's, which predict_image does not scale
        rows, columns = np.flatnonzero((soft > 0.3).any(axis=1)), np.flatnonzero((soft > 0.3).any(axis=0))
        cut = Image.fromarray(np.uint8(255 * soft[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]))
        size = [max(1, round(20 * n / max(cut.size))) for n in cut.size]
        small = np.asarray(cut.resize((size[0], size[1]), Image.Resampling.BOX), np.float32) / 255
        return _prepare(np.pad(small, 3), (28, 28), (28, 28))
    return _prepare(padded, (28, 28), (0, 0))


def draw(count: int, rng: Rng, *sources: tuple[float, Callable[[Rng], Drawing]]) -> Bytes:
    """Prepared images (count, 28, 28) of drawings of several sources with these probabilities."""
    images = np.empty((count, 28, 28), np.uint8)
    p = np.array([weight for weight, _ in sources])
    done = 0
    while done < count:
        image = prepared(sources[rng.choice(len(sources), p=p / p.sum())][1](rng), rng)
        if image is not None:
            images[done] = image
            done += 1
    return images


def fonts() -> list[str]:
    """The files of the fonts."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [str(folder / f"{name}.ttf") for name in FONTS]


def not_digits(count: int, rng: Rng) -> Bytes:
    """Letters, symbols, scribbles and blocks."""
    files = fonts()
    return draw(
        count,
        rng,
        (0.40, letter),
        (0.20, lambda rng: printed(rng, LETTERS, files)),
        (0.05, lambda rng: printed(rng, SYMBOLS, files)),
        (0.05, lambda rng: printed(rng, GREEK + CYRILLIC, files)),
        (0.21, scribble),
        (0.09, block),
    )


# ---- Training --------------------------------------------------------------------------------------------------------


def drawn_digit(rng: Rng, k: int, files: list[str]) -> Bytes:
    """A prepared digit, drawn or printed."""
    return draw(1, rng, (0.6, lambda rng: digit(rng, k)), (0.4, lambda rng: printed(rng, str(k), files)))[0]


def examples(x: Bytes, y: Labels, rng: Rng, share: float = 1.0) -> tuple[Bytes, Labels]:
    """Images (count, 28, 28) for the training and their labels, 10 for "not a digit"; `x` are digits of MNIST."""
    files = fonts()
    synthetic, of_synthetic = render_digits(int(6_000 * share), rng=rng)
    k = rng.integers(0, 10, int(9_000 * share))
    own = [drawn_digit(rng, int(label), files) for label in k]
    as_photographed = [prepared(enlarged(digit, rng), rng) for digit in x[: int(20_000 * share)]]
    kept = [i for i, image in enumerate(as_photographed) if image is not None]
    half = rng.permutation(len(x))[: len(x) // 2]
    other = not_digits(int(36_000 * share), rng)
    images = [x[half], np.stack([as_photographed[i] for i in kept]), synthetic, np.stack(own), other]
    labels = [y[half], y[kept], of_synthetic, k, np.full(len(other), detector.OTHER)]
    order = rng.permutation(sum(map(len, images)))
    return np.concatenate(images)[order], np.concatenate(labels)[order]


RECIPE = Recipe(
    name="detector",
    hidden=detector.HIDDEN,
    batch_norm=True,
    deskew=True,
    shrink=detector.SHRINK,
    lr=0.01,
    batch_size=256,
    epochs=18,
    rotation=8.0,
    scale=0.08,
    shear=0.1,
    shift=0.7,
    elastic=0.7,
)


def train(x: Bytes, y: Labels, path: Path | None) -> None:
    """Train the detector, use it in this process, and write its weights."""
    model = RECIPE.train(x, y, detector.OTHER + 1)
    network, _, _, _ = unwrap(model)
    parameters = network.parameters.astype(np.float16)
    if path is not None:
        with path.open("wb") as file:
            np.savez_compressed(file, parameters=parameters)
    unwrap(detector._network())[0].parameters[:] = parameters


# ---- Report ----------------------------------------------------------------------------------------------------------


def answers(model: Model, drawings: list[Drawing]) -> NDArray[np.float64]:
    """Read drawings, dark on white, by predict_image without the detector.

    Returns
    -------
    ndarray of shape (count, 2)
        The confidence of the answer, 0 if it is not sure, and the probability that the detector gives to its digit.
    """
    result = np.zeros((len(drawings), 2))
    for row, drawing in zip(result, drawings, strict=True):
        for found in predict_image(model, 235 - 190 * np.pad(drawing, 20)):
            if found.label is not None:
                views = np.stack([_rotate(found.digit, degrees) for degrees in ROTATIONS])
                row[:] = max(tuple(row), (found.confidence, _detect(views)[0][int(found.label)]))
    return result


def printed_by(rng: Rng, characters: str, files: list[str], count: int) -> list[Drawing]:
    """Printed characters, without those that a font does not have."""
    found: list[Drawing] = []
    while len(found) < count:
        drawing = printed(rng, characters, files)
        found += [drawing] if drawing.any() else []
    return found


def measure(model: Model, digits: Bytes, rng: Rng, count: int, files: list[str]) -> dict[str, dict[str, Any]]:
    """At each threshold of the detector, the fractions of each group that are accepted, and accepted above 90 %."""
    groups = {
        "MNIST digits, enlarged": [enlarged(digit, rng) for digit in digits],
        "handwritten letters, symbols": [letter(rng) for _ in range(count)],
        "scribbles": [scribble(rng) for _ in range(count)],
        "blocks": [block(rng) for _ in range(count)],
    }
    if files:
        characters = {"letters": LETTERS, "letters like digits": LOOK_ALIKES, "digits": "0123456789"}
        groups |= {
            f"printed {name}, other fonts": printed_by(rng, text, files, count) for name, text in characters.items()
        }
    results: dict[str, dict[str, Any]] = {}
    likeness, reading.MIN_LIKENESS = reading.MIN_LIKENESS, 0.0
    for name, drawings in groups.items():
        confidence, like = answers(model, drawings).T
        results[name] = {"count": len(drawings)}
        for threshold in (0.0, *THRESHOLDS):
            accepted = (confidence > 0) & (like >= threshold)
            sure = accepted & (confidence > 0.9)
            results[name][f"{threshold:.2f}"] = [round(float(part.mean()), 4) for part in (accepted, sure)]
        print(f"{name:32}", *(f"{k} {v}" for k, v in results[name].items()), sep="  ", flush=True)
    reading.MIN_LIKENESS = likeness
    return results


def report(folders: Sequence[Path], count: int) -> dict[str, Any]:
    """Measure what is accepted: at each threshold for the validation part, and for the test set."""
    data = load("mnist")
    model = RECIPES["quick"].train(data.x_train[:-HELD], data.y_train[:-HELD], 10)
    files = sorted(str(file) for folder in folders for file in folder.rglob("*.[to]tf"))
    print("validation part", flush=True)
    validation = measure(model, data.x_train[-HELD:][: 3 * count], np.random.default_rng(2025), count, [])
    print("test set", flush=True)
    test = measure(model, data.x_test[: 3 * count], np.random.default_rng(2026), count, files)
    names = sorted({Path(file).stem for file in files})
    return {"validation": validation, "test": test, "fonts": names}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few images, write nothing")
    parser.add_argument("--report", action="store_true", help="only the report, for the weights in the package")
    parser.add_argument("--fonts", type=Path, nargs="+", default=(), metavar="DIR", help="directories of other fonts")
    parser.add_argument("--count", type=int, default=500, help="images of each group of the report")
    options = parser.parse_args()
    if not options.report:
        data, rng = load("mnist"), np.random.default_rng(0)
        first = 2_000 if options.quick else 50_000
        share = 0.05 if options.quick else 1.0
        train(*examples(data.x_train[:first], data.y_train[:first], rng, share), None if options.quick else WEIGHTS)
    results = report(options.fonts, 20 if options.quick else options.count)
    if not options.quick:
        save_json(Path(__file__).with_suffix(".json"), {"machine": machine(), **results})


if __name__ == "__main__":
    main()
