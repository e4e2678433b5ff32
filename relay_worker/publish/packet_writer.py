"""Writes RTP packets, encrypts them in place, and sends them.

Hot path: each payload is written with its header into a slot of the protector's buffer, encrypted there, and runs
leave with one call on the packet path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from relay_worker.native.states import WriterState
from relay_worker.publish.extensions import HeaderExtensions, abs_send_time
from relay_worker.publish.outgoing import OutgoingTrack
from relay_worker.webrtc.gso import PacketPath, UdpPath
from relay_worker.webrtc.prepared import PreparedPackets


class Protector(Protocol):
    """In-place SRTP: see `protector.SrtpProtector`."""

    buffer: memoryview
    slots: tuple[memoryview, ...]
    prepared: PreparedPackets | None
    failures: int

    def protect(self, slot: int, length: int) -> int: ...
    def protect_rtcp(self, packet: bytes) -> bytes: ...


class PacketWriter(WriterState):
    """The packets of one SRTP association. `on_numbered` gets the transport-wide number, the size and the send time of
    each packet that carries such a number.
    """

    def __init__(self, protector: Protector, path: PacketPath, on_numbered: Callable[[int, int, float], None]) -> None:
        self._protector, self._path, self._on_numbered = protector, path, on_numbered
        self._transport_sequence = 0
        self._slot_size = len(protector.slots[0])
        self._ready: list[memoryview] = []
        self._prepared, self._filled = protector.prepared, 0

    @property
    def ends(self) -> tuple[Protector, PacketPath]:
        """What encrypts packets, and what they leave by."""
        return self._protector, self._path

    def take_numbers(self, track: OutgoingTrack, count: int) -> int:
        """The first of `count` transport-wide numbers for packets of `track`; 0 where it carries none."""
        if track.extensions.transport_cc is None:
            return 0
        first = (self._transport_sequence + 1) & 0xFFFF
        self._transport_sequence = (self._transport_sequence + count) & 0xFFFF
        return first

    def put(
        self,
        track: OutgoingTrack,
        ssrc: int,
        payload_type: int,
        sequence: int,
        timestamp: int,
        payloads: Sequence[tuple[bytes, bool]],
        number: int,
        stamp: float,
        now: float,
        step: int = 0,
    ) -> None:
        """Write and encrypt packets into the next slots; they leave with `flush`, or when all slots are full.

        `sequence`, `timestamp` and the transport-wide `number` are the first packet's; `stamp` is the send time that
        they state; timestamps are `step` apart.
        """
        extensions = track.extensions if ssrc == track.ssrc else track.rtx_extensions
        if self._prepared is not None and isinstance(extensions, HeaderExtensions):
            self._put_compiled(
                self._prepared, extensions, ssrc, payload_type, sequence, timestamp, payloads, number, stamp, now, step
            )
            return
        ready, slot_size = self._ready, self._slot_size
        buffer, slots, protect = self._protector.buffer, self._protector.slots, self._protector.protect
        if self._prepared is not None:
            self.flush()  # the slots are shared
        header_size, write, numbered = extensions.header_size, extensions.write, extensions.transport_cc is not None
        send_time = abs_send_time(stamp)
        for payload, marker in payloads:
            slot = len(ready)
            start = slot * slot_size
            second_byte = payload_type | 0x80 if marker else payload_type
            write(buffer, start, second_byte, sequence, timestamp, ssrc, send_time, number)
            length = header_size + len(payload)
            buffer[start + header_size : start + length] = payload
            length = protect(slot, length)
            if length:
                ready.append(slots[slot][:length])
                if numbered:
                    self._on_numbered(number, length, now)
                if slot + 1 == len(slots):
                    self._flush_ready()
            sequence = (sequence + 1) & 0xFFFF
            number = (number + 1) & 0xFFFF
            timestamp = (timestamp + step) & 0xFFFFFFFF
        if self._prepared is not None:
            self._flush_ready()

    def _put_compiled(
        self,
        prepared: PreparedPackets,
        extensions: HeaderExtensions,
        ssrc: int,
        payload_type: int,
        sequence: int,
        timestamp: int,
        payloads: Sequence[tuple[bytes, bool]],
        number: int,
        stamp: float,
        now: float,
        step: int,
    ) -> None:
        """What `put` does, with one call for as many packets as there are slots."""
        time_id, number_id = extensions
        packets = payloads if isinstance(payloads, list) else list(payloads)
        end, done = len(packets), 0
        send_time = abs_send_time(stamp)
        while done < end:
            first, before = self._filled, done
            done, self._filled, refused = prepared.slots.put(
                packets,
                *(done, first, payload_type, (sequence + done) & 0xFFFF, (timestamp + done * step) & 0xFFFFFFFF, step),
                *(ssrc, time_id or 0, send_time, number_id or 0, (number + done) & 0xFFFF),
            )
            self._protector.failures += refused
            if number_id is not None:
                for slot in range(first, self._filled):
                    length, numbered = prepared.slots.packet(slot)
                    self._on_numbered(numbered, length, now)
            if self._filled == len(prepared):
                self.flush()
            elif done == before:
                raise ValueError(f"a payload that is no packet: {len(packets[done][0])} bytes")

    def flush(self) -> None:
        """Send what was put."""
        if self._prepared is not None:
            filled, self._filled = self._filled, 0
            if filled and isinstance(self._path, UdpPath):
                self._path.send_prepared(self._prepared, filled)
            elif filled:
                self._path.send(self._prepared.views(0, filled))
        else:
            self._flush_ready()

    def _flush_ready(self) -> None:
        if self._ready:
            self._path.send(self._ready)
            self._ready.clear()

    def send_rtcp(self, packet: bytes) -> None:
        """Encrypt and send a compound packet."""
        self._path.send([memoryview(self._protector.protect_rtcp(packet))])
