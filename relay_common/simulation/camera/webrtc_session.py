"""One client of a WebRTC camera: ICE-lite, DTLS as server, SRTP, and handling of its RTCP."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable
from typing import Any, Final, Protocol

from pylibsrtp._binding import lib

from relay_common.simulation.camera.camera import Camera
from relay_common.simulation.camera.media import OPUS_RATE
from relay_common.simulation.camera.packetizer import VIDEO_CLOCK_RATE
from relay_common.simulation.camera.webrtc_player import WebRtcPlayer
from relay_common.simulation.camera.webrtc_sdp import Answer, Offer
from relay_common.simulation.camera.webrtc_track import OutgoingTrack, Packet
from relay_common.simulation.sfu import rtcp as sfu_rtcp
from relay_common.simulation.sfu.dtls import DtlsIdentity, DtlsServer
from relay_common.simulation.sfu.ice import Address, IceLite

_HEADER: Final = struct.Struct("!BBHII")
_PADDED: Final = 0xA0
_VERSION: Final = 0x80
_NACKS: Final = 512
"""Packets that one NACK may ask for."""


class Port(Protocol):
    """The shared UDP port as a session sees it; packets are built and protected in place in `scratch`."""

    scratch: memoryview
    scratch_pointer: Any
    length: Any

    def send(self, datagram: bytes | memoryview, address: Address) -> None:
        """Send one datagram."""
        ...

    def ended(self, session: WebRtcSession) -> None:
        """Forget the session."""
        ...


class WebRtcSession:
    """A session with one client. `key` names the stream; `expires` returns its end (wall clock), 0 once stopped.

    The port calls `receive_*`. Once `connected` is set, call `start` to play.
    """

    def __init__(
        self,
        port: Port,
        camera: Camera,
        key: str,
        offer: Offer,
        ice: IceLite,
        identity: DtlsIdentity,
        expires: Callable[[], float],
    ) -> None:
        self._port, self.camera, self.key, self.expires = port, camera, key, expires
        self.ice, self.dtls = ice, DtlsServer(identity)
        self.ice.remote_ufrag = offer.audio.ufrag
        self.dtls.fingerprints = offer.audio.fingerprints
        self.player: WebRtcPlayer | None = None
        self.last_check: float | None = None
        self.closed = False
        self.connected = asyncio.Event()
        self._inbound: Any = None
        self._outbound: Any = None
        self._last_request: float | None = None
        self._last_fir: int | None = None

    def start(self, answer: Answer, *, now: float, wall: float, rng: random.Random) -> WebRtcPlayer:
        """Start playing; the camera's live media must be prepared."""
        settings = self.camera.settings
        position = wall - (settings.video.phase if settings.phase is None else settings.phase)
        audio = OutgoingTrack(answer.audio, OPUS_RATE, rng, position) if answer.audio else None
        video = OutgoingTrack(answer.video, VIDEO_CLOCK_RATE, rng, position)
        self.player = WebRtcPlayer(self, self.camera, video, audio, now=now, position=position, wall=wall, rng=rng)
        return self.player

    # -- the camera's view of it --------------------------------------------------------------------------------

    def reset(self) -> None:
        """Stop silently: nothing is sent, no check is answered."""
        self._finish("reset", goodbye=False)

    def cut(self, reason: str) -> None:
        """End it as the camera's `goodbye` habit says."""
        self._finish(reason, goodbye=self.camera.habits.goodbye)

    def jump(self, seconds: float, track: str) -> None:
        """Move RTP timestamps."""
        if self.player:
            self.player.jump(seconds, track)

    def check_expiry(self, wall: float) -> None:
        """End now if the stream has ended."""
        expires = self.expires()
        if expires <= wall:
            self.cut("expired" if expires else "stopped")

    def _finish(self, reason: str, *, goodbye: bool) -> None:
        if self.closed:
            return
        self.closed = True
        if self.player:
            self.player.closed = True
        if goodbye:
            self.dtls.close()
            self._flush_dtls()
        self._inbound = self._outbound = None
        cut = self.camera.counters.cut
        cut[reason] = cut.get(reason, 0) + 1
        self.camera.sessions.discard(self)
        self._port.ended(self)

    # -- in -----------------------------------------------------------------------------------------------------

    def receive_check(self, datagram: bytes, source: Address, now: float) -> bool:
        """Answer a STUN binding request; returns whether it was valid."""
        answered = self.ice.answered
        response = self.ice.receive(datagram, source)
        if response is not None:
            self._port.send(response, source)
        if self.ice.answered == answered:
            return False
        self.camera.webrtc.checks += 1
        self.last_check = now
        return True

    def receive_dtls(self, datagram: bytes) -> None:
        """Advance the handshake, or end the session if the client has closed."""
        self.dtls.receive(datagram)
        self._flush_dtls()
        if self.dtls.closed:
            self.camera.webrtc.failures += bool(self.dtls.failure)
            self._finish("failed" if self.dtls.failure else "closed by client", goodbye=False)
        elif self.dtls.srtp is not None and not self.connected.is_set():
            self._inbound, self._outbound = (session._srtp[0] for session in self.dtls.srtp)
            self.camera.webrtc.connected += 1
            self.connected.set()

    def retransmit_dtls(self) -> None:
        """Retransmit the last flight if its timer has expired."""
        self.dtls.poll()
        self._flush_dtls()

    def _flush_dtls(self) -> None:
        for datagram in self.dtls.outgoing():
            if self.ice.remote is not None:
                self._port.send(datagram, self.ice.remote)

    def receive_rtcp(self, buffer: memoryview, pointer: Any, arrived: float) -> None:
        """Take an SRTCP packet; `pointer` is the C address of `buffer`, which is decrypted in place."""
        length = self._port.length
        length[0] = len(buffer)
        if self._inbound is None or lib.srtp_unprotect_rtcp(self._inbound, pointer, length):
            self.camera.webrtc.malformed += 1
            return
        counters = self.camera.webrtc
        requested: list[bool] = []
        for kind, count, body in sfu_rtcp.packets(buffer[: length[0]]):
            if kind == sfu_rtcp.RR:
                counters.receiver_reports += 1
                for block in range(4, len(body) - 23, 24):
                    lost = int.from_bytes(body[block + 5 : block + 8], "big", signed=True)
                    counters.reported_lost = max(counters.reported_lost, lost)
            elif kind == sfu_rtcp.PSFB:
                requested += self._receive_payload_feedback(count, body)
            elif kind == sfu_rtcp.RTPFB and count == sfu_rtcp.FMT_NACK and len(body) >= 8:
                self._repeat(body)
        if requested:
            self._request_keyframe(parameter_sets=any(requested), arrived=arrived)

    def _receive_payload_feedback(self, fmt: int, body: memoryview) -> list[bool]:
        """Count PLI, FIR and REMB; returns for each keyframe request whether it asks for parameter sets."""
        counters = self.camera.webrtc
        if fmt == sfu_rtcp.FMT_PLI:
            counters.plis += 1
            return [False]
        if fmt == sfu_rtcp.FMT_FIR and len(body) >= 16:
            number = body[12]
            # RFC 5104 4.3.1.1: the same number means a repetition of the same request.
            if self._last_fir is not None and not 0 < (number - self._last_fir) & 0xFF < 128:
                counters.firs_repeated += 1
                return []
            self._last_fir = number
            counters.firs += 1
            return [True]
        if fmt == sfu_rtcp.FMT_APP and len(body) >= 16 and bytes(body[8:12]) == b"REMB":
            counters.rembs += 1
            counters.remb_bitrate = ((body[13] & 3) << 16 | body[14] << 8 | body[15]) << (body[13] >> 2)
            if self.player:
                self.player.set_bitrate(counters.remb_bitrate)
        return []

    def _request_keyframe(self, *, parameter_sets: bool, arrived: float) -> None:
        counters = self.camera.webrtc
        counters.requests += 1
        if self._last_request is not None:
            gap = arrived - self._last_request
            counters.request_gap = round(min(gap, counters.request_gap or gap), 3)
        self._last_request = arrived
        if self.player:
            self.player.request_keyframe(parameter_sets=parameter_sets)

    def _repeat(self, body: memoryview) -> None:
        (media,) = struct.unpack_from("!I", body, 4)
        for sequence in sfu_rtcp.nacked(body)[:_NACKS]:
            self.camera.webrtc.nacked += 1
            if self.player and self.player.repeat(media, sequence):
                self.camera.webrtc.retransmitted += 1
            else:
                self.camera.webrtc.unanswered += 1

    # -- out ----------------------------------------------------------------------------------------------------

    def send_rtp(self, packet: Packet) -> None:
        """Protect and send."""
        payload, padding = packet.payload, packet.padding
        size = 12 + len(payload) + padding
        scratch = self._port.scratch
        _HEADER.pack_into(
            scratch,
            0,
            _PADDED if padding else _VERSION,
            packet.second_byte,
            packet.sequence,
            packet.timestamp,
            packet.ssrc,
        )
        scratch[12 : 12 + len(payload)] = payload
        if padding:
            scratch[size - padding : size] = bytes(padding - 1) + bytes([padding])
        self._protect_and_send(lib.srtp_protect, size)

    def send_rtcp(self, compound: bytes) -> None:
        """Protect and send."""
        self._port.scratch[: len(compound)] = compound
        self._protect_and_send(lib.srtp_protect_rtcp, len(compound))

    def send_noise(self, datagram: bytes) -> None:
        """Send bytes that are not a packet."""
        if self.ice.remote is not None:
            self._port.send(datagram, self.ice.remote)

    def _protect_and_send(self, protect: Callable[[Any, Any, Any], int], size: int) -> None:
        port = self._port
        port.length[0] = size
        if self._outbound is None or self.ice.remote is None:
            return
        if protect(self._outbound, port.scratch_pointer, port.length):
            self.camera.webrtc.failures += 1
        else:
            port.send(port.scratch[: port.length[0]], self.ice.remote)
