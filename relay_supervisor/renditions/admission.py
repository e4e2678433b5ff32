"""Which cameras may have a `smooth` rendition now, within the CPU that all renditions may cost. No clock, no I/O.

`keyframes` costs at most `KEYFRAMES_COST` and is always granted; what the budget has left is for `smooth`, in the order
in which the cameras began to be watched. A camera counts with what its rendition was last measured to cost, with what
one camera may cost until that is known. Costs are milliseconds of CPU a second, times monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

KEYFRAMES_COST: Final = 4.0
"""What small pictures of keyframes cost at most of a 720p camera; the worker holds to it."""
MEASURED_AFTER: Final = 15.0
"""Seconds for which a camera has to be smooth before what its worker measures (over 10 s) is believed."""
MARGIN: Final = 1.15
"""What a measured cost is taken for: it varies with what the camera sees."""
REFUSED_FOR: Final = 60.0
"""Seconds for which a camera stays refused after it was refused, so that it does not change from look to look."""


class RenditionWish(NamedTuple):
    """One running camera: its mode (`off`, `keyframes` or `smooth`), whether a viewer has its small picture, and what
    that costs while it is smooth (0: it is not, or is not known).
    """

    mode: str
    watched: bool
    cost: float = 0.0


class RenditionGrant(NamedTuple):
    """What a camera's rendition may cost: 0, with the reason, for one that may not be smooth."""

    budget: float
    reason: str = ""


NOTHING: Final = RenditionGrant(0.0)
"""For a camera that makes no small picture."""


class RenditionAdmission:
    """Grants of all cameras; remembers who was admitted, what each cost, and who was refused until when.

    `each` is what one camera may cost, `most` what all may cost together.
    """

    def __init__(self, each: float, most: float) -> None:
        self.each, self.most = each, most
        self._watched: dict[str, None] = {}  # in the order in which they began to be
        self._smooth: dict[str, float] = {}  # since when, in the order in which they were admitted
        self._costs: dict[str, float] = {}
        self._refused_until: dict[str, float] = {}
        self.unafforded = 0
        """Times that a camera that is watched could not have its smooth rendition for want of CPU."""

    def configure(self, each: float, most: float) -> None:
        """Judge by other limits from now on: who was refused by those before is judged anew."""
        if (each, most) != (self.each, self.most):
            self.each, self.most = each, most
            self._refused_until.clear()

    def decide(self, wishes: Mapping[str, RenditionWish], now: float) -> dict[str, RenditionGrant]:
        """What each camera may cost from now on."""
        wanting = {camera for camera, wish in wishes.items() if wish.mode == "smooth" and wish.watched}
        self._forget(wishes, wanting)
        self._watched.update(dict.fromkeys(camera for camera in wishes if camera in wanting))
        left = self.most - KEYFRAMES_COST * sum(wish.mode != "off" for wish in wishes.values())
        for camera, since in list(self._smooth.items()):  # who came first keeps it
            if (cost := wishes[camera].cost) > 0 and now - since >= MEASURED_AFTER:
                self._costs[camera] = cost * MARGIN
            left = self._judge(camera, left, now)
        for camera in self._watched:
            if camera not in self._smooth and now >= self._refused_until.get(camera, now):
                left = self._judge(camera, left, now)
        return {camera: self._grant(camera, wish, camera in wanting) for camera, wish in wishes.items()}

    def _forget(self, wishes: Mapping[str, RenditionWish], wanting: set[str]) -> None:
        for known in (self._costs, self._refused_until):
            for camera in known.keys() - wishes.keys():
                del known[camera]
        for asked in (self._watched, self._smooth):
            for camera in asked.keys() - wanting:
                del asked[camera]

    def _judge(self, camera: str, left: float, now: float) -> float:
        """Admit a camera where what is left suffices for it, else refuse it; returns what is left then."""
        need = max(0.0, min(self.each, self._costs.get(camera, self.each)) - KEYFRAMES_COST)
        if need <= left:
            self._smooth.setdefault(camera, now)
            return left - need
        self._smooth.pop(camera, None)
        self._refused_until[camera] = now + REFUSED_FOR
        self.unafforded += 1
        return left

    def _grant(self, camera: str, wish: RenditionWish, wanting: bool) -> RenditionGrant:
        if wish.mode != "smooth":
            return RenditionGrant(KEYFRAMES_COST) if wish.mode == "keyframes" else NOTHING
        if not self.each:
            return RenditionGrant(0.0, "workers.rendition_cpu_ms is 0: keyframes alone")
        if not wanting or camera in self._smooth:
            return RenditionGrant(self.each)
        taken = f"all renditions together may cost {self.most:.0f} ms of CPU a second, which others take"
        return RenditionGrant(0.0, f"{taken}: keyframes alone")
