"""A camera's small pictures: taken from its frames, made in a thread, handed to whoever sends them.

The media loop never waits: it hands a coded picture over and goes on. A picture that the thread has not begun gives way
to a newer one. Where every picture is decoded, they depend on each other: what waits is bounded, and given up as a
whole for the next keyframe. A thread that does not return is left to itself and replaced, `MOST_STUCK` times.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from relay_common.proc import seconds_wanted
from relay_common.worker_stats import RenditionStats
from relay_worker.media.stream import Frame, Kind, PayloadRun
from relay_worker.rendition.codec import B_PICTURES, INTERLACED, sets_twice
from relay_worker.rendition.maker import Made, MakeJob, PictureMaker
from relay_worker.rendition.plan import KEYFRAMES, OFF, SMOOTH, UNWATCHED_GAP, RenditionPlan
from relay_worker.rendition.repeat import EVERY, Repeats
from relay_worker.rendition.tap import CodedPicture, PictureTap
from relay_worker.rendition.thread import JobThread
from relay_worker.rtp.h264 import MAX_PAYLOAD

log = logging.getLogger(__name__)

MOST_WAITING: Final = 30
"""Coded pictures of the smooth rendition that wait for the thread: a second of them."""
MOST_WAITING_BYTES: Final = 4 * 1024 * 1024
"""Their payload bytes: ten times what a camera of 3 Mbit/s sends in a second."""
KEYFRAME_INTERVAL: Final = 0.5
"""Seconds between two keyframes of the smooth rendition that are made because somebody asks for them."""
STUCK_AFTER: Final = 15.0
"""Seconds without a finished picture after which the thread is given up: a machine may be slow, too."""
STUCK_PAUSE: Final = 60.0
"""Seconds after which another thread is tried."""
LOOP_LATE: Final = 0.5
"""Seconds that `check` may come late; later, and the media loop has no processor that smooth could be made with."""
MOST_STUCK: Final = 2
"""Threads that are given up before there are no small pictures until the worker is replaced: each keeps what it has."""
AGAIN_AFTER: Final = 1.0
"""Seconds between two times that a keyframe is made of the latest picture because somebody asks for one."""
LEAVES_IN: Final = 0.4
"""Seconds in which a keyframe leaves, packet by packet. One that is made of the same moment meanwhile leaves behind it,
with a timestamp that is hardly later: from the two, a receiver that has seen nothing else yet learns a wrong clock.
Where the picture after them needs a retransmission, Chromium holds all back for three seconds
(findings/chromium-holds-pictures-by-a-wrong-clock.sh).
"""
APART: Final = 0.001
"""Seconds at least from the media time of one small picture to the next's: one timestamp is one picture."""
JUMP: Final = 1.0
"""Seconds that media time goes back by where the camera's begins anew."""
_KINDS: Final = {B_PICTURES: "b_frames", INTERLACED: "interlaced"}
"""Why pictures are refused, by name; for any other reason they are too large."""
_STUCK: Final = "the decoder hung {count} times: no small pictures until the camera's worker is replaced"
_PAUSED: Final = "the decoder hung: no small pictures for a minute"


class PictureOwner(Protocol):
    """Who wants small pictures."""

    def takes_rendition(self) -> bool:
        """Whether there is anybody to send them to."""
        ...

    def send_rendition(self, frame: Frame, now: float, *, keyframe: bool) -> None:
        """Send a small picture."""
        ...


