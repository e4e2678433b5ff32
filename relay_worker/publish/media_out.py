"""What leaves over one connection, whoever made it: pacer, sender, congestion control, and the timer that drives them.

The base of a publication (`publisher.py`) and of a viewer that the worker answers itself (`relay_worker/local`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from relay_common.clock import Clock
from relay_worker import native
from relay_worker.media.delay import DelayMeter
from relay_worker.media.stream import Frame, Kind, PayloadRun
from relay_worker.native.states import MediaOutState
from relay_worker.publish.answer import AcceptedTrack
from relay_worker.publish.outgoing import OutgoingTrack
from relay_worker.publish.pacer import Pacer, PacerSettings
from relay_worker.publish.packet_writer import Protector
from relay_worker.publish.sender import MediaSender
from relay_worker.publish.small_layer import SmallLayer
from relay_worker.publish.uplink import Uplink
from relay_worker.webrtc.gso import PacketPath


class MediaOut(MediaOutState):
    """Sends a camera's frames over a connection from `_begin` on, while `connected`. Implements `pipeline.Output`.

    `on_keyframe_request` asks the camera for a keyframe, at most once a second. `delay` takes how long each run of
    video was here. Media times are seconds on the pipeline's timeline, `now` is when the media came in (monotonic
    seconds).
    """

    def __init__(
        self,
        clock: Clock,
        pacer: PacerSettings,
        *,
        on_keyframe_request: Callable[[], None] = lambda: None,
        on_small_request: Callable[[], None] = lambda: None,
        delay: DelayMeter | None = None,
    ) -> None:
        self._clock = clock
        self._on_keyframe_request, self._on_small_request = on_keyframe_request, on_small_request
        self._pacer = Pacer(pacer)
        self._delay = delay or DelayMeter()
        self._uplink: Uplink | None = None
        self._sender: MediaSender | None = None
        self._video: OutgoingTrack | None = None
        self._audio: OutgoingTrack | None = None
        self._small: OutgoingTrack | None = None
        self._small_layer = SmallLayer(self._pacer)
        self._small_timer: asyncio.Handle | None = None
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0
        """Deadline of the timer: for a deadline that has passed uvloop returns a plain handle, which has no
        `when()`.
        """
        self._not_connected = 0
        """Payload runs dropped because there was no connection."""
        self._compiled = native.compiled()
        self._sound: native.Wake | None = None  # sends it
        self._released: dict[OutgoingTrack, native.Wake] = {}  # sends what the pacer lets through
        self.connected = False
        """Whether media may leave: checked for every frame."""
        self.capture: Callable[[OutgoingTrack, PayloadRun, int, int, float], None] | None = None
        """Called with everything that is sent while packets are being captured."""

    def _begin(self, protector: Protector, path: PacketPath, accepted: Sequence[AcceptedTrack], cname: str) -> None:
        tracks = [OutgoingTrack(one) for one in accepted]
        self._video = next((track for track in tracks if track.kind == "video"), None)
        self._audio = next((track for track in tracks if track.kind == "audio"), None)
        for one in accepted:
            if one.small is not None and self._video is not None:
                # Times of both layers agree without a look at the sender reports, too.
                self._small = OutgoingTrack(one.small, timestamp_base=self._video.timestamp_base)
                tracks.append(self._small)
        self._sender = MediaSender(
            protector,
            path,
            tracks,
            cname=cname,
            on_keyframe_request=self._on_keyframe_request,
            on_small_request=self._on_small_request,
        )
        if self._video is not None:
            self._uplink = Uplink(self._pacer, self._sender, self._video)

    # --- media out

    def set_clock(self, media_time: float, wall: float, now: float) -> None:
        """State that at monotonic `now` the media clock shows `media_time` and it is `wall`; see MediaSender.

        Optional: without it the first media sent is taken as the present.
        """
        if self._sender is not None:
            self._sender.set_clock(media_time, wall, now)

    def send(self, frame: Frame, now: float) -> None:
        """Send a frame, or the part of it that is there, which came in at `now`. Implements `pipeline.Output`."""
        video = frame.kind is Kind.VIDEO
        track = self._video if video else self._audio
        if track is None or not self.connected:
            self._not_connected += 1
            return
        if video:
            passed = self._pacer.take_video(frame.payloads, frame.media_time, now)
        elif self._compiled is not None and self._send_sound(self._compiled, frame, now):
            return
        else:
            passed = self._pacer.take_audio(frame.payloads, frame.media_time, frame.step, now)
        if self._uplink is not None and self._uplink.probing:
            self._uplink.probe(now)
        if not passed:
            self._pump(now)
            return
        self._send(track, frame.payloads, frame.media_time, frame.step, now)
        if video:
            self._delay.add(self._clock.now() - now, len(frame.payloads))

    def _send_sound(self, compiled: native.Compiled, frame: Frame, now: float) -> bool:
        """What `send` does, with one call, where sound may leave at once; False where nothing was done."""
        if self._sound is None:
            self._sound = self._prepare_sound(compiled)
            if self._sound is None:
                return False
        done = self._sound.send(frame.payloads, frame.media_time, frame.step, now)
        if done == native.CHANGED:
            self._sound = None
        return done == native.DONE

    def _prepare_sound(self, compiled: native.Compiled) -> native.Wake | None:
        assert self._audio is not None
        return self._prepare(compiled, self._audio, self._uplink)

    def _release(self, track: OutgoingTrack, payloads: PayloadRun, media_time: float, step: float, now: float) -> bool:
        """What `_send` does, with one call; False where nothing was done."""
        if self._compiled is None or self.capture is not None:
            return False
        if (wake := self._released.get(track)) is None:
            wake = self._prepare(self._compiled, track)
            if wake is None:
                return False
            self._released[track] = wake
        done = wake.release(payloads, media_time, step, now)
        if done == native.CHANGED:
            del self._released[track]
        return done == native.DONE

    def _prepare(
        self, compiled: native.Compiled, track: OutgoingTrack, uplink: Uplink | None = None
    ) -> native.Wake | None:
        """What sends packets of `track`, not while `uplink` is probed; None while compiled code cannot."""
        assert self._sender is not None
        sender = self._sender.wake_parts(track)
        if sender is None:
            return None
        made = native.OutputParts(
            **(sender | self._pacer.sound_parts()), uplink=uplink, delay=None, now=self._clock.now
        )
        guards: tuple[native.StillSo, ...] = (
            (self, "capture", None),
            (self, "_sender", self._sender),
            (track, "extensions", track.extensions),
        )
        return compiled.Wake(guards, native.InputParts(), (made,), Kind.AUDIO, -1, -1)

    def wake_parts(self) -> tuple[list[native.OutputParts], list[native.StillSo]] | None:
        """What compiled code needs to send video as `send` does; None while it cannot."""
        if self._sender is None or self._video is None or not self.connected or self.capture is not None:
            return None
        sender, pacer = self._sender.wake_parts(self._video), self._pacer.wake_parts()
        if sender is None:
            return None
        parts = native.OutputParts(**sender, **pacer, uplink=self._uplink, delay=self._delay, now=self._clock.now)
        extensions = (self._video, "extensions", self._video.extensions)
        return [parts], [(self, "connected", True), (self, "capture", None), extensions]

    def send_past(self, frames: Sequence[Frame], now: float) -> None:
        """Send video that came earlier, all of it at once, as fast as the pacer lets it leave; none to whom takes sound
        alone.
        """
        if self._video is None:
            return
        for frame in frames:
            self._pacer.take_past(frame.payloads, frame.media_time, now)
        self._pump(now)

    @property
    def has_small(self) -> bool:
        """Whether there is a small layer to send."""
        return self._small is not None and self.connected

    @property
    def small_flows(self) -> bool:
        """Whether the small layer, where there is one, has begun."""
        return self._small is None or self._small.stats.packets > 0

    def send_small(self, frame: Frame, now: float, *, keyframe: bool) -> None:
        """Send a picture of the small layer, behind what the original has to send."""
        layer = self._small_layer
        if not self.has_small:
            return
        layer.add(frame.payloads, frame.media_time, now, keyframe=keyframe)
        if layer.waits_for_keyframe:
            self._on_small_request()
        if self._small_timer is None:
            self._pump_small(now)

    def _pump_small(self, now: float) -> None:
        track = self._small
        assert track is not None
        if (due := self._small_layer.pop(now)) is not None:
            self._send(track, *due, 0.0, now)
        deadline = self._small_layer.next_deadline()
        if deadline is not None:
            self._small_timer = asyncio.get_running_loop().call_at(deadline, self._small_timer_fired, deadline)

    def _small_timer_fired(self, due: float) -> None:
        self._small_timer = None
        if self.connected:
            self._pump_small(max(self._clock.now(), due))

    def _send(self, track: OutgoingTrack, payloads: PayloadRun, media_time: float, step: float, now: float) -> None:
        if self._release(track, payloads, media_time, step, now):
            return
        sender = self._sender
        assert sender is not None
        if sender.clock is None:
            sender.set_clock(media_time, self._clock.wall(), now)
        timestamp, ticks = track.rtp_time(media_time), round(step * track.clock_rate)
        if self.capture is not None:
            self.capture(track, payloads, timestamp, ticks, now)
        sender.send(track, payloads, timestamp, now, ticks)

    def _pump(self, now: float) -> None:
        """Send what is due, and set the single timer for the rest."""
        for kind, payloads, media_time, step, came in self._pacer.pop(now):
            track = self._video if kind == "video" else self._audio
            assert track is not None
            self._send(track, payloads, media_time, step, now)
            if track is self._video:
                self._delay.add(self._clock.now() - came, len(payloads))
        deadline = self._pacer.next_deadline()
        if deadline is None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None or self._timer_at > deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(deadline, self._timer_fired)
            self._timer_at = deadline

    def _timer_fired(self) -> None:
        self._timer = None
        if self.connected:
            # A loop may round and call slightly early: not worth another timer.
            self._pump(max(self._clock.now(), self._timer_at))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._small_timer is not None:
            self._small_timer.cancel()
            self._small_timer = None

    # --- feedback in

    def _received(self, packet: bytes, is_rtcp: bool, now: float) -> None:
        if is_rtcp and self._sender is not None:
            self._sender.receive_rtcp(packet, now, self._waited())
            if self._uplink is not None:
                self._uplink.heard(now)

    def _waited(self) -> float:
        """Seconds that the packet which is being received lay in its socket, unread; 0 where that is not known."""
        return 0.0

    def put_off(self, seconds: float, now: float) -> None:
        """This process was paused until `now`: that time is no silence of the far end's, and no queue on the way."""
        if self._sender is not None:
            self._sender.put_off(seconds, now)
        if self._uplink is not None:
            self._uplink.put_off(now)
