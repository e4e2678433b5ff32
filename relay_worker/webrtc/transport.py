"""ICE, DTLS and SRTP by aiortc, used the ORTC way; with `incoming` the one that touches private members of aiortc and
aioice.

`MediaTransport` gathers, connects to the answer's address and hands decrypted RTCP and RTP to a callback in the same
turn of the loop. Outgoing packets are protected in place (`protector.SrtpProtector`) and leave through a duplicate of
ICE's own socket (`gso.UdpPath`), or through the TURN relay when that is the nominated pair.

Pinned to aiortc 1.16, aioice 0.13 and pylibsrtp 1.0: tests/unit/webrtc/test_upstream.py fails when
the members used here change.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import aioice.ice
from aioice.candidate import candidate_priority
from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceGatherer, RTCIceServer, RTCIceTransport
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters
from aiortc.rtcicetransport import RTCIceParameters
from aiortc.sdp import candidate_from_sdp, candidate_to_sdp

from relay_common.errors import RelayError, Remedy
from relay_worker.webrtc.addresses import default_host_addresses, ip_header, is_near
from relay_worker.webrtc.gso import PacketPath, RelayPath, UdpPath
from relay_worker.webrtc.incoming import FrameHandler, Incoming, PacketHandler
from relay_worker.webrtc.protector import SrtpProtector
from relay_worker.webrtc.refusals import ErrorQueue
from relay_worker.webrtc.sdp import LocalTransport, RemoteTransport

RECEIVE_BUFFER: Final = 1 << 20
"""Receive buffer requested from the kernel, in bytes: a keyframe may arrive while the process waits to run."""

CONNECT_TIMEOUT: Final = 5.0

CHECKS: Final = 8
"""Connectivity checks that a peer has to answer one of, once its port was called unreachable."""
CHECK_EVERY: Final = 0.05
"""Seconds between two of them; aioice gives up on each after half a second (its RETRY_RTO)."""
BETWEEN_CHECKS: Final = 1.0
"""Seconds for which a peer that has answered after it was called unreachable is not checked again."""
_CHECKED_WITHIN: Final = 1.3
"""Seconds that unanswered checks take at most, if this process gets a processor."""
QUIET: Final = 0.3
"""Seconds without a packet from a peer in our own network after which it is checked, unless it is only called
unreachable: what was started again may listen before a packet of ours is refused.
"""


class PeerConnectError(RelayError):
    """The peer could not be reached with this session; `stage` is "ice" or "dtls". A new session is the remedy."""

    remedy = Remedy.REGENERATE

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message, hint="Make a new session; check that UDP to the internet is not blocked")
        self.stage = stage


class _IceInUse:
    """What DTLS reads from and writes to, as its transport: an ICE transport that another may take the place of."""

    def __init__(self, ice: RTCIceTransport) -> None:
        self.ice = ice

    async def _recv(self) -> bytes:
        while True:
            ice = self.ice
            try:
                return await ice._recv()
            except ConnectionError:
                if ice is self.ice:
                    raise

    async def _send(self, data: bytes) -> None:
        await self.ice._send(data)


def _gather_on(connection: aioice.ice.Connection, chosen: list[str]) -> None:
    # aioice gathers on every interface and never on loopback; only the list of addresses has to change.
    gather = connection.get_component_candidates

    async def get_component_candidates(component: int, addresses: list[str], timeout: int = 5) -> Any:
        candidates = await gather(component, chosen, timeout)
        # aioice gives all of one type one priority, which leaves the pair to chance (RFC 8445 §5.1.2.1 wants each
        # its own). Ours stand in the order of the addresses.
        for place, candidate in enumerate(candidates):
            candidate.priority = candidate_priority(component, candidate.type, 65535 - place)
        return candidates

    connection.get_component_candidates = get_component_candidates  # type: ignore[method-assign]


class MediaTransport:
    """One ICE and DTLS association for sending (and, for WebRTC cameras, receiving) media.

    Call `gather`, then `connect` once with the answer; `protector` and `path` exist from then on. `gather_again` and
    `reconnect` restart ICE: DTLS, its keys and all that was sent stay as they are. `on_packet` gets decrypted packets,
    `on_closed` is called once when the peer or ICE consent ends the association. `peer` is what errors call the other
    end. With `on_unanswered` a peer whose port is called unreachable is checked at once, and one in our own network
    after `QUIET` seconds without a packet from it; it is called 0.9 s later when no check was answered, also when
    another process listens there by then. `on_wake` and `on_frames` are for media that comes in, where a wake costs
    more than a packet: see `Incoming`.
    """

    def __init__(
        self,
        *,
        ice_servers: Sequence[RTCIceServer] = (),
        addresses: Sequence[str] | Callable[[], Sequence[str]] = default_host_addresses,
        gso: bool = True,
        peer: str = "the SFU",
        on_unanswered: Callable[[], None] | None = None,
        on_packet: PacketHandler = lambda packet, is_rtcp, now: None,
        on_wake: Callable[[float], None] | None = None,
        on_frames: FrameHandler | None = None,
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        self._servers, self._addresses = list(ice_servers), addresses
        self._in_use = _IceInUse(self._new_ice())
        self._next: RTCIceTransport | None = None
        """That of a restart under way."""
        in_use = cast(RTCIceTransport, self._in_use)
        self._dtls = RTCDtlsTransport(in_use, [RTCCertificate.generateCertificate()])
        self._gso, self._peer = gso, peer
        self.media, self._on_closed = Incoming(on_packet, on_wake, on_frames), on_closed
        self._incoming: socket.socket | None = None
        self._on_unanswered = on_unanswered
        self._watching: asyncio.Task[None] | None = None
        self._errors: ErrorQueue | None = None
        self._checking: asyncio.Task[None] | None = None
        self._closing = False
        self.protector: SrtpProtector | None = None
        self.path: PacketPath | None = None

    @property
    def _connection(self) -> aioice.ice.Connection:
        return self._in_use.ice._connection

    def _new_ice(self) -> RTCIceTransport:
        gatherer = RTCIceGatherer(iceServers=self._servers)
        gatherer._connection.ice_controlling = True
        addresses = self._addresses() if callable(self._addresses) else self._addresses
        _gather_on(gatherer._connection, list(addresses))
        return RTCIceTransport(gatherer)

    async def gather(self) -> LocalTransport:
        """Open the sockets and return our parameters for the offer."""
        return await self._gather(self._in_use.ice)

    async def _gather(self, transport: RTCIceTransport) -> LocalTransport:
        gatherer = transport.iceGatherer
        await gatherer.gather()
        ice = gatherer.getLocalParameters()
        fingerprints = self._dtls.getLocalParameters().fingerprints
        return LocalTransport(
            ice_ufrag=str(ice.usernameFragment),
            ice_pwd=str(ice.password),
            fingerprint=next(f.value for f in fingerprints if f.algorithm == "sha-256"),
            candidates=tuple(candidate_to_sdp(c) for c in gatherer.getLocalCandidates()),
        )

    async def connect(self, remote: RemoteTransport, timeout: float = CONNECT_TIMEOUT) -> None:
        """Run ICE and DTLS within `timeout` seconds. Raises ConnectError; `close` is then still the caller's."""
        stage = "ice"
        try:
            async with asyncio.timeout(timeout):
                await self._connect_ice(self._in_use.ice, remote)
                stage = "dtls"
                await self._connect_dtls(remote)
        except TimeoutError:
            raise PeerConnectError(
                stage, f"no {stage.upper()} connection to {self._peer} within {timeout:g} s"
            ) from None

    async def gather_again(self) -> LocalTransport:
        """Begin an ICE restart: our parameters for it, on the addresses that this machine has now. What is in use stays
        so until `reconnect` has found another path.
        """
        if self._next is not None:
            await self._next.stop()
        self._next = self._new_ice()
        return await self._gather(self._next)

    async def reconnect(self, remote: RemoteTransport, timeout: float = CONNECT_TIMEOUT) -> None:
        """Complete an ICE restart within `timeout` seconds; packets leave by the path that it finds. Raises
        PeerConnectError: what is in use stays so.
        """
        ice, path, before = self._next, self.path, self.ip_header
        assert ice is not None
        try:
            async with asyncio.timeout(timeout):
                await self._connect_ice(ice, remote)
        except TimeoutError:
            raise PeerConnectError("ice", f"no way to {self._peer} after an ICE restart within {timeout:g} s") from None
        pair = self._nominated(ice)
        relayed = pair.protocol.transport.get_extra_info("socket") is None
        if relayed or not isinstance(path, UdpPath) or ip_header(pair.remote_addr[0]) != before:
            raise PeerConnectError("ice", f"the way to {self._peer} is of another kind after an ICE restart")
        replaced, self._in_use.ice, self._next = self._in_use.ice, ice, None
        path.redirect(self._open_socket(pair), pair.remote_addr)
        self._read_media()
        await replaced.stop()

    async def _connect_ice(self, ice: RTCIceTransport, remote: RemoteTransport) -> None:
        for text in remote.candidates:
            try:
                await ice.addRemoteCandidate(candidate_from_sdp(text))
            except (ValueError, AssertionError):
                continue  # a name or a syntax we cannot use; the other candidates may do
        await ice.addRemoteCandidate(None)
        self._expect_open("ice")
        await ice.start(
            RTCIceParameters(usernameFragment=remote.ice_ufrag, password=remote.ice_pwd, iceLite=remote.ice_lite)
        )
        self._expect_open("ice")
        if ice.state != "completed":
            raise PeerConnectError("ice", f"none of the addresses of {self._peer} answered our connectivity checks")

    async def _connect_dtls(self, remote: RemoteTransport) -> None:
        self._dtls._set_role(remote.dtls_role)
        await self._dtls.start(
            RTCDtlsParameters([RTCDtlsFingerprint(algorithm=a, value=v) for a, v in remote.fingerprints])
        )
        self._expect_open("dtls")
        if self._dtls.state != "connected":
            raise PeerConnectError("dtls", "the DTLS handshake failed (certificate, fingerprint or SRTP profile)")
        self.protector = SrtpProtector(self._dtls._tx_srtp)
        self.path = self._open_path(self._nominated(self._in_use.ice))
        self._read_media()
        self._dtls.on("statechange", self._dtls_changed)

    def _read_media(self) -> None:
        chosen = self._nominated(self._in_use.ice).protocol
        for protocol in self._connection._protocols:
            self.media.intercept(protocol, self._dtls._rx_srtp, self._incoming if protocol is chosen else None)
        if self.media.arrivals is not None and self._incoming is not None:
            # The kernel tells whoever came last first: this duplicate of ICE's socket.
            asyncio.get_running_loop().add_reader(self._incoming.fileno(), self.media.arrivals.read)

    @property
    def ip_header(self) -> int:
        """Bytes of the IP header of packets to the peer, once connected. Raises PeerConnectError when ICE has ended."""
        return ip_header(self._nominated(self._in_use.ice).remote_addr[0])

    def _nominated(self, ice: RTCIceTransport) -> aioice.ice.CandidatePair:
        pair = ice._connection._nominated.get(1)
        if pair is None:  # the peer's consent has run out meanwhile, or somebody closes us
            raise PeerConnectError("ice", f"the way to {self._peer} has ended")
        return pair

    def _expect_open(self, stage: str) -> None:
        if self._closing:  # nobody would close what is opened now
            raise PeerConnectError(stage, "the connection was closed while it was made")

    def _open_path(self, pair: aioice.ice.CandidatePair) -> PacketPath:
        transport = pair.protocol.transport
        if transport.get_extra_info("socket") is None:  # a TURN allocation
            return RelayPath(lambda packet: transport.sendto(packet, pair.remote_addr))
        return UdpPath(self._open_socket(pair), pair.remote_addr, gso=self._gso, was_earlier=self._take_errors)

    def _open_socket(self, pair: aioice.ice.CandidatePair) -> socket.socket:
        """A duplicate of the pair's socket: it shares the port, and asyncio's wrapper has no sendmsg and recvfrom."""
        if self._incoming is not None:
            self._stop_reading()
            self._incoming.close()
        self._incoming = pair.protocol.transport.get_extra_info("socket").dup()
        self._incoming.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if self._on_unanswered is not None:
            unreachable = self._errors.unreachable if self._errors is not None else 0
            self._errors = ErrorQueue(self._incoming, pair.remote_addr, lambda: self._refused(pair))
            self._errors.unreachable = unreachable

            def error_received(error: Exception) -> None:
                self._take_errors()

            pair.protocol.error_received = error_received  # type: ignore[method-assign,assignment]
            if self._watching is not None:
                self._watching.cancel()
            self.media.heard = time.monotonic()
            if is_near(str(pair.remote_addr[0])):
                self._watching = asyncio.get_running_loop().create_task(self._watch(pair))
        return self._incoming

    def _stop_reading(self) -> None:
        if self._incoming is not None and self._incoming.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._incoming.fileno())

    def _take_errors(self) -> bool:
        return self._errors is not None and self._errors.take()

    def _refused(self, pair: aioice.ice.CandidatePair) -> None:
        if not self._closing and (self._checking is None or self._checking.done()):
            self._checking = asyncio.get_running_loop().create_task(self._check_refusal(pair))

    async def _check_refusal(self, pair: aioice.ice.CandidatePair) -> None:
        """Whoever can send us a packet can call a port unreachable: only the peer's own silence counts."""
        if await self._check(pair):
            await asyncio.sleep(BETWEEN_CHECKS)  # not at every packet that anybody sends us

    async def _watch(self, pair: aioice.ice.CandidatePair) -> None:
        while True:
            quiet = time.monotonic() - self.media.heard
            if quiet < QUIET:
                await asyncio.sleep(QUIET - quiet)
            elif await self._check(pair):
                self.media.heard = time.monotonic()
            else:
                return

    async def _check(self, pair: aioice.ice.CandidatePair) -> bool:
        """Whether the peer answers one of `CHECKS` connectivity checks; if not, that is reported."""
        began = time.monotonic()
        checks = [asyncio.ensure_future(self._answers(pair, CHECK_EVERY * number)) for number in range(CHECKS)]
        try:
            for answered in asyncio.as_completed(checks):
                if await answered:
                    return True
        finally:
            for check in checks:
                check.cancel()
        # A loop that had to wait for a processor runs timers before it reads: what it found then says nothing.
        waited = time.monotonic() - began > _CHECKED_WITHIN
        in_use = pair.protocol in self._connection._protocols  # also where aioice has nominated another pair since
        unanswered = self.media.heard < began and not waited and in_use
        if unanswered and self._on_unanswered is not None:
            self._on_unanswered()
        return not unanswered

    async def _answers(self, pair: aioice.ice.CandidatePair, after: float) -> bool:
        await asyncio.sleep(after)
        request = self._connection.build_request(pair, nominate=False)
        key = str(self._connection.remote_password).encode()
        try:
            await pair.protocol.request(request, pair.remote_addr, integrity_key=key, retransmissions=0)
        except aioice.stun.TransactionError:
            return False
        return True

    def _dtls_changed(self) -> None:
        if self._dtls.state in ("closed", "failed"):
            self._ended()

    def _ended(self) -> None:
        if not self._closing:
            self._closing = True
            self._on_closed()

    async def close(self) -> None:
        """Send close_notify and release the sockets; safe in any state and more than once."""
        self._closing = True
        for task in (self._checking, self._watching):
            if task is not None:
                task.cancel()
        self._stop_reading()
        await self._dtls.stop()
        for ice in (self._next, self._in_use.ice):
            if ice is not None:
                await ice.stop()
        self._stop_reading()  # before its number is another's
        if isinstance(self.path, UdpPath):
            self.path.close()

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {
            "rejected_packets": self.media.rejected,
            "unreachable": self._errors.unreachable if self._errors is not None else 0,
            "unprotected_packets": self.protector.failures if self.protector is not None else 0,
        }
