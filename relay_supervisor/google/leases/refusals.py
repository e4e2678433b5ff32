"""What Google's refusals teach about a camera, and how long that is believed."""

from __future__ import annotations

import math
import random
from typing import Final

from relay_common.backoff import Backoff

_WAIT: Final = 1800.0
_LONGEST_WAIT: Final = 8 * 3600.0


class LearntRefusal:
    """Belief that Google refuses a camera something on principle. Times are monotonic seconds.

    Consecutive refusals that weigh `enough` together establish it. An outage at Google looks the same, so it is
    believed only until `until`: the next stream generated after that tries again, and if that fails, it is believed for
    twice as long (half an hour at first, eight hours at most).
    """

    def __init__(self, rng: random.Random, enough: float) -> None:
        self.believed = False
        self.until = math.inf
        """A stream generated from then on tries again; infinity while nothing is believed."""
        self._enough, self._weight = enough, 0.0
        self._wait = Backoff(_WAIT, _LONGEST_WAIT, rng=rng)

    def doubted(self, generated_at: float) -> bool:
        """Whether a stream generated at `generated_at` is to test the belief."""
        return self.believed and generated_at >= self.until

    def refused(self, weight: float, now: float) -> None:
        """Record one more refusal, which counts `weight` (0..1)."""
        self._weight += weight
        if self._weight >= self._enough:
            self.believe(now)

    def believe(self, now: float) -> None:
        """Believe, for a while, that it is refused on principle."""
        self.believed = True
        self.until = now + self._wait.next_delay()
        self._weight = self._enough - 1.0  # one refusal of the next try is enough

    def disproved(self) -> None:
        """Drop the belief: it was granted, or what was learnt concerns other streams."""
        self.believed, self.until, self._weight = False, math.inf, 0.0
        self._wait.reset()
