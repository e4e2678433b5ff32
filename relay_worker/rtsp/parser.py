"""Incremental parser of what an RTSP server sends: responses, requests, and interleaved frames (RFC 2326 §10.12).

Takes the byte stream in chunks of any size; the result does not depend on where it was cut.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Container
from typing import Final, TypeAlias

from relay_worker import native
from relay_worker.native.states import ParserState
from relay_worker.rtsp.messages import Headers, Request, Response

MAX_START_LINE: Final = 16 * 1024
MAX_HEAD: Final = 64 * 1024
"""Bytes of a start line and of all headers together; Google's URLs alone are over one KiB."""
MAX_HEADERS: Final = 128
MAX_BODY: Final = 1024 * 1024
MAX_GARBAGE: Final = 256 * 1024
"""Consecutive unparseable bytes after which the stream is given up."""

DOLLAR: Final = 0x24

Frame: TypeAlias = tuple[int, bytes]
"""Channel and packet of an interleaved frame."""
Item: TypeAlias = Frame | Response | Request

_FRAME_HEADER: Final = struct.Struct("!BBH")
"""Dollar sign, channel, length (RFC 2326 §10.12)."""

_RESPONSE: Final = re.compile(rb"RTSP/\d(?:\.\d)?[ \t]+(\d{3})(?:[ \t]+(.*?))?[ \t]*", re.IGNORECASE)
_REQUEST: Final = re.compile(rb"([A-Z_]{3,20})[ \t]+(\S+)[ \t]+RTSP/\d(?:\.\d)?[ \t]*", re.IGNORECASE)
_LINE_END: Final = re.compile(rb"[\x00-\x08\x0a-\x0c\x0e-\x1f]")  # a line feed, or what cannot be in a start line
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_RESYNC: Final = re.compile(rb"\$|RTSP/")
_BLANK: Final = b"\r\n\t "


class ParseError(ValueError):
    """A message exceeds a limit, or the stream cannot be parsed any more; the connection is unusable."""


class RtspParser(ParserState):
    """Feed it bytes, get messages and frames. Frames on a channel in `packets` go straight into its list there.

    `garbage` counts bytes skipped between messages, `resyncs` how often that happened, `bad_headers` header lines
    without a colon. After garbage a frame is only believed on one of `channels`.
    """

    def __init__(self) -> None:
        self.channels: Container[int] = range(32)
        """Interleaved channels in use."""
        self.packets: dict[int, list[bytes]] = {}
        """Packets received on these channels; those of all others are returned."""
        self.garbage = 0
        self.resyncs = 0
        self.bad_headers = 0
        self._pending = b""
        self._lost = False
        self._garbage_run = 0
        self._compiled = native.compiled()

    @property
    def is_between(self) -> bool:
        """Whether what arrives next begins a frame, or a message, of its own."""
        return not self._pending

    def receive_data(self, data: bytes) -> list[Item]:
        """Everything that `data` completes, in order; raises ParseError (and is unusable after it)."""
        buffer = self._pending + data if self._pending else data
        items: list[Item] = []
        packets, unpack = self.packets, _FRAME_HEADER.unpack_from
        position, end = 0, len(buffer)
        while position < end:
            if self._lost:
                position, found = self._resync(buffer, position)
                if not found:
                    break
            if self._compiled is not None:
                stop = self._compiled.split_frames(buffer, position, packets)
                if stop > position:
                    self._garbage_run = 0
                    position = stop
            # Nearly everything is interleaved frames: this loop is the hot path.
            while position + 4 <= end:
                dollar, channel, size = unpack(buffer, position)
                stop = position + 4 + size
                if dollar != DOLLAR or stop > end:
                    break
                if channel in packets:
                    packets[channel].append(buffer[position + 4 : stop])
                else:
                    items.append((channel, buffer[position + 4 : stop]))
                self._garbage_run = 0
                position = stop
            if position >= end or buffer[position] == DOLLAR:
                break
            if buffer[position] in _BLANK:
                position += 1
                continue
            following = self._message(buffer, position, items)
            if following is None:
                break
            position = following
        self._pending = buffer[position:]
        if items:
            self._garbage_run = 0
        return items

    def _skip(self, count: int) -> None:
        self.garbage += count
        self._garbage_run += count
        if self._garbage_run > MAX_GARBAGE:
            raise ParseError("the server sends data that is neither RTSP nor interleaved frames")

    def _resync(self, buffer: bytes, position: int) -> tuple[int, bool]:
        """Skip to what may be a frame or a response; returns (new position, whether something was found)."""
        start = position
        while (match := _RESYNC.search(buffer, position)) is not None:
            position = match.start()
            if buffer[position] != DOLLAR or (position + 1 < len(buffer) and buffer[position + 1] in self.channels):
                self._skip(position - start)
                self._lost = False
                return position, True
            if position + 1 >= len(buffer):
                self._skip(position - start)
                return position, False
            position += 1
        # The beginning of "RTSP/" may stand at the end.
        keep = next((size for size in range(4, 0, -1) if buffer.endswith(b"RTSP/"[:size], position)), 0)
        self._skip(len(buffer) - keep - start)
        return len(buffer) - keep, False

    def _message(self, buffer: bytes, position: int, items: list[Item]) -> int | None:
        """Parse a message at `position` into `items`; returns the position after it, or None when more bytes are
        needed.
        """
        stop = _LINE_END.search(buffer, position, position + MAX_START_LINE)
        if stop is None:
            if len(buffer) - position < MAX_START_LINE:
                return None
            return self._lose(position)
        line = buffer[position : stop.start()].rstrip(b"\r")
        response, request = _RESPONSE.fullmatch(line), _REQUEST.fullmatch(line)
        if buffer[stop.start()] != 0x0A or not (response or request):
            return self._lose(position)
        head = _HEAD_END.search(buffer, stop.start(), position + MAX_HEAD)
        if head is None:
            if len(buffer) - position >= MAX_HEAD:
                raise ParseError(f"RTSP message with more than {MAX_HEAD} bytes of headers")
            return None
        headers = self._headers(buffer[stop.end() : head.start()])
        length = _content_length(headers)
        end = head.end() + length
        if end > len(buffer):
            return None
        body = buffer[head.end() : end]
        if response:
            items.append(Response(int(response[1]), _text(response[2] or b""), headers, body))
        elif request:
            items.append(Request(_text(request[1]).upper(), _text(request[2]), headers, body))
        return end

    def _lose(self, position: int) -> int:
        self._lost = True
        self.resyncs += 1
        self._skip(1)
        return position + 1

    def _headers(self, block: bytes) -> Headers:
        fields: list[tuple[str, str]] = []
        for line in block.split(b"\n"):
            if line[:1] in (b" ", b"\t") and fields:  # folded: continues the previous field
                fields[-1] = (fields[-1][0], f"{fields[-1][1]} {_text(line)}")
                continue
            name, colon, value = line.partition(b":")
            if colon:
                fields.append((_text(name), _text(value)))
            elif line.strip():
                self.bad_headers += 1
            if len(fields) > MAX_HEADERS:
                raise ParseError(f"RTSP message with more than {MAX_HEADERS} headers")
        return Headers(fields)

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"bad_headers": self.bad_headers, "garbage": self.garbage, "resyncs": self.resyncs}


def _text(data: bytes) -> str:
    return data.strip().decode("utf-8", "replace")


def _content_length(headers: Headers) -> int:
    value = headers.get("Content-Length", "0")
    length = int(value) if value.isascii() and value.isdigit() and len(value) < 12 else 0
    if length > MAX_BODY:
        raise ParseError(f"RTSP message with a body of {length} bytes")
    return length
