"""One supervisor per state directory, and per runtime directory: two would take each other's sockets."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from relay_common.errors import RelayError


class StateLock:
    """A lock on a directory, `paths.<key>`, held until `release` or until the process ends, however it does.

    With `temporary` its file is removed on release: nothing is to be left in a runtime directory.
    """

    def __init__(self, directory: Path, *, key: str = "state_dir", temporary: bool = False) -> None:
        self._path, self._key, self._temporary = directory / "lock", key, temporary
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock; raises RelayError that names the holder when another supervisor has it."""
        while True:
            fd = self._lock()
            # The previous holder may have removed the file between our opening and locking it.
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(fd).st_ino == self._path.stat().st_ino:
                    break
            os.close(fd)
        self._fd = fd
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())

    def _lock(self) -> int:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise RelayError(
                f"another supervisor (pid {holder}) is using {self._path.parent}",
                hint=f"Stop it first, or set another paths.{self._key} for this one",
            ) from None
        return fd

    def release(self) -> None:
        """Release the lock."""
        if self._fd >= 0:
            if self._temporary:
                self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1
