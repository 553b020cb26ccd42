"""The server of the lab: the page, questions and commands as JSON, and the events of an experiment as a stream.

It listens on 127.0.0.1 only. Every request passes `handgrad.lab.security.Guard` first.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import mimetypes
import socket
import tempfile
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from anyio import to_thread
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ..blas import one_blas_thread
from ..errors import HandgradError
from ..io.atomic import encode_json
from ..io.models import save
from . import measure, security
from .code import script
from .examples import Library
from .presets import presets
from .security import MAX_BODY, Guard
from .session import Experiment, NotFoundError, Run, Snapshot
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
from .walkthrough import SMALL_EXAMPLE, small_network

HOST = "127.0.0.1"
STATIC = Path(__file__).parent / "static"
NOT_BUILT = "The page of the lab is not built. In a checkout, run: make lab"
MAX_EXPERIMENTS, MAX_STREAMS = 2, 8
ABANDONED = 15.0  # seconds without a request or a stream after which an experiment makes room for a new one
THREADS = 6  # that compute answers; each keeps some megabytes
POLL = 0.05  # seconds between two looks at the history
HEARTBEAT = 15.0  # seconds between two comments of a stream, by which a closed connection is noticed
MAX_IMAGES = 200


class BusyError(HandgradError):
    """There are too many experiments or streams."""


class Lab:
    """The experiments of a server.

    Parameters
    ----------
    own : str, optional
        Name or path of the user's data set.
    """

    def __init__(self, own: str | None = None) -> None:
        self.library = Library(own)
        self.streams = 0
        self._lock = threading.Lock()
        self._experiments: dict[str, Experiment] = {}
        self._seen: dict[str, float] = {}
        self._streams: dict[str, int] = {}
        self._creating = threading.Lock()  # one at a time, because the number is limited

    def create(self, settings: list[Settings], replaces: str | None = None) -> Experiment:
        """Create an experiment. Raises BusyError if there are too many already."""
        with self._creating:
            if replaces is not None:
                self.remove(replaces)
            if len(self._experiments) >= MAX_EXPERIMENTS:
                self._remove_abandoned()
            experiment = Experiment(settings, self.library)
            with self._lock:
                self._experiments[experiment.id] = experiment
                self._seen[experiment.id], self._streams[experiment.id] = time.monotonic(), 0
            return experiment

    def _remove_abandoned(self) -> None:
        with self._lock:
            idle = [name for name, streams in self._streams.items() if not streams]
            oldest = min(idle, key=lambda name: self._seen[name], default=None)
            if oldest is None or time.monotonic() - self._seen[oldest] < ABANDONED:
                raise BusyError(f"{MAX_EXPERIMENTS} experiments are open in other tabs: close one of them")
        self.remove(oldest)

    def remove(self, name: str) -> None:
        """End an experiment, if there is one of this name."""
        with self._lock:
            experiment = self._experiments.pop(name, None)
            self._seen.pop(name, None)
            self._streams.pop(name, None)
        if experiment is not None:
            experiment.close()

    def experiment(self, name: str) -> Experiment:
        """Return an experiment. Raises NotFoundError."""
        with self._lock:
            if name not in self._experiments:
                raise NotFoundError("there is no such experiment: it was closed, or the server was restarted")
            self._seen[name] = time.monotonic()
            return self._experiments[name]

    def run(self, name: str) -> Run:
        """Return a run. Raises NotFoundError."""
        for run in self.experiment(name.rpartition("-")[0]).runs:
            if run.id == name:
                return run
        raise NotFoundError("there is no such run")

    def experiments(self) -> list[Experiment]:
        """Return all experiments."""
        with self._lock:
            return list(self._experiments.values())

    def has(self, experiment: Experiment) -> bool:
        """Whether an experiment is still open."""
        return self._experiments.get(experiment.id) is experiment

    @contextlib.contextmanager
    def streaming(self, experiment: Experiment) -> Any:
        """Count an open stream. Raises BusyError if there are too many."""
        with self._lock:
            if self.streams >= MAX_STREAMS:
                raise BusyError(f"{MAX_STREAMS} streams are open: close a tab")
            self.streams += 1
            self._streams[experiment.id] = self._streams.get(experiment.id, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self.streams -= 1
                if experiment.id in self._streams:
                    self._streams[experiment.id] -= 1
                    self._seen[experiment.id] = time.monotonic()

    def close(self) -> None:
        """End all experiments."""
        for name in list(self._experiments):
            self.remove(name)


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
        experiment = self.lab.experiment(query.path["id"])
        action, run = value.get("action"), value.get("run")
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
        """The confusion matrix of the validation examples."""
        run, snapshot = self._snapshot(query)
        table = measure.confusion(snapshot.predictions, run.y_validation, run.examples.classes)
        return answer({**table, "step": snapshot.step})

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
        run = self.lab.run(query.path["run"])
        _require_images(run)
        snapshot = run.current()
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
        run = self.lab.run(query.path["run"])
        _require_images(run)
        snapshot = run.current()
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
        elif example == SMALL_EXAMPLE:
            network, x, y, lr = small_network()
            shown = {}
        else:
            raise HandgradError(f"expected a run, or example={SMALL_EXAMPLE}")
        return answer({**measure.walkthrough(network, x, y, lr), **shown})

    def _snapshot(self, query: Query) -> tuple[Run, Snapshot]:
        """The run of a request, and its weights after the epoch of the request."""
        run = self.lab.run(query.path["run"])
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


# ---- The application -------------------------------------------------------------------------------------------------


def make_app(lab: Lab, stopping: Callable[[], bool] = lambda: False) -> Guard:
    """Create the application.

    Parameters
    ----------
    lab : Lab
        It is closed when the application shuts down.
    stopping : callable
        Whether the server is about to end: open streams end then.
    """
    answers, budget = Answers(lab), security.Budget()

    def training() -> bool:
        return any(experiment.status == "running" for experiment in lab.experiments())

    def endpoint(function: Callable[[Query, bytes], Response]) -> Callable[[Request], Any]:
        def work(query: Query, body: bytes) -> Response:
            begin = time.thread_time()
            try:
                return function(query, body)
            finally:
                if training():
                    budget.spend(time.thread_time() - begin)

        async def respond(request: Request) -> Response:
            if training() and function != answers.command:
                delay = budget.delay()
                if delay > security.WORK_DELAY:
                    await asyncio.sleep(security.REFUSAL)
                    raise HTTPException(429, "too many requests while a run is trained")
                await asyncio.sleep(delay)
            return await run_in_threadpool(work, Query(request), await request.body())

        return respond

    async def events(request: Request) -> Response:
        experiment = await run_in_threadpool(lab.experiment, request.path_params["id"])
        position = _position(request, experiment)
        if lab.streams >= MAX_STREAMS:
            raise BusyError(f"{MAX_STREAMS} streams are open: close a tab")
        return StreamingResponse(_stream(lab, experiment, position, stopping), media_type="text/event-stream")

    get, post = ["GET"], ["POST"]
    experiment, run = "/api/experiments/{id}", "/api/runs/{run}"
    table: list[tuple[str, Callable[[Query, bytes], Response], list[str]]] = [
        ("/api/options", answers.options, get),
        ("/api/experiments", answers.create, post),
        (experiment, answers.experiment, get),
        (f"{experiment}/command", answers.command, post),
        (f"{run}/weights", answers.weights, get),
        (f"{run}/epochs", answers.epochs, get),
        (f"{run}/confusion", answers.confusion, get),
        (f"{run}/images", answers.images, get),
        (f"{run}/activations", answers.activations, get),
        (f"{run}/predict", answers.predict, post),
        (f"{run}/flip", answers.flip, post),
        (f"{run}/boundary", answers.boundary, get),
        (f"{run}/points", answers.points, get),
        (f"{run}/code", answers.code, get),
        (f"{run}/model", answers.model, get),
        (f"{run}/check", answers.check, post),
        ("/api/walkthrough", answers.walkthrough, get),
    ]
    routes = [Route(path, endpoint(function), methods=methods) for path, function, methods in table]
    routes.append(Route(f"{experiment}/events", events, methods=get))
    routes.append(Route("/", endpoint(lambda query, body: _page("index.html")), methods=get))
    routes.append(Route("/static/{name}", endpoint(lambda query, body: _page(query.path["name"])), methods=get))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield
        await run_in_threadpool(lab.close)

    handlers = {HandgradError: _refuse, HTTPException: _refuse, Exception: _fail}
    return Guard(Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers))


async def _refuse(request: Request, error: Exception) -> Response:
    """The answer to a request with an error: one sentence."""
    if isinstance(error, HTTPException):
        return answer({"error": error.detail}, error.status_code)
    status = 404 if isinstance(error, NotFoundError) else 409 if isinstance(error, BusyError) else 400
    return answer({"error": str(error)}, status)


async def _fail(request: Request, error: Exception) -> Response:
    """The answer after an error of the server, whose traceback is in the terminal."""
    return answer({"error": "the server failed: the terminal shows the reason"}, 500)


def _page(name: str) -> Response:
    """A file of the built page."""
    names = {path.name for path in STATIC.iterdir()} if STATIC.is_dir() else set()
    if name == "index.html" and name not in names:
        return Response(NOT_BUILT + "\n", 503, media_type="text/plain")
    if name not in names:
        raise HTTPException(404, "there is no such file")
    kind = "text/javascript" if name.endswith(".js") else mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response((STATIC / name).read_bytes(), media_type=kind)


def _position(request: Request, experiment: Experiment) -> int:
    """The first event of a stream: after the last one that the page has, or from the beginning."""
    name, _, last = request.headers.get("last-event-id", "").rpartition(":")
    if name == experiment.id and last.isascii() and last.isdigit() and len(last) < 16:
        return int(last) + 1
    return Query(request).integer("since", 0, 999_999_999, 0) or 0


async def _stream(lab: Lab, experiment: Experiment, position: int, stopping: Callable[[], bool]) -> AsyncIterator[str]:
    """The events of an experiment, until it is closed or the server ends."""
    with lab.streaming(experiment):
        yield "retry: 1000\n\n"
        sent = time.monotonic()
        while not stopping():
            entries = experiment.history.since(position)
            if entries:
                position, sent = entries[-1].position + 1, time.monotonic()
                yield "".join(f"id: {experiment.id}:{one.position}\ndata: {one.text}\n\n" for one in entries)
            elif time.monotonic() - sent > HEARTBEAT:
                sent = time.monotonic()
                yield ": still here\n\n"
            if not lab.has(experiment):
                yield f"data: {encode_json({'type': 'status', 'status': 'closed', 'message': ''})}\n\n"
                return
            await asyncio.sleep(POLL)


# ---- The server ------------------------------------------------------------------------------------------------------


def bind(port: int) -> tuple[socket.socket, bool]:
    """Return a listening socket on 127.0.0.1, and whether it has another port because this one is in use.

    Raises HandgradError if no port is free.
    """
    for number in (port, *range(port + 1, min(port + 50, 65536)), 0):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if hasattr(socket, "SO_REUSEPORT"):  # on Windows, SO_REUSEADDR would share the port with another program
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, number))
            listener.listen(128)
        except OSError:
            listener.close()
            continue
        return listener, number != port
    raise HandgradError("no port of 127.0.0.1 is free")


def serve(port: int, *, own: str | None = None, browser: bool = True, show: Callable[[str], None] = print) -> None:
    """Serve the lab until Ctrl-C.

    Parameters
    ----------
    port : int
        Port of 127.0.0.1; the next free one is taken if it is in use. 0: any free port.
    own : str, optional
        Name or path of the user's data set.
    browser : bool
        Open the page in the browser.
    show : callable
        Prints a line.
    """
    lab = Lab(own)
    if lab.library.own is not None:
        lab.library.dataset("own")  # raises an error of the data set now
    listener, moved = bind(port)
    address = f"http://{HOST}:{listener.getsockname()[1]}/"
    if moved:
        show(f"port {port} is in use: taking another one")
    if not (STATIC / "index.html").exists():
        show(NOT_BUILT)
    show(f"handgrad lab: {address} (Ctrl-C ends it)")
    config = uvicorn.Config(
        make_app(lab, lambda: server.should_exit),
        log_level="error",  # it warns of each refused connection
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        limit_concurrency=256,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    if browser:
        threading.Thread(target=functools.partial(webbrowser.open, address), daemon=True).start()
    try:
        with one_blas_thread(), contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    finally:
        lab.close()
        listener.close()
