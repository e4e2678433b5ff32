"""Whom a client of the cluster trusts, and as whom it speaks: a context of TLS that is made anew when its files change.

A Pod's kubelet replaces the file with the cluster's authorities while the Pod runs, when these are rotated.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable, Sequence

from relay_common.errors import ConfigError

log = logging.getLogger(__name__)

_Version = tuple[int, int, int, int] | None


class RenewedContext:
    """What `make` makes, at the start, whose errors are raised, and again when one of `files` has been replaced."""

    def __init__(self, files: Sequence[str], make: Callable[[], ssl.SSLContext]) -> None:
        self._files, self._make = files, make
        self._seen = self._versions()
        self.context = make()

    def renewed(self) -> bool:
        """Whether `context` is another one than before. One that cannot be made is left, until a file changes again."""
        if (versions := self._versions()) == self._seen:
            return False
        self._seen = versions
        try:
            self.context = self._make()
        except (ConfigError, OSError, ValueError) as error:  # of TLS as well
            log.warning("the cluster's certificates have changed and cannot be used, so the last ones are: %s", error)
            return False
        log.info("the cluster's certificates have changed, and are used from now on")
        return True

    def _versions(self) -> list[_Version]:
        return [_version(file) for file in self._files]


def _version(file: str) -> _Version:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
