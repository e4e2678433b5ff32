"""`relay-supervisor status`: what the running supervisor is doing."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

import click

from relay_common.worker_stats import SinkStats
from relay_supervisor.commands.camera_table import camera_table, wrapped
from relay_supervisor.commands.cli import Failure, config_option, json_option, typed
from relay_supervisor.commands.client import RelayClient, connect, decode, say
from relay_supervisor.status.model import BudgetStatus, CameraStatus, RelayStatus, SeatStatus, SinkStatus
from relay_supervisor.status.verdict import spoken_verdict

# Terminal control (ECMA-48), stripped by click where there is no terminal.
_HIDE_CURSOR: Final = "\x1b[?25l"
_SHOW_CURSOR: Final = "\x1b[?25h"
_CLEAR: Final = "\x1b[2J"
_HOME: Final = "\x1b[H"
_CLEAR_LINE: Final = "\x1b[K"
_CLEAR_BELOW: Final = "\x1b[J"
_NO_WRAP: Final = "\x1b[?7l"
_WRAP: Final = "\x1b[?7h"
_EVERY: Final = 1.0
"""Seconds between refreshes while it is watched."""
_UNKNOWN: Final = os.terminal_size((-1, -1))
_LOOK_AGAIN: Final = 0.1
"""Seconds between looks at the terminal's size while it is watched."""


@click.command("status")
@config_option
@json_option
@click.option("--watch", "-w", is_flag=True, help="Refresh once a second until Ctrl-C.")
def command(config_path: Path, as_json: bool, watch: bool) -> None:
    """Show cameras, their leases and the command budget of the running supervisor.

    \b
    relay-supervisor status
    relay-supervisor status --watch
    relay-supervisor status --json | jq '.cameras[] | {name, state}'
    """
    with connect(config_path) as client:
        if not watch:
            body = client.get("/api/stats")
            size, status = _terminal(), decode(body, RelayStatus)
            say(typed(render(status, size.columns if size else 0, _asked(client, status))), body, as_json)
            return
        try:
            _watch(client, as_json)
        except KeyboardInterrupt:
            return
        finally:
            if not as_json:
                click.echo(_SHOW_CURSOR, nl=False)


def _watch(client: RelayClient, as_json: bool) -> None:
    """Refresh until Ctrl-C, also when the terminal's size changes; a supervisor that stops answering is waited for."""
    if not as_json:
        click.echo(_HIDE_CURSOR + _CLEAR, nl=False)
    while True:
        shown: RelayStatus | str
        asked = ""
        try:
            body = client.get("/api/stats")
            shown = decode(body, RelayStatus)
            asked = _asked(client, shown)
            if as_json:
                click.echo(body.decode())
                time.sleep(_EVERY)
                continue
        except Failure as failure:
            if failure.exit_code == 2 or as_json:
                raise
            shown = failure.message
        _show(shown, asked, _EVERY)


def _asked(client: RelayClient, status: RelayStatus) -> str:
    """Which of several supervisors was asked; "" where there is but one."""
    return decode(client.get("/api/seat"), SeatStatus).replica if status.seat.replica else ""


def _show(shown: RelayStatus | str, asked: str, seconds: float) -> None:
    """Paint the status, or why there is none, and again whenever the terminal has another size."""
    end = time.monotonic() + seconds
    before: os.terminal_size | None = _UNKNOWN
    while time.monotonic() < end:
        size = _terminal()
        if size != before:
            columns, rows = size or (0, 0)
            if isinstance(shown, RelayStatus):
                text = typed(render(shown, columns, asked))
            else:
                text = "\n".join(click.style(line, fg="red") for line in wrapped(shown, columns))
            _paint(text, rows, clear=before is not _UNKNOWN)
            before = size
        time.sleep(_LOOK_AGAIN)


