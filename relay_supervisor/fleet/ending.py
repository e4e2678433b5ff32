"""How worker processes are ended: asked first, then signalled; and a hung one tells where it hangs."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from relay_supervisor.fleet.handle import WorkerProcess

log = logging.getLogger(__name__)

DUMP_TIME: Final = 0.3
TERM_TIME: Final = 1.0
"""Seconds between the steps of taking a hung worker down: stack dump, SIGTERM, SIGKILL."""
_LONGEST_DUMP: Final = 8000


async def ended(process: WorkerProcess, within: float) -> bool:
    """Whether the process ends within so many seconds."""
    try:
        await asyncio.wait_for(process.wait(), within)
    except TimeoutError:
        return False
    return True


async def end(process: WorkerProcess, within: float, context: Mapping[str, str]) -> None:
    """See that a process that was asked to stop does; signal it when it has not `within` seconds."""
    for wait, number in ((within, signal.SIGTERM), (TERM_TIME, signal.SIGKILL)):
        if await ended(process, wait):
            return
        log.warning("worker did not stop: sending %s", number.name, extra=context)
        process.send_signal(number)
    await ended(process, TERM_TIME)


async def take_down(process: WorkerProcess, stacks: Path, context: Mapping[str, str]) -> None:
    """End a hung process; what its threads were doing, which it writes to `stacks`, is logged."""
    process.send_signal(signal.SIGUSR1)
    if await ended(process, DUMP_TIME):
        return
    if stacks.exists() and (text := stacks.read_text(errors="replace")[-_LONGEST_DUMP:]):
        log.error("stacks of the hung worker:\n%s", text, extra=context)
    process.send_signal(signal.SIGTERM)
    if not await ended(process, TERM_TIME):
        process.send_signal(signal.SIGKILL)