class Rendition:
    """Makes the small pictures of one camera, as `configure` says. Implements `pipeline.Output`, as its tap.

    `call` has a function called by the event loop, from any thread: its `call_soon_threadsafe`. `clock` gives the
    monotonic time, `on_keyframe_request` asks the camera for a keyframe, `max_payload` tells how large an RTP payload
    may be. `work` makes what a thread does with jobs. `wanted_cpu` gives the seconds for which the process ran or
    waited for a processor: a loop that comes late without either was suspended.
    """

    def __init__(
        self,
        owner: PictureOwner,
        clock: Callable[[], float],
        call: Callable[[Callable[[], None]], object],
        *,
        on_keyframe_request: Callable[[], None] = lambda: None,
        max_payload: Callable[[], int] = lambda: MAX_PAYLOAD,
        work: Callable[[Callable[[Made], None]], Callable[[MakeJob], None]] = lambda done: PictureMaker(done).work,
        wanted_cpu: Callable[[], float] = seconds_wanted,
    ) -> None:
        self._owner, self._clock, self._call = owner, clock, call
        self._on_keyframe_request, self._max_payload, self._work = on_keyframe_request, max_payload, work
        self.plan = RenditionPlan()
        self.reason = ""
        """Why nothing can be made of the camera's pictures, in words."""
        self._tap = PictureTap()
        self._unmade: CodedPicture | None = None
        """The camera's latest keyframe, where nothing was made of it: the first picture for whoever comes next."""
        self._thread: JobThread[MakeJob] | None = None
        self._life = 0  # number of the thread
        self._progress = (0, 0.0)  # jobs finished, and since when
        self._wanted_cpu = wanted_cpu
        self._checked: tuple[float, float] | None = None  # when, and the seconds of processor that were wanted by then
        self._paused_until = 0.0
        self._waits = True  # for a keyframe, before pictures that refer to it
        self._was_smooth = False
        self._wants_keyframe = False
        self._released = True  # whether the thread keeps nothing that takes memory
        self._media_time = 0.0  # of the newest frame
        self._sent_media_time = float("-inf")
        self._repeats: Repeats | None = None
        """What repeats the latest small picture; None where that is followed by others soon."""
        self._repeat_at = 0.0
        self._repeated = 0
        self._original: tuple[int, int] | None = None
        """Columns and lines of the picture that the latest small one was made of."""
        self._resolution_changes = 0
        self._refusals: Counter[str] = Counter()
        self._sent_at = self._again_at = self._keyframe_at = float("-inf")
        self._stats = RenditionStats()

    # --- what is wanted ----------------------------------------------------------------------------------------------

    def configure(self, mode: str, *, watched: bool, budget: float) -> None:
        """Make what the supervisor says, where somebody takes it."""
        before = self.plan.watched
        self.plan.configure(mode, watched=watched, budget=budget, now=self._clock())
        if watched and not before:
            self.request_keyframe()
            self._again_at += LEAVES_IN - AGAIN_AFTER  # whoever watches asks for a keyframe as well, once connected
        if mode == OFF:
            self._stop()

    @property
    def makes(self) -> bool:
        """Whether small pictures can be had of this camera now, for all that is known."""
        return self.plan.mode != OFF and not self.reason and self._usable(self._clock())

    @property
    def wanted(self) -> bool:
        """Whether frames are to be handed over at all."""
        return self.plan.mode != OFF and self._owner.takes_rendition()

    def request_keyframe(self) -> None:
        """Somebody needs a small picture that depends on no other, as soon as there can be one."""
        now = self._clock()
        self.plan.hurry()
        self._wants_keyframe = True
        # The latest keyframe is the first that can be had; the camera need not be asked for it. Smooth ones follow from
        # the camera's next keyframe on.
        self._answer(self.plan.active(now), now)

    def _answer(self, active: str, now: float) -> None:
        """Send who waits for a keyframe the latest one again, unless it has just been sent."""
        if (active == KEYFRAMES or (active == SMOOTH and self._waits)) and now - self._again_at >= AGAIN_AFTER:
            self._again(now, smooth=active == SMOOTH)

    def _again(self, now: float, *, smooth: bool = False) -> None:
        if (self._stats.pictures or self._unmade) and self.wanted and self._media_time and self._usable(now):
            self._again_at, self._wants_keyframe = now, False
            picture, self._unmade = self._unmade, None
            self._submit(picture, now, self._media_time, smooth=smooth)

    # --- pictures in -------------------------------------------------------------------------------------------------

    def send(self, frame: Frame, now: float) -> None:
        if frame.kind is not Kind.VIDEO:
            return
        active = self.plan.active(now)
        self._media_time = max(self._media_time, frame.media_time)
        picture = self._tap.take(frame, every=active == SMOOTH)
        if picture is not None and active != OFF and self._usable(now):
            if active == SMOOTH:
                self._take_smooth(picture, now)
            else:
                self._take_keyframe(picture, now)
        if picture is not None and picture.keyframe:
            return  # another one is on its way
        if self._wants_keyframe:
            self._answer(active, now)
        if self._repeats is not None and now >= self._repeat_at and self.plan.watched:
            self._repeated += 1
            self._repeat_at = now + EVERY
            self._hand_out([(self._repeats.next(), True)], self._media_time, now, keyframe=False)

    def _take_keyframe(self, picture: CodedPicture, now: float) -> None:
        self._was_smooth, self._waits = False, True
        if not picture.keyframe:
            return
        if not self.plan.admit_keyframe(picture.media_time, now):
            self._unmade = picture
            return
        self._unmade = None
        if self._thread is not None:
            self._stats.replaced += len(self._thread.discard())
        asked, self._wants_keyframe = self._wants_keyframe, False
        self._submit(picture, now, picture.media_time, smooth=False, keyframe=asked)

    def _take_smooth(self, picture: CodedPicture, now: float) -> None:
        if not self._was_smooth:
            self._was_smooth = True
            if not picture.keyframe:
                self._on_keyframe_request()  # nothing can be decoded before one
        if self._thread is not None and _full(self._thread.waiting):
            self._stats.replaced += len(self._thread.discard())
            self._waits = True
            self.plan.overrun(now)
        if self._waits and not picture.keyframe:
            return
        encode = self.plan.admit_smooth(picture.media_time)
        asked = self._wants_keyframe and now - self._keyframe_at >= KEYFRAME_INTERVAL
        keyframe = encode and (asked or self._waits)
        self._waits, self._unmade = False, None
        if keyframe:
            self._wants_keyframe, self._keyframe_at = False, now
        self._submit(picture, now, picture.media_time, smooth=True, encode=encode, keyframe=keyframe)

    def _submit(
        self,
        picture: CodedPicture | None,
        now: float,
        media_time: float,
        *,
        smooth: bool,
        encode: bool = True,
        keyframe: bool = True,
    ) -> None:
        thread = self._thread
        if thread is None:
            self._life += 1
            thread = self._thread = JobThread("rendition", self._work(functools.partial(self._job_done, self._life)))
        if not thread.pending:
            self._progress = (thread.finished, now)
        release = self._released = self.plan.release(now)
        thread.submit(MakeJob(picture, media_time, self._max_payload(), smooth, encode, keyframe, release))

    # --- pictures out ------------------------------------------------------------------------------------------------

    def _job_done(self, life: int, made: Made) -> None:
        """A job is done: called by the thread."""
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            self._call(lambda: self._made(life, made))

    def _made(self, life: int, made: Made) -> None:
        now = self._clock()
        if self._thread is None or life != self._life:
            return  # of a thread that was given up, and has come back
        stats, small = self._stats, made.small
        self.plan.spent(made.cost, now, pictures=made.pictures)
        stats.failed += bool(made.failed)
        stats.refused += bool(made.refused)
        if made.refused:
            self._refusals[_KINDS.get(made.refused, "too_large")] += 1
            self._refused(made.refused, now)
        if made.failed:
            self._waits = True
            log.debug("a small picture was not made: %s", made.failed)
        if small is None:
            return
        payloads = small.payloads
        if small.keyframe and made.job.keyframe:
            payloads = sets_twice(payloads)  # somebody who comes from the full picture may have asked for it
        self.reason = ""
        stats.pictures += 1
        stats.packets += len(payloads)
        stats.bytes += sum(len(payload) for payload, _ in payloads)
        stats.width, stats.height = small.width, small.height
        self._resolution_changes += self._original is not None and small.original != self._original
        self._original = small.original
        self._sent_at, self._repeats, self._repeat_at = now, small.repeats, now + EVERY
        self._hand_out(payloads, made.job.media_time, now, keyframe=small.keyframe)

    def _hand_out(self, payloads: PayloadRun, media_time: float, now: float, *, keyframe: bool) -> None:
        ahead = media_time - self._sent_media_time
        if -JUMP < ahead < APART:
            media_time += APART - ahead
        self._sent_media_time = media_time
        self._owner.send_rendition(Frame(Kind.VIDEO, payloads, media_time), now, keyframe=keyframe)

    def _refused(self, why: str, now: float) -> None:
        if why == B_PICTURES:
            self.plan.forbid_smooth(why, now)
        elif why != self.reason:
            self.reason = why
            log.info("no small pictures: %s", why)

    # --- its life ----------------------------------------------------------------------------------------------------

    def _usable(self, now: float) -> bool:
        return now >= self._paused_until and self._stats.stuck < MOST_STUCK

    def check(self, now: float) -> None:
        """Judge the thread, and keep the rendition from being taken for gone; called about once a second."""
        self._judge_loop(now)
        thread = self._thread
        if thread is not None and thread.pending:
            if thread.finished != self._progress[0]:
                self._progress = (thread.finished, now)
            elif now - self._progress[1] >= STUCK_AFTER:
                self._give_up(now)
        if self._thread is not None and not self._released and self.plan.release(now):
            self._submit(None, now, self._media_time, smooth=False, encode=False)
        if self.plan.mode != OFF and now - self._sent_at >= UNWATCHED_GAP and now - self._again_at >= UNWATCHED_GAP:
            self._again(now)

    def _give_up(self, now: float) -> None:
        log.warning("the thread that makes small pictures has not returned for %.0f s: given up", STUCK_AFTER)
        self._stats.stuck += 1
        self._stop()
        self._paused_until = now + STUCK_PAUSE

    def put_off(self, now: float) -> None:
        """This process was paused until `now`: that time says nothing of the thread."""
        self._progress = (self._progress[0], now)
        self._judge_loop(now)

    def _judge_loop(self, now: float) -> None:
        """Have smooth give way where the loop comes late for want of a processor; a suspended process wants none."""
        if self.plan.mode != SMOOTH:
            self._checked = None
            return
        before, wanted = self._checked, self._wanted_cpu()
        self._checked = (now, wanted)
        if before is None:
            return
        late = now - before[0] - 1.0
        if late > LOOP_LATE and wanted - before[1] >= late / 2:
            self.plan.starved(now)

    def _stop(self) -> None:
        if self._thread is not None:
            self._thread.leave()
            self._thread = None
        self._waits, self._was_smooth, self._unmade, self._repeats = True, False, None, None

    def close(self) -> None:
        """End the thread once it returns."""
        self._stop()

    def stats(self, now: float) -> RenditionStats:
        """The report at `now` (monotonic seconds)."""
        stats, plan, nothing = self._stats, self.plan, self._why_nothing(now)
        stats.mode, stats.active = plan.mode, OFF
        if self._owner.takes_rendition() and not nothing:
            stats.active = plan.active(now)
        stats.reason, stats.cpu = nothing or plan.limited, plan.cost.rate(now)
        return stats

    def _why_nothing(self, now: float) -> str:
        """Why no small pictures are made, in words; empty while they are."""
        if self._stats.stuck >= MOST_STUCK:
            return _STUCK.format(count=self._stats.stuck)
        return _PAUSED if now < self._paused_until else self.reason

    def counters(self) -> dict[str, int]:
        """What the camera sent that is out of the ordinary, and how often a picture was repeated, by name."""
        return {
            "oversized_pictures": self._tap.oversized_pictures,
            "repeats": self._repeated,
            "resolution_changes": self._resolution_changes,
            **{f"refused_{kind}": self._refusals[kind] for kind in (*_KINDS.values(), "too_large")},
        }


def _full(waiting: Sequence[MakeJob]) -> bool:
    """Whether no more pictures may wait."""
    size = sum(job.picture.size for job in waiting if job.picture is not None)
    return len(waiting) >= MOST_WAITING or size >= MOST_WAITING_BYTES
