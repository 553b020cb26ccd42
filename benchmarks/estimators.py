"""handgrad.sklearn's MLPClassifier beside scikit-learn's: the same parameters, the same data, the same random_state.

    python -m benchmarks.estimators     five minutes; benchmarks/results/estimators.md

Each case is `fit` on MNIST, some epochs, by the two in turn, all cores; the time is that of an epoch, the ratio that of
a pair, over five of them. The settings of scikit-learn's own bench_mnist.py (two hidden layers of 100, batches of 200)
are also run until they stop by themselves, once: seconds, epochs, error on the test set.
"""

from __future__ import annotations

import statistics
import time
import warnings
from typing import Any

import numpy as np
import scipy.sparse
from sklearn import neural_network as theirs
from sklearn.exceptions import ConvergenceWarning

from handgrad import sklearn as ours
from handgrad.data import load

from .tables import RESULTS, about, machine, save, save_json, table

SGD = {"hidden_layer_sizes": (100, 100), "solver": "sgd", "learning_rate_init": 0.2, "momentum": 0.9}
ADAM = {"hidden_layer_sizes": (100, 100), "solver": "adam", "learning_rate_init": 0.001}
BENCH = {"max_iter": 400, "alpha": 1e-4, "tol": 1e-4, "random_state": 1}
ONE = {"hidden_layer_sizes": (100,), "learning_rate_init": 0.001}
# what it is: parameters, the kind of X, examples, epochs
CASES: dict[str, tuple[dict[str, Any], str, int, int]] = {
    "bench_mnist, SGD, float32": (SGD, "float32", 60_000, 2),
    "bench_mnist, Adam, float32": (ADAM, "float32", 60_000, 2),
    "784-100-10, batch 64, SGD, float32": (ONE | {"solver": "sgd", "batch_size": 64}, "float32", 60_000, 1),
    "784-100-10, batch 64, Adam, float32": (ONE | {"solver": "adam", "batch_size": 64}, "float32", 60_000, 1),
    "784-100-10, batch 10, SGD, float32": (ONE | {"solver": "sgd", "batch_size": 10}, "float32", 20_000, 1),
    "784-100-10, batch 10, Adam, float32": (ONE | {"solver": "adam", "batch_size": 10}, "float32", 20_000, 1),
    "bench_mnist, SGD, float64": (SGD, "float64", 60_000, 1),
    "bench_mnist, Adam, float64": (ADAM, "float64", 60_000, 1),
    "bench_mnist, SGD, sparse float32": (SGD, "sparse", 60_000, 1),
    "bench_mnist, Adam, sparse float32": (ADAM, "sparse", 60_000, 1),
    "20,000 words, 100 in a text, 20 classes, Adam, float64": (ONE | {"solver": "adam"}, "words", 4_000, 1),
}
REPEATS = 5


def examples(kind: str) -> tuple[Any, np.ndarray]:
    """X of that kind, MNIST's training set or texts drawn by chance, and the labels."""
    if kind == "words":
        rng = np.random.default_rng(0)
        texts = scipy.sparse.random(4_000, 20_000, 0.005, "csr", random_state=rng)
        return texts, rng.integers(0, 20, 4_000)
    dataset = load("mnist")
    x = dataset.x_train.reshape(len(dataset.x_train), -1) / np.float32(255)
    x = {"float32": lambda: x, "float64": lambda: x.astype(float), "sparse": lambda: scipy.sparse.csr_matrix(x)}[kind]()
    return x, dataset.y_train.astype(int)


def an_epoch(module: Any, parameters: dict[str, Any], x: Any, y: np.ndarray, epochs: int) -> float:
    """Seconds of an epoch within `fit`."""
    model = module.MLPClassifier(**BENCH | parameters | {"max_iter": epochs})
    begin = time.perf_counter()
    model.fit(x, y)
    return (time.perf_counter() - begin) / epochs


def whole(module: Any, parameters: dict[str, Any], x: Any, y: np.ndarray) -> dict[str, float]:
    """Trained until it stops by itself."""
    dataset = load("mnist")
    x_test = dataset.x_test.reshape(len(dataset.x_test), -1) / np.float32(255)
    begin = time.perf_counter()
    model = module.MLPClassifier(**BENCH | parameters).fit(x, y)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "epochs": model.n_iter_, "error": 1 - model.score(x_test, dataset.y_test)}


def main() -> None:
    """Measure, print and keep."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    found: dict[str, Any] = {"machine": machine(), "epochs": {}, "whole": {}}
    rows = []
    for name, (parameters, kind, count, epochs) in CASES.items():
        x, y = examples(kind)
        times = [
            [an_epoch(m, parameters, x[:count], y[:count], epochs) for m in (ours, theirs)] for _ in range(REPEATS)
        ]
        mine, other = (statistics.median(column) for column in zip(*times, strict=True))
        ratios = sorted(b / a for a, b in times)
        found["epochs"][name] = times
        told = f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        rows.append([name, f"{mine:.2f}", f"{other:.2f}", told])
        print(*rows[-1], flush=True)
    text = table(["an epoch of fit", "handgrad, s", "scikit-learn, s", "ratio"], rows)
    rows = []
    x, y = examples("float32")
    for name, parameters in {"MultilayerPerceptron (SGD)": SGD, "MLP-adam": ADAM}.items():
        mine, other = found["whole"][name] = [whole(module, parameters, x, y) for module in (ours, theirs)]
        told = [f"{run['seconds']:.0f} s, {run['epochs']} epochs, {run['error']:.2%}" for run in (mine, other)]
        rows.append([name, *told, f"{other['seconds'] / mine['seconds']:.1f}"])
        print(*rows[-1], flush=True)
    text += "\n\n" + table(["bench_mnist, until it stops", "handgrad", "scikit-learn", "ratio"], rows)
    save_json(RESULTS / "estimators.json", found)
    save(RESULTS / "estimators.md", f"{about(found['machine'])}\n\n{text}\n")


if __name__ == "__main__":
    main()
