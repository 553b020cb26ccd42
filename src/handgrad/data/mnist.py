"""MNIST: found where it already lies, else fetched; every byte checked each time it is read.

A copy is a directory of the four IDX files, plain or gzipped, or Keras's mnist.npz. It counts only if the SHA-256 of
each payload is MNIST's. handgrad's own cache has torchvision's layout: `torchvision.datasets.MNIST` reads it too.

MNIST is by Yann LeCun and Corinna Cortes, a derivative of NIST's databases; licence CC BY-SA 3.0.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..atomic import replacing
from ..errors import HandgradError, MissingExtraError, optional
from .dataset import FILES, Dataset, dataset_from, read_payloads, variants
from .idx import idx_payload, payload_of, read_bytes

logger = logging.getLogger(__name__)  # unless an application says otherwise, warnings are lines on stderr

RAW = Path("MNIST", "raw")  # torchvision's layout, below its root
SLACK = 1 << 16  # bytes by which a gzipped file may be longer than what is in it
SLOWEST = 1000  # bytes a second; a mirror that gives less is passed over


class MnistNotFoundError(HandgradError):
    """MNIST is nowhere on this machine and could not be brought here. The line says what was tried and what to do."""


@dataclass(frozen=True)
class Checksum:
    """How a file is known: its length in bytes and its SHA-256, both of the payload, however it comes compressed."""

    size: int
    sha256: str

    def payload(self, data: bytes, name: str) -> bytes:
        """`data`, gunzipped where it is gzipped. Raises HandgradError where that is not the file that is known."""
        payload = payload_of(data, name, limit=self.size)
        if len(payload) != self.size:
            page = ", a web page" if data.lstrip()[:1] == b"<" else ""
            raise HandgradError(f"{name} is another file{page}: {len(payload)} bytes, expected {self.size}")
        digest = hashlib.sha256(payload).hexdigest()
        if digest != self.sha256:
            raise HandgradError(f"{name} is damaged or another file: SHA-256 {digest}, expected {self.sha256}")
        return payload


@dataclass(frozen=True)
class Source:
    """A set of images: how its four files are known, and who serves them."""

    name: str
    files: Mapping[str, Checksum]
    mirrors: tuple[str, ...]  # directories, with a slash at the end; asked in turn for NAME.gz, then for NAME
    npz_url: str  # all four arrays in one file, asked for last
    npz: Checksum


MNIST = Source(
    name="MNIST",
    files={
        "train-images-idx3-ubyte": Checksum(
            47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
        ),
        "train-labels-idx1-ubyte": Checksum(60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        "t10k-images-idx3-ubyte": Checksum(
            7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
        ),
        "t10k-labels-idx1-ubyte": Checksum(10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    },
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    npz_url="https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    npz=Checksum(11_490_434, "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"),
)


# ---------------------------------------------------------------------------------------------------- loading


def load_mnist(
    directory: str | os.PathLike[str] | None = None, *, fetch: bool = True, source: Source = MNIST
) -> Dataset:
    """The set in `directory` or HANDGRAD_DATA, whichever set of four IDX files that is; else MNIST, wherever it is.

    Either may be the path of Keras's mnist.npz as well. Where no copy of MNIST is found whole it is fetched into the
    cache, unless `fetch` is False. A damaged copy is reported, one in the cache mended. Raises HandgradError where
    `directory` holds no whole set, MnistNotFoundError where MNIST is nowhere.
    """
    own = (os.environ.get("HANDGRAD_DATA") or None) if directory is None else directory
    if own is not None:
        dataset = _own_set(Path(own), source)
        if dataset is not None:
            return dataset
        if directory is not None:
            raise HandgradError(
                f"{Path(directory)} holds no IDX files: expected {', '.join(FILES.values())}, gzipped or not; "
                "or the path of Keras's mnist.npz"
            )
        logger.warning("HANDGRAD_DATA is %s, which holds no IDX files: looking elsewhere", own)
    return dataset_from(_whole_copy(fetch, source).payloads, source.name)


def find_mnist(source: Source = MNIST) -> Path | None:
    """The first place that holds a whole copy, a directory or an .npz file, every hash checked; None: there is none."""
    return next((copy.place for copy in survey(source) if copy.whole), None)


def _own_set(own: Path, source: Source) -> Dataset | None:
    """The set that is there, or None. It is called MNIST if it is MNIST, and by its directory if it is another."""
    if own.suffix == ".npz" and own.is_file():
        return dataset_from(_npz_payloads(read_bytes(own), str(own), source), source.name)
    for place in _within(own):
        if any(variants(place, name) for name in FILES.values()):
            payloads = read_payloads(place)
            known = all(
                hashlib.sha256(payloads[name]).hexdigest() == file.sha256 for name, file in source.files.items()
            )
            return dataset_from(payloads, source.name if known else place.resolve().name)
    return None


def _whole_copy(fetch: bool, source: Source) -> Copy:
    """The first whole copy, fetched if there is none; the cache is whole after it if anything was in it before."""
    cache, mend = cache_directory(), False
    for copy in survey(source):
        if copy.whole:
            break
        if not copy.absent:
            logger.warning("%s", copy)
            mend |= copy.place == cache
    else:
        if not fetch:
            looked = ", ".join(map(str, places()))
            raise MnistNotFoundError(f"{source.name} was not found in {looked}: run handgrad data fetch")
        return fetch_mnist(source=source)
    if mend:
        try:
            _fill(cache, copy.payloads.__getitem__, source)
        except HandgradError as error:  # no reason to go without the copy that is whole
            logger.warning("%s", error)
    return copy


# ---------------------------------------------------------------------------------------- places and their copies


@dataclass(frozen=True, eq=False)
class Copy:
    """What one place holds of the four files: payloads that are whole, names that are missing, faults of the others."""

    place: Path
    payloads: Mapping[str, bytes]
    missing: tuple[str, ...]
    damaged: Mapping[str, str]

    @property
    def whole(self) -> bool:
        return not self.missing and not self.damaged

    @property
    def absent(self) -> bool:
        return not self.payloads and not self.damaged

    def __repr__(self) -> str:
        return f"<Copy {self}>"  # not its 55 MB of payloads

    def __str__(self) -> str:
        if self.whole:
            return f"{self.place}: whole, every SHA-256 as expected"
        if self.absent:
            return f"{self.place}: nothing there"
        return f"{self.place}: " + "; ".join([*self.damaged.values(), *(f"{name} is missing" for name in self.missing)])


def cache_directory() -> Path:
    """The cache of handgrad: MNIST/raw in the directory that the system keeps for caches."""
    return Path(optional("platformdirs").user_cache_dir("handgrad", appauthor=False)) / RAW


def places() -> tuple[Path, ...]:
    """Where MNIST is looked for, in this order: HANDGRAD_DATA, the cache, torchvision's directories, Keras's file."""
    own, home = os.environ.get("HANDGRAD_DATA"), Path(os.path.expanduser("~"))
    return (
        *(_within(Path(own)) if own else ()),
        cache_directory(),
        "data" / RAW,
        home / "data" / RAW,
        Path(os.environ.get("KERAS_HOME") or home / ".keras") / "datasets" / "mnist.npz",
    )


def survey(source: Source = MNIST) -> Iterator[Copy]:
    """What each of the places holds, in order, each read and checked only when it is asked for."""
    return (verify(place, source) for place in places())


def verify(place: str | os.PathLike[str], source: Source = MNIST) -> Copy:
    """What `place`, a directory of IDX files or an .npz file, holds of the set; the hash of every payload checked."""
    place = Path(place)
    if place.suffix == ".npz":
        return _verify_npz(place, source)
    payloads: dict[str, bytes] = {}
    missing: list[str] = []
    damaged: dict[str, str] = {}
    for name, known in source.files.items():
        paths = variants(place, name)
        if not paths:
            missing.append(name)
        for path in paths:  # a gzipped file may be whole beside a damaged plain one
            try:
                payloads[name] = known.payload(read_bytes(path), path.name)
            except HandgradError as error:
                damaged.setdefault(name, str(error))
            else:
                damaged.pop(name, None)
                break
    return Copy(place, payloads, tuple(missing), damaged)


def _verify_npz(place: Path, source: Source) -> Copy:
    if not os.path.exists(place):
        return Copy(place, {}, tuple(source.files), {})
    try:
        return Copy(place, _npz_payloads(read_bytes(place), place.name, source), (), {})
    except HandgradError as error:
        return Copy(place, {}, (), dict.fromkeys(source.files, str(error)))


def _npz_payloads(data: bytes, name: str, source: Source) -> dict[str, bytes]:
    """The four files made from the arrays in Keras's file: the file is checked before it is opened, they after it."""
    with np.load(io.BytesIO(source.npz.payload(data, name)), allow_pickle=False) as arrays:
        payloads = {file: idx_payload(arrays[field]) for field, file in FILES.items()}
    return {file: source.files[file].payload(payload, f"{file} in {name}") for file, payload in payloads.items()}


