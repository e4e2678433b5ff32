"""The data path of one camera, on one page.

    source → receiver → depacketizer / passthrough → timeline → [ hold | output ]
                              AAC → Opus  (Opus passes)

A source (RTSP or WebRTC) hands in what each wake brought; whole runs of payloads go to the output (a publication, with
its pacer and sender) in the same wake. While no output is attached, the present group of pictures is held, within
bounds, so that a publication which comes up in the middle of it need not wait for the next keyframe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from relay_common.clock import CallAt
from relay_common.counters import joined
from relay_common.worker_stats import TrackStats
from relay_worker import native, wakes
from relay_worker.media.inputs import AudioInput, VideoInput, make_input
from relay_worker.media.keyframe_starts import KeyframeStarts
from relay_worker.media.opus import FRAME_SECONDS
from relay_worker.media.opus_input import OpusInput
from relay_worker.media.stream import Batch, Feed, Frame, Kind, Output, PayloadRun, Track
from relay_worker.media.track_input import TrackInput
from relay_worker.native.states import PipelineState
from relay_worker.rtp.h264 import MAX_PAYLOAD
from relay_worker.rtp.h264_packetize import refit
from relay_worker.rtp.rtcp import ReportBlock
from relay_worker.rtp.timeline import Timeline

MAX_HELD_BYTES: Final = 192 * 1024
MAX_HELD_SECONDS: Final = 2.0
"""Bounds on the group of pictures held for an output: what a socket takes at once without loss."""


class Pipeline(PipelineState):
    """Moves one camera's media from its source to its output. Implements `rtsp.source.MediaSink`.

    `on_tracks` is called when a new source session has brought its tracks. `call_at` sets the timer for packets that
    wait (`VideoInput.due`); without one they leave with the next packet or at `flush`.
    """

    def __init__(
        self, *, audio: bool = True, on_tracks: Callable[[], None] = lambda: None, call_at: CallAt | None = None
    ) -> None:
        self.timeline = Timeline()
        self.inputs: dict[Kind, TrackInput] = {}
        self.output: Output | None = None
        self.viewers: Output | None = None
        """Viewers that the worker answers itself, beside the output."""
        self.rendition: Output | None = None
        """What makes small pictures of the video, behind those two; it hands them on by itself."""
        self.holds = True
        """Whether the present group of pictures is held while there is no output: one is expected; see `expect`."""
        self.last_media: dict[Kind, float] = {}
        """When a packet of each kind was last received (monotonic seconds)."""
        self.last_frame: dict[Kind, float] = {}
        """When a frame of each kind was last ready to send."""
        self.filling = False
        """Whether filler is being sent instead of the camera's media; the first live video frame ends it."""
        self.tap: Callable[[Frame], None] | None = None
        """Called with every live frame while a snapshot is being taken."""
        self.capture: Callable[[Sequence[Batch], float], None] | None = None
        """Called with everything that arrives while packets are being captured."""
        self.max_payload = MAX_PAYLOAD
        """Bytes of the largest video payload that output and viewers have room for; see `fit`."""
        self._fits = (MAX_PAYLOAD, MAX_PAYLOAD)  # of the output, and of viewers
        self.sessions, self.playing_since = 0, 0.0
        """Sessions with the source so far, and when the current one began to play."""
        self.held_over = 0
        """Payloads dropped because the bound was reached before there was an output."""
        self.taken_whole = self.taken_in = 0
        """Wakes that compiled code took as a whole, and that it took in for the Python to send: an output has to hold
        what came, or others look on.
        """
        self._audio, self._on_tracks, self._call_at = audio, on_tracks, call_at
        self._timer_due = 0.0  # when the one timer fires; 0 when there is none
        self._by_track: dict[Track, TrackInput] = {}
        self._retired = {kind: TrackStats() for kind in Kind}
        self._held: list[Frame] = []
        self._held_bytes = self._retired_malformed = 0
        self._starts = KeyframeStarts(from_start=True)  # of what is held
        self._repeats_sets, self._now = False, 0.0
        self._compiled = native.compiled()
        self.wake: native.Wake | None = None
        """What takes the wakes of the present session with one call, once it has been made."""
        self._ear: native.Wake | None = None

    # --- from the source -----------------------------------------------------------------------------------------

    def on_playing(self, tracks: Sequence[Track], now: float) -> None:
        """Start a source session with new inputs; the media clock continues."""
        self._retire()
        self.sessions += 1
        self.playing_since = now
        self.timeline.rebase()
        for track in tracks:
            if track.kind is Kind.AUDIO and not self._audio:
                continue
            made = self._make_input(track)
            if made is not None:
                self.inputs[track.kind] = self._by_track[track] = made
                self.last_media[track.kind] = now
        self._on_tracks()

    def on_media(self, batches: Sequence[Batch], now: float) -> None:
        """Process everything received in one wake-up, read at `now`."""
        self._now = now
        if self.capture is not None:
            self.capture(batches, now)
        for batch in batches:
            track_input = self._by_track.get(batch.track)
            if track_input is None:
                continue
            for report in batch.rtcp:
                track_input.receive_rtcp(report, now)
            if batch.rtp:
                self.last_media[batch.track.kind] = now
                if track_input.admit(len(batch.rtp), now):
                    track_input.receive_packets(batch.rtp, now, self._forward)
                if track_input.due and not self._timer_due:
                    self._wake_at(track_input.due)

    def take_wake(self, feed: Feed, data: bytes, now: float, done: int | None = None) -> int:
        """Do what `on_media` would with the packets in `data`, where all of it is plain. Implements `WakeSink`."""
        if self._compiled is None:
            return native.NOT_PLAIN
        if done is None:
            if self.wake is None:
                self.wake = wakes.prepare(self._compiled, feed, self, self._by_track.get(feed.track))
            done = native.NO_VIDEO if self.wake is None else self.wake.take(data, now)
        if done == native.NO_VIDEO:
            done = self._hear(self._compiled, feed, data, now)
        elif done == native.CHANGED:
            self.wake = None
        return done

    def hear_wake(self, data: bytes, now: float) -> bool:
        """Take sound that came alone, by what has taken it before. Implements `WakeSink`."""
        return self._ear is not None and self._ear.hear(data, now) == native.DONE

    def take_left(self, feed: Feed, now: float) -> None:
        """Take what `take_wake` has left to the session. Implements `WakeSink`."""
        batches = feed.session.take_batches()
        sound = wakes.only_sound(feed, batches)
        if not sound or self._compiled is None or self._hear(self._compiled, feed, sound, now) != native.DONE:
            self.on_media(batches, now)

    def _hear(self, compiled: native.Compiled, feed: Feed, data: bytes, now: float) -> int:
        """The same for sound that came alone: up to its access unit, or to what is sent of it, with one call."""
        if (ear := self._ear) is None:
            audio = self.inputs.get(Kind.AUDIO)
            if isinstance(audio, AudioInput):
                ear = self._ear = wakes.prepare_sound(compiled, feed, self, audio)
            elif isinstance(audio, OpusInput):
                ear = self._ear = wakes.prepare_opus(compiled, feed, self, audio)
        if ear is None:
            return native.NOT_PLAIN
        heard = ear.hear(data, now)
        if isinstance(heard, tuple):
            self._heard(*heard, now)
            return native.DONE
        if heard == native.CHANGED:
            self._ear = None
        return heard

    def _heard(self, unit: bytes, media_time: float, now: float) -> None:
        """An access unit of sound that compiled code has found, which calls this by itself where it reads."""
        audio = self.inputs[Kind.AUDIO]
        assert isinstance(audio, AudioInput)
        audio.transcode(unit, media_time, now, self._forward)

    def _encoded(self, payloads: PayloadRun, media_time: float) -> None:
        """Opus packets that compiled code has made and may not send."""
        self._forward(Frame(Kind.AUDIO, payloads, media_time, FRAME_SECONDS))

    def _came(self, payloads: PayloadRun, media_time: float) -> None:
        """An Opus packet that compiled code has taken in and may not send."""
        self._forward(Frame(Kind.AUDIO, payloads, media_time))

    def _passed(self, payloads: PayloadRun, media_time: float) -> None:
        """A picture, or the part of it that is there, which compiled code has taken in and may not send."""
        self._forward(Frame(Kind.VIDEO, payloads, media_time))

    def _wake_at(self, due: float) -> None:
        """Set the timer for a held packet: only needed where the camera's marker bits cannot be trusted."""
        if self._call_at is not None:
            self._timer_due = due
            self._call_at(due, self._end_waiting)

    def _end_waiting(self) -> None:
        # The loop may be late: time must not go back behind media that has arrived meanwhile.
        self._now, self._timer_due = max(self._now, self._timer_due), 0.0
        self._end_due(self._now)

    def _end_due(self, now: float) -> None:
        for track_input in list(self.inputs.values()):
            if track_input.due > now:
                self._wake_at(track_input.due)
            elif track_input.due:
                track_input.end_waiting(now, self._forward)

    def flush(self, now: float) -> None:
        """Stop waiting for missing packets; called about once a second."""
        self._now = now
        for track_input in list(self.inputs.values()):
            track_input.receive_packets([], now, self._forward)
        self._end_due(now)

    def receiver_report(self, track: Track, now: float) -> ReportBlock | None:
        """The receiver report block to send to the source for a track."""
        track_input = self._by_track.get(track)
        return track_input.receiver_report(now) if track_input is not None else None

    def _forward(self, frame: Frame) -> None:
        now = self._now
        self.last_frame[frame.kind] = now
        if self.filling and frame.kind is Kind.VIDEO:
            self.filling = False
        if self.tap is not None:
            self.tap(frame)
        self.deliver(frame, now)
        if self.output is None and self.holds:
            self._hold(frame)

    def deliver(self, frame: Frame, now: float) -> None:
        """Send a frame, the camera's or filler, to all that there are."""
        if self.viewers is not None:
            self.viewers.send(frame, now)
        if self.output is not None:
            self.output.send(frame, now)
        if self.rendition is not None:
            self.rendition.send(frame, now)

    def rebuild(self, kind: Kind) -> None:
        """Restart one track within its session with a new depacketizer and transcoder."""
        if (track_input := self.inputs.get(kind)) is None:
            return
        self._retire_input(kind, track_input)
        made = self._make_input(track_input.track)
        if made is not None:
            if isinstance(made, VideoInput) and isinstance(track_input, VideoInput):
                made.inherit(track_input)
            self.inputs[kind] = self._by_track[track_input.track] = made

    def repeat_parameter_sets(self) -> None:
        """Put the parameter sets before every IDR picture from now on, even where the camera has sent them."""
        self._repeats_sets = True
        video = self.inputs.get(Kind.VIDEO)
        if isinstance(video, VideoInput):
            video.passthrough.repeats_sets = True

    # --- to the output -------------------------------------------------------------------------------------------

    def _make_input(self, track: Track) -> TrackInput | None:
        made = make_input(track, self.timeline)
        if isinstance(made, VideoInput):
            made.passthrough.max_payload = self.max_payload
            made.passthrough.repeats_sets = self._repeats_sets
        return made

    def fit(self, max_payload: int) -> None:
        """Limit video payloads to so many bytes for the output from now on, those that are held included."""
        self._fit(max_payload, self._fits[1])

    def fit_viewers(self, max_payload: int) -> None:
        """The same for viewers: fragmenting is done once, for the narrowest."""
        self._fit(self._fits[0], max_payload)

    def _fit(self, *fits: int) -> None:
        self._fits, max_payload = (fits[0], fits[1]), min(fits)
        for frame in self._held if max_payload < self.max_payload else ():
            frame.payloads = refit(frame.payloads, max_payload)
        self.max_payload = max_payload
        video = self.inputs.get(Kind.VIDEO)
        if isinstance(video, VideoInput):
            video.passthrough.max_payload = max_payload

    def attach(self, output: Output, now: float) -> bool:
        """Send to `output` from `now` on, starting with the held group of pictures.

        False when there is none and viewers are watching, whom nothing is kept from: then the output itself has to wait
        for a keyframe.
        """
        held, self._held, self._held_bytes = self._held, [], 0
        self.output = output
        for frame in held:
            output.send(frame, now)
            if self.rendition is not None:
                self.rendition.send(frame, now)
        if not held and self.viewers is None:
            self.resync()
        return bool(held) or self.viewers is None

    def expect(self, *, output: bool) -> None:
        """State whether there will be an output: without one nothing is held for it."""
        if output and not self.holds:
            # The rest of a picture may be what comes first.
            self._starts = KeyframeStarts(from_start=Kind.VIDEO not in self.last_frame)
        elif not output:
            self._drop_held()
        self.holds = output

    def detach(self) -> None:
        """Stop sending: the output is closed."""
        self.output = None
        self._starts = KeyframeStarts(from_start=self.viewers is None)
        if self.viewers is None:
            self.resync()

    def resync(self) -> None:
        """Send no video until the next keyframe."""
        video = self.inputs.get(Kind.VIDEO)
        if isinstance(video, VideoInput):
            video.passthrough.hold_until_keyframe()

    def _hold(self, frame: Frame) -> None:
        if frame.kind is not Kind.VIDEO:
            return
        if self._starts.begins(frame):
            self._drop_held()
        elif not self._held:
            self.held_over += len(frame.payloads)
            return
        held = self._held
        held.append(frame)
        self._held_bytes += sum(len(payload) for payload, _ in frame.payloads)
        if self._held_bytes > MAX_HELD_BYTES or frame.media_time - held[0].media_time > MAX_HELD_SECONDS:
            self._drop_held()

    def _drop_held(self) -> None:
        self.held_over += sum(len(frame.payloads) for frame in self._held)
        self._held, self._held_bytes = [], 0

    # --- counters ------------------------------------------------------------------------------------------------

    def _retire(self) -> None:
        """Add the totals of the ended session to those of earlier ones."""
        for kind, track_input in list(self.inputs.items()):
            self._retire_input(kind, track_input)

    def _retire_input(self, kind: Kind, track_input: TrackInput) -> None:
        self.wake = self._ear = None
        track_input.count(self._retired[kind])
        self._retired_malformed += track_input.malformed
        del self.inputs[kind], self._by_track[track_input.track]

    def track_stats(self, kind: Kind) -> TrackStats:
        """Totals of one kind of media over all sessions so far."""
        stats = self._retired[kind].copied()
        if (track_input := self.inputs.get(kind)) is not None:
            track_input.count(stats)
        return stats

    def totals(self, kind: Kind) -> tuple[int, int, int]:
        """Of these: packets received, frames, and keyframes."""
        retired, now = self._retired[kind], self.inputs.get(kind)
        packets, frames, keyframes = (now.receiver.packets, *now.made) if now is not None else (0, 0, 0)
        return retired.packets_in + packets, retired.frames + frames, retired.keyframes + keyframes

    @property
    def skew(self) -> float:
        """Seconds by which sound arrives after the video of the same moment; 0 where there is only one of them."""
        if len(self.inputs) < len(Kind):
            return 0.0
        return self.timeline.lateness(Kind.AUDIO) - self.timeline.lateness(Kind.VIDEO)

    @property
    def malformed(self) -> int:
        """Packets that could not be parsed, over all sessions."""
        return self._retired_malformed + sum(track_input.malformed for track_input in self.inputs.values())

    @property
    def keyframe_at(self) -> float:
        """When this session's last keyframe arrived (monotonic seconds); 0 before the first."""
        video = self.inputs.get(Kind.VIDEO)
        return video.keyframe_at if isinstance(video, VideoInput) else 0.0

    @property
    def video_number(self) -> int | None:
        """The newest sequence number of this session's video; None before the first."""
        return self.inputs[Kind.VIDEO].receiver.newest if Kind.VIDEO in self.inputs else None

    @property
    def waits_for_keyframe(self) -> bool:
        """Whether video is held back until the camera's next keyframe."""
        video = self.inputs.get(Kind.VIDEO)
        return isinstance(video, VideoInput) and video.passthrough.wants_keyframe

    def counters(self) -> dict[str, int]:
        """Counters of the current session's parts, as `part.name`."""
        inputs = {kind.value: track_input.counters() for kind, track_input in self.inputs.items()}
        return joined(
            pipeline={"held_over": self.held_over, "taken_whole": self.taken_whole, "taken_in": self.taken_in},
            timeline=self.timeline.counters(),
            **inputs,
        )
