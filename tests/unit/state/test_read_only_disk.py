"""A state directory whose file system has become read-only, as those of failing disks do: the relay starts there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_common.clock import ManualClock
from relay_common.errors import ConfigError, RelayError
from relay_supervisor.fleet.keyring import KEY_FILE, Keyring
from relay_supervisor.state.directories import private, require, runtime
from relay_supervisor.state.lock import StateLock
from relay_supervisor.state.store import SavedWorker, Store


def mounted(*options: str) -> int:
    program = shutil.which("mount") or "false"
    return subprocess.run([program, *options], capture_output=True, check=False).returncode


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    if mounted("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)):
        pytest.skip("a file system cannot be mounted here: this needs root")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def used(state: Path) -> tuple[str, Store]:
    """The key on the bus and the store of a supervisor that starts in this directory."""
    private(state, "state_dir")
    lock, keyring, store = (
        StateLock(state),
        Keyring(state / KEY_FILE),
        Store(state / "relay.db", ManualClock(), boot="b"),
    )
    lock.acquire()
    with pytest.raises(RelayError, match="another supervisor"):
        StateLock(state).acquire()
    keyring.open()
    store.open()
    lock.release()
    return keyring.secret.reveal(), store


def test_what_is_in_it_is_read_and_used(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It was "not writable for this user", as root too, and no camera came back when the supervisor started anew."""
    state, saved = disk / "state", SavedWorker("a.1", "a", "proc:1", key="key")
    key, store = used(state)
    store.save_worker(saved)
    store.close()
    assert mounted("-o", "remount,ro", str(disk)) == 0
    again, store = used(state)
    assert again == key, "workers know it"
    assert caplog.text == ""
    assert store.workers() == [saved]
    assert "Read-only file system" in store.problem
    assert not store.full
    store.close()


def test_what_has_to_be_made_there_is_refused_in_these_words(disk: Path) -> None:
    (disk / "run").mkdir(mode=0o700)
    assert mounted("-o", "remount,ro", str(disk)) == 0
    words = f"{disk}.* is on a file system that is mounted read-only"
    with pytest.raises(ConfigError, match=words):
        require(disk / "state", "state_dir")
    with pytest.raises(ConfigError, match=words):
        runtime(disk / "run")
