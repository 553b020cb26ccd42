"""Reading image files, and preparing a digit as in MNIST."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import handgrad
import handgrad.data
from handgrad.errors import HandgradError
from handgrad.images import as_digit, decoding, read_image
from handgrad.images.reading import reads_characters

DIGITS = ["0", "1", "2", "4", "7"]
LINES = {
    "1": [(0.5, 0.0), (0.5, 1.0)],
    "2": [(0.0, 0.2), (0.25, 0.0), (0.6, 0.05), (0.65, 0.35), (0.0, 1.0), (0.7, 1.0)],
    "4": [(0.6, 1.0), (0.6, 0.0), (0.0, 0.65), (0.8, 0.65)],
    "7": [(0.0, 0.0), (0.65, 0.0), (0.2, 1.0)],
}


def draw_digit(
    digit: str = "2",
    *,
    size: tuple[int, int] = (200, 200),
    height: float = 120,
    at: tuple[float, float] = (50, 40),
    stroke_width: float | None = None,
    stroke: int = 0,
    background: int = 255,
) -> NDArray[np.uint8]:
    """A digit `height` pixels high, its upper left corner `at` (x, y) in an image of `size` (width, height)."""
    factor = 4 if max(size) <= 300 else 1  # oversampled, for soft edges
    image = Image.new("L", (size[0] * factor, size[1] * factor), background)
    draw = ImageDraw.Draw(image)
    width = round((height * 0.12 if stroke_width is None else stroke_width) * factor)
    (left, top), high = at, height * factor
    left, top = left * factor, top * factor
    if digit == "0":
        draw.ellipse((left, top, left + 0.7 * high, top + high), outline=stroke, width=width)
    else:
        points = [(left + x * high, top + y * high) for x, y in LINES[digit]]
        draw.line(points, fill=stroke, width=width, joint="curve")
    return np.asarray(image.resize(size, Image.Resampling.BOX))


def difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Relative difference of two digits: 0 if they are equal, 1 if they do not overlap."""
    a, b = a.astype(float), b.astype(float)
    return float(np.abs(a - b).sum() / (a.sum() + b.sum()))


