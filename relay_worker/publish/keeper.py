"""Keeps a camera published at one sink: makes an offer, connects, monitors, and creates a new publication when one is
lost.

This is the only place that decides when to publish again; the supervisor's broker and the sink's client try once and
report:

- A publication that could not be made is tried again after 0.25 s, doubling to `SinkTarget.longest_pause` with jitter,
  and never before the `retry_after` that came with the failure (the sink's Retry-After; for a wrong account 60 s, 1.5 s
  the first time).
- One that is lost after `LONG_ENOUGH` is replaced at once; one lost sooner at once the first time, then with the same
  growing pauses.
- When the obstacle is gone (another supervisor came up) it is tried at once, and the pauses start over.
- What a supervisor was asked that was replaced before it answered, the next one is asked at once, with another offer:
  nobody knows what the sink said, and no refusal is reported.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Callable
from typing import Final

from relay_common.backoff import Backoff
from relay_common.causes import Cause
from relay_common.clock import Clock
from relay_common.errors import RelayError
from relay_common.protocol import SinkTarget, Stage
from relay_common.tasks import pause
from relay_common.worker_stats import TrackStats
from relay_worker.media.delay import DelayMeter
from relay_worker.media.stream import Frame, Kind
from relay_worker.publish.layers import LayersOffered
from relay_worker.publish.outputs import Outputs
from relay_worker.publish.publication import PublisherSettings, PublisherStats
from relay_worker.publish.publisher import Publisher
from relay_worker.publish.signaling import NamedSignaling, PatchingSignaling, SupervisorLost, SupervisorSignaling
from relay_worker.publish.turn import TurnFallback

log = logging.getLogger(__name__)

ANNOUNCE_WITHOUT: Final = 2.0
"""Seconds after the first packet at which a publication is announced even if one of its tracks has not sent anything
yet.
"""
LONG_ENOUGH: Final = 5.0
"""Seconds after which a publication counts as stable. One lost sooner is replaced at once, the next after it with
growing pauses: each costs a session at the SFU, and moves the viewers.
"""
_TOTALS: Final = (
    "packets_out",
    "bytes_out",
    "retransmitted",
    "nacks",
    "plis",
    "firs",
    "send_drops",
    "dropped",
    "thinned",
)
"""Of `TrackStats`, what publications add up; the others are the camera's."""
CANCEL_AGAIN: Final = 0.5
THE_SFU: Final = SinkTarget()


