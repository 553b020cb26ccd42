"""What the README shows, put there from what made it: a training's words and picture, the race, the records, the map.

    python -m benchmarks.readme

It trains the post's network, ten seconds, for the words and the picture. All else is there already: as `make bench`,
`make records` and `make reproduce` left it, and as the source is now.
"""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import tokenize
from pathlib import Path

import numpy as np

from .tables import RESULTS, between, save

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "report.png"
PACKAGE = ROOT / "src" / "handgrad"

# The race's cases and columns that the README has; docs/performance.md has them all.
CASES = ("784-30-10/10", "784-100-10/10", "784-30-10/64", "784-512-512-10/128", "784-2048-2048-10/256")
PEERS = {
    "torch": "PyTorch",
    "torch-compile": "torch.compile",
    "jax-step": "JAX, a jitted step",
    "jax-scan": "JAX, a scan over all steps",
    "sklearn": "scikit-learn",
}
# Of Nielsen's rows, those on all 50,000 digits, with the quadratic cost or the cross-entropy and no more.
NIELSEN = re.compile(r"\| 784-(30|100)-10, (quadratic, lr 3|cross-entropy) .*\| +test, best epoch")
# Tokens that make no line a line of code.
QUIET = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
MAPPED = re.compile(r"^\| `([\w/]+\.py)` \| (.+) \| \d+ \|$", re.MULTILINE)


def trained() -> str:
    """What `handgrad train --recipe post` prints, without its middle; its picture goes to docs/."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "handgrad", "train", "--recipe", "post"]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True)
        shutil.copy(Path(directory) / "runs" / "post" / PICTURE.name, PICTURE)
    lines = done.stdout.splitlines()
    first, last = (i for i, line in enumerate(lines) if line.startswith(("epoch  1/", "epoch 30/")))
    return "\n".join(["```text", *lines[: first + 1], "...", *lines[last:], "```"])


def race() -> str:
    """How long a step takes, and how many times as long elsewhere."""
    steps = json.loads((RESULTS / "steps.json").read_text())
    races, on = steps["races"], steps["machine"]
    found = {race["case"]: race["peers"] for race in races if race["optimizer"] == "sgd"}
    post = found[CASES[0]]["handgrad"]
    resources = json.loads((RESULTS / "resources.json").read_text())
    step, epoch = 1e6 * np.median(post["step_seconds"]), np.median(post["epoch_seconds"])
    importing = np.median(resources["import_seconds"]["handgrad"])
    versions = ", ".join(f"{name} {on['versions'][name]}" for name in ("numpy", "torch", "jax"))
    told = (
        f"A step of the post's network on a batch of 10 takes {step:.0f} µs on one core, an epoch of MNIST "
        f"{epoch:.2f} s, importing {importing:.2f} s ({on['processor']}, {on['cores']} cores; {versions}). How many "
        "times as long others take, with the same batches and the same weights, in the same run:"
    )
    lines = [
        textwrap.fill(told, 120),
        "",
        f"| network, batch, optimizer | {' | '.join(PEERS.values())} |",
        "| --- |" + " ---: |" * len(PEERS),
    ]
    for case in CASES:
        times = {name: np.array(peer["step_seconds"]) for name, peer in found[case].items()}
        ratios = [float(np.median(times[name] / times["handgrad"])) for name in PEERS]
        lines.append(f"| {case.replace('/', ', ')}, SGD | {' | '.join(f'{ratio:#.2g}' for ratio in ratios)} |")
    return "\n".join(lines)


def fit() -> str:
    """How many times as long scikit-learn's estimators take."""
    epochs = json.loads((RESULTS / "estimators.json").read_text())["epochs"]
    ratios = {name: float(np.median([theirs / ours for ours, theirs in times])) for name, times in epochs.items()}
    single = sorted(ratio for name, ratio in ratios.items() if name.endswith(" float32") and "sparse" not in name)
    double = ratios["bench_mnist, SGD, float64"]
    told = (
        f"An epoch of `fit` takes scikit-learn {single[0]:.1f} to {single[-1]:.1f} times as long in float32, the more "
        f"the smaller the batch, and {double:.1f} times in float64."
    )
    return textwrap.fill(told, 120)


def records() -> str:
    """The recipes on the test set."""
    return (ROOT / "records" / "table.md").read_text().strip()


def nielsen() -> str:
    """The book's figures for the post's network, and ours."""
    lines = (ROOT / "reproductions" / "nielsen.md").read_text().splitlines()
    head, rule, *rows = (line for line in lines if line.startswith("|"))
    return "\n".join([head, rule, *(row for row in rows if NIELSEN.match(row))])


def source_map(text: str) -> str:
    """Each file in the words that the README has for it, with its lines of code as they are."""
    words = dict(MAPPED.findall(text))
    files = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.name[0] != "_"]
    if unlike := set(files) ^ set(words):
        raise SystemExit(f"in the source or in the README's map, but not in both: {', '.join(sorted(unlike))}")
    rows = [f"| `{name}` | {what} | {code_lines((PACKAGE / name).read_text())} |" for name, what in words.items()]
    return "\n".join(["| file | what | lines of code |", "| --- | --- | ---: |", *rows])


def code_lines(source: str) -> int:
    """Lines that hold code: neither blank, nor comment, nor docstring. All of a string counts that is no docstring."""
    docstrings = []  # their first and last lines: a string within is the docstring, or on a line that counts without it
    for node in ast.walk(ast.parse(source)):
        holder = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if holder and ast.get_docstring(node) is not None:
            docstrings.append((node.body[0].lineno, node.body[0].end_lineno or 0))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        begin, end = token.start[0], token.end[0]
        docstring = token.type == tokenize.STRING and any(first <= begin and end <= last for first, last in docstrings)
        if token.type not in QUIET and not docstring:
            lines |= set(range(begin, end + 1))
    return len(lines)


def render(text: str, **parts: str) -> str:
    """The README, with what is there already put in anew, and such other parts as are given."""
    parts |= {"race": race(), "fit": fit(), "records": records(), "nielsen": nielsen(), "map": source_map(text)}
    return between(text, parts)


def main() -> None:
    """All of it."""
    save(README, render(README.read_text(), train=trained()))


if __name__ == "__main__":
    main()
