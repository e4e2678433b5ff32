"""Which packets of an incoming stream are missing, and when to ask for them again (generic NACK, RFC 4585 §6.2.1)."""

from __future__ import annotations

from typing import Final

from relay_worker.rtp.receiver import MAX_MISORDER_REPAIRED
from relay_worker.rtp.wait_clock import WaitClock

MAX_AGE: Final = 0.25
"""Seconds for which a missing packet is requested, pauses left out; then it is given up, see `track_input.REORDER`."""
MAX_TRIES: Final = 13
"""Requests for one packet: by `_BACK_OFF` they last for more than a second, however short the round trip is."""
MAX_MISSING: Final = 256
"""Packets requested at the same time; a larger gap is left to the next keyframe."""
FIRST_RTT: Final = 0.1
"""Round trip assumed in seconds before one was measured."""
_SHORTEST_RETRY: Final = 0.02
_USUAL_WAIT: Final = 1.5
"""Round trips after which an answer is taken for lost."""
_LEAST_WAIT: Final = 1.1
"""The same where the round trip is so long that an answer to a later request would come after `MAX_AGE`. Never less
than one: a request before that is wasted, since the answer to the one before it is still on its way."""
_BACK_OFF: Final = 1.25
"""By which each wait for an answer is longer than the one before: seven requests within `MAX_AGE` while packets come,
and all of them over the second for which a camera, or its link, may pause."""
_LONGEST_WAIT: Final = 1.0
"""Seconds: bounds the growth, so that even over a long way all requests are made within ten seconds."""


class _Missing:
    __slots__ = ("asked_at", "asked_waited", "rtt", "since", "tries")

    def __init__(self, waited: float) -> None:
        self.since = waited
        self.asked_at = self.asked_waited = 0.0
        self.rtt = 0.0  # as known when it was first asked for
        self.tries = 0


class NackTracker:
    """Tracks one stream. `asked`, `repaired` and `given_up` count packets, `rtt` is the measured time to a repair."""

    def __init__(self) -> None:
        self._wait_clock = WaitClock()
        self.rtt = FIRST_RTT
        self.asked = self.repaired = self.given_up = 0
        self.highest: int | None = None
        """Sequence number of the newest packet, once there was one."""
        self._missing: dict[int, _Missing] = {}

    def __contains__(self, sequence: int) -> bool:
        """Whether that packet is still awaited."""
        return sequence in self._missing

    def __bool__(self) -> bool:
        """Whether any packet is awaited."""
        return bool(self._missing)

    def received(self, sequence: int, now: float) -> None:
        """Note the arrival of a packet, original or retransmitted."""
        if self.highest is None:
            self.highest = sequence
            return
        if self._missing:
            self._wait_clock.arrived(now)
        step = (sequence - self.highest) & 0xFFFF
        if step == 1:
            self.highest = sequence
        elif step & 0x8000:
            if step < 0x10000 - MAX_MISORDER_REPAIRED:  # the source restarted its numbering
                self.highest = sequence
                self._give_up()
            else:
                self._late(sequence, now)
        elif step:
            self.highest = sequence
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
        if missing.tries == 1:
            # Pauses of the whole link are left out: they say nothing about the way. Downwards quickly: that one too
            # many was asked for (below) has raised it by chance wherever answers are lost.
            sample = min(self._wait_clock.at(now) - missing.asked_waited, MAX_AGE)
            self.rtt += (sample - self.rtt) / (2 if sample < self.rtt else 4)
        else:
            # It is unknown which request was answered. The next packets are asked for again later, until an answer
            # comes before that and can be measured (Karn's algorithm, RFC 6298 §5.5 and §3).
            self.rtt = min(max(self.rtt, missing.rtt * _BACK_OFF), MAX_AGE)

    def _give_up(self) -> None:
        self.given_up += len(self._missing)
        self._missing.clear()

    def due(self, now: float) -> list[int]:
        """Sequence numbers to request now, oldest first; each counts as requested."""
        asked: list[int] = []
        hopeless: list[int] = []
        rtt = self.rtt
        first = max(_SHORTEST_RETRY, min(_USUAL_WAIT * rtt, max(_LEAST_WAIT * rtt, MAX_AGE - rtt)))
        waited = self._wait_clock.at(now)
        for sequence, missing in self._missing.items():
            wait = min(first * _BACK_OFF ** (missing.tries - 1), _LONGEST_WAIT)
            answerable = missing.tries and now - missing.asked_at < wait
            if waited - missing.since > MAX_AGE or (missing.tries == MAX_TRIES and not answerable):
                hopeless.append(sequence)
            elif not answerable:
                if not missing.tries:
                    missing.asked_waited, missing.rtt = waited, rtt
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
