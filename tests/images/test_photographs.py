"""Reading photographs: uneven light, ruled lines, frames, several digits, shapes that are not digits."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

import handgrad
from handgrad.data.synthetic import synthetic_digits
from handgrad.errors import HandgradError
from handgrad.images import as_digit, decoding, detector, predict_image
from handgrad.images.segmentation import (
    Component,
    box_mean,
    find_filling_digit,
    label,
    maximum_filter,
    minimum_filter,
    reading_order,
    remove_lines,
)
from handgrad.recipes import RECIPES


@pytest.fixture(scope="module")
def model() -> handgrad.Model:
    """A network that was trained on 6,000 synthetic digits, turned a little."""
    x, y, _, _ = synthetic_digits(6000, 10)
    return RECIPES["second"].replace(epochs=4, rotation=15.0).train(x, y, 10)


def draw(digit: str, size: int = 300, stroke: int = 26, top: int = 70, left: int = 90) -> NDArray[np.float64]:
    """A digit 150 pixels high: 0 for paper, 1 for ink."""
    image = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(image)
    if digit == "7":
        pen.line([(left, top), (left + 100, top), (left + 40, top + 150)], fill=255, width=stroke, joint="curve")
    elif digit == "4":
        points = [(left + 85, top + 150), (left + 85, top), (left, top + 100), (left + 115, top + 100)]
        pen.line(points, fill=255, width=stroke, joint="curve")
    else:
        pen.ellipse((left, top, left + 105, top + 150), outline=255, width=stroke)
    return np.asarray(image) / 255


def photograph(digit: str, *effects: str) -> NDArray[np.float64]:
    """A sheet with a digit, and what makes photographs difficult."""
    ink, rng = draw(digit), np.random.default_rng(0)
    image = 225 - 180 * ink
    rows, columns = np.mgrid[0:300, 0:300] / 300
    for effect in effects:
        if effect == "vignette":
            image *= 1 - 0.6 * ((rows - 0.5) ** 2 + (columns - 0.5) ** 2) / 0.5
        elif effect == "soft shadow":
            image *= 1 - 0.5 / (1 + np.exp((rows + columns - 1) / 0.08))
        elif effect == "hard shadow":
            image *= np.where(columns + 0.4 * rows > 0.75, 0.6, 1)
        elif effect == "lamp":
            image *= 0.4 + 0.6 * np.exp(-((rows - 0.1) ** 2 + (columns - 0.9) ** 2) / 0.4)
        elif effect == "noise":
            image += rng.normal(0, 15, image.shape)
        elif effect == "frame":
            image[6:10, 6:-6] = image[-10:-6, 6:-6] = image[6:-6, 6:10] = image[6:-6, -10:-6] = 40
        elif effect == "table":
            image[:, :14] = 50
            image[np.arange(300)[:, None] > 285 + 0.03 * np.arange(300)] = 70
        elif effect == "dust":
            for i, j in rng.integers(0, 296, (20, 2)):
                image[i : i + 3, j : j + 3] = 90
        elif effect.startswith("ruled"):
            on = (np.arange(300) % 40) < 2
            image[on] = np.minimum(image[on], float(effect.split()[1]))
        elif effect == "slanted":
            on = (np.arange(300)[:, None] + 0.05 * np.arange(300)) % 40 < 2
            image[on] = np.minimum(image[on], 110)
        else:
            on = (np.arange(300) % 30) < 2
            image = np.where(on | on[:, None], np.minimum(image, 130), image)
    return np.clip(image, 0, 255)


LIGHT = [("vignette", "0"), ("soft shadow", "4"), ("hard shadow", "7"), ("lamp", "0"), ("noise", "4")]
OBJECTS = [("frame", "7"), ("table", "0"), ("dust", "4")]
LINES = ["slanted", "squared", "ruled 20", "ruled 90", "ruled 140", "ruled 200"]  # they cross the bars of 4 and 7


def read(model: handgrad.Model, image: Any) -> str:
    """The labels of the digits, ? for one that is not sure."""
    return "".join(reading.label or "?" for reading in predict_image(model, image))


@pytest.mark.parametrize(
    ("effect", "digit"), [*LIGHT, *OBJECTS, *((effect, digit) for effect in LINES for digit in ("4", "7"))]
)
def test_digit_in_a_difficult_photograph(model: handgrad.Model, digit: str, effect: str) -> None:
    image = photograph(digit, effect)
    assert read(model, image) == digit
    plain = as_digit(photograph(digit)).astype(float)
    shifts = [np.roll(as_digit(image).astype(float), (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    assert min(np.abs(shifted - plain).sum() for shifted in shifts) < 0.3 * plain.sum()


@pytest.mark.parametrize("digit", ["0", "4", "7"])
def test_several_effects_and_both_polarities(model: handgrad.Model, digit: str) -> None:
    image = photograph(digit, "soft shadow", "dust", "ruled 120", "noise")
    assert read(model, image) == digit
    assert read(model, 255 - photograph(digit, "noise")) == digit


@pytest.mark.parametrize("angle", range(0, 360, 45))
def test_hard_shadow_across_the_digit_from_every_direction(model: handgrad.Model, angle: int) -> None:
    rows, columns = np.mgrid[0:300, 0:300] / 300 - 0.5
    for digit in ("0", "7"):
        dark = rows * np.sin(np.deg2rad(angle)) + columns * np.cos(np.deg2rad(angle)) > 0
        assert read(model, photograph(digit) * np.where(dark, 0.5, 1)) == digit


@pytest.mark.parametrize(("ink", "paper"), [((178, 50, 60), (60, 120, 60)), ((40, 90, 230), (110, 96, 20))])
def test_ink_and_paper_of_equal_luminance(model: handgrad.Model, ink: Any, paper: Any) -> None:
    assert abs(np.dot(np.subtract(ink, paper), decoding.LUMA)) < 9
    shape = draw("4")[..., None]
    assert read(model, np.uint8(np.array(paper) + shape * np.subtract(ink, paper))) == "4"


@pytest.mark.parametrize(("pen", "kind"), [(0, "PNG"), (128, "PNG"), (200, "PNG"), (90, "GIF"), (150, "GIF")])
def test_white_as_the_transparent_colour_is_read_as_white(model: handgrad.Model, pen: int, kind: str) -> None:
    levels = np.uint8(255 - draw("4") * (255 - pen))
    file = io.BytesIO()
    Image.fromarray(levels).save(file, kind, transparency=255)
    prepared = as_digit(decoding.open_picture(file.getvalue()).levels)
    assert np.abs(prepared.astype(int) - as_digit(levels)).max() <= 40
    assert read(model, file.getvalue()) == "4"


@pytest.mark.parametrize("pen", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 255, 0)])
def test_pen_of_any_colour_on_transparent(model: handgrad.Model, pen: tuple[int, int, int]) -> None:
    alpha = np.uint8(255 * draw("7"))
    assert read(model, Image.fromarray(np.dstack([np.full((*alpha.shape, 3), pen, np.uint8), alpha]))) == "7"


@pytest.mark.parametrize("size", [20, 28, 60, 3000])
def test_size_of_the_image_does_not_matter(model: handgrad.Model, size: int) -> None:
    image = Image.fromarray(np.uint8(photograph("4"))).resize((size, size))
    assert read(model, image) == "4"


@pytest.mark.parametrize(
    ("digit", "side"),
    [*((digit, "all") for digit in "047"), ("7", "top"), ("4", "bottom"), ("4", "left"), ("0", "right")],
)
def test_digit_that_touches_the_border(model: handgrad.Model, digit: str, side: str) -> None:
    ink = draw(digit, stroke=18)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    cut = ink[
        rows[0] if side in ("top", "all") else 0 : rows[-1] + 1 if side in ("bottom", "all") else None,
        columns[0] if side in ("left", "all") else 0 : columns[-1] + 1 if side in ("right", "all") else None,
    ]
    assert read(model, 230 - 190 * cut) == digit


@pytest.mark.parametrize("bright", [False, True])
@pytest.mark.parametrize("shape", ["slanted 1", "thick 0", "thick 7"])
def test_digit_that_fills_a_narrow_image_is_read_as_on_a_sheet(shape: str, bright: bool) -> None:
    """The stroke may be as wide as the image."""
    sheet = Image.new("L", (300, 300), 0)
    pen = ImageDraw.Draw(sheet)
    if shape == "thick 0":
        pen.ellipse((100, 70, 190, 230), outline=255, width=34)
    elif shape == "thick 7":
        pen.line([(100, 80), (190, 80), (150, 230)], fill=255, width=36, joint="curve")
    else:
        pen.line([(165, 80), (150, 230)], fill=255, width=24)
    ink = np.asarray(sheet.filter(ImageFilter.GaussianBlur(2)), np.float32) / 255
    rows, columns = np.flatnonzero((ink > 0.3).any(axis=1)), np.flatnonzero((ink > 0.3).any(axis=0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    paper, stroke = (40, 235) if bright else (235, 40)
    expected, found = (as_digit(paper + (stroke - paper) * levels).astype(float) for levels in (ink, cut))
    shifts = [np.roll(found, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    assert min(np.abs(shifted - expected).sum() for shifted in shifts) < 0.1 * expected.sum()


def test_shadow_across_the_corner_is_not_a_digit_that_fills_the_image() -> None:
    rows, columns = np.mgrid[0:240, 0:320].astype(np.float32)
    image = np.where(rows + columns > 380, 0.5, 1) * np.float32(225)
    assert find_filling_digit(image[..., None].astype(np.float32)) is None


@pytest.mark.parametrize("gap", [4, 8])
def test_table_below_a_digit_is_not_its_bar(gap: int) -> None:
    image = 225 - 180 * draw("7")
    image = image[: np.flatnonzero(image.min(axis=1) < 100)[-1] + 1 + gap]
    image = np.concatenate([image, np.full((20, 300), 60.0)])
    expected, found = as_digit(photograph("7")).astype(float), as_digit(image).astype(float)
    shifts = [np.roll(found, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    assert min(np.abs(shifted - expected).sum() for shifted in shifts) < 0.3 * expected.sum()


def test_small_digit_on_a_large_page(model: handgrad.Model) -> None:
    page = np.full((2400, 1800), 230, np.uint8)
    digit = np.asarray(Image.fromarray(np.uint8(photograph("4"))).resize((150, 150)))
    page[1500:1650, 300:450] = np.minimum(digit, 230)
    (reading,) = predict_image(model, page)
    assert reading.label == "4"
    assert reading.box is not None
    np.testing.assert_allclose(reading.box, (342, 1531, 407, 1612), atol=8)


# ---- Several digits, and what is not a digit -------------------------------------------------------------------------


def test_two_digits_are_read_from_left_to_right_with_their_boxes(model: handgrad.Model) -> None:
    ink = np.hstack([draw("4", left=70), draw("7", left=70)])
    first, second = predict_image(model, np.uint8(230 - 190 * ink))
    assert (first.label, second.label) == ("4", "7")
    assert first.box is not None
    assert second.box is not None
    np.testing.assert_allclose(first.box, (65, 55, 190, 225), atol=16)
    np.testing.assert_allclose(second.box, (365, 55, 485, 225), atol=16)
    with pytest.raises(HandgradError, match="2 digits found: expected one digit"):
        as_digit(230 - 190 * ink)


def test_lines_of_digits_are_read_from_top_to_bottom(model: handgrad.Model) -> None:
    upper, lower = (np.hstack([draw(digit, left=left) for digit in line]) for left, line in ((90, "740"), (60, "047")))
    assert read(model, 230 - 190 * np.vstack([upper, lower])) == "740047"


@pytest.mark.parametrize("slope", [-0.3, 0.3])
def test_slanted_lines_of_digits_stay_lines(slope: float) -> None:
    def line(top: float, columns: range) -> list[Component]:
        boxes = [(round(top + slope * 120 * column), 120 * column) for column in columns]
        return [Component(top, top + 100, left, left + 70, (), 0, 1.0, 0) for top, left in boxes]

    upper, lower = line(1000, range(8)), line(1150, range(1, 6))
    mixed = [upper[i] for i in (5, 2, 7, 0, 1, 6, 3, 4)] + lower[::-1]
    assert reading_order(mixed) == upper + lower


def shape(kind: str) -> NDArray[np.uint8]:
    """Something that is not a digit."""
    image = Image.new("L", (200, 200), 235)
    pen, rng = ImageDraw.Draw(image), np.random.default_rng(1)
    if kind == "square":
        pen.rectangle((60, 50, 140, 140), fill=30)
    elif kind == "disc":
        pen.ellipse((60, 60, 140, 140), fill=30)
    elif kind == "scribble":
        pen.line([tuple(map(float, point)) for point in rng.uniform(30, 170, (16, 2))], fill=30, width=5)
    elif kind == "line":
        pen.line((20, 100, 180, 104), fill=30, width=8)
    return np.asarray(image)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("square", "a filled area"),
        ("disc", "a filled area"),
        ("scribble", "a scribble or a drawing"),
        ("line", "wider than a digit"),
        ("blank", "no digit found"),
    ],
)
def test_shape_that_is_no_digit_is_not_sure_with_the_reason(model: handgrad.Model, kind: str, reason: str) -> None:
    (reading,) = predict_image(model, shape(kind))
    assert reading.label is None
    assert reason in reading.reason


def test_answer_below_the_threshold_is_not_sure() -> None:
    network = handgrad.Network([784, 10], rng=0)
    network.image_shape = (28, 28)
    network.parameters[:] = 0
    (reading,) = predict_image(network, photograph("4"))
    assert reading.label is None
    assert reading.confidence == pytest.approx(0.1)
    assert reading.reason == "the confidence 10% is below 60%"
    assert sum(reading.probabilities.values()) == pytest.approx(1)


def test_confidence_in_the_reason_is_rounded_down() -> None:
    network = handgrad.Network([784, 2], loss="cross_entropy", rng=0)
    network.image_shape = (28, 28)
    network.parameters[:] = 0
    network.layers[0].b[...] = np.log([0.598, 0.402])
    (reading,) = predict_image(network, photograph("4"))
    assert reading.reason == "the confidence 59% is below 60%"


# ---- The detector of digits ------------------------------------------------------------------------------------------


def letters(text: str, size: int) -> list[NDArray[np.uint8]]:
    """Printed letters, each dark on a bright sheet."""
    sheets = []
    for character in text:
        image = Image.new("L", (3 * size, 3 * size), 240)
        font = ImageFont.load_default(size=2 * size)
        ImageDraw.Draw(image).text((1.5 * size, 1.5 * size), character, fill=30, font=font, anchor="mm")
        sheets.append(np.asarray(image))
    return sheets


@pytest.mark.parametrize("size", [20, 60])
def test_letters_are_not_sure(model: handgrad.Model, size: int) -> None:
    readings = [predict_image(model, sheet)[0] for sheet in letters("AEFHKMNRTVWXYaehkmnrwx", size)]
    assert sum(reading.label is not None for reading in readings) <= 1
    assert "this does not look like a digit" in {reading.reason for reading in readings}


def test_printed_and_drawn_digits_are_digits(model: handgrad.Model) -> None:
    # A network of synthetic digits does not know all printed ones. The detector must not be what rejects them.
    sheets = letters("0123456789", 40)
    reasons = [reading.reason for sheet in sheets for reading in predict_image(model, sheet)]
    assert sum(reason.startswith("this ") for reason in reasons) <= 1
    x, y, _, _ = synthetic_digits(300, 10, seed=5)
    p = detector.probabilities(x)
    assert (p[:, detector.OTHER] > 0.5).mean() <= 0.02
    assert (p.argmax(axis=1) == y).mean() >= 0.95


def test_detector_is_only_used_for_models_that_read_digits(model: handgrad.Model) -> None:
    """A model of clothes or of another alphabet may also have ten classes with the names 0 to 9."""
    assert detector.reads_digits(model)
    x, y, _, _ = synthetic_digits(600, 10, seed=6)
    other = handgrad.Network([784, 10], activation="relu", loss="cross_entropy", rng=0)
    other.image_shape = (28, 28)
    other.fit(x, (y + 3) % 10, optimizer=handgrad.Adam(0.01), epochs=10, rng=0)
    assert not detector.reads_digits(other)
    named = handgrad.Network([784, 10], rng=0)
    named.image_shape, named.classes = (28, 28), tuple("abcdefghij")
    assert not detector.reads_digits(named)
    for sheet in letters("AHKX", 40):
        assert "look like" not in predict_image(other, sheet)[0].reason


@pytest.mark.parametrize("noise", [0, 4, 12, 30])
def test_paper_with_a_shadow_is_blank(model: handgrad.Model, noise: int) -> None:
    image = 220 + np.random.default_rng(0).normal(0, noise, (200, 200)) - np.linspace(0, 80, 200)
    assert read(model, np.clip(image, 0, 255)) == "?"


# ---- Kinds of inputs -------------------------------------------------------------------------------------------------


def test_arrays_images_files_and_streams_give_the_same_reading(model: handgrad.Model, tmp_path: Path) -> None:
    image, path = Image.fromarray(np.uint8(photograph("4"))).resize((100, 100)), tmp_path / "four.png"
    levels = np.asarray(image)
    image.save(path)
    np.save(tmp_path / "four.npy", levels / 255)
    expected = predict_image(model, levels)[0].digit
    standardized = (levels / 255 - 0.1307) / 0.3081
    for same in (
        levels,
        levels / 255,
        (levels / 255).astype(np.float32),
        levels.astype(float),
        levels.astype(np.int64),
        levels.astype(np.uint16) * 257,
        levels[None],
        levels[..., None],
        levels[None, None],
        np.stack([levels] * 3),
        np.stack([levels] * 3, axis=-1),
        np.stack([levels / 255] * 3),
        np.asfortranarray(levels),
        levels.tolist(),
        standardized,
        standardized[None].astype(np.float32),
        image,
        image.convert("RGB"),
        image.convert("1", dither=Image.Dither.NONE),
        path,
        str(path),
        tmp_path / "four.npy",
        path.read_bytes(),
        io.BytesIO(path.read_bytes()),
    ):
        (reading,) = predict_image(model, same)
        assert np.abs(reading.digit.astype(int) - expected).max() <= 90
        assert np.abs(reading.digit.astype(int) - expected).mean() <= 2
        assert reading.label == "4"


@pytest.mark.parametrize("wrong", [None, 3, "no such file.png", object(), [[1, 2], [3]], np.zeros((9, 9), complex)])
def test_input_that_is_no_image_is_rejected_in_one_line(model: handgrad.Model, wrong: Any) -> None:
    with pytest.raises(HandgradError) as caught:
        predict_image(model, wrong)
    assert "\n" not in str(caught.value)


def test_model_without_images_and_regression_are_rejected() -> None:
    network = handgrad.Network([784, 10], rng=0)
    with pytest.raises(HandgradError, match="no image shape"):
        predict_image(network, draw("4"))
    regression = handgrad.Network([784, 2], loss="squared_error", rng=0)
    regression.image_shape = (28, 28)
    with pytest.raises(HandgradError, match="expected a classifier"):
        predict_image(regression, draw("4"))


# ---- Large and damaged files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "message"), [((20_000, 20_000), "too large"), ((300_000, 20), "as long as wide")])
def test_size_is_checked_before_decoding(tmp_path: Path, size: tuple[int, int], message: str) -> None:
    """The header of the PNG file has the size, and there are no pixels to decode."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(HandgradError, match=message):
        decoding.open_picture(bytes(data))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16", "CMYK"])
