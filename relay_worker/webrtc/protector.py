"""SRTP of what is sent, encrypted in place by libsrtp; it reaches it by private members of pylibsrtp, as
tests/unit/webrtc/test_upstream.py checks.
"""

from __future__ import annotations

from typing import Final

import pylibsrtp
from pylibsrtp._binding import ffi, lib

from relay_worker import native
from relay_worker.native.states import ProtectorState
from relay_worker.webrtc.prepared import PreparedPackets

SLOTS: Final = 16
"""Packets that can be prepared before they are sent."""
SLOT_SIZE: Final = 1536
TRAILER: Final = 16
"""Longest authentication tag of the profiles aiortc negotiates (RFC 7714)."""
_PROTECT: Final = "srtp_err_status_t(*)(struct srtp_ctx_t_ *, void *, int *)"
"""The type of libsrtp's function that compiled code calls by its address; another is not called."""


class SrtpProtector(ProtectorState):
    """Encrypts in place: a caller writes a plain packet into `buffer` at a slot and calls `protect`.

    Slots are aligned and have room for the tag, as libsrtp requires; one foreign call per packet, no copies.
    """

    def __init__(self, session: pylibsrtp.Session) -> None:
        # Foreign code holds the bytearray, never a view of it: CPython's collector takes views apart that are held, and
        # a process ends by SIGSEGV when such a view is freed (seen with 3.11.7 under a protector in a cycle).
        self._raw = bytearray(SLOTS * SLOT_SIZE)
        self.buffer = memoryview(self._raw)
        self.slots = tuple(self.buffer[i * SLOT_SIZE : (i + 1) * SLOT_SIZE] for i in range(SLOTS))
        base = ffi.from_buffer(self._raw)
        self._pointers = tuple(base + i * SLOT_SIZE for i in range(SLOTS))
        self._base = base  # keeps the buffer alive for the pointers
        self._session = session  # owns the context
        self._context = session._srtp[0]
        self._length = ffi.new("int *")
        self._protect = lib.srtp_protect
        self.failures = 0
        """Packets that libsrtp refused to encrypt."""
        self.prepared = self._prepare()
        """The same slots for compiled code; None where that is not in use."""

    def _prepare(self) -> PreparedPackets | None:
        compiled, function = native.compiled(), ffi.addressof(lib, "srtp_protect")
        if compiled is None or ffi.getctype(ffi.typeof(function)) != _PROTECT:
            return None
        protect, context = (int(ffi.cast("uintptr_t", pointer)) for pointer in (function, self._context))
        slots = compiled.Slots(self._raw, SLOT_SIZE, TRAILER, protect, context, self._session)
        return PreparedPackets(slots, self.slots)

    def protect(self, slot: int, length: int) -> int:
        """Encrypt the RTP packet of `length` bytes in `slot`; its new length, or 0 when libsrtp refused (counted)."""
        self._length[0] = length
        if self._protect(self._context, self._pointers[slot], self._length):
            self.failures += 1
            return 0
        return int(self._length[0])

    def protect_rtcp(self, packet: bytes) -> bytes:
        """Encrypt a compound RTCP packet of at most 1300 bytes."""
        protected: bytes = self._session.protect_rtcp(packet)
        return protected
