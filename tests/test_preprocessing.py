"""Standardize: mean 0 and standard deviation 1 of each feature, in the model and in its file."""

from __future__ import annotations

import numpy as np
import pytest

from handgrad import CrossEntropy, Network, Preprocessed, Standardize, load, save

RNG = np.random.default_rng(3)
X = RNG.normal([5.0, -1e6, 0.0, 1960.0], [2.0, 1e3, 1e-9, 3.0], (5000, 4))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_fit_gives_each_feature_mean_0_and_standard_deviation_1(dtype) -> None:
    x = (X * [10, 1, 1e12, 10]).astype(dtype)
    before = x.copy()
    z = Standardize.fit(x)(x)
    assert z.dtype == (np.float32 if dtype == np.float32 else np.float64)
    np.testing.assert_allclose(z.mean(axis=0, dtype=float), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axis=0, dtype=float), 1, rtol=1e-5)
    np.testing.assert_array_equal(x, before)


def test_values_by_hand_and_constant_features() -> None:
    scale = Standardize.fit(np.array([[10, 7, 0.1], [30, 7, 0.1]]))
    assert scale.mean.tolist() == [20, 7, 0.1]
    assert scale.scale.tolist() == [10, 1, 1]
    np.testing.assert_array_equal(scale([[40, 9, 0.1]]), [[2, 2, 0]])
    out = np.empty((1, 3), np.float32)
    assert scale([[40, 9, 0.1]], out=out) is out
    assert out.tolist() == [[2, 2, 0]]


def test_a_time_in_seconds_keeps_its_differences() -> None:
    x = np.array([[1.7e9], [1.7e9 + 2]])
    np.testing.assert_allclose(Standardize.fit(x)(x), [[-1], [1]])


def test_a_model_file_has_the_scaling(tmp_path) -> None:
    network = Network([4, 5, 3], loss=CrossEntropy(), rng=0)
    model = Preprocessed(network, Standardize.fit(X))
    save(model, tmp_path / "m.safetensors")
    loaded = load(tmp_path / "m.safetensors")
    assert loaded.preprocessing == model.preprocessing
    np.testing.assert_array_equal(loaded.outputs(X), model.outputs(X))
    z = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32)
    np.testing.assert_allclose(model.outputs(X), network.outputs(z), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("mean", "scale", "message"),
    [
        ([1.0], [1.0, 2.0], "mean has 1 numbers and scale has 2"),
        ([1.0], [0.0], "scale must be > 0, got 0"),
        ([np.nan], [1.0], "mean must be finite"),
        ([1.0], [np.inf], "scale must be finite"),
        ([], [], "mean must be a sequence of numbers"),
        (["a"], [1.0], "mean must be a sequence of numbers"),
        ([[1.0]], [[1.0]], "mean must be a sequence of numbers"),
        ([[1.0], [1.0, 2.0]], [1.0], "rows have different lengths"),
        ([10**400], [1.0], "mean must be a sequence of numbers"),
    ],
)
def test_rejects_invalid_numbers(rejects, mean, scale, message) -> None:
    with rejects(message):
        Standardize(mean, scale)


def test_rejects_images_and_other_widths(rejects) -> None:
    with rejects("expected numbers"):
        Standardize.fit(np.zeros((3, 4, 4), np.uint8))
    scale = Standardize([0.0] * 16, [1.0] * 16)
    with rejects("expects numbers"):
        scale(np.zeros((3, 4, 4), np.uint8))
    with rejects("expected"):
        scale(np.zeros((3, 15)))
    assert repr(scale) == "Standardize(16 features)"