def _within(directory: Path) -> tuple[Path, Path]:
    """Where the files may be in a directory that a user names: there, or in torchvision's layout below it."""
    return directory, directory / RAW


# --------------------------------------------------------------------------------------------------- into the cache


def take_local(directory: str | os.PathLike[str], *, source: Source = MNIST) -> Copy:
    """Copy the set from `directory` (or an .npz file) into the cache. Raises HandgradError where it is not whole."""
    copies = [verify(place, source) for place in _within(Path(directory))]
    for copy in copies:
        if copy.whole:
            return _fill(cache_directory(), copy.payloads.__getitem__, source)
    faults = "; ".join(str(copy) for copy in copies if not copy.absent) or f"{directory} holds none of its files"
    raise HandgradError(f"{source.name} cannot be taken from there: {faults}; expected {_recipe(source)}")


def fetch_mnist(
    directory: str | os.PathLike[str] | None = None, *, source: Source = MNIST, timeout: float = 20.0
) -> Copy:
    """Fetch those of the four files that `directory` (the cache) does not hold whole, each from the first to give it.

    They are kept unzipped. HANDGRAD_MNIST_MIRROR is asked before all others. timeout: seconds a mirror may be silent.
    Raises MnistNotFoundError, with all that was tried, where a file is not to be had or the directory not writable.
    """
    directory = cache_directory() if directory is None else Path(directory)
    return _fill(directory, _Mirrors(source, timeout).payload, source)


