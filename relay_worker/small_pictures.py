"""One camera's small pictures, connected: from its pipeline to the publication and the viewers that take them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from relay_common.clock import Clock
from relay_common.rendition_messages import SetRendition
from relay_common.worker_stats import RenditionStats
from relay_worker.local.viewers import LocalViewers
from relay_worker.media.stream import Frame
from relay_worker.pipeline import Pipeline
from relay_worker.publish.publications import Publications
from relay_worker.rendition.rendition import Rendition

OFF: Final = "off"


class CameraRendition:
    """Makes small pictures as `configure` says, for the publications in two layers and for local viewers.

    A publication that is up keeps the rendition that it was made with; the next is offered what is configured by then.
    Where several are up, that of the first (the SFU's, if it is among them) is made for all.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        publications: Publications,
        local: LocalViewers,
        clock: Clock,
        on_keyframe_request: Callable[[], None],
    ) -> None:
        self._pipeline, self._publications, self._local = pipeline, publications, local
        self._wanted = SetRendition()
        self.made = Rendition(
            self,
            clock.now,
            self._call,
            on_keyframe_request=on_keyframe_request,
            max_payload=lambda: pipeline.max_payload,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = False
        """Whether small pictures were ever wanted: without, there is nothing to report."""
        local.on_small_request = self.request_keyframe

    def _call(self, call: Callable[[], None]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(call)

    def configure(self, wanted: SetRendition) -> None:
        """Do what the supervisor says."""
        self._wanted = wanted
        self._asked |= wanted.mode != OFF
        self._publications.offer_rendition(wanted.mode)
        self.check_outputs()

    def check_outputs(self) -> None:
        """Make what is wanted by who is there now; called when that changes, and about once a second."""
        if not self._asked:
            return
        self._loop = self._loop or asyncio.get_running_loop()
        layered, wanted = self._publications.layered(), self._wanted
        mode = layered[0].layers.offered if layered else wanted.mode
        watched = wanted.watched or self._local.small_watched
        self.made.configure(mode, watched=watched, budget=wanted.budget)
        self._local.has_small = self.made.makes
        self._pipeline.rendition = self.made if self.made.wanted else None

    def published(self, sink: str) -> tuple[str, ...]:
        """A publication at this sink is live: its layers, none of a plain one."""
        self.check_outputs()
        publisher = self._publications.keepers[sink].publisher if sink in self._publications.keepers else None
        return publisher.rids if publisher is not None else ()

    def request_keyframe(self) -> None:
        """A receiver needs a small picture that depends on no other."""
        self.check_outputs()
        self.made.request_keyframe()

    def check(self, now: float) -> None:
        """Called about once a second."""
        if self._asked:
            self.check_outputs()
            self.made.check(now)

    def put_off(self, now: float) -> None:
        """This process was paused until `now`."""
        self.made.put_off(now)

    # --- who takes them (PictureOwner) ------------------------------------------------------------------------------

    def takes_rendition(self) -> bool:
        return bool(self._publications.layered()) or self._local.small_watched

    def send_rendition(self, frame: Frame, now: float, *, keyframe: bool) -> None:
        for keeper in self._publications.layered():
            if keeper.publisher is not None:
                keeper.publisher.send_small(frame, now, keyframe=keyframe)
        self._local.send_small(frame, now, keyframe=keyframe)

    # --- figures -----------------------------------------------------------------------------------------------------

    def stats(self, now: float) -> RenditionStats | None:
        """The report at `now`; None while small pictures were never wanted."""
        if not self._asked:
            return None
        stats = self.made.stats(now)
        stats.refusals, why = self._publications.refusals()
        stats.reason = stats.reason or why
        return stats
