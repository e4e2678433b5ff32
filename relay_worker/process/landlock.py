"""Linux's Landlock, by which a process gives up rights for good: its system calls, and the rights each version knows.

A ruleset names the rights that it handles. Those are denied from then on, except where a rule grants them. A kernel
refuses a ruleset that names a right it does not know; what is not named stays allowed. Source: the kernel's
documentation, userspace-api/landlock.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
"""Numbers of the system calls, the same on all of the kernel's architectures but Alpha."""
_ASK_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_NET_PORT: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)


class Files(enum.IntFlag):
    """Rights on files and directories (LANDLOCK_ACCESS_FS_…); below ABI 9 none concerns connecting to a Unix socket."""

    EXECUTE = 1 << 0
    """To start a program; mapping a library needs READ_FILE alone."""
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    """To move or link a file to another directory, which version 1 always denies."""
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


class Ports(enum.IntFlag):
    """Rights on TCP ports (LANDLOCK_ACCESS_NET_…)."""

    BIND_TCP = 1 << 0
    CONNECT_TCP = 1 << 1


class Scopes(enum.IntFlag):
    """What reaches only processes that are confined together (LANDLOCK_SCOPE_…)."""

    ABSTRACT_UNIX_SOCKET = 1 << 0
    SIGNAL = 1 << 1


@dataclass(frozen=True)
class Rights:
    """Rights of all kinds, each a union of those above."""

    files: int = 0
    ports: int = 0
    scopes: int = 0

    def __or__(self, other: Rights) -> Rights:
        return Rights(self.files | other.files, self.ports | other.ports, self.scopes | other.scopes)


ADDED: Final = {
    1: Rights((Files.MAKE_SYM << 1) - 1),  # Linux 5.13
    2: Rights(Files.REFER),  # 5.19
    3: Rights(Files.TRUNCATE),  # 6.2
    4: Rights(ports=Ports.BIND_TCP | Ports.CONNECT_TCP),  # 6.7
    5: Rights(Files.IOCTL_DEV),  # 6.10
    6: Rights(scopes=Scopes.ABSTRACT_UNIX_SOCKET | Scopes.SIGNAL),  # 6.12
    7: Rights(),  # 6.15: what the kernel's audit log says
}
"""What each version of the interface added; later versions are used as the last one here."""
NEWEST: Final = max(ADDED)
OF_FILES: Final = Files.EXECUTE | Files.WRITE_FILE | Files.READ_FILE | Files.TRUNCATE | Files.IOCTL_DEV
"""Rights that a rule on a file, rather than a directory, may grant."""


def rights(version: int) -> Rights:
    """All rights that the `version` of the interface knows."""
    known = Rights()
    for number, added in ADDED.items():
        if number <= version:
            known |= added
    return known


def kernel_version() -> int:
    """The version of the interface that this kernel offers.

    Raises OSError without Landlock: ENOSYS when it is not built in, EOPNOTSUPP when it is not enabled at boot, EPERM
    when a filter of system calls denies it (Docker's before 20.10.18).
    """
    return _call(_CREATE_RULESET, None, 0, _ASK_VERSION)


class Ruleset:
    """Rules being collected; `handled` is denied except where they grant it. Raises OSError as `kernel_version` does.

    `enforce` applies it to the calling thread and all it starts afterwards: call it before there are others.
    """

    def __init__(self, handled: Rights) -> None:
        self._handled = handled
        # Older kernels know a shorter struct, and accept a longer one whose rest is zero.
        attributes = struct.pack("=QQQ", handled.files, handled.ports, handled.scopes)
        self._descriptor = _call(_CREATE_RULESET, attributes, len(attributes), 0)

    def allow(self, path: Path, files: Files) -> bool:
        """Grant `files` on `path` and, if it is a directory, on all beneath it; False if it cannot be opened.

        The rule holds for that file or directory, not for the name: a file that takes the name later is not granted.
        """
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            granted = files & self._handled.files
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                granted &= OF_FILES
            rule = struct.pack("=Qi", granted, descriptor)
            _call(_ADD_RULE, self._descriptor, _PATH_BENEATH, rule, 0)
        finally:
            os.close(descriptor)
        return True

    def allow_ports(self, numbers: Iterable[int], ports: Ports) -> None:
        """Grant `ports` on TCP ports."""
        for number in numbers:
            _call(_ADD_RULE, self._descriptor, _NET_PORT, struct.pack("=QQ", ports, number), 0)

    def enforce(self) -> None:
        """Apply the rules, for good; the process must have given up new privileges (`confine`)."""
        _call(_RESTRICT_SELF, self._descriptor, 0)

    def close(self) -> None:
        """Free the descriptor; what is enforced stays so."""
        os.close(self._descriptor)


def why_not(error: OSError) -> str:
    """Why there is no Landlock, in words."""
    return {
        errno.ENOSYS: "the kernel has no Landlock",
        errno.EOPNOTSUPP: "Landlock is not enabled at boot",
        errno.EPERM: "a filter of system calls denies Landlock",
    }.get(error.errno or 0, f"Landlock failed: {error.strerror}")


def _call(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call; raises OSError."""
    given = [ctypes.c_long(one) if isinstance(one, int) else ctypes.c_char_p(one) for one in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *given)
    if result < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed))
    return result
