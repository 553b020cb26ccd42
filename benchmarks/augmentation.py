"""How fast pictures are made anew and set upright, and what making them costs an epoch.

    python -m benchmarks.pictures             half a minute; benchmarks/results/pictures.md

Pictures a second are of one core, of 10,000 digits, the median of nine. The epoch is of the recipe that is named, on
15,360 digits, with pictures made anew in the background and without, in turn, all cores: the median ratio of five.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from handgrad._blas import blas_threads
from handgrad.images.deskew import Deskew
from handgrad.recipes import RECIPES

from .peers import pixels
from .tables import RESULTS, about, machine, save, save_json, table

EPOCH = 15_360


def a_second(made: Callable[[], object], count: int) -> float:
    """Pictures a second, the median of nine."""
    times = []
    for _ in range(9):
        begin = time.perf_counter()
        made()
        times.append(time.perf_counter() - begin)
    return count / statistics.median(times)


def cost(name: str, x: np.ndarray, y: np.ndarray) -> list[float]:
    """The time of an epoch with new pictures against one without."""
    made, plain = RECIPES[name].trainer(), RECIPES[name].trainer()
    plain.augment = None
    for trainer in (made, plain):
        trainer.network.preprocessing = None
        trainer.callbacks = []
    for epoch in range(6):
        for trainer in (made, plain):
            with blas_threads(trainer.network, trainer.batch_size):
                trainer.fit(x, y, epochs=epoch + 1)
    pairs = zip(made.history["seconds"], plain.history["seconds"], strict=True)
    return [a / b for a, b in pairs][1:]


def main() -> None:
    """Measure, print and keep."""
    x, y, _ = pixels()
    x, y = x[:EPOCH].reshape(EPOCH, -1), y[:EPOCH]
    digits, room, rng = x[:10_000], np.empty((10_000, x.shape[1]), np.float32), np.random.default_rng(0)
    found: dict[str, object] = {"machine": machine()}
    rows = []
    with threadpool_limits(1):
        for words, made in {
            "made anew as `minute` has it": lambda: RECIPES["minute"].augmentation((28, 28))(digits, rng, room),
            "set upright": lambda: Deskew(28, 28)(digits),
            "set upright and shrunk": lambda: Deskew(28, 28, 2)(digits),
        }.items():
            speed = a_second(made, len(digits))
            found[words] = speed
            rows.append([f"digits {words}, a second on one core", f"{speed:,.0f}"])
    for name in ("minute", "best"):
        ratios = cost(name, x, y)
        found[name] = ratios
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        rows.append(
            [f"an epoch of `{name}` with new pictures, against one without", f"{statistics.median(ratios):.2f}"]
        )
        rows[-1][1] += f" ({spread})"
    save_json(RESULTS / "pictures.json", found)
    text = table(["pictures", "measured"], rows)
    save(RESULTS / "pictures.md", f"{about(found['machine'])}\n\n{text}\n")
    print(text)


if __name__ == "__main__":
    main()
