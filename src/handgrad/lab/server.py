"""The server of the lab: routes, the stream of events, start and end.

It listens on 127.0.0.1 only. Every request passes `handgrad.lab.security.Guard` first.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import mimetypes
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import uvicorn
from anyio import to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ..blas import one_blas_thread
from ..errors import HandgradError
from ..io.atomic import encode_json
from . import security
from .answers import Answers, Query, answer
from .experiments import MAX_STREAMS, BusyError, Lab
from .run import NotFoundError
from .security import Guard
from .session import Experiment

HOST = "127.0.0.1"
STATIC = Path(__file__).parent / "static"
NOT_BUILT = "The page of the lab is not built. In a checkout, run: make lab"
THREADS = 6  # that compute answers; each keeps some megabytes
# Seconds after which an answer lets the training go on. While a drawing was read five times a second on a busy machine,
# a run had 0.99 of its speed, and 0.29 with Python's own 5 ms (medians of six rounds).
SWITCH_INTERVAL = 1e-4
WATCH = 1.0  # seconds between two looks for runs of closed pages
POLL = 0.05  # seconds between two looks at the history
HEARTBEAT = 15.0  # seconds between two comments of a stream, by which a closed connection is noticed


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
        watch = asyncio.create_task(_watch(lab))
        yield
        watch.cancel()
        await run_in_threadpool(lab.close)

    handlers = {HandgradError: _refuse, HTTPException: _refuse, Exception: _fail}
    return Guard(Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers))


async def _watch(lab: Lab) -> None:
    """Pause the runs of closed pages, until the server ends."""
    while True:
        await asyncio.sleep(WATCH)
        await run_in_threadpool(lab.pause_unwatched)


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
    with contextlib.suppress(BusyError), lab.streaming(experiment):  # busy: others connected in the same moment
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


class Server(uvicorn.Server):
    """The server of a lab, which leaves no connection open when it ends.

    uvicorn alone closes neither a connection that is accepted while the shutdown begins nor one whose client does not
    read its answer: it waits for them until the timeout, and leaves their sockets to the garbage collector.
    """

    def __init__(self, lab: Lab) -> None:
        config = uvicorn.Config(
            make_app(lab, lambda: self.should_exit),
            log_level="error",  # it warns of each rejected connection
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="on",
            limit_concurrency=256,
            timeout_graceful_shutdown=2,
        )
        super().__init__(config)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, let open answers end until the timeout, and close all connections."""
        with contextlib.suppress(NotImplementedError):  # on Windows, where asyncio accepts in one turn
            for listener in sockets or []:
                asyncio.get_running_loop().remove_reader(listener)
        for _ in range(2):  # turns of the event loop, after which uvicorn knows each connection that was accepted
            await asyncio.sleep(0)
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # asyncio closes their sockets in the next turn


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
    elif own != "synthetic":
        try:
            lab.library.dataset("mnist")
        except HandgradError as error:
            show(f"{error}; until then, the lab uses synthetic digits")
    listener, moved = bind(port)
    address = f"http://{HOST}:{listener.getsockname()[1]}/"
    if moved:
        show(f"port {port} is in use: taking another one")
    if not (STATIC / "index.html").exists():
        show(NOT_BUILT)
    show(f"handgrad lab: {address} (Ctrl-C ends it)")
    server = Server(lab)
    if browser:
        threading.Thread(target=functools.partial(webbrowser.open, address), daemon=True).start()
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        with one_blas_thread(), contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    finally:
        lab.close()
        listener.close()
