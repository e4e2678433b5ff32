"""Decides which of a camera's pictures become small ones, by what they cost: no clock, no thread.

Times are media times and monotonic seconds, costs milliseconds of CPU time.
"""

from __future__ import annotations

from collections import deque
from typing import Final

OFF: Final = "off"
KEYFRAMES: Final = "keyframes"
SMOOTH: Final = "smooth"

KEYFRAME_COST: Final = 4.0
"""Milliseconds of CPU a second that small pictures of keyframes may cost …"""
LONGEST_GAP: Final = 4.0
"""… but one in so many seconds is made in any case, or every keyframe where they are further apart."""
SHORTEST_GAP: Final = 0.95
"""Seconds between two small pictures of keyframes: each is a keyframe itself, and may take a second's bits."""
UNWATCHED_GAP: Final = 10.0
"""Seconds between two while nobody watches: the SFU forgets a track that sends nothing for 30 s."""
KEPT_FOR: Final = 30.0
"""Seconds for which decoder and encoder are kept after the last viewer has gone."""
SMOOTH_GAP: Final = 0.095
"""Seconds between two pictures of the smooth rendition: ten a second, from a camera that is not quite even."""
COST_WINDOW: Final = 10.0
JUDGED_AFTER: Final = 5.0
"""Seconds of the smooth rendition before its cost is judged: the first second includes opening the codecs."""
TRY_AGAIN: Final = (60.0, 960.0)
"""Seconds after which the smooth rendition is tried again, once its cost exceeded the budget; doubled each time."""
TOO_BUSY: Final = "this machine is too busy for smooth: keyframes alone"
OVERRUNS: Final = 3
"""Times within `COST_WINDOW` that the thread fell behind, after which the machine counts as too busy."""


class CostMeter:
    """Milliseconds of CPU a second, over the last ten."""

    def __init__(self) -> None:
        self._spent: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def add(self, cost: float, now: float) -> None:
        self._spent.append((now, cost))
        self._sum += cost
        self._forget(now)

    def rate(self, now: float, over: float = COST_WINDOW) -> float:
        """The rate, of which only `over` seconds have passed."""
        self._forget(now)
        return self._sum / over

    def clear(self) -> None:
        """Forget what was spent."""
        self._spent.clear()
        self._sum = 0.0

    def _forget(self, now: float) -> None:
        while self._spent and self._spent[0][0] <= now - COST_WINDOW:
            self._sum -= self._spent.popleft()[1]
        if not self._spent:
            self._sum = 0.0


