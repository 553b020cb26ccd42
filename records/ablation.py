"""What each choice in the recipes is worth: one changed at a time, on 10,000 digits held out of the training set.

    python -m records.choices                 two seeds each, about fifteen minutes; records/choices.md

The test set is not read. Every line is a recipe with one thing otherwise, trained on the first 50,000 digits and read
on the last 10,000, beside the recipe as it is with the same seeds. `minute`, `small` and `pure` have fewer epochs here
than as recipes, and `pure` fewer units. What is otherwise has one setting, sensible but not searched for, where the
recipe's was; so a line that loses little may win with another. One seed differs from the next by about 0.07 points.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.tables import about, machine, save, save_json, table
from handgrad import Adversarial, Lookahead, VirtualAdversarial, SWA
from handgrad.data import load
from handgrad.recipes import RECIPES, Recipe
from handgrad.training import Trainer

HERE = Path(__file__).parent


class Variation(NamedTuple):
    """A recipe with something otherwise: fields of it, or what is done to its trainer."""

    words: str
    choices: dict[str, Any]
    change: Callable[[Trainer], None] = lambda trainer: None


def look_ahead(trainer: Trainer) -> None:
    """Let the optimizer's steps be an inner optimizer's."""
    trainer.optimizer = Lookahead(trainer.optimizer)


def average_the_last_quarter(trainer: Trainer) -> None:
    """SWA."""
    trainer.callbacks.append(SWA(0.75))


def by_sign(trainer: Trainer) -> None:
    """FGSM."""
    trainer.perturb = Adversarial(0.1, "linf")


def by_its_own_answer(trainer: Trainer) -> None:
    """VAT."""
    trainer.perturb = VirtualAdversarial(1.0, rng=0)


def max_norm(trainer: Trainer) -> None:
    """As Srivastava et al. (2014) have it beside dropout."""
    trainer.perturb, trainer.optimizer.max_norm = None, 2.0


NARROW = {"hidden": (256, 256)}
NO_MOVES = {"rotation": 0.0, "scale": 0.0, "shift": 0.0, "elastic": 0.0}
# By recipe, with the epochs that it is looked at with.
VARIATIONS: dict[tuple[str, int], list[Variation]] = {
    ("quick", 4): [
        Variation("as it is", {}),
        Variation("not deskewed", {"deskew": False, "shrink": 1}),
        Variation("not shrunk", {"shrink": 1}),
        Variation("no batch normalisation, lr 0.004", {"batch_norm": False, "lr": 0.004}),
        Variation("constant learning rate 0.002", {"schedule": "constant", "lr": 0.002}),
        Variation("Nesterov, lr 0.1", {"optimizer": "nesterov", "lr": 0.1}),
        Variation("Muon, lr 0.02", {"optimizer": "muon", "lr": 0.02}),
        Variation("batches of 1,000, Adam, lr 0.03", {"batch_size": 1000, "lr": 0.03}),
        Variation("batches of 1,000, Muon, lr 0.05", {"batch_size": 1000, "optimizer": "muon", "lr": 0.05}),
        Variation("dropout 0.2", {"dropout": 0.2}),
        Variation("label smoothing 0.1", {"label_smoothing": 0.1}),
        Variation("weight decay 0.1", {"weight_decay": 0.1}),
        Variation("exponential average 0.99", {"average": 0.99}),
        Variation("average of the last quarter (SWA)", {}, average_the_last_quarter),
        Variation("Lookahead", {}, look_ahead),
        Variation("adversarial, L2 0.5", {"adversarial": 0.5}),
        Variation("views 5", {"views": 5}),
        Variation("ensemble of 5", {"members": 5}),
    ],
    ("minute", 3): [
        Variation("as it is", {}),
        Variation("not deskewed", {"deskew": False}),
        Variation("shrunk to 14x14", {"shrink": 2}),
        Variation("pictures not moved", NO_MOVES),
        Variation("no elastic part", {"elastic": 0.0}),
        Variation("elastic 2.5", {"elastic": 2.5}),
        Variation("views 1", {"views": 1}),
        Variation("views 9", {"views": 9}),
        Variation("exponential average 0.995", {"average": 0.995}),
        Variation("adversarial, L2 0.5", {"adversarial": 0.5}),
    ],
    ("pure", 4): [
        Variation("as it is, but 784-256-256-10", NARROW),
        Variation("not adversarial", {**NARROW, "adversarial": 0.0}),
        Variation("adversarial, L2 0.5", {**NARROW, "adversarial": 0.5}),
        Variation("adversarial, L2 2", {**NARROW, "adversarial": 2.0}),
        Variation("adversarial by sign, 0.1 (FGSM)", NARROW, by_sign),
        Variation("virtually adversarial, L2 1 (VAT)", NARROW, by_its_own_answer),
        Variation("dropout 0.3 and max-norm 2 instead", {**NARROW, "dropout": 0.3}, max_norm),
        Variation("no average", {**NARROW, "average": 0.0}),
    ],
    ("small", 6): [
        Variation("as it is", {}),
        Variation("784-30-30-10, not deskewed", {"hidden": (30, 30), "deskew": False, "shrink": 1}),
        Variation("pictures not moved", NO_MOVES),
        Variation("taught by wide_teacher at temperature 2", {"teacher": "wide_teacher", "temperature": 2.0}),
    ],
}
# It sees what `small` sees, and has fifteen times its parameters.
TEACHER = RECIPES["small"].with_choices(name="wide_teacher", hidden=(512, 512), epochs=10, lr=0.008, batch_size=256)


def one(recipe: Recipe, change: Callable[[Trainer], None], seed: int) -> tuple[int, float]:
    """Right answers of the 10,000 held out, and the seconds that it took."""
    (x, y), (x_held_out, y_held_out), _ = load("mnist").split(10_000)
    begin = time.perf_counter()
    teacher = None if recipe.teacher is None else TEACHER.with_choices(seed=seed).train(x, y, 10)
    classifier = recipe.with_choices(seed=seed).train(x, y, 10, teacher=teacher, change=change)
    answers = classifier.predict(x_held_out)
    return int((answers == y_held_out).sum()), time.perf_counter() - begin


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--recipe", choices=sorted({name for name, _ in VARIATIONS}), help="this one alone")
    arguments = parser.parse_args()
    path = HERE / "choices.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() and arguments.recipe else {"runs": {}}
    found["machine"] = machine()
    for (name, epochs), variations in VARIATIONS.items():
        if arguments.recipe not in (None, name):
            continue
        rows = found["runs"][f"{name}, {epochs} epochs"] = []
        for words, choices, change in variations:
            recipe = RECIPES[name].with_choices(epochs=epochs, **choices)
            runs = [one(recipe, change, seed) for seed in range(arguments.seeds)]
            rows.append({"words": words, "correct": [run[0] for run in runs], "seconds": [run[1] for run in runs]})
            print(f"{name}: {words}: {rows[-1]['correct']} {statistics.median(rows[-1]['seconds']):.1f} s", flush=True)
            save_json(path, found)
    save(HERE / "choices.md", told(found))


def told(found: dict[str, Any]) -> str:
    """The tables."""
    parts = [about(found["machine"]), ""]
    for title, rows in found["runs"].items():
        as_it_is = statistics.mean(rows[0]["correct"])
        lines = []
        for row in rows:
            right = statistics.mean(row["correct"])
            gain = "" if row is rows[0] else f"{(right - as_it_is) / 100:+.2f}"
            lines.append([row["words"], f"{right / 100:.2f}%", gain, f"{statistics.median(row['seconds']):.1f} s"])
        parts += [table([title, "held-out accuracy", "against it", "time"], lines), ""]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
