"""What supervisor and worker say of a publication's ICE session at a WHIP server, which alone can be changed while it
lasts (RFC 9725 §4.3).

Part of the bus' messages (`protocol.py`), by the same rules.
"""

from __future__ import annotations

import msgspec


class _PatchMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", omit_defaults=True):
    pass


class PatchSession(_PatchMessage, frozen=True, tag="patch"):
    """From a worker: tell the publication's server of this (application/trickle-ice-sdpfrag, RFC 8840)."""

    request: int
    publication: str
    sink: str
    fragment: str
    restart: bool = False
    """Whether it restarts ICE; else it names further candidates."""


class SessionPatched(_PatchMessage, frozen=True, tag="patched"):
    """From the supervisor: what became of a `PatchSession`."""

    request: int
    fragment: str = ""
    """The server's end of the ICE session that it began."""
    reason: str = ""
    """Why it was not done; "" when it was."""
