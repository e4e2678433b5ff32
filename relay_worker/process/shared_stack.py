"""Whether this process shares the media stack with the fork server it was forked from."""

from __future__ import annotations

import os

_loaded_in = 0


def loaded() -> None:
    """Record that this process imported the media stack itself."""
    global _loaded_in
    _loaded_in = os.getpid()


def inherited() -> bool:
    """Whether another process imported the media stack and this one is a fork of it."""
    return _loaded_in not in (0, os.getpid())