class PublicationKeeper:
    """Keeps one connected publication at `sink` while it is wanted.

    While `allowed` is not set no publication is begun. `on_live(publication)` is called when packets of every track and
    layer have left, `on_connected()` before the first do, `on_lost(publication, reason)` when a live or connected
    publication is gone, `on_problem(stage, reason, cause)` for every failure.
    """

    def __init__(
        self,
        name: str,
        outputs: Outputs,
        signaling: SupervisorSignaling,
        clock: Clock,
        settings: PublisherSettings,
        *,
        on_live: Callable[[str], None],
        on_lost: Callable[[str, str], None],
        on_problem: Callable[[Stage, str, Cause], None],
        on_keyframe_request: Callable[[], None],
        on_small_request: Callable[[], None] = lambda: None,
        on_connected: Callable[[], None] = lambda: None,
        sink: SinkTarget = THE_SFU,
        rng: random.Random | None = None,
        allowed: asyncio.Event | None = None,
    ) -> None:
        self._allowed = allowed
        self._name, self._outputs, self._signaling, self.sink = name, outputs, signaling, sink
        self._clock, self._settings = clock, settings
        self._on_live, self._on_lost, self._on_problem = on_live, on_lost, on_problem
        self._on_keyframe_request, self._on_small_request = on_keyframe_request, on_small_request
        self._on_connected = on_connected
        self._where = f" at {sink.name}" if sink.name else ""
        self._backoff = Backoff(0.25, sink.longest_pause, rng=rng)
        self._short_lived = Backoff(0.25, 10.0, rng=rng)
        self._audio = True
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._hurried = asyncio.Event()
        self._why = ""
        self.publisher: Publisher | None = None
        self.publication = ""
        self.live = False
        self.published = 0
        """Publications made so far."""
        self._silent: set[Kind] = set()
        self._first_sent = 0.0
        self.layers = LayersOffered(sink.name)
        self.turn = TurnFallback()
        if sink.ice_servers:
            self.turn.give(sink.ice_servers, 0.0)
        self._retired = {kind: TrackStats() for kind in Kind}
        self._restarts = (0, 0)
        self.delay = DelayMeter()
        self.problem = (Stage.NONE, "")
        """Where and why the last attempt or publication failed; cleared when one is live."""
        self.cause = Cause.NONE
        """The cause of an attempt that failed."""
        self.next_try = 0.0
        """When the next attempt begins (monotonic), while it waits; else 0."""

    def start(self, *, audio: bool, profile_idc: int | None) -> None:
        """Publish from now on; a change of `audio` makes a new publication, other changes leave it alone."""
        changed, self._audio = self._audio != audio, audio
        if self._task is None:
            self._task = asyncio.create_task(self._keep(profile_idc))
        elif changed:
            self.republish("the camera's tracks changed")

    def republish(self, reason: str) -> None:
        """Replace the current publication, or the one being made, by a new one."""
        self._why = reason
        self._ended.set()

    def hurry(self) -> None:
        """The obstacle to publishing is gone (another supervisor came up): retry immediately."""
        self._backoff.reset()
        self.layers.forget_unanswered()
        self._hurried.set()

    async def close(self) -> None:
        """End the publication."""
        task, self._task = self._task, None
        while task is not None and not task.done():
            # Python 3.11's wait_for loses a cancellation that arrives at the same moment as the result.
            task.cancel()
            await asyncio.wait([task], timeout=CANCEL_AGAIN)

    def check(self, now: float) -> None:
        """Check liveness; called about once a second."""
        if self.publisher is None or not self.publisher.connected:
            return
        self.publisher.check(now)
        if self.turn.outdated(self._clock.wall()):
            self.republish("the credential of its TURN relay ends soon")
        if not self.live and self._first_sent and now - self._first_sent > ANNOUNCE_WITHOUT:
            self._announce()

    def put_off(self, seconds: float, now: float) -> None:
        """This process was paused until `now`: that time is no silence of the sink's."""
        if self.publisher is not None:
            self.publisher.put_off(seconds, now)

    # --- output of the pipeline ------------------------------------------------------------------------------------

    def send(self, frame: Frame, now: float) -> None:
        """Hand a frame to the publication, and note when all of its tracks have begun."""
        publisher = self.publisher
        if publisher is None:
            return
        publisher.send(frame, now)
        if not self.live:
            self._sent(publisher, frame.kind, now)

    def _sent(self, publisher: Publisher, kind: Kind, now: float) -> None:
        self._first_sent = self._first_sent or now
        self._silent.discard(kind)
        # A viewer who wants a layer before it begins is given another, and may be left with that.
        if not self._silent and publisher.small_flows:
            self._announce()

    def _announce(self) -> None:
        self._silent.clear()
        self.live = True
        self.problem = (Stage.NONE, "")
        # From here on frames bypass this object.
        if self.publisher is not None:
            self._outputs.replace(self, self.publisher)
        self._backoff.reset()
        self._on_live(self.publication)

    # --- life ------------------------------------------------------------------------------------------------------

    async def _keep(self, profile_idc: int | None) -> None:
        while True:
            if self._allowed is not None:
                await self._allowed.wait()
            # What hurries while an attempt fails is no less over: the next one does not wait either.
            self._hurried.clear()
            delay = await self._publish(profile_idc)
            self.next_try = self._clock.now() + delay
            await pause(self._clock, delay, self._hurried)
            self.next_try = 0.0

    async def _publish(self, profile_idc: int | None) -> float:
        """Run one publication from start to end; returns the seconds to wait before the next."""
        self._ended.clear()
        signaling = NamedSignaling(self._signaling, self.sink.name)
        publisher = Publisher(
            self._name,
            signaling,
            audio=self._audio,
            profile_idc=profile_idc,
            simulcast=self.layers.begin(),
            settings=dataclasses.replace(self._settings, ice_servers=self.turn.servers()),
            clock=self._clock,
            on_keyframe_request=self._on_keyframe_request,
            on_small_request=self._on_small_request,
            on_lost=lambda error: self.republish(error.message),
            # The SFU is asked for no change: it has no call for it.
            patch=signaling.patch if self.sink.name and isinstance(self._signaling, PatchingSignaling) else None,
            delay=self.delay,
        )
        try:
            try:
                await publisher.start()
                self.turn.connected(relayed=publisher.relayed)
                self.layers.connected()
                return await self._live(publisher, signaling)
            finally:
                if signaling.ice_servers:
                    self.turn.give([*self.sink.ice_servers, *signaling.ice_servers], 0.0)
                await publisher.close()
        except SupervisorLost as error:
            return self._unanswered(error)
        except RelayError as error:
            stage, least = getattr(error, "stage", Stage.PUBLISH), getattr(error, "retry_after", 0.0)
            if self.layers.failed(error, answered=bool(signaling.publication), retry_after=least):
                if signaling.publication:
                    self._on_lost(signaling.publication, error.message)
                return 0.0
            return self._failed(signaling, stage, error.message, least)
        except Exception:
            # An internal error must not stop publishing.
            log.exception("publishing failed")
            return self._failed(signaling, Stage.PUBLISH, "internal error; see the log", cause=Cause.INTERNAL_ERROR)

    def _unanswered(self, lost: SupervisorLost) -> float:
        """Nobody knows what the sink said: ask again. Returns the seconds to wait, none where there is a supervisor."""
        if not lost.retry_after:
            log.info("publishing%s: %s; asking again", self._where, lost.message)
            return 0.0
        self._report(Stage.PUBLISH, lost.message, Cause.SUPERVISOR_SILENT)
        delay = max(self._backoff.next_delay(), lost.retry_after)
        log.info("publishing%s: %s; trying again in %.1f s", self._where, lost.message, delay)
        return delay

    def _report(self, stage: Stage, reason: str, cause: Cause) -> None:
        self.problem, self.cause = (stage, reason), cause
        self._on_problem(stage, reason, cause)

    def _failed(
        self,
        signaling: NamedSignaling,
        stage: Stage,
        reason: str,
        least: float = 0.0,
        cause: Cause = Cause.SFU_REFUSES,
    ) -> float:
        """Report that a publication failed; returns the seconds to wait, at least `least`."""
        self.turn.failed(stage)
        self._report(stage, reason, Cause.UPLINK_BLOCKED if stage in (Stage.ICE, Stage.DTLS) else cause)
        delay = max(self._backoff.next_delay(), least)
        # The supervisor's verdict on the camera warns, once: this is each attempt.
        log.info("publishing%s failed at %s: %s; trying again in %.1f s", self._where, stage.value, reason, delay)
        if signaling.publication:
            self._on_lost(signaling.publication, reason)
        return delay

    async def _live(self, publisher: Publisher, signaling: NamedSignaling) -> float:
        """Run a connected publication to its end; returns the seconds to wait before the next."""
        began = self._clock.now()
        self.publisher, self.publication = publisher, signaling.publication
        self._hurried.clear()  # what was in the way of this one is nothing to the next
        self.published += 1
        self._silent = {Kind.VIDEO, Kind.AUDIO} if publisher.audio_accepted else {Kind.VIDEO}
        self._first_sent = 0.0
        # The pipeline's media clock is the monotonic clock.
        publisher.set_clock(began, self._clock.wall(), began)
        self._on_connected()
        self._outputs.attach(self, self, publisher.max_payload, began)
        try:
            await self._ended.wait()
        finally:
            self._outputs.detach(self)
            self._retire(publisher)
            publication, self.publication = self.publication, ""
            self.publisher, self.live = None, False
        self.problem, self.cause = (Stage.SENDING, self._why), Cause.SFU_LOST
        log.debug("publication%s ended: %s", self._where, self._why)
        self._on_lost(publication, self._why)
        if self._clock.now() - began >= LONG_ENOUGH:
            self._short_lived.reset()
            return 0.0
        delay = self._short_lived.next_delay()
        return delay if self._short_lived.failures > 1 else 0.0

    # --- counters ----------------------------------------------------------------------------------------------------

    def restarts(self) -> tuple[int, int]:
        """ICE restarts that kept a publication, and those that did not, over all publications."""
        done, failed = self._restarts
        if self.publisher is not None:
            return done + self.publisher.ice_restarts, failed + self.publisher.ice_restarts_failed
        return done, failed

    def _retire(self, publisher: Publisher) -> None:
        self._restarts = self.restarts()
        now = publisher.stats()
        for kind, retired in self._retired.items():
            _add(retired, _sent(now, kind))

    def sent(self) -> dict[Kind, TrackStats]:
        """What was sent of each kind, over all publications; rates and shares are those of the present one."""
        now = self.publisher.stats() if self.publisher is not None else None
        sent = {kind: _sent(now, kind) if now is not None else TrackStats() for kind in self._retired}
        for kind, stats in sent.items():
            _add(stats, self._retired[kind])
        return sent

    def totals(self, kind: Kind) -> tuple[int, int, int]:
        """Of these: packets sent, keyframes requested, and what should have been sent and was not."""
        retired = self._retired[kind]
        packets, requests, cut = self.publisher.totals(kind) if self.publisher is not None else (0, 0, 0)
        earlier = retired.plis + retired.firs
        return retired.packets_out + packets, earlier + requests, retired.thinned + retired.send_drops + cut


