"""The relay's directories for state and sockets, private to its user.

`require` and `require_runtime` only look, for `check`; `private` and `runtime` refuse the same and make the directory.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from relay_common.errors import ConfigError

_LONGEST_SOCKET_PATH: Final = 90
_PROBE: Final = 64 * 1024
"""Bytes that have to fit on the disk: a state file with its journal."""


def runtime(directory: Path) -> Path:
    """Make the directory of the sockets, private; raises ConfigError when it cannot be used."""
    require_runtime(directory)
    return private(directory, "runtime_dir")


def private(directory: Path, key: str) -> Path:
    """Make `paths.<key>` with mode 0700 when it is missing; raises ConfigError when it cannot be used."""
    require(directory, key)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if stat.S_IMODE(directory.stat().st_mode) != 0o700:
            directory.chmod(0o700)
    except OSError as error:
        raise _unusable(directory, key, error) from None
    return directory


def require_runtime(directory: Path) -> None:
    """Raise ConfigError when sockets cannot be kept there.

    Because their paths would be too long, or because it is a symbolic link or another user's, who could redirect them
    and get between the supervisor and its workers.
    """
    if len(str(directory)) > _LONGEST_SOCKET_PATH:
        raise ConfigError(f"paths.runtime_dir is too long for a socket path: {directory}", hint="Choose a shorter one")
    require(directory, "runtime_dir")
    try:
        found = directory.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode):
        raise ConfigError(
            f"paths.runtime_dir is {directory}, a symbolic link", hint="Name the directory that it points at"
        )
    if found.st_uid != os.getuid():
        raise _of_another(directory, "runtime_dir", found.st_uid)


def require(directory: Path, key: str) -> None:
    """Raise ConfigError when `paths.<key>` cannot be made or be made private; changes nothing.

    A state directory that is there may be on a file system that has become read-only, as those of failing disks do:
    what is in it can be read, and cameras go on by that.
    """
    try:
        existing = nearest(directory)
        found = existing.stat()
    except OSError as error:
        raise _unusable(directory, key, error) from None
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{existing} is not a directory", hint=f"Remove it, or set paths.{key} to another")
    if os.statvfs(existing).f_flag & os.ST_RDONLY:
        if existing != directory or key != "state_dir":
            raise ConfigError(
                f"{directory} cannot be used: {existing} is on a file system that is mounted read-only",
                hint=f"Set paths.{key} to another, or remount it (dmesg tells whether its disk fails)",
            )
    elif not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{existing} is not writable for this user", hint=f"Set paths.{key} to another, or chown {existing}"
        )
    if existing == directory and os.getuid() not in (0, found.st_uid):
        raise _of_another(directory, key, found.st_uid)


def nearest(directory: Path) -> Path:
    """The directory itself, or what exists of the way to it; raises OSError when that cannot be told."""
    for path in (directory, *directory.absolute().parents):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            if path.is_symlink():
                raise  # its target is missing, and nothing can be made in its place
            continue
        return path
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def write_problem(directory: Path) -> str:
    """Why nothing can be written there, or where it would be made: a full disk, for example; empty when it can."""
    error = write_error(directory)
    return "" if error is None else error.strerror or type(error).__name__


def write_error(directory: Path) -> OSError | None:
    """The error of writing there, or where it would be made; None when it can be written."""
    try:
        # Has no name while it is there, on file systems that can do that.
        with tempfile.TemporaryFile(dir=nearest(directory)) as file:
            file.write(bytes(_PROBE))
            file.flush()
    except OSError as error:
        return error
    return None


def _unusable(directory: Path, key: str, error: OSError) -> ConfigError:
    return ConfigError(f"{directory} cannot be used: {error.strerror}", hint=f"Set paths.{key} to another")


def _of_another(directory: Path, key: str, uid: int) -> ConfigError:
    return ConfigError(
        f"paths.{key} is {directory}, which belongs to another user (uid {uid})", hint="Choose another, or chown it"
    )
