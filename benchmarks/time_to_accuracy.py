"""Time to accuracy: seconds of training until 98 % and 99 % of the test set of MNIST are correct.

    python -m benchmarks.time_to_accuracy              all methods, five seeds: 13 minutes of training
    python -m benchmarks.time_to_accuracy --quick      one seed, without changing the results and the pages
    python -m benchmarks.time_to_accuracy --only keras --only plain

Every method is written as its users would write it. The time starts with the images in memory, uint8, and ends when
the network is trained. It includes conversion, preprocessing and shuffling. It excludes imports, compilation and
evaluation. Every training runs in a new process, with one thread or all, whichever takes less time.

A method with a constant learning rate is evaluated on the test set after each epoch, and its time is that of the first
epoch at the target. The test set is thus read often, in favour of these methods. A recipe has a one-cycle schedule,
which has to end at a learning rate of almost 0. It trains for its own number of epochs, which was chosen on validation
data, and the test set is read once.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handgrad import HOG, Adam, Network, Trainer
from handgrad.cli.recipes import describe_networks
from handgrad.data import load
from handgrad.recipes import RECIPES, Recipe

from .tables import PART, RESULTS, about, between, machine, save, save_json, table
from .workers import THREADS, cores

Images = NDArray[np.uint8]
Predict = Callable[[Images], Any]
Training = Iterator[Predict | None]  # first None, when everything is imported and compiled, then what has been trained

HIDDEN = (512, 512)


# ---- Methods ---------------------------------------------------------------------------------------------------------


def in_01(x: Images) -> NDArray[np.float32]:
    """Return images (count, height, width) as rows (count, height · width) in [0, 1]."""
    return x.reshape(len(x), -1).astype(np.float32) / 255


def sklearn(x: Images, y: Images, seed: int, epochs: int, hidden: tuple[int, ...]) -> Training:
    """MLPClassifier with its default settings: Adam, learning rate 0.001, batches of 200; in float32, which is faster.

    The random generator is shared by the calls of `partial_fit`, which would otherwise have the same order.
    """
    from sklearn.neural_network import MLPClassifier

    yield None
    rows = in_01(x)
    model = MLPClassifier(hidden, random_state=np.random.RandomState(seed))
    for _ in range(epochs):
        model.partial_fit(rows, y, classes=np.arange(10))
        yield lambda images: model.predict(in_01(images))


def torch_tutorial(x: Images, y: Images, seed: int, epochs: int) -> Training:
    """PyTorch as in its tutorials: a DataLoader, Adam, and images converted one by one as by torchvision's ToTensor."""
    import torch
    from PIL import Image
    from torch import nn
    from torch.utils.data import DataLoader, Dataset

    class Digits(Dataset[tuple[torch.Tensor, int]]):
        def __len__(self) -> int:
            return len(x)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            image = torch.from_numpy(np.array(Image.fromarray(x[i]), np.uint8, copy=True))
            return image.view(28, 28, 1).permute(2, 0, 1).contiguous().float().div(255), int(y[i])

    yield None
    torch.manual_seed(seed)
    loader = DataLoader(Digits(), batch_size=64, shuffle=True)
    sizes, layers = (784, *HIDDEN, 10), [nn.Flatten()]
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    loss, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            loss(model(images), labels).backward()
            optimizer.step()
        yield lambda images: model(torch.from_numpy(in_01(images))).argmax(1).numpy()


