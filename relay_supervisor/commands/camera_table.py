"""The table of cameras that `relay-supervisor status` prints, in terminals of every width."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

import click

from relay_supervisor.status.model import CameraStatus
from relay_supervisor.status.verdict import spoken_verdict

_COLOURS: Final = {
    "live": "green",
    "idle": "bright_black",
    "degraded": "red",
    "offline": "red",
    "stopped": "red",
    "disabled": "bright_black",
}
_ROW: Final = "{:<12} {:<9} {:>7} {:>5} {:>6} {:>6} {:>7} {:>8}"
_ROW_WIDTH: Final = 67
_NAME_WIDTHS: Final = (12, 24)
_ACCOUNT: Final = "ACCOUNT"
_ACCOUNT_WIDTH: Final = 16
_WIDE: Final = 100
"""Columns from which WHY is in the row where it fits; in narrower terminals it has lines of its own."""


def camera_table(cameras: Sequence[CameraStatus], columns: int, at: float) -> list[str]:
    """A row for each camera, for a terminal with so many columns (0: as wide as it takes); `at` is now in Unix seconds.

    Where there are several accounts, each row names its own; in narrow terminals it stands above its rows.
    """
    accounts = short_names(camera.account for camera in cameras)
    in_row = not columns or columns >= _WIDE
    beside = max(map(len, (_ACCOUNT, *accounts.values()))) if in_row and any(accounts) else 0
    least, most = _NAME_WIDTHS
    width = min(most, max(least, columns - _ROW_WIDTH - 1 - (beside and beside + 1))) if columns else most
    title = _ROW.format("STATE", "STAGE", "BITRATE", "FPS", "LOST", "LEASE", "DELAY", "RESTARTS")
    if beside:
        title = f"{_ACCOUNT:<{beside}} {title}"
    title = f"{'CAMERA':<{width}} {title}{'  WHY' if in_row else ''}"
    lines, above = [click.style(title[: columns or None], bold=True)], ""
    for camera in cameras:
        if camera.account != above and not in_row:
            above = camera.account
            lines += [click.style(line, bold=True) for line in wrapped(f"of account {above}:", columns)]
        whose = f"{accounts[camera.account]:<{beside}} " if beside else ""
        lines += _camera(camera, whose, width, columns, at)
    return lines


def short_names(accounts: Iterable[str]) -> dict[str, str]:
    """What accounts are called in a column: the ids of projects, of 36 characters, by both their ends."""
    names = dict.fromkeys(accounts)
    ends = [_ends(name) for name in names]
    return {name: short if ends.count(short) == 1 else name for name, short in zip(names, ends, strict=True)}


def _ends(name: str) -> str:
    return name if len(name) <= _ACCOUNT_WIDTH else f"{name[:8]}…{name[8 - _ACCOUNT_WIDTH + 1 :]}"


def _camera(camera: CameraStatus, whose: str, width: int, columns: int, at: float) -> list[str]:
    """The row of a camera, with `whose` it is, and why it is not live: in the row where that fits, else below."""
    video, lease = camera.video, camera.lease
    row = _ROW.format(
        camera.state,
        camera.verdict.stage or camera.stage or "-",
        f"{video.bitrate_in / 1e3:.0f}k",
        f"{video.fps:.1f}",
        video.lost_in,
        f"{lease.expires_in:.0f} s" if lease.expires_at else "-",
        f"{camera.delay_p99 * 1e3:.1f}ms",
        camera.worker.restarts,
    )
    name = camera.name if len(camera.name) <= width else f"{camera.name[: width - 1]}…"
    node = f"on {camera.worker.where}" if camera.worker.where else ""
    row, why = f"{name:<{width}} {whose}{row}", "; ".join(filter(None, (_why(camera, at), node)))
    if why and (not columns or (columns >= _WIDE and len(row) + 2 + len(why) <= columns)):
        lines = [f"{row}  {why}"]
    else:
        lines = [row, *wrapped(why, columns, "    ")] if why else [row]
    if camera.worker.data_path_fallbacks:
        lines += wrapped("does without the compiled data path: its worker crashed twice on it", columns, "    ")
    if camera.rendition.reason:
        lines += wrapped(f"smaller picture: {camera.rendition.reason}", columns, "    ")
    colour = "red" if camera.decodable == "no" else _COLOURS.get(camera.state, "yellow")
    return [click.style(line.rstrip(), fg=colour) for line in lines]


def _why(camera: CameraStatus, at: float) -> str:
    """Why it is not live, what happens next and what to do; of an earlier release's supervisor, what it gives."""
    if camera.verdict.cause:
        return spoken_verdict(camera.verdict, at)
    if camera.state in ("live", "disabled"):
        return camera.reason
    # While a lease is held, what it does next mends nothing.
    following = "" if camera.lease.state in ("held", "extending") else camera.lease.next_action
    return "; next: ".join(filter(None, (camera.reason, following)))


def wrapped(text: str, columns: int, indent: str = "") -> list[str]:
    """`text` in lines of at most so many columns; long words, such as links, stay whole. 0: one line."""
    if not columns:
        return [indent + text]
    return textwrap.wrap(
        text, columns, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
