"""Imported by the fork server behind `preload`, to rehearse a worker's life before the first one is forked."""

from __future__ import annotations

import gc

import relay_worker.process.preload  # noqa: F401
from relay_worker.process.rehearsal import rehearse_or_start_over

gc.unfreeze()  # the collector lists nothing that is frozen
rehearse_or_start_over()
gc.collect()
gc.freeze()
