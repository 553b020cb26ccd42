"""Draw the test digits that a recorded network, or ensemble, predicts wrongly.

    python -m records.errors ensemble         records/ensemble-errors.png
    python -m records.errors pure ensemble    the digits that both predict wrongly, with the prediction of the first

Each caption has the number of the digit in the test set, its label and the prediction. A digit that looks like the
prediction may have a wrong label. The first seed of a record is used. The figure needs the extra `app`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from handgrad.data import load
from handgrad.diagnostics.plots import digit_grid

from .run import HERE, NAMES


def errors_of(path: Path) -> dict[int, int]:
    """Return the wrong predictions of the first seed of a record by the number of the digit."""
    runs = json.loads(path.read_text())["runs"]
    if "errors" not in runs[0]:
        raise SystemExit(f"{path.name} was written before records contained the errors: run the recipe again")
    pairs = (pair.split(": ") for pair in runs[0]["errors"].split(", ") if pair)
    return {int(number): int(prediction) for number, prediction in pairs}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="RECIPE", help=", ".join(NAMES))
    names = parser.parse_args().names
    found = [errors_of(HERE / f"{name}.json") for name in names]
    common = sorted(set(found[0]).intersection(*found))
    dataset = load("mnist")
    captions = [f"{i}: {dataset.y_test[i]}, predicted {found[0][i]}" for i in common]
    path = HERE / f"{'-'.join(names)}-errors.png"
    digit_grid(path, dataset.x_test[common], captions)
    print(f"{len(common)} digits: {path.name}")


if __name__ == "__main__":
    main()
