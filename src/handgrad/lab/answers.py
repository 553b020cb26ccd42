"""What the server answers: questions about experiments, commands, drawings, as JSON or as raw numbers."""

from __future__ import annotations

import base64
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from ..errors import HandgradError
from ..io.atomic import encode_json
from ..io.models import save
from . import measure
from .code import script
from .experiments import Lab
from .presets import presets
from .run import Run, Snapshot
from .security import MAX_BODY
from .settings import (
    LIMITS,
    MAX_LAYERS,
    MAX_UNITS,
    NAMES,
    RECIPE_TITLES,
    Settings,
    default_initializer,
    recipe_settings,
)

MAX_IMAGES = 200


# ---- Requests --------------------------------------------------------------------------------------------------------


class Query:
    """The parameters of a request, checked."""

    def __init__(self, request: Request) -> None:
        self.path, self.parameters = request.path_params, request.query_params

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int | None:
        """Return an integer, or the default if it is not given. Raises HandgradError."""
        text = self.parameters.get(name)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 9 or not low <= int(text) <= high:
            raise HandgradError(f"{name} must be an integer from {low} to {high}")
        return int(text)

    def required(self, name: str, low: int, high: int) -> int:
        """Return an integer that must be given. Raises HandgradError."""
        value = self.integer(name, low, high)
        if value is None:
            raise HandgradError(f"{name} is missing: expected an integer from {low} to {high}")
        return value


def parse_json(body: bytes) -> dict[str, Any]:
    """Parse a JSON object. Raises HandgradError, also for NaN, which is not JSON, and for deep nesting."""

    def refuse(name: str) -> float:
        raise HandgradError(f"the request has the number {name}: expected finite numbers")

    try:
        value = json.loads(body, parse_constant=refuse)
    except HandgradError:
        raise
    except (ValueError, RecursionError):
        raise HandgradError("the request is not JSON") from None
    if not isinstance(value, dict):
        raise HandgradError("the request must be a JSON object")
    return value


def answer(value: Any, status: int = 200) -> Response:
    """Return a JSON answer, with null for NaN and infinity, and arrays of bytes in base64."""
    return Response(encode_json(_plain(value)), status, media_type="application/json")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return base64.b64encode(np.ascontiguousarray(value, np.uint8).tobytes()).decode()
    return value


def binary(array: NDArray[Any], **headers: str) -> Response:
    """Return an array as raw float32, with its shape in a header."""
    shape = ",".join(map(str, array.shape))
    content = np.ascontiguousarray(array, "<f4").tobytes()
    return Response(content, media_type="application/octet-stream", headers={"x-shape": shape, **headers})


# ---- Answers ---------------------------------------------------------------------------------------------------------


