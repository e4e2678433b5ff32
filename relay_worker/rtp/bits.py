"""Reader of big-endian bit fields and Exp-Golomb codes (ITU-T H.264 §9.1)."""

from __future__ import annotations


class BitReader:
    """Reads `data` from its first bit on; raises `error` where it is too short or a code is too long."""

    def __init__(self, data: bytes, error: type[ValueError]) -> None:
        self._value = int.from_bytes(data, "big")
        self._error = error
        self.left = len(data) * 8
        """Bits not read yet."""

    def read(self, count: int) -> int:
        """The next `count` bits as an unsigned number."""
        if count > self.left:
            raise self._error("truncated bit field")
        self.left -= count
        return self._value >> self.left & ((1 << count) - 1)

    def ue(self) -> int:
        """An unsigned Exp-Golomb code, ue(v)."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 32:
                raise self._error("Exp-Golomb code too long")
        return (1 << zeros) - 1 + self.read(zeros)

    def se(self) -> int:
        """A signed Exp-Golomb code, se(v)."""
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)


def payload_bits(nal: bytes, start: int, error: type[ValueError]) -> BitReader:
    """What `nal` holds from octet `start` on, without emulation prevention (§7.4.1)."""
    return BitReader(nal[start:].replace(b"\x00\x00\x03", b"\x00\x00"), error)
