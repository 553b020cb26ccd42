"""Data larger than memory: memory and speed of a training and of predictions on files, compared with arrays.

    python -m benchmarks.streaming --data DIR [--repeats 5]
    python -m benchmarks.streaming --data DIR --part accuracy     what a large training set buys in accuracy (long)
    python -m benchmarks.streaming --data DIR --quick        few rows, without writing anything

DIR is a data set that `handgrad data make` has written. Everything runs on one thread.

memory     a new process trains 784-10 for one epoch on the first rows of the file, or predicts their classes: its
           largest memory; of memory-mapped rows without the pages of the file, which the system takes back
speed      epochs on an array in memory, on memory-mapped rows, on blocks, and on blocks of a file that is not in the
           page cache, alternating; seconds relative to those of the array before it
share      processes predict with 784-4096-4096-10 at the same time, with their own copies of the weights or with the
           file mapped into memory: the sum of their memory, in which shared pages count once (PSS, on Linux)
predict    examples per second and core, also of onnxruntime, if it is installed, on the same model and the same pixels

Writes streaming.json and streaming.md to benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from handgrad import SGD, Adam, Augmentation, Network, Trainer
from handgrad.blas import one_blas_thread
from handgrad.data import load
from handgrad.data.answers import write_answers
from handgrad.data.stream import FileRows
from handgrad.io.models import load as load_model
from handgrad.io.models import save as save_model
from handgrad.schedules import SCHEDULES
from handgrad.training import Callback

from .tables import RESULTS, about, machine, save, save_json, table

NETWORKS = {"784-30-10": ([784, 30, 10], 10), "784-512-512-10": ([784, 512, 512, 10], 128)}  # and the batch size
ROWS = {"784-30-10": 150_000, "784-512-512-10": 20_000}  # of an epoch of the speed test
COUNTS = (60_000, 1_000_000, 8_100_000)
LARGE = [784, 4096, 4096, 10]  # 80 MB


def network(sizes: list[int]) -> Network:
    """Return a network that reads images."""
    result = Network(sizes, activation="relu", loss="cross_entropy", rng=0)
    result.image_shape = (28, 28)
    return result


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of a call, and those of the processor in all threads."""
    begin, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - begin, time.process_time() - cpu


# ---- Memory ----------------------------------------------------------------------------------------------------------


class Anonymous(Callback):
    """Measures the memory in the middle of an epoch, without the pages of files."""

    size = 0

    def on_batch_end(self, trainer: Trainer) -> None:
        """Measure it once."""
        if trainer.batch == trainer.batches // 2 + 1:
            lines = Path("/proc/self/status").read_text().splitlines()
            self.size = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def run_here(what: str, count: int, directory: Path) -> None:
    """Train or predict, and print the largest memory of this process in bytes, and the seconds."""
    warnings.simplefilter("ignore")
    dataset = load(directory, shuffle="rows" if what == "rows" else "blocks")
    x, y = dataset.x_train[:count], dataset.y_train[:count]
    anonymous = Anonymous()
    net, begin = network([784, 10]), time.perf_counter()
    with one_blas_thread():
        if what == "predict":
            with tempfile.TemporaryDirectory() as place:
                write_answers(net, x, Path(place) / "answers.npy")
        else:
            Trainer(net, SGD(lr=0.1), batch_size=1000, rng=0, callbacks=[anonymous]).fit(x, y, 1, progress=False)
    seconds = time.perf_counter() - begin
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    size = anonymous.size if what == "rows" else int(status["VmHWM"].split()[0]) * 1024  # VmHWM: the largest
    print(json.dumps({"bytes": size, "seconds": seconds}))