def add_sent(stats: TrackStats, sent: TrackStats) -> None:
    """Add one kind of `PublicationKeeper.sent` to what is known of its track."""
    _add(stats, sent)
    stats.loss_out, stats.rtt, stats.ceiling = sent.loss_out, sent.rtt, sent.ceiling
    stats.carried, stats.offered = sent.carried, sent.offered


def _add(stats: TrackStats, more: TrackStats) -> None:
    """Add the totals of `more`; rates and shares describe only their own moment."""
    for name in _TOTALS:
        if number := getattr(more, name):  # most are none
            setattr(stats, name, getattr(stats, name) + number)


def _sent(now: PublisherStats, kind: Kind) -> TrackStats:
    """What one publication has sent of `kind`."""
    if (sent := now.tracks.get(kind.value)) is None:
        return TrackStats()
    stats = TrackStats(
        packets_out=sent.packets,
        bytes_out=sent.bytes,
        retransmitted=sent.retransmitted,
        nacks=sent.nacks,
        plis=sent.plis,
        firs=sent.firs,
        loss_out=sent.fraction_lost,
        rtt=now.estimate.rtt or 0.0,
    )
    if kind is Kind.VIDEO:
        stats.send_drops, stats.dropped, stats.thinned = now.drops, now.pacer.dropped_packets, now.pacer.thinned_frames
        stats.ceiling = now.ceiling or 0.0
        stats.carried, stats.offered = now.share or (0.0, 0.0)
    else:
        stats.dropped = now.pacer.dropped_audio
    return stats
