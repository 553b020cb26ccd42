"""MNIST: search, download, verification.

A copy of MNIST is a directory of the four IDX files, plain or gzipped, or Keras's mnist.npz. A copy is used only if the
SHA-256 hash of each uncompressed file is the expected one; the hashes are checked every time the copy is read.
handgrad's cache has the layout of torchvision, so `torchvision.datasets.MNIST` can read it too.

MNIST was made by Yann LeCun and Corinna Cortes from NIST's databases. Its licence is CC BY-SA 3.0.
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
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import HandgradError, MissingExtraError, optional
from ..io.atomic import read_bytes, replacing
from . import torchvision
from .dataset import FILES, Dataset, build_dataset, find_files, matching_files, read_payloads
from .idx import decompress, encode_idx
from .mapped import load_idx

logger = logging.getLogger(__name__)  # without a logging configuration, Python prints warnings to stderr

RAW = Path("MNIST", "raw")  # where torchvision keeps the files, relative to its root directory
GZIP_OVERHEAD = 1 << 16  # bytes; a gzipped file may be larger than its content by at most this
MIN_SPEED = 1000  # bytes per second; a slower mirror is skipped


class MnistNotFoundError(HandgradError):
    """MNIST is not on this machine and could not be downloaded."""


@dataclass(frozen=True)
class Checksum:
    """Size and SHA-256 hash of a file.

    Parameters
    ----------
    size : int
        Number of bytes after decompression.
    sha256 : str
        SHA-256 of the uncompressed content, in hexadecimal.
    """

    size: int
    sha256: str

    def verified(self, data: bytes, name: str) -> bytes:
        """Decompress the content of a file and verify it.

        Parameters
        ----------
        data : bytes
            Content of the file, plain or gzipped.
        name : str
            Name of the file, used in error messages.

        Returns
        -------
        bytes
            Uncompressed content.

        Raises
        ------
        HandgradError
            If the gzip data is damaged, or if size or hash differ.
        """
        payload = decompress(data, name, limit=self.size)
        if len(payload) != self.size:
            page = " but a web page" if data.lstrip()[:1] == b"<" else ""
            raise HandgradError(
                f"{name} is not the expected file{page}: it has {len(payload)} bytes, expected {self.size}"
            )
        digest = hashlib.sha256(payload).hexdigest()
        if digest != self.sha256:
            raise HandgradError(f"{name} is damaged or a different file: SHA-256 {digest}, expected {self.sha256}")
        return payload


@dataclass(frozen=True)
class Source:
    """Checksums and download addresses of a data set.

    Parameters
    ----------
    name : str
        Name of the data set.
    files : mapping of str to Checksum
        Checksums of the four IDX files by file name.
    mirrors : tuple of str
        URLs of directories, ending in a slash. Each mirror is asked for NAME.gz, then for NAME.
    npz_url : str
        URL of an .npz file with all four arrays. It is downloaded only if all mirrors fail.
    npz : Checksum
        Checksum of the .npz file.
    """

    name: str
    files: Mapping[str, Checksum]
    mirrors: tuple[str, ...]
    npz_url: str
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
    """Load MNIST, or the data set in a directory.

    Without `directory`, the environment variable HANDGRAD_DATA names the directory. If HANDGRAD_DATA is not set, the
    first complete copy of MNIST in `search_paths` is used. A warning is logged for each damaged copy, and a damaged
    copy in the cache is repaired.

    Parameters
    ----------
    directory : path-like, optional
        Directory of four IDX files, or path of Keras's mnist.npz.
    fetch : bool
        Download MNIST into the cache if no complete copy is found.
    source : Source
        Checksums and mirrors.

    Returns
    -------
    Dataset
        Its name is "MNIST" if the hashes are those of MNIST, else the name of the directory.

    Raises
    ------
    HandgradError
        If the data set in `directory` or HANDGRAD_DATA is incomplete or damaged, or if `directory` contains no data
        set.
    MnistNotFoundError
        If no complete copy of MNIST is found, and the download failed or `fetch` is False.
    """
    user_path = (os.environ.get("HANDGRAD_DATA") or None) if directory is None else directory
    if user_path is not None:
        dataset = load_user_data(Path(user_path), source)
        if dataset is not None:
            return dataset
        if directory is not None:
            raise HandgradError(
                f"{Path(directory)} contains no IDX files: expected {', '.join(FILES.values())}, plain or gzipped; "
                "or the path of Keras's mnist.npz"
            )
        logger.warning("HANDGRAD_DATA is %s, which contains no IDX files: searching the other locations", user_path)
    return build_dataset(_complete_copy(fetch, source).payloads, source.name)


def find_mnist(source: Source = MNIST) -> Path | None:
    """Find the first complete copy of MNIST in `search_paths`, with every hash checked.

    Parameters
    ----------
    source : Source
        Checksums of the data set.

    Returns
    -------
    Path or None
        A directory or an .npz file, which `load_mnist` reads. None if there is no complete copy.
    """
    return next((copy.path for copy in check_copies(source) if copy.complete), None)


def load_user_data(path: Path, source: Source, shuffle: str = "auto") -> Dataset | None:
    """Load the data set in a user's directory, torchvision's too, or mnist.npz; None if there are no IDX files.

    Large files stay on the disk: see `handgrad.data.load` for `shuffle`.
    """
    if path.suffix == ".npz" and path.is_file():
        return build_dataset(_npz_payloads(read_bytes(path), str(path), source), source.name)
    found = [directory for directory in torchvision.candidates(path) if torchvision.has_mnist_names(directory)]
    if not found:
        return torchvision.read_prefixed(path)
    directory = found[0]
    if len(found) > 1:
        others = ", ".join(str(other) for other in found[1:])
        logger.warning("%s contains several data sets: reading %s; others are %s", path, directory, others)
    mapped = load_idx(directory, find_files(directory), shuffle)
    if mapped is not None:
        name = torchvision.dataset_name(directory)
        return torchvision.with_known_classes(replace(mapped, name=name), name)
    payloads = read_payloads(directory)
    if all(hashlib.sha256(payloads[name]).hexdigest() == file.sha256 for name, file in source.files.items()):
        return build_dataset(payloads, source.name)
    name = torchvision.dataset_name(directory)
    return torchvision.with_known_classes(build_dataset(payloads, name), name)


def _complete_copy(fetch: bool, source: Source) -> Copy:
    """Find or download a complete copy, and repair the cache if it is damaged."""
    cache, repair = cache_directory(), False
    for copy in check_copies(source):
        if copy.complete:
            break
        if not copy.absent:
            logger.warning("%s", copy)
            repair |= copy.path == cache
    else:
        if not fetch:
            searched = ", ".join(map(str, search_paths()))
            raise MnistNotFoundError(f"{source.name} was not found in {searched}: run handgrad data fetch")
        return fetch_mnist(source=source)
    if repair:
        try:
            _complete_directory(cache, copy.payloads.__getitem__, source)
        except HandgradError as error:  # the complete copy elsewhere can still be used
            logger.warning("%s", error)
    return copy


# ----------------------------------------------------------------------------------------------- locations and copies


@dataclass(frozen=True, eq=False)
class Copy:
    """Result of checking one location for the four files.

    Parameters
    ----------
    path : Path
        Directory or .npz file.
    payloads : mapping of str to bytes
        Uncompressed content of the correct files, by file name.
    missing : tuple of str
        Names of the files that do not exist.
    damaged : mapping of str to str
        Error message of each file that cannot be read or has another hash, by file name.
    """

    path: Path
    payloads: Mapping[str, bytes]
    missing: tuple[str, ...]
    damaged: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """True if all four files are correct."""
        return not self.missing and not self.damaged

    @property
    def absent(self) -> bool:
        """True if none of the four files exists."""
        return not self.payloads and not self.damaged

    def __repr__(self) -> str:
        return f"<Copy {self}>"  # without the 55 MB of payloads

    def __str__(self) -> str:
        if self.complete:
            return f"{self.path}: complete, every SHA-256 is correct"
        if self.absent:
            return f"{self.path}: not found"
        return f"{self.path}: " + "; ".join([*self.damaged.values(), *(f"{name} is missing" for name in self.missing)])


def cache_directory() -> Path:
    """Return handgrad's cache directory for MNIST.

    Returns
    -------
    Path
        MNIST/raw in the user's cache directory, for example ~/.cache/handgrad/MNIST/raw on Linux.

    Raises
    ------
    MissingExtraError
        If platformdirs is not installed.
    """
    return Path(optional("platformdirs").user_cache_dir("handgrad", appauthor=False)) / RAW


def search_paths() -> tuple[Path, ...]:
    """List the locations that are searched for MNIST.

    Returns
    -------
    tuple of Path
        In this order: HANDGRAD_DATA, the cache, torchvision's directories, Keras's mnist.npz.
    """
    user_path, home = os.environ.get("HANDGRAD_DATA"), Path(os.path.expanduser("~"))
    return (
        *(_candidates(Path(user_path)) if user_path else ()),
        cache_directory(),
        "data" / RAW,
        home / "data" / RAW,
        Path(os.environ.get("KERAS_HOME") or home / ".keras") / "datasets" / "mnist.npz",
    )


def check_copies(source: Source = MNIST) -> Iterator[Copy]:
    """Check every location in `search_paths`, lazily.

    Parameters
    ----------
    source : Source
        Checksums of the data set.

    Yields
    ------
    Copy
        What the location contains, in the order of `search_paths`.
    """
    return (verify(path, source) for path in search_paths())


def verify(path: str | os.PathLike[str], source: Source = MNIST) -> Copy:
    """Read a copy of the data set and check the hash of every file.

    Parameters
    ----------
    path : path-like
        Directory of IDX files, or an .npz file.
    source : Source
        Checksums of the data set.

    Returns
    -------
    Copy
        The correct, missing and damaged files.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return _verify_npz(path, source)
    payloads: dict[str, bytes] = {}
    missing: list[str] = []
    damaged: dict[str, str] = {}
    for name, checksum in source.files.items():
        files = matching_files(path, name)
        if not files:
            missing.append(name)
        for file in files:  # NAME.gz may be correct although NAME is damaged
            try:
                payloads[name] = checksum.verified(read_bytes(file), file.name)
            except HandgradError as error:
                damaged.setdefault(name, str(error))
            else:
                damaged.pop(name, None)
                break
    return Copy(path, payloads, tuple(missing), damaged)


