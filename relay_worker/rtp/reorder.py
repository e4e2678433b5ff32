"""A small reorder buffer for packets that come over UDP."""

from __future__ import annotations

from relay_worker.native.states import ReorderState
from relay_worker.rtp.packet import RtpView
from relay_worker.rtp.wait_clock import WaitClock


class ReorderBuffer(ReorderState):
    """Puts packets back in sequence, waiting at most `max_wait` seconds or `max_packets` packets for a missing one.

    Feed it what `RtpReceiver(in_order=False)` returns, and call `poll` after all that one wake brought: what a packet
    waits for may be right behind it. It works out `lost` itself. `forced` counts gaps given up on, `late` packets that
    came after their gap was given up on.
    """

    def __init__(self, max_packets: int = 64, max_wait: float = 0.1) -> None:
        self._max_packets, self._max_wait = max_packets, max_wait
        self._held: dict[int, tuple[RtpView, float]] = {}  # with the time on `wait_clock`; the oldest first
        self.wait_clock = WaitClock()
        self._next: int | None = None
        self.forced = 0
        self.late = 0

    def receive_view(self, view: RtpView, now: float) -> list[RtpView]:
        """Add one packet; returns those now in sequence, each with the number of packets lost before it."""
        if self._next is None:
            self._next = (view.sequence + 1) & 0xFFFF
            return [view]
        if (view.sequence - self._next) & 0x8000:
            self.late += 1
            return []
        self._held[view.sequence] = (view, self.wait_clock.arrived(now))
        released = self._run(0)
        if len(self._held) > self._max_packets:
            released += self._skip()
        return released

    def restart(self) -> None:
        """The source restarted: what follows does not belong to the earlier sequence."""
        self._held.clear()
        self._next = None

    def poll(self, now: float) -> list[RtpView]:
        """Packets that have waited long enough behind a gap; pauses of the whole stream do not count (`WaitClock`)."""
        released: list[RtpView] = []
        overdue = self.wait_clock.at(now) - self._max_wait
        while self._held and next(iter(self._held.values()))[1] <= overdue:
            released += self._skip()
        return released

    def _run(self, lost: int) -> list[RtpView]:
        released: list[RtpView] = []
        assert self._next is not None
        while (entry := self._held.pop(self._next, None)) is not None:
            released.append(entry[0].behind(lost))
            lost = 0
            self._next = (self._next + 1) & 0xFFFF
        return released

    def _skip(self) -> list[RtpView]:
        """Give up on the gap before the oldest packet held."""
        expected = self._next
        assert expected is not None
        self._next = min(self._held, key=lambda sequence: (sequence - expected) & 0xFFFF)
        self.forced += 1
        return self._run((self._next - expected) & 0xFFFF)

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"forced": self.forced, "late": self.late}
