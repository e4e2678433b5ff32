"""Simulcast: which layer of a published track a viewer gets (RFC 8853; Cloudflare's `simulcast` of a pulled track).

A viewer names the layer it prefers. Both policies say what to do without it, and `asciibetical` means the next one by
name, with "a" the best: `ridNotAvailable` where a layer is not sent any more, `priorityOrdering` where the viewer's
line is too narrow for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from relay_common.simulation.sfu.publication import Publication
from relay_common.simulation.sfu.sessions import ApiError, Preference, Track, invalid_params

_POLICIES = ("none", "asciibetical")


def preference(entry: dict[str, Any], *, policies: bool = True) -> Preference:
    """The wish in an entry of `tracks`; raises `decoding_error` or `invalid_params` for what the API does not know."""
    wish = entry.get("simulcast")
    if wish is None:
        return Preference()
    if not isinstance(wish, dict) or not isinstance(wish.get("preferredRid", ""), str):
        raise ApiError(400, "decoding_error", "simulcast must be an object, and its preferredRid a string")
    known = _POLICIES if policies else _POLICIES[:1]
    for name in ("priorityOrdering", "ridNotAvailable"):
        if wish.get(name, "none") not in known:
            raise invalid_params(f"simulcast.{name} must be one of {', '.join(known)}")
    return Preference(
        wish.get("preferredRid", ""),
        wish.get("ridNotAvailable") == "asciibetical",
        wish.get("priorityOrdering") == "asciibetical",
    )


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


@dataclass(frozen=True, slots=True)
class Demand:
    """What one viewer's track could be sent: the layers from the preferred one down, with their rates in bit/s."""

    layers: tuple[Publication, ...]
    rates: tuple[float, ...]
    adaptive: bool
    """Whether a lower layer may be sent for want of bandwidth (`priorityOrdering`)."""


def allot(demands: list[Demand], available: float) -> list[Publication]:
    """The layer for each: first the smallest that each may be sent, then better ones in turn while they fit.

    `available` is in bit/s; what cannot be lowered is sent whether it fits or not.
    """
    chosen = [len(demand.layers) - 1 if demand.adaptive else 0 for demand in demands]
    spent = sum(demand.rates[index] for demand, index in zip(demands, chosen, strict=True))
    for place, demand in enumerate(demands):
        for better in range(chosen[place]):
            more = demand.rates[better] - demand.rates[chosen[place]]
            if spent + more <= available:
                chosen[place], spent = better, spent + more
                break
    return [demand.layers[index] for demand, index in zip(demands, chosen, strict=True)]


def next_better(demands: list[Demand], chosen: list[Publication]) -> float:
    """What it would take, in bit/s for everything together, to send one track better than chosen; 0 if all are best."""
    spent, steps = 0.0, []
    for demand, publication in zip(demands, chosen, strict=True):
        place = demand.layers.index(publication)
        spent += demand.rates[place]
        if place:
            steps.append(demand.rates[place - 1] - demand.rates[place])
    return spent + max(0.0, min(steps)) if steps else 0.0
