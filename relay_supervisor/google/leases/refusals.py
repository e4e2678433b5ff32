"""What Google's refusals teach about a camera, and for how long that is believed."""

from __future__ import annotations

import math
import random
from typing import Final

from relay_common.backoff import Backoff

_WAIT: Final = 1800.0
_LONGEST_WAIT: Final = 8 * 3600.0


class LearntRefusal:
    """Whether a camera is believed to be refused something on principle. Times are monotonic seconds.

    Refusals that weigh `enough` in a row establish it. An outage at Google looks the same, so it is believed only
    `until` then: the next stream that is generated tries again, and if that fails, it is believed for twice as long
    (half an hour at first, eight hours at most).
    """

    def __init__(self, rng: random.Random, enough: float) -> None:
        self.believed = False
        self.until = math.inf
        """A stream generated from then on is tried again; infinity while nothing is believed."""
        self._enough, self._weight = enough, 0.0
        self._wait = Backoff(_WAIT, _LONGEST_WAIT, rng=rng)

    def doubted(self, generated_at: float) -> bool:
        """Whether a stream generated then is to show that it is otherwise after all."""
        return self.believed and generated_at >= self.until

    def refused(self, weight: float, now: float) -> None:
        """It was refused once more, in a way that counts `weight` (0..1)."""
        self._weight += weight
        if self._weight >= self._enough:
            self.believe(now)

    def believe(self, now: float) -> None:
        """It is refused on principle: believed for a while."""
        self.believed = True
        self.until = now + self._wait.next_delay()
        self._weight = self._enough - 1.0  # one refusal of the next try is enough

    def disproved(self) -> None:
        """It was granted, or what was learnt concerns other streams."""
        self.believed, self.until, self._weight = False, math.inf, 0.0
        self._wait.reset()
