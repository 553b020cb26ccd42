"""MLPClassifier of handgrad.sklearn and of scikit-learn: same parameters, same data, same random_state.

    python -m benchmarks.estimators             five minutes; benchmarks/results/estimators.md
    python -m benchmarks.estimators --quick     half a minute, without writing anything

Each case measures `fit` on MNIST for a few epochs on all cores. The two libraries alternate. The table has the median
time per epoch, and the median and the range of the ratio over five pairs. The settings of scikit-learn's bench_mnist.py
(two hidden layers of 100, batch size 200) are also trained once until convergence: seconds, epochs, test error.
"""

from __future__ import annotations

import argparse
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
# label: (parameters, kind of X, examples, epochs)
CASES: dict[str, tuple[dict[str, Any], str, int, int]] = {
    "bench_mnist, SGD, float32": (SGD, "float32", 60_000, 4),
    "bench_mnist, Adam, float32": (ADAM, "float32", 60_000, 4),
    "784-100-10, batch 64, SGD, float32": (ONE | {"solver": "sgd", "batch_size": 64}, "float32", 60_000, 1),
    "784-100-10, batch 64, Adam, float32": (ONE | {"solver": "adam", "batch_size": 64}, "float32", 60_000, 1),
    "784-100-10, batch 10, SGD, float32": (ONE | {"solver": "sgd", "batch_size": 10}, "float32", 20_000, 1),
    "784-100-10, batch 10, Adam, float32": (ONE | {"solver": "adam", "batch_size": 10}, "float32", 20_000, 1),
    "bench_mnist, SGD, float64": (SGD, "float64", 60_000, 1),
    "bench_mnist, Adam, float64": (ADAM, "float64", 60_000, 1),
    "bench_mnist, SGD, sparse float32": (SGD, "sparse", 60_000, 1),
    "bench_mnist, Adam, sparse float32": (ADAM, "sparse", 60_000, 1),
    "20,000 words, 100 per text, 20 classes, Adam, float64": (ONE | {"solver": "adam"}, "words", 4_000, 1),
}
REPEATS = 5


def examples(kind: str) -> tuple[Any, np.ndarray]:
    """Return X of this kind, the training set of MNIST or random texts, and the labels."""
    if kind == "words":
        rng = np.random.default_rng(0)
        texts = scipy.sparse.random(4_000, 20_000, 0.005, "csr", random_state=rng)
        return texts, rng.integers(0, 20, 4_000)
    dataset = load("mnist")
    x = dataset.x_train.reshape(len(dataset.x_train), -1) / np.float32(255)
    x = {"float32": lambda: x, "float64": lambda: x.astype(float), "sparse": lambda: scipy.sparse.csr_matrix(x)}[kind]()
    return x, dataset.y_train.astype(int)


def epoch_seconds(module: Any, parameters: dict[str, Any], x: Any, y: np.ndarray, epochs: int) -> float:
    """Return the seconds per epoch of `fit`."""
    model = module.MLPClassifier(**BENCH | parameters | {"max_iter": epochs})
    begin = time.perf_counter()
    model.fit(x, y)
    return (time.perf_counter() - begin) / epochs


def until_convergence(module: Any, parameters: dict[str, Any], x: Any, y: np.ndarray) -> dict[str, float]:
    """Train until convergence."""
    dataset = load("mnist")
    x_test = dataset.x_test.reshape(len(dataset.x_test), -1) / np.float32(255)
    begin = time.perf_counter()
    model = module.MLPClassifier(**BENCH | parameters).fit(x, y)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "epochs": model.n_iter_, "error": 1 - model.score(x_test, dataset.y_test)}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one epoch of at most 10,000 examples, write nothing")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore", ConvergenceWarning)
    results: dict[str, Any] = {"machine": machine(), "epochs": {}, "until_convergence": {}}
    rows = []
    for name, (parameters, kind, count, epochs) in CASES.items():
        x, y = examples(kind)
        count, epochs, repeats = (min(count, 10_000), 1, 1) if quick else (count, epochs, REPEATS)
        times = [
            [epoch_seconds(m, parameters, x[:count], y[:count], epochs) for m in (ours, theirs)] for _ in range(repeats)
        ]
        mine, other = (statistics.median(column) for column in zip(*times, strict=True))
        ratios = sorted(b / a for a, b in times)
        results["epochs"][name] = times
        ratio = f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        rows.append([name, f"{mine:.2f}", f"{other:.2f}", ratio])
        print(*rows[-1], flush=True)
    if quick:
        return
    text = table(["time per epoch of fit", "handgrad, s", "scikit-learn, s", "ratio"], rows)
    rows = []
    x, y = examples("float32")
    for name, parameters in {"MultilayerPerceptron (SGD)": SGD, "MLP-adam": ADAM}.items():
        mine, other = results["until_convergence"][name] = [
            until_convergence(module, parameters, x, y) for module in (ours, theirs)
        ]
        cells = [f"{run['seconds']:.0f} s, {run['epochs']} epochs, {run['error']:.2%}" for run in (mine, other)]
        rows.append([name, *cells, f"{other['seconds'] / mine['seconds']:.1f}"])
        print(*rows[-1], flush=True)
    text += "\n\n" + table(
        ["bench_mnist, until convergence: time, epochs, test error", "handgrad", "scikit-learn", "ratio"], rows
    )
    save_json(RESULTS / "estimators.json", results)
    save(RESULTS / "estimators.md", f"{about(results['machine'])}\n\n{text}\n")


if __name__ == "__main__":
    main()