class Answers:
    """What the server answers. Each method gets the query and the body of a request, in a thread."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def options(self, query: Query, body: bytes) -> Response:
        """Everything that the page offers to choose from."""
        datasets = self.lab.library.describe()
        digits = next(row["name"] for row in datasets if row["available"])
        return answer(
            {
                "datasets": datasets,
                "recipes": [
                    {"name": name, "title": title, "settings": recipe_settings(name).to_json() | {"data": digits}}
                    for name, title in RECIPE_TITLES.items()
                ],
                "activations": NAMES["activation"],
                "losses": NAMES["loss"],
                "initializers": NAMES["initializer"],
                "default_initializers": {name: default_initializer(name) for name in NAMES["activation"]},
                "optimizers": NAMES["optimizer"],
                "limits": {
                    **{name: list(limits) for name, limits in LIMITS.items()},
                    "layers": [0, MAX_LAYERS],
                    "units": [1, MAX_UNITS],
                    "body": MAX_BODY,
                },
                "defaults": _defaults(datasets, digits).to_json(),
                "presets": presets(digits),
            }
        )

    def create(self, query: Query, body: bytes) -> Response:
        """Create an experiment."""
        value = parse_json(body)
        runs, replaces = value.get("runs"), value.get("replaces")
        if not isinstance(runs, list) or not 1 <= len(runs) <= 2:
            raise HandgradError("runs must be a list of one or two settings")
        if replaces is not None and not isinstance(replaces, str):
            raise HandgradError("replaces must be the id of an experiment")
        return answer(self.lab.create([Settings.from_json(run) for run in runs], replaces).describe())

    def experiment(self, query: Query, body: bytes) -> Response:
        """The settings and the status of an experiment."""
        return answer(self.lab.experiment(query.path["id"]).describe())

    def command(self, query: Query, body: bytes) -> Response:
        """Carry out a command."""
        value = parse_json(body)
        action, run = value.get("action"), value.get("run")
        if action == "leave":
            return answer({"status": self.lab.leave(query.path["id"]).status})
        experiment = self.lab.experiment(query.path["id"])
        if not isinstance(action, str) or not isinstance(run, str | None):
            raise HandgradError("the action, and the run if it is given, must be text")
        status = experiment.command(action, value.get("value"), run)
        if action == "close":
            self.lab.remove(experiment.id)
            status = "closed"
        return answer({"status": status})

    def weights(self, query: Query, body: bytes) -> Response:
        """The weight matrix of a layer with parameters, counted from 0."""
        _, snapshot = self._snapshot(query)
        layers = [layer for layer in snapshot.network.layers if layer.parameter_shapes]
        layer = layers[query.required("layer", 0, len(layers) - 1)]
        symbol = next(iter(layer.parameter_shapes))
        return binary(getattr(layer, symbol), **{"x-version": str(snapshot.step)})

    def epochs(self, query: Query, body: bytes) -> Response:
        """The epochs whose weights are kept."""
        return answer(self.lab.run(query.path["run"]).epochs())

    def confusion(self, query: Query, body: bytes) -> Response:
        """The confusion matrix of the validation examples. Its step names the weights for later requests."""
        run, snapshot = self._snapshot(query)
        run.pin(snapshot)
        begin = time.thread_time()
        table = measure.confusion(snapshot.predictions, run.y_validation, run.examples.classes)
        return answer({**table, "step": snapshot.step, "seconds": time.thread_time() - begin})

    def images(self, query: Query, body: bytes) -> Response:
        """The images of a cell of the confusion matrix."""
        run, snapshot = self._snapshot(query)
        _require_images(run)
        last = len(run.examples.classes) - 1
        true, predicted = query.integer("true", 0, last), query.integer("predicted", 0, last)
        limit = query.integer("limit", 1, MAX_IMAGES, 50)
        found = measure.cell(snapshot.predictions, run.y_validation, true, predicted)
        confidence = snapshot.predictions.confidence
        images = [
            {
                "index": int(i),
                "pixels": run.examples.x_validation[i],
                "probability": float(confidence[i]),
                "label": int(run.y_validation[i]),
                "predicted": int(snapshot.predictions.labels[i]),
            }
            for i in found[:limit]
        ]
        return answer({"total": len(found), "images": images, "step": snapshot.step})

    def activations(self, query: Query, body: bytes) -> Response:
        """The outputs of all layers for a validation example."""
        run, snapshot = self._snapshot(query)
        i = query.required("index", 0, len(run.x_validation) - 1)
        values = measure.activations(snapshot.network, run.x_validation[i : i + 1])
        example = run.examples.x_validation[i]
        shown = {"pixels": example} if run.examples.is_images else {"point": example.tolist()}
        return answer({**shown, "label": int(run.y_validation[i]), **values, "step": snapshot.step})

    def predict(self, query: Query, body: bytes) -> Response:
        """The answer for a drawing, by the code of `handgrad predict`."""
        run, snapshot = self._snapshot(query)
        _require_images(run)
        readings = _read(snapshot, _image(query, body))
        found = [
            {
                "box": reading.box,
                "answer": reading.label,
                "confidence": reading.confidence,
                "reason": reading.reason or None,
                "seen": reading.digit,
                "probabilities": list(reading.probabilities.values()),
            }
            for reading in readings
        ]
        single = found[0]
        if len(found) > 1:
            single = max(found, key=lambda one: _area(one["box"]))
            single = {**single, "reason": f"{len(found)} digits were found: {_listed(found)}"}
        seen = measure.core(snapshot.model).check_inputs(_prepared(run, single["seen"]))
        layers = measure.activations(snapshot.network, seen)["layers"] if single["box"] is not None else []
        return answer({**single, "layers": layers, "readings": found, "step": snapshot.step})

    def flip(self, query: Query, body: bytes) -> Response:
        """The smallest change of a drawing that changes the answer."""
        run, snapshot = self._snapshot(query)
        _require_images(run)
        reading = max(_read(snapshot, _image(query, body)), key=lambda one: _area(one.box))
        if reading.box is None:
            raise HandgradError("there is nothing to change: draw a digit")
        return answer(measure.flip(snapshot.model, reading.digit))

    def boundary(self, query: Query, body: bytes) -> Response:
        """The probability of class 1 on a grid of points."""
        run, snapshot = self._snapshot(query)
        _require_points(run)
        grid, (low, high) = measure.boundary(snapshot.network, run.x_train)
        return binary(grid, **{"x-range": f"{low},{high}", "x-version": str(snapshot.step)})

    def points(self, query: Query, body: bytes) -> Response:
        """The points of a data set in the plane."""
        run = self.lab.run(query.path["run"])
        _require_points(run)
        parts = {"train": (run.x_train, run.y_train), "validation": (run.x_validation, run.y_validation)}
        return answer({name: np.column_stack([x, y]).tolist() for name, (x, y) in parts.items()})

    def code(self, query: Query, body: bytes) -> Response:
        """The program that repeats the run."""
        run = self.lab.run(query.path["run"])
        return Response(script(run, run.current()), media_type="text/plain")

    def model(self, query: Query, body: bytes) -> Response:
        """The model as a file."""
        run = self.lab.run(query.path["run"])
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "model.safetensors")
            save(run.current().model, path)
            content = path.read_bytes()
        disposition = {"content-disposition": 'attachment; filename="handgrad-lab.safetensors"'}
        return Response(content, media_type="application/octet-stream", headers=disposition)

    def check(self, query: Query, body: bytes) -> Response:
        """The gradient check of the network with its current weights."""
        run = self.lab.run(query.path["run"])
        return answer(measure.check(run.current().network, run.x_train, run.y_train))

    def walkthrough(self, query: Query, body: bytes) -> Response:
        """One forward and backward pass with its numbers."""
        name, example = query.parameters.get("run"), query.parameters.get("example")
        if name is not None:
            run, index = self.lab.run(name), query.integer("index", 0, 999_999, 0)
            if index is None or index >= len(run.x_train):
                raise HandgradError(f"index must be an integer from 0 to {len(run.x_train) - 1}")
            network, rows = run.current().network, slice(index, index + 1)
            x, y, lr = measure.floats(network, run.x_train[rows]), run.y_train[rows], run.lr
            shown: dict[str, Any] = {"pixels": run.examples.x_train[index]} if run.examples.is_images else {}
            shown |= {"label": int(run.y_train[index])}
        elif example == measure.SMALL_EXAMPLE:
            network, x, y, lr = measure.small_network()
            shown = {}
        else:
            raise HandgradError(f"expected a run, or example={measure.SMALL_EXAMPLE}")
        return answer({**measure.walkthrough(network, x, y, lr), **shown})

    def _snapshot(self, query: Query) -> tuple[Run, Snapshot]:
        """The run of a request, and its weights: of a confusion matrix, after an epoch, or the current ones."""
        run = self.lab.run(query.path["run"])
        step = query.integer("step", 0, 999_999_999)
        if step is not None:
            return run, run.pinned(step)
        return run, run.snapshot(query.integer("epoch", 0, 1_000_000))


def _defaults(datasets: list[dict[str, Any]], digits: str) -> Settings:
    """The first settings of the page: those of the user's images if there are any."""
    own = next((row for row in datasets if row["name"] == "own" and row["n_train"] >= Settings.batch_size), None)
    if own is None:
        return Settings(data=digits)
    return Settings(data="own", n_train=min(Settings.n_train, own["n_train"]))


