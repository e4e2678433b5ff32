"""Imported once by the fork server, so that every worker shares the media stack copy-on-write.

Importing this module must not start a thread, a loop or a socket: it is followed by fork.
"""

from __future__ import annotations

import gc
import os

import aioice
import aiortc
import av
import zmq
import zmq.asyncio

import relay_worker.worker

LOADED = (aioice, aiortc, av, zmq, relay_worker.worker)
LOADED_IN = os.getpid()
"""Pid of the process that imported this: in a forked worker it is the fork server's."""

# A collection in a child would touch, and so copy, every page that holds an inherited object.
gc.collect()
gc.freeze()


def inherited() -> bool:
    """Whether this process got the media stack from its fork server."""
    return os.getpid() != LOADED_IN
