"""All of the examples at every look: the loss and its gradient handed to SciPy's L-BFGS-B."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.utils.optimize import _check_optimize_result

from ..arrays import Array
from .sparse import blocks_of, maybe_sparse


def fit_lbfgs(estimator: Any, X: Any, t: Array, w: Array | None) -> None:
    """Minimise Σᵢ wᵢ Lᵢ / Σᵢ wᵢ + α/2 Σ W² / Σᵢ wᵢ from where the estimator's network stands.

    The gradient is summed a block of rows at a time. Sets `n_iter_` and `loss_`. Raises ValueError where the weights
    end as no finite numbers.
    """
    network, total = maybe_sparse(estimator.network_, X), float(len(t) if w is None else w.sum(dtype=float))
    gradient = np.empty(network.parameters.size)

    def loss_and_gradient(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        network.parameters[...] = theta
        value, gradient[...] = 0.0, 0
        for rows, x in blocks_of(X):
            shares = (np.ones((x.shape[0], 1), x.dtype) if w is None else w[rows]) / x.dtype.type(total)
            z = network.backprop(x, t[rows], shares)
            value += float(network.loss.per_example(z, t[rows]) @ shares[:, 0])
            gradient[...] += network.gradient
        if estimator.loss == "squared_error" and not network.loss.is_classification:
            value /= estimator.n_outputs_  # as scikit-learn tells it
        network.gradient[...] = gradient
        for W, dW in network.weights:
            value += estimator.alpha / 2 * float(np.vdot(W, W)) / total
            dW += estimator.alpha / total * W
        gradient[...] = network.gradient
        return value, gradient

    def tell(intermediate_result: Any) -> None:
        estimator.n_iter_ += 1
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {intermediate_result.fun:.8f}")

    estimator.n_iter_ = 0
    options = {"maxfun": estimator.max_fun, "maxiter": estimator.max_iter, "gtol": estimator.tol}
    start = network.parameters.astype(float)
    found = minimize(loss_and_gradient, start, method="L-BFGS-B", jac=True, options=options, callback=tell)
    network.parameters[...] = found.x
    estimator.n_iter_ = _check_optimize_result("lbfgs", found, estimator.max_iter)
    estimator.loss_ = float(found.fun)
    if not np.isfinite(network.parameters).all():
        raise ValueError(
            "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
            "preprocessed."
        )
