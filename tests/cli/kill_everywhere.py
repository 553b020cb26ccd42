"""A training of a teacher and an ensemble that is killed at each system call that changes files, then continued.

    python kill_everywhere.py DATA DIRECTORY

Prints JSON: the number of kills, the continued and the restarted runs, and the kills after which a file differs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from handgrad import callbacks, cli
from handgrad.diagnostics import plots
from handgrad.io.atomic import replace_file
from handgrad.io.safetensors import read_arrays
from handgrad.recipes import RECIPES

DATA, DIRECTORY = sys.argv[1:]
CALLS = ("fsync", "replace", "mkdir", "unlink")
SETTINGS = ("--hidden", "4", "--batch-size", "300", "--lr", "0.5", "--epochs", "2", "--members", "2", "--data", DATA)
SETTINGS += ("--loss", "cross_entropy", "--optimizer", "adam", "--ema-decay", "0.9", "--teacher", "wise", "--quiet")

RECIPES["wise"] = RECIPES["post"].replace(name="wise", epochs=1, hidden=(4,), batch_size=300)
callbacks.time = SimpleNamespace(monotonic=lambda: 0.0)  # writing takes no time, so that every epoch is saved
plots.report = lambda path, *_, **__: replace_file(path, b"a report takes a second")


def train(*arguments: str, kill_at: int = 0) -> int:
    """Run handgrad train in a copy of this process, killed before one of the calls. Returns the exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    count = 0

    def killing(function):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, killing(getattr(os, name)))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        cli.handgrad.main(["train", *arguments], prog_name="handgrad")
    except SystemExit as end:
        os._exit(int(end.code or 0))
    os._exit(99)


def contents(run: Path) -> dict[str, str]:
    """A hash of each file, without the times of the epochs."""
    found = {}
    for path in sorted(run.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        if path.suffix == ".safetensors":
            arrays, description = read_arrays(path)
            description.get("state", {}).get("history", {}).pop("seconds", None)
            content = b"".join(name.encode() + value.tobytes() for name, value in sorted(arrays.items()))
            content += json.dumps(description, sort_keys=True).encode()
        elif path.name.startswith("history"):
            history = json.loads(content)
            history["seconds"] = len(history["seconds"])
            content = json.dumps(history).encode()
        elif path.name == "result.json":
            content = json.dumps(json.loads(content) | {"seconds": 0}).encode()
        found[str(path.relative_to(run))] = hashlib.sha256(content).hexdigest()
    return found


complete = Path(DIRECTORY, "complete")
assert train(*SETTINGS, "--out", str(complete)) == 0
wanted, run = contents(complete), Path(DIRECTORY, "run")
result = {"kills": 0, "resumed": 0, "restarted": 0, "temporary files": 0, "different": []}
end = time.monotonic() + 120
while time.monotonic() < end:
    number = result["kills"] + 1
    shutil.rmtree(run, ignore_errors=True)
    if train(*SETTINGS, "--out", str(run), kill_at=number) != -signal.SIGKILL:
        break  # it has fewer calls
    result["kills"] = number
    result["temporary files"] += bool(list(run.rglob("*.part")))
    resumed = (run / "config.json").exists()
    result["resumed" if resumed else "restarted"] += 1
    status = train("--resume", str(run), "--quiet") if resumed else train(*SETTINGS, "--out", str(run))
    if status != 0 or contents(run) != wanted:
        result["different"].append((number, status, sorted(set(contents(run).items()) ^ set(wanted.items()))))
print(json.dumps(result))
