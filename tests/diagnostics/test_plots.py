"""Plots: complete PNG files for every kind of model, history and image size."""

from __future__ import annotations

import copy
import functools
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from handgrad import HOG, CrossEntropy, Dense, Deskew, Dropout, Ensemble, Preprocessed, ReLU, TestTimeAugmentation
from handgrad.diagnostics import plots
from handgrad.diagnostics.histograms import Histogram
from handgrad.diagnostics.plots import augmentation_grid, digit_grid, perturbation_grid, report
from handgrad.errors import HandgradError
from handgrad.images.augmentation import Augmentation
from handgrad.network import Network
from handgrad.wrappers import Calibrated

Case = tuple[Network, NDArray[np.uint8], NDArray[np.int64]]


def case(shape: tuple[int, int] = (8, 8), hidden: int = 9, classes: int = 10) -> Case:
    """An untrained network of images, and 60 examples."""
    rng = np.random.default_rng(0)
    network = Network([shape[0] * shape[1], hidden, classes], rng=0)
    network.image_shape = shape
    x = rng.integers(0, 256, (60, *shape), dtype=np.uint8)
    return network, x, np.arange(60) % classes


def history(epochs: int = 3, *, validation: bool = True) -> dict[str, list[float]]:
    """A history as a trainer has it."""
    falling = [1 / (k + 1) for k in range(epochs)]
    metrics = {"loss": falling, "accuracy": [1 - v / 2 for v in falling], "lr": [0.1] * epochs}
    metrics["seconds"] = [1.0] * epochs
    if validation:
        metrics |= {"val_loss": falling, "val_accuracy": [1 - v / 3 for v in falling]}
    return metrics