def _fill(directory: Path, payload: Callable[[str], bytes], source: Source) -> Copy:
    """Write into `directory` those of the four files that are not whole there, each as `payload` gives it by name."""
    here = verify(directory, source)
    payloads = dict(here.payloads)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in (*here.missing, *here.damaged):
            with replacing(directory / name) as file:
                payloads[name] = payload(name)
                file.write(payloads[name])
    except OSError as error:
        raise MnistNotFoundError(
            f"{directory} cannot be written to ({error.strerror}): mend that, or put the four files elsewhere and name "
            "their directory in HANDGRAD_DATA"
        ) from error
    return Copy(directory, payloads, (), {})


def _recipe(source: Source) -> str:
    return f"{', '.join(f'{name}.gz' for name in source.files)} (gzipped or not)"


# ---------------------------------------------------------------------------------------------------- the mirrors


class _Mirrors:
    """All who serve the set. One that has failed is asked last for the next file; the .npz file only when all have."""

    def __init__(self, source: Source, timeout: float) -> None:
        self.source, self.timeout = source, timeout
        self.mirrors = [*_own_mirror(), *source.mirrors]
        self.from_npz: dict[str, bytes] = {}
        self.tried: list[str] = []

    def payload(self, name: str) -> bytes:
        """The payload of the file `name`, whole. Raises MnistNotFoundError where nobody gives it."""
        if name in self.from_npz:
            return self.from_npz[name]
        for mirror in tuple(self.mirrors):
            try:
                return self._from_mirror(mirror, name)
            except HandgradError as error:
                self.tried.append(f"{mirror}{name} ({error})")
                self.mirrors.remove(mirror)
                self.mirrors.append(mirror)
        try:
            data = download(self.source.npz_url, self.source.npz.size + SLACK, self.timeout)
            self.from_npz = _npz_payloads(data, self.source.npz_url.rpartition("/")[2], self.source)
            return self.from_npz[name]
        except HandgradError as error:
            self.tried.append(f"{self.source.npz_url} ({error})")
        raise MnistNotFoundError(
            f"{self.source.name} could not be fetched: tried {', '.join(self.tried)}; get {_recipe(self.source)} "
            "by other means into a directory DIR, then: handgrad data fetch --from DIR"
        )

    def _from_mirror(self, mirror: str, name: str) -> bytes:
        known = self.source.files[name]
        limit = known.size + SLACK
        try:
            data = download(f"{mirror}{name}.gz", limit, self.timeout)
        except _RefusedError as refused:  # a mirror may be a cache of handgrad's or torchvision's, served as it is
            try:
                data = download(f"{mirror}{name}", limit, self.timeout)
            except _RefusedError:
                raise refused from None
        return known.payload(data, name)


