"""Whether a camera's streams can be extended: what refused extensions teach, and for how long that is believed."""

from __future__ import annotations

import math
import random
from typing import Final

from relay_common.backoff import Backoff

_ENOUGH: Final = 2.0
_WAIT: Final = 1800.0
_LONGEST_WAIT: Final = 8 * 3600.0


class Probation:
    """What the extensions of one camera's streams have taught. Times are monotonic seconds.

    Two that fail in a row say that its streams cannot be extended. An outage at Google looks the same, so that is
    believed only until `ends`; one stream is then tried again, and if that fails, it is believed for twice as long.
    """

    def __init__(self, rng: random.Random) -> None:
        self.ends = math.inf
        """A stream generated from then on is tried with an extension again."""
        self._failed = 0.0
        self._wait = Backoff(_WAIT, _LONGEST_WAIT, rng=rng)

    def failed(self, weight: float) -> bool:
        """An extension failed in a way that counts `weight` (0..1); whether it has now been enough in a row."""
        self._failed += weight
        return self._failed >= _ENOUGH

    def begin(self, now: float) -> None:
        """The camera's streams are not extended for a while."""
        self.ends = now + self._wait.next_delay()
        self._failed = _ENOUGH - 1.0  # one failure of the next try is enough

    def passed(self) -> None:
        """An extension succeeded, or what was learnt concerns other streams."""
        self.ends, self._failed = math.inf, 0.0
        self._wait.reset()
