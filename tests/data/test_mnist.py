"""MNIST is found, fetched, checked and mended. The mirrors are on localhost, the set is tiny, with its own hashes."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import logging
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
from handgrad.data.idx import idx_payload, write_idx
from handgrad.data.mnist import Checksum, MnistNotFoundError, Source
from handgrad.errors import HandgradError, MissingExtraError

IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = FILES.values()
ORIGINALS = Path(__file__).parents[2].parent / "shared" / "mnist"  # beside a checkout, where somebody has put them


# --------------------------------------------------------------------------------------------- a tiny set, and a home


def checksum(data: bytes) -> Checksum:
    return Checksum(len(data), hashlib.sha256(data).hexdigest())


RNG = np.random.default_rng(28)
ARRAYS = {
    "x_train": RNG.integers(0, 256, (40, 6, 5), np.uint8),
    "y_train": np.arange(40, dtype=np.uint8) % 10,
    "x_test": RNG.integers(0, 256, (10, 6, 5), np.uint8),
    "y_test": np.arange(10, dtype=np.uint8),
}
PAYLOADS = {FILES[field]: idx_payload(array) for field, array in ARRAYS.items()}


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


NPZ = npz(ARRAYS)


@pytest.fixture
def dead() -> str:
    """The address of a mirror that is gone."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}/"


@pytest.fixture
def source(dead) -> Source:
    """The tiny set, served by nobody yet."""
    files = {name: checksum(payload) for name, payload in PAYLOADS.items()}
    return Source("TINY", files, mirrors=(), npz_url=f"{dead}mnist.npz", npz=checksum(NPZ))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """A home with nothing in it, for a user with no settings, and no network beyond this machine."""
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

    def resolve_here(host, *arguments, **options):
        assert host == "127.0.0.1", f"a test asks for {host}"
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
    return home


def put(place: Path, payloads: dict[str, bytes] = PAYLOADS) -> Path:
    """A copy at `place`: four files, or one .npz."""
    if place.suffix == ".npz":
        place.parent.mkdir(parents=True)
        place.write_bytes(NPZ)
        return place
    place.mkdir(parents=True, exist_ok=True)
    for name, payload in payloads.items():
        (place / name).write_bytes(payload)
    return place


def flipped(data: bytes, position: int = -1) -> bytes:
    damaged = bytearray(data)
    damaged[position] ^= 1
    return bytes(damaged)


def files_in(directory: Path) -> set[str]:
    return {path.name for path in directory.rglob("*") if path.is_file()}


def assert_whole(place: Path) -> None:
    """In torchvision's layout: the four files unzipped, and nothing beside them."""
    assert {path.name: path.read_bytes() for path in place.iterdir()} == PAYLOADS


def assert_is_the_set(dataset) -> None:
    for field, array in ARRAYS.items():
        np.testing.assert_array_equal(getattr(dataset, field), array, strict=True)


# ------------------------------------------------------------------------------------------------- mirrors on localhost

Answer = Callable[[BaseHTTPRequestHandler], None]


class Mirror(ThreadingHTTPServer):
    """A mirror with a mind of its own: `answers` by file name, and all the names that it was `asked` for."""

    daemon_threads = False  # closing waits for the answers under way

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, bytes | Answer] = {}
        self.asked: list[str] = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/mnist/"
        threading.Thread(target=self.serve_forever, args=(0.01,)).start()

    def handle_error(self, request, client_address) -> None:
        """Clients hang up here, and are meant to."""

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        assert self.path.startswith("/mnist/")
        name = self.path.removeprefix("/mnist/")
        self.server.asked.append(name)
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
    """Start a mirror that serves every file as `answer` makes it from name and payload, under its name + suffix."""
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


# ------------------------------------------------------------------------------------------------------------- fetching


@pytest.mark.parametrize(
    ("answer", "suffix"),
    [
        (lambda name, payload: gzip.compress(payload), ".gz"),
        (lambda name, payload: payload, ".gz"),  # unzipped on the way, under the old name
        (lambda name, payload: payload, ""),  # a cache, served as it is
        (lambda name, payload: gzip.compress(payload, 1), ".gz"),  # zipped anew: other bytes, the same payload
    ],
    ids=["gz", "raw called gz", "raw", "gz made anew"],
)
def test_fetch(source, serve, answer, suffix):
    copy = mnist.fetch_mnist(source=served_by(source, serve(answer, suffix)))
    assert copy.whole
    assert copy.place == mnist.cache_directory()
    assert copy.payloads == PAYLOADS
    assert_whole(copy.place)
    assert_is_the_set(mnist.load_mnist(fetch=False, source=source))


