"""Photographs of digits: accuracy of `predict_image` on synthetic photographs of MNIST's test digits.

    python -m benchmarks.photos             five minutes; benchmarks/results/photos.md and docs/howto/photos.md
    python -m benchmarks.photos --quick     half a minute: few digits, without writing anything
    python -m benchmarks.photos --digits 60 --scenes lamp "soft shadow"
    python -m benchmarks.photos --calibration

Every photograph has random parameters: size, position, grey levels, width and direction of shadows and lines. They are
drawn from two ranges. The thresholds of the segmentation were chosen on photographs of the first range and checked on a
few photographs of the second range. The photographs with two kinds at once, with the parameters of the second range,
were only used for the final measurement. The digits are the first ones of MNIST's test set, and the model is the recipe
`quick`, trained on the training set. Printed letters are in the font of Pillow, which the detector of digits has not
seen; handwritten ones are drawn as in its training, with another seed.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from handgrad import Model
from handgrad.data import load
from handgrad.data.mnist import MnistNotFoundError, load_mnist
from handgrad.images import predict_image
from handgrad.recipes import RECIPES
from handgrad.wrappers import Calibrated, fit_temperature
from records.detector import LETTERS, LOOK_ALIKES, letter

from .tables import RESULTS, about, between, machine, save, save_json, table

Grey = NDArray[np.floating[Any]]
Rng = np.random.Generator
HELD_BACK = "two kinds at once, held back"
SURE = 0.9  # "wrong with a high confidence": above this


class Sheet:
    """A photograph in progress: paper, ink (0 to 1) and random parameters of one of the two ranges."""

    def __init__(self, digit: NDArray[np.uint8], rng: Rng, other: bool, size: int | None = None) -> None:
        self.rng, self.other = rng, other
        self.height = int(self.between((280, 420), (180, 700)))
        self.width = int(self.between((260, 400), (180, 700)))
        short = min(self.height, self.width)
        size = int(short * self.between((0.45, 0.7), (0.3, 0.85))) if size is None else size
        self.top, self.left = rng.integers(0, self.height - size), rng.integers(0, self.width - size)
        self.ink = np.zeros((self.height, self.width))
        large = np.asarray(Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC)) / 255
        self.ink[self.top : self.top + size, self.left : self.left + size] = large
        self.paper, self.pen = self.between((215, 245), (150, 250)), self.between((20, 70), (10, 90))
        self.rows, self.columns = np.mgrid[0 : self.height, 0 : self.width].astype(float)
        self.image = self.paper + self.ink * (self.pen - self.paper)

    def between(self, first: tuple[float, float], second: tuple[float, float]) -> float:
        """A random number of the first range, or of the second one."""
        return float(self.rng.uniform(*(second if self.other else first)))

    def edge(self, softness: float) -> Grey:
        """0 on one side of a line in a random direction near the middle, 1 on the other side."""
        angle = self.rng.uniform(0, 2 * np.pi)
        distance = (self.rows / self.height - self.rng.uniform(0.3, 0.7)) * np.sin(angle)
        distance += (self.columns / self.width - self.rng.uniform(0.3, 0.7)) * np.cos(angle)
        return 1 / (1 + np.exp(-np.clip(distance / softness, -50, 50)))

    def lines(self, across: bool, spacing: float, grey: float, slope: float, thickness: int) -> None:
        """Ruled lines over the whole sheet."""
        position = self.columns + slope * self.rows if across else self.rows + slope * self.columns
        on = (position + self.rng.uniform(0, spacing)) % spacing < thickness
        self.image = np.where(on, np.minimum(self.image, grey), self.image)


def _plain(s: Sheet) -> None:
    pass


def _noise(s: Sheet) -> None:
    s.image += s.rng.normal(0, s.between((8, 20), (15, 28)), s.image.shape)


def _vignette(s: Sheet) -> None:
    r, c = s.rows / s.height - 0.5, s.columns / s.width - 0.5
    s.image *= 1 - s.between((0.25, 0.55), (0.5, 0.65)) * (r**2 + c**2) / 0.5


def _soft_shadow(s: Sheet) -> None:
    s.image *= 1 - s.between((0.2, 0.5), (0.4, 0.6)) * s.edge(s.between((0.05, 0.15), (0.03, 0.25)))


def _hard_shadow(s: Sheet) -> None:
    s.image *= 1 - s.between((0.2, 0.45), (0.3, 0.55)) * s.edge(0.003)


def _lamp(s: Sheet) -> None:
    r, c = s.rng.uniform(0, s.height), s.rng.uniform(0, s.width)
    radius = s.between((0.4, 0.8), (0.3, 0.6)) * max(s.height, s.width)
    light = np.exp(-((s.rows - r) ** 2 + (s.columns - c) ** 2) / (2 * radius**2))
    s.image *= s.between((0.4, 0.55), (0.3, 0.45)) + 0.7 * light


def _frame(s: Sheet) -> None:
    m, t = int(s.between((2, 12), (0, 20))), int(s.between((1, 5), (1, 8)))
    grey = s.between((20, 120), (0, 170))
    for part in (np.s_[m : m + t, m : -m or None], np.s_[-m - t : -m or None, m : -m or None]):
        s.image[part] = np.where(s.ink[part] > 0.5, s.image[part], grey)
    for part in (np.s_[m : -m or None, m : m + t], np.s_[m : -m or None, -m - t : -m or None]):
        s.image[part] = np.where(s.ink[part] > 0.5, s.image[part], grey)


def _table(s: Sheet) -> None:
    for _ in range(s.rng.integers(1, 3)):
        width, slope = s.between((4, 25), (3, 40)), s.rng.uniform(-0.08, 0.08)
        side, grey = s.rng.integers(4), s.between((30, 90), (10, 120))
        along, across = (s.rows, s.columns) if side < 2 else (s.columns, s.rows)
        across = across if side % 2 else (s.width if side < 2 else s.height) - 1 - across
        s.image = np.where((across < width + slope * along) & (s.ink < 0.1), grey, s.image)


def _dust(s: Sheet) -> None:
    for _ in range(s.rng.integers(8, 50 if s.other else 25)):
        i, j, n = s.rng.integers(0, s.height - 6), s.rng.integers(0, s.width - 6), s.rng.integers(1, 6)
        s.image[i : i + n, j : j + n] = np.minimum(s.image[i : i + n, j : j + n], s.between((60, 160), (20, 180)))


def _ruled(s: Sheet) -> None:
    slope = s.rng.uniform(-0.05, 0.05)
    s.lines(False, s.between((30, 60), (25, 90)), s.between((40, 200), (10, 220)), slope, s.rng.integers(1, 4))


def _squared(s: Sheet) -> None:
    slope, spacing, grey = s.rng.uniform(-0.04, 0.04), s.between((25, 45), (20, 60)), s.between((80, 200), (60, 220))
    for across in (False, True):
        s.lines(across, spacing, grey, -slope if across else slope, s.rng.integers(1, 3))


def _faint(s: Sheet) -> None:
    s.image = s.paper - s.ink * s.between((60, 90), (45, 75))
    s.image += s.rng.normal(0, s.between((1, 3), (2, 4)), s.image.shape)


def _inverse(s: Sheet) -> None:
    s.image = s.between((30, 60), (15, 80)) + s.ink * s.between((120, 180), (100, 170))
    r, c = s.rows / s.height - 0.5, s.columns / s.width - 0.5
    s.image *= 1 - 0.4 * (r**2 + c**2) / 0.5


def _together(s: Sheet) -> None:
    _soft_shadow(s)
    _dust(s)
    _ruled(s)
    s.image += s.rng.normal(0, 4, s.image.shape)
    file = io.BytesIO()
    Image.fromarray(np.uint8(np.clip(s.image, 0, 255))).save(file, "JPEG", quality=60)
    s.image = np.asarray(Image.open(file)).astype(float)


PAGES: dict[str, Callable[[Sheet], None]] = {
    "plain": _plain,
    "noise": _noise,
    "vignette": _vignette,
    "soft shadow": _soft_shadow,
    "hard shadow": _hard_shadow,
    "lamp": _lamp,
    "frame": _frame,
    "table edge": _table,
    "dust": _dust,
    "ruled": _ruled,
    "squared": _squared,
    "faint pencil": _faint,
    "bright on dark": _inverse,
    "shadow, dust, lines, JPEG": _together,
}


def equal_luminance(digit: NDArray[np.uint8], rng: Rng, other: bool) -> Any:
    """Ink and paper of different colour and equal luminance."""
    sheet = Sheet(digit, rng, other)
    grey = rng.uniform(90, 150)
    red, blue = np.array([1, -0.509, 0]), np.array([0, -0.194, 1])  # directions of luminance 0
    direction = (red if rng.random() < 0.5 else blue) * sheet.between((60, 90), (45, 80)) * rng.choice([-1, 1])
    return np.uint8(np.clip(grey + (sheet.ink[..., None] - 0.5) * direction, 0, 255))


def transparent(digit: NDArray[np.uint8], rng: Rng, other: bool) -> Any:
    """A pen of any colour on a transparent background: an image of Pillow, with alpha or one transparent colour."""
    sheet = Sheet(digit, rng, other)
    if rng.random() < 0.5:
        pen = rng.integers(0, 256, 3)
        colours = np.broadcast_to(pen, (*sheet.ink.shape, 3))
        return Image.fromarray(np.uint8(np.dstack([colours, 255 * sheet.ink])), "RGBA")
    image = Image.fromarray(np.uint8(255 - sheet.ink * (255 - sheet.between((40, 170), (0, 200)))))
    file = io.BytesIO()
    image.save(file, rng.choice(["PNG", "GIF"]), transparency=255)
    return Image.open(file)


def tight(digit: NDArray[np.uint8], rng: Rng, other: bool) -> Any:
    """A digit that touches one to four borders."""
    rows, columns = np.flatnonzero(digit.max(axis=1) > 60), np.flatnonzero(digit.max(axis=0) > 60)
    cut = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    margins = rng.integers(0, 8, (2, 2)) * (rng.random((2, 2)) < (0.7 if other else 0.4))
    padded = np.pad(cut, margins)
    factor = sheet_scale(rng, other)
    height, width = (max(3, round(n * factor)) for n in padded.shape)
    large = np.asarray(Image.fromarray(padded).resize((width, height), Image.Resampling.BICUBIC)) / 255
    return np.uint8(235 - large * 190)


def small(digit: NDArray[np.uint8], rng: Rng, other: bool) -> Any:
    """An image of 14 to 40 pixels."""
    side = int(rng.integers(16, 24) if other else rng.integers(20, 40))
    large = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)) / 255
    return np.uint8(235 - large * 190)


def large_page(digit: NDArray[np.uint8], rng: Rng, other: bool) -> Any:
    """A digit of 3 to 6 percent of the width on a page of three megapixels."""
    size = int(rng.integers(60, 90) if other else rng.integers(90, 130))
    page = np.full((2000, 1500), 230, np.uint8)
    top, left = rng.integers(50, 1900 - size), rng.integers(50, 1400 - size)
    large = np.asarray(Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC)) / 255
    page[top : top + size, left : left + size] = 230 - large * 180
    return page


def sheet_scale(rng: Rng, other: bool) -> float:
    """Enlargement of a digit that fills the image."""
    return float(rng.uniform(1, 14) if other else rng.uniform(2, 10))


def two_kinds(digit: NDArray[np.uint8], rng: Rng, other: bool) -> Any:
    """Two of the kinds of photographs at once."""
    sheet = Sheet(digit, rng, other)
    for name in rng.choice([name for name in PAGES if name not in ("plain", "bright on dark")], 2, replace=False):
        PAGES[name](sheet)
    return np.uint8(np.clip(sheet.image, 0, 255))


def photograph(name: str, digit: NDArray[np.uint8], rng: Rng, other: bool) -> Any:
    """Return the photograph of a digit: an array with levels 0 to 255, or an image of Pillow."""
    if name in SPECIAL:
        return SPECIAL[name](digit, rng, other)
    sheet = Sheet(digit, rng, other)
    PAGES[name](sheet)
    return np.uint8(np.clip(sheet.image, 0, 255))


SPECIAL: dict[str, Callable[[NDArray[np.uint8], Rng, bool], Any]] = {
    "equal luminance": equal_luminance,
    "transparent": transparent,
    "touches the border": tight,
    "14 to 40 pixels": small,
    "small on a large page": large_page,
}
SCENES = (*PAGES, *SPECIAL)


# ---- Not one digit ---------------------------------------------------------------------------------------------------


def printed_letter(rng: Rng, letters: str) -> Any:
    """A letter in Pillow's own font."""
    image = Image.new("L", (120, 120), 240)
    font = ImageFont.load_default(size=int(rng.integers(50, 90)))
    ImageDraw.Draw(image).text((30, 10), str(rng.choice(list(letters))), fill=30, font=font)
    return image.rotate(float(rng.uniform(-8, 8)), fillcolor=240)


