"""One supervisor per state directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from relay_common.errors import RelayError


class StateLock:
    """A lock on the state directory, held until `release` or until the process ends, however it does."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "lock"
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock; raises RelayError that names the holder when another supervisor has it."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise RelayError(
                f"another supervisor (pid {holder}) is using {self._path.parent}",
                hint="Stop it first, or set another paths.state_dir for this one",
            ) from None
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Release the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