class RenditionPlan:
    """What is made of a camera's pictures now.

    `mode` is what is configured, `watched` whether somebody has the small picture, `budget` what it may cost.
    """

    def __init__(self) -> None:
        self.mode, self.watched, self.budget = OFF, False, 0.0
        self.cost = CostMeter()
        self.limited = ""
        """Why there are keyframes alone although the smooth rendition is configured; empty while it is made."""
        self._unwatched_since: float | None = 0.0
        self._smooth_since: float | None = None
        self._again_at, self._again_after = 0.0, TRY_AGAIN[0]
        self._overruns: deque[float] = deque(maxlen=OVERRUNS)
        self._last: float | None = None  # media time of the last picture that was taken
        self._keyframe_at: float | None = None
        self._group = 0.0  # seconds from one keyframe of the camera to the next
        self._picture = 0.0  # smoothed cost of one
        self._tokens, self._tokens_at = 0.0, 0.0
        self._hurried = False

    def configure(self, mode: str, *, watched: bool, budget: float, now: float) -> None:
        """Take what the supervisor says."""
        if mode not in (OFF, KEYFRAMES, SMOOTH):
            mode = KEYFRAMES  # of a later release: what every release can do
        if mode != self.mode:
            self._stop_smooth()
            self.limited, self._again_after = "", TRY_AGAIN[0]
        elif budget > self.budget:
            self.limited = ""
        if watched != self.watched:
            self._unwatched_since = None if watched else now
            self._stop_smooth()
            self._hurried = watched
        self.mode, self.watched, self.budget = mode, watched, budget

    def active(self, now: float) -> str:
        """What is made now: `off`, `keyframes` or `smooth`."""
        if self.mode != SMOOTH or not self.watched:
            self._smooth_since = None
            return KEYFRAMES if self.mode != OFF else OFF
        if self.limited and now < self._again_at:
            return KEYFRAMES
        self.limited = ""
        if self.budget <= 0:
            return KEYFRAMES
        if self._smooth_since is None:
            self._smooth_since = now
            self.cost.clear()
        return SMOOTH

    def _stop_smooth(self) -> None:
        self._smooth_since = None
        self._overruns.clear()

    def release(self, now: float) -> bool:
        """Whether nothing that takes memory is to be kept from one picture to the next."""
        return self._unwatched_since is not None and now - self._unwatched_since >= KEPT_FOR

    # --- which pictures ----------------------------------------------------------------------------------------------

    def hurry(self) -> None:
        """Somebody waits for a picture: take the next one that can be had, whatever it costs."""
        self._hurried = True

    def admit_keyframe(self, media_time: float, now: float) -> bool:
        """Whether a small picture is made of the keyframe with this media time."""
        if self._keyframe_at is not None and media_time > self._keyframe_at:
            self._group = media_time - self._keyframe_at
        self._keyframe_at = media_time
        if self._last is None or media_time < self._last:
            return self._admitted(media_time, now)
        gap = media_time - self._last
        if gap < SHORTEST_GAP:
            return False
        if self._hurried:
            return self._admitted(media_time, now)
        if not self.watched:
            # The keyframe after this one would be too late.
            return gap + self._group > UNWATCHED_GAP and self._admitted(media_time, now)
        if gap + self._group > LONGEST_GAP or self._affordable(now) >= self._picture:
            return self._admitted(media_time, now)
        return False

    def _admitted(self, media_time: float, now: float) -> bool:
        self._affordable(now)
        self._last, self._hurried = media_time, False
        return True

    def _affordable(self, now: float) -> float:
        """Milliseconds that may be spent at once."""
        elapsed, self._tokens_at = now - self._tokens_at, now
        self._tokens = min(KEYFRAME_COST * LONGEST_GAP, self._tokens + elapsed * KEYFRAME_COST)
        return self._tokens

    def admit_smooth(self, media_time: float) -> bool:
        """Whether the picture with this media time, which is decoded in any case, is encoded as well."""
        if self._last is not None and 0 <= media_time - self._last < SMOOTH_GAP:
            return False
        self._last = media_time
        return True

    # --- what they cost ----------------------------------------------------------------------------------------------

    def spent(self, cost: float, now: float, *, pictures: int = 1) -> None:
        """So many milliseconds were spent on pictures, their codecs' opening included."""
        self.cost.add(cost, now)
        self._tokens = max(self._tokens - cost, -KEYFRAME_COST * LONGEST_GAP)
        if pictures:
            one = cost / pictures
            self._picture = one if not self._picture else self._picture + 0.3 * (one - self._picture)
        if self._smooth_since is not None and now - self._smooth_since >= JUDGED_AFTER:
            rate = self.cost.rate(now, min(COST_WINDOW, now - self._smooth_since))
            if rate > self.budget:
                self._give_up(
                    now,
                    f"smooth costs {rate:.0f} ms of CPU a second, and {self.budget:.0f} are allowed: keyframes alone",
                )

    def overrun(self, now: float) -> None:
        """The thread fell behind the smooth rendition."""
        self._overruns.append(now)
        if len(self._overruns) == OVERRUNS and now - self._overruns[0] <= COST_WINDOW:
            self._give_up(now, TOO_BUSY)

    def starved(self, now: float) -> None:
        """The media loop, which comes before the rendition, waited long for a processor or for the interpreter."""
        if self._smooth_since is not None:
            self._give_up(now, TOO_BUSY)

    def forbid_smooth(self, why: str, now: float) -> None:
        """The smooth rendition cannot be made of what the camera sends."""
        self._again_after = TRY_AGAIN[1]
        self._give_up(now, why)

    def _give_up(self, now: float, why: str) -> None:
        self._stop_smooth()
        self.limited, self._again_at = why, now + self._again_after
        self._again_after = min(TRY_AGAIN[1], 2 * self._again_after)
