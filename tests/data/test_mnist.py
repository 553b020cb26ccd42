"""MNIST: search, download, verification and repair, with mirrors on localhost and a tiny data set."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from handgrad.data import mnist
from handgrad.data.dataset import FILES
from handgrad.data.idx import encode_idx, write_idx
from handgrad.data.mnist import Checksum, MnistNotFoundError, Source
from handgrad.errors import HandgradError, MissingExtraError

IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = FILES.values()
ORIGINALS = Path(os.environ.get("HANDGRAD_DATA", "no such directory"))  # optional: the original files of MNIST


# ---------------------------------------------------------------------------- a tiny data set, an empty home directory


def checksum(data: bytes) -> Checksum:
    return Checksum(len(data), hashlib.sha256(data).hexdigest())


RNG = np.random.default_rng(28)
ARRAYS = {
    "x_train": RNG.integers(0, 256, (40, 6, 5), np.uint8),
    "y_train": np.arange(40, dtype=np.uint8) % 10,
    "x_test": RNG.integers(0, 256, (10, 6, 5), np.uint8),
    "y_test": np.arange(10, dtype=np.uint8),
}
PAYLOADS = {FILES[field]: encode_idx(array) for field, array in ARRAYS.items()}


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


NPZ = npz(ARRAYS)


@pytest.fixture
def dead() -> str:
    """URL of a mirror that refuses connections."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}/"


@pytest.fixture
def source(dead) -> Source:
    """The tiny data set, without mirrors."""
    files = {name: checksum(payload) for name, payload in PAYLOADS.items()}
    return Source("TINY", files, mirrors=(), npz_url=f"{dead}mnist.npz", npz=checksum(NPZ))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """An empty home directory, no environment variables, and no network except localhost."""
    for name in ("HANDGRAD_DATA", "HANDGRAD_MNIST_MIRROR", "KERAS_HOME", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.chdir(work)
    resolve = socket.getaddrinfo

    def resolve_localhost(host, *arguments, **options):
        assert host == "127.0.0.1", f"a test connects to {host}"
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_localhost)
    return home


def put(path: Path, payloads: dict[str, bytes] = PAYLOADS) -> Path:
    """Write a copy of the data set: four files, or one .npz."""
    if path.suffix == ".npz":
        path.parent.mkdir(parents=True)
        path.write_bytes(NPZ)
        return path
    path.mkdir(parents=True, exist_ok=True)
    for name, payload in payloads.items():
        (path / name).write_bytes(payload)
    return path


def flipped(data: bytes, position: int = -1) -> bytes:
    damaged = bytearray(data)
    damaged[position] ^= 1
    return bytes(damaged)


def files_in(directory: Path) -> set[str]:
    return {path.name for path in directory.rglob("*") if path.is_file()}


def assert_complete(directory: Path) -> None:
    """The directory has torchvision's layout: the four files, uncompressed, and nothing else."""
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == PAYLOADS


def assert_is_tiny(dataset) -> None:
    for field, array in ARRAYS.items():
        np.testing.assert_array_equal(getattr(dataset, field), array, strict=True)


# ------------------------------------------------------------------------------------------------ mirrors on localhost

Answer = Callable[[BaseHTTPRequestHandler], None]


class Mirror(ThreadingHTTPServer):
    """A mirror with `answers` by file name; `requested` records the names of all requests."""

    daemon_threads = False  # server_close waits for the running answers

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, bytes | Answer] = {}
        self.requested: list[str] = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/mnist/"
        threading.Thread(target=self.serve_forever, args=(0.01,)).start()

    def handle_error(self, request, client_address) -> None:
        """Ignore clients that close the connection: several tests do so."""

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        assert self.path.startswith("/mnist/")
        name = self.path.removeprefix("/mnist/")
        self.server.requested.append(name)
        answer = self.server.answers.get(name)
        if answer is None:
            self.send_error(404)
        elif callable(answer):
            answer(self)
        else:
            begin(self, len(answer))
            self.wfile.write(answer)

    def log_message(self, *arguments) -> None:
        pass


def begin(handler: BaseHTTPRequestHandler, length: int | None) -> None:
    handler.send_response(200)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()


@pytest.fixture
def serve() -> Iterator[Callable[..., Mirror]]:
    """Start a mirror that serves `answer(name, payload)` for each file, as name + suffix."""
    mirrors: list[Mirror] = []

    def start(answer=lambda name, payload: gzip.compress(payload), suffix=".gz") -> Mirror:
        mirror = Mirror()
        mirrors.append(mirror)
        mirror.answers = {f"{name}{suffix}": answer(name, payload) for name, payload in PAYLOADS.items()}
        return mirror

    yield start
    for mirror in mirrors:
        mirror.close()


def served_by(source: Source, *mirrors: Mirror | str) -> Source:
    return dataclasses.replace(
        source, mirrors=tuple(mirror if isinstance(mirror, str) else mirror.url for mirror in mirrors)
    )


