"""The recipes on the 1,797 digits of 8x8 pixels of scikit-learn, compared with its MLPClassifier in five folds.

    python -m records.digits8                 needs scikit-learn: pip install '.[peers]'; records/digits8.md
    python -m records.digits8 --quick         two recipes with few epochs, without writing anything

The recipes are not specific to MNIST: their lengths in pixels are scaled to the size of the images. MLPClassifier uses
the best settings of a grid search on the training part of each fold. The recipes are not tuned for these digits, but
they use batches of 32 and more epochs, because there are forty times fewer training examples.
"""

from __future__ import annotations

import argparse
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
GRID = {
    "mlpclassifier__hidden_layer_sizes": [(100,), (256, 256)],
    "mlpclassifier__alpha": [1e-4, 1e-2, 1.0],
}
EPOCHS = {"second": 60, "quick": 60, "minute": 30, "pure": 30, "small": 120}
BATCH_SIZE = 32


def predict_sklearn(x: NDArray[np.uint8], y: NDArray[np.uint8], x_test: NDArray[np.uint8]) -> NDArray[Any]:
    """Return the predictions of MLPClassifier with the best settings of three inner folds."""
    pipeline = make_pipeline(MinMaxScaler(), MLPClassifier(max_iter=300, random_state=0))
    search = GridSearchCV(pipeline, GRID, cv=3)
    return np.asarray(search.fit(x.reshape(len(x), -1), y).predict(x_test.reshape(len(x_test), -1)))


def predict_recipe(
    name: str, epochs: int, x: NDArray[np.uint8], y: NDArray[np.uint8], x_test: NDArray[np.uint8]
) -> NDArray[Any]:
    """Return the predictions of a recipe."""
    recipe = RECIPES[name].replace(epochs=epochs, batch_size=BATCH_SIZE, threads=1)
    return recipe.train(x, y, 10).predict(x_test)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two recipes with few epochs, write nothing")
    quick = parser.parse_args().quick
    epochs_of = {"second": 5, "quick": 5} if quick else EPOCHS
    digits = load_digits()
    x, y = np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target.astype(np.uint8)
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(x.reshape(len(x), -1), y))
    results: dict[str, Any] = {"machine": machine(), "folds": {}}
    rows = []
    for name in [*([] if quick else ["MLPClassifier, grid search"]), *epochs_of]:
        accuracy, begin = [], time.perf_counter()
        for train, test in folds:
            data = x[train], y[train], x[test]
            predicted = predict_recipe(name, epochs_of[name], *data) if name in epochs_of else predict_sklearn(*data)
            accuracy.append(float(np.mean(predicted == y[test])))
        seconds = time.perf_counter() - begin
        results["folds"][name] = {"accuracy": accuracy, "seconds": seconds}
        label = f"`{name}`" if name in EPOCHS else name
        mean, spread = statistics.mean(accuracy), statistics.stdev(accuracy)
        rows.append([label, f"{mean:.2%} ± {spread:.2%}", f"{seconds:.0f} s"])
        print(*rows[-1], flush=True)
    if quick:
        return
    save_json(HERE / "digits8.json", results)
    head = ["8x8 digits", "accuracy, mean ± sd of 5 folds", "time, all folds"]
    save(HERE / "digits8.md", f"{about(results['machine'])}\n\n{table(head, rows)}\n")


if __name__ == "__main__":
    main()
