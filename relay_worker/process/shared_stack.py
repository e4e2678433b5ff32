"""Whether this process shares the media stack with the fork server that it came from."""

from __future__ import annotations

import os

_loaded_in = 0


def loaded() -> None:
    """Remember that this process is the one that imported the media stack."""
    global _loaded_in
    _loaded_in = os.getpid()


def inherited() -> bool:
    """Whether the media stack was imported by another process, of which this one is a fork."""
    return _loaded_in not in (0, os.getpid())
