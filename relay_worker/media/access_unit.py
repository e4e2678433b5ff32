"""Access units in Annex B form, assembled from RTP payloads: for snapshots and file sinks, not for the live path."""

from __future__ import annotations

from typing import Final, NamedTuple

from relay_worker.rtp.h264 import FU_A, FU_END, FU_START, NAL_IDR, STAP_A, PayloadError, split_stap_a

START_CODE: Final = b"\x00\x00\x00\x01"
MAX_ACCESS_UNIT: Final = 8 * 1024 * 1024
"""Bytes of the largest access unit; a larger one is dropped and counted."""


class AccessUnit(NamedTuple):
    """One coded picture."""

    data: bytes
    """NAL units, each behind a four-octet start code."""
    timestamp: int
    """RTP timestamp."""
    keyframe: bool
    """Whether it holds an IDR slice."""
    complete: bool
    """Whether no packet of it was lost."""


class AccessUnitAssembler:
    """Collects payloads until the marker bit or a new timestamp ends the access unit.

    Counters: `malformed` payloads, `oversized` access units.
    """

    def __init__(self, max_size: int = MAX_ACCESS_UNIT) -> None:
        self._max_size = max_size
        self.malformed = 0
        self.oversized = 0
        self._start(-1, complete=True)

    def _start(self, timestamp: int, *, complete: bool) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._timestamp = timestamp
        self._keyframe = False
        self._complete = complete
        self._fragment: list[bytes] | None = None

    def receive_payload(self, payload: bytes, marker: bool, timestamp: int, lost: int = 0) -> list[AccessUnit]:
        """Add one payload; returns the access units it completes (two at most)."""
        done: list[AccessUnit] = []
        if timestamp != self._timestamp:
            if self._parts or self._fragment:
                self._complete = self._complete and not lost
                done += self._finish()
            # Packets lost between two access units may have belonged to either.
            self._start(timestamp, complete=not lost)
        elif lost:
            self._complete = False
            self._fragment = None
        self._add(payload)
        if marker:
            done += self._finish()
            self._start(-1, complete=True)
        return done

    def _finish(self) -> list[AccessUnit]:
        if self._fragment is not None:
            self._complete = False
        if self._size > self._max_size:
            self.oversized += 1
            return []
        if not self._parts:
            return []
        return [AccessUnit(b"".join(self._parts), self._timestamp, self._keyframe, self._complete)]

    def _add(self, payload: bytes) -> None:
        kind = payload[0] & 0x1F if payload else 0
        if kind == FU_A and len(payload) > 2:
            self._add_fragment(payload)
            return
        if self._fragment is not None:
            self._break()
        if kind == STAP_A:
            try:
                for nal in split_stap_a(payload):
                    self._add_nal(nal)
            except PayloadError:
                self._break()
        elif 0 < kind < STAP_A:
            self._add_nal(payload)
        else:
            self.malformed += 1

    def _add_fragment(self, payload: bytes) -> None:
        header = payload[1]
        if header & FU_START:
            if self._fragment is not None:
                self._break()
            self._fragment = [bytes((payload[0] & 0xE0 | header & 0x1F,))]
        if self._fragment is None:
            if self._complete:
                self._break()
            return
        self._size += len(payload)
        if self._size <= self._max_size:
            self._fragment.append(payload[2:])
        if header & FU_END:
            nal, self._fragment = b"".join(self._fragment), None
            self._add_nal(nal)

    def _add_nal(self, nal: bytes) -> None:
        self._size += len(nal) + len(START_CODE)
        if self._size <= self._max_size:
            self._parts += (START_CODE, nal)
            self._keyframe = self._keyframe or nal[0] & 0x1F == NAL_IDR

    def _break(self) -> None:
        self.malformed += 1
        self._complete = False
        self._fragment = None
