"""What supervisor and worker say of renditions: the smaller pictures that a camera's publication may carry as well.

A publication with a rendition is one simulcast video track of two layers. Part of the bus' messages (`protocol.py`), by
the same rules.
"""

from __future__ import annotations

from typing import Final

import msgspec

FULL_RID: Final = "a"
"""The camera's own picture. Cloudflare's SFU orders layers by their rids, the best first."""
SMALL_RID: Final = "b"
RID_OF: Final = {"full": FULL_RID, "small": SMALL_RID}
"""Layers by what viewers call them."""


class SetRendition(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", omit_defaults=True, tag="rendition"):
    """What to make of the camera's pictures besides passing them on, from now on; sent to workers that know it."""

    mode: str = "off"
    """`off`, `keyframes` or `smooth`; the next publication offers it, one that is up keeps what it has."""
    watched: bool = False
    """Whether a viewer has the small picture now; without one: a picture in 10 s, and no encoder that runs for it."""
    budget: float = 0.0
    """Milliseconds of CPU a second that it may cost; `smooth` that costs more falls back to `keyframes`."""
