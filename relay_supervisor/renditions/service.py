"""Tells workers which smaller pictures to make, whether anybody has them, and what they may cost.

What is configured is offered at a camera's next publication; whether it is watched and what it may cost counts at once.
Workers of an earlier release know nothing of this and are left alone.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec

from relay_common.clock import Clock
from relay_common.config import WorkersConfig
from relay_common.protocol import FromWorker
from relay_common.rendition_messages import SetRendition
from relay_common.worker_stats import RenditionStats
from relay_supervisor.cameras.director import Director
from relay_supervisor.cameras.registry import Camera
from relay_supervisor.fleet.slot import Slot
from relay_supervisor.renditions.admission import NOTHING, RenditionAdmission, RenditionGrant, RenditionWish
from relay_supervisor.status.model import RenditionStatus

log = logging.getLogger(__name__)

LOOK: Final = 0.5
"""Seconds between two looks at who watches what: a viewer that enlarges a tile waits for it."""
OF_A_PROCESSOR: Final = 250.0
"""Milliseconds of CPU a second of each processor that renditions may take where the configuration does not say."""
_OLD: Final = "its worker is of an earlier release, and makes smaller pictures after its next restart"


def all_may_cost(config: WorkersConfig) -> float:
    """Milliseconds of CPU a second that the renditions of all cameras may cost together."""
    return config.all_renditions_cpu_ms or OF_A_PROCESSOR * len(os.sched_getaffinity(0))


class Renditions:
    """The renditions of all cameras. Listens to workers as the director's `WorkerListener`.

    `watching` counts, by camera, the viewers and WHIP servers that have its small picture; `tell` publishes a text
    about a camera.
    """

    def __init__(
        self,
        config: WorkersConfig,
        director: Director,
        clock: Clock,
        *,
        watching: Callable[[], Counter[str]],
        tell: Callable[[str, str], object],
    ) -> None:
        self._director, self._fleet, self._clock = director, director.fleet, clock
        self._watching, self._tell = watching, tell
        self._admission = RenditionAdmission(config.rendition_cpu_ms, all_may_cost(config))
        self._grants: dict[str, RenditionGrant] = {}
        self._orders: dict[str, tuple[str, SetRendition]] = {}
        """What the worker (an instance) of each camera was told last."""
        self._reasons: dict[str, str] = {}
        self._watched: Counter[str] = Counter()
        """Viewers that have a camera's small picture, by camera, at the latest look."""
        director.listen(self)

    def configure(self, config: WorkersConfig) -> None:
        """Take what renditions may cost from a reloaded configuration; the next look tells the workers."""
        self._admission.configure(config.rendition_cpu_ms, all_may_cost(config))

    def worker_ready(self, camera: Camera) -> None:
        """A worker, new or adopted, is ready: tell it before it is given a stream, and publishes."""
        self._orders.pop(camera.id, None)
        self._decide(self._clock.now())
        self._instruct(camera)

    def worker_message(self, camera: Camera, message: FromWorker) -> None:
        """Nothing that workers say concerns renditions alone."""

    def look(self, now: float) -> None:
        """Tell every worker what has changed for it."""
        self._decide(now)
        running = self._director.running
        for known in (self._orders, self._reasons):
            for gone in known.keys() - running.keys():
                del known[gone]
        for camera in running.values():
            self._instruct(camera)
            self._say(camera)

    async def watch(self) -> None:
        """Look twice a second; runs until cancelled."""
        while True:
            await self._clock.sleep(LOOK)
            self.look(self._clock.now())

    def _decide(self, now: float) -> None:
        self._watched, wishes = self._watching(), {}
        for camera in self._director.running.values():
            made = self._made(camera.id)
            cost = made.cpu if made.active == "smooth" else 0.0
            wishes[camera.id] = RenditionWish(camera.settings.renditions, self._watched[camera.id] > 0, cost)
        self._grants = self._admission.decide(wishes, now)

    def _instruct(self, camera: Camera) -> None:
        slot = self._slot(camera.id)
        if slot is None or slot.hello is None or not slot.hello.renditions:
            return
        order = SetRendition(
            mode=camera.settings.renditions,
            watched=self._watched[camera.id] > 0,
            budget=self._grants.get(camera.id, NOTHING).budget,
        )
        if self._orders.get(camera.id) != (slot.instance, order) and self._fleet.send(camera.id, order):
            self._orders[camera.id] = slot.instance, order

    def _say(self, camera: Camera) -> None:
        """Log why a camera's small picture is not what was configured, once, and when it is again."""
        before, reason = self._reasons.get(camera.id, ""), self._reason(camera)
        if reason == before:
            return
        self._reasons[camera.id] = reason
        words = f"smaller picture: {reason or 'as configured again'}"
        log.info("%s", words, extra={"camera": camera.name})
        self._tell(words, camera.id)

    def _reason(self, camera: Camera) -> str:
        slot = self._slot(camera.id)
        if camera.settings.renditions == "off" or slot is None or slot.hello is None:
            return ""
        if not slot.hello.renditions:
            return _OLD
        return self._grants.get(camera.id, NOTHING).reason or self._made(camera.id).reason

    def _slot(self, camera: str) -> Slot | None:
        slot = self._fleet.slot(camera)
        return slot if slot is not None and slot.running else None

    def _made(self, camera: str) -> RenditionStats:
        """What the camera's worker last reported of its rendition."""
        slot = self._slot(camera)
        found = slot.stats.rendition if slot is not None and slot.stats is not None else None
        return found or RenditionStats()

    def status(self, camera: Camera) -> RenditionStatus:
        """What there is to say of a camera's rendition."""
        return RenditionStatus(
            **{**msgspec.structs.asdict(self._made(camera.id)), "reason": self._reason(camera)},
            wanted=camera.settings.renditions,
            watched=self._watched[camera.id],
            budget=self._grants.get(camera.id, NOTHING).budget,
        )

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"unafforded": self._admission.unafforded}