# ------------------------------------------------------------------------------------------------------------ download


@pytest.mark.parametrize(
    ("answer", "suffix"),
    [
        (lambda name, payload: gzip.compress(payload), ".gz"),
        (lambda name, payload: payload, ".gz"),  # decompressed by a proxy, still named .gz
        (lambda name, payload: payload, ""),  # handgrad's cache directory as a mirror
        (lambda name, payload: gzip.compress(payload, 1), ".gz"),  # different compressed bytes, same content
    ],
    ids=["gz", "plain named gz", "plain", "gz compressed again"],
)
def test_fetch_fills_the_cache(source, serve, answer, suffix):
    copy = mnist.fetch_mnist(source=served_by(source, serve(answer, suffix)))
    assert copy.complete
    assert copy.path == mnist.cache_directory()
    assert copy.payloads == PAYLOADS
    assert_complete(copy.path)
    assert_is_tiny(mnist.load_mnist(fetch=False, source=source))


def test_cache_has_the_layout_of_torchvision(home):
    assert mnist.cache_directory().relative_to(home).parts[-2:] == ("MNIST", "raw")


def test_fetch_into_another_directory(tmp_path, source, serve):
    mnist.fetch_mnist(str(tmp_path / "elsewhere"), source=served_by(source, serve()))
    assert_complete(tmp_path / "elsewhere")
    assert not mnist.cache_directory().exists()


def test_fetch_downloads_only_missing_and_damaged_files(source, serve):
    cache = put(mnist.cache_directory(), PAYLOADS | {LABELS: flipped(PAYLOADS[LABELS])})
    (cache / TEST_LABELS).unlink()
    kept = (cache / IMAGES).stat().st_mtime_ns
    mirror = serve()
    mnist.fetch_mnist(source=served_by(source, mirror))
    assert sorted(mirror.requested) == sorted([f"{LABELS}.gz", f"{TEST_LABELS}.gz"])
    assert_complete(cache)
    assert (cache / IMAGES).stat().st_mtime_ns == kept


def test_fetch_downloads_nothing_if_the_cache_is_complete(source, dead):
    put(mnist.cache_directory())
    assert mnist.fetch_mnist(source=served_by(source, dead)).complete


def stalling(before: int) -> Callable[[str, bytes], Answer]:
    """Send `before` bytes and then wait; send not even a status line if `before` is negative."""

    def answer(name: str, payload: bytes) -> Answer:
        def send(handler):
            if before >= 0:
                begin(handler, len(payload))
                handler.wfile.write(payload[:before])
            handler.server.closing.wait()

        return send

    return answer


def one_byte_at_a_time(name: str, payload: bytes) -> Answer:
    """Send one byte at a time, slowly."""

    def send(handler):
        begin(handler, len(payload))
        for byte in payload:
            handler.wfile.write(bytes([byte]))
            if handler.server.closing.wait(0.02):
                break

    return send