def written_letter(rng: Rng) -> Any:
    """A handwritten letter or symbol."""
    return np.uint8(235 - 190 * np.pad(letter(rng), 20))


def block(rng: Rng) -> Any:
    """A filled rectangle or ellipse."""
    image = Image.new("L", (160, 160), 240)
    left, top = rng.integers(10, 50, 2)
    box = (int(left), int(top), int(left + rng.integers(50, 100)), int(top + rng.integers(50, 100)))
    draw = ImageDraw.Draw(image)
    (draw.rectangle if rng.random() < 0.5 else draw.ellipse)(box, fill=40)
    return image


def scribble(rng: Rng) -> Any:
    """A long random line."""
    image = Image.new("L", (200, 200), 240)
    points = [tuple(map(float, point)) for point in rng.uniform(30, 170, (int(rng.integers(9, 16)), 2))]
    ImageDraw.Draw(image).line(points, fill=40, width=5, joint="curve")
    return image


def blank(rng: Rng) -> Any:
    """Paper with noise and a shadow."""
    image = 220 + rng.normal(0, 4, (200, 200)) - np.linspace(0, rng.uniform(0, 80), 200)
    return np.uint8(np.clip(image, 0, 255))


NOT_DIGITS: dict[str, Callable[[Rng], Any]] = {
    "printed letters": lambda rng: printed_letter(rng, LETTERS),
    "handwritten letters, symbols": written_letter,
    "blocks": block,
    "scribbles": scribble,
    "blank paper": blank,
    "letters like digits: O, I, S, Z, ...": lambda rng: printed_letter(rng, LOOK_ALIKES),
}


