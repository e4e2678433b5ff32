"""Imported by the fork server behind `preload` where workers use the compiled data path: that is rehearsed, then."""

from __future__ import annotations

import relay_worker.process.preload  # noqa: F401
from relay_worker import native

native.choose("compiled")
