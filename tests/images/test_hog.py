"""HOG: the definition pixel by pixel, the gradient, and blocks of images."""

import copy

import numpy as np
import pytest

from handgrad import HOG, Dense, Network, Trainer, check_gradient, load, save
from handgrad.images import hog


def hog_by_loops(image: np.ndarray, cells: int) -> np.ndarray:
    """The output for one image from the equations of the docstring, without vectors."""
    height, width = image.shape

    def p(y: int, x: int) -> float:
        return image[y, x] if 0 <= y < height and 0 <= x < width else 0.0

    sums = np.zeros((8, cells, cells))

    def window(at: int, size: int) -> np.ndarray:
        """The Gaussian density at a pixel for each cell along one side, with half of a cell as standard deviation."""
        sigma = size / cells / 2
        centres = (np.arange(cells) + 0.5) * size / cells - 0.5
        return np.exp(-((at - centres) ** 2) / (2 * sigma**2)) / np.sqrt(2 * np.pi * sigma**2)

    for y in range(height):
        for x in range(width):
            gx, gy = p(y, x + 1) - p(y, x - 1), p(y + 1, x) - p(y - 1, x)
            components = [gx - abs(gy), -gx - abs(gy), gy - abs(gx), -gy - abs(gx)]
            components += [min(gx, gy), min(-gx, gy), min(gx, -gy), min(-gx, -gy)]
            for k, component in enumerate(components):
                sums[k] += max(component, 0) * np.outer(window(y, height), window(x, width))
    return np.sqrt(sums + 1e-6).reshape(-1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def network(height: int, width: int, cells: int) -> Network:
    layer = HOG(height, width, cells)
    return Network([layer, Dense(layer.n_out, 3)], loss="cross_entropy", rng=0, dtype=np.float64)


@pytest.mark.parametrize(("height", "width", "cells"), [(5, 7, 2), (4, 4, 1), (9, 6, 3), (1, 1, 1)])
def test_the_output_is_that_of_the_equations(height, width, cells, rng):
    x = rng.random((3, height * width))
    expected = [hog_by_loops(image, cells) for image in x.reshape(-1, height, width)]
    np.testing.assert_allclose(network(height, width, cells).activations(x)[0], expected, rtol=1e-12)


@pytest.mark.parametrize(("height", "width", "cells"), [(5, 7, 2), (9, 6, 3), (1, 3, 1)])
@pytest.mark.parametrize("batch", [1, 4])
def test_the_derivatives_are_those_of_finite_differences(height, width, cells, batch, rng):
    x, y = rng.random((batch, height * width)), rng.integers(0, 3, batch)
    names = {check.name for check in check_gradient(network(height, width, cells), x, y)}
    assert "dx" in names
    check_gradient(HOG(height, width, cells), x)


@pytest.mark.parametrize("channels", [1, 2])
def test_derivatives_of_several_blocks_are_those_of_finite_differences(channels, rng, monkeypatch):
    monkeypatch.setattr(hog, "BLOCK_PIXELS", 3 * 35 * channels)
    check_gradient(HOG(5, 7, 2, channels), rng.random((8, 35 * channels)))


def test_the_output_of_several_channels_is_that_of_each_image(rng):
    x = rng.random((4, 3, 35))
    model = Network([HOG(5, 7, 2, channels=3), Dense(96, 3)], rng=0, dtype=np.float64)
    expected = network(5, 7, 2).activations(x.reshape(12, 35))[0].reshape(4, 96)
    np.testing.assert_allclose(model.activations(x.reshape(4, 105))[0], expected, rtol=1e-12)


def test_the_components_in_the_8_directions_are_those_of_an_edge_in_each_direction():
    """An edge has one direction; turning the image by 90 degrees turns it too."""
    edge = np.zeros((6, 6))
    edge[:, 3:] = 1
    east, south, west, north = (network(6, 6, 1).activations(np.rot90(edge, -k).reshape(1, -1))[0][0] for k in range(4))
    order = [0, 1, 2, 3, 4, 5, 6, 7]  # east, west, south, north, southeast, southwest, northeast, northwest
    turned = [3, 2, 0, 1, 6, 4, 7, 5]  # where each of them was before a clockwise turn
    assert east[0] == east.max()
    for before, after in [(east, south), (south, west), (west, north), (north, east)]:
        np.testing.assert_allclose(after[order], before[turned], rtol=1e-12)


def test_blocks_and_batch_sizes_do_not_change_the_result(rng):
    count = 2 * hog.BLOCK_PIXELS // 784 + 3
    x, model = rng.random((count, 784)).astype(np.float32), Network([HOG(28, 28), Dense(392, 10)], rng=0)
    whole = model.activations(x)[0]
    np.testing.assert_allclose([model.activations(row[None])[0][0] for row in x], whole, rtol=1e-5)
    np.testing.assert_array_equal(whole, model.activations(x)[0])


def test_inputs_are_not_changed_and_copies_have_their_own_buffers(rng):
    model = network(5, 5, 2)
    x = rng.random((4, 25))
    before, z = x.copy(), model.forward(x).copy()
    twin = copy.deepcopy(model)
    twin.forward(rng.random((4, 25)))
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(model.forward(x), z)


def test_the_compass_has_each_direction_on_its_side_of_the_centre():
    """The bright half of an image is on the side to which the ink increases."""
    for turns, place in enumerate([(slice(0, 2), slice(3, 5)), (slice(3, 5), slice(6, 8))]):  # north, east
        image = np.zeros((6, 6))
        image[:3] = 1
        outputs = network(6, 6, 2).activations(np.rot90(image, -turns).reshape(1, -1))[0]
        (compass,) = hog.compass(outputs, 2)
        assert compass.shape == (8, 8)
        assert np.nanmax(compass) == compass[place].max()
        assert np.isnan(compass[3:5, 3:5]).all()
        np.testing.assert_array_equal(np.sort(compass[np.isfinite(compass)]), np.sort(outputs[0]))


def test_an_image_without_ink_has_the_smallest_output():
    assert network(8, 8, 2).activations(np.zeros((1, 64)))[0] == pytest.approx(np.sqrt(hog.EPSILON))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((28, 28, 0), "HOG: cells must be"),
        ((28, 20, 21), "HOG: cells must be at most 20 for images of 28x20 pixels, got 21"),
        ((0, 28), "HOG: height must be"),
        ((60_000, 60_000, 1), "HOG: images of 60000x60000 pixels with 1x1 cells need too much memory"),
        ((600, 600, 40), "HOG: images of 600x600 pixels with 40x40 cells need too much memory"),
        ((28, 1.5), "HOG: width must be"),
        ((28, 28, 7, 0), "HOG: channels must be"),
        ((28, 28, 7, 10**6), "HOG: images of 28x28 pixels with 7x7 cells need too much memory"),
    ],
)
def test_invalid_sizes(arguments, message, rejects):
    with rejects(message):
        HOG(*arguments)