def test_the_cache_is_a_root_of_torchvision(home):
    assert mnist.cache_directory().relative_to(home).parts[-2:] == ("MNIST", "raw")


def test_fetch_into_another_directory(tmp_path, source, serve):
    mnist.fetch_mnist(str(tmp_path / "elsewhere"), source=served_by(source, serve()))
    assert_whole(tmp_path / "elsewhere")
    assert not mnist.cache_directory().exists()


def test_only_what_is_not_whole_is_fetched(source, serve):
    cache = put(mnist.cache_directory(), PAYLOADS | {LABELS: flipped(PAYLOADS[LABELS])})
    (cache / TEST_LABELS).unlink()
    kept = (cache / IMAGES).stat().st_mtime_ns
    mirror = serve()
    mnist.fetch_mnist(source=served_by(source, mirror))
    assert sorted(mirror.asked) == sorted([f"{LABELS}.gz", f"{TEST_LABELS}.gz"])
    assert_whole(cache)
    assert (cache / IMAGES).stat().st_mtime_ns == kept


def test_nothing_is_asked_for_where_all_is_whole(source, dead):
    put(mnist.cache_directory())
    assert mnist.fetch_mnist(source=served_by(source, dead)).whole


def stalling(before: int) -> Callable[[str, bytes], Answer]:
    """Sends `before` bytes and then nothing more; none at all, not even that it has heard, where that is negative."""

    def answer(name: str, payload: bytes) -> Answer:
        def send(handler):
            if before >= 0:
                begin(handler, len(payload))
                handler.wfile.write(payload[:before])
            handler.server.closing.wait()

        return send

    return answer


def dripping(name: str, payload: bytes) -> Answer:
    """Never silent for long, and never done."""

    def send(handler):
        begin(handler, len(payload))
        for byte in payload:
            handler.wfile.write(bytes([byte]))
            if handler.server.closing.wait(0.02):
                break

    return send


