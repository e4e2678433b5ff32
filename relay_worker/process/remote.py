"""Entry point of a worker on another machine: `python -m relay_worker.process.remote [FILE]`.

FILE is the mounted Secret with its parameters (`launch_file.py`): who it is, its key pair, its
supervisor's public key and where that is. Neither environment nor arguments hold any of it, and streams come over the
bus. Nobody can signal it from another machine: it ends by itself when its loop stands still (`HANG`) and when its lease
has run out and no supervisor is heard (`Worker._orphaned`).
"""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path
from typing import Final

import setproctitle

from relay_common import log
from relay_common.errors import ConfigError
from relay_common.uncaught import log_uncaught
from relay_worker import native
from relay_worker.process.confine import confine
from relay_worker.process.launch_file import unpacked
from relay_worker.process.sandbox import enter
from relay_worker.process.spec import WorkerSpec

FILE: Final = Path("/run/nest-relay/worker.json")
"""Where the Secret is mounted."""
HANG: Final = 8.0
"""Seconds for which its loop may stand still. Ten after its last word the supervisor takes a lost worker for ended."""
_WRONG: Final = 2
"""Exit code when the parameters cannot be used."""


def main() -> None:
    """Be the worker whose parameters are in the file."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    try:
        run_worker(unpacked(file.read_bytes()))
    except (OSError, ConfigError) as error:
        print(f"{file}: {error.strerror if isinstance(error, OSError) else error}", file=sys.stderr)
        sys.exit(_WRONG)


def run_worker(spec: WorkerSpec) -> None:
    """Body of the process; returns when the worker has ended cleanly. Raises ConfigError."""
    import uvloop

    from relay_worker.process import worker  # all that it needs is read before it may read no more

    confine()
    sandbox = enter(spec)  # before logging, which starts a thread
    setproctitle.setproctitle(f"relay-worker: {spec.name}")
    log.configure(spec.log_level, spec.log_format, {"camera": spec.name, "instance": spec.instance})
    log_uncaught()
    faulthandler.enable()
    native.choose(spec.data_path)
    try:
        uvloop.run(worker.run(spec, sandbox, preloaded=False, on_beat=_put_off_the_end))
    finally:
        log.flush()


def _put_off_the_end() -> None:
    """Unless this is called again in time, a thread that needs no loop writes all stacks and ends the process."""
    faulthandler.dump_traceback_later(HANG, exit=True)


if __name__ == "__main__":
    main()
