"""What a trial of the bus ends with: against a real bus, something else, and nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from relay_common.bus_probe import STATISTICS, BusReached
from relay_common.errors import ConfigError
from relay_common.secrets import Secret
from relay_supervisor.fleet.keyring import KEY_FILE, trial_keys
from relay_worker.process import probe
from relay_worker.process.launch_file import packed
from relay_worker.process.probe import tried
from tests.fixtures.ports import free_ports
from tests.unit.fleet.bus_rig import Rig, spec_of

PATIENT, BRIEF = 60.0, 0.3
"""Seconds for what has to succeed, on a busy machine, and for what cannot."""


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    first, second = free_ports(2)
    made = Rig(tmp_path, (f"tcp://127.0.0.1:{first}", f"tcp://127.0.0.1:{second}"))
    await made.bus.start()
    yield made
    await made.close()


def trial_of(rig: Rig) -> Any:
    assert rig.bus.network is not None
    return spec_of(trial_keys(Secret((rig.directory / KEY_FILE).read_text().strip())), *rig.bus.network.endpoints)


async def test_a_supervisor_is_reached_and_notices_nothing(rig: Rig) -> None:
    assert await tried(trial_of(rig), PATIENT) == BusReached.REACHED
    assert rig.refused() == {}
    assert rig.heard == []


async def test_who_tries_is_not_listened_to(rig: Rig) -> None:
    far = rig.peer(trial_keys(rig.bus.keyring.secret), rig.bus.network)
    await rig.until(lambda: rig.refused().get("ended"), far.say_hello)
    assert rig.heard == []


async def test_a_release_that_does_not_know_the_trials_key_is_reached_as_well(rig: Rig) -> None:
    rig.bus.keyring._trial = ""
    assert await tried(trial_of(rig), PATIENT) == BusReached.REACHED


async def test_another_relay_s_supervisor_is_not_taken_for_this_one(rig: Rig) -> None:
    other = trial_keys(Secret(zmq.curve_keypair()[1].decode()))
    assert await tried(dataclasses.replace(trial_of(rig), keys=other), BRIEF) == BusReached.OTHER_KEY


async def test_a_port_where_nobody_listens_is_told_apart_by_which_it_is(rig: Rig) -> None:
    nowhere = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    spec = trial_of(rig)
    assert await tried(dataclasses.replace(spec, control=nowhere, stats=nowhere), BRIEF) == BusReached.REFUSED
    assert await tried(dataclasses.replace(spec, stats=nowhere), 5.0) == BusReached.REFUSED + STATISTICS


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (socket.gaierror(-2, "Name or service not known"), BusReached.UNKNOWN_NAME),
        (OSError(errno.EHOSTUNREACH, "No route to host"), BusReached.NO_ROUTE),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), BusReached.SILENT),
        (TimeoutError(), BusReached.SILENT),
    ],
)
async def test_what_the_kernel_says_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, error: OSError, code: BusReached
) -> None:
    async def fails(host: str, port: int) -> None:
        assert (host, port) == ("relay.svc", 7420)
        raise error

    monkeypatch.setattr(asyncio, "open_connection", fails)
    assert await probe._why_not("tcp://[relay.svc]:7420") is code


async def test_without_keys_nothing_is_tried(rig: Rig) -> None:
    with pytest.raises(ConfigError, match="with keys alone"):
        await tried(dataclasses.replace(trial_of(rig), keys=None))


def test_parameters_that_cannot_be_read_have_their_own_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probe, "confine", lambda: None)
    (tmp_path / "worker.json").write_bytes(packed(spec_of(None, "tcp://127.0.0.1:1", "tcp://127.0.0.1:2")))
    for name in ("absent.json", "worker.json"):
        monkeypatch.setattr("sys.argv", ["probe", str(tmp_path / name)])
        with pytest.raises(SystemExit) as ended:
            probe.main()
        assert ended.value.code == BusReached.UNUSABLE
        assert name in capsys.readouterr().err
