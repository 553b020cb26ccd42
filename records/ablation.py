"""Ablation study: the effect of each setting of the recipes on the validation accuracy.

    python -m records.ablation                    two seeds each, about fifteen minutes; records/ablation.md
    python -m records.ablation --quick            one seed on 1,000 digits, without writing anything

The test set is not used. Each row changes one setting, trains on the first 50,000 digits, evaluates the last 10,000
digits of the training set, and is compared with the unchanged settings for the same seeds. These are the recipes on
pixels, without HOG: as they were before HOG, with fewer epochs. `minute` has one thread, batches of 256 and a learning
rate of 0.012; `pure` has fewer units, a learning rate of 0.008, batches of 256 and an EMA of 0.999. A changed setting
has one reasonable value that was not tuned, whereas the recipe's value was tuned. A row that loses little might
therefore win with another value. The accuracy of one seed differs from that of another by about 0.07 percentage points.
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
from handgrad import SWA, Adversarial, Lookahead, VirtualAdversarial
from handgrad.data import load
from handgrad.recipes import RECIPES, Recipe
from handgrad.training import Trainer

HERE = Path(__file__).parent


class Variation(NamedTuple):
    """A changed recipe: other settings, or a function that changes the trainer."""

    change: str
    settings: dict[str, Any]
    on_trainer: Callable[[Trainer], None] = lambda trainer: None


def use_lookahead(trainer: Trainer) -> None:
    """Wrap the optimizer in Lookahead."""
    trainer.optimizer = Lookahead(trainer.optimizer)


def average_last_quarter(trainer: Trainer) -> None:
    """Average the weights of the last quarter (SWA)."""
    trainer.callbacks.append(SWA(0.75))


def use_fgsm(trainer: Trainer) -> None:
    """Perturb the inputs along the sign of the gradient (FGSM)."""
    trainer.perturb = Adversarial(0.1, "linf")


def use_vat(trainer: Trainer) -> None:
    """Perturb the inputs so that the predictions change most (VAT)."""
    trainer.perturb = VirtualAdversarial(1.0, rng=0)


def use_max_norm(trainer: Trainer) -> None:
    """Limit the norm of each row of W, as Srivastava et al. (2014) do with dropout."""
    trainer.optimizer.max_norm = 2.0


AUGMENTATION = {"rotation": 7.5, "scale": 0.15, "shift": 1.0, "elastic": 1.5}
NO_AUGMENTATION = {"rotation": 0.0, "scale": 0.0, "shift": 0.0, "elastic": 0.0}
# What the rows of a recipe have in common: the settings before HOG. Three epochs are too few for batches of 512.
COMMON: dict[str, dict[str, Any]] = {
    "quick": {"hog": 0, "shrink": 2},
    "minute": {"hog": 0, "threads": 1, "batch_size": 256, "lr": 0.012, "label_smoothing": 0.0, **AUGMENTATION},
    "pure": {"hidden": (256, 256), "lr": 0.008, "batch_size": 256, "ema_decay": 0.999},
    "small": {"hog": 0, "shrink": 2, "hidden": (96, 56)},
}
# Keys: recipe and number of epochs.
VARIATIONS: dict[tuple[str, int], list[Variation]] = {
    ("quick", 4): [
        Variation("unchanged", {}),
        Variation("no deskewing", {"deskew": False, "shrink": 1}),
        Variation("no shrinking", {"shrink": 1}),
        Variation("HOG of 5 x 5 cells, no shrinking", {"shrink": 1, "hog": 5}),
        Variation("no batch normalization, lr 0.004", {"batch_norm": False, "lr": 0.004}),
        Variation("constant learning rate 0.002", {"schedule": "constant", "lr": 0.002}),
        Variation("Nesterov, lr 0.1", {"optimizer": "nesterov", "lr": 0.1}),
        Variation("Muon, lr 0.02", {"optimizer": "muon", "lr": 0.02}),
        Variation("batches of 1,000, Adam, lr 0.03", {"batch_size": 1000, "lr": 0.03}),
        Variation("batches of 1,000, Muon, lr 0.05", {"batch_size": 1000, "optimizer": "muon", "lr": 0.05}),
        Variation("dropout 0.2", {"dropout": 0.2}),
        Variation("no label smoothing", {"label_smoothing": 0.0}),
        Variation("weight decay 0.1", {"weight_decay": 0.1}),
        Variation("EMA 0.99", {"ema_decay": 0.99}),
        Variation("SWA over the last quarter", {}, average_last_quarter),
        Variation("Lookahead", {}, use_lookahead),
        Variation("adversarial training, L2 0.5", {"adversarial": 0.5}),
        Variation("test-time augmentation, 5 shifts", {"tta": 5}),
        Variation("ensemble of 5", {"members": 5}),
    ],
    ("minute", 3): [
        Variation("one thread, batches of 256, lr 0.012", {}),
        Variation("no deskewing", {"deskew": False}),
        Variation("shrink to 14x14", {"shrink": 2}),
        Variation("no augmentation", NO_AUGMENTATION),
        Variation("no elastic distortion", {"elastic": 0.0}),
        Variation("elastic distortion 2.5", {"elastic": 2.5}),
        Variation("no test-time augmentation", {"tta": 1}),
        Variation("test-time augmentation, 9 shifts", {"tta": 9}),
        Variation("EMA 0.995", {"ema_decay": 0.995}),
        Variation("adversarial training, L2 0.5", {"adversarial": 0.5}),
    ],
    ("pure", 4): [
        Variation("unchanged, but 784-256-256-10", {}),
        Variation("no adversarial training", {"adversarial": 0.0}),
        Variation("adversarial training, L2 0.5", {"adversarial": 0.5}),
        Variation("adversarial training, L2 2", {"adversarial": 2.0}),
        Variation("FGSM, 0.1", {}, use_fgsm),
        Variation("virtual adversarial training (VAT), L2 1", {}, use_vat),
        Variation("dropout 0.3 and max-norm 2 instead", {"adversarial": 0.0, "dropout": 0.3}, use_max_norm),
        Variation("no EMA", {"ema_decay": 0.0}),
    ],
    ("small", 6): [
        Variation("unchanged", {}),
        Variation("784-30-30-10, no deskewing", {"hidden": (30, 30), "deskew": False, "shrink": 1}),
        Variation("no augmentation", NO_AUGMENTATION),
        Variation("distilled from wide_teacher, temperature 2", {"teacher": "wide_teacher", "temperature": 2.0}),
    ],
}
# Same inputs as `small`, fifteen times the number of parameters.
TEACHER = RECIPES["small"].replace(
    name="wide_teacher", **{**COMMON["small"], "hidden": (512, 512), "epochs": 10, "lr": 0.008, "batch_size": 256}
)


def train(recipe: Recipe, on_trainer: Callable[[Trainer], None], seed: int, images: int) -> tuple[int, float]:
    """Return the number of correct predictions for the 10,000 validation examples, and the seconds of the training."""
    (x, y), (x_validation, y_validation), _ = load("mnist").split(10_000)
    x, y = x[:images], y[:images]
    begin = time.perf_counter()
    teacher = None if recipe.teacher is None else TEACHER.replace(seed=seed).train(x, y, 10)
    model = recipe.replace(seed=seed).train(
        x, y, 10, teacher=teacher, on_trainer=lambda trainer, member: on_trainer(trainer)
    )
    predictions = model.predict(x_validation)
    return int((predictions == y_validation).sum()), time.perf_counter() - begin


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds (default: 2)")
    parser.add_argument("--recipe", choices=sorted({name for name, _ in VARIATIONS}), help="only this recipe")
    parser.add_argument("--quick", action="store_true", help="one seed on 1,000 digits, write nothing")
    arguments = parser.parse_args()
    path = HERE / "ablation.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() and arguments.recipe else {"runs": {}}
    results["machine"] = machine()
    seeds, images = (1, 1000) if arguments.quick else (arguments.seeds, 50_000)
    for (name, epochs), variations in VARIATIONS.items():
        if arguments.recipe not in (None, name):
            continue
        title = f"{name}, {epochs} epochs" if name == "pure" else f"{name} on pixels, {epochs} epochs"
        rows = results["runs"][title] = []
        for change, settings, on_trainer in variations:
            recipe = RECIPES[name].replace(**{"epochs": epochs, **COMMON[name], **settings})
            runs = [train(recipe, on_trainer, seed, images) for seed in range(seeds)]
            rows.append({"change": change, "correct": [run[0] for run in runs], "seconds": [run[1] for run in runs]})
            seconds = statistics.median(rows[-1]["seconds"])
            print(f"{name}: {change}: {rows[-1]['correct']} correct, {seconds:.1f} s", flush=True)
            if not arguments.quick:
                save_json(path, results)
    if not arguments.quick:
        save(HERE / "ablation.md", report(results))


def report(results: dict[str, Any]) -> str:
    """Return the tables in Markdown."""
    parts = [about(results["machine"]), ""]
    for title, rows in results["runs"].items():
        unchanged = statistics.mean(rows[0]["correct"])
        lines = []
        for row in rows:
            correct = statistics.mean(row["correct"])
            difference = "" if row is rows[0] else f"{(correct - unchanged) / 100:+.2f}"
            seconds = f"{statistics.median(row['seconds']):.1f} s"
            lines.append([row["change"], f"{correct / 100:.2f}%", difference, seconds])
        parts += [table([title, "validation accuracy", "difference", "time"], lines), ""]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