def _terminal() -> os.terminal_size | None:
    """The terminal's size now, whatever COLUMNS says; None when standard output is none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        return None


def _paint(text: str, rows: int, *, clear: bool) -> None:
    """Overwrite the terminal without flicker; what does not fit is counted in its last row."""
    lines = text.splitlines()
    if rows and len(lines) >= rows:
        kept = max(0, rows - 2)
        lines = [*lines[:kept], f"… {len(lines) - kept} more lines: make the terminal higher"]
    shown = "".join(f"{line}{_CLEAR_LINE}\n" for line in lines)
    click.echo(f"{_CLEAR if clear else ''}{_HOME}{_NO_WRAP}{shown}{_WRAP}{_CLEAR_BELOW}", nl=False)


def render(status: RelayStatus, columns: int = 0, asked: str = "") -> str:
    """The status as a table for a terminal with so many columns; 0: as wide as it takes. `asked` is which of several
    supervisors gave it.
    """
    totals = status.totals
    head = (
        f"nest-relay {status.version}, up {_span(status.uptime)}: "
        f"{totals.connected} of {totals.cameras} cameras live, {totals.bitrate / 1e6:.1f} Mbit/s"
    )
    if status.seat.replica and not status.seat.commands and not status.accounts:
        lines = [f"nest-relay {status.version}, up {_span(status.uptime)}", *_seat(status.seat, columns)]
        return "\n".join(lines)
    several = len(status.budgets) > 1 or bool(status.accounts)
    lines = [
        head,
        *(_accounts(status, columns) if status.accounts else _seat(status.seat, columns, asked)),
        *(line for budget in status.budgets for line in _budget(budget, columns, several=several)),
    ]
    for problem in status.problems:
        whose = problem.account or problem.subject
        words = f"{whose}: " * bool(whose) + spoken_verdict(problem, status.at)
        colour = "red" if problem.state == "failed" else "yellow"
        lines += [click.style(line, fg=colour) for line in wrapped(words, columns)]
    lines += ["", *camera_table(status.cameras, columns, status.at)]
    elsewhere = [line for sink in status.sinks if sink.name for line in _sink(sink, status.cameras, columns)]
    elsewhere += [_direct(status.cameras)] if status.local else []
    elsewhere += [_smaller(status.cameras)] if any(one.rendition.wanted != "off" for one in status.cameras) else []
    return "\n".join([*lines, *([""] if elsewhere else []), *elsewhere])


def _accounts(status: RelayStatus, columns: int) -> list[str]:
    """Who commands each of several accounts."""
    lines = [f"this supervisor, {status.seat.replica}, is {status.seat.state}"]
    for one in status.accounts:
        words = one.problem or f"{one.live} of {one.cameras} cameras live, commanded by {one.holder}"
        colour = "red" if one.problem else "green"
        lines += [click.style(line, fg=colour) for line in wrapped(f"account {one.name}: {words}", columns)]
    return lines


def _seat(seat: SeatStatus, columns: int, asked: str = "") -> list[str]:
    """Which of several supervisors commands; nothing where there is but one."""
    if not seat.replica:
        return []
    others = f"; {', '.join(seat.others)} {'stand' if len(seat.others) > 1 else 'stands'} by" if seat.others else ""
    if seat.commands and asked not in ("", seat.replica):
        words = f"{seat.replica} is {seat.state}{others}; asked through {asked}"
    elif seat.commands:
        words = f"this supervisor, {seat.replica}, is {seat.state}{others or '; nobody stands by for it'}"
    else:
        words = f"this supervisor, {seat.replica}, stands by: {seat.holder or 'nobody'} commands"
    words += f" ({seat.problem})" * bool(seat.problem)
    fine = not seat.problem and bool(seat.others or not seat.commands)
    return [click.style(line, fg="green" if fine else "yellow") for line in wrapped(words, columns)]


def _direct(cameras: list[CameraStatus]) -> str:
    """How many cameras can be watched at the relay itself, and how many do."""
    enabled = [camera for camera in cameras if camera.enabled]
    on, viewers = sum(camera.local.on for camera in enabled), sum(camera.local.viewers for camera in enabled)
    text = f"without Cloudflare: {on} of {len(enabled)} cameras can be watched, {viewers} viewer{'s' * (viewers != 1)}"
    return click.style(text, fg="green" if on == len(enabled) else "yellow")


def _smaller(cameras: list[CameraStatus]) -> str:
    """How many cameras have a smaller picture, who watches it, and what that costs."""
    wanted = [camera for camera in cameras if camera.enabled and camera.rendition.wanted != "off"]
    offered, limited = sum(one.renditions != "off" for one in wanted), any(one.rendition.reason for one in wanted)
    viewers, cpu = sum(one.rendition.watched for one in wanted), sum(one.rendition.cpu for one in wanted)
    text = f"smaller pictures: {offered} of {len(wanted)} cameras, {viewers} viewer{'s' * (viewers != 1)}, "
    text += f"{cpu:.0f} ms of CPU a second"
    return click.style(text, fg="green" if offered == len(wanted) and not limited else "yellow")


def _sink(sink: SinkStatus, cameras: list[CameraStatus], columns: int) -> list[str]:
    """How many of the cameras that a sink takes are live there, and why one is not."""
    takes = [(camera, found) for camera in cameras for found in camera.sinks if found.name == sink.name]
    live = sum(found.live for _, found in takes)
    why = next((_kept_from(camera, found) for camera, found in takes if found.reason and not found.live), "")
    words = f"sink {sink.name} at {sink.place}: {live} of {len(takes)} cameras live{why}"
    return [click.style(line, fg="green" if live == len(takes) else "yellow") for line in wrapped(words, columns)]


def _kept_from(camera: CameraStatus, found: SinkStats) -> str:
    """Why a camera is not live there; of several accounts, whose it is."""
    return f": {camera.name} of {camera.account}: {found.reason}" if camera.account else f": {found.reason}"


def _budget(budget: BudgetStatus, columns: int, *, several: bool) -> list[str]:
    """The commands of an account, and what is wrong with it; `several`: there are others."""
    text = f"commands{f' of {budget.whose}' if several else ''}: "
    text += f"{budget.used} of {budget.limit} in the last minute, {budget.depth} waiting"
    if budget.hold:
        text += f", held for {budget.hold:.0f} s"
    lines, whose = wrapped(text, columns), f"{budget.whose}: " if several else ""
    if budget.auth_error:
        lines += [click.style(line, fg="red") for line in wrapped(f"{whose}{budget.auth_error}", columns)]
    elif budget.auth_warning:
        warning = f"{whose}{budget.auth_warning}: run `relay-supervisor auth`"
        lines += [click.style(line, fg="yellow") for line in wrapped(warning, columns)]
    return lines


def _span(seconds: float) -> str:
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
