"""The relay's directories for state and sockets, private to its user."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Final

from relay_common.errors import ConfigError

_LONGEST_SOCKET_PATH: Final = 90


def runtime(directory: Path) -> Path:
    """The directory of the sockets, private.

    Raises ConfigError when a socket's path would be too long, or when it is a symbolic link or another user's.
    """
    if len(str(directory)) > _LONGEST_SOCKET_PATH:
        raise ConfigError(f"paths.runtime_dir is too long for a socket path: {directory}", hint="Choose a shorter one")
    found = private(directory)
    _refuse_strange(found)
    return found


def _refuse_strange(directory: Path) -> None:
    """Refuse a directory whose owner could redirect the sockets, and get between the supervisor and its workers."""
    found = directory.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise ConfigError(
            f"paths.runtime_dir is {directory}, a symbolic link", hint="Name the directory that it points at"
        )
    if found.st_uid != os.getuid():
        raise ConfigError(
            f"paths.runtime_dir is {directory}, which belongs to another user (uid {found.st_uid})",
            hint="Choose another, or chown it",
        )


def remove_stale_stacks(directory: Path, instances: Collection[str]) -> int:
    """Delete the stack files of all workers except the live `instances`; returns how many.

    A worker's file is removed when it ends; the rest belong to workers that ended while no supervisor ran.
    """
    stale = [file for file in directory.glob("*.stacks") if file.stem not in instances]
    for file in stale:
        file.unlink(missing_ok=True)
    return len(stale)


def private(directory: Path) -> Path:
    """Make `directory` with mode 0700 when it is missing; raises ConfigError when it cannot be used."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"{directory} cannot be used: {error.strerror}", hint="Set paths.state_dir and paths.runtime_dir"
        ) from None
    return directory