def _verify_npz(path: Path, source: Source) -> Copy:
    """Check Keras's mnist.npz and the four arrays in it."""
    if not os.path.exists(path):
        return Copy(path, {}, tuple(source.files), {})
    try:
        return Copy(path, _npz_payloads(read_bytes(path), path.name, source), (), {})
    except HandgradError as error:
        return Copy(path, {}, (), dict.fromkeys(source.files, str(error)))


def _npz_payloads(data: bytes, name: str, source: Source) -> dict[str, bytes]:
    """Encode the arrays of an .npz file as four IDX files; the hash of the .npz file is checked before it is opened."""
    with np.load(io.BytesIO(source.npz.verified(data, name)), allow_pickle=False) as arrays:
        payloads = {file: encode_idx(arrays[field]) for field, file in FILES.items()}
    return {file: source.files[file].verified(payload, f"{file} in {name}") for file, payload in payloads.items()}


def _candidates(directory: Path) -> tuple[Path, Path]:
    """List where a user's directory may contain the files: directly, or in torchvision's layout."""
    return directory, directory / RAW


# --------------------------------------------------------------------------------------------------- filling the cache


def copy_to_cache(directory: str | os.PathLike[str], *, source: Source = MNIST) -> Copy:
    """Copy the data set from a local directory into the cache.

    Parameters
    ----------
    directory : path-like
        Directory of the four IDX files, or path of Keras's mnist.npz.
    source : Source
        Checksums of the data set.

    Returns
    -------
    Copy
        The complete copy in the cache.

    Raises
    ------
    HandgradError
        If a file is missing or damaged. The cache is unchanged then.
    """
    copies = [verify(path, source) for path in _candidates(Path(directory))]
    for copy in copies:
        if copy.complete:
            return _complete_directory(cache_directory(), copy.payloads.__getitem__, source)
    problems = "; ".join(str(copy) for copy in copies if not copy.absent) or f"{directory} contains none of its files"
    raise HandgradError(f"{source.name} cannot be copied: {problems}; expected {_expected_files(source)}")


