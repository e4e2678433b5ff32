"""What a supervisor says again and again, so that workers on other machines know that it lives and commands.

Part of the bus' messages (`protocol.py`), by the same rules.
"""

from __future__ import annotations

from typing import Final

import msgspec

BEAT: Final = 2.0
"""Seconds between a supervisor's beats."""


class SupervisorBeat(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="supervisor_beat"):
    """To a worker on another machine: its supervisor commands, or extends the streams that it has."""
