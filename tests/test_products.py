"""Matrix products in one call and in pieces: the same values, and pieces only where BLAS has kernels for them."""

import numpy as np
import pytest

from handgrad import SGD, Network, products
from handgrad.arrays import layer_buffer
from handgrad.layers import Dense
from handgrad.products import SMALL, SMALL_OUTPUT, plain_product, product_of_rows, product_over_batch

SHAPES = [(10, 784, 30), (64, 784, 30), (64, 784, 33), (1, 784, 1500), (128, 784, 30), (32, 900, 100), (64, 20, 1000)]


@pytest.fixture(params=[False, True], ids=["one call", "pieces"])
def small_kernels(request, monkeypatch):
    """Whether the processor counts as one whose BLAS multiplies small matrices faster."""
    monkeypatch.setattr(products, "has_small_kernels", lambda: request.param)
    return request.param


@pytest.mark.parametrize(("batch", "n_in", "n_out"), SHAPES)
def test_products_are_those_of_numpy(small_kernels, batch, n_in, n_out):
    rng = np.random.default_rng(0)
    x, W, dz = (rng.standard_normal(shape, np.float32) for shape in ((batch, n_in), (n_out, n_in), (batch, n_out)))
    z, dW = layer_buffer(batch, n_out, np.float32), np.empty((n_out, n_in), np.float32)
    z[...] = dW[...] = np.nan
    assert product_of_rows(z, n_in)(x, W.T, z) is z
    np.testing.assert_allclose(z, x @ W.T, rtol=0, atol=1e-3)
    product_over_batch(dW, batch)(dz.T, x, dW)
    np.testing.assert_allclose(dW, dz.T @ x, rtol=0, atol=1e-3)


def test_pieces_are_small_enough_for_the_kernels(monkeypatch):
    monkeypatch.setattr(products, "has_small_kernels", lambda: True)
    sizes = []

    def record(a, b, out):
        sizes.append((a.shape[0] * a.shape[1] * b.shape[1], out.size))
        return out

    monkeypatch.setattr(products.np, "matmul", record)
    monkeypatch.setattr(products.np, "dot", record)
    x, W = np.ones((64, 784), np.float32), np.ones((30, 784), np.float32)
    z, dW = layer_buffer(64, 30, np.float32), np.empty((30, 784), np.float32)
    product_of_rows(z, 784)(x, W.T, z)
    assert len(sizes) == 2
    assert max(area for _, area in sizes) <= SMALL_OUTPUT
    product_over_batch(dW, 64)(np.ones((64, 30), np.float32).T, x, dW)
    assert max(count for count, _ in sizes) <= SMALL
    assert sum(area for _, area in sizes) == z.size + dW.size


AVX512 = {"found": ["X86_V3", "X86_V4"]}


@pytest.mark.parametrize(
    ("blas", "simd", "expected"),
    [
        ({"name": "scipy-openblas"}, AVX512, True),
        ({"name": "openblas64"}, {"found": ["AVX512F", "AVX512_SKX"]}, True),
        ({"name": "scipy-openblas"}, {"baseline": ["X86_V2"]}, False),
        ({"name": "accelerate"}, {"found": ["ASIMDHP"]}, False),
        ({}, AVX512, False),
        (None, None, False),
    ],
)
def test_kernels_for_small_matrices_are_those_of_openblas_with_avx_512(monkeypatch, blas, simd, expected):
    """The configuration of NumPy has no empty entries."""
    config = {} if blas is None else {"Build Dependencies": {"blas": blas}, "SIMD Extensions": simd}
    monkeypatch.setattr(products.np, "show_config", lambda mode: config)
    assert products.has_small_kernels.__wrapped__() is expected


def test_column_major_output_needs_matmul():
    assert plain_product(np.empty((3, 4))) is np.dot
    assert plain_product(np.empty((3, 4), order="F")) is np.matmul


def test_training_in_pieces_gives_the_same_network(monkeypatch):
    rng = np.random.default_rng(1)
    x, t = rng.random((64, 784), np.float32), np.eye(10, dtype=np.float32)[rng.integers(0, 10, 64)]
    trained = []
    for pieces in (False, True):
        monkeypatch.setattr(products, "has_small_kernels", lambda pieces=pieces: pieces)
        network = Network([784, 30, 10], rng=0)
        for _ in range(3):
            SGD(0.5).train_step(network, x, t, 0.5)
        trained.append(network.parameters)
        layer = network.layers[0]
        assert isinstance(layer, Dense)
        assert (layer.z_product is np.matmul) != pieces
    np.testing.assert_allclose(*trained, rtol=0, atol=1e-5)
