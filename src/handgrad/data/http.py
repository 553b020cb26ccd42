"""HTTP with a deadline: requests of urllib whose server cannot delay them without end.

The timeout of a socket applies to each read, and a server that sends one byte at a time never exceeds it. Here, every
read asks for the time that remains. The body of a redirect, which urllib reads and discards, is limited as well.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import urllib.request
from collections.abc import Callable
from typing import Any

MAX_DISCARDED = 1 << 16  # bytes of a body that is not used

Remaining = Callable[[], float]  # seconds, > 0; raises TimeoutError at the deadline


def opener(remaining: Remaining) -> urllib.request.OpenerDirector:
    """Return an opener as that of urllib.request.urlopen, with a deadline.

    Parameters
    ----------
    remaining : callable
        Returns the remaining seconds. Raises TimeoutError if there are none.
    """
    return urllib.request.build_opener(_HTTPHandler(remaining), _HTTPSHandler(remaining))


class _Reader(io.RawIOBase):
    """The bytes that a socket receives until the deadline."""

    def __init__(self, sock: socket.socket, remaining: Remaining) -> None:
        self._socket, self._remaining = sock, remaining
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(self._remaining())
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response that is read until the deadline."""

    def __init__(self, sock: socket.socket, *arguments: Any, remaining: Remaining, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_Reader(sock, remaining))

    def read(self, amt: int | None = None) -> bytes:
        """Read at most MAX_DISCARDED bytes by default. urllib reads the body of a redirect without a limit."""
        return super().read(MAX_DISCARDED if amt is None else amt)


class _Timed:
    """A connection that is made until the deadline."""

    _remaining: Remaining
    timeout: Any

    def connect(self) -> None:
        self.timeout = self._remaining()
        super().connect()  # type: ignore[misc]


class _HTTPConnection(_Timed, http.client.HTTPConnection):
    pass


class _HTTPSConnection(_Timed, http.client.HTTPSConnection):
    pass


def _connect(kind: Any, remaining: Remaining, *arguments: Any, **options: Any) -> Any:
    connection = kind(*arguments, **options)
    connection._remaining = remaining
    connection.response_class = functools.partial(_Response, remaining=remaining)
    return connection


class _HTTPHandler(urllib.request.HTTPHandler):
    def __init__(self, remaining: Remaining) -> None:
        super().__init__()
        self._remaining = remaining

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(functools.partial(_connect, _HTTPConnection, self._remaining), req)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def __init__(self, remaining: Remaining) -> None:
        super().__init__()
        self._remaining = remaining

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(functools.partial(_connect, _HTTPSConnection, self._remaining), req)
