"""ICE, DTLS and SRTP by aiortc, used the ORTC way; the one file that touches private members of its stack.

`MediaTransport` gathers, connects to the answer's address and hands decrypted RTCP and RTP to a callback in the same
turn of the loop. Outgoing packets are protected in place by libsrtp (`SrtpProtector`) and leave through a duplicate of
ICE's own socket (`gso.UdpPath`), or through the TURN relay when that is the nominated pair.

Pinned to aiortc 1.16, aioice 0.13 and pylibsrtp 1.0: tests/unit/webrtc/test_upstream.py fails when
the members used here change.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import aioice.ice
import pylibsrtp
from aioice.candidate import candidate_priority
from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceGatherer, RTCIceServer, RTCIceTransport
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters
from aiortc.rtcicetransport import RTCIceParameters
from aiortc.sdp import candidate_from_sdp, candidate_to_sdp
from pylibsrtp._binding import ffi, lib

from relay_common.errors import RelayError, Remedy
from relay_worker import native
from relay_worker.webrtc.gso import PacketPath, RelayPath, UdpPath
from relay_worker.webrtc.prepared import PreparedPackets
from relay_worker.webrtc.refusals import ErrorQueue
from relay_worker.webrtc.sdp import LocalTransport, RemoteTransport

SLOTS: Final = 16
"""Packets that can be prepared before they are sent."""
SLOT_SIZE: Final = 1536
TRAILER: Final = 16
"""Longest authentication tag of the profiles aiortc negotiates (RFC 7714)."""

IPV4_HEADER: Final = 20
IPV6_HEADER: Final = 40

MAX_READS: Final = 64
"""Datagrams read per wake-up: the loop has other things to do."""
MAX_DATAGRAM: Final = 2048
RECEIVE_BUFFER: Final = 1 << 20
"""Receive buffer requested from the kernel, in bytes: a keyframe may arrive while the process waits to run."""

CONNECT_TIMEOUT: Final = 5.0

CHECKS: Final = 8
"""Connectivity checks that a peer has to answer one of, once its port was called unreachable."""
CHECK_EVERY: Final = 0.05
"""Seconds between two of them; aioice gives up on each after half a second (its RETRY_RTO)."""
BETWEEN_CHECKS: Final = 1.0
"""Seconds for which a peer that has answered is not checked again."""
_PROTECT: Final = "srtp_err_status_t(*)(struct srtp_ctx_t_ *, void *, int *)"
"""The type of libsrtp's function that compiled code calls by its address; another is not called."""

# The route to these addresses shows the outgoing interface; connecting a UDP socket sends nothing.
_OUTSIDE: Final = ((socket.AF_INET, "1.1.1.1"), (socket.AF_INET6, "2606:4700:4700::1111"))

PacketHandler = Callable[[bytes, bool, float], None]
"""Called with a decrypted packet, whether it is RTCP, and the monotonic time of arrival."""


class PeerConnectError(RelayError):
    """The peer could not be reached with this session; `stage` is "ice" or "dtls". A new session is the remedy."""

    remedy = Remedy.REGENERATE

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message, hint="Make a new session; check that UDP to the internet is not blocked")
        self.stage = stage


