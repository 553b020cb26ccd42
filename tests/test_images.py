"""Pictures of digits as people make them come out as a network learnt them; what is no picture is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from handgrad.errors import HandgradError
from handgrad.images import as_digit, read_picture

SHAPES = [(28, 28), (8, 8), (16, 16), (32, 20), (20, 32)]
FIGURES = ["0", "1", "2", "4", "7"]
LINES = {
    "1": [(0.5, 0.0), (0.5, 1.0)],
    "2": [(0.0, 0.2), (0.25, 0.0), (0.6, 0.05), (0.65, 0.35), (0.0, 1.0), (0.7, 1.0)],
    "4": [(0.6, 1.0), (0.6, 0.0), (0.0, 0.65), (0.8, 0.65)],
    "7": [(0.0, 0.0), (0.65, 0.0), (0.2, 1.0)],
}


def drawn(
    figure: str = "2",
    *,
    size: tuple[int, int] = (200, 200),
    tall: float = 120,
    at: tuple[float, float] = (50, 40),
    pen: float | None = None,
    ink: int = 0,
    paper: int = 255,
) -> NDArray[np.uint8]:
    """A digit `tall` pixels high, its upper left corner `at` (x, y) of a picture of `size` (width, height)."""
    over = 4 if max(size) <= 300 else 1  # drawn larger than it is, so that its edges are soft
    image = Image.new("L", (size[0] * over, size[1] * over), paper)
    draw = ImageDraw.Draw(image)
    width = round((tall * 0.12 if pen is None else pen) * over)
    (left, top), high = at, tall * over
    left, top = left * over, top * over
    if figure == "0":
        draw.ellipse((left, top, left + 0.7 * high, top + high), outline=ink, width=width)
    else:
        points = [(left + x * high, top + y * high) for x, y in LINES[figure]]
        draw.line(points, fill=ink, width=width, joint="curve")
    return np.asarray(image.resize(size, Image.Resampling.BOX))


def unlike(a: NDArray[Any], b: NDArray[Any]) -> float:
    """How much two digits differ: 0 where they are the same, 1 where they share no ink."""
    a, b = a.astype(float), b.astype(float)
    return float(np.abs(a - b).sum() / (a.sum() + b.sum()))


def extent(digit: NDArray[Any], level: int = 64) -> tuple[int, int]:
    """The height and width of what is brighter than `level`."""
    rows, columns = np.nonzero(digit > level)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def centre(digit: NDArray[Any]) -> NDArray[np.float64]:
    """The centre of mass (row, column)."""
    mass = digit.astype(float)
    return np.array([(mass * places).sum() for places in np.indices(digit.shape)]) / mass.sum()


def refused(path: Path) -> str:
    """The one line with which `path` is refused."""
    with pytest.raises(HandgradError) as caught:
        read_picture(path)
    line = str(caught.value)
    assert line
    assert "\n" not in line
    assert str(path) in line
    return line


# ---- as_digit --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_digit_is_light_ink_on_black_in_the_shape_asked_for(figure: str, shape: tuple[int, int]) -> None:
    digit = as_digit(drawn(figure), shape)
    assert digit.dtype == np.uint8
    assert digit.shape == shape
    assert digit.max() > 200
    assert np.median(np.concatenate([digit[0], digit[-1], digit[:, 0], digit[:, -1]])) == 0


def test_the_shape_is_mnists_unless_said_otherwise() -> None:
    assert as_digit(drawn()).shape == (28, 28)


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("size", [28, 60, 200])
def test_a_picture_and_its_negative_give_the_same_digit(figure: str, size: int) -> None:
    picture = drawn(figure, size=(size, size), tall=0.6 * size, at=(0.2 * size, 0.2 * size))
    assert unlike(as_digit(picture), as_digit(255 - picture)) < 0.01


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_digit_fills_five_sevenths_of_the_field(figure: str, shape: tuple[int, int]) -> None:
    longest = max(extent(as_digit(drawn(figure), shape)))
    assert abs(longest - 20 / 28 * min(shape)) <= 1.5


@pytest.mark.parametrize("figure", FIGURES)
def test_proportions_are_kept(figure: str) -> None:
    picture = drawn(figure)
    (height, width), (high, wide) = extent(255 - picture.astype(int)), extent(as_digit(picture))
    assert wide / high == pytest.approx(width / height, abs=0.12)


def test_a_digit_that_lies_is_as_wide_as_one_that_stands_is_tall() -> None:
    standing = as_digit(drawn("1"))
    lying = as_digit(np.rot90(drawn("1")))
    assert extent(lying) == extent(standing)[::-1]


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_centre_of_mass_is_the_middle_of_the_field(figure: str, shape: tuple[int, int]) -> None:
    assert np.abs(centre(as_digit(drawn(figure), shape)) - np.array(shape) / 2).max() <= 0.55


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("at", [(10, 10), (100, 70), (10, 70)])
def test_the_place_in_the_picture_does_not_matter(figure: str, at: tuple[int, int]) -> None:
    assert unlike(as_digit(drawn(figure, at=at)), as_digit(drawn(figure))) < 0.02


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("tall", [60, 90, 240])
def test_the_size_in_the_picture_does_not_matter(figure: str, tall: int) -> None:
    small = drawn(figure, size=(300, 300), tall=tall, at=(25, 25))
    assert (
        unlike(as_digit(small), as_digit(drawn(figure))) < 0.3
    )  # a whole pixel's shift, from rounding the centre of mass, is 0.255


@pytest.mark.parametrize("figure", FIGURES)
def test_a_prepared_digit_stays_as_it_is(figure: str) -> None:
    once = as_digit(drawn(figure))
    assert unlike(as_digit(once), once) < 0.1


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("ink", [0, 60])
def test_light_from_one_side_and_grain_do_not_matter(figure: str, ink: int) -> None:
    picture = drawn(figure, ink=ink, paper=220)
    rng = np.random.default_rng(0)
    slope = np.linspace(-25, 25, picture.shape[1])
    worn = np.clip(picture + slope + rng.normal(0, 4, picture.shape), 0, 255)
    assert unlike(as_digit(worn), as_digit(picture)) < 0.15


@pytest.mark.parametrize("speck", [(3, 3), (3, 190), (195, 100)])
def test_a_speck_far_from_the_digit_is_not_part_of_it(speck: tuple[int, int]) -> None:
    picture = drawn(at=(60, 40))
    dusty = picture.copy()
    dusty[speck] = 0
    assert unlike(as_digit(dusty), as_digit(picture)) < 0.02


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize(("size", "pen"), [(280, 2), (600, 3), (1000, 6)])
def test_a_thin_line_in_a_large_picture_comes_out_thick_and_bright(figure: str, size: int, pen: int) -> None:
    digit = as_digit(drawn(figure, size=(size, size), tall=0.7 * size, at=(0.15 * size, 0.15 * size), pen=pen))
    assert digit.max() > 200
    length = max(extent(digit))
    assert digit.astype(float).sum() / 255 > 1.2 * length  # a stroke along the whole digit, more than a pixel wide


def test_a_faint_digit_is_as_bright_as_a_dark_one() -> None:
    faint, dark = drawn(ink=150, paper=200), drawn()
    assert unlike(as_digit(faint), as_digit(dark)) < 0.05


@pytest.mark.parametrize("grey", [0, 128, 255])
@pytest.mark.parametrize("size", [(28, 28), (3, 3), (200, 150)])
def test_an_empty_picture_is_refused_in_one_line(grey: int, size: tuple[int, int]) -> None:
    with pytest.raises(HandgradError, match=r"\Athere is no digit in it: .*\Z"):
        as_digit(np.full(size, grey, np.uint8))


def test_grain_alone_is_no_digit() -> None:
    grain = np.random.default_rng(0).normal(128, 3, (100, 100))
    with pytest.raises(HandgradError, match="no digit"):
        as_digit(grain)


@pytest.mark.parametrize("size", [(1, 1), (2, 50), (50, 2), (0, 9)])
def test_a_picture_too_small_for_a_digit_is_refused_in_one_line(size: tuple[int, int]) -> None:
    with pytest.raises(HandgradError, match=r"\Aa picture of \d+x\d+ pixels is too small to hold a digit\Z"):
        as_digit(np.zeros(size, np.uint8))


def test_the_picture_given_is_left_as_it_was() -> None:
    picture = drawn().astype(np.float32)
    before = picture.copy()
    as_digit(picture)
    np.testing.assert_array_equal(picture, before)


def coloured(red: int, green: int, blue: int) -> NDArray[np.uint8]:
    """The digit in that colour on white."""
    ink = 1 - drawn()[..., None] / 255
    return np.rint(255 - ink * (255 - np.array([red, green, blue]))).astype(np.uint8)


@pytest.mark.parametrize("picture", [coloured(0, 0, 0), coloured(0, 0, 200)], ids=["black", "blue"])
@pytest.mark.parametrize("alpha", [False, True])
def test_an_array_of_colours_is_read_as_a_picture_of_them_is(
    tmp_path: Path, picture: NDArray[np.uint8], alpha: bool
) -> None:
    if alpha:
        picture = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
        picture[:20] = 0  # nothing is there, and so paper
    Image.fromarray(picture).save(tmp_path / "colour.png")
    np.testing.assert_array_equal(as_digit(picture), as_digit(read_picture(tmp_path / "colour.png")))
    assert unlike(as_digit(picture), as_digit(drawn())) < 0.05


@pytest.mark.parametrize("shape", [(28,), (28, 28, 2), (28, 28, 5), (3, 28, 28), (1, 28, 28, 1), ()])
def test_an_array_that_is_no_picture_is_refused_in_one_line(shape: tuple[int, ...]) -> None:
    with pytest.raises(HandgradError, match=r"\Aan array of shape .*: expected a picture, \(height, width\) or .*\Z"):
        as_digit(np.zeros(shape, np.uint8))


# ---- read_picture ----------------------------------------------------------------------------------------------------


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def stroke(colour: tuple[int, int, int]) -> Image.Image:
    """The digit in `colour` on nothing at all; what no one sees is magenta."""
    alpha = 255 - drawn()
    image = Image.new("RGB", (200, 200), colour)
    image.putalpha(Image.fromarray(alpha))
    unseen = Image.new("RGBA", (200, 200), (255, 0, 255, 0))
    return Image.composite(image, unseen, Image.fromarray(np.uint8(alpha > 0) * np.uint8(255)))


def deep() -> Image.Image:
    """The digit with 16 bits a pixel."""
    return Image.fromarray(drawn().astype(np.uint16) * 257)


def grey() -> Image.Image:
    """The digit with 8 bits a pixel."""
    return Image.fromarray(drawn())


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
        ("black-on-nothing.png", encoded(stroke((0, 0, 0))), 1),
        ("name-without-ending", encoded(grey()), 0.5),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_picture_file_gives_its_grey_levels(
    tmp_path: Path, name: str, content: bytes, tolerance: float
) -> None:
    (tmp_path / name).write_bytes(content)
    picture = read_picture(tmp_path / name)
    assert picture.dtype == np.float32
    assert picture.shape == (200, 200)
    assert picture.min() >= 0
    assert picture.max() <= 255
    assert np.abs(picture - drawn()).max() <= tolerance
    assert unlike(as_digit(picture), as_digit(drawn())) < 0.05


def test_white_strokes_on_nothing_lie_on_black_paper(tmp_path: Path) -> None:
    path = tmp_path / "white.png"
    stroke((255, 255, 255)).save(path)
    np.testing.assert_allclose(read_picture(path), 255.0 - drawn(), atol=1)


def test_a_picture_that_shows_nothing_at_all_holds_no_digit(tmp_path: Path) -> None:
    path = tmp_path / "nothing.png"
    Image.new("RGBA", (50, 50), (0, 0, 0, 0)).save(path)
    with pytest.raises(HandgradError, match="no digit"):
        as_digit(read_picture(path))


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_a_photograph_is_turned_as_the_camera_was_held(tmp_path: Path, orientation: int, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = drawn("7", size=(200, 160), at=(30, 20))
    path = tmp_path / "photograph.png"
    Image.fromarray(upright).save(path, exif=exif)
    np.testing.assert_allclose(read_picture(path), np.rot90(upright, turn), atol=0.5)


@pytest.mark.parametrize(
    "array",
    [
        drawn(),
        drawn() / 255,
        (drawn() / 255).astype(np.float32),
        drawn().astype(np.float32),
        drawn().astype(np.int64),
        drawn()[..., None],
        np.stack([drawn()] * 3, axis=-1),
        np.stack([drawn() / 255] * 3, axis=-1),
        np.asarray(stroke((0, 0, 0))),
    ],
    ids=[
        *("bytes", "float64", "float32", "float-bytes", "int64"),
        *("one-channel", "three-channels", "three-of-floats", "four-channels"),
    ],
)
def test_an_npy_file_gives_its_grey_levels(tmp_path: Path, array: NDArray[Any]) -> None:
    path = tmp_path / "digit.npy"
    np.save(path, array)
    picture = read_picture(path)
    assert picture.dtype == np.float32
    np.testing.assert_allclose(picture, drawn(), atol=0.01)


def test_an_npy_file_of_truth_values_is_black_and_white(tmp_path: Path) -> None:
    np.save(tmp_path / "digit.npy", drawn() > 128)
    np.testing.assert_array_equal(read_picture(tmp_path / "digit.npy"), (drawn() > 128) * 255.0)


def a_zip_of_arrays() -> bytes:
    """What numpy.savez writes."""
    file = io.BytesIO()
    np.savez(file, digit=drawn())
    return file.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    """What numpy.save writes."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def a_claim_of_more_than_there_is() -> bytes:
    """An npy file of 72 bytes whose header tells of exabytes."""
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
        npy(drawn())[:300],
        npy(drawn())[:20],
        b"",
        b"no array",
        a_zip_of_arrays(),
        a_claim_of_more_than_there_is(),
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
def test_an_npy_file_that_holds_no_picture_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "digit.npy"
    path.write_bytes(content)
    refused(path)