def _own_mirror() -> tuple[str, ...]:
    own = os.environ.get("HANDGRAD_MNIST_MIRROR")
    if not own:
        return ()
    if not re.match(r"https?://[^/]", own):
        raise HandgradError(f"HANDGRAD_MNIST_MIRROR is '{own}': expected the address of a directory, https://...")
    return (own.removesuffix("/") + "/",)


class _RefusedError(HandgradError):
    """The server answers, but not with this file."""


def download(url: str, limit: int, timeout: float) -> bytes:
    """What is at `url`, with a progress bar. Proxies and SSL_CERT_FILE are honoured.

    limit: bytes; more is not read. timeout: seconds without a byte, or at under SLOWEST bytes a second.
    Raises HandgradError, with a short reason, where it does not come whole.
    """
    import http.client  # late: 0.04 s that only a download should cost
    import urllib.error
    import urllib.request

    try:
        request = urllib.request.Request(url, headers={"User-Agent": "handgrad"})  # some hosts refuse Python's own name
        with urllib.request.urlopen(request, timeout=timeout) as response:
            length: int | None = response.length
            if length is not None and length > limit:
                raise HandgradError(f"{length} bytes, expected at most {limit}")
            with _progress(url.rpartition("/")[2], length) as advance:
                return _body(response.read1, length, limit, timeout, advance)
    except urllib.error.HTTPError as error:
        with error:
            raise _RefusedError(_short(f"HTTP {error.code} {error.reason}")) from error
    except HandgradError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no address at all
        raise HandgradError(_reason(error, timeout)) from error


def _body(
    read: Callable[[int], bytes], length: int | None, limit: int, timeout: float, advance: Callable[[int], object]
) -> bytes:
    """All that `read` gives: `length` bytes where that is known, else until it ends."""
    body = bytearray()
    since, before = time.monotonic(), 0
    while length is None or len(body) < length:
        if (now := time.monotonic()) - since > timeout:
            if len(body) - before < SLOWEST * timeout:
                raise HandgradError(f"stalled: {len(body) - before} bytes in {now - since:.3g} s")
            since, before = now, len(body)
        chunk = read(min(1 << 16, limit + 1 - len(body)))  # one piece off the line, however small
        if not chunk:
            break
        body += chunk
        advance(len(chunk))
        if len(body) > limit:
            raise HandgradError(f"more than the {limit} bytes expected")
    if length is not None and len(body) < length:
        raise HandgradError(f"cut off after {len(body)} of {length} bytes")
    return bytes(body)


def _reason(error: Exception, timeout: float) -> str:
    """Why a connection failed, in a few words."""
    cause = getattr(error, "reason", error)  # urllib wraps what the socket said
    if isinstance(cause, TimeoutError):
        return f"no answer in {timeout:g} s"
    if type(cause).__name__ == "SSLCertVerificationError":
        return f"{cause}; where a proxy signs for others, SSL_CERT_FILE names its certificate"
    return _short(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)


def _short(text: str) -> str:
    """One line of what may be a server's own words."""
    return textwrap.shorten(text, 200, placeholder="...")


@contextmanager
def _progress(name: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """A bar on stderr, where that is a terminal and tqdm is installed."""
    try:
        tqdm = optional("tqdm").tqdm
    except MissingExtraError:
        yield lambda count: None
        return
    with tqdm(desc=name, total=total, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        yield bar.update
