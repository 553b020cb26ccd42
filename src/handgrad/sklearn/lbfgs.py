"""L-BFGS: full-batch training with SciPy's L-BFGS-B."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.utils.optimize import _check_optimize_result

from ..arrays import Array
from .sparse import maybe_sparse, row_blocks

# The error message of scikit-learn.
NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be preprocessed."
)


@np.errstate(under="ignore")  # small numbers become 0, also for programs with np.seterr(all="raise")
def fit_lbfgs(estimator: Any, X: Any, t: Array, w: NDArray[np.float64] | None) -> None:
    """Minimize Σᵢ wᵢ Lᵢ / Σᵢ wᵢ + α/2 Σ W² / Σᵢ wᵢ, starting from the weights of the estimator's network.

    The gradient is summed over blocks of rows. Sets `n_iter_` and `loss_`.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Has the network and the parameters.
    X : ndarray or sparse matrix of shape (n_samples, n_features)
        Examples.
    t : ndarray of shape (n_samples, n_outputs)
        Targets.
    w : ndarray of shape (n_samples, 1) or None
        Sample weights > 0.

    Raises
    ------
    ValueError
        If the final weights are not finite.
    """
    network, total = maybe_sparse(estimator.network_, X), float(len(t) if w is None else w.sum(dtype=float))
    gradient = np.empty(network.parameters.size)

    def loss_and_gradient(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        network.parameters[...] = theta
        value, gradient[...] = 0.0, 0
        for rows, x in row_blocks(X):
            weight = (np.ones((x.shape[0], 1)) if w is None else w[rows]) / total
            weight = weight.astype(x.dtype)
            z = network.backprop(x, t[rows], weight)
            value += float(network.loss.per_example(z, t[rows]) @ weight[:, 0])
            gradient[...] += network.gradient
        value /= estimator._loss_divisor()
        network.gradient[...] = gradient
        for W, dW in network.weights:
            value += estimator.alpha / 2 * float(np.vdot(W, W)) / total
            dW += estimator.alpha / total * W
        gradient[...] = network.gradient
        return value, gradient

    def report(intermediate_result: Any) -> None:
        estimator.n_iter_ += 1
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {intermediate_result.fun:.8f}")

    estimator.n_iter_ = 0
    options = {"maxfun": estimator.max_fun, "maxiter": estimator.max_iter, "gtol": estimator.tol}
    start = network.parameters.astype(float)
    result = minimize(loss_and_gradient, start, method="L-BFGS-B", jac=True, options=options, callback=report)
    network.parameters[...] = result.x
    estimator.n_iter_ = _check_optimize_result("lbfgs", result, estimator.max_iter)
    estimator.loss_ = float(result.fun)
    if not np.isfinite(network.parameters).all():
        raise ValueError(NOT_FINITE)
