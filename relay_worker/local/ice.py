"""An ICE-lite agent for each viewer (RFC 8445 §2.5), and who a datagram on the common port belongs to. Without I/O.

A lite agent has the addresses that it announces, answers checks, and sends none: it needs no candidates of its peer,
which is always controlling. A check names its viewer by our ICE user name fragment, and proves by the answer's password
that it comes from whoever got the answer; all else is told apart by the address that such a check came from.
"""

from __future__ import annotations

import secrets
from typing import Final, NamedTuple, TypeAlias

from relay_worker.local.stun import BindingRequest, StunError, pack_error, pack_success, parse_binding_request

CONSENT: Final = 30.0
"""Seconds without a valid check after which a viewer is gone: peers send them as consent checks (RFC 7675 §5.1)."""
MAX_ADDRESSES: Final = 8
"""Addresses of one viewer that are known at the same time; of more the one that was silent longest is forgotten."""

Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
"""As sockets give and take it."""


class UdpSource(NamedTuple):
    """Which of our sockets a datagram came to, and from where."""

    port: int
    """The socket's place in the list of them."""
    address: Address


class IceCredentials(NamedTuple):
    """What an answer tells of our end of ICE."""

    ufrag: str
    password: str


class LiteAgent:
    """Our end of a viewer's ICE: answers its checks, and knows its addresses.

    `unauthentic` counts checks with a wrong password, `conflicts` those of a peer that takes itself for controlled.
    """

    def __init__(self, viewer: str, now: float) -> None:
        self.viewer = viewer
        """Its name."""
        self.credentials = _new_credentials()
        """The present ones."""
        self.valid = [self.credentials]
        """Those that checks may use."""
        self.heard_at = now
        """When the last valid check came (monotonic seconds)."""
        self.selected: UdpSource | None = None
        """Where to send: from where the last valid check with USE-CANDIDATE came, before the first any valid one."""
        self._nominated = False
        self.addresses: dict[UdpSource, float] = {}
        """Where valid checks came from, and when the last one did: the one that was silent longest first."""
        self.unauthentic = self.conflicts = 0

    @property
    def ufrags(self) -> list[str]:
        """Those that name this viewer."""
        return [one.ufrag for one in self.valid]

    def restart(self) -> IceCredentials:
        """Make new credentials (RFC 8445 §9); those before stay valid, as checks under way may still use them."""
        self.credentials = _new_credentials()
        self.valid = [*self.valid[-1:], self.credentials]
        self._nominated = False
        return self.credentials

    def answer(self, request: BindingRequest, source: UdpSource, now: float) -> tuple[bytes, bool]:
        """The response to a check, and whether the check was valid."""
        ufrag = request.username.partition(":")[0]
        password = next((one.password for one in self.valid if one.ufrag == ufrag), "")
        if not password or not request.covered:
            self.unauthentic += 1
            return pack_error(request, 400), False
        if not request.is_authentic(password):
            self.unauthentic += 1
            return pack_error(request, 401), False
        if request.unknown:
            return pack_error(request, 420, password), False
        if request.controlled:
            # We are lite, so that the peer has to control, whatever the tie-breakers are (RFC 8445 §6.1.1).
            self.conflicts += 1
            return pack_error(request, 487, password), False
        self.heard_at = now
        self.addresses.pop(source, None)
        self.addresses[source] = now
        if request.nominates or not self._nominated:
            self.selected, self._nominated = source, self._nominated or request.nominates
        return pack_success(request, source.address[0], source.address[1], password), True


class Demultiplexer:
    """Tells whose a datagram is that came to the common port.

    `unknown` counts datagrams of nobody, `malformed` those that begin like STUN and are no check, `contested` checks
    from an address that another viewer uses: they are not answered, so that none can have another's packets.
    """

    def __init__(self) -> None:
        self._by_ufrag: dict[str, LiteAgent] = {}
        self._by_source: dict[UdpSource, LiteAgent] = {}
        self.unknown = self.malformed = self.contested = 0

    def add(self, agent: LiteAgent) -> None:
        """Take part: also after `agent.restart`."""
        self._by_ufrag = {ufrag: other for ufrag, other in self._by_ufrag.items() if other is not agent}
        self._by_ufrag |= dict.fromkeys(agent.ufrags, agent)

    def remove(self, agent: LiteAgent) -> None:
        """Forget it."""
        self._by_ufrag = {ufrag: other for ufrag, other in self._by_ufrag.items() if other is not agent}
        self._by_source = {source: other for source, other in self._by_source.items() if other is not agent}

    def owner(self, source: UdpSource) -> LiteAgent | None:
        """Whose datagrams come from there."""
        found = self._by_source.get(source)
        self.unknown += found is None
        return found

    def receive_check(self, data: bytes, source: UdpSource, now: float) -> tuple[LiteAgent | None, bytes]:
        """Process a datagram that begins like STUN: whose valid check it is, and the response to send (or none)."""
        try:
            request = parse_binding_request(data)
        except StunError:
            self.malformed += 1
            return None, b""
        agent = self._by_ufrag.get(request.username.partition(":")[0])
        if agent is None:
            self.unknown += 1
            return None, b""
        other = self._by_source.get(source)
        if other is not None and other is not agent and now - other.addresses.get(source, 0.0) < CONSENT:
            self.contested += 1
            return None, b""
        response, valid = agent.answer(request, source, now)
        if not valid:
            return None, response
        self._by_source[source] = agent
        if len(agent.addresses) > MAX_ADDRESSES:
            oldest = next(known for known in agent.addresses if known != agent.selected)
            del agent.addresses[oldest]
            self._by_source.pop(oldest, None)
        return agent, response


def _new_credentials() -> IceCredentials:
    # RFC 8445 §5.3: at least 24 and 128 bits.
    return IceCredentials(secrets.token_hex(4), secrets.token_hex(16))
