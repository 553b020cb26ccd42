"""The pictures of a training are written whole, for every network and set that handgrad trains."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from handgrad import Ensemble, Deskew
from handgrad.diagnostics import plots
from handgrad.diagnostics.plots import augmentation_grid, change_rows, digit_grid, report
from handgrad.errors import HandgradError
from handgrad.images.augmentation import Augmentation
from handgrad.network import Network

Case = tuple[Network, NDArray[np.uint8], NDArray[np.int64]]


def case(shape: tuple[int, int] = (8, 8), hidden: int = 9, classes: int = 10, *, pictures: bool = True) -> Case:
    """A network as it was born, and examples for it."""
    rng = np.random.default_rng(0)
    network = Network([shape[0] * shape[1], hidden, classes], rng=0)
    network.image_shape = shape if pictures else None
    x = rng.integers(0, 256, (60, shape[0] * shape[1]), dtype=np.uint8)
    return network, x, np.arange(60) % classes


def history(epochs: int = 3, *, validation: bool = True) -> dict[str, list[float]]:
    """What a trainer keeps."""
    falling = [1 / (k + 1) for k in range(epochs)]
    kept = {"loss": falling, "accuracy": [1 - v / 2 for v in falling], "lr": [0.1] * epochs, "seconds": [1.0] * epochs}
    return {**kept, "val_loss": falling, "val_accuracy": [1 - v / 3 for v in falling]} if validation else kept


def opened(path: Path) -> NDArray[np.uint8]:
    """The grey levels of a PNG file, every byte of which is read."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("L"))


def inked(panel: NDArray[np.uint8]) -> float:
    """The share of a part of a picture that is not white."""
    return float((panel < 250).mean())


