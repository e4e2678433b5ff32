"""Which packets of an incoming stream are missing, and when to ask for them again (generic NACK, RFC 4585 §6.2.1)."""

from __future__ import annotations

from typing import Final

from relay_worker.rtp.receiver import MAX_MISORDER_REPAIRED
from relay_worker.rtp.wait_clock import WaitClock

MAX_AGE: Final = 0.25
"""Seconds for which a missing packet is asked for, pauses left out: then it is given up, see `track_input.REORDER`."""
MAX_TRIES: Final = 13
"""Requests for one packet: by `_BACK_OFF` they last for more than a second, however short the round trip is."""
MAX_MISSING: Final = 256
"""Packets asked for at the same time; a larger hole is for a keyframe to mend."""
FIRST_RTT: Final = 0.1
"""Round trip assumed in seconds before one was measured."""
_SHORTEST_RETRY: Final = 0.02
_BACK_OFF: Final = 1.25
"""By which each wait for an answer is longer than the one before: seven requests within `MAX_AGE` while packets come,
and all of them over the second for which a camera, or its link, may pause."""
_LONGEST_RETRY: Final = MAX_AGE / 3
"""One slow answer must not leave a packet with a single try."""


class _Missing:
    __slots__ = ("asked_at", "since", "tries")

    def __init__(self, waited: float) -> None:
        self.since = waited
        self.asked_at = 0.0
        self.tries = 0


class NackTracker:
    """Tracks one stream. `asked`, `repaired` and `given_up` count packets, `rtt` is the measured time to a repair."""

    def __init__(self) -> None:
        self._wait_clock = WaitClock()
        self.rtt = FIRST_RTT
        self.asked = self.repaired = self.given_up = 0
        self._highest: int | None = None
        self._missing: dict[int, _Missing] = {}

    def __contains__(self, sequence: int) -> bool:
        """Whether that packet is still awaited."""
        return sequence in self._missing

    def __bool__(self) -> bool:
        """Whether any packet is awaited."""
        return bool(self._missing)

    def received(self, sequence: int, now: float) -> None:
        """Note the arrival of a packet, original or retransmitted."""
        if self._highest is None:
            self._highest = sequence
            return
        if self._missing:
            self._wait_clock.arrived(now)
        step = (sequence - self._highest) & 0xFFFF
        if step == 1:
            self._highest = sequence
        elif step & 0x8000:
            if step < 0x10000 - MAX_MISORDER_REPAIRED:  # the source restarted its numbering
                self._highest = sequence
                self._give_up()
            else:
                self._late(sequence, now)
        elif step:
            self._highest = sequence
            if step > MAX_MISSING:
                self._give_up()
                return
            waited = self._wait_clock.arrived(now)
            for missing in range(sequence - step + 1, sequence):
                self._missing[missing & 0xFFFF] = _Missing(waited)
            if len(self._missing) > MAX_MISSING:
                self._give_up()

    def _late(self, sequence: int, now: float) -> None:
        missing = self._missing.pop(sequence, None)
        if missing is None or not missing.tries:
            return  # a duplicate, or only reordered
        self.repaired += 1
        if missing.tries == 1:  # after a retry it is unknown which request was answered (Karn)
            self.rtt += (now - missing.asked_at - self.rtt) / 4

    def _give_up(self) -> None:
        self.given_up += len(self._missing)
        self._missing.clear()

    def due(self, now: float) -> list[int]:
        """Sequence numbers to request now, oldest first; each counts as requested."""
        asked: list[int] = []
        hopeless: list[int] = []
        first = min(max(_SHORTEST_RETRY, 1.5 * self.rtt), _LONGEST_RETRY)
        waited = self._wait_clock.at(now)
        for sequence, missing in self._missing.items():
            answerable = missing.tries and now - missing.asked_at < first * _BACK_OFF ** (missing.tries - 1)
            if waited - missing.since > MAX_AGE or (missing.tries == MAX_TRIES and not answerable):
                hopeless.append(sequence)
            elif not answerable:
                missing.tries += 1
                missing.asked_at = now
                asked.append(sequence)
        for sequence in hopeless:
            del self._missing[sequence]
        self.given_up += len(hopeless)
        self.asked += len(asked)
        return asked

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"asked": self.asked, "repaired": self.repaired, "given_up": self.given_up}
