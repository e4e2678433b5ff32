"""The delay that a relay adds, from what was written into it and what came out of it.

Both ends are logged by the simulators on one monotonic clock: the camera notes each RTP packet as it writes it, the
SFU has the kernel's time of arrival of each datagram. Video passes the relay packet by packet, so runs of packets of
the same sizes and marker bits are the same packets; the sequence numbers are the relay's own and say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_SIGNATURE: Final = 24
"""Packets that must agree before a run is believed: nearly three frames."""
LONGEST: Final = 5.0
"""Seconds; a longer delay would be a match with another turn of the camera's loop of ten."""


@dataclass
class Delays:
    """Seconds from writing to arrival, in order of writing, packets without a partner, and with a wrong one."""

    seconds: list[float] = field(default_factory=list)
    unmatched: int = 0
    altered: int = 0
    """Packets of the same size whose payload was another."""

    def quantile(self, share: float) -> float:
        """The delay that `share` (0..1) of the packets stay under; raises ValueError when there are none."""
        if not self.seconds:
            raise ValueError("no packet was matched")
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def match(sent: Sequence[Sequence[Any]], arrived: Sequence[Sequence[Any]], longest: float = LONGEST) -> Delays:
    """Pair the packets of one video track; `longest` (seconds) must be less than the loop that the camera plays.

    `sent` as the camera's log has it: (time, kind, SSRC, sequence, timestamp, size, marker, CRC of the payload),
    `arrived` as the SFU's: (time, SSRC, sequence, timestamp, size, marker, CRC). A log without CRCs (another viewer's)
    is not compared by them.
    """
    ins = [(entry[5], entry[6]) for entry in sent]
    outs = [(entry[4], entry[5]) for entry in arrived]
    delays = Delays()
    here = there = 0
    while here < len(ins) and there < len(outs):
        start = _find(ins, outs, sent, arrived, here, there, longest)
        if start is None:
            delays.unmatched += 1
            here += 1
            continue
        there = start
        while here < len(ins) and there < len(outs) and ins[here] == outs[there]:
            delays.seconds.append(arrived[there][0] - sent[here][0])
            delays.altered += arrived[there][6:] not in ((), sent[here][7:])
            here, there = here + 1, there + 1
    return delays


def _find(
    ins: list[tuple[int, bool]],
    outs: list[tuple[int, bool]],
    sent: Sequence[Sequence[Any]],
    arrived: Sequence[Sequence[Any]],
    here: int,
    there: int,
    longest: float,
) -> int | None:
    """Where in `outs`, from `there` on, the packets at `here` arrive."""
    wanted = ins[here : here + _SIGNATURE]
    if len(wanted) < _SIGNATURE:
        return None
    written = sent[here][0]
    for index in range(there, len(outs) - _SIGNATURE + 1):
        delay = arrived[index][0] - written
        if delay > longest:
            return None
        if delay >= 0 and outs[index : index + _SIGNATURE] == wanted:
            return index
    return None
