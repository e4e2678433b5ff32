"""Privileges a worker drops before it reads anything from outside."""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Final

DESCRIPTORS: Final = 512
"""Open descriptors allowed; a worker needs about thirty."""
_PR_SET_NO_NEW_PRIVS: Final = 38


def confine() -> None:
    """No new privileges, no core dumps, few descriptors; permanently, for this process.

    Core dumps would hold keys and pictures. Raises OSError when the kernel refuses (Linux 3.5 and later do not).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