def torch_expert(x: Images, y: Images, seed: int, epochs: int, recipe: Recipe) -> Training:
    """PyTorch with the settings of a recipe: tensors in memory, fused Adam, OneCycleLR, handgrad's Deskew and HOG."""
    import torch
    from torch import nn

    batch, deskew, network = recipe.batch_size, recipe.preprocessing((28, 28)), recipe.trainer().network

    def features(images: Images) -> NDArray[np.float32]:
        seen = deskew(images)
        return network.outputs_of(0, seen) if isinstance(network.layers[0], HOG) else in_01(seen)

    loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    yield None
    torch.manual_seed(seed)
    inputs, labels = torch.from_numpy(features(x)), torch.from_numpy(y.astype(np.int64))
    sizes, layers = (inputs.shape[1], *recipe.hidden), []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [nn.Linear(n_in, n_out, bias=False), nn.BatchNorm1d(n_out), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(sizes[-1], 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr, fused=True)
    steps = math.ceil(len(x) / batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, epochs=epochs, steps_per_epoch=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            loss(model(inputs[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    yield lambda images: model(torch.from_numpy(features(images))).argmax(1).numpy()


def keras(x: Images, y: Images, seed: int, epochs: int, backend: str = "jax") -> Training:
    """Keras: Sequential, Adam, `fit` with batches of 128. The model is compiled before the time starts."""
    os.environ["KERAS_BACKEND"] = backend
    import keras

    keras.utils.set_random_seed(seed)
    hidden = [keras.layers.Dense(n, activation="relu") for n in HIDDEN]
    model = keras.Sequential([keras.Input((784,)), *hidden, keras.layers.Dense(10, activation="softmax")])
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    start = model.get_state_tree(value_format="numpy_array")
    few = 128 + len(x) % 128  # a whole batch, and one as small as the last
    model.fit(in_01(x[:few]), y[:few], batch_size=128, verbose=0)
    model.set_state_tree(start)
    yield None
    rows = in_01(x)
    for _ in range(epochs):
        model.fit(rows, y, batch_size=128, verbose=0)
        yield lambda images: model.predict(in_01(images), verbose=0).argmax(1)


def handgrad_plain(x: Images, y: Images, seed: int, epochs: int) -> Training:
    """handgrad with the settings of the tutorials of PyTorch."""
    yield None
    network = Network([784, *HIDDEN, 10], activation="relu", loss="cross_entropy", rng=seed)
    trainer = Trainer(network, Adam(lr=1e-3), batch_size=64, rng=seed)
    for _ in range(epochs):
        trainer.fit(x, y, epochs=1, progress=False)
        yield network.predict


def handgrad_recipe(x: Images, y: Images, seed: int, epochs: int, recipe: Recipe) -> Training:
    """A recipe of handgrad, `handgrad train --recipe NAME`."""
    yield None
    yield recipe.replace(seed=seed, epochs=epochs).train(x, y, 10).predict


@dataclass(frozen=True)
class Method:
    """A method, the name of its row, its network, and its number of epochs if it has a schedule with an end."""

    train: Callable[..., Training]
    row: str
    network: str
    epochs: int | None = None


def _with_recipe(train: Callable[..., Training], row: str, name: str) -> Method:
    recipe = RECIPES[name]
    return Method(functools.partial(train, recipe=recipe), row, describe_networks(recipe), recipe.epochs)


WIDE = "784-512-512-10"
EXPERT, OURS = "PyTorch, expert: in memory, handgrad's recipe", "handgrad, recipe"
TARGETS = (0.98, 0.99)
METHODS = {
    "sklearn-default": Method(functools.partial(sklearn, hidden=(100,)), "scikit-learn, default network", "784-100-10"),
    "sklearn": Method(functools.partial(sklearn, hidden=(256, 256)), "scikit-learn, wider", "784-256-256-10"),
    "torch-tutorial": Method(torch_tutorial, "PyTorch, tutorial: DataLoader, Adam", WIDE),
    "keras": Method(keras, "Keras (JAX), Sequential, Adam", WIDE),
    "plain": Method(handgrad_plain, "handgrad, the settings of the tutorial", WIDE),
    "torch-second": _with_recipe(torch_expert, EXPERT, "second"),
    "torch-quick": _with_recipe(torch_expert, EXPERT, "quick"),
    "second": _with_recipe(handgrad_recipe, OURS, "second"),
    "quick": _with_recipe(handgrad_recipe, OURS, "quick"),
}
SEEDS = 5
MOST_EPOCHS, MOST_SECONDS = 30, 60.0  # of a method with a constant learning rate
FILE = "time_to_accuracy"


# ---- Measurement -----------------------------------------------------------------------------------------------------


def run(name: str, seed: int, epochs: int, target: float, count: int, threads: int) -> dict[str, Any]:
    """Train until the target, on the first `count` examples, and evaluate the test set.

    Returns, for each evaluation, the seconds of training and the number of correct predictions.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    dataset = load("mnist")
    training = METHODS[name].train(dataset.x_train[:count], dataset.y_train[:count], seed, epochs)
    next(training)
    result: dict[str, Any] = {"seed": seed, "seconds": [], "accuracy": []}
    seconds, accuracy = 0.0, 0.0
    while accuracy < target and seconds < MOST_SECONDS:
        begin = time.perf_counter()
        predict = next(training, None)
        seconds += time.perf_counter() - begin
        if predict is None:
            break
        accuracy = float((predict(dataset.x_test) == dataset.y_test).mean())
        result["seconds"].append(round(seconds, 3))
        result["accuracy"].append(accuracy)
    return result


def in_new_process(*arguments: Any, threads: int) -> dict[str, Any]:
    """Return `run` of a process with this number of threads."""
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(run, (*arguments, threads))


def fastest(name: str) -> int:
    """Return the number of threads with which an epoch of 12,000 examples takes less time, 1 or all."""
    seconds = {n: in_new_process(name, 0, 1, 1.0, 12_000, threads=n)["seconds"][0] for n in {1, cores()}}
    return min(seconds, key=lambda n: seconds[n])


# ---- Tables ----------------------------------------------------------------------------------------------------------


def until(run: dict[str, Any], target: float) -> tuple[float, int] | None:
    """Return the seconds and the number of epochs of a run until its accuracy reaches the target, or None."""
    for number, (seconds, accuracy) in enumerate(zip(run["seconds"], run["accuracy"], strict=True), start=1):
        if accuracy >= target:
            return seconds, number
    return None


def cells(method: dict[str, Any], target: float) -> tuple[str, str]:
    """Return the seconds (median and range over the seeds) and the epochs of a method until a target."""
    runs = method["runs"]
    if method["epochs"] is not None:
        reached = statistics.mean(run["accuracy"][-1] for run in runs) >= target
        return (_spread([run["seconds"][-1] for run in runs]), str(method["epochs"])) if reached else ("", "")
    found = [pair for run in runs if (pair := until(run, target))]
    if len(found) < len(runs):
        longest = max(runs, key=lambda run: len(run["seconds"]))
        missed = f"not in {longest['seconds'][-1]:.0f} s"
        return (f"{missed} ({len(found)} of {len(runs)} do)" if found else missed), str(len(longest["seconds"]))
    epochs = sorted({number for _, number in found})
    return _spread([seconds for seconds, _ in found]), " to ".join(map(str, dict.fromkeys((epochs[0], epochs[-1]))))


def _spread(seconds: list[float]) -> str:
    median = statistics.median(seconds)
    return f"{median:.1f} ({min(seconds):.1f} to {max(seconds):.1f})" if len(seconds) > 1 else f"{median:.1f}"


def accuracy(method: dict[str, Any]) -> str:
    """Return the accuracy at the end of a one-cycle schedule, otherwise the highest of all epochs and seeds."""
    if method["epochs"] is None:
        return f"at most {max(max(run['accuracy']) for run in method['runs']):.2%}"
    values = [100 * run["accuracy"][-1] for run in method["runs"]]
    return f"{statistics.mean(values):.2f}%" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def complete_table(methods: dict[str, Any]) -> str:
    """Return the table of the page on performance."""
    rows = []
    for name, method in methods.items():
        row = METHODS[name].row + (f" `{name.removeprefix('torch-')}`" if method["epochs"] else "")
        times = [cell for target in TARGETS for cell in cells(method, target)]
        rows.append([row, METHODS[name].network, str(method["threads"]), *times, accuracy(method)])
    return table(["written as", "network", "threads", "98 %, s", "epochs", "99 %, s", "epochs", "test accuracy"], rows)


def short_table(methods: dict[str, Any]) -> str:
    """Return the table of the README: the seconds until each target, with one row for both recipes."""
    rows: dict[str, list[str]] = {}
    for name, method in methods.items():
        row = rows.setdefault(METHODS[name].row, ["", ""])
        for column, target in enumerate(TARGETS):
            if not row[column]:  # the first recipe that reaches the target
                cell = cells(method, target)[0]
                row[column] = cell if cell.startswith("not") else cell.partition(" (")[0]
    return table(["written as", "98 %, s", "99 %, s"], [[name, *row] for name, row in rows.items()])


def write(results: dict[str, Any], complete: bool) -> None:
    """Write the results, and the tables of the README and of the page on performance if everything was run."""
    directory, methods = RESULTS if complete else PART, results["methods"]
    save_json(directory / f"{FILE}.json", results)
    save(directory / f"{FILE}.md", f"{about(results['machine'])}\n\n{complete_table(methods)}\n")
    if complete:
        root = RESULTS.parents[1]
        for page, text in (("README.md", short_table), ("docs/explanation/performance.md", complete_table)):
            save(root / page, between((root / page).read_text(), {"time-to-accuracy": text(methods)}))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(METHODS), help="only this method; can be repeated")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"number of seeds (default: {SEEDS})")
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_argument("--table", action="store_true", help="only write the tables again, from the results")
    options = parser.parse_args()
    names = options.only or list(METHODS)
    seeds = 1 if options.quick else options.seeds
    complete = seeds == SEEDS and not options.only
    path = (RESULTS if complete else PART) / f"{FILE}.json"
    if options.table:
        write(json.loads(path.read_text()), complete)
        return
    results: dict[str, Any] = {"machine": machine(), "methods": {}}
    if options.resume:
        results = json.loads(path.read_text())
    methods, count = results["methods"], len(load("mnist").y_train)
    for seed in range(seeds):  # the methods alternate, so that a busy minute slows all of them
        for name in names:
            epochs = METHODS[name].epochs
            if name not in methods:
                methods[name] = {"epochs": epochs, "threads": fastest(name), "runs": []}
            method = methods[name]
            if seed in [run["seed"] for run in method["runs"]]:
                continue
            # Without a fixed end, the first seed shows whether 99 % is reached. Otherwise the others stop at 98 %.
            last = 1.0 if epochs else TARGETS[seed == 0 or until(method["runs"][0], TARGETS[1]) is not None]
            result = in_new_process(name, seed, epochs or MOST_EPOCHS, last, count, threads=method["threads"])
            method["runs"].append(result)
            print(f"{name}, seed {seed}: {result['accuracy'][-1]:.2%} in {result['seconds'][-1]:.1f} s", flush=True)
            save_json(path, results)
    write(results, complete)
    print(complete_table(methods))


if __name__ == "__main__":
    main()
