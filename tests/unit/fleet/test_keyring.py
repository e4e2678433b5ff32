"""Who may speak on the bus: keys made, kept in their file, and valid as long as their instance."""

from __future__ import annotations

import asyncio
import os
import pickle
import stat
from pathlib import Path

import pytest
import zmq

from relay_common.errors import ConfigError
from relay_supervisor.fleet.bus import Bus
from relay_supervisor.fleet.keyring import KEY_FILE, Keyring
from relay_supervisor.socket_file import SocketFile
from relay_worker.process.spec import WorkerSpec


def opened(file: Path | None = None) -> Keyring:
    keyring = Keyring(file)
    keyring.open()
    return keyring


def test_each_instance_has_a_key_of_its_own_until_it_is_removed() -> None:
    keyring = opened()
    first, second = keyring.issue("cam.1", "cam"), keyring.issue("cam.2", "cam")
    assert first.public != second.public
    assert zmq.curve_public(first.secret.reveal().encode()).decode() == first.public
    assert zmq.curve_public(keyring.secret.reveal().encode()).decode() == first.supervisor == second.supervisor
    member = keyring.member(first.public)
    assert member is not None
    assert (member.instance, member.camera) == ("cam.1", "cam")
    assert keyring.named("cam.1") is member
    assert keyring.key("cam.1") == first.public
    keyring.remove("cam.1")
    assert (keyring.member(first.public), keyring.named("cam.1"), keyring.key("cam.1")) == (None, None, "")
    assert keyring.member(second.public) is keyring.named("cam.2")
    keyring.remove("cam.1")


def test_a_key_stands_for_one_instance() -> None:
    keyring = opened()
    keyring.admit("cam.1", "cam", "k" * 40)
    keyring.admit("cam.2", "cam", "k" * 40)
    assert keyring.named("cam.1") is None
    again = keyring.issue("cam.2", "cam")
    assert keyring.member("k" * 40) is None
    assert keyring.key("cam.2") == again.public


def test_a_worker_without_keys_is_known_by_its_process() -> None:
    keyring = opened()
    assert not keyring.has_unkeyed
    keyring.admit_process("cam.1", "cam", "process 300 70000")
    assert keyring.has_unkeyed
    assert keyring.key("cam.1") == ""
    assert keyring.member("") is None
    keyring.remove("cam.1")
    assert not keyring.has_unkeyed


def test_the_supervisors_key_outlives_it_and_is_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / KEY_FILE
    first = opened(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert opened(file).secret == first.secret
    file.unlink()
    first.keep()
    assert opened(file).secret == first.secret
    assert first.secret.reveal() not in repr(vars(first))


@pytest.mark.parametrize("content", [b"", b"rubbish", bytes(40), b"x" * 41])
def test_a_file_that_holds_no_key_is_replaced_and_said(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / KEY_FILE
    file.write_bytes(content)
    first = opened(file)
    assert f"{file} holds no key: it is replaced" in caplog.text
    assert opened(file).secret == first.secret


def test_a_file_that_cannot_be_used_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / KEY_FILE).mkdir()
    keyring = opened(tmp_path / KEY_FILE)
    assert keyring.issue("cam.1", "cam").supervisor
    assert "cannot be read: Is a directory" in caplog.text
    (tmp_path / "dangling").symlink_to(tmp_path / "file" / KEY_FILE)
    (tmp_path / "file").symlink_to(tmp_path / "file")
    assert opened(tmp_path / "dangling").issue("cam.1", "cam").supervisor


def test_a_file_that_others_could_read_is_theirs_no_longer(tmp_path: Path) -> None:
    file = tmp_path / KEY_FILE
    before = opened(file).secret
    os.chmod(file, 0o644)
    assert opened(file).secret == before
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_without_curve_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq, "has", lambda capability: False)
    with pytest.raises(ConfigError, match="libzmq was built without CURVE") as caught:
        Keyring().open()
    assert "pyzmq" in caught.value.hint


def test_keys_pass_the_launch_pipe_and_do_not_print() -> None:
    keys = opened().issue("cam.1", "cam")
    spec = WorkerSpec(camera="cam", name="Cam", instance="cam.1", control="", stats="", keys=keys)
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert keys.secret.reveal() not in repr(spec)


async def test_a_key_that_cannot_be_kept_is_told_of_twice_at_most(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keyring = Keyring(Path("/proc/bus.key"))  # where nobody can make a file, not even root
    keyring.open()
    assert keyring.file is not None
    keeping = asyncio.create_task(SocketFile(keyring.file, Bus(tmp_path, keyring)._keep_key, every=0).keep())
    while len(caplog.messages) < 2:
        await asyncio.sleep(0.01)
    for _ in range(20):
        await asyncio.sleep(0.01)
    keeping.cancel()
    first, second = caplog.messages
    assert "bus.key cannot be written" in first
    assert "bus.key was deleted and cannot be re-created" in second