def fetch_mnist(
    directory: str | os.PathLike[str] | None = None, *, source: Source = MNIST, timeout: float = 20.0
) -> Copy:
    """Download the missing and damaged files of a directory.

    Each file comes from the first mirror that provides it and is stored uncompressed. The mirror in the environment
    variable HANDGRAD_MNIST_MIRROR is tried first.

    Parameters
    ----------
    directory : path-like, optional
        Directory to complete. Default: the cache.
    source : Source
        Checksums and mirrors.
    timeout : float
        Maximum time in seconds from a request to its response, redirects included, and for each 1000 * timeout bytes
        of the response.

    Returns
    -------
    Copy
        The complete copy in the directory.

    Raises
    ------
    MnistNotFoundError
        If no mirror provides a file, or if the directory is not writable. The message lists all attempts.
    """
    directory = cache_directory() if directory is None else Path(directory)
    return _complete_directory(directory, _Mirrors(source, timeout).payload, source)


def _complete_directory(directory: Path, payload: Callable[[str], bytes], source: Source) -> Copy:
    """Write the missing and damaged files of a directory; `payload` returns the content for a file name."""
    existing = verify(directory, source)
    payloads = dict(existing.payloads)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in (*existing.missing, *existing.damaged):
            with replacing(directory / name) as file:
                payloads[name] = payload(name)
                file.write(payloads[name])
    except OSError as error:
        raise MnistNotFoundError(
            f"cannot write to {directory} ({error.strerror}): fix the cause, or put the four files into another "
            "directory and set HANDGRAD_DATA to its path"
        ) from error
    return Copy(directory, payloads, (), {})


