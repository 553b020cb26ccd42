"""DeepFool: the projection, known distances, and the size and validity of the adversarial examples it finds."""

import numpy as np
import pytest

from handgrad import SGD, BatchNorm, Dense, Deskew, Dropout, Network, ReLU, SquaredError, Tanh, Trainer, one_hot
from handgrad.adversarial import deepfool
from handgrad.adversarial.deepfool import project_to_boundary
from handgrad.wrappers import Preprocessed

RNG = np.random.default_rng(5)
X = RNG.random((8, 6))


def test_projection_is_the_shortest_step_to_the_boundary_within_the_limits():
    for _ in range(30):
        w = RNG.standard_normal(12)
        low, high = -RNG.random(12), RNG.random(12)
        reach = float(np.where(w > 0, w * high, w * low).sum())
        missing, length, r = project_to_boundary(w, 0.7 * reach, low, high)
        assert missing == 0
        assert w @ r == pytest.approx(0.7 * reach, rel=1e-8)
        assert ((low <= r) & (r <= high)).all()
        assert length == pytest.approx(np.linalg.norm(r))
        # The shortest r has r / w equal to one λ for all free entries, and a smaller r / w for entries at a limit.
        free = (low < r) & (r < high)
        factor = (r / w)[free]
        assert factor.std() < 1e-9 * factor.mean()
        assert ((r / w)[~free] <= factor.mean()).all()
        missing, _, r = project_to_boundary(w, 1.25 * reach, low, high)
        assert missing == pytest.approx(0.2)
        np.testing.assert_allclose(r, np.where(w > 0, high, low))


def test_perturbation_of_a_linear_network_is_the_distance_to_the_nearest_plane():
    network = Network([Dense(6, 4)], rng=3, dtype=np.float64)
    W, b = network.layers[0].W, network.layers[0].b
    for x in RNG.standard_normal((10, 6)):
        z = W @ x + b
        a = z.argmax()
        distances = [(z[a] - z[k]) / np.linalg.norm(W[a] - W[k]) for k in range(4) if k != a]
        found = deepfool(network, x, limits=(-np.inf, np.inf))
        assert found.l2 == pytest.approx(min(distances), rel=1e-6)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", SquaredError("sigmoid")], ids=str)
def test_a_single_output_has_its_boundary_at_probability_one_half(loss):
    network = Network([Dense(2, 1)], loss=loss, rng=0, dtype=np.float64)
    network.layers[0].W[...] = [[3, 4]]
    network.layers[0].b[...] = -3.5  # the boundary 3 x₀ + 4 x₁ = 3.5 is 0.3 away from (1, 0.5)
    found = deepfool(network, [1, 0.5], limits=(-1, 2))
    assert (found.class_before, found.class_after) == (1, 0)
    assert found.l2 == pytest.approx(0.3, rel=1e-3)
    np.testing.assert_allclose(found.perturbation / found.l2, [-0.6, -0.8], atol=1e-3)


@pytest.fixture(scope="module")
def images(digits):
    """Training images, labels and test images of 8x8 pixels, flat, float32 in [0, 1]."""
    x, y, x_test, _ = digits
    return x.reshape(-1, 64) / np.float32(255), y, x_test.reshape(-1, 64) / np.float32(255)


@pytest.fixture(scope="module")
def trained(images):
    x, y, _ = images
    networks = {
        "relu": Network([Dense(64, 24), ReLU(), Dense(24, 10)], loss="cross_entropy", rng=0),
        "dropout": Network(
            [Dropout(0.2), Dense(64, 24), Tanh(), Dropout(0.3), Dense(24, 10)], loss="cross_entropy", rng=0
        ),
        "batch norm": Network([Dense(64, 24), BatchNorm(24), ReLU(), Dense(24, 10)], loss="cross_entropy", rng=0),
        "binary cross-entropy": Network([64, 12, 10], rng=0),
        "squared error": Network([64, 12, 10], loss=SquaredError("sigmoid"), rng=0),
    }
    for network in networks.values():
        Trainer(network, SGD(0.5), batch_size=20, rng=0).fit(x, y, epochs=8)
    return networks


@pytest.mark.parametrize("kind", ["relu", "dropout", "batch norm", "binary cross-entropy", "squared error"])
def test_perturbation_changes_the_class_and_nine_tenths_of_it_do_not(trained, images, kind):
    network = trained[kind]
    for x in images[2][:12]:
        found = deepfool(network, x)
        assert network.predict(x[None])[0] == found.class_before != found.class_after
        assert network.predict(found.image[None])[0] == found.class_after
        assert network.predict((x + 0.9 * found.perturbation)[None])[0] == found.class_before
        assert found.perturbation.dtype == found.image.dtype == np.float32
        assert 0 <= found.image.min() <= found.image.max() <= 1
        np.testing.assert_allclose(found.image, x + found.perturbation, atol=1e-6)
        assert found.l2 == pytest.approx(np.linalg.norm(found.perturbation), rel=1e-5)
        assert found.linf == pytest.approx(np.abs(found.perturbation).max(), rel=1e-5)


def test_perturbation_is_not_longer_than_a_step_along_the_gradient(trained, images):
    """The step is that of Adversarial, with the smallest length that changes the class, clipped to [0, 1]."""
    network, x = trained["relu"], images[2][:12]
    t = one_hot(network.predict(x), 10)
    direction = network.input_gradient(x, t, 1).copy()
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    for image, r in zip(x, direction, strict=True):
        found = deepfool(network, image)
        tried = np.clip(image + np.outer(np.linspace(0.01, 8, 400), r), 0, 1)
        changed = network.predict(tried) != found.class_before
        if changed.any():
            assert found.l2 <= np.linalg.norm(tried[changed.argmax()] - image) * 1.01


