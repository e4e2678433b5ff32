"""`status` in terminals of every width, and while it is watched in one that changes its size."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
import threading

import click
import msgspec
import pytest

from relay_common.causes import Cause
from relay_common.worker_stats import SinkStats
from relay_supervisor.cameras.status import OLD
from relay_supervisor.commands import status as command
from relay_supervisor.commands.status import render
from relay_supervisor.status.model import (
    AccountStatus,
    BudgetStatus,
    CameraStatus,
    LeaseStatus,
    RelayStatus,
    RenditionStatus,
    SinkStatus,
    Totals,
)
from relay_supervisor.status.verdict import verdict

LINK = "https://nestservices.google.com/partnerconnections/5cd39b4c-0000-4000-8000-51a1a7edf00d/auth?redirect_uri=x"
WHY = "the camera's address 192.168.100.100:322 does not answer: there is no route to it"


def shown(status: RelayStatus, columns: int = 0) -> list[str]:
    return click.unstyle(render(status, columns)).splitlines()


def relay(cameras: int = 3) -> RelayStatus:
    waiting = CameraStatus(
        id="b",
        name="The Driveway Behind the House",
        device="d",
        state="reconnecting",
        stage="connect",
        reason=WHY,
        lease=LeaseStatus(state="held", next_action="extend in about 60 s", expires_at=1.0, expires_in=200.0),
    )
    live = [CameraStatus(id=str(n), name=f"Camera {n}", device="d", state="live") for n in range(cameras - 1)]
    budget = BudgetStatus(auth_error=f"the refresh token was revoked. Open {LINK} and run `relay-supervisor auth`")
    return RelayStatus(
        version="1", at=0.0, uptime=60.0, totals=Totals(cameras=cameras), budgets=[budget], cameras=[waiting, *live]
    )


@pytest.mark.parametrize("columns", [80, 90, 99, 100, 120, 200])
def test_rows_fit_and_the_reason_is_whole(columns: int) -> None:
    lines = shown(relay(), columns)
    assert max(len(line) for line in lines if LINK not in line) <= columns
    (row,) = (number for number, line in enumerate(lines) if line.startswith("The Drive"))
    assert " reconnecting connect " in lines[row], "state and stage"
    together = " ".join("\n".join(lines).split())
    assert WHY in together
    assert (WHY in lines[row]) is (columns == 200)
    if columns < 200:
        assert lines[row + 1].startswith("    the camera's address")
    assert "extend in about" not in together, "that mends nothing"
    assert LINK in together, "in one piece, to be clicked"


def test_each_sink_has_a_line_with_what_keeps_a_camera_from_it() -> None:
    status = relay(2)
    status.sinks = [SinkStatus(kind="cloudflare"), SinkStatus(name="studio", kind="whip", place="https://s:443")]
    status.cameras[0].sinks = [SinkStats(name="", live=True), SinkStats(name="studio", reason=OLD)]
    status.cameras[1].sinks = [SinkStats(name="", live=True), SinkStats(name="studio", live=True, reason="before")]
    assert shown(status)[-1] == f"sink studio at https://s:443: 1 of 2 cameras live: {OLD}"
    assert max(len(line) for line in shown(status, 80)[-3:]) <= 80
    status.cameras[0].sinks[1].live = True
    assert shown(status)[-1] == "sink studio at https://s:443: 2 of 2 cameras live"


def test_into_a_pipe_each_camera_is_one_line() -> None:
    lines = shown(relay())
    assert lines[-3].endswith(WHY)
    assert "CAMERA" in lines[-4]
    assert lines[-4].split()[:3] == ["CAMERA", "STATE", "STAGE"]


def test_the_node_of_a_worker_elsewhere_is_told() -> None:
    status = relay(2)
    for camera in status.cameras:
        camera.worker.where = "node2"
    waiting, live = (
        next(line for line in shown(status) if line.startswith(name)) for name in ("The Drive", "Camera 0")
    )
    assert WHY in waiting
    assert waiting.endswith("; on node2")
    assert live.endswith("  on node2")
    assert not any("on node" in line for line in shown(relay(2)))


def test_what_waits_for_google_says_when() -> None:
    status = relay()
    status.cameras[0].lease = LeaseStatus(state="held_off", next_action="generate in about 9 s")
    assert f"{WHY}; next: generate in about 9 s" in shown(status)[-3]


def test_a_watched_status_follows_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    written: list[str] = []

    def resize(rows: int, columns: int) -> None:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    class Terminal:
        def fileno(self) -> int:
            return theirs

    painted = threading.Event()

    def echo(text: str, nl: bool = True) -> None:
        written.append(text)
        painted.set()

    monkeypatch.setattr(command.sys, "stdout", Terminal())
    monkeypatch.setattr(command.click, "echo", echo)
    resize(50, 200)
    showing = threading.Thread(target=command._show, args=(relay(), "", 2.0))
    showing.start()
    assert painted.wait(30.0)
    painted.clear()
    resize(6, 80)
    assert painted.wait(30.0)
    showing.join()
    os.close(ours)
    os.close(theirs)
    wide, narrow = written
    assert WHY in wide
    assert wide.count("\n") > 6
    assert WHY not in narrow
    assert "\x1b[2J" in narrow, "what the wider one left is cleared"
    assert narrow.count("\n") == 5
    assert "more lines: make the terminal higher" in narrow


def test_what_is_watched_without_cloudflare_is_told_while_it_can_be() -> None:
    status = relay()
    assert "without Cloudflare" not in "\n".join(shown(status))
    status.local = True
    status.cameras[1].local.on, status.cameras[1].local.viewers = True, 1
    assert shown(status)[-1] == "without Cloudflare: 1 of 3 cameras can be watched, 1 viewer"


def test_smaller_pictures_are_told_where_they_are_configured_and_why_there_is_less() -> None:
    status = relay()
    assert "smaller picture" not in "\n".join(shown(status))
    for camera in status.cameras[1:]:
        camera.renditions = "smooth"
        camera.rendition = RenditionStatus(mode="smooth", wanted="smooth", watched=1, cpu=40.4)
    status.cameras[1].rendition.reason = "others take the CPU: keyframes alone"
    said = shown(status)
    assert said[-1] == "smaller pictures: 2 of 2 cameras, 2 viewers, 81 ms of CPU a second"
    assert "    smaller picture: others take the CPU: keyframes alone" in said


PROJECTS = ("5cd39b4c-0000-4000-8000-51a1a7edf00d", "5cd39b4c-0000-4000-8000-51a1a7edf00d#2")


def two_accounts(*names: str, spread: bool = False) -> RelayStatus:
    """Two accounts of one supervisor, or two that are spread over several; the second is refused."""
    status = relay(4)
    for number, camera in enumerate(status.cameras):
        camera.account = names[number // 2]
    budgets = [BudgetStatus(account=project) for project in PROJECTS]
    budgets[1].auth_error = "the refresh token was revoked"
    status.budgets = [
        msgspec.structs.replace(one, name=name * spread) for one, name in zip(budgets, names, strict=True)
    ]
    status.problems = [verdict(Cause.DISK_FULL, state="degraded", wall=0.0)]
    if spread:
        status.accounts = [AccountStatus(name=name, holder="a") for name in names]
        status.problems = [msgspec.structs.replace(status.problems[0], account=names[1])]
    return status


def test_each_line_says_whose_it_is_where_there_are_several_accounts() -> None:
    lines = shown(two_accounts("home", "shop", spread=True))
    assert "commands of home: 0 of 0 in the last minute, 0 waiting" in lines
    assert "shop: the refresh token was revoked" in lines
    assert next(line for line in lines if "disk" in line).startswith("shop: ")
    title = next(line for line in lines if line.startswith("CAMERA"))
    at = title.index("ACCOUNT")
    rows = [line for line in lines if "reconnecting" in line or " live  " in line]
    assert [row[at:].split()[0] for row in rows] == ["home", "home", "shop", "shop"]


def test_projects_of_one_supervisor_are_told_apart() -> None:
    lines = shown(two_accounts(*PROJECTS))
    assert f"commands of {PROJECTS[1]}: 0 of 0 in the last minute, 0 waiting" in lines
    rows = [line for line in lines if "reconnecting" in line or " live  " in line]
    assert [("5cd39b4c…7edf00d" in row, "5cd39b4c…df00d#2" in row) for row in rows] == [(True, False)] * 2 + [
        (False, True)
    ] * 2
    assert not any("5cd39b4c" in line for line in shown(relay()) if LINK not in line), "of one account nothing is said"


@pytest.mark.parametrize("columns", [80, 99, 100, 120])
def test_rows_of_several_accounts_fit(columns: int) -> None:
    lines = shown(two_accounts("home", "a-name-as-long-as-it-may-be-in-a-cluster", spread=True), columns)
    assert max(len(line) for line in lines) <= columns
    if columns < 100:
        assert lines.count("of account home:") == 1
    else:
        assert sum("a-name-a…cluster" in line for line in lines) == 2


def test_what_keeps_a_camera_from_a_sink_is_said_with_its_account() -> None:
    status = two_accounts("home", "shop", spread=True)
    status.sinks = [SinkStatus(name="studio", kind="whip", place="https://s:443")]
    status.cameras[3].sinks = [SinkStats(name="studio", reason=OLD)]
    assert shown(status)[-1] == f"sink studio at https://s:443: 0 of 1 cameras live: Camera 2 of shop: {OLD}"
