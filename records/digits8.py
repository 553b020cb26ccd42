"""The recipes on scikit-learn's 1,797 digits of 8x8 pixels: five folds, beside its own MLPClassifier.

    python -m records.digits8                 needs scikit-learn: pip install '.[peers]'; records/digits8.md

Nothing in a recipe is of MNIST but the pixels that its lengths are counted in, and those are scaled. MLPClassifier is
at the best that a search over its settings finds on the training part of each fold. The recipes are not searched; but
as there are forty times fewer digits to learn from, they have batches of 32 and more epochs.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from benchmarks.tables import about, machine, save, save_json, table
from handgrad.recipes import RECIPES

HERE = Path(__file__).parent
SEARCHED = {
    "mlpclassifier__hidden_layer_sizes": [(100,), (256, 256)],
    "mlpclassifier__alpha": [1e-4, 1e-2, 1.0],
}
EPOCHS = {"second": 60, "quick": 60, "minute": 30, "pure": 30, "small": 120}
BATCH_SIZE = 32


def sklearns(x: NDArray[np.uint8], y: NDArray[np.uint8], x_test: NDArray[np.uint8]) -> NDArray[Any]:
    """MLPClassifier's answers, at its best by three inner folds."""
    pipeline = make_pipeline(MinMaxScaler(), MLPClassifier(max_iter=300, random_state=0))
    search = GridSearchCV(pipeline, SEARCHED, cv=3)
    return np.asarray(search.fit(x.reshape(len(x), -1), y).predict(x_test.reshape(len(x_test), -1)))


def ours(name: str, x: NDArray[np.uint8], y: NDArray[np.uint8], x_test: NDArray[np.uint8]) -> NDArray[Any]:
    """A recipe's answers."""
    recipe = RECIPES[name].with_choices(epochs=EPOCHS[name], batch_size=BATCH_SIZE)
    return recipe.train(x, y, 10).predict(x_test)


def main() -> None:
    """Every fold of every one."""
    digits = load_digits()
    x, y = np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target.astype(np.uint8)
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(x.reshape(len(x), -1), y))
    found: dict[str, Any] = {"machine": machine(), "folds": {}}
    rows = []
    for name in ["MLPClassifier, searched", *EPOCHS]:
        accuracy, begin = [], time.perf_counter()
        for train, test in folds:
            answer = sklearns if name not in EPOCHS else (lambda *given, name=name: ours(name, *given))
            accuracy.append(float(np.mean(answer(x[train], y[train], x[test]) == y[test])))
        seconds = time.perf_counter() - begin
        found["folds"][name] = {"accuracy": accuracy, "seconds": seconds}
        told = f"`{name}`" if name in EPOCHS else name
        mean, spread = statistics.mean(accuracy), statistics.stdev(accuracy)
        rows.append([told, f"{mean:.2%} ± {spread:.2%}", f"{seconds:.0f} s"])
        print(*rows[-1], flush=True)
    save_json(HERE / "digits8.json", found)
    head = ["8x8 digits", "accuracy, mean ± sd of 5 folds", "time, all folds"]
    save(HERE / "digits8.md", f"{about(found['machine'])}\n\n{table(head, rows)}\n")


if __name__ == "__main__":
    main()
