"""A camera's publications: one at each sink, each kept by itself."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from relay_common.causes import Cause
from relay_common.clock import Clock
from relay_common.protocol import SinkTarget, Stage
from relay_common.tasks import Tasks
from relay_common.worker_stats import SinkStats, TrackStats, WorkerStats
from relay_worker.media.stream import Kind
from relay_worker.pipeline import Pipeline
from relay_worker.publish.keeper import PublicationKeeper
from relay_worker.publish.outputs import Outputs
from relay_worker.publish.publication import PublisherSettings
from relay_worker.publish.signaling import SupervisorSignaling

log = logging.getLogger(__name__)

SHORTEST: Final = 0.2
"""Shortest interval in seconds for which a rate is computed."""


_OURS: Final = (Cause.SUPERVISOR_SILENT, Cause.INTERNAL_ERROR)
"""What no sink has to do with."""


class _Rate(NamedTuple):
    total: int
    """Bytes at `at`."""
    at: float
    bitrate: float

    def next(self, total: int, now: float) -> _Rate:
        """The same `now`; over less than SHORTEST it would be noise."""
        elapsed = now - self.at
        return _Rate(total, now, 8 * (total - self.total) / elapsed) if elapsed >= SHORTEST else self


def _cause_at(sink: str, cause: Cause) -> Cause:
    """What a problem at a sink is called."""
    return Cause.SINK_FAILS if sink and cause not in _OURS else cause


class Publications:
    """Keeps a camera published at every sink of `configure`.

    The callbacks are those of `PublicationKeeper`, with the sink's name in front; `on_problem` is told of it in words.
    """

    def __init__(
        self,
        name: str,
        pipeline: Pipeline,
        signaling: SupervisorSignaling,
        clock: Clock,
        settings: PublisherSettings,
        *,
        on_live: Callable[[str, str], None],
        on_lost: Callable[[str, str, str], None],
        on_problem: Callable[[Stage, str, Cause], None],
        on_keyframe_request: Callable[[], None],
        on_small_request: Callable[[], None] = lambda: None,
        on_connected: Callable[[], None] = lambda: None,
    ) -> None:
        self._name, self._signaling, self._clock, self._settings = name, signaling, clock, settings
        self._on_live, self._on_lost, self._on_problem = on_live, on_lost, on_problem
        self._on_keyframe_request, self._on_small_request = on_keyframe_request, on_small_request
        self._on_connected = on_connected
        self._rendition, self._refusals = "off", 0
        self._outputs = Outputs(pipeline)
        self._wanted: tuple[bool, int | None] | None = None
        """Whether there is sound, and the H.264 profile, once publishing has begun."""
        self._ending = Tasks(log, "a publication could not be ended")
        self._allowed = asyncio.Event()
        self._allowed.set()
        self._rates: dict[str, _Rate] = {}
        self.keepers: dict[str, PublicationKeeper] = {}
        self._nowhere = self._make(SinkTarget())
        """Stands for the first sink while there is none; it is never started."""

    def configure(self, sinks: Sequence[SinkTarget]) -> None:
        """Publish at these sinks and no others; publications at those that stay as they are go on."""
        wanted = {sink.name: sink for sink in sinks}
        self._outputs.pipeline.expect(output=bool(wanted))
        for name, keeper in list(self.keepers.items()):
            if wanted.get(name) != keeper.sink:
                del self.keepers[name]
                self._rates.pop(name, None)
                self._refusals += keeper.layers.refusals
                self._ending.spawn(keeper.close())
        before, self.keepers = self.keepers, {}
        for name, sink in wanted.items():
            self.keepers[name] = before.get(name) or self._make(sink)
            if self._wanted is not None and name not in before:
                self.keepers[name].start(audio=self._wanted[0], profile_idc=self._wanted[1])

    def offer_rendition(self, mode: str) -> None:
        """Offer a small layer as well from the next publication on, at the SFU and at sinks that are to get it; others
        get the original alone.
        """
        self._rendition = mode
        for keeper in self.keepers.values():
            self._offer_layers(keeper)

    def _offer_layers(self, keeper: PublicationKeeper) -> None:
        wanted = not keeper.sink.name or keeper.sink.renditions
        keeper.layers.configure(self._rendition if wanted else "off")

    def _make(self, sink: SinkTarget) -> PublicationKeeper:
        made = PublicationKeeper(
            self._name,
            self._outputs,
            self._signaling,
            self._clock,
            dataclasses.replace(
                self._settings,
                loopback=self._settings.loopback or (sink.loopback and not sink.name),
                loopback_too=sink.loopback and bool(sink.name),
                peer=sink.name or self._settings.peer,
                notice_refusals=bool(sink.name),
            ),
            on_live=partial(self._on_live, sink.name),
            on_lost=partial(self._on_lost, sink.name),
            on_problem=partial(self._problem, sink.name),
            on_keyframe_request=self._on_keyframe_request,
            on_small_request=self._on_small_request,
            on_connected=self._on_connected,
            sink=sink,
            allowed=self._allowed,
        )
        self._offer_layers(made)
        return made

    def _problem(self, sink: str, stage: Stage, reason: str, cause: Cause) -> None:
        self._on_problem(stage, f"{sink}: {reason}" if sink else reason, _cause_at(sink, cause))

    @property
    def first(self) -> PublicationKeeper:
        """The SFU's, if cameras are published there, else the first of the configuration: the camera's own figures of
        what is sent are those of this one.
        """
        return self.keepers.get("") or next(iter(self.keepers.values()), self._nowhere)

    def layered(self) -> list[PublicationKeeper]:
        """Those whose publication is up in two layers, the SFU's first."""
        return [one for one in self.keepers.values() if one.publisher is not None and one.publisher.has_small]

    def refusals(self) -> tuple[int, str]:
        """Offers in two layers that were refused, by all sinks that ever were, and why one gets none any more."""
        found = [(name, keeper.layers) for name, keeper in self.keepers.items()]
        why = next((f"{name}: {one.why_plain}" if name else one.why_plain for name, one in found if one.why_plain), "")
        return self._refusals + sum(one.refusals for _, one in found), why

    @property
    def live(self) -> bool:
        """Whether one of them is live."""
        return any(keeper.live for keeper in self.keepers.values())

    def elsewhere(self) -> dict[str, str]:
        """The publications at all sinks but the SFU, by the sink's name."""
        return {name: keeper.publication for name, keeper in self.keepers.items() if name and keeper.publication}

    def note_problem(self, stats: WorkerStats) -> None:
        """Note in the report of a camera that is live what keeps one of its sinks from being so."""
        for name, keeper in self.keepers.items():
            stage, reason = keeper.problem
            if reason and not keeper.live:
                stats.stage, stats.reason = stage, f"{name}: {reason}" if name else reason
                stats.code = _cause_at(name, keeper.cause if keeper.cause in _OURS else Cause.SFU_LOST).value

    @property
    def next_try(self) -> float:
        """When the next attempt at a sink begins (monotonic), that of the SFU first; 0 while none waits."""
        waiting = [keeper.next_try for keeper in (self.first, *self.keepers.values()) if keeper.next_try]
        return waiting[0] if waiting else 0.0

    def start(self, *, audio: bool, profile_idc: int | None) -> None:
        """Publish from now on, as `PublicationKeeper.start` says."""
        self._wanted = audio, profile_idc
        for keeper in self.keepers.values():
            keeper.start(audio=audio, profile_idc=profile_idc)

    def republish(self, publication: str, reason: str) -> None:
        """Replace the publication of this name, wherever it is."""
        for keeper in self.keepers.values():
            if publication and keeper.publication == publication:
                keeper.republish(reason)

    def hold(self) -> None:
        """Make no publication until `allow`; those that there are go on."""
        self._allowed.clear()

    def allow(self) -> None:
        """Make those that were put off."""
        self._allowed.set()

    def hurry(self) -> None:
        """The obstacle to publishing is gone (another supervisor came up): retry immediately."""
        for keeper in self.keepers.values():
            keeper.hurry()

    def check(self, now: float) -> None:
        """Check the liveness of each; called about once a second."""
        for keeper in list(self.keepers.values()):
            keeper.check(now)

    def put_off(self, seconds: float, now: float) -> None:
        """This process was paused until `now`: that time is no silence of any sink's."""
        for keeper in self.keepers.values():
            keeper.put_off(seconds, now)

    async def close(self) -> None:
        """End them all."""
        await asyncio.gather(*(keeper.close() for keeper in self.keepers.values()), self._ending.aclose(within=1.0))

    def sent(self) -> dict[str, dict[Kind, TrackStats]]:
        """What was sent to each sink, by its name; see `PublicationKeeper.sent`."""
        return {name: keeper.sent() for name, keeper in self.keepers.items()}

    def stats(self, sent: Mapping[str, Mapping[Kind, TrackStats]], now: float) -> list[SinkStats]:
        """The report of each sink at `now` (monotonic seconds), to which `sent` was sent."""
        return [self._stats_of(name, keeper, sent[name], now) for name, keeper in self.keepers.items()]

    def _stats_of(self, name: str, keeper: PublicationKeeper, sent: Mapping[Kind, TrackStats], now: float) -> SinkStats:
        video, audio = sent[Kind.VIDEO], sent[Kind.AUDIO]
        total = video.bytes_out + audio.bytes_out
        rate = self._rates[name] = self._rates.get(name, _Rate(0, now, 0.0)).next(total, now)
        stage, reason = keeper.problem if not keeper.live else (Stage.NONE, "")
        p50, p99 = keeper.delay.take()
        publisher = keeper.publisher
        restarts, restarts_failed = keeper.restarts()
        return SinkStats(
            name=name,
            state=publisher.state.value if publisher is not None else "new",
            live=keeper.live,
            publications=keeper.published,
            stage=stage.value if reason else "",
            reason=reason,
            video_packets=video.packets_out,
            audio_packets=audio.packets_out,
            bytes=total,
            bitrate=rate.bitrate,
            retransmitted=video.retransmitted,
            nacks=video.nacks,
            keyframe_requests=video.plis + video.firs,
            dropped=video.dropped + audio.dropped + video.send_drops,
            thinned=video.thinned,
            loss=video.loss_out,
            rtt=video.rtt,
            ceiling=video.ceiling,
            delay_p50=p50,
            delay_p99=p99,
            restarts=restarts,
            restarts_failed=restarts_failed,
        )
