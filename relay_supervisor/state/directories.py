"""The relay's directories for state and sockets, private to its user."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from relay_common.errors import ConfigError

_LONGEST_SOCKET_PATH: Final = 90


def runtime(directory: Path) -> Path:
    """The directory of the sockets, private; raises ConfigError when a socket's path would be too long."""
    if len(str(directory)) > _LONGEST_SOCKET_PATH:
        raise ConfigError(f"paths.runtime_dir is too long for a socket path: {directory}", hint="Choose a shorter one")
    return private(directory)


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
