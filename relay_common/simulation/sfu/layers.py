"""Simulcast: which layer of a published track a viewer gets (RFC 8853; Cloudflare's `simulcast` of a pulled track).

A viewer names the layer it prefers. Both policies say what to do without it, and `asciibetical` means the next one by
name, with "a" the best. Only `ridNotAvailable` has an effect here: the simulator does not measure viewers' bandwidth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from relay_common.simulation.sfu.publication import Publication
from relay_common.simulation.sfu.sessions import ApiError, Track, invalid_params

_POLICIES = ("none", "asciibetical")


@dataclass(frozen=True, slots=True)
class Preference:
    """A viewer's wish; `rid` empty means the first layer."""

    rid: str = ""
    substitute: bool = False
    """Whether another layer will do while this one does not flow."""


def preference(entry: dict[str, Any]) -> Preference:
    """The wish in an entry of `tracks`; raises `decoding_error` or `invalid_params` for what the API does not know."""
    wish = entry.get("simulcast")
    if wish is None:
        return Preference()
    if not isinstance(wish, dict) or not isinstance(wish.get("preferredRid", ""), str):
        raise ApiError(400, "decoding_error", "simulcast must be an object, and its preferredRid a string")
    for name in ("priorityOrdering", "ridNotAvailable"):
        if wish.get(name, "none") not in _POLICIES:
            raise invalid_params(f"simulcast.{name} must be one of {', '.join(_POLICIES)}")
    return Preference(wish.get("preferredRid", ""), wish.get("ridNotAvailable") == "asciibetical")


def layer(track: Track, wish: Preference, flows: Callable[[Publication], bool]) -> Publication | None:
    """The layer of `track` for this wish, or None if the track has no layer of that name and no other will do."""
    if not track.layers:
        return track.publication
    wanted = track.layers.get(wish.rid) if wish.rid else track.publication
    if wish.substitute and (wanted is None or not flows(wanted)):
        flowing = [rid for rid in sorted(track.layers) if flows(track.layers[rid])]
        lower = [rid for rid in flowing if rid > wish.rid] or flowing
        if lower:
            return track.layers[lower[0]]
    return wanted
