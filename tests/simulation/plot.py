"""The control plane's day as a picture: who held a stream, what was sent, how much of the budget that took.

python -m tests.simulation.plot DIRECTORY writes the two days of the simulation there as SVG; so do the tests when
RELAY_PLOT_DIR is set.
"""

from __future__ import annotations

import os
import sys
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from relay_supervisor.google.quota.command import Verb
from tests.simulation.world import Camera, World

WIDTH: Final = 1440
LEFT: Final = 70
ROW: Final = 8
BARS: Final = 110
LIMIT: Final = 10
SPAN: Final = 60.0
COLOURS: Final = {Verb.EXTEND: "#4c9f70", Verb.GENERATE: "#3d6fb6", Verb.STOP: "#8a7bb5"}
REFUSED: Final = "#c0392b"


def plot(world: World, path: Path, title: str, start: float = 1000.0) -> None:
    """Write what happened in `world` since `start` to `path` as SVG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(svg(world, title, start))


def plot_if_asked(world: World, name: str, title: str) -> None:
    """Write NAME.svg into the directory that RELAY_PLOT_DIR names, if it names one."""
    if directory := os.environ.get("RELAY_PLOT_DIR"):
        plot(world, Path(directory) / f"{name}.svg", title)


def svg(world: World, title: str, start: float) -> str:
    """The picture: leases above, commands a minute in the middle, the fullest 60 s below."""
    length = world.now - start
    scale = WIDTH / length
    leases_end = 40 + ROW * len(world.cameras)
    commands_end, budget_end = leases_end + 30 + BARS, leases_end + 60 + 2 * BARS
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" height="{budget_end + 30}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="14">{escape(title)}</text>',
        *_hours(length, scale, budget_end),
        *_legend(),
        *_leases(world, start, scale),
        _words("commands a minute", leases_end + 24),
        *_commands(world, start, scale, commands_end),
        _words(f"most in any {SPAN:.0f} s, and Google's limit", commands_end + 24),
        *_budget(world, start, scale, budget_end),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _words(text: str, y: float) -> str:
    return f'<text x="{LEFT}" y="{y}" fill="#444">{escape(text)}</text>'


def _hours(length: float, scale: float, bottom: float) -> Iterator[str]:
    step = 3600.0 if length > 7200 else 600.0
    for n in range(int(length // step) + 1):
        x = LEFT + n * step * scale
        label = f"{n} h" if step == 3600.0 else f"{n * 10} min"
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="34" y2="{bottom}" stroke="#eee"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#888">{label}</text>'


def _legend() -> Iterator[str]:
    words = [(verb.value, colour) for verb, colour in COLOURS.items()]
    for n, (word, colour) in enumerate([*words, ("refused or lapsed", REFUSED)]):
        x = LEFT + WIDTH - 420 + 100 * n
        yield f'<rect x="{x}" y="9" width="10" height="10" fill="{colour}"/><text x="{x + 14}" y="18">{word}</text>'


def _leases(world: World, start: float, scale: float) -> Iterator[str]:
    for row, camera in enumerate(world.cameras.values()):
        y = 36 + row * ROW
        name = camera.name + (" ✕" if not camera.healthy else "")
        yield f'<text x="{LEFT - 4}" y="{y + 7}" text-anchor="end" font-size="8" fill="#666">{escape(name)}</text>'
        bars = "".join(
            f"M{LEFT + (begin - start) * scale:.1f} {y + 1}H{LEFT + (end - start) * scale:.1f}v{ROW - 3}"
            f"H{LEFT + (begin - start) * scale:.1f}z"
            for begin, end in _held(camera, world.now)
        )
        yield f'<path d="{bars}" fill="{"#cfd8d3" if camera.on_demand else "#bcd9c8"}"/>'
        extensions = "".join(f"M{LEFT + (at - start) * scale:.1f} {y + 1}v{ROW - 3}" for at, _ in camera.history)
        yield f'<path d="{extensions}" stroke="{COLOURS[Verb.EXTEND]}" stroke-width="0.4"/>'
        lapses = "".join(f"M{LEFT + (at - start) * scale:.1f} {y - 1}v{ROW + 1}" for at in camera.lapses)
        yield f'<path d="{lapses}" stroke="{REFUSED}" stroke-width="2"/>'


def _held(camera: Camera, now: float) -> Iterator[tuple[float, float]]:
    """Spans in which a camera had a stream, its grants and extensions run together."""
    begin = end = -1.0
    for at, until in camera.history:
        if at > end:
            if end > begin >= 0:
                yield begin, min(end, now)
            begin = at
        end = max(at, until)
    if begin >= 0:
        yield begin, min(end, now)


def _commands(world: World, start: float, scale: float, bottom: float) -> Iterator[str]:
    minutes: dict[int, dict[str, int]] = {}
    for at, verb, _, status in world.commands:
        colour = COLOURS[verb] if status == 200 else REFUSED
        counts = minutes.setdefault(int((at - start) // 60), {})
        counts[colour] = counts.get(colour, 0) + 1
    paths: dict[str, list[str]] = {}
    width = max(0.8, 60 * scale)
    for minute, counts in sorted(minutes.items()):
        y = bottom
        for colour in (*COLOURS.values(), REFUSED):
            high = counts.get(colour, 0) * BARS / (LIMIT + 4)
            if high:
                y -= high
                x = LEFT + minute * 60 * scale
                paths.setdefault(colour, []).append(f"M{x:.1f} {y:.1f}h{width:.1f}v{high:.1f}h-{width:.1f}z")
    for colour, path in paths.items():
        yield f'<path d="{"".join(path)}" fill="{colour}"/>'


def _budget(world: World, start: float, scale: float, bottom: float) -> Iterator[str]:
    times = sorted(world.ledger.arrivals.get(("project", ""), []))
    fullest: dict[int, int] = {}
    for index, at in enumerate(times):
        minute = int((at - start) // 60)
        fullest[minute] = max(fullest.get(minute, 0), index - bisect_left(times, at - SPAN) + 1)
    unit = BARS / (LIMIT + 2)
    line = "".join(
        f"{'L' if n else 'M'}{LEFT + minute * 60 * scale:.1f} {bottom - most * unit:.1f}"
        for n, (minute, most) in enumerate(sorted(fullest.items()))
    )
    y = bottom - LIMIT * unit
    yield f'<path d="{line}" fill="none" stroke="#333" stroke-width="0.8"/>'
    yield f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y}" y2="{y}" stroke="{REFUSED}" stroke-dasharray="4 3"/>'
    yield f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end" fill="{REFUSED}">{LIMIT}</text>'


def main() -> None:
    """Simulate both days and write their pictures."""
    from tests.simulation.test_leases_day import day_of_forty, day_of_thirty_with_faults

    directory = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    for name, title, run in (
        ("day-40", "40 cameras for a day", day_of_forty),
        ("day-30-faults", "30 cameras for a day: 429, 503, kill -9, six cameras offline", day_of_thirty_with_faults),
    ):
        plot(run(), directory / f"{name}.svg", title)
        print(directory / f"{name}.svg")


if __name__ == "__main__":
    main()
