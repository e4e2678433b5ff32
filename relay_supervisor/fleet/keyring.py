"""Who may speak on the bus: the supervisor's own CURVE key pair, and the credentials of its living workers.

A worker is known by its *credential*, with which its connection was authenticated: the public key that was made for it
or, for a worker of a release without keys, its process (`relay_common.proc.process_ref`), which the kernel names for
each connection of a Unix socket.
Each credential stands for exactly one instance.
"""

from __future__ import annotations

import hashlib
import logging
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zmq
from zmq.utils import z85

from relay_common.files import write_private
from relay_common.secrets import Secret
from relay_common.wire import require_curve
from relay_worker.process.spec import BusKeys

log = logging.getLogger(__name__)

KEY_FILE: Final = "bus.key"
"""The file in the state directory with the supervisor's secret key."""
_TRIAL: Final = b"check"


@dataclass(slots=True)
class Member:
    """One instance that may speak on the bus."""

    instance: str
    camera: str
    credential: str
    keyed: bool
    """Whether the credential is a key."""
    address: bytes = b""
    """Where its answers go: the routing id of its last message; empty before the first."""
    over: str = ""
    """The sockets that it came by, whose routing id that is."""


class Keyring:
    """The keys of the bus. `file` keeps the supervisor's secret key; without one it lasts as long as this object.

    `known` is that key where it is known already, whatever the file holds: from the other supervisors of the relay.
    """

    def __init__(self, file: Path | None = None, known: str = "") -> None:
        self.file, self._known = file, Secret(known)
        self.secret = Secret("")
        self._public = self._trial = ""
        self._members: dict[str, Member] = {}
        self._named: dict[str, Member] = {}

    def open(self) -> None:
        """Read the supervisor's key, or make one; does nothing when there is one. Raises ConfigError without CURVE.

        A file that cannot be used costs no camera its picture: workers that cannot speak to a supervisor with another
        key are replaced.
        """
        require_curve()
        if self.secret:
            return
        try:
            kept = self._known or self._read()
        except OSError as error:  # it may be readable the next time
            log.error("%s cannot be read: %s; workers that know the key in it are replaced", self.file, error.strerror)
            kept, self.file = None, None
        self.secret = kept or Secret(zmq.curve_keypair()[1].decode())
        self._public = zmq.curve_public(self.secret.reveal().encode()).decode()
        self._trial = self.trial().public
        if kept is None:
            self.keep()

    def keep(self) -> None:
        """Write the file; what prevents that is logged."""
        try:
            self.write()
        except OSError as error:
            log.error(
                "%s cannot be written: %s; the next supervisor will have another key and replace all workers",
                self.file,
                error.strerror,
            )

    def write(self) -> None:
        """Write the file, if it is to be kept in one. Raises OSError."""
        if self.file is not None:
            write_private(self.file, self.secret.reveal().encode() + b"\n")

    def _read(self) -> Secret | None:
        if self.file is None:
            return None
        try:
            text = self.file.read_bytes().strip()
            if stat.S_IMODE(self.file.stat().st_mode) != 0o600:
                self.file.chmod(0o600)
            zmq.curve_public(text)
        except FileNotFoundError:
            return None
        except (ValueError, zmq.ZMQError):
            log.error("%s holds no key: it is replaced, and so are workers that know the key it had", self.file)
            return None
        return Secret(text.decode())

    def trial(self) -> BusKeys:
        """Those of `trial_keys`; the ring must be open."""
        return trial_keys(self.secret)

    def admits(self, credential: str) -> bool:
        """Whether a connection with this credential is accepted: it is a living instance's, or the trial's."""
        return credential in self._members or bool(credential and credential == self._trial)

    # --- the living instances ----------------------------------------------------------------------------------

    def issue(self, instance: str, camera: str) -> BusKeys:
        """Keys for an instance that is about to be launched; it may speak from now on."""
        public, secret = (key.decode() for key in zmq.curve_keypair())
        self._add(Member(instance, camera, public, keyed=True))
        return BusKeys(public=public, secret=Secret(secret), supervisor=self._public)

    def admit(self, instance: str, camera: str, key: str) -> None:
        """Let a worker speak that an earlier supervisor gave this public key."""
        self._add(Member(instance, camera, key, keyed=True))

    def admit_process(self, instance: str, camera: str, ref: str) -> None:
        """Let a worker speak that an earlier release started without keys: a process of this machine."""
        self._add(Member(instance, camera, ref, keyed=False))

    def remove(self, instance: str) -> None:
        """An instance is no longer living: whatever it still says is refused."""
        member = self._named.pop(instance, None)
        if member is not None:
            del self._members[member.credential]

    def _add(self, member: Member) -> None:
        self.remove(member.instance)
        if (other := self._members.get(member.credential)) is not None:
            self.remove(other.instance)
        self._named[member.instance] = self._members[member.credential] = member

    def member(self, credential: str) -> Member | None:
        """The living instance that this credential stands for."""
        return self._members.get(credential)

    def named(self, instance: str) -> Member | None:
        """The living instance of that name."""
        return self._named.get(instance)

    def at(self, address: bytes) -> Member | None:
        """The living instance whose answers go to that address."""
        return next((member for member in self._named.values() if member.address == address), None)

    def key(self, instance: str) -> str:
        """The public key of an instance; "" when it has none."""
        member = self._named.get(instance)
        return member.credential if member is not None and member.keyed else ""

    @property
    def has_unkeyed(self) -> bool:
        """Whether a living worker has no keys."""
        return not all(member.keyed for member in self._named.values())


def trial_keys(supervisor: Secret) -> BusKeys:
    """Keys with which `relay-supervisor check` tries the bus from elsewhere, made of the supervisor's own secret key.

    Who has them may connect, and is not listened to.
    """
    own = supervisor.reveal().encode()
    secret = z85.encode(hashlib.blake2b(own, digest_size=32, person=_TRIAL).digest())
    public, known = zmq.curve_public(secret).decode(), zmq.curve_public(own).decode()
    return BusKeys(public=public, secret=Secret(secret.decode()), supervisor=known)
