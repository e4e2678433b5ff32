"""Whether a camera's worker is still trusted with the compiled data path: crashes end that."""

from __future__ import annotations

from collections import deque
from typing import Final

from relay_common.proc import CRASHES
from relay_worker.process import data_path

MOST: Final = 2
"""Deaths by them …"""
WINDOW: Final = 600.0
"""… within so many seconds after which the camera's workers are started on the Python path."""


def may_be_compiled(used: str, *, remote: bool) -> bool:
    """Whether a worker that said it uses this, or was only told so, may have run compiled code.

    One that was told `auto` and has not said hello did where that is installed; of other machines nobody here knows.
    """
    if used == "auto":
        return remote or data_path.is_compiled("auto")
    return used == "compiled"


class CompiledTrust:
    """One camera's, for as long as this supervisor keeps a worker for it."""

    def __init__(self) -> None:
        self.lost = False
        self._crashes: deque[float] = deque(maxlen=MOST)

    def died(self, code: int | None, now: float) -> bool:
        """A worker on the compiled path ended with this exit code; True when that has just cost it the trust."""
        if self.lost or code is None or -code not in CRASHES:
            return False
        self._crashes.append(now)
        self.lost = len(self._crashes) == MOST and now - self._crashes[0] <= WINDOW
        return self.lost