def read_grey(path: Path) -> NDArray[np.uint8]:
    """The grey levels of a complete PNG file."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("L"))


def coverage(panel: NDArray[np.uint8]) -> float:
    """The fraction of pixels that are not white."""
    return float((panel < 250).mean())


def write_report(tmp_path: Path, model: Any, x: Any, y: Any, metrics: dict[str, list[float]]) -> NDArray[np.uint8]:
    """Write a report, and check that its title, its curves and its confusion matrix are not empty."""
    path = tmp_path / "report.png"
    report(path, model, metrics, x, y, title="a network")
    assert list(tmp_path.iterdir()) == [path]
    image = read_grey(path)
    height, width = image.shape
    assert min(height, width) > 600
    assert coverage(image[: height // 10, : width // 3]) > 0.005  # title
    assert coverage(image[height // 8 : height // 2, : width // 2]) > 0.005  # curves
    assert coverage(image[height // 2 :, : width // 2]) > 0.005  # confusion matrix
    return image


def weights_and_errors(image: NDArray[np.uint8]) -> tuple[float, float]:
    """The coverage of the panels of the weights and of the errors."""
    height, width = image.shape
    return (
        coverage(image[height // 8 : height // 2, 6 * width // 10 :]),
        coverage(image[56 * height // 100 :, width // 2 :]),
    )


def record_images(monkeypatch: pytest.MonkeyPatch) -> list[tuple[NDArray[Any], list[str]]]:
    """A list to which each grid of images adds its images and captions."""
    grids: list[tuple[NDArray[Any], list[str]]] = []
    draw = plots._image_grid

    def recorded(axes: Any, images: NDArray[Any], columns: int, captions: Any = (), **style: Any) -> None:
        grids.append((images, list(captions)))
        draw(axes, images, columns, captions, **style)

    monkeypatch.setattr(plots, "_image_grid", recorded)
    return grids


# ---- Report ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "hidden", "classes"),
    [((28, 28), 30, 10), ((8, 8), 1, 2), ((8, 8), 64, 47), ((1, 6), 4, 2)],
)
def test_a_report_shows_images_of_any_size_and_any_number_of_classes(
    tmp_path: Path, shape: tuple[int, int], hidden: int, classes: int
) -> None:
    weights, errors = weights_and_errors(write_report(tmp_path, *case(shape, hidden, classes), history()))
    assert weights > 0.01
    assert errors > 0.01


@pytest.mark.parametrize(("epochs", "validation"), [(1, True), (60, False)])
def test_a_report_shows_any_number_of_epochs(tmp_path: Path, epochs: int, validation: bool) -> None:
    write_report(tmp_path, *case(), history(epochs, validation=validation))


def test_curves_skip_epochs_that_were_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: dict[str, tuple[list[int], list[float]]] = {}
    plot = Axes.plot

    def recorded(self: Axes, x: Any, y: Any, **style: Any) -> Any:
        lines[f"{style['label']} {len(lines) // 2}"] = list(x), list(y)
        return plot(self, x, y, **style)

    monkeypatch.setattr(Axes, "plot", recorded)
    metrics = history() | {"val_loss": [np.nan, 2.0, np.nan], "val_accuracy": [np.nan] * 3}
    write_report(tmp_path, *case(), metrics)
    assert lines["training 0"] == ([1, 2, 3], pytest.approx([1, 1 / 2, 1 / 3]))
    assert lines["validation 0"] == ([2], [2.0])
    assert lines["validation 1"] == ([], [])


def test_the_curves_of_the_loss_say_that_they_are_with_label_smoothing() -> None:
    """Also if the model is calibrated: the loss of a calibrated model has no label smoothing."""
    network, x, y = case()
    network.loss = CrossEntropy(label_smoothing=0.1)
    for model, soft_labels in ((network, False), (Calibrated(network, 0.5), False), (network, True)):
        loss, accuracy, *_ = report(None, model, history(), x, y, title="a run", soft_labels=soft_labels).axes
        training, validation = (text.get_text() for text in loss.get_legend().get_texts())
        assert ("label smoothing 0.1" in training) == (not soft_labels)
        assert "label smoothing 0.1" in validation
        assert all("smoothing" not in text.get_text() for text in accuracy.get_legend().get_texts())


def test_a_report_without_errors_leaves_their_panel_empty(tmp_path: Path) -> None:
    network, x, _ = case()
    weights, errors = weights_and_errors(write_report(tmp_path, network, x, network.predict(x), history()))
    assert weights > 0.01
    assert errors == 0


def test_a_report_of_a_model_without_images_has_no_image_panels(tmp_path: Path) -> None:
    network, x, y = case()
    network.image_shape = None
    assert weights_and_errors(write_report(tmp_path, network, x.reshape(60, -1) / 255, y, history())) == (0, 0)


def test_a_report_accepts_flat_images(tmp_path: Path) -> None:
    network, x, y = case()
    images = write_report(tmp_path, network, x, y, history())
    flat = write_report(tmp_path, network, x.reshape(60, -1), y, history())
    np.testing.assert_array_equal(images, flat)


@pytest.mark.parametrize("value", [0.0, np.nan], ids=["zero", "nan"])
def test_a_report_shows_weights_that_are_all_zero_or_nan(tmp_path: Path, value: float) -> None:
    network, x, y = case()
    network.parameters[...] = value
    write_report(tmp_path, network, x, y, history())


def test_a_report_shows_a_history_of_nan(tmp_path: Path) -> None:
    write_report(tmp_path, *case(), {name: [np.nan] * 3 for name in ("loss", "val_loss", "accuracy", "val_accuracy")})


def test_a_report_shows_the_units_with_the_largest_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, y = case(hidden=100)
    W, _ = network.weights[0]
    W[::2] *= 0.001  # the 60 strongest units: all 50 odd ones and ten of the even ones
    grids = record_images(monkeypatch)
    write_report(tmp_path, network, x, y, history())
    shown = grids[0][0].reshape(60, -1)
    assert all(any(np.array_equal(row, unit) for row in shown) for unit in W[1::2])


def test_weights_after_hog_are_the_cells_of_the_8_directions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, x, y = case()
    network = Network([HOG(8, 8, cells=3), Dropout(0.1), Dense(72, 14), ReLU(), Dense(14, 10)], rng=0)
    network.image_shape = (8, 8)
    grids = record_images(monkeypatch)
    write_report(tmp_path, network, x, y, history())
    plots.weights(network)
    W, _ = network.weights[0]
    for shown, _ in (grids[0], grids[-1]):
        assert shown.shape == (12, 13, 13)
        assert not np.isnan(shown[:, 1:4, 5:8]).any()  # north
        assert any(np.array_equal(shown[0, 5:8, 9:12].ravel(), unit[:9]) for unit in W)  # east


def test_weights_after_second_order_gradients_are_a_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if there are as many of them as pixels."""
    network = Network([HOG(16, 16, cells=8), HOG(8, 8, cells=2, channels=8), Dense(256, 10)], rng=0)
    network.image_shape = (16, 16)
    grids = record_images(monkeypatch)
    (axes,) = plots.weights(network).axes
    assert grids == []
    np.testing.assert_array_equal(axes.images[0].get_array(), network.weights[0][0])


