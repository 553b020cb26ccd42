"""Locks between processes: of an open file, and of a directory."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

from ..errors import HandgradError


class LockedError(HandgradError):
    """Another process has the lock."""


class DirectoryLock:
    """A lock of a directory, held by one process at a time. The system releases it when the process ends.

    Parameters
    ----------
    directory : path-like
        An existing directory. While the lock is held, it has a file named ".lock".

    Raises
    ------
    LockedError
        If another process has the lock.
    OSError
        If the file cannot be created.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.path = Path(directory, ".lock")
        while True:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                lock_file(self._descriptor)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                    os.close(self._descriptor)
                    raise LockedError(f"{directory} is in use by another process") from error
                return  # the file system has no locks
            if self._is_current():
                return
            os.close(self._descriptor)  # the process that had the lock has removed the file

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Remove the file and release the lock."""
        if sys.platform == "win32":  # there, an open file cannot be removed
            os.close(self._descriptor)
            with contextlib.suppress(OSError):
                self.path.unlink()
        else:
            with contextlib.suppress(OSError):
                self.path.unlink()
            os.close(self._descriptor)


def lock_file(descriptor: int, *, wait: bool = False) -> None:
    """Lock an open file exclusively. Raises OSError if another process has the lock and `wait` is False."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
