"""On-demand cameras, which run only while watched: which are requested, and when each is released. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from relay_supervisor.cameras.registry import Camera

_UNKNOWN: Final = 60.0
"""Seconds for which a request for an undiscovered camera is remembered."""


class OnDemand:
    """Which of the on-demand cameras are awake.

    A camera is on demand when its settings say so; with `mode = "auto"`, when Google has refused to extend its stream:
    then it is a battery doorbell, which streaming around the clock would drain (its traits do not show that in
    advance). Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._asked_at: dict[str, float] = {}
        self._battery: dict[str, float] = {}
        """Cameras whose streams are not extended, and until when that is believed."""

    def on_demand(self, camera: Camera) -> bool:
        """Whether the camera runs only while it is watched."""
        match camera.settings.mode:
            case "auto":
                return camera.id in self._battery
            case mode:
                return mode == "on_demand"

    def idle(self, camera: Camera) -> bool:
        """Whether the camera is on demand and nobody watches it."""
        return self.on_demand(camera) and camera.id not in self._asked_at

    def not_extendable(self, camera: str, until: float) -> None:
        """Record that Google refuses to extend this camera's streams on principle, believed until `until`."""
        self._battery[camera] = until

    def resumed(self, cameras: Iterable[str], now: float) -> None:
        """Mark cameras (by id) that were awake when an earlier supervisor ended: their viewers may come back."""
        self._asked_at.update(dict.fromkeys(cameras, now))

    def watched(self, cameras: Iterable[Camera], now: float) -> bool:
        """Record that `cameras` are watched or asked for; returns whether one of them was idle until now."""
        woken = False
        for camera in cameras:
            woken |= self.idle(camera)
            self._asked_at[camera.id] = now
        return woken

    def let_go(self, cameras: Iterable[Camera], now: float) -> bool:
        """Forget cameras that nobody has watched for their `idle_after`, and refusals that are no longer believed.

        Returns whether that changes anything: a camera becomes idle, or is to run continuously again.
        """
        known = {camera.id: camera for camera in cameras}
        freed = False
        for id_ in [id_ for id_, until in self._battery.items() if until <= now]:
            freed |= id_ in known and self.idle(known[id_])
            del self._battery[id_]
        for id_, asked_at in list(self._asked_at.items()):
            camera = known.get(id_)
            if now - asked_at >= (camera.settings.idle_after if camera is not None else _UNKNOWN):
                del self._asked_at[id_]
                freed |= camera is not None and self.on_demand(camera)
        return freed
