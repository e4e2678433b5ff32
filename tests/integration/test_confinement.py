"""A running worker has no privilege, descriptor, file, port or process within reach that it does not need."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from relay_common.simulation.camera import certs
from relay_supervisor.cameras import worker_spec
from relay_supervisor.status.model import CameraStatus
from relay_worker.process import sandbox
from tests.fixtures.probed_worker import ProbedLauncher
from tests.fixtures.running_relay import UNLIMITED, RunningRelay, running_relay

pytestmark = pytest.mark.media

confined = pytest.mark.skipif(sandbox.available().startswith("none"), reason=f"confinement: {sandbox.available()}")


async def test_a_worker_has_given_up_privileges_and_inherited_nothing() -> None:
    async with running_relay(1) as relay:
        await relay.until_live()
        (camera,) = relay.supervisor.status().cameras
        process = Path(f"/proc/{camera.worker.pid}")
        status = (process / "status").read_text()
        assert "NoNewPrivs:\t1" in status
        limits = {line[:25].strip(): line[25:].split()[:2] for line in (process / "limits").read_text().splitlines()}
        assert limits["Max core file size"] == ["0", "0"]
        assert limits["Max open files"] == ["512", "512"]
        opened = [str(descriptor.readlink()) for descriptor in (process / "fd").iterdir()]
        state = str(relay.supervisor.config.paths.state())
        assert not [name for name in opened if name.startswith(state)], "the leases' database"
        assert len(opened) < 64, opened
        environment = (process / "environ").read_text()
        assert "SECRET" not in environment


def attempts(relay: RunningRelay, port: int, abstract: str) -> list[tuple[str, str | int]]:
    """What a worker must not be able to do, each of which this test's process can."""
    paths = relay.supervisor.config.paths
    token = paths.state() / "token"
    token.write_text("a secret")
    return [
        ("read", "/etc/passwd"),
        ("read", str(token)),
        ("read", str(paths.state() / "relay.sqlite3")),
        ("read", f"/proc/{os.getpid()}/environ"),
        ("list", str(paths.state())),
        ("list", "/"),
        ("write", str(paths.state() / "new")),
        ("write", str(paths.runtime() / "new")),
        ("write", str(token)),
        ("truncate", str(token)),
        ("remove", str(token)),
        ("execute", "/bin/true"),
        ("bind", 0),
        ("connect", port),
        ("abstract", abstract),
        ("signal", os.getpid()),
    ]


SINCE = {"truncate": 3, "bind": 4, "connect": 4, "abstract": 6, "signal": 6}
"""The version of Landlock that limits each; the first limits the others."""


@contextlib.contextmanager
def neighbours() -> Iterator[tuple[int, str]]:
    """A TCP port and an abstract socket that somebody else listens at."""
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        name = f"nest-relay-test-{os.getpid()}"
        unix.bind(f"\0{name}")
        unix.listen()
        yield tcp.getsockname()[1], name


@contextlib.asynccontextmanager
async def probed(monkeypatch: pytest.MonkeyPatch, **workers: str) -> AsyncIterator[tuple[RunningRelay, ProbedLauncher]]:
    """A relay of one camera. That its stream has another port than expected is learnt from its first URL."""
    monkeypatch.setattr(worker_spec, "_stream_ports", lambda url: (1,))
    async with running_relay(1, sections={"workers": dict(workers)} | UNLIMITED, launcher=ProbedLauncher) as relay:
        await relay.until_live(within=60.0)
        assert isinstance(relay.supervisor._launcher, ProbedLauncher)
        yield relay, relay.supervisor._launcher


@confined
async def test_a_live_worker_reaches_only_what_it_needs_and_does_all_it_did(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with probed(monkeypatch) as (relay, launcher):
        (camera,) = relay.supervisor.status().cameras
        version = int(camera.worker.confinement.split()[2].strip(",;"))
        if version >= SINCE["connect"]:
            its_stream_was_at_another_port_than_expected(camera, launcher)
        with neighbours() as (port, abstract):
            for what, given in attempts(relay, port, abstract):
                refusal = "EPERM" if what in ("signal", "abstract") else "EACCES"
                expected = refusal if version >= SINCE.get(what, 1) else ""
                assert launcher.attempt(what, given) == expected, (what, given)
        assert launcher.attempt("resolve", "localhost") == ""
        assert launcher.attempt("read", "/proc/self/statm") == ""
        await pictures_captures_and_stacks_are_made(relay, camera)
        started = launcher.started
        await relay.nest(f"cameras/{camera.name}/expire", {})

        def renewed() -> bool:
            now = relay.camera(camera.name)
            return now.state == "live" and now.lease.generates == 2

        await relay.until(renewed, 60.0, "live from a new stream URL")
        assert launcher.started == started, "the new URL has the same port"
    said = [record.getMessage() for record in caplog.records if "confinement of workers" in record.getMessage()]
    assert camera.worker.confinement in said[-1]
    assert len(said) == len(set(said)) <= 2


def its_stream_was_at_another_port_than_expected(camera: CameraStatus, launcher: ProbedLauncher) -> None:
    """Its first worker was replaced, at no cost at Google, by one that may connect to that port as well."""
    assert launcher.started == 2
    assert (camera.worker.restarts, camera.lease.generates) == (1, 1)
    assert camera.worker.last_exit.startswith("stream at TCP port ")
    port = camera.worker.last_exit.split()[4].rstrip(",")
    assert camera.worker.confinement.endswith(f"; TCP to 1, 53, {port}")


async def pictures_captures_and_stacks_are_made(relay: RunningRelay, camera: CameraStatus) -> None:
    verbs = relay.supervisor.verbs
    assert (await verbs.snapshot(camera.id)).startswith(b"\xff\xd8")
    assert (await verbs.capture(camera.id, 1.0)).startswith(b"\x0a\x0d\x0d\x0a")
    stacks = relay.supervisor.config.paths.runtime() / f"{camera.worker.instance}.stacks"
    os.kill(camera.worker.pid, signal.SIGUSR1)
    await relay.until(lambda: "most recent call first" in stacks.read_text(), 30.0, "the stacks are dumped")


async def test_with_the_setting_off_nothing_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same attempts succeed: what is refused above is refused by Landlock alone."""
    async with probed(monkeypatch, landlock="off") as (relay, launcher):
        assert relay.supervisor.status().cameras[0].worker.confinement == "off"
        with neighbours() as (port, abstract):
            for what, given in attempts(relay, port, abstract):
                assert launcher.attempt(what, given) == "", (what, given)


@confined
async def test_authorities_that_are_replaced_are_read_without_another_stream(tmp_path: Path) -> None:
    _, authorities = certs.make_server_context(tmp_path)  # others than the camera's
    sections = {"rtsp": {"ca_file": str(authorities)}} | UNLIMITED
    async with running_relay(1, sections=sections) as relay:

        def distrusted() -> bool:
            return any("not trusted" in camera.reason for camera in relay.supervisor.status().cameras)

        await relay.until(distrusted, 30.0, "the certificate is refused")
        shutil.copy(relay.world.endpoints["rtsp"]["ca_file"], tmp_path / "new.pem")
        (tmp_path / "new.pem").rename(authorities)
        await relay.until_live(within=60.0)
        (camera,) = relay.supervisor.status().cameras
        assert "has changed" in camera.worker.last_exit
        assert camera.worker.restarts == 1
