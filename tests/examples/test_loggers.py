"""The example loggers write to a local directory: with a stand-in of their library, and with the library if installed.

A stand-in has the functions of the library that the example calls, and writes each call as a line of JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
RECORD = """
import json

def record(name, *arguments):
    with open("calls.jsonl", "a") as file:
        file.write(json.dumps([name, *arguments], default=lambda array: list(array.shape)) + "\\n")
"""
STAND_INS = {
    "tensorboardX": """
class SummaryWriter:
    def __init__(self, directory): record("open", directory)
    def add_text(self, tag, text, step): record("text", tag, text, step)
    def add_scalar(self, tag, value, step): record("metric", tag, value, step)
    def add_histogram(self, tag, values, step): record("histogram", tag, values, step)
    def flush(self): pass
    def close(self): record("end")
""",
    "mlflow": """
import os

def set_tracking_uri(uri): record("uri", uri)
def set_experiment(name): record("open", name)
def start_run(): pass
def log_params(params): record("settings", params)
def log_artifacts(directory): record("files", sorted(os.listdir(directory)))
def end_run(): record("end")

def log_metrics(metrics, step):
    for name, value in metrics.items():
        record("metric", name, value, step)
""",
    "wandb": """
class Run:
    def finish(self): record("end")

    def log(self, metrics, step):
        for name, value in metrics.items():
            record("metric", name, value, step)

def init(project, config, mode):
    record("open", project, mode)
    record("settings", config)
    return Run()
""",
}
SCRIPTS = {"tensorboardX": "tensorboard_logger.py", "mlflow": "mlflow_logger.py", "wandb": "wandb_logger.py"}


def run(script: str, directory: Path, *python: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *python, str(EXAMPLES / script)],
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def calls_with_stand_in(library: str, directory: Path) -> list[Any]:
    (directory / f"{library}.py").write_text(RECORD + STAND_INS[library])
    output = run(SCRIPTS[library], directory, "-W", "error", PYTHONPATH=str(directory))
    assert output.startswith("validation accuracy ")
    return [json.loads(line) for line in (directory / "calls.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("library", STAND_INS)
def test_a_logger_records_every_metric_of_every_epoch_and_closes_its_run(library: str, tmp_path: Path) -> None:
    calls = calls_with_stand_in(library, tmp_path)
    assert [call[0] for call in calls].count("open") == 1
    assert calls[-1] == ["end"]
    metrics = [call[1:] for call in calls if call[0] == "metric"]
    names = {"loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"}
    assert sorted((step, name) for name, _, step in metrics) == sorted((e, n) for e in range(1, 6) for n in names)
    losses = [value for name, value, _ in metrics if name == "loss"]
    assert losses == sorted(losses, reverse=True)


def test_the_tensorboard_logger_records_histograms_of_all_parameters(tmp_path: Path) -> None:
    calls = calls_with_stand_in("tensorboardX", tmp_path)
    shapes = {(tag, tuple(shape)) for kind, tag, shape, *_ in (c for c in calls if c[0] == "histogram")}
    assert shapes == {("0.W", (10, 2)), ("0.b", (10,)), ("2.W", (3, 10)), ("2.b", (3,))}


@pytest.mark.parametrize("library", ["mlflow", "wandb"])
def test_a_logger_records_the_settings(library: str, tmp_path: Path) -> None:
    calls = calls_with_stand_in(library, tmp_path)
    (settings,) = (call[1] for call in calls if call[0] == "settings")
    assert settings.pop("layers").startswith("[Dense(")
    assert settings == {"optimizer": "Momentum", "lr": 0.01, "momentum": 0.9, "batch_size": 20}


def test_the_mlflow_logger_records_the_model_and_its_card(tmp_path: Path) -> None:
    assert ["files", ["model.md", "model.safetensors"]] in calls_with_stand_in("mlflow", tmp_path)


@pytest.mark.parametrize(
    ("library", "files"),
    [("tensorboardX", "runs/tensorboard/events.*"), ("mlflow", "mlflow.db"), ("wandb", "wandb/offline-run-*/*.wandb")],
)
def test_a_logger_writes_files_with_its_library(library: str, files: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}")
    run(SCRIPTS[library], tmp_path, WANDB_SILENT="true", MLFLOW_DISABLE_TELEMETRY="true")
    (file,) = tmp_path.glob(files)
    assert file.stat().st_size > 500
