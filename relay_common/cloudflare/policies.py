"""Whether the SFU takes the policies of a simulcast track: what it is to do by itself when a layer cannot be sent.

Cloudflare documents them for pulls and updates, with `none` as their default. An SFU that refuses a request for them,
or single tracks of it, gets those once more without, and they are left out from then on: the layer is chosen all the
same, and its viewer changes it.

A session whose offer waits for its answer takes no further request. Where a pull was refused in part, so that there is
an offer for the rest, `PoliciesRefused` asks for another session, in which they are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from relay_common.cloudflare.errors import SfuError
from relay_common.cloudflare.models import RemoteTrack, Reply, SimulcastChoice, TrackObject, TrackResult
from relay_common.errors import Remedy

REFUSED: Final = "invalid_params"
"""Cloudflare's code for a field or value that it does not take (HTTP 406)."""

Target = tuple[str, RemoteTrack]
"""A mid, or "", and the track to be received there."""


class PoliciesRefused(SfuError):
    """Tracks of a pull were refused as if for their policies, and others were not: pull them all in another session."""

    def __init__(self) -> None:
        super().__init__("Cloudflare SFU refused some tracks of a pull", code=REFUSED, remedy=Remedy.REGENERATE)


class LayerPolicies:
    """What one SFU has been found to take."""

    def __init__(self) -> None:
        self.taken = True
        self._suspected = False
        """Whether they were refused, and no request without them was made yet."""
        self.policies_refused = 0
        """Requests that were refused for them: one, unless calls overlap."""

    @property
    def sent(self) -> bool:
        """Whether requests have them."""
        return self.taken and not self._suspected

    def refused(self, targets: Sequence[Target], reply: Reply) -> list[Target]:
        """The targets with policies that an answer refuses as the SFU does what it does not take."""
        items = list(reply.tracks or [])
        layered = [(target, result_of(items, target[1], target[0])) for target in targets if target[1].simulcast]
        return [target for target, item in layered if item is not None and item.error_code == REFUSED]

    def suspect(self, reply: Reply) -> None:
        """An answer refuses tracks that had them. Raises PoliciesRefused where they cannot be asked for again."""
        self._suspected = True
        if reply.requires_immediate_renegotiation:
            raise PoliciesRefused

    def judge(self, targets: Sequence[Target], reply: Reply | None) -> bool:
        """Learn from the answer to a request without them (None: it was refused); whether they are found refused."""
        layered = [target for target in targets if target[1].simulcast is not None]
        if not self._suspected or not layered:
            return False
        self._suspected = False
        if reply is None or len(self.refused(targets, reply)) == len(layered):
            return False
        self.taken = False
        self.policies_refused += 1
        return True


def result_of(items: list[TrackResult], track: RemoteTrack, mid: str) -> TrackResult | None:
    """Take the result for a requested track from `items`: by mid if one was named, otherwise by locator."""
    for item in items:
        if (mid and item.mid == mid) or (item.track_name == track.name and item.session_id in (track.session, None)):
            items.remove(item)
            return item
    return None


def joined_replies(first: Reply, repeated: Sequence[Target], again: Reply) -> Reply:
    """The answer to a request of which `repeated` was asked for again."""
    items = list(first.tracks or [])
    for mid, track in repeated:
        result_of(items, track, mid)
    return msgspec.structs.replace(again, tracks=[*items, *(again.tracks or [])])


def remote_objects(targets: Sequence[Target], *, policies: bool) -> list[TrackObject]:
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