def cut_off(name: str, payload: bytes) -> Answer:
    """Says how long the file is, and hangs up halfway."""

    def send(handler):
        begin(handler, len(payload))
        handler.wfile.write(payload[: len(payload) // 2])

    return send


def cut_off_chunks(name: str, payload: bytes) -> Answer:
    def send(handler):
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"ff\r\n" + payload[:9])

    return send


def endless(name: str, payload: bytes) -> Answer:
    """Does not say how long it is, and is far too long."""

    def send(handler):
        begin(handler, None)
        while not handler.server.closing.is_set():
            handler.wfile.write(bytes(1 << 16))

    return send


def refusing(code: int) -> Callable[[str, bytes], Answer]:
    return lambda name, payload: lambda handler: handler.send_error(code)


def nonsense(name: str, payload: bytes) -> Answer:
    return lambda handler: handler.wfile.write(b"no HTTP at all " + b"x" * 150 + b" x" * 5000 + b"\r\n\r\n")


PATIENCE = 0.5  # seconds; enough for a good mirror on a busy machine
PAGE = b"<!DOCTYPE html><title>Sign in to this network</title>"

BAD = {
    "404": (refusing(404), "HTTP 404 Not Found"),
    "403": (refusing(403), "HTTP 403 Forbidden"),
    "503": (refusing(503), "HTTP 503 Service Unavailable"),
    "silent": (stalling(-1), f"no answer in {PATIENCE} s"),
    "stalls": (stalling(20), f"no answer in {PATIENCE} s"),
    "drips": (dripping, r"stalled: \d+ bytes in [\d.]+ s"),
    "hangs up": (cut_off, r"cut off after \d+ of \d+ bytes"),
    "hangs up between chunks": (cut_off_chunks, "IncompleteRead"),
    "gzip cut off": (lambda name, payload: gzip.compress(payload)[:-9], "damaged gzip file"),
    "gzip with a bit flipped": (lambda name, payload: flipped(gzip.compress(payload), 30), "damaged gzip file"),
    "a bit flipped": (
        lambda name, payload: flipped(payload),
        "damaged or another file: SHA-256 [0-9a-f]{64}, expected",
    ),
    "another, zipped": (lambda name, payload: gzip.compress(flipped(payload)), "another file: SHA-256"),
    "too short": (lambda name, payload: payload[:-1], r"another file: \d+ bytes, expected \d+"),
    "a longer one, zipped": (lambda name, payload: gzip.compress(payload + b"."), r"unzips to more than the \d+ bytes"),
    "says too long": (lambda name, payload: bytes(1 << 18), r"262144 bytes, expected at most \d+"),
    "endless": (endless, r"more than the \d+ bytes expected"),
    "a page": (lambda name, payload: PAGE, "another file, a web page: 53 bytes"),
    "empty": (lambda name, payload: b"", "another file: 0 bytes"),
    "no HTTP": (nonsense, r"no HTTP at all x{150}( x)+\.\.\."),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_mirror_is_passed_over(source, serve, bad):
    broken, good = serve(BAD[bad][0]), serve()
    mnist.fetch_mnist(source=served_by(source, broken, good), timeout=PATIENCE)
    assert_whole(mnist.cache_directory())
    plain_too = [IMAGES] if bad in ("403", "404", "503") else []  # for a mirror of unzipped files
    assert broken.asked == [f"{IMAGES}.gz", *plain_too]  # and for no other file
    assert len(good.asked) == 4


@pytest.mark.parametrize("bad", BAD)
def test_where_all_mirrors_are_bad_nothing_is_left_behind(source, serve, bad):
    answer, reason = BAD[bad]
    mirror = serve(answer)
    with pytest.raises(MnistNotFoundError, match=rf"tried {mirror.url}{IMAGES} \(.*{reason}.*\), http") as caught:
        mnist.fetch_mnist(source=served_by(source, mirror), timeout=PATIENCE)
    assert "\n" not in str(caught.value)
    assert files_in(mnist.cache_directory()) == set()


@pytest.mark.parametrize("bad", ["silent", "stalls", "drips"])
def test_no_more_time_is_lost_than_was_given(source, serve, bad):
    start = time.monotonic()
    with pytest.raises(MnistNotFoundError):
        mnist.fetch_mnist(source=served_by(source, serve(BAD[bad][0])), timeout=0.1)
    assert time.monotonic() - start < 3  # a busy machine's share in it


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:bad/", "http://[bad/", "http://127.0.0.1/a b/", "http://127.0.0.1/é/"]
)
def test_an_address_that_is_none_is_passed_over(source, serve, monkeypatch, address):
    monkeypatch.setenv("HANDGRAD_MNIST_MIRROR", address)
    assert mnist.fetch_mnist(source=served_by(source, serve())).whole


def test_hosts_are_told_who_asks(source, serve):
    agents = []

    def answer(name, payload):
        def send(handler):
            agents.append(handler.headers["User-Agent"])
            begin(handler, len(payload))
            handler.wfile.write(payload)

        return send

    mnist.fetch_mnist(source=served_by(source, serve(answer)))
    assert agents == ["handgrad"] * 4


def test_a_failure_says_all_that_was_tried_and_what_to_do(source, serve, dead, monkeypatch):
    monkeypatch.setenv("HANDGRAD_MNIST_MIRROR", "http://127.0.0.1:bad")
    missing = serve(refusing(404))
    with pytest.raises(HandgradError) as caught:
        mnist.fetch_mnist(source=served_by(source, dead, missing))
    line = str(caught.value)
    assert line.startswith("TINY could not be fetched: tried ")
    assert f"http://127.0.0.1:bad/{IMAGES} (nonnumeric port" in line
    assert f"{dead}{IMAGES} (Connection refused)" in line
    assert f"{missing.url}{IMAGES} (HTTP 404 Not Found)" in line
    assert f"{source.npz_url} (Connection refused)" in line
    for name in PAYLOADS:
        assert f"{name}.gz" in line
    assert "handgrad data fetch --from DIR" in line


def test_each_file_may_come_from_another_mirror(source, serve):
    images, labels = serve(), serve()
    for name in (LABELS, TEST_LABELS):
        del images.answers[f"{name}.gz"]
    for name in (IMAGES, TEST_IMAGES):
        del labels.answers[f"{name}.gz"]
    mnist.fetch_mnist(source=served_by(source, images, labels))
    assert_whole(mnist.cache_directory())


def test_what_came_whole_before_a_failure_is_kept(source, serve):
    mirror = serve()
    del mirror.answers[f"{TEST_LABELS}.gz"]
    with pytest.raises(MnistNotFoundError):
        mnist.fetch_mnist(source=served_by(source, mirror))
    assert files_in(mnist.cache_directory()) == {IMAGES, LABELS, TEST_IMAGES}


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_users_mirror_is_asked_first(source, serve, monkeypatch, slash):
    mine, public = serve(), serve()
    monkeypatch.setenv("HANDGRAD_MNIST_MIRROR", mine.url.rstrip("/") + slash)
    mnist.fetch_mnist(source=served_by(source, public))
    assert len(mine.asked) == 4
    assert public.asked == []


@pytest.mark.parametrize("address", ["/home/me/mnist", "ftp://host/mnist/", "host/mnist", "file:///mnist/", "http://"])
def test_the_users_mirror_must_be_an_address(source, monkeypatch, address):
    monkeypatch.setenv("HANDGRAD_MNIST_MIRROR", address)
    with pytest.raises(HandgradError, match=f"HANDGRAD_MNIST_MIRROR is '{address}': expected"):
        mnist.fetch_mnist(source=source)


def test_the_npz_is_the_last_resort(source, serve, dead):
    mirror = serve(refusing(404))
    mirror.answers["mnist.npz"] = NPZ
    source = dataclasses.replace(served_by(source, dead), npz_url=f"{mirror.url}mnist.npz")
    mnist.fetch_mnist(source=source)
    assert_whole(mnist.cache_directory())
    assert mirror.asked == ["mnist.npz"]


def test_an_npz_that_is_not_known_is_not_opened(source, serve, monkeypatch):
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("opened"))
    mirror = serve()
    mirror.answers = {"mnist.npz": flipped(NPZ)}
    with pytest.raises(MnistNotFoundError, match=r"mnist.npz is damaged or another file: SHA-256"):
        mnist.fetch_mnist(source=dataclasses.replace(source, npz_url=f"{mirror.url}mnist.npz"))