class SrtpProtector:
    """Encrypts in place: a caller writes a plain packet into `buffer` at a slot and calls `protect`.

    Slots are aligned and have room for the tag, as libsrtp requires; one foreign call per packet, no copies.
    """

    def __init__(self, session: pylibsrtp.Session) -> None:
        # Foreign code holds the bytearray, never a view of it: CPython's collector takes views apart that are held, and
        # a process ends by SIGSEGV when such a view is freed (seen with 3.11.7 under a protector in a cycle).
        self._raw = bytearray(SLOTS * SLOT_SIZE)
        self.buffer = memoryview(self._raw)
        self.slots = tuple(self.buffer[i * SLOT_SIZE : (i + 1) * SLOT_SIZE] for i in range(SLOTS))
        base = ffi.from_buffer(self._raw)
        self._pointers = tuple(base + i * SLOT_SIZE for i in range(SLOTS))
        self._base = base  # keeps the buffer alive for the pointers
        self._session = session  # owns the context
        self._context = session._srtp[0]
        self._length = ffi.new("int *")
        self._protect = lib.srtp_protect
        self.failures = 0
        """Packets that libsrtp refused to encrypt."""
        self.prepared = self._prepare()
        """The same slots for compiled code; None where that is not in use."""

    def _prepare(self) -> PreparedPackets | None:
        compiled, function = native.compiled(), ffi.addressof(lib, "srtp_protect")
        if compiled is None or ffi.getctype(ffi.typeof(function)) != _PROTECT:
            return None
        protect, context = (int(ffi.cast("uintptr_t", pointer)) for pointer in (function, self._context))
        slots = compiled.Slots(self._raw, SLOT_SIZE, TRAILER, protect, context, self._session)
        return PreparedPackets(slots, self.slots)

    def protect(self, slot: int, length: int) -> int:
        """Encrypt the RTP packet of `length` bytes in `slot`; its new length, or 0 when libsrtp refused (counted)."""
        self._length[0] = length
        if self._protect(self._context, self._pointers[slot], self._length):
            self.failures += 1
            return 0
        return int(self._length[0])

    def protect_rtcp(self, packet: bytes) -> bytes:
        """Encrypt a compound RTCP packet of at most 1300 bytes."""
        protected: bytes = self._session.protect_rtcp(packet)
        return protected


def default_host_addresses(*, loopback: bool = False, loopback_too: bool = False) -> list[str]:
    """Addresses worth a host candidate: those of the default route, else all there are, else loopback.

    ICE-lite peers only answer; a candidate of a bridge or VPN interface costs connection attempts (GOODVOICE DR-8).
    `loopback` is for simulators on this machine, and leaves only 127.0.0.1; `loopback_too` adds it.
    """
    if loopback:
        return ["127.0.0.1"]
    addresses = [address for family, outside in _OUTSIDE if (address := _source_address(family, outside))]
    addresses = addresses or aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=True)
    addresses = addresses or ["127.0.0.1"]
    return ["127.0.0.1", *addresses] if loopback_too and "127.0.0.1" not in addresses else addresses


