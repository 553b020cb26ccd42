"""Sparse matrices: SparseNetwork against the dense network."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse

from handgrad import Dense, Dropout, Network, ReLU
from handgrad.sklearn import MLPClassifier
from handgrad.sklearn import sparse as module
from handgrad.sklearn.sparse import SparseNetwork, is_sparse, maybe_sparse, row_blocks

SPARSE = scipy.sparse.random(240, 400, 0.01, "csr", random_state=np.random.default_rng(0))
Y = np.arange(240) % 3
T = np.eye(3)[Y]


def make_network(rate=0.0):
    layers = [Dense(400, 7), ReLU(), Dropout(rate), Dense(7, 3)]
    return Network(layers, loss="cross_entropy", rng=0, dtype=np.float64)


def test_sparse_network_computes_the_outputs_and_gradients_of_the_dense_network():
    network, dense = make_network(0.5), make_network(0.5)  # the replica shares the random generator of dropout
    sparse = SparseNetwork(network)
    for scale, weight in ((1.0, None), (0.3, None), (0.3, np.linspace(0, 1, 240)[:, None])):
        z = sparse.backprop(SPARSE, T, weight, scale=scale)
        np.testing.assert_allclose(z, dense.backprop(SPARSE.toarray(), T, weight, scale=scale), rtol=1e-12)
        np.testing.assert_allclose(sparse.gradient, dense.gradient, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(sparse.outputs(SPARSE), dense.outputs(SPARSE.toarray()), rtol=1e-12)


def test_sparse_network_shares_the_parameters():
    network = make_network()
    sparse = SparseNetwork(network)
    assert sparse.parameters is network.parameters
    network.layers[0].W[...] = 0
    network.layers[0].b[...] = 0
    np.testing.assert_allclose(sparse.outputs(SPARSE), np.tile(network.layers[3].b, (240, 1)))


def test_outputs_are_safe_from_several_threads():
    sparse = SparseNetwork(make_network())
    first = sparse.outputs(SPARSE)
    assert not np.may_share_memory(first, sparse.outputs(SPARSE))
    parts = [SPARSE[: 20 + 10 * i] for i in range(8)]
    expected = [sparse.outputs(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(30):
            for z, z_expected in zip(pool.map(sparse.outputs, parts), expected, strict=True):
                assert np.array_equal(z, z_expected)


@pytest.mark.parametrize(("density", "expected"), [(0.019, True), (0.021, False)])
def test_sparse_products_are_used_up_to_a_density_of_2_percent(density, expected):
    X = scipy.sparse.random(100, 1000, density, "csr", random_state=np.random.default_rng(0))
    assert is_sparse(X) is expected
    assert isinstance(maybe_sparse(Network([1000, 2], rng=0), X), SparseNetwork) is expected
    assert not is_sparse(X.toarray())


def test_row_blocks_of_denser_matrices_are_small_dense_arrays(monkeypatch):
    monkeypatch.setattr(module, "DENSE_FLOATS", 100)
    X = scipy.sparse.random(50, 10, 0.5, "csr", random_state=np.random.default_rng(0))
    blocks = [(rows, x) for rows, x in row_blocks(X)]
    assert [x.shape for _, x in blocks] == [(10, 10)] * 5
    for rows, x in blocks:
        assert np.array_equal(x, X.toarray()[rows])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_fit_and_predict_do_not_make_a_sparse_matrix_dense(monkeypatch):
    toarray = scipy.sparse.csr_matrix.toarray

    def forbidden(self, *args, **kwargs):
        if self.shape[1] > 3:  # the targets may be made dense
            raise AssertionError("toarray was called")
        return toarray(self, *args, **kwargs)

    monkeypatch.setattr(scipy.sparse.csr_matrix, "toarray", forbidden)
    monkeypatch.setattr(scipy.sparse.csr_array, "toarray", forbidden)
    model = MLPClassifier((7, 5), max_iter=8, random_state=3).fit(SPARSE, Y)
    assert model.predict(SPARSE).shape == (240,)
    with pytest.raises(AssertionError, match="toarray was called"):
        MLPClassifier((7, 5), max_iter=8, random_state=3).fit(scipy.sparse.csr_matrix(np.ones((240, 8))), Y)