def test_a_report_shows_no_weights_if_the_inputs_of_the_first_matrix_are_no_pixels(tmp_path: Path) -> None:
    class Half(ReLU):
        n_in = 64

        def forward(self, z: Any) -> Any:
            return z[:, ::2]

        def width(self, n_in: int) -> int:
            return n_in // 2

    _, x, y = case()
    network = Network([Half(), Dense(32, 10)], rng=0)
    network.image_shape = (8, 8)
    weights, errors = weights_and_errors(write_report(tmp_path, network, x, y, history()))
    assert weights == 0
    assert errors > 0.01


def test_a_report_replaces_an_existing_file(tmp_path: Path) -> None:
    (tmp_path / "report.png").write_text("an old report")
    write_report(tmp_path, *case(), history())


def test_the_same_inputs_give_the_same_report(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        network, x, y = case()
        report(tmp_path / name, network, history(), x, y, title="a network")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_report_without_examples_has_only_curves_and_weights(tmp_path: Path) -> None:
    network, _, _ = case()
    path = tmp_path / "report.png"
    report(path, network, history(), title="after epoch 3")
    image = read_grey(path)
    height, width = image.shape
    assert coverage(image[: height // 10, : width // 3]) > 0.005
    assert coverage(image[height // 8 : height // 2, : width // 2]) > 0.005
    assert weights_and_errors(image)[0] > 0.01
    assert coverage(image[54 * height // 100 :]) == 0


def test_the_title_has_the_accuracy_and_the_name_of_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, y = case()
    titles: list[str] = []
    text = Figure.text

    def recorded(self: Figure, left: float, top: float, title: str, **style: Any) -> Any:
        titles.append(title)
        return text(self, left, top, title, **style)

    monkeypatch.setattr(Figure, "text", recorded)
    correct = int((network.predict(x) == y).sum())
    for part in ({}, {"part": "validation"}):
        report(tmp_path / "report.png", network, history(), x, y, title="a run", **part)
    accuracy = f"{correct} / 60 correct ({correct / 60:.2%})"
    assert titles == [f"a run\ntest: {accuracy}", f"a run\nvalidation: {accuracy}"]


def test_the_numbers_of_a_confusion_matrix_have_enough_contrast() -> None:
    """The minimum of WCAG 2.2 is 4.5, for cells of every shade."""
    network = Network([1, 20], rng=0)
    labels, predicted = np.divmod(np.repeat(np.arange(400), np.arange(400)), 20)
    axes = Figure().subplots()
    plots._confusion(axes, network, np.eye(20)[predicted], labels)

    def luminance(colours: Any) -> Any:
        rgb = to_rgba_array(colours)[:, :3]
        return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)

    (image,) = axes.images
    cells = image.to_rgba(image.get_array())
    background = luminance([cells[int(y), int(x)] for x, y in (text.get_position() for text in axes.texts)])
    text = luminance([text.get_color() for text in axes.texts])
    assert len(text) == 399
    contrast = (np.maximum(text, background) + 0.05) / (np.minimum(text, background) + 0.05)
    assert contrast.min() >= 4.5


def test_errors_have_true_and_predicted_class_as_caption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, _ = case()
    predicted = network.predict(x)
    y = predicted.copy()
    y[7] = (predicted[7] + 1) % 10  # the only error
    grids = record_images(monkeypatch)
    write_report(tmp_path, network, x, y, history())
    (images, captions) = grids[1]
    np.testing.assert_array_equal(images, x[7:8])
    assert captions == [f"{y[7]} / {predicted[7]}"]


def test_a_report_finds_the_network_in_wrappers_and_ensembles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network([12, 9, 3], rng=0)
    network.image_shape = (3, 4)
    deskew = Deskew(6, 8, 2)
    shifted = TestTimeAugmentation(network, 5)
    models = [Preprocessed(network, deskew), Preprocessed(shifted, deskew)]
    models.append(Preprocessed(Ensemble([shifted, copy.deepcopy(shifted)]), deskew))
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 6, 8)).astype(np.uint8), np.arange(60) % 3
    grids = record_images(monkeypatch)
    for model in models:
        grids.clear()
        report(tmp_path / "report.png", model, history(), x, y, title="wrapped")
        weights, errors = (images for images, _ in grids)
        np.testing.assert_array_equal(weights.reshape(9, 12), network.weights[0][0])
        assert errors.shape[1:] == (6, 8)


# ---- Files and text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("title", ["a$^$b", "$5 and $6", "line\nline"])
def test_a_title_is_never_parsed_as_a_formula(tmp_path: Path, title: str) -> None:
    network, x, y = case()
    path = tmp_path / "report.png"
    report(path, network, history(), x, y, title=title)
    assert min(read_grey(path).shape) > 600


def test_names_of_metrics_and_layers_are_never_parsed_as_formulas(tmp_path: Path) -> None:
    plots.history({"a$^$b": [1.0, 2.0]}, metric="a$^$b", path=tmp_path / "history.png")
    records = {"a$^$b": [Histogram(np.ones(3), np.arange(4.0))]}
    plots.histograms([1], records, path=tmp_path / "histograms.png")


@pytest.mark.parametrize("place", ["missing/plot.png", "file/plot.png", "directory", "n" * 300])
def test_a_file_that_cannot_be_written_raises_a_one_line_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "directory").mkdir()
    with pytest.raises(HandgradError, match=r"\Acannot write [^\n]*\Z"):
        digit_grid(tmp_path / place, np.zeros((1, 8, 8), np.uint8), ["7"])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["directory", "file"]


def test_pyplot_is_not_imported(tmp_path: Path) -> None:
    code = """
import sys
import numpy as np
from handgrad.diagnostics import find_lr, plots
from handgrad.diagnostics.plots import digit_grid, report
from handgrad.network import Network
assert "matplotlib" not in sys.modules, "imported before it is needed"
network = Network([4, 3, 2], rng=0)
network.image_shape = (2, 2)
history = {"loss": [1.0], "accuracy": [0.5]}
report("report.png", network, history, np.zeros((4, 2, 2), np.uint8), np.zeros(4, int), title="")
digit_grid("grid.png", np.zeros((1, 2, 2), np.uint8), ["0"])
plots.history(history)._repr_png_()
plots.weights(network)
find_lr(network, np.eye(4), np.arange(4) % 2).plot()
assert "matplotlib.figure" in sys.modules
print("matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.png", "report.png"]


# ---- Single plots ----------------------------------------------------------------------------------------------------


def labelled(network: Network, x: Any, y: Any) -> dict[str, Any]:
    """Every plot function of one panel, with its arguments; each takes `ax` and `path`."""
    return {
        "history": functools.partial(plots.history, history()),
        "confusion matrix": functools.partial(plots.confusion_matrix, network, x, y),
        "errors": functools.partial(plots.errors, network, x, y),
        "weights": functools.partial(plots.weights, network),
        "activations": functools.partial(plots.activations, network, x),
        "activation histograms": functools.partial(plots.activation_histograms, network, x),
        "gradient histograms": functools.partial(plots.gradient_histograms, network, x, y),
    }


PANELS = ("history", "confusion matrix", "errors", "weights")


@pytest.mark.parametrize("name", labelled(*case()))
def test_a_plot_returns_a_new_figure_that_a_notebook_displays_and_writes_a_file(tmp_path: Path, name: str) -> None:
    draw = labelled(*case())[name]
    figure = draw()
    assert isinstance(figure, Figure)
    assert list(tmp_path.iterdir()) == []
    png = figure._repr_png_()  # type: ignore[attr-defined]
    assert png.startswith(b"\x89PNG")
    draw(path=tmp_path / "plot.png")
    image = read_grey(tmp_path / "plot.png")
    assert 0.005 < coverage(image) < 1


@pytest.mark.parametrize("name", PANELS)
def test_a_plot_draws_into_axes_and_nowhere_else(tmp_path: Path, name: str) -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    empty = len(right.get_children())
    result = labelled(*case())[name](ax=left, path=tmp_path / "plot.png")
    assert result is left
    assert len(right.get_children()) == empty
    assert left.lines or left.images
    assert coverage(read_grey(tmp_path / "plot.png")) > 0.005
    with pytest.raises(HandgradError, match="ax must be matplotlib axes"):
        labelled(*case())[name](ax=figure)


def test_a_figure_in_a_notebook_survives_pickling() -> None:
    figure = pickle.loads(pickle.dumps(plots.history(history())))
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_history_shows_the_chosen_metric() -> None:
    figure = plots.history(history(3))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "accuracy in %"]
    (axes,) = plots.history(history(3), metric="lr").axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[0.1, 0.1, 0.1]]
    axes = plots.history(history(2), Figure().subplots(), metric="val_accuracy")
    assert [list(line.get_ydata()) for line in axes.lines] == [[50, 75], pytest.approx([200 / 3, 250 / 3])]
    with pytest.raises(HandgradError, match=r"no metric 'f1': it has loss, accuracy, lr, seconds\Z"):
        plots.history(history(), metric="f1")
    with pytest.raises(HandgradError, match=r"no metric 'loss': it has no epochs"):
        plots.history({})


def test_activations_and_gradients_are_those_of_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, y = case()
    drawn: list[NDArray[np.float64]] = []
    monkeypatch.setattr(Axes, "hist", lambda self, values, **style: drawn.append(values))
    plots.activation_histograms(network, x)
    outputs = network.activations(x)
    assert [len(values) for values in drawn] == [a.size for a in outputs]
    np.testing.assert_array_equal(drawn[-1], outputs[-1].ravel())
    drawn.clear()
    theta, gradient = network.parameters.copy(), network.gradient.copy()
    plots.gradient_histograms(network, x, y)
    np.testing.assert_array_equal(network.parameters, theta)
    np.testing.assert_array_equal(network.gradient, gradient)
    network.backprop(x.reshape(60, 64) / np.float32(255), network.loss.targets(y, 60, 10, np.float32))
    assert len(drawn) == len(network.weights) == 2
    for values, (_, dW) in zip(drawn, network.weights, strict=True):
        np.testing.assert_allclose(values, dW.ravel(), rtol=1e-4, atol=1e-7)


def test_activations_of_a_wrapped_model_are_those_of_the_preprocessed_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, _ = case()
    model = Preprocessed(Ensemble([TestTimeAugmentation(network, 5), network]), Deskew(8, 8))
    drawn: list[NDArray[np.float64]] = []
    monkeypatch.setattr(Axes, "hist", lambda self, values, **style: drawn.append(values))
    plots.activation_histograms(model, x)
    np.testing.assert_array_equal(drawn[-1], network.outputs(Deskew(8, 8)(x)).ravel())


def test_weights_of_numbers_are_a_matrix_and_constant_activations_have_a_histogram() -> None:
    network = Network([3, 4, 2], rng=0)
    (axes,) = plots.weights(network).axes
    np.testing.assert_array_equal(axes.images[0].get_array(), network.layers[0].W)
    network.parameters[...] = 0
    figure = plots.activation_histograms(network, np.zeros((5, 3)))
    assert [sum(bar.get_height() for bar in axes.patches) for axes in figure.axes[:3]] == [20, 20, 10]


def test_plots_reject_models_that_they_cannot_show() -> None:
    regression = Network([3, 4, 2], loss="squared_error", rng=0)
    x, y = np.zeros((5, 3)), np.zeros(5, int)
    with pytest.raises(HandgradError, match="regression loss"):
        plots.confusion_matrix(regression, x, y)
    with pytest.raises(HandgradError, match="not images: set model"):
        plots.errors(Network([3, 4, 2], rng=0), x, y)
    with pytest.raises(HandgradError, match="at least one example"):
        plots.activations(regression, x[:0])


def test_reports_and_grids_without_a_path_are_figures() -> None:
    network, x, y = case()
    assert isinstance(report(None, network, history(), x, y, title="a run"), Figure)
    assert isinstance(digit_grid(None, x[:2], ["a", "b"]), Figure)
    assert isinstance(perturbation_grid(None, x[:1] / 255, x[:1] / 255, [("a", "b", "c")]), Figure)
    augment = Augmentation(8, 8, rotation=20)
    assert isinstance(augmentation_grid(None, x[:2], augment, np.random.default_rng(0)), Figure)


# ---- Grids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "shape"), [(1, (28, 28)), (11, (12, 5))])
def test_a_digit_grid_shows_every_digit_in_its_own_place(tmp_path: Path, count: int, shape: tuple[int, int]) -> None:
    path = tmp_path / "grid.png"
    dark = np.zeros((count, *shape), np.uint8)
    captions = [f"{k % 10}  99.9%" for k in range(count)]
    digit_grid(path, dark, captions)
    assert list(tmp_path.iterdir()) == [path]
    before = read_grey(path)
    assert min(before.shape) >= 100
    assert 0.1 < coverage(before) < 1
    changed = np.zeros(before.shape, bool)
    for k in sorted({0, count // 2, count - 1}):
        bright = dark.copy()
        bright[k] = 255
        digit_grid(path, bright, captions)
        brighter = read_grey(path).astype(int) > before.astype(int) + 100
        assert brighter.any()
        assert not (brighter & changed).any()
        changed |= brighter


def test_a_digit_grid_rejects_zero_digits(tmp_path: Path) -> None:
    with pytest.raises(HandgradError, match=r"\Acannot draw a grid: there are no digits, expected at least one\Z"):
        digit_grid(tmp_path / "grid.png", np.zeros((0, 28, 28), np.uint8), [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("caption", ["$^$  51.0%", "handwritten numeral seven  99.9%"], ids=["dollars", "long"])
def test_a_digit_grid_accepts_any_caption(tmp_path: Path, caption: str) -> None:
    path = tmp_path / "grid.png"
    digit_grid(path, np.zeros((1, 28, 28), np.uint8), [caption])
    assert coverage(read_grey(path)) > 0.1


def test_a_perturbation_is_red_where_it_increases_a_pixel_and_blue_where_it_decreases_one(tmp_path: Path) -> None:
    images = np.full((2, 8, 8), 0.5)
    perturbations = np.zeros((2, 8, 8))
    perturbations[0, :4], perturbations[1, 4:] = 0.5, -0.5
    perturbation_grid(tmp_path / "grid.png", images, perturbations, [("a", "b", "c"), ("$d", "e", "f")])
    with Image.open(tmp_path / "grid.png") as image:
        colours = np.asarray(image.convert("RGB")).astype(int)
    height, width, _ = colours.shape
    red, blue = (colours[..., one] - colours[..., other] > 60 for one, other in ((0, 2), (2, 0)))
    assert red[: height // 2].any()
    assert blue[height // 2 :].any()
    assert not red[height // 2 :].any()
    assert not blue[: height // 2].any()
    middle = slice(width // 3, 2 * width // 3)
    assert not np.delete(red | blue, middle, axis=1).any()  # the images on both sides are grey
    image, total = colours[: height // 2, : width // 3], colours[: height // 2, 2 * width // 3 :]
    assert (abs(image - 127.5) < 1).any()
    assert (total == 255).all(axis=2).any()


def test_a_perturbation_grid_rejects_zero_images(tmp_path: Path) -> None:
    with pytest.raises(HandgradError, match="there are no images, expected at least one"):
        perturbation_grid(tmp_path / "grid.png", np.zeros((0, 8, 8)), np.zeros((0, 8, 8)), [])
    assert not list(tmp_path.iterdir())


def test_an_augmentation_grid_has_each_image_and_eleven_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grids = record_images(monkeypatch)
    digits = np.random.default_rng(0).integers(0, 256, (3, 5, 9)).astype(np.uint8)
    calls = iter(range(11))

    def augment(x: NDArray[Any], rng: np.random.Generator, out: NDArray[Any]) -> NDArray[Any]:
        out[...] = x.reshape(out.shape) / 255 + 1 + next(calls)
        return out

    figure = augmentation_grid(tmp_path / "grid.png", digits, augment, np.random.default_rng(0))
    ((images, _),) = grids
    rows = images.reshape(3, 12, 5, 9)
    np.testing.assert_allclose(rows, digits[:, None] / 255 + np.arange(12)[None, :, None, None], rtol=1e-6)
    assert (tmp_path / "grid.png").exists()
    (line,) = figure.axes[0].lines
    assert 8.5 <= line.get_xdata()[0] <= 9.5  # the gap of one pixel after the first image


def test_an_augmentation_grid_shows_augmented_images(tmp_path: Path) -> None:
    digits = np.random.default_rng(0).integers(0, 256, (2, 8, 8)).astype(np.uint8)
    augmentation_grid(tmp_path / "grid.png", digits, Augmentation(8, 8, rotation=20), np.random.default_rng(0))
    assert coverage(read_grey(tmp_path / "grid.png")) > 0.1


def test_long_names_are_shortened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """matplotlib draws 100,000 letters in 20 seconds. Every text of a figure is counted here."""
    drawn: list[str] = []
    add = Figure.text, Axes.text, Axes.set_xticks, Axes.set_yticks

    def recorded(number: int) -> Any:
        def call(self: Any, *arguments: Any, **options: Any) -> Any:
            for text in (t for a in arguments for t in (a if isinstance(a, list) else [a]) if isinstance(t, str)):
                drawn.append(text)
            return add[number](self, *arguments, **options)

        return call

    monkeypatch.setattr(Figure, "text", recorded(0))
    for number, name in enumerate(("text", "set_xticks", "set_yticks"), 1):
        monkeypatch.setattr(Axes, name, recorded(number))
    network, x, y = case()
    network.classes = tuple(f"{k}\n" + "x" * 100_000 for k in range(10))
    report(tmp_path / "r.png", network, history(), x, y, title="run\x1b" + "y" * 100_000)
    digit_grid(tmp_path / "d.png", x[:2], ["z" * 100_000] * 2)
    assert len(drawn) > 20
    assert max(map(len, drawn)) < 400
    assert all(line.isprintable() for text in drawn for line in text.split("\n"))
    assert any(text.startswith(r"0\nxxx") and text.endswith("...") for text in drawn)


def test_names_with_characters_that_the_font_does_not_have_are_drawn_without_a_warning(tmp_path):
    network = Network([4, 3, 2], rng=0)
    network.image_shape, network.classes = (2, 2), ("犬 \N{DOG FACE}", "café")
    x, y = np.random.default_rng(0).random((20, 2, 2)), np.arange(20) % 2
    history = network.fit(x, y, epochs=1, rng=0)
    figure = report(tmp_path / "report.png", network, history, x, y, title="\N{DOG FACE} 猫", part="test")
    texts = {text.get_text() for axes in figure.axes for text in axes.get_xticklabels()}
    assert {"□ □", "café"} <= texts
