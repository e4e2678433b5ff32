"""Imported by the fork server last: workers allocate in pages of their own, not in holes among what they share."""

from __future__ import annotations

import relay_worker.process.preload  # noqa: F401
from relay_common.allocator import fill_holes, give_back
from relay_worker.media.aac_decoder import open_in_advance

open_in_advance()
give_back()
fill_holes()
