"""Coded media as FFmpeg's decoders require it: with zeros behind it."""

from __future__ import annotations

from typing import Any

import av


def coded(data: bytes) -> av.Packet[Any]:
    """A packet to decode, of a copy of `data`; without a byte it would end a decoder.

    `av.Packet(data)` of PyAV 17 and 18 refers to the bytes where they are, without AV_INPUT_BUFFER_PADDING_SIZE zeros
    behind them (avcodec.h): of a unit that ends too early, libavcodec's AAC decoder then reads on in what lies there.
    """
    packet = av.Packet(len(data))
    packet.update(data)
    return packet