def difference_of_aligned(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The same without a shift by one pixel, to which the rounding of the centre of mass may lead."""
    shifts = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return min(difference(np.roll(a, shift, (0, 1)), b) for shift in shifts)


def extent(digit: NDArray[Any], level: int = 64) -> tuple[int, int]:
    """Height and width of the pixels brighter than `level`."""
    rows, columns = np.nonzero(digit > level)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def centre_of_mass(digit: NDArray[Any]) -> NDArray[np.float64]:
    """(row, column)."""
    mass = digit.astype(float)
    return np.array([(mass * positions).sum() for positions in np.indices(digit.shape)]) / mass.sum()


def error_message(path: Path) -> str:
    """The one-line message of the error that reading `path` raises."""
    with pytest.raises(HandgradError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert str(path) in message
    return message


# ---- as_digit --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("digit", "shape"), [*((digit, (28, 28)) for digit in DIGITS), ("2", (8, 8)), ("4", (32, 20)), ("7", (20, 32))]
)
def test_as_digit_scales_and_centres_as_mnist(digit: str, shape: tuple[int, int]) -> None:
    result = as_digit(draw_digit(digit), shape)
    assert result.dtype == np.uint8
    assert result.shape == shape
    assert result.max() > 200
    assert np.median(np.concatenate([result[0], result[-1], result[:, 0], result[:, -1]])) == 0
    assert abs(max(extent(result)) - 20 / 28 * min(shape)) <= 1.5
    assert np.abs(centre_of_mass(result) - np.array(shape) / 2).max() <= 0.55


def test_as_digit_default_shape_is_28x28() -> None:
    assert as_digit(draw_digit()).shape == (28, 28)


@pytest.mark.parametrize(("digit", "size"), [("0", 28), ("1", 200), ("2", 28), ("4", 200), ("7", 28)])
def test_as_digit_of_negative_is_the_same(digit: str, size: int) -> None:
    image = draw_digit(digit, size=(size, size), height=0.6 * size, at=(0.2 * size, 0.2 * size))
    assert difference_of_aligned(as_digit(image), as_digit(255 - image)) < 0.01


@pytest.mark.parametrize("digit", DIGITS)
def test_as_digit_keeps_aspect_ratio(digit: str) -> None:
    image = draw_digit(digit)
    (height, width), (new_height, new_width) = extent(255 - image.astype(int)), extent(as_digit(image))
    assert new_width / new_height == pytest.approx(width / height, abs=0.12)


def test_as_digit_scales_by_the_longer_side() -> None:
    vertical = as_digit(draw_digit("1"))
    horizontal = as_digit(np.rot90(draw_digit("1")))
    assert extent(horizontal) == extent(vertical)[::-1]


@pytest.mark.parametrize("digit", DIGITS)
def test_as_digit_is_invariant_to_position(digit: str) -> None:
    assert difference(as_digit(draw_digit(digit, at=(100, 70))), as_digit(draw_digit(digit))) < 0.02


@pytest.mark.parametrize(("digit", "height"), [("0", 60), ("1", 240), ("2", 60), ("4", 240), ("7", 60)])
def test_as_digit_is_invariant_to_size(digit: str, height: int) -> None:
    image = draw_digit(digit, size=(300, 300), height=height, at=(25, 25))
    # Rounding of the centre of mass may shift the digit by one pixel, which is a difference of 0.255.
    assert difference(as_digit(image), as_digit(draw_digit(digit))) < 0.3


@pytest.mark.parametrize("digit", DIGITS)
def test_as_digit_keeps_a_prepared_digit(digit: str) -> None:
    once = as_digit(draw_digit(digit))
    assert difference(as_digit(once), once) < 0.1


@pytest.mark.parametrize(("digit", "stroke"), [("0", 60), ("1", 0), ("2", 60), ("4", 0), ("7", 60)])
def test_as_digit_removes_uneven_light_and_noise(digit: str, stroke: int) -> None:
    image = draw_digit(digit, stroke=stroke, background=220)
    rng = np.random.default_rng(0)
    light = np.linspace(-25, 25, image.shape[1])
    noisy = np.clip(image + light + rng.normal(0, 4, image.shape), 0, 255)
    assert difference_of_aligned(as_digit(noisy), as_digit(image)) < 0.15


@pytest.mark.parametrize("speck", [(3, 3), (195, 100)])
def test_as_digit_ignores_specks(speck: tuple[int, int]) -> None:
    image = draw_digit(at=(60, 40))
    with_speck = image.copy()
    with_speck[speck] = 0
    assert difference(as_digit(with_speck), as_digit(image)) < 0.02


@pytest.mark.parametrize(
    ("digit", "size", "stroke_width"), [("0", 280, 2), ("1", 1000, 6), ("2", 280, 2), ("4", 1000, 6), ("7", 280, 2)]
)
def test_as_digit_thickens_thin_strokes(digit: str, size: int, stroke_width: int) -> None:
    image = draw_digit(
        digit, size=(size, size), height=0.7 * size, at=(0.15 * size, 0.15 * size), stroke_width=stroke_width
    )
    result = as_digit(image)
    assert result.max() > 200
    assert result.astype(float).sum() / 255 > 1.2 * max(extent(result))  # the stroke is wider than one pixel


def test_as_digit_stretches_low_contrast() -> None:
    faint, dark = draw_digit(stroke=150, background=200), draw_digit()
    assert difference(as_digit(faint), as_digit(dark)) < 0.05


@pytest.mark.parametrize(("grey", "size"), [(0, (28, 28)), (128, (3, 3)), (255, (200, 150))])
def test_as_digit_rejects_empty_image(grey: int, size: tuple[int, int]) -> None:
    with pytest.raises(HandgradError, match=r"\Ano digit found: expected strokes that differ .*\Z"):
        as_digit(np.full(size, grey, np.uint8))


def test_as_digit_rejects_noise() -> None:
    noise = np.random.default_rng(0).normal(128, 3, (100, 100))
    with pytest.raises(HandgradError, match="no digit found"):
        as_digit(noise)


def test_as_digit_rejects_nan() -> None:
    image = draw_digit().astype(float)
    image[0, 0] = np.nan
    with pytest.raises(HandgradError, match="NaN or infinity"):
        as_digit(image)


@pytest.mark.parametrize("size", [(1, 1), (2, 50), (50, 2), (0, 9)])
def test_as_digit_rejects_image_below_3x3(size: tuple[int, int]) -> None:
    with pytest.raises(HandgradError, match=r"\Aimage of \d+x\d+ pixels: expected at least 3x3 pixels\Z"):
        as_digit(np.zeros(size, np.uint8))


def test_as_digit_does_not_modify_its_input() -> None:
    image = draw_digit().astype(np.float32)
    before = image.copy()
    as_digit(image)
    np.testing.assert_array_equal(image, before)


def coloured(red: int, green: int, blue: int) -> NDArray[np.uint8]:
    """The digit in that colour on white."""
    stroke = 1 - draw_digit()[..., None] / 255
    return np.rint(255 - stroke * (255 - np.array([red, green, blue]))).astype(np.uint8)


@pytest.mark.parametrize("image", [coloured(0, 0, 0), coloured(0, 0, 200)], ids=["black", "blue"])
@pytest.mark.parametrize("alpha", [False, True])
def test_as_digit_reads_colour_array_like_the_file(tmp_path: Path, image: NDArray[np.uint8], alpha: bool) -> None:
    if alpha:
        image = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
        image[:20] = 0  # transparent, therefore background
    Image.fromarray(image).save(tmp_path / "colour.png")
    np.testing.assert_array_equal(as_digit(image), as_digit(read_image(tmp_path / "colour.png")))
    assert difference(as_digit(image), as_digit(draw_digit())) < 0.05


@pytest.mark.parametrize("shape", [(28,), (28, 28, 2), (28, 28, 5), (2, 28, 28), (2, 28, 28, 1), ()])
def test_as_digit_rejects_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(HandgradError, match=r"\Aimage has shape .*: expected \(height, width\) or .*\Z"):
        as_digit(np.zeros(shape, np.uint8))


# ---- read_image ------------------------------------------------------------------------------------------------------


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The contents of an image file."""
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def stroke(colour: tuple[int, int, int]) -> Image.Image:
    """The digit in `colour` on a transparent background; transparent pixels are magenta."""
    alpha = 255 - draw_digit()
    image = Image.new("RGB", (200, 200), colour)
    image.putalpha(Image.fromarray(alpha))
    transparent = Image.new("RGBA", (200, 200), (255, 0, 255, 0))
    return Image.composite(image, transparent, Image.fromarray(np.uint8(alpha > 0) * np.uint8(255)))


def deep() -> Image.Image:
    """The digit with 16 bits per pixel."""
    return Image.fromarray(draw_digit().astype(np.uint16) * 257)


def grey() -> Image.Image:
    """The digit with 8 bits per pixel."""
    return Image.fromarray(draw_digit())


@pytest.mark.parametrize(
    ("name", "content", "tolerance"),
    [
        ("grey.png", encoded(grey()), 0.5),
        ("colour.png", encoded(grey().convert("RGB")), 0.5),
        ("grey.jpg", encoded(grey(), "JPEG", quality=95), 12),
        ("colour.jpeg", encoded(grey().convert("RGB"), "JPEG", quality=95), 12),
        ("bit.png", encoded(grey().convert("1", dither=Image.Dither.NONE)), 128),
        ("palette.png", encoded(grey().convert("P")), 4),
        ("palette.gif", encoded(grey().convert("P"), "GIF"), 4),
        ("deep.png", encoded(deep()), 0.5),
        ("black-on-transparent.png", encoded(stroke((0, 0, 0))), 1),
        ("no-extension", encoded(grey()), 0.5),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_read_image_reads_every_format(tmp_path: Path, name: str, content: bytes, tolerance: float) -> None:
    (tmp_path / name).write_bytes(content)
    image = read_image(tmp_path / name)
    assert image.dtype == np.float32
    assert image.shape == (200, 200)
    assert image.min() >= 0
    assert image.max() <= 255
    assert np.abs(image - draw_digit()).max() <= tolerance
    assert difference(as_digit(image), as_digit(draw_digit())) < 0.05


def test_white_strokes_on_transparent_get_a_black_background(tmp_path: Path) -> None:
    path = tmp_path / "white.png"
    stroke((255, 255, 255)).save(path)
    np.testing.assert_allclose(read_image(path), 255.0 - draw_digit(), atol=1)


def test_fully_transparent_image_has_no_digit(tmp_path: Path) -> None:
    path = tmp_path / "nothing.png"
    Image.new("RGBA", (50, 50), (0, 0, 0, 0)).save(path)
    with pytest.raises(HandgradError, match="no digit found"):
        as_digit(read_image(path))


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_read_image_applies_exif_orientation(tmp_path: Path, orientation: int, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    unrotated = draw_digit("7", size=(200, 160), at=(30, 20))
    path = tmp_path / "photograph.png"
    Image.fromarray(unrotated).save(path, exif=exif)
    np.testing.assert_allclose(read_image(path), np.rot90(unrotated, turn), atol=0.5)


@pytest.mark.parametrize(
    "array",
    [
        draw_digit(),
        draw_digit() / 255,
        (draw_digit() / 255).astype(np.float32),
        draw_digit().astype(np.float32),
        draw_digit().astype(np.int64),
        draw_digit()[..., None],
        np.stack([draw_digit()] * 3, axis=-1),
        np.stack([draw_digit() / 255] * 3, axis=-1),
        np.asarray(stroke((0, 0, 0))),
    ],
    ids=[
        *("bytes", "float64", "float32", "float-bytes", "int64"),
        *("one-channel", "three-channels", "three-of-floats", "four-channels"),
    ],
)
def test_read_image_reads_npy(tmp_path: Path, array: NDArray[Any]) -> None:
    path = tmp_path / "digit.npy"
    np.save(path, array)
    image = read_image(path)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, draw_digit(), atol=0.01)


def test_read_image_reads_boolean_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "digit.npy", draw_digit() > 128)
    np.testing.assert_array_equal(read_image(tmp_path / "digit.npy"), (draw_digit() > 128) * 255.0)


def npz() -> bytes:
    """The contents of a file of numpy.savez."""
    file = io.BytesIO()
    np.savez(file, digit=draw_digit())
    return file.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    """The contents of a file of numpy.save."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def npy_with_huge_header() -> bytes:
    """An npy file of 72 data bytes whose header declares exabytes."""
    whole = npy(np.zeros((3, 3)))
    return whole.replace(b"(3, 3), }" + b" " * 20, b"(9999999999, 99999999), }" + b" " * 4)


@pytest.mark.parametrize(
    "content",
    [
        npy(np.array([{"a": 1}], dtype=object)),
        npy(np.full((9, 9), np.nan)),
        npy(np.where(np.eye(9), np.inf, 0)),
        npy(np.full((9, 9), 1e300)),
        npy(np.zeros(9)),
        npy(np.zeros((2, 3, 4, 5))),
        npy(np.zeros((9, 9, 5))),
        npy(np.zeros((0, 9))),
        npy(np.zeros((9, 9), complex)),
        npy(np.full((9, 9), "a")),
        npy(draw_digit())[:300],
        npy(draw_digit())[:20],
        b"",
        b"no array",
        npz(),
        npy_with_huge_header(),
    ],
    ids=[
        "pickled",
        "nan",
        "infinite",
        "beyond-float32",
        "one-axis",
        "four-axes",
        "five-channels",
        "no-rows",
        "complex",
        "text",
        "cut",
        "cut-header",
        "empty",
        "not-npy",
        "zip",
        "exabytes",
    ],
)
def test_read_image_rejects_invalid_npy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "digit.npy"
    path.write_bytes(content)
    error_message(path)


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["digit.npy", "digit.png"])
def test_read_image_never_unpickles(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "run"
    (tmp_path / name).write_bytes(npy(np.array([Trap(marker)], dtype=object)))
    error_message(tmp_path / name)
    assert not marker.exists()


PHOTOGRAPH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8))


@pytest.mark.parametrize(
    ("kind", "fraction"),
    [
        *(("PNG", fraction) for fraction in (0.0, 0.002, 0.3)),
        *((kind, fraction) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF") for fraction in (0.03, 0.95)),
    ],
)
def test_read_image_rejects_truncated_file(tmp_path: Path, kind: str, fraction: float) -> None:
    whole = encoded(PHOTOGRAPH, kind)
    path = tmp_path / f"part.{kind.lower()}"
    path.write_bytes(whole[: int(fraction * len(whole))])
    error_message(path)


@pytest.mark.parametrize("name", ["digit.png", "digit"])
def test_read_image_rejects_text_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("a seven\nand a three\n")
    error_message(path)


@pytest.mark.parametrize("name", ["digit.png", "digit.npy"])
def test_read_image_reports_missing_file(tmp_path: Path, name: str) -> None:
    assert "No such file" in error_message(tmp_path / name)


@pytest.mark.parametrize("name", ["digit.png", "digit.npy"])
def test_read_image_rejects_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert "directory" in error_message(tmp_path / name)


@pytest.mark.parametrize(("limit", "module"), [(5000, Image), (39_999, decoding)], ids=["Pillow", "handgrad"])
def test_read_image_rejects_too_many_pixels_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, module: Any
) -> None:
    path = tmp_path / "huge.png"
    grey().save(path)
    monkeypatch.setattr(module, "MAX_IMAGE_PIXELS" if module is Image else "MAX_PIXELS", limit)
    monkeypatch.setattr(Image.Image, "crop", None)
    assert "too large" in error_message(path)


def test_read_image_rejects_nan(tmp_path: Path) -> None:
    path = tmp_path / "measured.tiff"
    Image.fromarray(np.where(np.eye(30) > 0, np.nan, 1).astype(np.float32)).save(path)
    error_message(path)


# ---- Models of other images ------------------------------------------------------------------------------------------


def write_shapes(folder: Path, *, bright: bool) -> None:
    """Filled circles and outlines of squares in colour, a few of them larger, in one folder for each class."""
    rng = np.random.default_rng(0)
    for kind in ("circle", "square"):
        (folder / kind).mkdir()
        for number in range(30):
            side = 80 if number % 10 == 0 else 40
            image = Image.new("RGB", (side, side), "white" if bright else "black")
            draw, colour = ImageDraw.Draw(image), "darkblue" if bright else "yellow"
            (left, top), size = rng.uniform(0.1, 0.2, 2) * side, rng.uniform(0.6, 0.7) * side
            box = (left, top, left + size, top + size)
            if kind == "circle":
                draw.ellipse(box, fill=colour)
            else:
                draw.rectangle(box, outline=colour, width=side // 20)
            image.save(folder / kind / f"{number:02}.png")


@pytest.mark.parametrize("bright", [True, False])
def test_model_of_other_images_reads_files_as_evaluate_does(tmp_path: Path, bright: bool) -> None:
    write_shapes(tmp_path, bright=bright)
    data = handgrad.data.load(str(tmp_path))
    model = handgrad.Network([1600, 16, 2], activation="relu", loss="cross_entropy", rng=0)
    model.fit(data.x_train, data.y_train, optimizer=handgrad.Adam(0.003), epochs=40, rng=0, progress=False)
    model.classes = data.classes
    assert model.evaluate(data.x_test, data.y_test).accuracy == 1
    images = {image.tobytes() for image in (*data.x_train, *data.x_test)}
    for kind in data.classes:
        for path in sorted((tmp_path / kind).iterdir()):
            (reading,) = model.predict_image(path)
            assert reading.digit.tobytes() in images
            assert (reading.label, reading.reason) == (kind, "")
            assert list(reading.probabilities.values()) == pytest.approx(model.predict_proba(reading.digit[None])[0])
            assert reading.box == ((0, 0, 80, 80) if path.stem[1] == "0" else (0, 0, 40, 40))


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ("0123456789", True),
        (" abcdefghijklmnopqrstuvwxyz", True),
        ("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt", True),
        ("38", True),
        (["circle", "square"], False),
        ([str(k) for k in range(100)], False),
    ],
)
def test_digits_and_letters_are_recognized_by_the_names_of_the_classes(classes: Any, expected: bool) -> None:
    model = handgrad.Network([16, len(classes)], rng=0)
    model.classes = list(classes)
    assert reads_characters(model) == expected