class Trap:
    """What writes a file when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.place,)


@pytest.mark.parametrize("name", ["digit.npy", "digit.png"])
def test_a_pickle_is_never_run(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "run"
    (tmp_path / name).write_bytes(npy(np.array([Trap(mark)], dtype=object)))
    refused(tmp_path / name)
    assert not mark.exists()


PHOTOGRAPH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.0, 0.002, 0.01, 0.03, 0.1, 0.3, 0.5, 0.8, 0.95])
def test_a_part_of_a_picture_is_refused_in_one_line(tmp_path: Path, kind: str, share: float) -> None:
    whole = encoded(PHOTOGRAPH, kind)
    path = tmp_path / f"part.{kind.lower()}"
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_damaged_picture_is_read_or_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    whole, rng = encoded(PHOTOGRAPH, kind), np.random.default_rng(1)
    path = tmp_path / f"damaged.{kind.lower()}"
    lines = []
    for _ in range(200):
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 300), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            picture = read_picture(path)
        except HandgradError as error:
            lines.append(str(error))
        else:
            assert np.isfinite(picture).all()
    assert lines
    assert not [line for line in lines if "\n" in line]


@pytest.mark.parametrize("name", ["digit.png", "digit.jpg", "digit.txt", "digit"])
def test_a_text_file_is_no_picture(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("a seven\nand a three\n")
    refused(path)


@pytest.mark.parametrize("name", ["digit.png", "digit.npy", "digit"])
def test_a_file_that_is_not_there_is_told_of_in_one_line(tmp_path: Path, name: str) -> None:
    assert "No such file" in refused(tmp_path / name)


@pytest.mark.parametrize("name", ["digit.png", "digit.npy", "digit"])
def test_a_directory_is_no_picture(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert "directory" in refused(tmp_path / name)


@pytest.mark.parametrize("limit", [5000, 25_000])  # Pillow warns above its limit, and refuses above twice that
def test_a_picture_larger_than_pillow_allows_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    path = tmp_path / "huge.png"
    grey().save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert "too large" in refused(path)


def test_a_picture_with_a_value_that_is_no_number_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "measured.tiff"
    Image.fromarray(np.where(np.eye(30) > 0, np.nan, 1).astype(np.float32)).save(path)
    refused(path)
