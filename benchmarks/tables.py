"""Output of the benchmarks: Markdown tables, description of the machine, result files."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from .peers import PEERS, pixels
from .workers import cores

RESULTS = Path(__file__).parent / "results"
PART = RESULTS / "part"  # results of partial runs, which git ignores
DISTRIBUTIONS = ("handgrad", "numpy", "torch", "jax", "jaxlib", "scikit-learn", "scipy")
INSTALLED_AS = {"sklearn": "scikit-learn"}

# A marker for each peer, so that plots can be read without colours. The colours are those of Okabe and Ito, which
# people with colour vision deficiency can distinguish.
STYLES = {
    "handgrad": ("o", "#000000"),
    "torch": ("s", "#D55E00"),
    "torch-compile": ("D", "#E69F00"),
    "jax-step": ("^", "#0072B2"),
    "jax-scan": ("v", "#56B4E9"),
    "sklearn": ("P", "#009E73"),
    "post": ("X", "#CC79A7"),
}


def machine() -> dict[str, Any]:
    """Describe what the results depend on: processor, cores, system, versions, BLAS, data, date."""
    versions = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": cores(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # of other programs, before the run
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "numpy_blas": {key: blas[key] for key in ("name", "version")},
        "data": pixels()[2],
    }


def _processor() -> str:
    """The name of the processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return platform.processor() or platform.machine()


def about(machine: dict[str, Any]) -> str:
    """Describe the machine in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['processor']}, {machine['cores']} cores; {versions}; {machine['data']}; {machine['date']}"


def missing(peers: Sequence[str]) -> list[str]:
    """Return the packages of these peers that are not installed."""
    needs = {PEERS[peer].needs for peer in peers}
    return sorted(INSTALLED_AS.get(name, name) for name in needs if importlib.util.find_spec(name) is None)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table with aligned columns. The first column is left-aligned, the others are right-aligned."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(pairs)) + " |"
        for pairs in (list(zip(row, widths, strict=True)) for row in (head, *rows))
    ]
    rule = "| " + " | ".join("-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])


def between(text: str, parts: Mapping[str, str]) -> str:
    """Replace the text between <!-- NAME --> and <!-- /NAME --> with each part."""
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"no place for {name}: expected {begin.strip()} and, below it, {end.strip()}")
        text = f"{before}{begin}\n{part}\n{end}{after}"
    return text


def save(path: Path, text: str) -> None:
    """Write a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    os.replace(new, path)


def save_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    save(path, json.dumps(value, indent=1) + "\n")
