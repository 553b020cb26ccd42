"""Protection of a server on this machine against other web pages, and against too many and too large requests.

Any page in the browser can send requests to 127.0.0.1. A request is rejected unless its Host is this machine (against
DNS rebinding), its Origin is the server itself, and the browser says that it is not from another site.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ..io.atomic import encode_json

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HOSTS = ("127.0.0.1", "localhost")
MAX_BODY = 64 * 1024  # bytes
RATE, BURST = 40.0, 150.0  # requests per second, and at once; a page that draws and trains sends about 20 a second
MAX_DELAY = 0.4  # seconds that a request waits; 16 requests at most wait at the same time
REFUSAL = 1.0  # seconds before a request is rejected, which slows down a client that waits for its answers
WORK_SHARE, WORK_BURST = 0.04, 1.0  # processor time of answers: share while a run is trained, and seconds at once
WORK_DELAY = 1.5  # seconds that an answer waits for processor time
SAFE_METHODS = ("GET", "HEAD")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class Guard:
    """The outermost application: it refuses requests, limits their rate and size, and adds headers to every answer.

    Parameters
    ----------
    app : ASGI application
        It gets the requests that are allowed, with a complete body.
    """

    def __init__(self, app: Application) -> None:
        self.app = app
        self._next = 0.0  # when the next request may be answered, BURST requests later

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in _HEADERS}
                message["headers"] = [h for h in message.get("headers", ()) if h[0].lower() not in names] + _HEADERS
            await send(message)

        headers: dict[bytes, bytes] = dict(scope["headers"])
        rejected = self._rejected(scope, headers)
        if rejected is None:
            delay = self._delay()
            if delay is None:
                await asyncio.sleep(REFUSAL)
                rejected = 429, "too many requests"
            elif delay > 0:
                await asyncio.sleep(delay)
        body = b""
        if rejected is None and scope["method"] not in SAFE_METHODS:
            body, rejected = await _read(headers, receive)
        if rejected is not None:
            await _answer(send_with_headers, *rejected)
            return
        await self.app(scope, _replay(body, receive), send_with_headers)

    def _rejected(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """The status and the reason if the request is not from the page of this server."""
        host = headers.get(b"host", b"").decode("latin-1")
        if _hostname(host) not in HOSTS:
            return 400, "the host must be 127.0.0.1 or localhost"
        if scope["path"].startswith("/api") and headers.get(b"sec-fetch-site", b"none") not in (
            b"same-origin",
            b"none",
        ):
            return 403, "requests from other sites are rejected"
        origin = headers.get(b"origin")
        if scope["method"] not in SAFE_METHODS and origin not in (None, f"http://{host}".encode("latin-1")):
            return 403, "requests from other origins are rejected"
        return None

    def _delay(self) -> float | None:
        """Seconds that the next request has to wait; None if it is one too many."""
        now = time.monotonic()
        earliest = max(self._next, now) + 1 / RATE
        delay = earliest - now - BURST / RATE
        if delay > MAX_DELAY:
            return None
        self._next = earliest
        return delay


class Budget:
    """The processor time that answers may take while a run is trained: some at once, then a small share of the time."""

    def __init__(self) -> None:
        self._left, self._time = WORK_BURST, time.monotonic()
        self._lock = threading.Lock()

    def delay(self) -> float:
        """Return the seconds until there is time for the next answer."""
        with self._lock:
            now = time.monotonic()
            self._left = min(WORK_BURST, self._left + WORK_SHARE * (now - self._time))
            self._time = now
            return max(0.0, -self._left / WORK_SHARE)

    def spend(self, seconds: float) -> None:
        """Note the processor time of an answer."""
        with self._lock:
            self._left -= seconds


def _hostname(host: str) -> str:
    """The name in a Host header, without a port; empty if the port is not a number."""
    name, separator, port = host.partition(":")
    return name.lower() if not separator or port.isdigit() else ""


async def _read(headers: dict[bytes, bytes], receive: Receive) -> tuple[bytes, tuple[int, str] | None]:
    """The body of a request, or why it is rejected."""
    too_large = 413, f"the request has more than {MAX_BODY // 1024} kB"
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 12 or int(length) > MAX_BODY:
        return b"", too_large
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"", (400, "the request is not complete")
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return b"", too_large
        if not message.get("more_body", False):
            return body, None


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body, and then what comes after it: the end of the connection."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _answer(send: Send, status: int, reason: str) -> None:
    body = encode_json({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 413:
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