def pair(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Any:
    """Two digits next to each other."""
    sheet = np.zeros((40, 70), np.uint8)
    sheet[6:34, 4:32], sheet[6:34, 36:64] = first, second
    return 255 - np.asarray(Image.fromarray(sheet).resize((280, 160)))


# ---- Measurement -----------------------------------------------------------------------------------------------------


def measure(model: Model, photographs: list[Any], labels: list[str]) -> dict[str, float]:
    """Return the fractions of photographs that are correct, not sure, wrong, and wrong with a high confidence."""
    counts = dict.fromkeys(("correct", "not sure", "wrong", "confidently wrong"), 0)
    for photo, label in zip(photographs, labels, strict=True):
        readings = predict_image(model, photo)
        found = "".join(reading.label or "?" for reading in readings)
        if "?" in found:
            counts["not sure"] += 1
        elif found == label:
            counts["correct"] += 1
        else:
            counts["wrong"] += 1
            # Each of these readings claims to be a digit. A wrong number of digits is wrong, too.
            counts["confidently wrong"] += max(reading.confidence for reading in readings) > SURE
    return {name: count / len(labels) for name, count in counts.items()}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="6 digits for each scene, write nothing")
    parser.add_argument("--digits", type=int, default=100, help="number of digits for each scene")
    parser.add_argument("--scenes", nargs="+", default=None, help="only these scenes, write nothing")
    parser.add_argument("--calibration", action="store_true", help="only measure the calibration of quick and second")
    options = parser.parse_args()
    if options.calibration:
        calibration()
        return
    count = 6 if options.quick else options.digits
    model, x, y = trained(options.quick)
    x, y = x[:count], y[:count]
    names = [str(k) for k in y]
    results: dict[str, Any] = {"machine": machine(), "digits": float((model.predict(x) == y).mean())}
    rows = [["the digits themselves", f"{results['digits']:.1%}", "", "", ""]]

    def add(name: str, photographs: list[Any], labels: list[str]) -> None:
        found = results[name] = measure(model, photographs, labels)
        rows.append([name, *(f"{value:.1%}" for value in found.values())])
        print(*rows[-1], sep="  ", flush=True)

    for other in (False, True):
        for name in options.scenes or SCENES:
            rng = np.random.default_rng(2 if other else 1)
            photographs = [photograph(name, digit, rng, other) for digit in x]
            add(f"{name}, second range" if other else name, photographs, names)
    if not options.scenes:
        rng = np.random.default_rng(4)
        add(HELD_BACK, [two_kinds(digit, rng, True) for digit in x], names)
        add(
            "two digits",
            [pair(*two) for two in zip(x, x[::-1], strict=True)],
            [a + b for a, b in zip(names, names[::-1], strict=True)],
        )
        for name, draw in NOT_DIGITS.items():
            rng = np.random.default_rng(3)
            add(name, [draw(rng) for _ in range(2 * count)], [""] * 2 * count)
    text = f"{count} digits for each kind of photographs; {2 * count} images of each kind that is not one digit.\n\n"
    text += table(["photographs", "correct", "not sure", "wrong", "wrong, confidence above 90%"], rows)
    print(text)
    if not options.quick and not options.scenes:
        save_json(RESULTS / "photos.json", results)
        save(RESULTS / "photos.md", f"{about(results['machine'])}\n\n{text}\n")
        page = RESULTS.parents[1] / "docs" / "howto" / "photos.md"
        save(page, between(page.read_text(), {"photos": text}))


