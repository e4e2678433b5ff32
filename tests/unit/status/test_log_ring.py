"""Recent log lines in memory, and debug lines by subsystem."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from relay_common import log as log_setup
from relay_common.protocol import LogLine
from relay_supervisor.status.log_ring import LogRing
from relay_worker.process.log_forward import MOST_A_SECOND, LogForwarder


@pytest.fixture
def ring() -> Iterator[LogRing]:
    ring, root = LogRing(size=5), logging.getLogger()
    before = root.level
    root.setLevel(logging.INFO)
    ring.install()
    yield ring
    ring.remove()
    root.setLevel(before)
    log_setup.set_debug([])


def test_lines_are_kept_redacted_bounded_and_by_camera(ring: LogRing) -> None:
    log = logging.getLogger("relay_supervisor.test")
    for number in range(6):
        log.info(
            "line %d rtsps://host/x?auth=g.0.secret", number, extra={"camera": "Garage" if number % 2 else "Patio"}
        )
    ring.worker_line("Garage", LogLine(at=1.0, level="warning", logger="relay_worker.x", text="lost"))
    assert ring.dropped == 2
    lines = ring.since()
    assert [line.sequence for line in lines] == [3, 4, 5, 6, 7]
    assert "g.0.secret" not in "".join(line.text for line in lines)
    assert [line.text[:6] for line in ring.since(camera="Garage")] == ["line 3", "line 5", "lost"]
    assert [line.worker for line in ring.since(level="warning")] == [True]
    assert [line.sequence for line in ring.since(5)] == [6, 7]
    assert [line.sequence for line in ring.since(most=2)] == [6, 7]


async def test_each_of_several_accounts_keeps_what_is_about_it_or_about_all() -> None:
    log, rings = logging.getLogger("relay_supervisor.test"), {name: LogRing() for name in ("home", "shop")}

    async def later(name: str) -> None:
        await asyncio.sleep(0)
        log.warning("started by %s", name)

    async def of_account(name: str) -> None:
        log_setup.log_account(name)
        rings[name].install()
        log.warning("of %s", name)
        await asyncio.create_task(later(name))

    try:
        await asyncio.gather(*(of_account(name) for name in rings))
        log.warning("of all")
        shown = log_setup.ConsoleFormatter(colour=False)
        record = logging.makeLogRecord({"msg": "said", "name": "relay_x", "levelname": "INFO"})
        log_setup.log_account("shop")
        log_setup.ContextFilter({}).filter(record)
        assert shown.format(record).endswith("x: said account=shop")
    finally:
        for ring in rings.values():
            ring.remove()
    for name, ring in rings.items():
        assert [line.text for line in ring.since()] == [f"of {name}", f"started by {name}", "of all"]


def test_an_exception_is_named_in_one_line(ring: LogRing) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("relay_x").exception("it failed")
    text = ring.since()[-1].text
    assert text.startswith("it failed\nTraceback (most recent call last):\n")
    assert text.endswith("ValueError: broken")


def test_debug_lines_are_switched_by_subsystem(ring: LogRing) -> None:
    rtsp, nest = logging.getLogger("relay_worker.rtsp.session"), logging.getLogger("relay_supervisor.google.api")
    log_setup.set_debug(["rtsp"])
    rtsp.debug("shown")
    nest.debug("not shown")
    log_setup.set_debug(["nest"])
    rtsp.debug("not shown")
    nest.debug("shown too")
    assert [line.text for line in ring.since()] == ["shown", "shown too"]
    with pytest.raises(ValueError, match="rtps"):
        log_setup.set_debug(["rtps"])


async def test_a_worker_sends_its_lines_but_not_a_flood() -> None:
    sent: list[LogLine] = []
    forwarder = LogForwarder(sent.append)
    record = logging.makeLogRecord({"name": "relay_worker.x", "levelname": "INFO", "msg": "Bearer abcdefghijkl"})
    for _ in range(MOST_A_SECOND + 7):
        forwarder.emit(record)
    assert sent == [], "sending waits for the loop"
    await asyncio.sleep(0)
    assert len(sent) == MOST_A_SECOND
    assert forwarder.dropped == 7
    assert "abcdefghijkl" not in sent[0].text


def test_cameras_are_named_wherever_a_line_goes(capfd: pytest.CaptureFixture[str]) -> None:
    """Also on standard error, where a line had the id alone, or the instance of a worker."""
    ring = LogRing(name_of=lambda camera: {"2a9226a5": "Front Door"}.get(camera, camera))
    root, log = logging.getLogger(), logging.getLogger("relay_supervisor.test")
    before, level = list(root.handlers), root.level
    log_setup.configure("info", "console")
    ring.install()
    try:
        log.warning("by id", extra={"camera": "2a9226a5"})
        log.warning("by instance", extra={"instance": "2a9226a5.0011aabb"})
        log.warning("of none")
        log_setup.flush()
    finally:
        ring.remove()
        root.handlers[:] = before
        root.setLevel(level)
    shown = capfd.readouterr().err.splitlines()
    assert [line.partition("test: ")[2] for line in shown] == [
        "by id camera=Front Door",
        "by instance instance=2a9226a5.0011aabb camera=Front Door",
        "of none",
    ]
    assert [line.camera for line in ring.since()] == ["Front Door", "Front Door", ""]