def reported(tmp_path: Path, network: Network, x: Any, y: Any, kept: dict[str, list[float]]) -> NDArray[np.uint8]:
    """The report, read again, its four quarters looked at where there must be something."""
    path = tmp_path / "report.png"
    report(path, network, kept, x, y, title="a network")
    assert list(tmp_path.iterdir()) == [path]
    picture = opened(path)
    height, width = picture.shape
    assert min(height, width) > 600
    assert inked(picture[: height // 10, : width // 3]) > 0.005  # the title
    assert inked(picture[height // 8 : height // 2, : width // 2]) > 0.005  # the curves
    assert inked(picture[height // 2 :, : width // 2]) > 0.005  # the confusion matrix
    return picture


def right_half(picture: NDArray[np.uint8]) -> tuple[float, float]:
    """How much ink there is where the weights are, and where the mistakes are."""
    height, width = picture.shape
    return (
        inked(picture[height // 8 : height // 2, 6 * width // 10 :]),
        inked(picture[56 * height // 100 :, width // 2 :]),
    )


@pytest.mark.parametrize(
    ("shape", "hidden", "classes"),
    [((28, 28), 30, 10), ((8, 8), 9, 10), ((8, 8), 1, 2), ((8, 8), 64, 47), ((12, 5), 61, 3), ((1, 6), 4, 2)],
)
def test_a_report_shows_any_shape_of_picture_width_and_number_of_classes(
    tmp_path: Path, shape: tuple[int, int], hidden: int, classes: int
) -> None:
    network, x, y = case(shape, hidden, classes)
    weights, mistakes = right_half(reported(tmp_path, network, x, y, history()))
    assert weights > 0.01
    assert mistakes > 0.01


@pytest.mark.parametrize("epochs", [1, 60])
@pytest.mark.parametrize("validation", [True, False])
def test_a_report_shows_any_number_of_epochs_with_and_without_validation(
    tmp_path: Path, epochs: int, validation: bool
) -> None:
    reported(tmp_path, *case(), history(epochs, validation=validation))


def test_a_report_of_a_network_that_makes_no_mistakes_leaves_their_place_empty(tmp_path: Path) -> None:
    network, x, _ = case()
    weights, mistakes = right_half(reported(tmp_path, network, x, network.predict(x), history()))
    assert weights > 0.01
    assert mistakes == 0


def test_a_report_on_what_are_no_pictures_leaves_the_places_of_pictures_empty(tmp_path: Path) -> None:
    network, x, y = case(pictures=False)
    assert right_half(reported(tmp_path, network, x / np.float32(255), y, history())) == (0, 0)


def test_a_report_takes_examples_that_have_their_pictures_shape(tmp_path: Path) -> None:
    network, x, y = case()
    flat = reported(tmp_path, network, x, y, history())
    shaped = reported(tmp_path, network, x.reshape(-1, 8, 8), y, history())
    np.testing.assert_array_equal(shaped, flat)


@pytest.mark.parametrize("value", [0.0, np.nan], ids=["zero", "nan"])
def test_a_report_shows_a_network_whose_weights_say_nothing(tmp_path: Path, value: float) -> None:
    network, x, y = case()
    network.parameters[...] = value
    reported(tmp_path, network, x, y, history())


def test_a_report_shows_a_training_whose_loss_was_lost(tmp_path: Path) -> None:
    lost = {name: [np.nan] * 3 for name in ("loss", "val_loss", "accuracy", "val_accuracy")}
    reported(tmp_path, *case(), lost)


def test_of_many_units_those_with_the_largest_weights_are_shown(tmp_path: Path) -> None:
    network, x, y = case(hidden=100)
    first, _ = network.weights[0]
    first[60:] = 0.001
    before = reported(tmp_path, network, x, y, history())
    first[60:] = -0.001  # units that are not among the 60 strongest
    after = reported(tmp_path, network, x, y, history())
    height, width = before.shape
    weights = np.s_[height // 8 : height // 2, 6 * width // 10 :]
    # The colours' limits are a quantile of all weights' sizes, and those have not changed.
    np.testing.assert_array_equal(after[weights], before[weights])
    first[0] *= -1  # a unit that is
    turned = reported(tmp_path, network, x, y, history())
    assert (turned[weights] != before[weights]).any()


def test_a_report_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "report.png").write_text("the one before")
    reported(tmp_path, *case(), history())


def test_the_same_training_gives_the_same_report(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        network, x, y = case()
        report(tmp_path / name, network, history(), x, y, title="a network")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("title", ["a$^$b", "$5 and $6", "line\nline"])
def test_a_title_is_text_and_never_a_formula(tmp_path: Path, title: str) -> None:
    network, x, y = case()
    path = tmp_path / "report.png"
    report(path, network, history(), x, y, title=title)
    assert min(opened(path).shape) > 600


@pytest.mark.parametrize("place", ["missing/picture.png", "file/picture.png", "directory", "n" * 300])
@pytest.mark.parametrize("kind", ["report", "digit_grid"])
def test_a_place_that_cannot_be_written_is_told_of_in_one_line(tmp_path: Path, place: str, kind: str) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "directory").mkdir()
    network, x, y = case()
    write = {
        "report": lambda path: report(path, network, history(), x, y, title="a network"),
        "digit_grid": lambda path: digit_grid(path, x[:1].reshape(-1, 8, 8), ["7"]),
    }[kind]
    with pytest.raises(HandgradError, match=r"\Acannot write [^\n]*\Z"):
        write(tmp_path / place)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["directory", "file"]


@pytest.mark.parametrize(("count", "shape"), [(1, (28, 28)), (11, (28, 28)), (8, (12, 5))])
def test_a_grid_shows_every_digit(tmp_path: Path, count: int, shape: tuple[int, int]) -> None:
    path = tmp_path / "grid.png"
    dark = np.zeros((count, *shape), np.uint8)
    captions = [f"{k % 10}  99.9%" for k in range(count)]
    digit_grid(path, dark, captions)
    assert list(tmp_path.iterdir()) == [path]
    before = opened(path)
    assert min(before.shape) >= 100
    assert 0.1 < inked(before) < 1
    changed = np.zeros(before.shape, bool)
    for k in sorted({0, count // 2, count - 1}):
        lit = dark.copy()
        lit[k] = 255
        digit_grid(path, lit, captions)
        lighter = opened(path).astype(int) > before.astype(int) + 100
        assert lighter.any()
        assert not (lighter & changed).any()  # each digit has a place of its own
        changed |= lighter


def test_a_grid_of_nothing_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        HandgradError, match=r"\Acannot write [^\n]*: there is no digit to show, expected one or more\Z"
    ):
        digit_grid(tmp_path / "grid.png", np.zeros((0, 28, 28), np.uint8), [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("caption", ["$^$  51.0%", "handwritten numeral seven  99.9%"], ids=["dollars", "long"])
def test_a_grid_shows_classes_of_any_name(tmp_path: Path, caption: str) -> None:
    path = tmp_path / "grid.png"
    digit_grid(path, np.zeros((1, 28, 28), np.uint8), [caption])
    assert inked(opened(path)) > 0.1


def test_pyplot_and_its_windows_are_left_alone(tmp_path: Path) -> None:
    code = """
import sys
import numpy as np
from handgrad.network import Network
from handgrad.plots import digit_grid, report
assert "matplotlib" not in sys.modules, "imported before it is needed"
network = Network([4, 3, 2], rng=0)
network.image_shape = (2, 2)
history = {"loss": [1.0], "accuracy": [0.5]}
report("report.png", network, history, np.eye(4, dtype=np.float32), np.zeros(4, int), title="")
digit_grid("grid.png", np.zeros((1, 2, 2), np.uint8), ["0"])
assert "matplotlib.figure" in sys.modules
print("matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.png", "report.png"]


def test_a_change_is_drawn_beside_its_picture_red_where_ink_came_and_blue_where_it_went(tmp_path: Path) -> None:
    pictures = np.full((2, 8, 8), 0.5)
    changes = np.zeros((2, 8, 8))
    changes[0, :4], changes[1, 4:] = 0.5, -0.5
    change_rows(tmp_path / "rows.png", pictures, changes, [("a", "b", "c"), ("$d", "e", "f")])
    with Image.open(tmp_path / "rows.png") as image:
        colours = np.asarray(image.convert("RGB")).astype(int)
    height, width, _ = colours.shape
    red, blue = (colours[..., one] - colours[..., other] > 60 for one, other in ((0, 2), (2, 0)))
    assert red[: height // 2].any()
    assert blue[height // 2 :].any()
    assert not red[height // 2 :].any()
    assert not blue[: height // 2].any()
    middle = slice(width // 3, 2 * width // 3)
    assert not np.delete(red | blue, middle, axis=1).any()  # the pictures on both sides are grey
    grey, both = colours[: height // 2, : width // 3], colours[: height // 2, 2 * width // 3 :]
    assert (abs(grey - 127.5) < 1).any()
    assert (both == 255).all(axis=2).any()


def test_rows_of_no_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HandgradError, match="there is no picture to show"):
        change_rows(tmp_path / "rows.png", np.zeros((0, 8, 8)), np.zeros((0, 8, 8)), [])
    assert not list(tmp_path.iterdir())


# ---- Reports of less than a test set, and of what sees other pictures than it is given ------------------------------


def test_a_report_without_examples_has_the_curves_and_the_weights_alone(tmp_path: Path) -> None:
    network, _, _ = case()
    path = tmp_path / "report.png"
    report(path, network, history(), title="half way")
    picture = opened(path)
    height, width = picture.shape
    assert inked(picture[: height // 10, : width // 3]) > 0.005
    assert inked(picture[height // 8 : height // 2, : width // 2]) > 0.005
    assert right_half(picture)[0] > 0.01
    assert inked(picture[54 * height // 100 :]) == 0


def test_a_report_tells_the_part_that_it_is_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, y = case()
    titles: list[str] = []
    text = Figure.text

    def kept(self: Figure, x: float, y: float, s: str, **look: Any) -> Any:
        titles.append(s)
        return text(self, x, y, s, **look)

    monkeypatch.setattr(Figure, "text", kept)
    right = int((network.predict(x) == y).sum())
    for words in ({}, {"part": "validation"}):
        report(tmp_path / "report.png", network, history(), x, y, title="a run", **words)
    share = f"{right / 60:.2%}: {right} of 60"
    assert titles == [f"a run\ntest {share}", f"a run\nvalidation {share}"]


def test_a_report_shows_the_weights_in_the_shape_that_the_first_layer_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    show = plots._pictures

    def kept(axes: Any, pictures: NDArray[Any], *more: Any, **look: Any) -> None:
        shapes.append(pictures.shape[1:])
        show(axes, pictures, *more, **look)

    monkeypatch.setattr(plots, "_pictures", kept)
    rng = np.random.default_rng(0)
    network = Network([12, 9, 3], rng=0, preprocessing=Deskew(6, 8, 2))
    network.image_shape = (6, 8)
    x, y = rng.integers(0, 256, (60, 6, 8)).astype(np.uint8), np.arange(60) % 3
    for classifier in (network, Ensemble([network, copy.deepcopy(network)])):
        shapes.clear()
        report(tmp_path / "report.png", classifier, history(), x, y, title="shrunk")
        assert shapes == [(3, 4), (6, 8)]  # the weights, the mistakes


# ---- New pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (5, 9)])
def test_a_grid_of_new_pictures_has_each_as_it_is_and_eleven_times_anew(
    shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def kept(axes: Any, pictures: NDArray[Any], columns: int, *more: Any, **look: Any) -> None:
        seen.append((pictures, columns))

    monkeypatch.setattr(plots, "_pictures", kept)
    digits = np.random.default_rng(0).integers(0, 256, (3, *shape)).astype(np.uint8)
    calls = iter(range(11))

    def augment(x: NDArray[Any], rng: np.random.Generator, out: NDArray[Any]) -> NDArray[Any]:
        out[...] = x / 255 + 1 + next(calls)
        return out

    augmentation_grid(tmp_path / "grid.png", digits, augment, np.random.default_rng(0))
    ((pictures, columns),) = seen
    assert (pictures.shape, columns) == ((36, *shape), 12)
    rows = pictures.reshape(3, 12, *shape)
    np.testing.assert_allclose(rows, digits[:, None] / 255 + np.arange(12)[None, :, None, None], rtol=1e-6)
    assert (tmp_path / "grid.png").exists()


def test_a_grid_of_new_pictures_is_drawn(tmp_path: Path) -> None:
    digits = np.random.default_rng(0).integers(0, 256, (2, 8, 8)).astype(np.uint8)
    augmentation_grid(tmp_path / "grid.png", digits, Augmentation(8, 8, rotation=20), np.random.default_rng(0))
    assert inked(opened(tmp_path / "grid.png")) > 0.1
