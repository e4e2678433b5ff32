"""The server in front of all WebRTC cameras: one UDP port, and a task per session."""

from __future__ import annotations

import asyncio
import random
import socket
import string
import struct
from collections.abc import Callable
from typing import Final

from pylibsrtp._binding import ffi

from relay_common.clock import Clock, SystemClock
from relay_common.simulation.camera.camera import Camera
from relay_common.simulation.camera.faults import FaultKind
from relay_common.simulation.camera.pump import Pump
from relay_common.simulation.camera.webrtc_sdp import Answer, Transport, make_answer, read_offer
from relay_common.simulation.camera.webrtc_session import WebRtcSession
from relay_common.simulation.sfu.dtls import DtlsIdentity
from relay_common.simulation.sfu.ice import Address, IceLite, local_ufrag

_PROFILES: Final = "SRTP_AEAD_AES_128_GCM:SRTP_AES128_CM_SHA1_80"
_CONNECTIVITY_TIMEOUT: Final = 30.0
"""Seconds without a connectivity check after which a client counts as gone (RFC 7675 5.1)."""
_LOOK_INTERVAL: Final = 5.0
_BUFFER: Final = 2048
_READS_PER_WAKE: Final = 256
_SOCKET_BUFFER: Final = 4 << 20
_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("=qq")
_ALPHABET: Final = string.ascii_letters + string.digits + "+/"