def test_large_image_is_reduced_strip_by_strip(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(decoding, "KEPT_PIXELS", 20_000)
    monkeypatch.setattr(decoding, "STRIP_PIXELS", 30_000)
    grey = Image.fromarray(np.uint8(photograph("4"))).resize((610, 505))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        image = grey.convert("RGB").convert(mode) if mode == "CMYK" else grey.convert(mode)
    picture = decoding.open_picture(image)
    assert (picture.height, picture.width) == (505, 610)
    assert picture.levels.shape[0] * picture.levels.shape[1] <= 20_000
    expected = decoding.block_mean(np.asarray(grey if mode != "1" else image.convert("L")), 4)
    levels = picture.levels.mean(axis=2)
    assert levels.shape == expected.shape
    assert np.abs(levels - expected).mean() < 3


@pytest.mark.parametrize("name", ["DDS", "ICO", "TGA", "PCX", "EPS", "SGI"])
def test_rare_formats_are_rejected(name: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (9, 9, 9)).save(file, name)
    with pytest.raises(HandgradError, match="expected PNG, JPEG, GIF, BMP, TIFF, WebP, PPM or npy"):
        decoding.open_picture(file.getvalue())


@pytest.mark.parametrize("kind", ["npy", "PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM"])
def test_damaged_files_are_read_or_rejected_in_one_line(kind: str) -> None:
    rng, pixels, file = np.random.default_rng(5), np.arange(900, dtype=np.uint8).reshape(30, 30), io.BytesIO()
    if kind == "npy":
        np.save(file, pixels)
    else:
        Image.fromarray(pixels).save(file, kind)
    messages = []
    for _ in range(1500 if kind == "npy" else 150):
        data = bytearray(file.getvalue())
        for position in rng.integers(0, min(len(data), 130), 3):
            data[position] = rng.integers(256)
        try:
            decoding.open_picture(bytes(data[: rng.integers(len(data)) if rng.random() < 0.2 else None]))
        except HandgradError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert not [message for message in messages if "\n" in message]


# ---- Segmentation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("density", "size"),
    [
        *((density, (60, 41)) for density in (0.1, 0.4, 0.6)),
        *[(0.0, (13, 17)), (1.0, (13, 17)), (1.0, (1, 1)), (0.6, (1, 9)), (0.6, (9, 1))],
    ],
)
def test_label_agrees_with_a_flood_fill(density: float, size: tuple[int, int]) -> None:
    mask = np.random.default_rng(3).random(size) < density
    labels, count = label(mask)
    expected, number = np.zeros(size, int), 0
    for start in map(tuple, np.argwhere(mask)):
        if expected[start]:
            continue
        number += 1
        stack = [start]
        while stack:
            i, j = stack.pop()
            if 0 <= i < size[0] and 0 <= j < size[1] and mask[i, j] and not expected[i, j]:
                expected[i, j] = number
                stack += [(i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)]
    assert count == number
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(("scale", "kept"), [(1, True), (4, False)])
def test_thin_strokes_of_small_images_are_not_ruled_lines(scale: int, kept: bool) -> None:
    ink = np.zeros((28 * scale, 28 * scale), np.float32)
    ink[6 * scale : 22 * scale, 5 * scale :: 8 * scale] = 1  # three vertical strokes, 57 % of the height
    assert (remove_lines(ink).sum() == ink.sum()) == kept


@pytest.mark.parametrize("window", [1, 3, 7, 31])
def test_filters_agree_with_loops_over_windows(window: int) -> None:
    x, half = np.random.default_rng(4).random((12, 19)).astype(np.float32), window // 2
    for function, expected in (
        (lambda x: maximum_filter(x, window), np.max),
        (lambda x: minimum_filter(x, window), np.min),
        (lambda x: box_mean(x, half), np.mean),
    ):
        windows = [
            [expected(x[max(i - half, 0) : i + half + 1, max(j - half, 0) : j + half + 1]) for j in range(19)]
            for i in range(12)
        ]
        np.testing.assert_allclose(function(x), windows, rtol=1e-5)
