"""Imported by the fork server instead of `preload`, to make what that has imported immortal: see `immortal`."""

from __future__ import annotations

import gc

import relay_worker.process.preload  # noqa: F401
from relay_worker.process.immortal import make_immortal

gc.unfreeze()  # the collector lists nothing that is frozen
make_immortal()
gc.freeze()