def _expected_files(source: Source) -> str:
    """List the four files for an error message."""
    return f"{', '.join(f'{name}.gz' for name in source.files)} (gzipped or plain)"


# ---------------------------------------------------------------------------------------------------- download


class _Mirrors:
    """Download from several mirrors; a mirror that failed is tried last for the next file, the .npz file after all."""

    def __init__(self, source: Source, timeout: float) -> None:
        self.source, self.timeout = source, timeout
        self.mirrors = [*_user_mirror(), *source.mirrors]
        self.from_npz: dict[str, bytes] = {}
        self.tried: list[str] = []

    def payload(self, name: str) -> bytes:
        """Return the verified content of a file, or raise MnistNotFoundError if no mirror provides it."""
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
            data = _download(self.source.npz_url, self.source.npz.size + GZIP_OVERHEAD, self.timeout)
            self.from_npz = _npz_payloads(data, self.source.npz_url.rpartition("/")[2], self.source)
            return self.from_npz[name]
        except HandgradError as error:
            self.tried.append(f"{self.source.npz_url} ({error})")
        raise MnistNotFoundError(
            f"{self.source.name} could not be downloaded: tried {', '.join(self.tried)}; "
            f"put {_expected_files(self.source)} into a directory DIR and run handgrad data fetch --from DIR"
        )

    def _from_mirror(self, mirror: str, name: str) -> bytes:
        """Download NAME.gz, or NAME if the mirror does not have NAME.gz, and verify it."""
        checksum = self.source.files[name]
        limit = checksum.size + GZIP_OVERHEAD
        try:
            data = _download(f"{mirror}{name}.gz", limit, self.timeout)
        except _HTTPStatusError as status:  # a mirror may serve handgrad's or torchvision's directory of plain files
            try:
                data = _download(f"{mirror}{name}", limit, self.timeout)
            except _HTTPStatusError:
                raise status from None
        return checksum.verified(data, name)