def close_halfway(name: str, payload: bytes) -> Answer:
    """Announce the full length and close the connection after half of it."""

    def send(handler):
        begin(handler, len(payload))
        handler.wfile.write(payload[: len(payload) // 2])

    return send


def close_within_chunk(name: str, payload: bytes) -> Answer:
    """Close the connection within a chunk of a chunked response."""

    def send(handler):
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"ff\r\n" + payload[:9])

    return send


def endless(name: str, payload: bytes) -> Answer:
    """Send without a length and without an end."""

    def send(handler):
        begin(handler, None)
        while not handler.server.closing.is_set():
            handler.wfile.write(bytes(1 << 16))

    return send


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
# What is sent at once, and what is sent a byte at a time without an end.
DRIPS = {
    "status line": (b"", b"HTTP/1.1 200 " + b"O" * 60_000),
    "headers": (HEAD, b"X: y\r\n"),
    "one header": (HEAD + b"X: ", b"y"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunk size": (CHUNKED, b"0" * 60_000),
    "chunk extension": (CHUNKED + b"1;", b"x"),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n"),
}


def dripping(at_once: bytes, slowly: bytes) -> Callable[[str, bytes], Answer]:
    """Send something at once, and then a byte at a time without an end."""

    def answer(name: str, payload: bytes) -> Answer:
        def send(handler):
            handler.wfile.write(at_once)
            for byte in itertools.cycle(slowly):
                handler.wfile.write(bytes([byte]))
                if handler.server.closing.wait(0.02):
                    break

        return send

    return answer


def status(code: int) -> Callable[[str, bytes], Answer]:
    """Answer with an HTTP error status."""
    return lambda name, payload: lambda handler: handler.send_error(code)


def not_http(name: str, payload: bytes) -> Answer:
    """Answer with a long line that is not HTTP."""
    return lambda handler: handler.wfile.write(b"this is not HTTP " + b"x" * 150 + b" x" * 5000 + b"\r\n\r\n")


TIMEOUT = 0.5  # seconds; long enough for a good mirror on a busy machine
PAGE = b"<!DOCTYPE html><title>Sign in to this network</title>"

BAD = {
    "404": (status(404), "HTTP 404 Not Found"),
    "503": (status(503), "HTTP 503 Service Unavailable"),
    "silent": (stalling(-1), f"no response in {TIMEOUT} s"),
    "stalls": (stalling(20), r"too slow: 20 bytes in [\d.]+ s"),
    "stalls before the body": (stalling(0), f"no response in {TIMEOUT} s"),
    "slow": (one_byte_at_a_time, r"too slow: \d+ bytes in [\d.]+ s"),
    "closes": (close_halfway, r"connection closed after \d+ of \d+ bytes"),
    "closes within a chunk": (close_within_chunk, "IncompleteRead"),
    "truncated gzip": (lambda name, payload: gzip.compress(payload)[:-9], "damaged gzip file"),
    "bit flipped in gzip": (lambda name, payload: flipped(gzip.compress(payload), 30), "damaged gzip file"),
    "bit flipped": (
        lambda name, payload: flipped(payload),
        "damaged or a different file: SHA-256 [0-9a-f]{64}, expected",
    ),
    "different file, gzipped": (lambda name, payload: gzip.compress(flipped(payload)), "a different file: SHA-256"),
    "too short": (lambda name, payload: payload[:-1], r"not the expected file: it has \d+ bytes, expected \d+"),
    "longer file, gzipped": (
        lambda name, payload: gzip.compress(payload + b"."),
        r"decompresses to more than \d+ bytes",
    ),
    "announces too many bytes": (lambda name, payload: bytes(1 << 18), r"262144 bytes, expected at most \d+"),
    "endless": (endless, r"more than the expected \d+ bytes"),
    "web page": (lambda name, payload: PAGE, "not the expected file but a web page: it has 53 bytes"),
    "empty": (lambda name, payload: b"", "not the expected file: it has 0 bytes"),
    "not HTTP": (not_http, r"this is not HTTP x{150}( x)+\.\.\."),
}


@pytest.mark.parametrize("bad", ["404", "503", "stalls", "bit flipped", "not HTTP"])
def test_bad_mirror_is_skipped(source, serve, bad):
    broken, good = serve(BAD[bad][0]), serve()
    mnist.fetch_mnist(source=served_by(source, broken, good), timeout=TIMEOUT)
    assert_complete(mnist.cache_directory())
    plain = [IMAGES] if bad in ("404", "503") else []  # the mirror could have uncompressed files
    assert broken.requested == [f"{IMAGES}.gz", *plain]  # and no other file
    assert len(good.requested) == 4


@pytest.mark.parametrize("bad", BAD)
def test_fetch_leaves_no_files_if_all_mirrors_fail(source, serve, bad):
    answer, reason = BAD[bad]
    mirror = serve(answer)
    with pytest.raises(MnistNotFoundError, match=rf"tried {mirror.url}{IMAGES} \(.*{reason}.*\), http") as caught:
        mnist.fetch_mnist(source=served_by(source, mirror), timeout=TIMEOUT)
    assert "\n" not in str(caught.value)
    assert files_in(mnist.cache_directory()) == set()


@pytest.mark.parametrize("bad", ["silent", "stalls", "slow"])
def test_fetch_respects_the_timeout(source, serve, bad):
    start = time.monotonic()
    with pytest.raises(MnistNotFoundError):
        mnist.fetch_mnist(source=served_by(source, serve(BAD[bad][0])), timeout=0.1)
    assert time.monotonic() - start < 15  # without this timeout, 20 s or forever; the machine may be busy


@pytest.mark.parametrize("part", DRIPS)
def test_server_that_sends_a_byte_at_a_time_exceeds_the_deadline(source, serve, part):
    """Without a deadline for the whole request, none of these ends."""
    broken = serve(dripping(*DRIPS[part]))
    with pytest.raises(MnistNotFoundError, match=r"\(no response in 0.1 s\)"):
        mnist.fetch_mnist(source=served_by(source, broken), timeout=0.1)


def test_body_of_a_redirect_is_not_read_to_its_end(source, serve):
    good, sent = serve(), []

    def redirect(name, payload):
        def send(handler):
            handler.send_response(302)
            handler.send_header("Location", f"{good.url}{name}.gz")
            handler.end_headers()
            for _ in range(1 << 10):  # 64 MiB
                handler.wfile.write(bytes(1 << 16))
                sent.append(1 << 16)

        return send

    mirror = serve(redirect)
    assert mnist.fetch_mnist(source=served_by(source, mirror)).complete
    assert len(good.requested) == len(mirror.requested) == 4
    mirror.closing.wait(0.1)
    assert sum(sent) < 4 * (16 << 20)  # what fits into the buffers of the sockets


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:bad/", "http://[bad/", "http://127.0.0.1/a b/", "http://127.0.0.1/é/"]
)
def test_mirror_with_an_invalid_url_is_skipped(source, serve, monkeypatch, url):
    monkeypatch.setenv("HANDGRAD_MNIST_MIRROR", url)
    assert mnist.fetch_mnist(source=served_by(source, serve())).complete


def test_requests_have_a_user_agent(source, serve):
    agents = []

    def answer(name, payload):
        def send(handler):
            agents.append(handler.headers["User-Agent"])
            begin(handler, len(payload))
            handler.wfile.write(payload)

        return send

    mnist.fetch_mnist(source=served_by(source, serve(answer)))
    assert agents == ["handgrad"] * 4


def test_error_lists_all_attempts_and_the_command_to_run(source, serve, dead, monkeypatch):
    monkeypatch.setenv("HANDGRAD_MNIST_MIRROR", "http://127.0.0.1:bad")
    missing = serve(status(404))
    with pytest.raises(HandgradError) as caught:
        mnist.fetch_mnist(source=served_by(source, dead, missing))
    line = str(caught.value)
    assert line.startswith("TINY could not be downloaded: tried ")
    assert f"http://127.0.0.1:bad/{IMAGES} (nonnumeric port" in line
    assert f"{dead}{IMAGES} (Connection refused)" in line
    assert f"{missing.url}{IMAGES} (HTTP 404 Not Found)" in line
    assert f"{source.npz_url} (Connection refused)" in line
    for name in PAYLOADS:
        assert f"{name}.gz" in line
    assert "handgrad data fetch --from DIR" in line


def test_files_can_come_from_different_mirrors(source, serve):
    images, labels = serve(), serve()
    for name in (LABELS, TEST_LABELS):
        del images.answers[f"{name}.gz"]
    for name in (IMAGES, TEST_IMAGES):
        del labels.answers[f"{name}.gz"]
    mnist.fetch_mnist(source=served_by(source, images, labels))
    assert_complete(mnist.cache_directory())


def test_files_downloaded_before_a_failure_are_kept(source, serve):
    mirror = serve()
    del mirror.answers[f"{TEST_LABELS}.gz"]
    with pytest.raises(MnistNotFoundError):
        mnist.fetch_mnist(source=served_by(source, mirror))
    assert files_in(mnist.cache_directory()) == {IMAGES, LABELS, TEST_IMAGES}


@pytest.mark.parametrize("slash", ["", "/"])
def test_mirror_of_the_environment_variable_is_tried_first(source, serve, monkeypatch, slash):
    mine, public = serve(), serve()
    monkeypatch.setenv("HANDGRAD_MNIST_MIRROR", mine.url.rstrip("/") + slash)
    mnist.fetch_mnist(source=served_by(source, public))
    assert len(mine.requested) == 4
    assert public.requested == []


@pytest.mark.parametrize("url", ["/home/me/mnist", "ftp://host/mnist/", "host/mnist", "file:///mnist/", "http://"])
def test_mirror_of_the_environment_variable_must_be_an_http_url(source, monkeypatch, url):
    monkeypatch.setenv("HANDGRAD_MNIST_MIRROR", url)
    with pytest.raises(HandgradError, match=f"HANDGRAD_MNIST_MIRROR is '{url}': expected"):
        mnist.fetch_mnist(source=source)


def test_npz_is_downloaded_if_all_mirrors_fail(source, serve, dead):
    mirror = serve(status(404))
    mirror.answers["mnist.npz"] = NPZ
    source = dataclasses.replace(served_by(source, dead), npz_url=f"{mirror.url}mnist.npz")
    mnist.fetch_mnist(source=source)
    assert_complete(mnist.cache_directory())
    assert mirror.requested == ["mnist.npz"]


def test_npz_with_a_wrong_hash_is_not_opened(source, serve, monkeypatch):
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("opened"))
    mirror = serve()
    mirror.answers = {"mnist.npz": flipped(NPZ)}
    with pytest.raises(MnistNotFoundError, match=r"mnist.npz is damaged or a different file: SHA-256"):
        mnist.fetch_mnist(source=dataclasses.replace(source, npz_url=f"{mirror.url}mnist.npz"))


