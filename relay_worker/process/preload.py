"""Imported once by the fork server, so that every worker shares the media stack copy-on-write.

Importing this module must not start a thread, a loop or a socket: it is followed by fork.
"""

from __future__ import annotations

import gc
import signal

import aioice  # noqa: F401
import aiortc
import av
import uvloop  # noqa: F401
import zmq.asyncio  # noqa: F401

import relay_worker.process.entry
import relay_worker.process.worker  # noqa: F401
from relay_common.wire import worker_reader
from relay_worker.media.opus import OpusTranscoder
from relay_worker.process import sandbox, shared_stack
from relay_worker.rtsp.transport import client_context

shared_stack.loaded()


def _warm_up() -> None:
    """Exercise code that builds tables on first use: built here they are shared, in a worker each would have its
    own.
    """
    client_context()
    worker_reader()
    sandbox.readable()
    aiortc.RTCCertificate.generateCertificate()
    decoder = av.CodecContext.create("aac", "r")
    decoder.extradata = bytes.fromhex("1408")  # AAC-LC, 16 kHz, mono
    decoder.open()
    transcoder = OpusTranscoder("pcmu")
    for number in range(5):
        transcoder.transcode(bytes(320), number * 0.04, number * 0.04)


_warm_up()

# Inherited by every worker: until it has its handler, SIGUSR1 would end one that is only slow to start.
signal.signal(signal.SIGUSR1, signal.SIG_IGN)

# A collection in a child would touch, and so copy, every page that holds an inherited object.
gc.collect()
gc.freeze()