def test_images_whose_height_and_width_are_exchanged_are_rejected(rejects):
    model, images = network(6, 8, 2), np.zeros((4, 8, 6), np.uint8)
    before, trainer = model.parameters.copy(), Trainer(model, "adam")
    message = r"x has images of \(8, 6\) pixels: expected \(6, 8\), as HOG\(height=6, width=8, cells=2\)"
    for use in (model.predict, lambda x: model.evaluate(x, [0, 1, 0, 1]), lambda x: trainer.fit(x, [0, 1, 0, 1], 1)):
        with rejects(message):
            use(images)
    np.testing.assert_array_equal(model.parameters, before)
    assert (model.image_shape, trainer.epochs) == (None, 0)
    assert model.predict(images.reshape(4, 6, 8)).shape == model.predict(images.reshape(4, 48)).shape == (4,)


def test_a_model_file_contains_it(tmp_path, rng):
    model = Network([HOG(6, 5, 3), HOG(3, 3, 1, channels=8), Dense(64, 3)], rng=0)
    save(model, tmp_path / "model.safetensors")
    loaded, x = load(tmp_path / "model.safetensors"), rng.random((2, 30))
    assert repr(loaded.layers[0]) == "HOG(height=6, width=5, cells=3)"
    assert repr(loaded.layers[1]) == "HOG(height=3, width=3, cells=1, channels=8)"
    np.testing.assert_array_equal(loaded.outputs(x), model.outputs(x))