def _user_mirror() -> tuple[str, ...]:
    """Return the mirror in HANDGRAD_MNIST_MIRROR, with a slash at the end, as a tuple of zero or one URLs."""
    url = os.environ.get("HANDGRAD_MNIST_MIRROR")
    if not url:
        return ()
    if not re.match(r"https?://[^/]", url):
        raise HandgradError(f"HANDGRAD_MNIST_MIRROR is '{url}': expected the URL of a directory, https://...")
    return (url.removesuffix("/") + "/",)


class _HTTPStatusError(HandgradError):
    """The server answered with an HTTP error status, such as 404."""


class _Deadline:
    """The end of the time that a server has for its next answer, in seconds of `time.monotonic`.

    It is the same for everything before the body of the response: connections, redirects, status lines and headers.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.restart()

    def restart(self) -> None:
        """Give the server another `timeout` seconds."""
        self.start = time.monotonic()

    def remaining(self) -> float:
        """Return the remaining seconds. Raises TimeoutError if there are none."""
        left = self.start + self.timeout - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _download(url: str, limit: int, timeout: float) -> bytes:
    """Download at most `limit` bytes, with a progress bar; urllib honours proxy variables and SSL_CERT_FILE.

    The download fails if there is no response after `timeout` seconds, and if the body is slower than MIN_SPEED for
    that long.
    """
    import http.client  # imported late: only a download should cost these 0.04 s
    import urllib.error
    import urllib.request

    from .http import opener

    deadline = _Deadline(timeout)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "handgrad"})  # some hosts reject urllib's default
        with opener(deadline.remaining).open(request, timeout=timeout) as response:
            length: int | None = response.length
            if length is not None and length > limit:
                raise HandgradError(f"{length} bytes, expected at most {limit}")
            with _progress_bar(url.rpartition("/")[2], length) as advance:
                return _read_body(response.read1, length, limit, deadline, advance)
    except urllib.error.HTTPError as error:
        with error:
            raise _HTTPStatusError(_one_line(f"HTTP {error.code} {error.reason}")) from error
    except HandgradError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: invalid URL
        raise HandgradError(_failure_reason(error, timeout)) from error


def _read_body(
    read: Callable[[int], bytes], length: int | None, limit: int, deadline: _Deadline, advance: Callable[[int], object]
) -> bytes:
    """Read `length` bytes, or to the end if the length is unknown.

    The next MIN_SPEED * timeout bytes of the body must arrive within `timeout` seconds, so that the time is bounded.
    What surrounds the body, such as the sizes of chunks, does not count.
    """
    body = bytearray()
    deadline.restart()
    counted = 0  # bytes before the last restart
    while length is None or len(body) < length:
        if len(body) - counted >= MIN_SPEED * deadline.timeout:
            deadline.restart()
            counted = len(body)
        try:
            chunk = read(min(1 << 16, limit + 1 - len(body)))  # returns as soon as some bytes are available
        except TimeoutError:
            if len(body) == counted:
                raise
            seconds = time.monotonic() - deadline.start
            raise HandgradError(f"too slow: {len(body) - counted} bytes in {seconds:.3g} s") from None
        if not chunk:
            break
        body += chunk
        advance(len(chunk))
        if len(body) > limit:
            raise HandgradError(f"more than the expected {limit} bytes")
    if length is not None and len(body) < length:
        raise HandgradError(f"connection closed after {len(body)} of {length} bytes")
    return bytes(body)


def _failure_reason(error: Exception, timeout: float) -> str:
    """Describe in a few words why a connection failed."""
    cause = getattr(error, "reason", error)  # urllib wraps the socket's error
    if isinstance(cause, TimeoutError):
        return f"no response in {timeout:g} s"
    if type(cause).__name__ == "SSLCertVerificationError":
        return f"{cause}; if a proxy re-signs connections, set SSL_CERT_FILE to the file of its certificate"
    return _one_line(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)


def _one_line(text: str) -> str:
    """Shorten text to one line; a server can send any text as its reason."""
    return textwrap.shorten(text, 200, placeholder="...")


@contextmanager
def _progress_bar(name: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """Show a progress bar if stderr is a terminal and tqdm is installed."""
    try:
        tqdm = optional("tqdm").tqdm
    except MissingExtraError:
        yield lambda count: None
        return
    with tqdm(desc=name, total=total, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        yield bar.update