def _source_address(family: socket.AddressFamily, outside: str) -> str:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((outside, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""


class MediaTransport:
    """One ICE and DTLS association for sending (and, for WebRTC cameras, receiving) media.

    Call `gather`, then `connect` once with the answer; `protector` and `path` exist from then on. `on_packet` gets
    decrypted packets, `on_closed` is called once when the peer or ICE consent ends the association. `peer` is what
    errors call the other end. With `notice_refusals` a peer whose port is called unreachable is checked at once, and
    the association has ended unless it answers: 0.9 s later, also when another process listens there by then. With
    `on_wake` each wake reads all that has arrived (at most 64 packets), and `on_wake` is called after the last: for
    media that comes in, where a wake costs more than a packet.
    """

    def __init__(
        self,
        *,
        ice_servers: Sequence[RTCIceServer] = (),
        addresses: Sequence[str] | None = None,
        gso: bool = True,
        peer: str = "the SFU",
        notice_refusals: bool = False,
        on_packet: PacketHandler = lambda packet, is_rtcp, now: None,
        on_wake: Callable[[float], None] | None = None,
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        self._gatherer = RTCIceGatherer(iceServers=list(ice_servers))
        self._connection = self._gatherer._connection
        self._connection.ice_controlling = True
        self._gather_on(list(addresses) if addresses is not None else default_host_addresses())
        self._ice = RTCIceTransport(self._gatherer)
        self._dtls = RTCDtlsTransport(self._ice, [RTCCertificate.generateCertificate()])
        self._gso, self._peer = gso, peer
        self._on_packet, self._on_wake, self._on_closed = on_packet, on_wake, on_closed
        self._incoming: socket.socket | None = None
        self._notice_refusals = notice_refusals
        self._errors: ErrorQueue | None = None
        self._checking: asyncio.Task[None] | None = None
        self._closing = False
        self.protector: SrtpProtector | None = None
        self.path: PacketPath | None = None
        self.rejected_packets = 0

    def _gather_on(self, chosen: list[str]) -> None:
        # aioice gathers on every interface and never on loopback; only the list of addresses has to change.
        gather = self._connection.get_component_candidates

        async def get_component_candidates(component: int, addresses: list[str], timeout: int = 5) -> Any:
            candidates = await gather(component, chosen, timeout)
            # aioice gives all of one type one priority, which leaves the pair to chance (RFC 8445 §5.1.2.1 wants each
            # its own). Ours stand in the order of the addresses.
            for place, candidate in enumerate(candidates):
                candidate.priority = candidate_priority(component, candidate.type, 65535 - place)
            return candidates

        self._connection.get_component_candidates = get_component_candidates  # type: ignore[method-assign]

    async def gather(self) -> LocalTransport:
        """Open the sockets and return our parameters for the offer."""
        await self._gatherer.gather()
        ice = self._gatherer.getLocalParameters()
        fingerprints = self._dtls.getLocalParameters().fingerprints
        return LocalTransport(
            ice_ufrag=str(ice.usernameFragment),
            ice_pwd=str(ice.password),
            fingerprint=next(f.value for f in fingerprints if f.algorithm == "sha-256"),
            candidates=tuple(candidate_to_sdp(c) for c in self._gatherer.getLocalCandidates()),
        )

    async def connect(self, remote: RemoteTransport, timeout: float = CONNECT_TIMEOUT) -> None:
        """Run ICE and DTLS within `timeout` seconds. Raises ConnectError; `close` is then still the caller's."""
        stage = "ice"
        try:
            async with asyncio.timeout(timeout):
                await self._connect_ice(remote)
                stage = "dtls"
                await self._connect_dtls(remote)
        except TimeoutError:
            raise PeerConnectError(
                stage, f"no {stage.upper()} connection to {self._peer} within {timeout:g} s"
            ) from None

    async def _connect_ice(self, remote: RemoteTransport) -> None:
        for text in remote.candidates:
            try:
                await self._ice.addRemoteCandidate(candidate_from_sdp(text))
            except (ValueError, AssertionError):
                continue  # a name or a syntax we cannot use; the other candidates may do
        await self._ice.addRemoteCandidate(None)
        await self._ice.start(
            RTCIceParameters(usernameFragment=remote.ice_ufrag, password=remote.ice_pwd, iceLite=remote.ice_lite)
        )
        if self._ice.state != "completed":
            raise PeerConnectError("ice", f"none of the addresses of {self._peer} answered our connectivity checks")

    async def _connect_dtls(self, remote: RemoteTransport) -> None:
        self._dtls._set_role(remote.dtls_role)
        await self._dtls.start(
            RTCDtlsParameters([RTCDtlsFingerprint(algorithm=a, value=v) for a, v in remote.fingerprints])
        )
        if self._dtls.state != "connected":
            raise PeerConnectError("dtls", "the DTLS handshake failed (certificate, fingerprint or SRTP profile)")
        pair = self._connection._nominated[1]
        self.protector = SrtpProtector(self._dtls._tx_srtp)
        self.path = self._open_path(pair)
        for protocol in self._connection._protocols:
            self._intercept(protocol, self._dtls._rx_srtp, self._incoming if protocol is pair.protocol else None)
        self._dtls.on("statechange", self._dtls_changed)

    @property
    def ip_header(self) -> int:
        """Bytes of the IP header of packets to the peer, once connected."""
        return IPV6_HEADER if ":" in self._connection._nominated[1].remote_addr[0] else IPV4_HEADER

    def _open_path(self, pair: aioice.ice.CandidatePair) -> PacketPath:
        transport = pair.protocol.transport
        shared = transport.get_extra_info("socket")
        if shared is None:  # a TURN allocation
            return RelayPath(lambda packet: transport.sendto(packet, pair.remote_addr))
        # A duplicate shares the port, and unlike asyncio's wrapper it has sendmsg and recvfrom.
        self._incoming = shared.dup()
        self._incoming.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if not self._notice_refusals:
            return UdpPath(self._incoming, pair.remote_addr, gso=self._gso)
        self._errors = errors = ErrorQueue(self._incoming, pair.remote_addr, lambda: self._refused(pair))

        def error_received(error: Exception) -> None:
            errors.take()

        pair.protocol.error_received = error_received  # type: ignore[method-assign,assignment]
        return UdpPath(self._incoming, pair.remote_addr, gso=self._gso, was_earlier=errors.take)

    def _refused(self, pair: aioice.ice.CandidatePair) -> None:
        if not self._closing and (self._checking is None or self._checking.done()):
            self._checking = asyncio.get_running_loop().create_task(self._check(pair))

    async def _check(self, pair: aioice.ice.CandidatePair) -> None:
        """End the association unless the peer answers: whoever can send us a packet can call a port unreachable."""
        checks = [asyncio.ensure_future(self._answers(pair, CHECK_EVERY * number)) for number in range(CHECKS)]
        try:
            for answered in asyncio.as_completed(checks):
                if await answered:
                    await asyncio.sleep(BETWEEN_CHECKS)  # not at every packet that anybody sends us
                    return
        finally:
            for check in checks:
                check.cancel()
        self._ended()

    async def _answers(self, pair: aioice.ice.CandidatePair, after: float) -> bool:
        await asyncio.sleep(after)
        request = self._connection.build_request(pair, nominate=False)
        key = str(self._connection.remote_password).encode()
        try:
            await pair.protocol.request(request, pair.remote_addr, integrity_key=key, retransmissions=0)
        except aioice.stun.TransactionError:
            return False
        return True

    def _intercept(
        self, protocol: aioice.ice.StunProtocol, session: pylibsrtp.Session, incoming: socket.socket | None
    ) -> None:
        """Read media directly from the socket, and further packets from `incoming`; STUN and DTLS are passed on to ICE,
        without a queue and a task in between.

        Each socket is read: aioice nominates every pair that it checks (RFC 5245 §8.1.1.2), and a peer with as many
        addresses as we have, such as pion, sends by way of the one that it likes best, not of the one that we took.
        """
        others = protocol.datagram_received

        def take(data: bytes, address: tuple[Any, ...], now: float) -> None:
            if not data or not 128 <= data[0] <= 191:
                others(data, address)
                return
            is_rtcp = len(data) > 1 and 192 <= data[1] <= 223  # RFC 5761 §4
            try:
                plain = session.unprotect_rtcp(data) if is_rtcp else session.unprotect(data)
            except (pylibsrtp.Error, ValueError):
                self.rejected_packets += 1
                return
            self._on_packet(plain, is_rtcp, now)

        def datagram_received(data: bytes, address: tuple[Any, ...]) -> None:
            now = time.monotonic()
            take(data, address, now)
            if self._on_wake is None:
                return
            for _ in range(MAX_READS - 1 if incoming is not None else 0):
                assert incoming is not None
                try:
                    more, sender = incoming.recvfrom(MAX_DATAGRAM)
                except OSError:  # nothing more to read, or the socket is closed
                    break
                take(more, sender, now)
            self._on_wake(now)

        protocol.datagram_received = datagram_received  # type: ignore[method-assign,assignment]

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
        if self._checking is not None:
            self._checking.cancel()
        await self._dtls.stop()
        await self._ice.stop()
        if isinstance(self.path, UdpPath):
            self.path.close()

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {
            "rejected_packets": self.rejected_packets,
            "unreachable": self._errors.unreachable if self._errors is not None else 0,
            "unprotected_packets": self.protector.failures if self.protector is not None else 0,
        }