def calibration() -> None:
    """Print the expected calibration error on the test set for three temperatures: 1, the recipe's, a fitted one."""
    data = load_mnist(fetch=False)
    held = 10_000
    for name in ("second", "quick"):
        recipe = RECIPES[name]
        model = recipe.replace(calibration=1.0).train(data.x_train[:-held], data.y_train[:-held], 10)
        fitted = fit_temperature(model, data.x_train[-held:], data.y_train[-held:])
        errors = []
        for temperature in (1.0, recipe.calibration, fitted):
            p = Calibrated(model, temperature).predict_proba(data.x_test)
            confidence, correct = p.max(axis=1), p.argmax(axis=1) == data.y_test
            bins = np.minimum((15 * confidence).astype(int), 14)
            gaps = [np.sum(correct[bins == k]) - np.sum(confidence[bins == k]) for k in range(15)]
            error = np.abs(gaps).sum() / len(p)
            errors.append(f"{error:.2%} with temperature {temperature:.2f}")
        print(f"{name}: expected calibration error {', '.join(errors)}")


def trained(quick: bool) -> tuple[Model, NDArray[np.uint8], NDArray[np.integer[Any]]]:
    """A model of the recipe `quick`, and the digits to photograph, which it was not trained on."""
    try:
        digits = load_mnist(fetch=False)
    except MnistNotFoundError:
        digits = load("synthetic")
    count = 12_000 if quick else len(digits.x_train)
    recipe = RECIPES["second" if quick else "quick"]
    return recipe.train(digits.x_train[:count], digits.y_train[:count], 10), digits.x_test, digits.y_test


if __name__ == "__main__":
    main()