def test_the_arrays_in_an_npz_are_checked_too(source, serve):
    other = npz(ARRAYS | {"y_test": ARRAYS["y_test"][::-1]})
    mirror = serve()
    mirror.answers = {"mnist.npz": other}
    with pytest.raises(MnistNotFoundError, match=f"{TEST_LABELS} in mnist.npz is damaged or another file"):
        mnist.fetch_mnist(source=dataclasses.replace(source, npz_url=f"{mirror.url}mnist.npz", npz=checksum(other)))
    assert files_in(mnist.cache_directory()) == set()


def test_ctrl_c_leaves_nothing_behind(source, serve, monkeypatch):
    def interrupted(*_):
        assert len(files_in(mnist.cache_directory())) == 1  # there is one to be left behind
        raise KeyboardInterrupt

    monkeypatch.setattr(mnist, "_body", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mnist.fetch_mnist(source=served_by(source, serve()))
    assert files_in(mnist.cache_directory()) == set()


def test_two_may_fetch_at_once(source, serve):
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
    assert_whole(mnist.cache_directory())


def test_a_cache_that_cannot_be_made(home, source, serve):
    (home / "cache").write_text("a file where a directory should be")
    mirror = serve()
    with pytest.raises(MnistNotFoundError, match=r"cannot be written to \(Not a directory\): .*HANDGRAD_DATA"):
        mnist.fetch_mnist(source=served_by(source, mirror))
    assert mirror.asked == []


def test_a_cache_that_cannot_be_written_to(source, serve, monkeypatch):
    def read_only(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("handgrad.atomic.open", read_only, raising=False)
    mirror = serve()
    with pytest.raises(MnistNotFoundError, match=r"raw cannot be written to \(Permission denied\)"):
        mnist.fetch_mnist(source=served_by(source, mirror))
    assert mirror.asked == []  # it is noticed before anything is fetched


# ---------------------------------------------------------------------------------------------------------- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(source, serve, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    mnist.fetch_mnist(source=served_by(source, serve()))
    for name in PAYLOADS:
        assert f"{name}.gz:" in terminal.getvalue()


def test_no_bar_elsewhere(source, serve, capsys):
    mnist.fetch_mnist(source=served_by(source, serve()))
    assert capsys.readouterr() == ("", "")


def test_no_bar_without_tqdm(source, serve, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert mnist.fetch_mnist(source=served_by(source, serve())).whole
    assert terminal.getvalue() == ""


# --------------------------------------------------------------------------------------------------------- verifying


def test_verify_says_what_is_whole_missing_and_damaged(tmp_path, source):
    place = put(tmp_path / "copy")
    copy = mnist.verify(place, source)
    assert copy.whole
    assert not copy.absent
    assert str(copy) == f"{place}: whole, every SHA-256 as expected"

    (place / LABELS).unlink()
    (place / TEST_IMAGES).write_bytes(flipped(PAYLOADS[TEST_IMAGES]))
    copy = mnist.verify(str(place), source)
    assert not copy.whole
    assert not copy.absent
    assert set(copy.payloads) == {IMAGES, TEST_LABELS}
    assert copy.missing == (LABELS,)
    assert set(copy.damaged) == {TEST_IMAGES}
    assert f"{TEST_IMAGES} is damaged or another file" in str(copy)
    assert f"{LABELS} is missing" in str(copy)
    assert len(repr(copy)) < 1000  # not the payloads

    for nothing in (tmp_path / "nowhere", tmp_path, tmp_path / "mnist.npz"):
        copy = mnist.verify(nothing, source)
        assert copy.absent
        assert not copy.whole
        assert str(copy) == f"{nothing}: nothing there"


@pytest.mark.parametrize("position", range(0, len(PAYLOADS[LABELS]), 7))
def test_any_bit_counts(tmp_path, source, position):
    place = put(tmp_path / "copy", PAYLOADS | {LABELS: flipped(PAYLOADS[LABELS], position)})
    assert set(mnist.verify(place, source).damaged) == {LABELS}


def test_a_gzipped_file_stands_in_for_a_damaged_plain_one(tmp_path, source):
    place = put(tmp_path / "copy", PAYLOADS | {LABELS: b"damaged"})
    (place / f"{LABELS}.gz").write_bytes(gzip.compress(PAYLOADS[LABELS]))
    assert mnist.verify(place, source).payloads == PAYLOADS
    assert mnist.verify(place, source).whole


def test_verify_an_npz(tmp_path, source):
    place = put(tmp_path / "keras" / "mnist.npz")
    assert mnist.verify(place, source).payloads == PAYLOADS
    place.write_bytes(flipped(NPZ))
    copy = mnist.verify(place, source)
    assert not copy.whole
    assert not copy.absent
    assert "mnist.npz is damaged or another file" in str(copy)


# ----------------------------------------------------------------------------------------------- finding and loading


PLACES = {  # in the order in which they are looked in
    "HANDGRAD_DATA": lambda tmp_path: tmp_path / "own",
    "HANDGRAD_DATA, a root of torchvision": lambda tmp_path: tmp_path / "own" / "MNIST" / "raw",
    "cache": lambda tmp_path: mnist.cache_directory(),
    "torchvision": lambda tmp_path: Path("data", "MNIST", "raw"),
    "torchvision at home": lambda tmp_path: tmp_path / "home" / "data" / "MNIST" / "raw",
    "keras": lambda tmp_path: tmp_path / "home" / ".keras" / "datasets" / "mnist.npz",
}


@pytest.mark.parametrize("name", PLACES)
def test_every_place_is_looked_in_before_those_after_it(tmp_path, monkeypatch, source, name):
    monkeypatch.setenv("HANDGRAD_DATA", str(tmp_path / "own"))
    assert mnist.find_mnist(source) is None
    for later in list(PLACES)[list(PLACES).index(name) :]:
        put(PLACES[later](tmp_path))
    assert mnist.find_mnist(source) == PLACES[name](tmp_path)
    assert_is_the_set(mnist.load_mnist(fetch=False, source=source))


@pytest.mark.parametrize("name", PLACES)
def test_a_damaged_copy_does_not_count(tmp_path, monkeypatch, source, name):
    monkeypatch.setenv("HANDGRAD_DATA", str(tmp_path / "own"))
    place = put(PLACES[name](tmp_path))
    file = place if place.suffix == ".npz" else place / TEST_LABELS
    file.write_bytes(flipped(file.read_bytes()))
    assert mnist.find_mnist(source) is None


def test_keras_home(tmp_path, monkeypatch, source):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "elsewhere"))
    put(PLACES["keras"](tmp_path))
    assert mnist.find_mnist(source) is None
    place = put(tmp_path / "elsewhere" / "datasets" / "mnist.npz")
    assert mnist.find_mnist(source) == place


def test_the_survey_goes_through_all_places(tmp_path, monkeypatch, source):
    monkeypatch.setenv("HANDGRAD_DATA", str(tmp_path / "own"))
    put(PLACES["torchvision"](tmp_path))
    copies = list(mnist.survey(source))
    assert [copy.place for copy in copies] == [place(tmp_path) for place in PLACES.values()]
    assert [copy.whole for copy in copies] == [name == "torchvision" for name in PLACES]


def test_load_from_the_cache(source):
    put(mnist.cache_directory())
    dataset = mnist.load_mnist(fetch=False, source=source)
    assert_is_the_set(dataset)
    assert dataset.name == "TINY"
    assert dataset.classes == tuple("0123456789")


def test_load_fetches_where_there_is_no_copy(source, serve):
    dataset = mnist.load_mnist(source=served_by(source, serve()))
    assert_is_the_set(dataset)
    assert_whole(mnist.cache_directory())


def test_load_does_not_fetch_where_it_must_not(home, source, serve):
    mirror = serve()
    with pytest.raises(MnistNotFoundError, match="run handgrad data fetch") as caught:
        mnist.load_mnist(fetch=False, source=served_by(source, mirror))
    assert mirror.asked == []
    assert str(mnist.cache_directory()) in str(caught.value)
    assert str(home / ".keras") in str(caught.value)


def test_every_file_is_checked_once_at_every_load(source, monkeypatch):
    put(mnist.cache_directory())
    checked: list[int] = []
    sha256 = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda data: (checked.append(len(data)), sha256(data))[1])
    for _ in range(2):
        checked.clear()
        mnist.load_mnist(source=source)
        assert checked == [len(payload) for payload in PAYLOADS.values()]


