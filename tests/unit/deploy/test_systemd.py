"""What systemd is told, over a socket like its own."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from relay_supervisor.commands.systemd import ServiceManager


def listening(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(address)
    listener.setblocking(False)
    return listener


def heard(listener: socket.socket) -> list[bytes]:
    said = []
    while True:
        try:
            said.append(listener.recv(100))
        except BlockingIOError:
            return said


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_and_stopping(tmp_path: Path, abstract: bool) -> None:
    name = f"nest-relay-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with listening("\0" + name if abstract else name) as listener:
        manager = ServiceManager({"NOTIFY_SOCKET": "@" + name if abstract else name})
        manager.ready()
        manager.stopping()
        assert heard(listener) == [b"READY=1", b"STOPPING=1"]


async def test_the_watchdog_is_fed_from_the_loop(tmp_path: Path) -> None:
    with listening(str(tmp_path / "notify")) as listener:
        environ = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "20000",
            "WATCHDOG_PID": str(os.getpid()),
        }
        alive = asyncio.ensure_future(ServiceManager(environ).keep_alive())
        said: list[bytes] = []
        async with asyncio.timeout(10):
            while len(said) < 3:
                await asyncio.sleep(0.01)
                said += heard(listener)
        alive.cancel()
        assert set(said) == {b"WATCHDOG=1"}


def test_the_watchdog_is_fed_when_no_descriptor_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptor(*given: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    with listening(str(tmp_path / "notify")) as listener:
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        manager.ready()
        with monkeypatch.context() as crowded:
            crowded.setattr(socket, "socket", no_descriptor)
            manager._send("WATCHDOG=1")
            manager.stopping()
        assert heard(listener) == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_children_inherit_nothing_of_it(tmp_path: Path) -> None:
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    assert ServiceManager(environ).watchdog == 30.0
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize(
    "environ",
    [{}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}],
    ids=["no systemd", "not a number", "another process's"],
)
async def test_without_a_watchdog_nothing_runs(environ: dict[str, str]) -> None:
    manager = ServiceManager(environ)
    assert manager.watchdog == 0.0
    async with asyncio.timeout(1):
        await manager.keep_alive()


def test_a_manager_that_is_gone_does_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    manager.ready()
    manager._close()
    assert "READY=1" in caplog.text