def test_perturbation_is_perpendicular_to_the_boundary(trained, images):
    """A necessary condition for the smallest perturbation without limits: r is parallel to the gradient of zₖ - zₐ."""
    network = trained["binary cross-entropy"].astype(np.float64)
    for x in images[2][:12]:
        found = deepfool(network, x, limits=(-10, 10))
        network.forward((x + found.perturbation)[None])
        direction = np.zeros((1, 10))
        direction[0, found.class_after], direction[0, found.class_before] = 1, -1
        w = network.backward_input(direction)[0]
        assert w @ found.perturbation > 0.98 * np.linalg.norm(w) * found.l2  # without the second part: 0.42 to 0.99


def test_dropout_is_ignored(trained, images):
    network = trained["dropout"]
    plain = Network([Dense(64, 24), Tanh(), Dense(24, 10)], loss="cross_entropy")
    plain.parameters[...] = network.parameters
    for x in images[2][:3]:
        np.testing.assert_array_equal(deepfool(network, x).perturbation, deepfool(plain, x).perturbation)


def test_network_and_image_are_not_modified(trained, images):
    network, image = trained["dropout"], images[2][0].copy()
    image.flags.writeable = False
    parameters, gradient = network.parameters.copy(), network.gradient.copy()
    states = [layer.rng.bit_generator.state for layer in network.layers if layer.rng is not None]
    first, second = deepfool(network, image), deepfool(network, image.reshape(8, 8))
    np.testing.assert_array_equal(first.perturbation, second.perturbation)
    np.testing.assert_array_equal(network.parameters, parameters)
    np.testing.assert_array_equal(network.gradient, gradient)
    assert states == [layer.rng.bit_generator.state for layer in network.layers if layer.rng is not None]
    assert len(network.layers) == 5


def test_integer_images_are_divided_by_255(trained, images, digits):
    network, image = trained["relu"], digits[2][0]
    expected = deepfool(network, images[2][0])
    for dtype in (np.uint8, np.int64):
        found = deepfool(network, image.reshape(8, 8).astype(dtype))
        assert (found.class_before, found.class_after) == (expected.class_before, expected.class_after)
        np.testing.assert_allclose(found.image, expected.image, atol=1e-4)


def test_integer_features_are_not_divided():
    network = Network([Dense(2, 2)], rng=0, dtype=np.float64)
    network.layers[0].W[...] = [[1, 0], [0, 1]]
    network.layers[0].b[...] = 0
    found = deepfool(network, np.array([200, 100], np.uint8), limits=(0, 255))
    np.testing.assert_allclose(found.image, [150, 150], atol=1e-3)


def test_limits_must_be_valid_pixels_for_a_network_of_images(trained, images, rejects):
    network = trained["relu"].astype(np.float64)
    network.image_shape = (8, 8)
    assert deepfool(network, images[2][0], limits=(0, 1)).l2 > 0
    with rejects(r"limits must be within \[0, 1\] for a network of images, got \(-1, 2\)"):
        deepfool(network, images[2][0], limits=(-1, 2))


@pytest.mark.parametrize("n_out", [1, 3])
def test_a_constant_network_has_no_adversarial_example(rejects, n_out):
    network = Network([6, 5, n_out], rng=0)
    network.parameters[...] = 0
    with rejects(r"no perturbation within the limits \[0, 1\] changes the predicted class 0"):
        deepfool(network, X[0])


def test_a_boundary_outside_the_limits_is_not_reached(rejects):
    network = Network([Dense(2, 2)], rng=0)
    network.layers[0].W[...] = [[1, 0], [0, 1]]
    network.layers[0].b[...] = [3, 0]  # z₀ - z₁ = 3 + x₀ - x₁ is at least 2 on [0, 1]²
    with rejects("changes the predicted class 0: try another image or wider limits"):
        deepfool(network, np.array([0.5, 0.5]))
    assert deepfool(network, np.array([0.5, 0.5]), limits=(-2, 2)).class_after == 1


def test_a_batch_norm_without_a_dense_layer_next_to_it_raises(rejects):
    network = Network([Dense(6, 5), ReLU(), BatchNorm(5), ReLU(), Dense(5, 3)], rng=0)
    with rejects("BatchNorm without a Dense layer next to it cannot be folded"):
        deepfool(network, X[0])


def test_a_wrapper_raises(rejects):
    network = Network([9, 5, 3], rng=0)
    with rejects("deepfool expects a Network, got Preprocessed: pass the network inside the wrapper"):
        deepfool(Preprocessed(network, Deskew(3, 3)), np.zeros((3, 3)))


def test_a_regression_network_raises(rejects):
    with rejects("deepfool expects a classifier, got a network for regression with SquaredError"):
        deepfool(Network([6, 5, 2], loss="squared_error", rng=0), X[0])


@pytest.mark.parametrize(
    "x",
    [X[0] + 1, X[:2], np.full(6, np.nan), X[0, :5], 0.5],
    ids=["above the limits", "two examples", "nan", "too short", "scalar"],
)
def test_an_invalid_example_raises(rejects, x):
    with rejects("expected|must be"):
        deepfool(Network([6, 7, 4], rng=2), x)
