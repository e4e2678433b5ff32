"""What this process shares with the fork server it was forked from: the media stack, and how that was prepared."""

from __future__ import annotations

import os
from typing import Final

REHEARSED: Final = "rehearsed"
"""What `rehearsal` says where it went well."""
_loaded_in = 0
_rehearsal = ""


def loaded() -> None:
    """Record that this process imported the media stack itself."""
    global _loaded_in
    _loaded_in = os.getpid()


def inherited() -> bool:
    """Whether another process imported the media stack and this one is a fork of it."""
    return _loaded_in not in (0, os.getpid())


def rehearsed(words: str) -> None:
    """Record how the rehearsal of this process went; see `rehearsal`."""
    global _rehearsal
    _rehearsal = words


def rehearsal() -> str:
    """Whether a worker's life was rehearsed in the process that this one is a fork of: `rehearsed`, or why not, in
    words; empty where none was to be.
    """
    return _rehearsal