def _require_images(run: Run) -> None:
    if not run.examples.is_images:
        raise HandgradError("this run has no images")


def _require_points(run: Run) -> None:
    if run.examples.is_images:
        raise HandgradError("this run has images: expected a data set of points")


def _image(query: Query, body: bytes) -> NDArray[np.uint8]:
    """The drawing of a request: rows of pixels with 1, 3 or 4 channels."""
    width, height = query.required("width", 1, 4096), query.required("height", 1, 4096)
    channels = query.required("channels", 1, 4)
    if len(body) != width * height * channels:
        raise HandgradError(f"the image has {len(body):,} bytes: expected {width} x {height} x {channels}")
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.frombuffer(body, np.uint8).reshape(shape)


def _read(snapshot: Snapshot, image: NDArray[np.uint8]) -> list[Any]:
    from ..images import predict_image

    with np.errstate(all="ignore"):
        return list(predict_image(snapshot.model, image))


def _prepared(run: Run, digit: NDArray[np.uint8]) -> NDArray[Any]:
    """The digit as the network of the run sees it."""
    preprocessing = run.settings.preprocessing(run.examples)
    return digit[None] if preprocessing is None else np.asarray(preprocessing(digit[None]))


def _area(box: tuple[int, int, int, int] | None) -> int:
    return 0 if box is None else (box[2] - box[0]) * (box[3] - box[1])


def _listed(found: list[dict[str, Any]]) -> str:
    return " ".join(str(one["answer"] or "?") for one in found)
