"""Entry point of a forked worker. Imports nothing heavy, because the supervisor imports it too."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Final

import setproctitle

from relay_common import log
from relay_common.uncaught import log_uncaught, logged_end
from relay_worker import native
from relay_worker.process import shared_stack
from relay_worker.process.confine import confine
from relay_worker.process.sandbox import enter
from relay_worker.process.spec import WorkerSpec

LOOKUPS: Final = 2
"""Threads that look up host names: one that hangs holds up no other. libuv would start four at the first look-up."""


def run_worker(spec: WorkerSpec, stacks_file: Path) -> None:
    """Body of a worker process; returns when the worker has ended cleanly.

    It writes its threads' stacks to `stacks_file` when it gets SIGUSR1.

    The process leaves the supervisor's session, so that a Ctrl-C or a hang-up of the terminal reaches the
    supervisor alone, which then stops its workers in order.
    """
    launcher = multiprocessing.parent_process()
    if launcher is not None and not launcher.is_alive():
        return  # it died while the fork server was not ready yet: nobody has heard of this worker
    os.setsid()
    # Stacks quote no values, but are private all the same. Confined, the process can create no file.
    stacks = os.fdopen(os.open(stacks_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w")
    confine()
    sandbox = enter(spec)  # before logging, which starts a thread
    setproctitle.setproctitle(f"relay-worker: {spec.name}")
    log.configure(spec.log_level, spec.log_format, {"camera": spec.name, "instance": spec.instance})
    log_uncaught()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)

    os.environ["UV_THREADPOOL_SIZE"] = str(LOOKUPS)  # libuv reads it when it starts them
    native.choose(spec.data_path)  # before anything is made that uses it

    import uvloop

    from relay_worker.process import worker

    # One wake-up of asyncio's own loop costs about 60 µs before a byte is read, most of it Python with cold caches.
    try:
        with logged_end():
            uvloop.run(worker.run(spec, sandbox, preloaded=shared_stack.inherited()))
    finally:
        log.flush()  # a child of the fork server ends without `atexit`
