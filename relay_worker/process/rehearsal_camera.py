"""The camera of the rehearsal: RTSP over TLS on loopback, H.264 and AAC as Nest cameras send them.

What it plays was recorded from the simulated camera, as far as anybody looks at it: parameter sets, heads of slices, an
access unit of sound. The rest of each picture, which the relay passes on unread, is filled up to the usual size.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from relay_common.clock import Clock
from relay_common.secrets import Secret
from relay_worker.rtp import rtcp
from relay_worker.rtp.h264_packetize import packetize

_HOST: Final = "127.0.0.1"
_FPS: Final = 30
_GOP: Final = 30
"""Pictures from one keyframe to the next."""
_REPORTS: Final = 20
"""Pictures from one sender report to the next."""
_VIDEO_RATE: Final = 90_000
_AUDIO_RATE: Final = 16_000
_UNIT: Final = 1024
"""Samples of an access unit of sound."""
_SPS, _PPS = bytes.fromhex("674d4014da05067e7840000003004000000f03c60ca8"), bytes.fromhex("68ee3c80")
_IDR = bytes.fromhex("6588841ebffc5baaf8e2114c693b") + bytes((0x9B,)) * 12_000
_SLICE = bytes.fromhex("419a22257fd420f67eb1937604be") + bytes((0x9B,)) * 9_000
_SOUND = bytes.fromhex(
    "00e831ad553233fe7fe3eeefffabff9fbe579df3249b924922772440953254c458c24c6116309318953254d987315b34d455"
    "e605ccbbfb0501212c8ba70d9609078210d9fcba27f1978192da0ef3188c479228fefbc5c4482fb5592ae9abb66c8d9acb66"
    "b2d9acbfe2fdcfe57e4fe57e4e759ce759ce4acac98b262c98b262c98b262c98b262c98b262c98b262c98b262c988c28c28c"
    "28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c28c2"
    "8c28c28c28c28c28c28c28c28c28c2bcf3cf3cf3cf3cf3cf3cf3cf3cf3cf3cf3cf3cf3cf3cf3cf3cf3cf3cf3cf3cf3cf3cf3"
    "cf3cc7b8"
)
_SDP: Final = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=rehearsal
t=0 0
a=control:*
m=video 0 RTP/AVP 96
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1; profile-level-id=4D4014
a=control:trackID=0
m=audio 0 RTP/AVP 97
a=rtpmap:97 mpeg4-generic/16000/1
a=fmtp:97 streamtype=5; mode=AAC-hbr; sizelength=13; indexlength=3; indexdeltalength=3; config=140856e500
a=control:trackID=1
""".replace("\n", "\r\n")
_METHODS: Final = "DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN"


class Recording:
    """What the camera writes, and when; it does not end."""

    def __init__(self) -> None:
        self._sequences = [0, 0]

    def writes(self) -> Iterator[tuple[float, bytes]]:
        """Seconds from the start, and interleaved packets (RFC 2326 §10.12)."""
        picture = sounds = 0
        while True:
            at = picture / _FPS
            nals = [_SPS, _PPS, _IDR] if picture % _GOP == 0 else [_SLICE]
            ticks = picture * _VIDEO_RATE // _FPS
            yield at, b"".join(self._rtp(0, payload, ticks, marker) for payload, marker in packetize(nals))
            while sounds * _UNIT <= at * _AUDIO_RATE:
                yield at, self._rtp(1, struct.pack("!HH", 16, len(_SOUND) << 3) + _SOUND, sounds * _UNIT, True)
                sounds += 1
            if picture % _REPORTS == 0:
                yield at, self._report(0, at, _VIDEO_RATE) + self._report(1, at, _AUDIO_RATE)
            picture += 1

    def _rtp(self, track: int, payload: bytes, timestamp: int, marker: bool) -> bytes:
        self._sequences[track] += 1
        second, number = marker << 7 | 96 + track, self._sequences[track] & 0xFFFF
        return _framed(2 * track, struct.pack("!BBHII", 0x80, second, number, timestamp, 1 + track) + payload)

    def _report(self, track: int, at: float, rate: int) -> bytes:
        sent = self._sequences[track]
        return _framed(
            2 * track + 1, rtcp.pack_sender_report(1 + track, rtcp.ntp_time(at), round(at * rate), sent, 1000 * sent)
        )


def _framed(channel: int, packet: bytes) -> bytes:
    return struct.pack("!cBH", b"$", channel, len(packet)) + packet


class RehearsedCamera:
    """Plays the recording to whoever connects. Its certificate, which `ca_file` is the authority of, and its key are
    files in `directory`.
    """

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._clock = clock
        self.ca_file, key_file = directory / "camera.pem", directory / "camera-key.pem"
        _certify(self.ca_file, key_file, datetime.datetime.fromtimestamp(clock.wall(), datetime.UTC))
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(key_file)
        self._clients: set[asyncio.Task[None]] = set()
        self.url = Secret("")

    async def start(self) -> None:
        """Listen on a port that the kernel chooses."""
        self._server = await asyncio.start_server(self._serve, _HOST, 0, ssl=self._tls)
        self.url = Secret(f"rtsps://{_HOST}:{self._server.sockets[0].getsockname()[1]}/rehearsal")

    async def stop(self) -> None:
        """Close the port and all connections."""
        self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.current_task()
        assert client is not None
        self._clients.add(client)
        playing: asyncio.Task[None] | None = None
        try:
            while (request := await _request(reader)) is not None:
                method, fields = request
                writer.write(self._response(method, fields))
                if method == "PLAY":
                    playing = asyncio.create_task(self._play(writer))
        finally:
            if playing is not None:
                playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)
            writer.close()

    def _response(self, method: str, fields: dict[str, str]) -> bytes:
        lines = ["RTSP/1.0 200 OK", f"CSeq: {fields['cseq']}", "Session: 1;timeout=60"]
        if method == "OPTIONS":
            lines.append(f"Public: {_METHODS}")
        elif method == "SETUP":
            lines.append(f"Transport: {fields['transport']}")
        body = _SDP if method == "DESCRIBE" else ""
        if body:
            lines += [f"Content-Base: {self.url.reveal()}/", "Content-Type: application/sdp"]
            lines.append(f"Content-Length: {len(body)}")
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    async def _play(self, writer: asyncio.StreamWriter) -> None:
        began = self._clock.now()
        for at, data in Recording().writes():
            await self._clock.sleep(max(0.0, began + at - self._clock.now()))
            writer.write(data)


async def _request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]] | None:
    """The next request's method and header fields; packets in front of it are passed over. None: it has closed."""
    while (first := await reader.read(1)) == b"$":
        head = await reader.readexactly(3)
        await reader.readexactly(int.from_bytes(head[1:], "big"))
    if not first:
        return None
    start, *lines = (first + await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = (line.partition(":") for line in lines if line)
    return start.split()[0], {name.lower(): value.strip() for name, _, value in fields}


def _certify(ca_file: Path, key_file: Path, now: datetime.datetime) -> None:
    """A key and a certificate of an hour, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rehearsal")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(_HOST))]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    ca_file.write_bytes(certificate)
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key_file.touch(mode=0o600)
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain) + certificate)
