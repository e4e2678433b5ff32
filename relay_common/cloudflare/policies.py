"""Whether the SFU takes the policies of a simulcast track: what it is to do by itself when a layer cannot be sent.

Cloudflare documents them for pulls and updates, with `none` as their default. An SFU that refuses a request for them
gets it once more without, and they are left out from then on: the layer is chosen all the same, and its viewer changes
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from relay_common.cloudflare.models import RemoteTrack, Reply, SimulcastChoice, TrackObject

REFUSED: Final = "invalid_params"
"""Cloudflare's code for a field or value that it does not take (HTTP 406)."""


class LayerPolicies:
    """What one SFU has been found to take."""

    def __init__(self) -> None:
        self.taken = True
        self.policies_refused = 0
        """Requests that were refused for them: one, unless calls overlap."""

    def asked(self, targets: Sequence[tuple[str, RemoteTrack]]) -> bool:
        """Whether a request for `targets` (mid or "", and track) has policies that the SFU may refuse."""
        return self.taken and any(track.simulcast is not None for _, track in targets)

    def refused_by(self, reply: Reply) -> bool:
        """Whether an answer refuses every one of its tracks as the SFU does what it does not take."""
        items = reply.tracks or []
        return bool(items) and all(item.error_code == REFUSED for item in items)

    def found_refused(self) -> None:
        """The same request was taken without them."""
        self.taken = False
        self.policies_refused += 1


def remote_objects(targets: Sequence[tuple[str, RemoteTrack]], *, policies: bool) -> list[TrackObject]:
    """Remote tracks as a request names them: by mid where there is one."""
    return [
        TrackObject(
            location="remote",
            mid=mid,
            session_id=track.session,
            track_name=track.name,
            simulcast=_choice(track.simulcast, policies),
        )
        for mid, track in targets
    ]


def _choice(wanted: SimulcastChoice | None, policies: bool) -> SimulcastChoice | None:
    if wanted is None or policies:
        return wanted
    return msgspec.structs.replace(wanted, priority_ordering="", rid_not_available="")
