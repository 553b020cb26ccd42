"""Writing files: a file is replaced completely or not at all. JSON files.

Every file that handgrad writes goes through `replacing`. What is not a regular file, such as a device or a pipe, is
written into. The temporary files of killed processes are removed by the next process that writes to their directory.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import math
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import HandgradError
from .locks import lock_file

# The name of a temporary file has a part of the name of the file, whose length may be the largest that is allowed.
_NAME_PART = 40  # characters, 160 bytes at most
_TEMPORARY = re.compile(r"\..{1,40}\.\d+-[0-9a-f]{8}\.part", re.DOTALL)


def as_path(path: Any) -> Path:
    """Convert the name of a file, also bytes, to a Path. Raises HandgradError for anything else."""
    try:
        name = os.fsdecode(path)
    except TypeError as error:
        raise HandgradError(f"expected the name of a file, got {path!r}") from error
    if "\0" in name:
        raise HandgradError(f"{name!r} is not the name of a file: it contains a NUL character")
    return Path(name)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` when the `with` block ends without an exception.

    Until then it has a unique temporary name in the same directory, so that two processes can write the same file. If
    `path` is a symbolic link, the file it points to is replaced. An existing file keeps its mode and, if that is
    permitted, its owner. A device or a pipe is opened and written into. Raises OSError.
    """
    path = Path(path)
    if not path.name:  # "", "." or "/", for which with_name raises ValueError
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    try:
        existing = os.stat(path)
    except FileNotFoundError:  # or a link to a file that does not exist
        existing = None
    target = Path(os.path.realpath(path))
    if existing is not None and not _is_at(target, existing):
        with open(path, "wb") as stream:  # raises IsADirectoryError for a directory
            yield stream
        return
    if existing is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    _remove_temporary_files_once(target.parent)
    temporary = target.with_name(f".{target.name[:_NAME_PART]}.{os.getpid()}-{os.urandom(4).hex()}.part")
    try:  # before the file is created, because a signal handler can raise an exception at once
        with _create_locked(temporary) as file:
            if existing is not None:
                _copy_mode(existing, temporary)
            yield file
            file.flush()
            os.fsync(file.fileno())
            if sys.platform == "win32":  # there, an open file cannot be renamed
                file.close()
            os.replace(temporary, target)
    except BaseException:  # KeyboardInterrupt too
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a device or a pipe, which is written into, or a link to one."""
    try:
        existing = os.stat(path)
        return not stat.S_ISDIR(existing.st_mode) and not _is_at(Path(os.path.realpath(path)), existing)
    except OSError:
        return False


def _is_at(target: Path, existing: os.stat_result) -> bool:
    """Whether `existing` is a regular file and can be replaced at `target`, unlike the file behind /dev/stdout."""
    try:
        return stat.S_ISREG(existing.st_mode) and os.path.samestat(os.stat(target), existing)
    except FileNotFoundError:
        return False


def _copy_mode(existing: os.stat_result, temporary: Path) -> None:
    """Give a temporary file the owner and the mode of the file it will replace."""
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):
            os.chown(temporary, existing.st_uid, existing.st_gid)
    with contextlib.suppress(OSError):  # some file systems have no modes
        os.chmod(temporary, stat.S_IMODE(existing.st_mode))


def _create_locked(temporary: Path) -> BinaryIO:
    """Create a temporary file, locked as long as it is open."""
    while True:
        file = open(temporary, "xb")  # noqa: SIM115 (the caller closes it)
        if sys.platform != "win32":  # there, an open file cannot be removed, also without a lock
            with contextlib.suppress(OSError):  # a file system without locks
                lock_file(file.fileno(), wait=True)
        if os.path.exists(temporary):  # else another process, which removes temporary files, had the lock first
            return file
        file.close()


def remove_temporary_files(directory: str | os.PathLike[str]) -> None:
    """Remove the temporary files in a directory that killed processes have left. Those of living processes stay."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.path for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    except OSError:
        return
    for path in names:
        with contextlib.suppress(OSError):  # it is in use, or removed, or the file system has no locks
            if sys.platform == "win32":
                os.unlink(path)
                continue
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                lock_file(descriptor)
                os.unlink(path)
            finally:
                os.close(descriptor)


@functools.lru_cache(maxsize=256)
def _remove_temporary_files_once(directory: Path) -> None:
    """Remove them before the first file that this process writes to a directory."""
    remove_temporary_files(directory)


# ---- Files -----------------------------------------------------------------------------------------------------------


def replace_file(path: str | os.PathLike[str], *content: Any) -> None:
    """Write a file atomically: bytes or contiguous arrays, one after the other.

    Raises HandgradError if it cannot be written.
    """
    path = Path(path)
    try:
        with replacing(path) as file:
            for part in content:
                file.write(part)
    except OSError as error:
        raise HandgradError(f"cannot write {path}: {error.strerror or error}") from error


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a file. Raises HandgradError if it does not exist or cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise HandgradError(f"cannot read {path}: {error.strerror or error}") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file. Raises HandgradError if it cannot be read."""
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise HandgradError(f"{path} is not a JSON file, or is incomplete: {error}") from error


def encode_json(value: Any, indent: int | None = None) -> str:
    """Encode JSON, with null in place of NaN and infinity, which JSON does not have."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_without_nan(value), indent=indent, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write an indented JSON file atomically, with null in place of NaN and infinity."""
    replace_file(path, (encode_json(value, 2) + "\n").encode())
