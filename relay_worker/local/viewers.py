"""A camera's viewers that the worker answers itself: offers in, answers out, media to each, none at another's cost.

A mistake in one viewer's part ends that viewer. What they send is bounded and counted; none of it reaches the log.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from relay_common.clock import Clock
from relay_common.local_messages import (
    LocalAnswer,
    LocalClose,
    LocalFromSupervisor,
    LocalFromWorker,
    LocalOffer,
    LocalPatched,
    LocalRefused,
    LocalStats,
    LocalTrickle,
    LocalViewerChanged,
    SetLocal,
)
from relay_worker.local.group import HeldGroup
from relay_worker.local.ice import Demultiplexer, UdpSource
from relay_worker.local.offer import ViewerRefused, read_offer
from relay_worker.local.ports import LocalPorts
from relay_worker.local.viewer import ViewerConnection, ViewerTerms
from relay_worker.media.inputs import VideoInput
from relay_worker.media.stream import Frame, Kind
from relay_worker.pipeline import Pipeline
from relay_worker.publish.outgoing import SentStats
from relay_worker.rtp.h264 import MAX_PAYLOAD
from relay_worker.rtp.h264_packetize import refit

log = logging.getLogger(__name__)

FULL_FOR: Final = 5.0
"""Seconds after which a viewer that found all places taken may ask again."""
LISTEN_AGAIN: Final = 5.0
SMALL_AGAIN: Final = 10.0
"""Seconds for which there have to be small pictures before those who got the original instead get them."""


def viewer_digest(viewer: str) -> str:
    """What a viewer is called in reports: its name is a secret."""
    return hashlib.sha256(viewer.encode()).hexdigest()[:16]


class LocalViewers:
    """Answers viewers where `SetLocal` says, and is an output of the pipeline meanwhile. Implements `Output`.

    `tell` takes what the supervisor is to know. `failures` counts viewers that were ended by a mistake of ours,
    `turned_away` offers without an answer.
    """

    def __init__(
        self, pipeline: Pipeline, clock: Clock, on_keyframe_request: Callable[[], None], *, audio: bool = True
    ) -> None:
        self._pipeline, self._clock, self._on_keyframe_request = pipeline, clock, on_keyframe_request
        self._audio = audio
        self.tell: Callable[[LocalFromWorker], object] = lambda message: None
        self._set = SetLocal(listen=[])
        self._ports = LocalPorts(self._received, clock)
        self._demultiplexer = Demultiplexer()
        self._viewers: dict[str, ViewerConnection] = {}
        self._group: HeldGroup | None = None
        self._listen_again_at = 0.0
        self._retired = SentStats()
        self._retired_counters: Counter[str] = Counter()
        self.has_small = False
        """Whether there are small pictures of this camera; without, who asks for them gets the original until then."""
        self._lacking_at = self._video_at = float("-inf")  # when there were none last; media time of the newest picture
        self.on_small_request: Callable[[], None] = lambda: None
        """Asks for a small picture that depends on no other."""
        self.failures = self.turned_away = 0

    @property
    def watched(self) -> bool:
        """Whether somebody is connected."""
        return any(viewer.connected for viewer in self._viewers.values())

    @property
    def small_watched(self) -> bool:
        """Whether somebody is connected who gets the small pictures."""
        return any(viewer.connected and viewer.small for viewer in self._viewers.values())

    # --- from the supervisor ---------------------------------------------------------------------------------------

    def handle(self, message: LocalFromSupervisor) -> None:
        """Do what the supervisor says."""
        match message:
            case SetLocal():
                self._configure(message)
            case LocalOffer():
                self._answer(message)
            case LocalTrickle():
                self.tell(self._patch(message))
            case LocalClose(viewer=name, reason=reason, digest=digest):
                named = [name] if name else [name for name in self._viewers if viewer_digest(name) == digest]
                for viewer in filter(None, map(self._viewers.get, named)):
                    viewer.end(reason or "it was ended")

    def _configure(self, wanted: SetLocal) -> None:
        before, self._set = self._set, wanted
        if (before.listen, before.port) == (wanted.listen, wanted.port) and self._ports.port:
            self._ports.announce(wanted.announce)
            return
        self._end_all("the addresses on which viewers are answered have changed")
        self._listen()
        if not wanted.listen:
            self._group, self._pipeline.viewers = None, None
        elif self._group is None:
            self._group = HeldGroup(from_start=Kind.VIDEO not in self._pipeline.last_frame)
            self._pipeline.viewers = self

    def _listen(self) -> None:
        self._ports.open(self._set.listen, self._set.port, self._set.announce)
        self._listen_again_at = self._clock.now() + LISTEN_AGAIN
        if self._ports.problem:
            log.warning("local viewers: %s", self._ports.problem)

    def _answer(self, message: LocalOffer) -> None:
        try:
            answer, quality = self._admit(message)
        except ViewerRefused as refusal:
            self.turned_away += 1
            self.tell(
                LocalRefused(
                    request=message.request,
                    status=refusal.status,
                    reason=refusal.reason,
                    retry_after=refusal.retry_after,
                )
            )
        except Exception as error:
            self.turned_away += 1
            self._failed("an offer", error)
            self.tell(LocalRefused(request=message.request, status=500, reason="internal error; see the log"))
        else:
            self.tell(LocalAnswer(request=message.request, viewer=message.viewer, answer=answer, quality=quality))

    def _admit(self, message: LocalOffer) -> tuple[str, str]:
        """The answer to a viewer, and which picture it gets."""
        if not self._ports.port:
            raise ViewerRefused(503, self._ports.problem or "no viewers are answered here", LISTEN_AGAIN)
        if len(self._viewers) >= self._set.viewers:
            raise ViewerRefused(503, f"as many viewers as may watch this camera here do: {self._set.viewers}", FULL_FOR)
        if message.viewer in self._viewers:
            raise ViewerRefused(400, "that viewer has been answered already")
        offer = read_offer(message.offer, profile_idc=self._profile, audio=self._has_sound, ssrcs=_ssrcs())
        viewer = ViewerConnection(
            ViewerTerms(name=message.viewer, ends_at=message.ends_at, small=message.quality == "small"),
            offer,
            self._ports,
            self,
            self._clock,
            lambda: self._keyframe_requested(viewer),
        )
        viewer.small = viewer.wants_small and self.has_small
        answer = viewer.answer()
        self._viewers[viewer.name] = viewer
        self._demultiplexer.add(viewer.agent)
        return answer, viewer.quality

    @property
    def _profile(self) -> int | None:
        """The stream's H.264 profile; None while it is not known."""
        video = self._pipeline.inputs.get(Kind.VIDEO)
        sps = video.passthrough.sps if isinstance(video, VideoInput) else None
        return sps.profile_idc if sps is not None else None

    @property
    def _has_sound(self) -> bool:
        """Whether there is sound, or may be: the camera's tracks are not known before it plays."""
        inputs = self._pipeline.inputs
        return self._audio and (not inputs or Kind.AUDIO in inputs or Kind.AUDIO in self._pipeline.last_frame)

    def _patch(self, message: LocalTrickle) -> LocalPatched:
        viewer = self._viewers.get(message.viewer)
        if viewer is None:
            return LocalPatched(request=message.request, status=404, reason="there is no such viewer")
        status, answer = viewer.patch(message.fragment, message.match)
        self._demultiplexer.add(viewer.agent)
        reason = "If-Match names another ICE session" if status == 412 else ""
        return LocalPatched(request=message.request, status=status, fragment=answer, reason=reason)

    # --- media -----------------------------------------------------------------------------------------------------

    def send(self, frame: Frame, now: float) -> None:
        video, begins = frame.kind is Kind.VIDEO, False
        if video and self._group is not None:
            frame = self._group.add(frame)
            begins, self._video_at = self._group.begins, frame.media_time
        # Whose sending fails is taken out at once.
        for viewer in list(self._viewers.values()):
            if not viewer.connected or (video and viewer.small):
                continue
            if video and not viewer.begun:
                viewer.begun = begins
                if not begins:
                    continue
            try:
                viewer.send(frame, now)
            except Exception as error:
                self._viewer_failed(viewer, error)

    def send_small(self, frame: Frame, now: float, *, keyframe: bool) -> None:
        """Send a small picture to those who get them."""
        for viewer in list(self._viewers.values()):
            if viewer.small and viewer.connected:
                viewer.begun |= keyframe and frame.media_time >= viewer.begins_at
                if viewer.begun:
                    try:
                        viewer.send(frame, now)
                    except Exception as error:
                        self._viewer_failed(viewer, error)

    def _keyframe_requested(self, viewer: ViewerConnection) -> None:
        if viewer.small:
            self.on_small_request()
        else:
            self._on_keyframe_request()

    def _received(self, data: bytes, source: UdpSource, now: float) -> None:
        """A datagram came to the port."""
        check = data[0] < 4
        if check:
            agent, response = self._demultiplexer.receive_check(data, source, now)
            if response:
                self._ports.send(response, source)
        else:
            agent = self._demultiplexer.owner(source)
        viewer = self._viewers.get(agent.viewer) if agent is not None else None
        if viewer is None:
            return
        try:
            if check:
                viewer.check_came(now)
            else:
                viewer.receive_datagram(data, now)
        except Exception as error:
            self._viewer_failed(viewer, error)

    # --- from viewers (ViewerOwner) --------------------------------------------------------------------------------

    def viewer_connected(self, viewer: ViewerConnection, now: float) -> None:
        self.tell(LocalViewerChanged(viewer=viewer.name, state="connected"))
        self._fit()
        if viewer.small:
            self.on_small_request()
            return
        past = self._group.pressed() if self._group is not None else ()
        if past:
            for frame in past:
                frame.payloads = refit(frame.payloads, viewer.max_payload)
            viewer.begun = True
            viewer.send_past(past, now)
        else:
            self._on_keyframe_request()

    def viewer_ended(self, viewer: ViewerConnection, reason: str) -> None:
        self._demultiplexer.remove(viewer.agent)
        if self._viewers.pop(viewer.name, None) is None:
            return
        for sent in viewer.sent.values():
            _add(self._retired, sent)
        self._retired_counters.update(viewer.counters())
        self._fit()
        log.info("local viewer %s ended: %s", viewer_digest(viewer.name), reason)
        self.tell(LocalViewerChanged(viewer=viewer.name, state="ended", reason=reason))

    def _viewer_failed(self, viewer: ViewerConnection, error: Exception) -> None:
        self._failed(f"local viewer {viewer_digest(viewer.name)}", error)
        try:
            viewer.end("internal error; see the log")
        except Exception as further:
            self._failed("ending it", further)
        self.viewer_ended(viewer, "internal error; see the log")

    def _failed(self, what: str, error: Exception) -> None:
        self.failures += 1
        # Not the exception's own words: they may quote the viewer's.
        where = traceback.extract_tb(error.__traceback__)[-3:]
        places = ", ".join(f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in where)
        log.error("%s failed: %s at %s", what, type(error).__name__, places)

    def _fit(self) -> None:
        """Fragmenting is done once, for the narrowest path."""
        connected = [viewer.max_payload for viewer in self._viewers.values() if viewer.connected]
        self._pipeline.fit_viewers(min(connected, default=MAX_PAYLOAD))

    # --- life ------------------------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """End viewers whose time is over; called about once a second."""
        if not self.has_small:
            self._lacking_at = now
        for viewer in list(self._viewers.values()):
            if viewer.small and not self.has_small:
                # The original is better than a picture that stands still.
                viewer.small = viewer.begun = False
                self._on_keyframe_request()
            elif viewer.wants_small and not viewer.small and now - self._lacking_at >= SMALL_AGAIN:
                viewer.small, viewer.begun, viewer.begins_at = True, False, self._video_at
                if viewer.connected:
                    self.on_small_request()
            try:
                viewer.check(now)
            except Exception as error:
                self._viewer_failed(viewer, error)
        if self._ports.problem and not self._viewers and now >= self._listen_again_at:
            self._listen()

    def put_off(self, seconds: float, now: float) -> None:
        """This process was paused until `now`: what viewers report late tells nothing of their paths."""
        for viewer in self._viewers.values():
            viewer.put_off(seconds, now)

    def _end_all(self, reason: str) -> None:
        for viewer in list(self._viewers.values()):
            try:
                viewer.end(reason)
            except Exception as error:
                self._viewer_failed(viewer, error)

    def close(self) -> None:
        """End all viewers and release the port."""
        self._end_all("the camera's relay is stopping")
        self._pipeline.viewers = None
        self._ports.close()

    # --- figures ---------------------------------------------------------------------------------------------------

    def stats(self, now: float) -> LocalStats | None:
        """The report at `now`; None while no viewers are to be answered."""
        if not self._set.listen:
            return None
        total = SentStats()
        _add(total, self._retired)
        for viewer in self._viewers.values():
            for sent in viewer.sent.values():
                _add(total, sent)
        return LocalStats(
            port=self._ports.port,
            problem=self._ports.problem,
            bytes_sent=total.bytes,
            packets_sent=total.packets,
            retransmitted=total.retransmitted,
            lost=total.lost,
            held_bytes=self._group.bytes if self._group is not None else 0,
            refused=self.turned_away,
            viewers=[viewer.stats(viewer_digest(viewer.name), now) for viewer in self._viewers.values()],
        )

    def counters(self) -> dict[str, int]:
        """Totals since the worker started, by name; those of all viewers together."""
        port = self._demultiplexer
        counted = self._retired_counters.copy()
        for viewer in self._viewers.values():
            counted.update(viewer.counters())
        return dict(counted) | {
            "failures": self.failures,
            "unknown_datagrams": port.unknown,
            "malformed_checks": port.malformed,
            "contested_addresses": port.contested,
            "unsent_datagrams": self._ports.unsent,
            "undirected_datagrams": self._ports.undirected,
            "groups_too_long": self._group.too_long if self._group is not None else 0,
        }


def _ssrcs() -> tuple[int, int, int]:
    """Three that differ."""
    first = secrets.randbelow(0xFFFF0000) + 1
    return first, first + 1, first + 2


def _add(total: SentStats, more: SentStats) -> None:
    total.bytes += more.bytes
    total.packets += more.packets
    total.retransmitted += more.retransmitted
    total.lost += more.lost
