"""Imported once by the fork server, so that every worker shares the media stack copy-on-write.

Importing this module must not start a thread, a loop or a socket: it is followed by fork.
"""

from __future__ import annotations

import gc
import os

import aioice
import aiortc
import av
import uvloop
import zmq
import zmq.asyncio

import relay_worker.process.entry
import relay_worker.process.worker
from relay_worker.media.opus import OpusTranscoder
from relay_worker.rtsp.transport import client_context

LOADED = (aioice, aiortc, av, uvloop, zmq, relay_worker.process.entry, relay_worker.process.worker)
LOADED_IN = os.getpid()
"""Pid of the process that imported this: in a forked worker it is the fork server's."""


def _warm_up() -> None:
    """Use once what builds tables at its first use: built here they are shared, in a worker each has its own."""
    client_context()
    aiortc.RTCCertificate.generateCertificate()
    decoder = av.CodecContext.create("aac", "r")
    decoder.extradata = bytes.fromhex("1408")  # AAC-LC, 16 kHz, mono
    decoder.open()
    transcoder = OpusTranscoder("pcmu")
    for number in range(5):
        transcoder.transcode(bytes(320), number * 0.04)


_warm_up()

# A collection in a child would touch, and so copy, every page that holds an inherited object.
gc.collect()
gc.freeze()


def inherited() -> bool:
    """Whether this process got the media stack from its fork server."""
    return os.getpid() != LOADED_IN