def test_a_damaged_cache_is_reported_and_mended(source, serve, caplog):
    cache, mirror = put(mnist.cache_directory()), serve()
    source = served_by(source, mirror)
    assert_is_the_set(mnist.load_mnist(source=source))
    assert caplog.messages == []
    (cache / IMAGES).write_bytes(flipped(PAYLOADS[IMAGES]))  # as many bytes as before, and an IDX file still
    assert_is_the_set(mnist.load_mnist(source=source))
    (message,) = caplog.messages
    assert message.startswith(f"{cache}: {IMAGES} is damaged")
    assert mirror.asked == [f"{IMAGES}.gz"]
    assert_whole(cache)


def test_a_damaged_cache_is_mended_from_a_copy_on_this_machine(tmp_path, source, dead, caplog):
    cache = put(mnist.cache_directory(), PAYLOADS | {IMAGES: b"cut off"})
    put(PLACES["keras"](tmp_path))
    assert_is_the_set(mnist.load_mnist(source=served_by(source, dead)))
    assert len(caplog.messages) == 1
    assert_whole(cache)


def test_a_cache_that_cannot_be_mended_is_no_reason_to_fail(tmp_path, source, monkeypatch, caplog):
    put(mnist.cache_directory(), PAYLOADS | {IMAGES: b"cut off"})
    put(PLACES["torchvision"](tmp_path))

    def read_only(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("handgrad.atomic.open", read_only, raising=False)
    assert_is_the_set(mnist.load_mnist(source=source))
    assert "cannot be written to (Permission denied)" in caplog.messages[-1]


def test_copies_elsewhere_are_left_as_they_are_and_the_cache_empty(tmp_path, source, caplog):
    damaged = put(PLACES["torchvision"](tmp_path), PAYLOADS | {IMAGES: b"cut off"})
    put(PLACES["torchvision at home"](tmp_path))
    assert_is_the_set(mnist.load_mnist(source=source))
    assert [message.partition(":")[0] for message in caplog.messages] == [str(damaged)]
    assert (damaged / IMAGES).read_bytes() == b"cut off"
    assert not mnist.cache_directory().exists()


# -------------------------------------------------------------------------------------------- a directory of the user's


def other_set(directory: Path) -> Path:
    """Pictures of three kinds of things, 3 by 7."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(3)
    for part, count in (("train", 9), ("t10k", 6)):
        write_idx(directory / f"{part}-images.idx3-ubyte.gz", rng.integers(0, 256, (count, 3, 7), np.uint8))
        write_idx(directory / f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 3)
    return directory


@pytest.mark.parametrize("below", ["", "MNIST/raw"])
def test_any_set_in_a_directory_of_the_users(tmp_path, source, below):
    other_set(tmp_path / "clothes" / below)
    put(mnist.cache_directory())  # and not the set that is there
    dataset = mnist.load_mnist(str(tmp_path / "clothes"), source=source)
    assert dataset.x_train.shape == (9, 3, 7)
    assert dataset.classes == ("0", "1", "2")
    assert dataset.name == ("raw" if below else "clothes")


def test_any_set_in_handgrad_data(tmp_path, source, monkeypatch):
    monkeypatch.setenv("HANDGRAD_DATA", str(other_set(tmp_path / "clothes")))
    put(mnist.cache_directory())
    assert mnist.load_mnist(source=source).name == "clothes"
    assert mnist.load_mnist(put(tmp_path / "digits"), source=source).name == "TINY"  # what is said now goes before it


def test_a_set_that_is_mnist_is_called_so(tmp_path, source):
    dataset = mnist.load_mnist(put(tmp_path / "digits"), source=source)
    assert_is_the_set(dataset)
    assert dataset.name == "TINY"
    write_idx(tmp_path / "digits" / TEST_LABELS, np.zeros(10, np.uint8))
    assert mnist.load_mnist(tmp_path / "digits", source=source).name == "digits"


@pytest.mark.parametrize("how", ["directory", "HANDGRAD_DATA"])
def test_an_npz_of_the_users(tmp_path, source, monkeypatch, caplog, how):
    """What `find_mnist` gives can be loaded, a file as well as a directory."""
    place = put(tmp_path / "keras" / "mnist.npz")
    monkeypatch.setenv("HANDGRAD_DATA", str(place))
    assert mnist.find_mnist(source) == place
    dataset = mnist.load_mnist(str(place) if how == "directory" else None, fetch=False, source=source)
    assert_is_the_set(dataset)
    assert dataset.name == "TINY"
    assert not caplog.messages
    place.write_bytes(flipped(NPZ))
    put(mnist.cache_directory())
    with pytest.raises(HandgradError, match=r"mnist\.npz is damaged or another file"):
        mnist.load_mnist(str(place) if how == "directory" else None, fetch=False, source=source)


@pytest.mark.parametrize("directory", ["", ".", "gone", "gone.npz"])
def test_a_directory_with_nothing_in_it_is_an_error_and_not_made_up_for(source, directory):
    put(mnist.cache_directory())
    with pytest.raises(HandgradError, match="holds no IDX files: expected train-images-idx3-ubyte") as caught:
        mnist.load_mnist(directory, source=source)
    assert not isinstance(caught.value, MnistNotFoundError)


@pytest.mark.parametrize("how", ["directory", "HANDGRAD_DATA"])
def test_a_directory_with_a_part_of_a_set_is_an_error(tmp_path, source, monkeypatch, how):
    place = other_set(tmp_path / "clothes")
    (place / "t10k-images.idx3-ubyte.gz").unlink()
    put(mnist.cache_directory())
    monkeypatch.setenv("HANDGRAD_DATA", str(place))
    with pytest.raises(HandgradError, match="clothes holds no t10k-images-idx3-ubyte: put"):
        mnist.load_mnist(place if how == "directory" else None, source=source)


def test_handgrad_data_with_nothing_in_it_is_reported(tmp_path, source, monkeypatch, caplog):
    monkeypatch.setenv("HANDGRAD_DATA", str(tmp_path / "gone"))
    put(mnist.cache_directory())
    assert_is_the_set(mnist.load_mnist(source=source))
    assert caplog.messages == [f"HANDGRAD_DATA is {tmp_path / 'gone'}, which holds no IDX files: looking elsewhere"]


# -------------------------------------------------------------------------------------------------- taking local files


@pytest.mark.parametrize("below", ["", "MNIST/raw", "mnist.npz"])
def test_take_local(tmp_path, source, below):
    place = put(tmp_path / "stick" / below)
    copy = mnist.take_local(place if below == "mnist.npz" else tmp_path / "stick", source=source)
    assert copy.place == mnist.cache_directory()
    assert copy.whole
    assert_whole(copy.place)


def test_take_local_gzipped(tmp_path, source):
    put(tmp_path / "stick", {f"{name}.gz": gzip.compress(payload) for name, payload in PAYLOADS.items()})
    assert_whole(mnist.take_local(str(tmp_path / "stick"), source=source).place)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda place: (place / LABELS).write_bytes(flipped(PAYLOADS[LABELS])), f"{LABELS} is damaged or another"),
        (lambda place: (place / LABELS).unlink(), f"{LABELS} is missing"),
        (lambda place: [path.unlink() for path in place.iterdir()], "holds none of its files"),
    ],
)
def test_take_local_takes_all_or_nothing(tmp_path, source, damage, says):
    place = put(tmp_path / "stick")
    damage(place)
    with pytest.raises(HandgradError, match=f"TINY cannot be taken from there: .*{says}.*; expected {IMAGES}.gz, "):
        mnist.take_local(place, source=source)
    assert not mnist.cache_directory().exists()


# ------------------------------------------------------------------------------------------------------------ the rest


def test_importing_brings_numpy_and_the_standard_library_and_nothing_slow():
    code = (
        "import sys; before = set(sys.modules); import handgrad.data.mnist\n"
        "for name in set(sys.modules) - before: print(name, getattr(sys.modules[name], '__file__', None))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = dict(line.split(" ", 1) for line in result.stdout.splitlines())
    installed = {name.partition(".")[0] for name, file in loaded.items() if "site-packages" in file}
    assert installed <= {"numpy", "handgrad"}
    assert not {"urllib.request", "http.client", "ssl"} & set(loaded)


def test_without_platformdirs_a_directory_of_the_users_still_loads(tmp_path, source, monkeypatch):
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert mnist.load_mnist(put(tmp_path / "digits"), source=source).name == "TINY"
    with pytest.raises(MissingExtraError, match=r"pip install 'handgrad\[app\]'"):
        mnist.load_mnist(source=source)


def test_warnings_are_lines_on_stderr(source):
    code = (
        "from pathlib import Path; from handgrad.data import mnist\n"
        "cache = mnist.cache_directory(); cache.mkdir(parents=True)\n"
        "(cache / 't10k-labels-idx1-ubyte').write_bytes(b'<html>')\n"
        "try: mnist.load_mnist(fetch=False)\n"
        "except mnist.MnistNotFoundError: pass\n"
    )
    stderr = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert stderr.count("\n") == 1
    assert "t10k-labels-idx1-ubyte is another file, a web page: 6 bytes, expected 10008" in stderr
    assert logging.getLogger("handgrad").handlers == []  # where they go is the application's choice


def test_the_table_has_the_four_files_and_the_secure_addresses():
    assert list(mnist.MNIST.files) == list(FILES.values())
    assert [known.size for known in mnist.MNIST.files.values()] == [
        16 + 60_000 * 28 * 28,
        8 + 60_000,
        16 + 10_000 * 28 * 28,
        8 + 10_000,
    ]
    for address in (*mnist.MNIST.mirrors, mnist.MNIST.npz_url):
        assert address.startswith("https://")
    assert all(mirror.endswith("/") for mirror in mnist.MNIST.mirrors)


@pytest.mark.skipif(not ORIGINALS.is_dir(), reason=f"needs the four original files in {ORIGINALS}")
def test_the_original_files():
    copy = mnist.take_local(ORIGINALS)
    assert [path.stat().st_size for path in sorted(copy.place.iterdir())] == [7_840_016, 10_008, 47_040_016, 60_008]
    dataset = mnist.load_mnist(fetch=False)
    assert dataset.name == "MNIST"
    assert dataset.y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert dataset.y_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(dataset.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert dataset.x_train.mean() / 255 == pytest.approx(0.1307, abs=1e-4)  # the mean that everybody subtracts
    train, validation, test = dataset.split()
    assert [part[0].shape for part in (train, validation, test)] == [
        (50_000, 28, 28),
        (10_000, 28, 28),
        (10_000, 28, 28),
    ]
    np.testing.assert_array_equal(validation[1], dataset.y_train[50_000:])
