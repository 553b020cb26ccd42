"""Atomic writes: a file is replaced completely or not at all. JSON files."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import HandgradError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` when the `with` block ends without an exception.

    Until then it has a unique temporary name, so that two processes can write the same file. Raises OSError.
    """
    if not path.name:  # "", "." or "/", for which with_name raises ValueError
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # KeyboardInterrupt too
        temporary.unlink(missing_ok=True)
        raise


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file atomically. Raises HandgradError if it cannot be written."""
    path = Path(path)
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise HandgradError(f"cannot write {path}: {error.strerror or error}") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file. Raises HandgradError if it cannot be read."""
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise HandgradError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise HandgradError(f"{path} is not a JSON file, or is incomplete: {error}") from error


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write an indented JSON file atomically."""
    replace_file(path, (json.dumps(value, indent=2) + "\n").encode())
