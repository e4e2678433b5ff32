"""Generated streams: URLs, rotating tokens, expiry."""

from __future__ import annotations

import base64
import datetime
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from relay_common.simulation.google.devices import Device


@dataclass
class Stream:
    """One stream; `expires_at` in seconds since the Unix epoch, 0 once stopped."""

    device: Device
    base_url: str
    stream_token: str
    extension_token: str
    media_session_id: str
    expires_at: float

    @property
    def url(self) -> str:
        """The RTSP URL with the currently valid token."""
        return f"{self.base_url}?auth={self.stream_token}"

    @property
    def path(self) -> str:
        """The URL's path, which names the stream at the RTSP edge."""
        return urlsplit(self.base_url).path

    def tokens(self) -> dict[str, str]:
        """The results that Generate and Extend have in common."""
        return {
            "streamExtensionToken": self.extension_token,
            "streamToken": self.stream_token,
            "expiresAt": rfc3339(self.expires_at),
        }


class Streams:
    """All streams of a project; ended ones are forgotten when a new one is generated for their device.

    `on_stop` is called with the path of a stream that is stopped before its expiry.
    """

    def __init__(self, rng: random.Random, rtsp_url: str) -> None:
        self.rtsp_url = rtsp_url
        self.on_stop: Callable[[str], None] = lambda path: None
        self._rng = rng
        self._by_path: dict[str, Stream] = {}
        self._by_device: dict[str, list[Stream]] = {}

    def generate(self, device: Device, now: float, lease: float) -> Stream:
        """A new stream that lives for `lease` seconds."""
        for ended in self._by_device.get(device.id, []):
            if ended.expires_at <= now:
                self._by_path.pop(ended.path, None)
        expires_at = now + lease
        stream = Stream(
            device,
            f"{self.rtsp_url}/sdm_live_stream/{self._opaque(150)}",
            self._stream_token(expires_at),
            self._opaque(90),
            self._opaque(60),
            expires_at,
        )
        self._by_device[device.id] = [*self.live(device, now), stream]
        self._by_path[stream.path] = stream
        return stream

    def extend(self, stream: Stream, now: float, lease: float) -> None:
        """Extend a stream by a full lifetime with new tokens (or id); the old ones become invalid."""
        stream.expires_at = now + lease
        stream.stream_token = self._stream_token(stream.expires_at)
        stream.extension_token = self._opaque(90)
        if stream.device.renews_session_id:
            stream.media_session_id = self._opaque(60)

    def stop(self, stream: Stream) -> None:
        """End a stream now."""
        stream.expires_at = 0.0
        self.on_stop(stream.path)

    def live(self, device: Device, now: float) -> list[Stream]:
        """The device's streams that have not ended."""
        return [stream for stream in self._by_device.get(device.id, []) if stream.expires_at > now]

    def by_path(self, path: str) -> Stream | None:
        """The stream behind an RTSP path, ended or not."""
        return self._by_path.get(path)

    def by_extension_token(self, device: Device, token: object, now: float) -> Stream | None:
        """The live stream that `token` extends."""
        return next((stream for stream in self.live(device, now) if stream.extension_token == token), None)

    def by_media_session(self, device: Device, session_id: object, now: float) -> Stream | None:
        """The live WebRTC session of that id."""
        return next((stream for stream in self.live(device, now) if stream.media_session_id == session_id), None)

    def _opaque(self, size: int) -> str:
        return base64.urlsafe_b64encode(self._rng.randbytes(size)).decode().rstrip("=")

    def _stream_token(self, expires_at: float) -> str:
        """A token in Google's format: "g.0." and something like a JWT whose `exp` is the stream's expiry."""
        claims = {"iss": "nest-security-authproxy", "sub": "simulated", "pol": "3p-oauth-scope", "exp": int(expires_at)}
        parts = (json.dumps({"alg": "RS256", "typ": "JWT"}), json.dumps(claims))
        encoded = [base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts]
        return ".".join(["g.0", *encoded, self._opaque(256)])


def rfc3339(moment: float) -> str:
    """A moment as Google writes it: UTC, milliseconds, "Z"."""
    stamp = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    return stamp.strftime("%Y-%m-%dT%H:%M:%S.") + f"{stamp.microsecond // 1000:03d}Z"
