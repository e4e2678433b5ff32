"""The worker process: one relay, one bus connection, one heartbeat.

The heartbeat and the stats come from the loop that moves media, so a stuck media loop is a missed heartbeat.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
from collections.abc import Callable, Coroutine, Sequence

import relay_common
from relay_common import log as log_setup
from relay_common import proc, protocol
from relay_common.clock import Clock, LoopClock
from relay_common.counters import joined
from relay_common.errors import RelayError, Remedy
from relay_common.ingest_messages import IngestOffer, IngestOfferFailed, MakeOffer
from relay_common.local_messages import LocalClose, LocalOffer, LocalTrickle, SetLocal
from relay_common.pauses import PauseDetector
from relay_common.protocol import FromSupervisor, Stage, WorkerState
from relay_common.rendition_messages import SetRendition
from relay_common.secrets import Secret
from relay_common.tasks import Tasks
from relay_common.worker_stats import WorkerStats
from relay_worker import native
from relay_worker.camera.granted import GrantedStream
from relay_worker.camera.webrtc_source import IngestSettings
from relay_worker.process import immortal, shared_stack
from relay_worker.process.control import Control
from relay_worker.process.log_forward import LogForwarder
from relay_worker.process.sandbox import Sandbox
from relay_worker.process.spec import WorkerSpec
from relay_worker.relay import CameraRelay, RelaySettings

log = logging.getLogger(__name__)

BEAT = 1.0
HELLO_AGAIN = 0.2
"""Seconds to wait for a welcome, or for a connection to say hello over, before the next hello."""
CONSENT = 30.0
"""Seconds without a sign of life after which WebRTC peers end a session (RFC 7675 §5.1), and the SFU a track."""
SNAPSHOT_TIMEOUT = 15.0
"""Seconds to wait for a keyframe: cameras send one every few seconds."""
LONGEST_CAPTURE = 60.0
UNCONFINED = Sandbox("none")
FILE_PART = 128 * 1024
"""Bytes of a picture or capture per message, below `protocol.MAX_FRAME`; the largest capture takes 120 of them."""


class Worker:
    """Connects the relay to the supervisor; see `run`. `clock` is the relay's, too.

    `on_beat` is called at least once a second while the loop runs.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        preloaded: bool,
        sandbox: Sandbox = UNCONFINED,
        clock: Clock | None = None,
        on_beat: Callable[[], object] = bool,
    ) -> None:
        self._spec, self._preloaded, self._sandbox = spec, preloaded, sandbox
        self._clock: Clock = clock or LoopClock()
        self._on_beat = on_beat
        self._control = Control(spec, self._handle, self._say_hello, self._left_alone)
        self._forwarder = LogForwarder(self._control.send)
        settings = RelaySettings(
            name=spec.name,
            audio=spec.audio,
            ca_file=spec.ca_file,
            connect_timeout=spec.connect_timeout,
            read_timeout=spec.read_timeout,
            media_timeout=spec.media_timeout,
            sinks=spec.sinks,
            ingest=IngestSettings(loopback=spec.camera_loopback),
        )
        self._relay = CameraRelay(settings, self._control, self, self._clock)
        self._relay.local.tell = self._control.send
        self._started = self._clock.now()
        self._alone_since: float | None = None
        """Since when there has been neither a supervisor nor a stream to continue with."""
        self._pauses, self._away = PauseDetector(BEAT), 0.0
        self._welcomed = self._disowned = False
        self._sequence = 0
        self._reported: WorkerStats | None = None
        """The last report."""
        self._skipped = False
        """Whether the last beat had none."""
        self._due, self._state = 0.0, WorkerState.STARTING
        self._alone: asyncio.Future[None]
        """Done when there is nobody left to work for; with what a beat failed at."""
        self._stop = asyncio.Event()
        self._stop_within = 3.0
        self._farewell = ""
        """Reason for ending without having been asked to by the supervisor."""
        self._tasks = Tasks(log, "an answer to the supervisor failed")

    async def run(self) -> None:
        """Run until the supervisor says stop, SIGTERM arrives, or there is nobody left to work for."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        self._control.start()
        logging.getLogger().addHandler(self._forwarder)
        beat = asyncio.create_task(self._beat())
        beat.add_done_callback(lambda _: self._stop.set())
        await self._stop.wait()
        beat.cancel()
        (failure,) = await asyncio.gather(beat, return_exceptions=True)
        if isinstance(failure, Exception):
            log.error("the heartbeat failed: ending", exc_info=failure, extra=self._context())
            self._farewell = f"internal error ({type(failure).__name__}); see the log"
        if self._farewell:
            self._control.send(protocol.Goodbye(reason=self._farewell))
        self._control.send(protocol.Heartbeat(state=WorkerState.STOPPING))
        try:
            await asyncio.wait_for(self._relay.close(), self._stop_within)
        except TimeoutError:
            log.warning("the relay did not close within %.1f s", self._stop_within)
        logging.getLogger().removeHandler(self._forwarder)
        await self._control.close()

    def _signalled(self, number: signal.Signals) -> None:
        self._farewell = self._farewell or f"{number.name} received"
        self._stop.set()

    # --- from the supervisor -----------------------------------------------------------------------------------

    def _handle(self, message: FromSupervisor) -> None:
        match message:
            case protocol.Identify():
                self._say_hello()
            case protocol.Welcome(reports=reports, beats=beats, supervisor=supervisor):
                self._control.reports_in_beats, self._control.beats = reports, beats
                self._welcomed, self._disowned = True, False
                self._relay.source.allow()
                self._relay.publications.allow()
                if self._control.welcomed(supervisor):
                    self._relay.publications.hurry()
            case protocol.Play():
                self._relay.play(_stream(message, self._clock.now()))
            case MakeOffer(request=request):
                self._tasks.spawn(self._make_offer(request))
            case protocol.Extended():
                self._relay.extended(message.generation, Secret(message.url), message.expires_at)
            case protocol.StreamLost():
                self._relay.stream_lost(message.generation, message.reason)
            case protocol.Republish():
                self._relay.republish(message.publication, message.reason)
            case SetLocal() | LocalOffer() | LocalTrickle() | LocalClose():
                self._relay.local.handle(message)
            case SetRendition():
                self._relay.rendition.configure(message)
            case protocol.SetSinks(sinks=sinks):
                self._relay.publications.configure(sinks)
            case protocol.RequestKeyframe():
                self._relay.request_keyframe()
            case protocol.RecoverVideo(reason=reason):
                self._relay.recover_video(reason)
            case protocol.UseTurn(servers=servers, ends_at=ends_at):
                self._relay.keeper.turn.give(servers, ends_at)
            case protocol.TakeSnapshot(request=request):
                self._tasks.spawn(self._send_file(request, self._relay.snapshot(SNAPSHOT_TIMEOUT)))
            case protocol.TakeCapture(request=request, seconds=seconds):
                self._tasks.spawn(self._send_file(request, self._capture(seconds)))
            case protocol.SetLog(level=level, debug=debug):
                log_setup.set_level(level)
                log_setup.set_debug(set(debug) & log_setup.CATEGORIES.keys())
            case protocol.DumpStacks():
                self._control.send(protocol.StackDump(text="\n".join(map(repr, asyncio.all_tasks()))))
            case protocol.Stop():
                log.info("stopping: %s", message.reason, extra=self._context())
                self._stop_within = message.within
                self._stop.set()

    def _left_alone(self) -> None:
        """The supervisor on another machine is not heard any more: it may have given the camera to another worker.

        What plays goes on, and nothing is begun, lest that worker's connection is taken from it, until a supervisor
        welcomes this one again. (On one machine no other worker is started while this one lives.)
        """
        if not self._disowned:
            log.warning("no supervisor: keeping what is connected, and connecting to nothing", extra=self._context())
        self._disowned = True
        self._relay.source.hold()
        self._relay.publications.hold()

    async def _make_offer(self, request: int) -> None:
        try:
            offer = await self._relay.make_offer(request)
        except Exception as error:
            self._control.send(IngestOfferFailed(request=request, reason=_in_words(error)))
        else:
            self._control.send(IngestOffer(request=request, offer=offer))

    async def _capture(self, seconds: float) -> bytes:
        capture = self._relay.start_capture()
        await asyncio.sleep(min(seconds, LONGEST_CAPTURE))
        self._relay.finish_capture(capture)
        if capture.dropped:
            log.warning("the capture is full: %d later packets are not in it", capture.dropped, extra=self._context())
        return await asyncio.to_thread(capture.file)  # the loop is moving media

    async def _send_file(self, request: int, making: Coroutine[None, None, bytes]) -> None:
        try:
            file = await making
        except Exception as error:
            self._control.send(protocol.FilePart(request=request, last=True, error=_in_words(error)))
            return
        for start in range(0, len(file), FILE_PART):
            end = start + FILE_PART
            self._control.send(protocol.FilePart(request=request, data=file[start:end], last=end >= len(file)))

    # --- from the relay (RelayListener) --------------------------------------------------------------------

    def state_changed(self, state: WorkerState, stage: Stage, reason: str) -> None:
        self._control.send(protocol.StateChanged(state=state, stage=stage, reason=reason))

    def source_failed(self, generation: int, stage: Stage, remedy: Remedy, reason: str) -> None:
        if self._ended_as_outdated(stage):
            return  # the stream is as good as it was: the next worker plays it
        log.debug("source failed at %s: %s", stage.value, reason, extra=self._context())
        self._control.send(
            protocol.SourceFailed(
                generation=generation, stage=stage, remedy=remedy.value, reason=reason, code=self._relay.cause.value
            )
        )

    def published(self, publication: str, sink: str = "", rids: Sequence[str] = ()) -> None:
        self._control.send(protocol.Published(publication=publication, sink=sink, rids=list(rids)))

    def unpublished(self, publication: str, reason: str, sink: str = "") -> None:
        self._control.send(protocol.Unpublished(publication=publication, reason=reason, sink=sink))

    # --- telling about ourselves -----------------------------------------------------------------------------------

    def _say_hello(self) -> bool:
        relay = self._relay
        return self._control.send(
            protocol.Hello(
                protocol=protocol.PROTOCOL,
                instance=self._spec.instance,
                camera=self._spec.camera,
                pid=os.getpid(),
                started=proc.start_ticks(os.getpid()),
                state=relay.state,
                generation=relay.generation,
                expires_at=relay.expires_at,
                publication=relay.publication,
                preloaded=self._preloaded,
                version=relay_common.VERSION,
                confinement=self._sandbox.words,
                tcp_ports=self._sandbox.tcp_ports,
                publications=relay.publications.elsewhere(),
                local=True,
                sinks=True,
                data_path=native.words(),
                renditions=True,
                immortal_objects=immortal.words(),
                rehearsal=shared_stack.rehearsal(),
            )
        )

    async def _beat(self) -> None:
        clock = self._clock
        while not self._welcomed and not self._orphaned(clock.now()):
            self._on_beat()
            if self._say_hello():
                await asyncio.sleep(HELLO_AGAIN)
            else:
                await self._control.until_connected(HELLO_AGAIN)
        self._due, self._state = clock.now(), self._relay.state
        self._alone = asyncio.get_running_loop().create_future()
        self._beat_again()
        await self._alone
        log.warning("no supervisor and no lease: ending", extra=self._context())

    def _beat_again(self) -> None:
        """One beat, and the timer of the next: a task would cost more than some of what it does."""
        if self._alone.done():  # the worker ends
            return
        now = self._clock.now()
        try:
            if self._orphaned(now):
                self._alone.set_result(None)
                return
            self._beat_once(now)
        except Exception as error:
            self._alone.set_exception(error)
            return
        self._due = max(self._due + BEAT, now)
        delay = self._due - now if self._due > now else BEAT
        asyncio.get_running_loop().call_later(delay, self._beat_again)

    def _beat_once(self, now: float) -> None:
        self._on_beat()
        # After a pause of this process what came meanwhile is still unread: it is judged at the next beat.
        stats = None
        if not self._resumed(now):
            self._state = self._relay.tick(now)
            if self._has_to_report(self._state):
                stats = self._reported = self._report(now)
        self._control.beat(self._state, max(0.0, now - self._due), stats)

    def _orphaned(self, now: float) -> bool:
        """Whether there has been neither a supervisor nor a lease for the whole grace period.

        Time during which this process itself was paused does not count. A worker that may connect to nothing has
        nothing to wait for when its lease ends.
        """
        self._away = self._pauses.observe(now)
        heard = self._control.connected and not self._disowned
        if heard or self._clock.wall() < self._relay.expires_at:
            self._alone_since = None
            return False
        if self._disowned and self._relay.expires_at:
            return True
        self._alone_since = now if self._alone_since is None else self._alone_since + self._away
        return now - self._alone_since > self._spec.orphan_grace

    def _resumed(self, now: float) -> bool:
        """Whether this process was paused until `now`.

        That counts as silence of neither camera nor SFU, unless it was so long that they have given up on us, and never
        as one of local viewers.
        """
        if self._away:
            log.info("this worker was suspended for %.1f s", self._away, extra=self._context())
            self._relay.put_off(self._away, now, given_up=self._away >= CONSENT)
        return self._away > 0

    def _ended_as_outdated(self, stage: Stage) -> bool:
        """End when a file that only another worker can read may be why nothing connects, and another will follow."""
        outdated = self._sandbox.outdated(stage) if self._control.connected else ""
        if outdated:
            log.warning("ending, so that another worker starts: %s", outdated, extra=self._context())
            self._farewell = self._farewell or outdated
            self._stop.set()
        return bool(outdated)

    def _has_to_report(self, state: WorkerState) -> bool:
        """Whether this beat carries a report: every one does, or every other one while the camera is live and the last
        report said that nothing is wrong with it.
        """
        last, live, publication = self._reported, WorkerState.LIVE, self._relay.publication
        even = last is not None and last.state is state is live and not last.reason and last.publication == publication
        self._skipped = even and not self._skipped
        return not self._skipped

    def _report(self, now: float) -> WorkerStats:
        self._sequence += 1
        usage = resource.getrusage(resource.RUSAGE_SELF)
        stats = self._relay.stats(now)
        self._ended_as_outdated(stats.stage)
        stats.instance, stats.camera = self._spec.instance, self._spec.camera
        stats.sequence, stats.at = self._sequence, self._clock.wall()
        stats.uptime = now - self._started
        stats.unknown_messages = self._control.refused
        stats.counters |= joined(bus=self._control.counters(), log={"dropped": self._forwarder.dropped})
        stats.cpu = usage.ru_utime + usage.ru_stime
        stats.rss = proc.resident_bytes()
        return stats

    def _context(self) -> dict[str, str]:
        return {"camera": self._spec.name, "instance": self._spec.instance}


def _in_words(error: Exception) -> str:
    """Reason why an answer cannot be given; without it the supervisor would wait for one that never comes."""
    if isinstance(error, RelayError):
        return str(error)
    log.error("an answer to the supervisor failed", exc_info=error)
    return "internal error; see the log"


def _stream(play: protocol.Play, now: float) -> GrantedStream:
    return GrantedStream(
        play.generation,
        play.protocol,
        Secret(play.url),
        play.expires_at,
        answer=Secret(play.answer),
        offer=play.offer,
        contested=bool(play.contested),
        contested_until=now + play.contested,
    )


async def run(spec: WorkerSpec, sandbox: Sandbox, *, preloaded: bool, on_beat: Callable[[], object] = bool) -> None:
    """Run the worker that `spec` describes, confined by `sandbox`, until it is stopped."""
    await Worker(spec, preloaded, sandbox, on_beat=on_beat).run()
