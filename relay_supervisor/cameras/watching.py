"""On-demand cameras: requests of pages wake them, and each is released once nobody has watched it for long enough."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from relay_common.clock import Clock
from relay_supervisor.cameras.director import Director
from relay_supervisor.cameras.registry import Registry

LOOK: Final = 1.0
"""Seconds between checks of who watches which camera."""


class Watching:
    """Passes on to the director which cameras are watched."""

    def __init__(self, registry: Registry, director: Director, clock: Clock) -> None:
        self._registry, self._director, self._clock = registry, director, clock

    def asked_for(self, cameras: Collection[str]) -> None:
        """Wake the cameras (by id) that a page asks for."""
        asked = [camera for camera in self._registry if camera.id in cameras]
        if self._director.demand.watched(asked, self._clock.now()):
            self._director.reconcile()

    async def run(self, watched: Callable[[], Collection[str]]) -> None:
        """Release cameras that nobody watches any more; `watched` returns the others. Runs until cancelled."""
        while True:
            await self._clock.sleep(LOOK)
            self.asked_for(watched())
            if self._director.demand.let_go(self._registry, self._clock.now()):
                self._director.reconcile()