class WebRtcEdge:
    """All WebRTC cameras' sessions on one socket, distinguished by ufrag, then by the address that passed a check."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, clock: Clock | None = None, seed: int = 0) -> None:
        self.host, self.port = host, port
        self.unknown = self.unsent = 0
        buffer, scratch = bytearray(_BUFFER), bytearray(_BUFFER)
        self._buffer, self._pointer = memoryview(buffer), ffi.from_buffer(buffer)
        self.scratch, self.scratch_pointer = memoryview(scratch), ffi.from_buffer(scratch)
        self.length = ffi.new("int *")
        self._clock = clock or SystemClock()
        self._rng = random.Random(f"{seed}/webrtc")
        self._identity = DtlsIdentity(_PROFILES)
        self._by_ufrag: dict[str, WebRtcSession] = {}
        self._by_address: dict[Address, WebRtcSession] = {}
        self._lives: dict[WebRtcSession, asyncio.Task[None]] = {}
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Bind and start reading in the running loop; raises OSError when the port is taken."""
        self._loop = asyncio.get_running_loop()
        self._pump = Pump(self._loop)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER)
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            sock.bind((self.host, self.port))
        except OSError:
            sock.close()
            raise
        self._socket, self.port = sock, sock.getsockname()[1]
        self._loop.add_reader(sock, self._readable)

    async def close(self) -> None:
        """Stop sending at once."""
        if self._socket is None:
            return
        self._pump.close()
        lives = list(self._lives.values())
        for session in list(self._lives):
            session.reset()
        await asyncio.gather(*lives, return_exceptions=True)
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._socket = None

    def answer(self, camera: Camera, offer_sdp: str, key: str, expires: Callable[[], float]) -> str:
        """Start a session of `camera` for stream `key`, which lives until `expires()`; returns the answer's text.

        Raises OfferError for an offer that Google would refuse.
        """
        offer = read_offer(offer_sdp, lenient=camera.habits.lenient)
        transport = Transport(self._token(16), self._token(24), self._identity.fingerprint, self.host, self.port)
        now = self._loop.time()
        answer = make_answer(
            offer,
            camera.habits,
            transport,
            (self._rng.getrandbits(32), self._rng.getrandbits(32), self._rng.getrandbits(32)),
            has_audio=camera.settings.audio is not None and not camera.faults.get(FaultKind.NO_AUDIO, now),
            parameter_sets=camera.live_video(now).sprop if camera.habits.sprop else "",
        )
        ice = IceLite(transport.ufrag, transport.pwd)
        session = WebRtcSession(self, camera, key, offer, ice, self._identity, expires)
        if camera.habits.one_client:
            for other in [one for one in self._lives if one.camera is camera]:
                other.cut("replaced")
        camera.sessions.add(session)
        camera.webrtc.sessions += 1
        self._by_ufrag[transport.ufrag] = session
        self._lives[session] = asyncio.create_task(self._live(session, answer), name=f"webrtc {camera.name}")
        return answer.text

    def recheck(self, key: str) -> None:
        """End the session of stream `key` if the stream has ended (for streams stopped before they expire)."""
        for session in list(self._lives):
            if session.key == key:
                session.check_expiry(self._clock.wall())

    def ended(self, session: WebRtcSession) -> None:
        """Forget the session."""
        self._by_ufrag.pop(session.ice.ufrag, None)
        self._by_address = {a: s for a, s in self._by_address.items() if s is not session}
        life = self._lives.pop(session, None)
        if life is not None and life is not asyncio.current_task():
            life.cancel()

    async def _live(self, session: WebRtcSession, answer: Answer) -> None:
        playing = asyncio.create_task(self._play(session, answer))
        try:
            while not session.closed:
                await asyncio.sleep(max(0.0, min(_LOOK_INTERVAL, session.expires() - self._clock.wall())))
                session.check_expiry(self._clock.wall())
                if session.last_check and self._loop.time() - session.last_check > _CONNECTIVITY_TIMEOUT:
                    session.cut("client gone")
        finally:
            playing.cancel()

    async def _play(self, session: WebRtcSession, answer: Answer) -> None:
        camera = session.camera
        await asyncio.to_thread(camera.prepare_live)
        await session.connected.wait()
        warm_up = camera.faults.get(FaultKind.SLOW_DESCRIBE, self._loop.time())
        await asyncio.sleep(warm_up["delay"] if warm_up else camera.settings.describe_delay)
        now, wall = self._loop.time(), self._clock.wall()
        self._pump.add(session.start(answer, now=now, wall=wall, rng=self._rng))

    def _token(self, size: int) -> str:
        return "".join(self._rng.choices(_ALPHABET, k=size))

    # -- in and out ---------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        now = self._loop.time()
        for _ in range(_READS_PER_WAKE):
            if self._socket is None:
                return
            try:
                size, ancillary, _, source = self._socket.recvmsg_into([self._buffer], 64)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error for something sent earlier
            if size:
                self._receive(self._buffer[:size], source, now, self._arrival(ancillary))

    def _arrival(self, ancillary: list[tuple[int, int, bytes]]) -> float:
        """When a datagram arrived, by the kernel (Unix seconds): it may be read late."""
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(data)
                return float(seconds + nanoseconds / 1e9)
        return self._clock.wall()

    def _receive(self, datagram: memoryview, source: Address, now: float, arrived: float) -> None:
        """Demultiplex STUN, DTLS and RTCP by the first bytes (RFC 7983, RFC 5761 4)."""
        first = datagram[0]
        if first < 4:
            session = self._by_ufrag.get(local_ufrag(bytes(datagram)) or "")
            if session is None:
                self.unknown += 1
            elif session.receive_check(bytes(datagram), source, now):
                self._by_address[source] = session
            return
        session = self._by_address.get(source)
        if session is None:
            self.unknown += 1
        elif 19 < first < 64:
            session.receive_dtls(bytes(datagram))
            self._await_dtls(session)
        elif 127 < first < 192 and len(datagram) >= 8 and 192 <= datagram[1] <= 223:
            session.receive_rtcp(datagram, self._pointer, arrived)
        else:
            session.camera.webrtc.malformed += 1

    def send(self, datagram: bytes | memoryview, address: Address) -> None:
        """Send one datagram; if the socket does not accept it now, it is lost and counted."""
        try:
            assert self._socket is not None
            self._socket.sendto(datagram, address)
        except OSError:
            self.unsent += 1

    def _await_dtls(self, session: WebRtcSession) -> None:
        delay = session.dtls.next_deadline()
        if delay is not None and not session.closed:
            self._loop.call_later(delay + 0.001, self._retransmit_dtls, session)

    def _retransmit_dtls(self, session: WebRtcSession) -> None:
        delay = session.dtls.next_deadline()
        if self._socket is not None and not session.closed and delay is not None and delay <= 0.001:
            session.retransmit_dtls()
            self._await_dtls(session)