def memory(directory: Path, counts: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Return the memory and the seconds of new processes, by what they do and the number of rows."""
    results: dict[str, dict[str, Any]] = {}
    for what in ("blocks", "rows", "predict"):
        for count in counts:
            command = [
                sys.executable,
                "-m",
                "benchmarks.streaming",
                "--data",
                str(directory),
                "--run",
                what,
                str(count),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
            results.setdefault(what, {})[str(count)] = json.loads(done.stdout)
            print(what, count, done.stdout.strip(), flush=True)
    return results


def hold(model: Path, how: str, directory: Path) -> None:
    """Load a model, predict with it, print the seconds of both, and wait for the end of stdin."""
    x = load(directory, shuffle="blocks").x_test[:2048]
    seconds = min(timed(lambda: load_model(model, mmap=how == "mapped"))[0] for _ in range(5))
    net = load_model(model, mmap=how == "mapped")
    with one_blas_thread():
        print(json.dumps({"load": seconds, "predict": timed(lambda: net.predict(x))[0]}), flush=True)
    sys.stdin.read()


def sharing(directory: Path) -> dict[str, dict[str, Any]]:
    """Return the memory of 1 and 4 processes that use the same large model, and the seconds to load it."""
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "model.safetensors"
        save_model(network(LARGE), model)
        for how in ("copied", "mapped"):
            for count in (1, 4):
                command = [sys.executable, "-m", "benchmarks.streaming", "--data", str(directory), "--hold", model, how]
                processes = [
                    subprocess.Popen(
                        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
                    )
                    for _ in range(count)
                ]
                seconds = [json.loads(process.stdout.readline()) for process in processes if process.stdout]
                sizes = [memory_of(process.pid) for process in processes]
                for process in processes:
                    process.communicate()
                results.setdefault(how, {})[str(count)] = {
                    "seconds": seconds,
                    "rss": [size["Rss"] for size in sizes],
                    "pss": sum(size["Pss"] for size in sizes),
                }
                print(how, count, results[how][str(count)], flush=True)
    return results


def memory_of(pid: int) -> dict[str, int]:
    """Return the memory of a process in bytes: Rss, and Pss, in which a page that n processes share counts 1 / n."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(size.split()[0]) * 1024 for name, size in (line.split(":") for line in lines)}


# ---- Speed -----------------------------------------------------------------------------------------------------------


def forget(x: FileRows) -> None:
    """Drop the pages of the files from the page cache."""
    for part in x.parts:
        with part.path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def speed(directory: Path, repeats: int, share: float = 1.0) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return the seconds of epochs, and those of the processor, by network and kind of data."""
    results: dict[str, dict[str, list[tuple[float, float]]]] = {}
    rows, blocks = (load(directory, shuffle=shuffle) for shuffle in ("rows", "blocks"))
    for name, (sizes, batch_size) in NETWORKS.items():
        count = int(ROWS[name] * share)
        y = rows.y_train[:count]
        array = np.asarray(rows.x_train[:count])
        kinds = {
            "array": array,
            "rows": rows.x_train[:count],
            "array ": array,
            "blocks": blocks.x_train[:count],
            "array  ": array,
            "blocks, cold": blocks.x_train[:count],
        }
        results[name] = {kind: [] for kind in kinds}
        for _ in range(repeats):
            for kind, x in kinds.items():
                trainer = Trainer(network(sizes), SGD(lr=0.1), batch_size=batch_size, rng=0)
                if kind == "blocks, cold":
                    forget(x)
                with one_blas_thread():
                    results[name][kind].append(timed(lambda t=trainer, x=x, y=y: t.fit(x, y, 1, progress=False)))
    return results


def ratio(seconds: dict[str, list[tuple[float, float]]], kind: str) -> str:
    """Return the seconds of a kind relative to those of the array just before it, and those of the processor."""
    names = list(seconds)
    before = names[names.index(kind) - 1]
    wall, cpu = (
        statistics.median(a[i] / b[i] for a, b in zip(seconds[kind], seconds[before], strict=True)) for i in (0, 1)
    )
    return f"{wall:.2f} / {cpu:.2f}"


# ---- Predictions -----------------------------------------------------------------------------------------------------


def predictions(directory: Path, repeats: int, count: int) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return the seconds to predict the classes of images in a file, by network and library."""
    import onnxruntime

    from handgrad.export import export

    results: dict[str, dict[str, list[tuple[float, float]]]] = {}
    x = load(directory, shuffle="blocks").x_train[:count]
    with tempfile.TemporaryDirectory() as place:
        for name, (sizes, _) in NETWORKS.items():
            net, path = network(sizes), Path(place) / "model.onnx"
            export(net, path, to="onnx")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            given = session.get_inputs()[0]
            if given.type not in ("tensor(float)", "tensor(uint8)"):
                sys.exit(f"the ONNX model expects {given.type}")

            def theirs(session: Any = session, given: Any = given) -> np.ndarray:
                answers = []
                for first in range(0, count, 1024):
                    block = np.asarray(x[first : first + 1024])
                    if given.type == "tensor(float)":
                        block = block.astype(np.float32) / np.float32(255)
                    block = block.reshape(len(block), *(28, 28) if len(given.shape) == 3 else (784,))
                    answers.append(session.run(None, {given.name: block})[0].argmax(axis=1))
                return np.concatenate(answers)

            def ours(net: Network = net) -> np.ndarray:
                out = Path(place) / "answers.npy"
                with one_blas_thread():
                    write_answers(net, x, out)
                return np.load(out)

            same = float(np.mean(ours() == theirs()))
            if same < 0.999:
                sys.exit(f"{name}: only {same:.2%} of the predictions are those of onnxruntime")
            calls: dict[str, Callable[[], np.ndarray]] = {"handgrad": ours, "onnxruntime": theirs}
            results[name] = {library: [] for library in calls}
            for _ in range(repeats):
                for library, call in calls.items():
                    results[name][library].append(timed(call))
    return results


# ---- Accuracy --------------------------------------------------------------------------------------------------------


def accuracy(directory: Path, rows: int, hidden: int) -> dict[str, Any]:
    """Return the test accuracy after `rows` examples: of the file once, of the digits many times, augmented or not.

    784-hidden-hidden-10 with ReLU, Adam with a one-cycle schedule, batch size 128, learning rate 0.002.
    """
    mnist, large = load("mnist"), load(directory, shuffle="blocks")
    x, y = mnist.x_train[:50_000], mnist.y_train[:50_000]
    augment = Augmentation(28, 28, rotation=7.5, scale=0.15, shift=1.0, elastic=1.5)
    kinds = {
        f"{rows:,} images of the file, 1 epoch": (large.x_train[:rows], large.y_train[:rows], None, 1),
        f"50,000 images, augmented while training, {rows // 50_000} epochs": (x, y, augment, rows // 50_000),
        f"50,000 images, {rows // 50_000} epochs": (x, y, None, rows // 50_000),
    }
    results: dict[str, Any] = {"rows": rows, "hidden": hidden, "runs": {}}
    for kind, (images, labels, function, epochs) in kinds.items():
        net = network([784, hidden, hidden, 10])
        trainer = Trainer(net, Adam(0.002), batch_size=128, schedule=SCHEDULES["one_cycle"](), augment=function, rng=0)
        begin, cpu = time.perf_counter(), time.process_time()
        with one_blas_thread():
            trainer.fit(images, labels, epochs, progress=False)
        evaluation = net.evaluate(mnist.x_test, mnist.y_test)
        results["runs"][kind] = {
            "accuracy": evaluation.accuracy,
            "loss": evaluation.loss,
            "seconds": time.perf_counter() - begin,
            "cpu_seconds": time.process_time() - cpu,
            "steps": trainer.batches * epochs,
        }
        print(kind, results["runs"][kind], flush=True)
    return results


# ---- Report ----------------------------------------------------------------------------------------------------------


def report(results: dict[str, Any]) -> str:
    """Return the tables in Markdown."""
    median = statistics.median
    lines = ["# Data larger than memory", "", f"{about(results['machine'])}.", ""]
    if "memory" in results:
        head = ("examples", "file, GB", "training on blocks, MB", "on mapped rows, MB", "predictions, MB")
        of = results["memory"]
        lines += ["## Memory of a process", ""]
        cells = [
            [f"{int(count):,}", f"{int(count) * 784 / 1e9:.2f}"]
            + [f"{of[what][count]['bytes'] / 1e6:.0f}" for what in ("blocks", "rows", "predict")]
            for count in of["blocks"]
        ]
        lines += [table(head, cells), ""]
        lines += [
            "784-10, batch size 1,000, one epoch, with Python and NumPy. Mapped rows: without the pages of the file.",
            "",
        ]
    if "share" in results:
        lines += ["## Memory of processes that use the same model", ""]
        of = results["share"]
        cells = [
            [count, *(f"{of[how][count]['pss'] / 1e6:.0f}" for how in ("copied", "mapped"))] for count in of["copied"]
        ]
        lines += [table(("processes", "own copies, MB", "mapped file, MB"), cells), ""]
        loading = (f"{how} {1000 * of[how]['1']['seconds'][0]['load']:.0f} ms" for how in ("copied", "mapped"))
        lines += [
            "784-4096-4096-10, a file of 80 MB, with Python and NumPy, after a prediction of 2,048 images: sum over "
            "the processes, in which shared pages count once (PSS). "
            f"Fastest of 5 loads in one process: {', '.join(loading)}.",
            "",
        ]
    if "speed" in results:
        lines += ["## Seconds of an epoch, relative to an array in memory", ""]
        head = ("network", "examples", "array, CPU s", "mapped rows", "blocks", "blocks, not in the page cache")
        cells = []
        for name, seconds in results["speed"].items():
            cells.append(
                [name, f"{results['rows'][name]:,}", f"{median(cpu for _, cpu in seconds['array']):.2f}"]
                + [ratio(seconds, kind) for kind in ("rows", "blocks", "blocks, cold")]
            )
        lines += [
            table(head, cells),
            "",
            "Medians of the ratios to the epoch on the array just before: elapsed time / time of the processor, with "
            "the reader thread. One BLAS thread.",
            "",
        ]
    if "predict" in results:
        lines += ["## Predictions, 1,000 images per second of a core", ""]
        count = results["predict_rows"]
        cells = [
            [
                name,
                *(
                    f"{count / median(cpu for _, cpu in seconds[library]) / 1e3:.0f}"
                    for library in ("handgrad", "onnxruntime")
                ),
            ]
            for name, seconds in results["predict"].items()
        ]
        lines += [table(("network", "handgrad", "onnxruntime"), cells), ""]
        lines += [
            "From a file of uint8 pixels in the page cache, one BLAS thread; handgrad writes the answers to a file.",
            "",
        ]
    if "accuracy" in results:
        lines += ["## Accuracy", ""]
        cells = [
            [kind, f"{run['accuracy']:.2%}", f"{run['loss']:.4f}", f"{run['steps']:,}", f"{run['cpu_seconds']:.0f}"]
            for kind, run in results["accuracy"]["runs"].items()
        ]
        hidden = results["accuracy"]["hidden"]
        lines += [table(("training set", "test accuracy", "test loss", "steps", "CPU seconds"), cells), ""]
        lines += [
            f"784-{hidden}-{hidden}-10, ReLU, Adam with a one-cycle schedule up to 0.002, batch size 128, one seed.",
            "",
        ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streaming", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="directory that handgrad data make has written")
    parser.add_argument("--repeats", type=int, default=5, help="number of repetitions (default: 5)")
    parser.add_argument("--quick", action="store_true", help="few rows, one repetition, write nothing")
    parser.add_argument("--part", choices=("memory", "share", "speed", "predict", "accuracy"), action="append")
    parser.add_argument("--rows", type=int, default=2_000_000, help="examples of the test of accuracy")
    parser.add_argument("--hidden", type=int, default=256, help="width of the layers of the test of accuracy")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--hold", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.run:
        run_here(options.run[0], int(options.run[1]), options.data)
        return 0
    if options.hold:
        hold(Path(options.hold[0]), options.hold[1], options.data)
        return 0
    share, repeats = (0.1, 1) if options.quick else (1.0, options.repeats)
    total = len(load(options.data, shuffle="blocks").x_train)
    parts = options.part or ["memory", "share", "speed", "predict"]
    path = RESULTS / "streaming.json"
    results = json.loads(path.read_text()) if path.exists() and options.part else {}
    results["machine"] = machine()
    if "memory" in parts:
        results["memory"] = memory(options.data, [c for c in COUNTS[: 1 if options.quick else None] if c <= total])
    if "share" in parts:
        results["share"] = sharing(options.data)
    if "speed" in parts:
        results["rows"] = {name: int(count * share) for name, count in ROWS.items()}
        results["speed"] = speed(options.data, repeats, share)
    if "predict" in parts:
        results["predict_rows"] = count = int(100_000 * share)
        results["predict"] = predictions(options.data, repeats, count)
    if "accuracy" in parts:
        results["accuracy"] = accuracy(options.data, int(options.rows * share), options.hidden)
    if not options.quick:
        save_json(path, results)
        save(RESULTS / "streaming.md", report(results))
    print(report(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