def test_arrays_in_an_npz_are_verified(source, serve):
    other = npz(ARRAYS | {"y_test": ARRAYS["y_test"][::-1]})
    mirror = serve()
    mirror.answers = {"mnist.npz": other}
    with pytest.raises(MnistNotFoundError, match=f"{TEST_LABELS} in mnist.npz is damaged or a different file"):
        mnist.fetch_mnist(source=dataclasses.replace(source, npz_url=f"{mirror.url}mnist.npz", npz=checksum(other)))
    assert files_in(mnist.cache_directory()) == set()


def test_ctrl_c_leaves_no_files(source, serve, monkeypatch):
    def interrupted(*_):
        assert len(files_in(mnist.cache_directory())) == 1  # the temporary file exists
        raise KeyboardInterrupt

    monkeypatch.setattr(mnist, "_read_body", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mnist.fetch_mnist(source=served_by(source, serve()))
    assert files_in(mnist.cache_directory()) == set()


def test_two_downloads_at_once_do_not_interfere(source, serve):
    both = threading.Barrier(2, timeout=5)

    def together(name, payload):
        def send(handler):
            both.wait()
            begin(handler, len(payload))
            handler.wfile.write(payload)

        return send

    source = served_by(source, serve(together))
    copies = []
    threads = [threading.Thread(target=lambda: copies.append(mnist.fetch_mnist(source=source))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(copies) == 2
    assert_complete(mnist.cache_directory())


def test_error_if_the_cache_cannot_be_created(home, source, serve):
    (home / "cache").write_text("a file where a directory should be")
    mirror = serve()
    with pytest.raises(MnistNotFoundError, match=r"cannot write to .*raw \(Not a directory\): .*HANDGRAD_DATA"):
        mnist.fetch_mnist(source=served_by(source, mirror))
    assert mirror.requested == []


def test_error_if_the_cache_is_not_writable(source, serve, monkeypatch):
    def read_only(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("handgrad.io.atomic.open", read_only, raising=False)
    mirror = serve()
    with pytest.raises(MnistNotFoundError, match=r"cannot write to .*raw \(Permission denied\)"):
        mnist.fetch_mnist(source=served_by(source, mirror))
    assert mirror.requested == []  # the check comes before the download


# -------------------------------------------------------------------------------------------------------- progress bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_bar_on_a_terminal(source, serve, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    mnist.fetch_mnist(source=served_by(source, serve()))
    for name in PAYLOADS:
        assert f"{name}.gz:" in terminal.getvalue()


def test_no_progress_bar_without_a_terminal(source, serve, capsys):
    mnist.fetch_mnist(source=served_by(source, serve()))
    assert capsys.readouterr() == ("", "")


def test_no_progress_bar_without_tqdm(source, serve, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert mnist.fetch_mnist(source=served_by(source, serve())).complete
    assert terminal.getvalue() == ""


# -------------------------------------------------------------------------------------------------------- verification


def test_verify_reports_correct_missing_and_damaged_files(tmp_path, source):
    location = put(tmp_path / "copy")
    copy = mnist.verify(location, source)
    assert copy.complete
    assert not copy.absent
    assert str(copy) == f"{location}: complete, every SHA-256 is correct"

    (location / LABELS).unlink()
    (location / TEST_IMAGES).write_bytes(flipped(PAYLOADS[TEST_IMAGES]))
    copy = mnist.verify(str(location), source)
    assert not copy.complete
    assert not copy.absent
    assert set(copy.payloads) == {IMAGES, TEST_LABELS}
    assert copy.missing == (LABELS,)
    assert set(copy.damaged) == {TEST_IMAGES}
    assert f"{TEST_IMAGES} is damaged or a different file" in str(copy)
    assert f"{LABELS} is missing" in str(copy)
    assert len(repr(copy)) < 1000  # without the payloads

    for absent in (tmp_path / "nowhere", tmp_path, tmp_path / "mnist.npz"):
        copy = mnist.verify(absent, source)
        assert copy.absent
        assert not copy.complete
        assert str(copy) == f"{absent}: not found"


def test_verify_detects_a_flipped_bit_anywhere_in_a_file(tmp_path, source):
    for position in range(0, len(PAYLOADS[LABELS]), 7):
        copy = put(tmp_path / "copy", PAYLOADS | {LABELS: flipped(PAYLOADS[LABELS], position)})
        assert set(mnist.verify(copy, source).damaged) == {LABELS}, position


def test_gzipped_file_is_used_if_the_plain_file_is_damaged(tmp_path, source):
    location = put(tmp_path / "copy", PAYLOADS | {LABELS: b"damaged"})
    (location / f"{LABELS}.gz").write_bytes(gzip.compress(PAYLOADS[LABELS]))
    assert mnist.verify(location, source).payloads == PAYLOADS
    assert mnist.verify(location, source).complete


def test_verify_reads_an_npz(tmp_path, source):
    location = put(tmp_path / "keras" / "mnist.npz")
    assert mnist.verify(location, source).payloads == PAYLOADS
    location.write_bytes(flipped(NPZ))
    copy = mnist.verify(location, source)
    assert not copy.complete
    assert not copy.absent
    assert "mnist.npz is damaged or a different file" in str(copy)


# -------------------------------------------------------------------------------------------------- search and loading


LOCATIONS = {  # in the order of the search
    "HANDGRAD_DATA": lambda tmp_path: tmp_path / "own",
    "HANDGRAD_DATA, torchvision layout": lambda tmp_path: tmp_path / "own" / "MNIST" / "raw",
    "cache": lambda tmp_path: mnist.cache_directory(),
    "torchvision": lambda tmp_path: Path("data", "MNIST", "raw"),
    "torchvision in home": lambda tmp_path: tmp_path / "home" / "data" / "MNIST" / "raw",
    "keras": lambda tmp_path: tmp_path / "home" / ".keras" / "datasets" / "mnist.npz",
}


@pytest.mark.parametrize("name", LOCATIONS)
def test_locations_are_searched_in_order(tmp_path, monkeypatch, source, name):
    monkeypatch.setenv("HANDGRAD_DATA", str(tmp_path / "own"))
    assert mnist.find_mnist(source) is None
    for later in list(LOCATIONS)[list(LOCATIONS).index(name) :]:
        put(LOCATIONS[later](tmp_path))
    assert mnist.find_mnist(source) == LOCATIONS[name](tmp_path)
    assert_is_tiny(mnist.load_mnist(fetch=False, source=source))


@pytest.mark.parametrize("name", LOCATIONS)
def test_damaged_copy_is_not_used(tmp_path, monkeypatch, source, name):
    monkeypatch.setenv("HANDGRAD_DATA", str(tmp_path / "own"))
    location = put(LOCATIONS[name](tmp_path))
    file = location if location.suffix == ".npz" else location / TEST_LABELS
    file.write_bytes(flipped(file.read_bytes()))
    assert mnist.find_mnist(source) is None


def test_keras_home_is_searched(tmp_path, monkeypatch, source):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "elsewhere"))
    put(LOCATIONS["keras"](tmp_path))
    assert mnist.find_mnist(source) is None
    location = put(tmp_path / "elsewhere" / "datasets" / "mnist.npz")
    assert mnist.find_mnist(source) == location


def test_check_copies_reports_all_locations(tmp_path, monkeypatch, source):
    monkeypatch.setenv("HANDGRAD_DATA", str(tmp_path / "own"))
    put(LOCATIONS["torchvision"](tmp_path))
    copies = list(mnist.check_copies(source))
    assert [copy.path for copy in copies] == [location(tmp_path) for location in LOCATIONS.values()]
    assert [copy.complete for copy in copies] == [name == "torchvision" for name in LOCATIONS]


def test_load_reads_the_cache(source):
    put(mnist.cache_directory())
    dataset = mnist.load_mnist(fetch=False, source=source)
    assert_is_tiny(dataset)
    assert dataset.name == "TINY"
    assert dataset.classes == tuple("0123456789")


def test_load_downloads_if_there_is_no_copy(source, serve):
    dataset = mnist.load_mnist(source=served_by(source, serve()))
    assert_is_tiny(dataset)
    assert_complete(mnist.cache_directory())


def test_load_with_fetch_false_does_not_download(home, source, serve):
    mirror = serve()
    with pytest.raises(MnistNotFoundError, match="run handgrad data fetch") as caught:
        mnist.load_mnist(fetch=False, source=served_by(source, mirror))
    assert mirror.requested == []
    assert str(mnist.cache_directory()) in str(caught.value)
    assert str(home / ".keras") in str(caught.value)


def test_every_load_hashes_each_file_once(source, monkeypatch):
    put(mnist.cache_directory())
    checked: list[int] = []
    sha256 = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda data: (checked.append(len(data)), sha256(data))[1])
    for _ in range(2):
        checked.clear()
        mnist.load_mnist(source=source)
        assert checked == [len(payload) for payload in PAYLOADS.values()]


def test_damaged_cache_is_reported_and_repaired(source, serve, caplog):
    cache, mirror = put(mnist.cache_directory()), serve()
    source = served_by(source, mirror)
    assert_is_tiny(mnist.load_mnist(source=source))
    assert caplog.messages == []
    (cache / IMAGES).write_bytes(flipped(PAYLOADS[IMAGES]))  # the same size, still an IDX file
    assert_is_tiny(mnist.load_mnist(source=source))
    (message,) = caplog.messages
    assert message.startswith(f"{cache}: {IMAGES} is damaged")
    assert mirror.requested == [f"{IMAGES}.gz"]
    assert_complete(cache)


def test_damaged_cache_is_repaired_from_a_local_copy(tmp_path, source, dead, caplog):
    cache = put(mnist.cache_directory(), PAYLOADS | {IMAGES: b"cut off"})
    put(LOCATIONS["keras"](tmp_path))
    assert_is_tiny(mnist.load_mnist(source=served_by(source, dead)))
    assert len(caplog.messages) == 1
    assert_complete(cache)


def test_load_works_if_the_cache_cannot_be_repaired(tmp_path, source, monkeypatch, caplog):
    put(mnist.cache_directory(), PAYLOADS | {IMAGES: b"cut off"})
    put(LOCATIONS["torchvision"](tmp_path))

    def read_only(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("handgrad.io.atomic.open", read_only, raising=False)
    assert_is_tiny(mnist.load_mnist(source=source))
    assert "raw (Permission denied)" in caplog.messages[-1]


def test_load_changes_neither_damaged_copies_nor_an_empty_cache(tmp_path, source, caplog):
    damaged = put(LOCATIONS["torchvision"](tmp_path), PAYLOADS | {IMAGES: b"cut off"})
    put(LOCATIONS["torchvision in home"](tmp_path))
    assert_is_tiny(mnist.load_mnist(source=source))
    assert [message.partition(":")[0] for message in caplog.messages] == [str(damaged)]
    assert (damaged / IMAGES).read_bytes() == b"cut off"
    assert not mnist.cache_directory().exists()


# -------------------------------------------------------------------------------------------------- a user's directory


def put_other_data(directory: Path) -> Path:
    """Write a data set of 3x7 images in three classes."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(3)
    for part, count in (("train", 9), ("t10k", 6)):
        write_idx(directory / f"{part}-images.idx3-ubyte.gz", rng.integers(0, 256, (count, 3, 7), np.uint8))
        write_idx(directory / f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 3)
    return directory


@pytest.mark.parametrize("below", ["", "MNIST/raw"])
def test_load_reads_another_data_set_from_a_directory(tmp_path, source, below):
    put_other_data(tmp_path / "clothes" / below)
    put(mnist.cache_directory())  # the directory takes precedence over the cache
    dataset = mnist.load_mnist(str(tmp_path / "clothes"), source=source)
    assert dataset.x_train.shape == (9, 3, 7)
    assert dataset.classes == ("0", "1", "2")
    assert dataset.name == ("raw" if below else "clothes")


def test_load_reads_another_data_set_from_handgrad_data(tmp_path, source, monkeypatch):
    monkeypatch.setenv("HANDGRAD_DATA", str(put_other_data(tmp_path / "clothes")))
    put(mnist.cache_directory())
    assert mnist.load_mnist(source=source).name == "clothes"
    assert mnist.load_mnist(put(tmp_path / "digits"), source=source).name == "TINY"  # the argument takes precedence


def test_name_is_that_of_the_source_only_if_the_hashes_match(tmp_path, source):
    dataset = mnist.load_mnist(put(tmp_path / "digits"), source=source)
    assert_is_tiny(dataset)
    assert dataset.name == "TINY"
    write_idx(tmp_path / "digits" / TEST_LABELS, np.zeros(10, np.uint8))
    assert mnist.load_mnist(tmp_path / "digits", source=source).name == "digits"


@pytest.mark.parametrize("how", ["directory", "HANDGRAD_DATA"])
def test_load_reads_an_npz(tmp_path, source, monkeypatch, caplog, how):
    """`load_mnist` reads every path that `find_mnist` returns, also that of a file."""
    location = put(tmp_path / "keras" / "mnist.npz")
    monkeypatch.setenv("HANDGRAD_DATA", str(location))
    assert mnist.find_mnist(source) == location
    dataset = mnist.load_mnist(str(location) if how == "directory" else None, fetch=False, source=source)
    assert_is_tiny(dataset)
    assert dataset.name == "TINY"
    assert not caplog.messages
    location.write_bytes(flipped(NPZ))
    put(mnist.cache_directory())
    with pytest.raises(HandgradError, match=r"mnist\.npz is damaged or a different file"):
        mnist.load_mnist(str(location) if how == "directory" else None, fetch=False, source=source)


@pytest.mark.parametrize("directory", ["", ".", "gone", "gone.npz"])
def test_load_rejects_a_directory_without_idx_files(source, directory):
    put(mnist.cache_directory())
    with pytest.raises(HandgradError, match="contains no IDX files: expected train-images-idx3-ubyte") as caught:
        mnist.load_mnist(directory, source=source)
    assert not isinstance(caught.value, MnistNotFoundError)


@pytest.mark.parametrize("how", ["directory", "HANDGRAD_DATA"])
def test_load_rejects_a_directory_with_a_missing_file(tmp_path, source, monkeypatch, how):
    location = put_other_data(tmp_path / "clothes")
    (location / "t10k-images.idx3-ubyte.gz").unlink()
    put(mnist.cache_directory())
    monkeypatch.setenv("HANDGRAD_DATA", str(location))
    with pytest.raises(HandgradError, match="clothes does not contain t10k-images-idx3-ubyte: add"):
        mnist.load_mnist(location if how == "directory" else None, source=source)


def test_handgrad_data_without_idx_files_is_reported(tmp_path, source, monkeypatch, caplog):
    monkeypatch.setenv("HANDGRAD_DATA", str(tmp_path / "gone"))
    put(mnist.cache_directory())
    assert_is_tiny(mnist.load_mnist(source=source))
    (message,) = caplog.messages
    assert message.startswith(f"HANDGRAD_DATA is {tmp_path / 'gone'}, which contains no IDX files: searching")


# ------------------------------------------------------------------------------------------------- copying local files


@pytest.mark.parametrize("below", ["", "MNIST/raw", "mnist.npz"])
def test_copy_to_cache(tmp_path, source, below):
    location = put(tmp_path / "stick" / below)
    copy = mnist.copy_to_cache(location if below == "mnist.npz" else tmp_path / "stick", source=source)
    assert copy.path == mnist.cache_directory()
    assert copy.complete
    assert_complete(copy.path)


def test_copy_to_cache_decompresses_gzipped_files(tmp_path, source):
    put(tmp_path / "stick", {f"{name}.gz": gzip.compress(payload) for name, payload in PAYLOADS.items()})
    assert_complete(mnist.copy_to_cache(str(tmp_path / "stick"), source=source).path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda location: (location / LABELS).write_bytes(flipped(PAYLOADS[LABELS])),
            f"{LABELS} is damaged or a different",
        ),
        (lambda location: (location / LABELS).unlink(), f"{LABELS} is missing"),
        (lambda location: [path.unlink() for path in location.iterdir()], "contains none of its files"),
    ],
)
def test_copy_to_cache_copies_all_files_or_none(tmp_path, source, damage, message):
    location = put(tmp_path / "stick")
    damage(location)
    with pytest.raises(HandgradError, match=f"TINY cannot be copied: .*{message}.*; expected {IMAGES}.gz, "):
        mnist.copy_to_cache(location, source=source)
    assert not mnist.cache_directory().exists()


# --------------------------------------------------------------------------------------------------------------- other


def test_import_loads_only_numpy_and_fast_standard_modules():
    code = (
        "import sys; before = set(sys.modules); import handgrad.data.mnist\n"
        "for name in set(sys.modules) - before: print(name, getattr(sys.modules[name], '__file__', None))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = dict(line.split(" ", 1) for line in result.stdout.splitlines())
    installed = {name.partition(".")[0] for name, file in loaded.items() if "site-packages" in file}
    assert installed <= {"numpy", "handgrad"}
    assert not {"urllib.request", "http.client", "ssl"} & set(loaded)


def test_platformdirs_is_needed_for_the_cache_only(tmp_path, source, monkeypatch):
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert mnist.load_mnist(put(tmp_path / "digits"), source=source).name == "TINY"
    with pytest.raises(MissingExtraError, match=r"pip install 'handgrad\[app\]'"):
        mnist.load_mnist(source=source)


def test_warnings_go_to_stderr_without_logging_configuration(source):
    code = (
        "from pathlib import Path; from handgrad.data import mnist\n"
        "cache = mnist.cache_directory(); cache.mkdir(parents=True)\n"
        "(cache / 't10k-labels-idx1-ubyte').write_bytes(b'<html>')\n"
        "try: mnist.load_mnist(fetch=False)\n"
        "except mnist.MnistNotFoundError: pass\n"
    )
    stderr = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert stderr.count("\n") == 1
    assert "t10k-labels-idx1-ubyte is not the expected file but a web page: it has 6 bytes, expected 10008" in stderr
    assert logging.getLogger("handgrad").handlers == []  # the application decides where messages go


def test_mnist_source_has_four_files_and_https_urls():
    assert list(mnist.MNIST.files) == list(FILES.values())
    assert [checksum.size for checksum in mnist.MNIST.files.values()] == [
        16 + 60_000 * 28 * 28,
        8 + 60_000,
        16 + 10_000 * 28 * 28,
        8 + 10_000,
    ]
    for url in (*mnist.MNIST.mirrors, mnist.MNIST.npz_url):
        assert url.startswith("https://")
    assert all(mirror.endswith("/") for mirror in mnist.MNIST.mirrors)


@pytest.mark.skipif(not ORIGINALS.is_dir(), reason=f"needs the four original files in {ORIGINALS}")
def test_original_files_are_mnist():
    copy = mnist.copy_to_cache(ORIGINALS)
    assert [path.stat().st_size for path in sorted(copy.path.iterdir())] == [7_840_016, 10_008, 47_040_016, 60_008]
    dataset = mnist.load_mnist(fetch=False)
    assert dataset.name == "MNIST"
    assert dataset.y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert dataset.y_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(dataset.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert dataset.x_train.mean() / 255 == pytest.approx(0.1307, abs=1e-4)  # the mean in PyTorch's MNIST example
    train, validation, test = dataset.split()
    assert [part[0].shape for part in (train, validation, test)] == [
        (50_000, 28, 28),
        (10_000, 28, 28),
        (10_000, 28, 28),
    ]
    np.testing.assert_array_equal(validation[1], dataset.y_train[50_000:])
