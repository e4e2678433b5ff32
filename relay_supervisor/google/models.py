"""Types for the SDM API's JSON, and the values read from it.

The `*Body` structs mirror Google's JSON and ignore fields they do not know; `Device` and `LiveStream` are what the rest
of the supervisor works with. Secrets are wrapped as soon as they are parsed.
"""

from __future__ import annotations

import urllib.parse
from typing import Any, Final

import msgspec

from relay_common.protocol import Protocol
from relay_common.secrets import Secret

LIVE_STREAM: Final = "sdm.devices.traits.CameraLiveStream"
INFO: Final = "sdm.devices.traits.Info"
_WITH_CAMERA: Final = ("CAMERA", "DOORBELL", "DISPLAY")


class Resolution(msgspec.Struct, frozen=True):
    """Largest resolution a camera announces, in pixels; 0 × 0 when it announces none."""

    width: int = 0
    height: int = 0

    def __str__(self) -> str:
        return f"{self.width}x{self.height}" if self.width else "unknown"


class Device(msgspec.Struct, frozen=True):
    """A device with a camera live stream.

    `name` is the full resource path (`enterprises/…/devices/…`), `id` its last part, `kind` the SDM type without
    its prefix (CAMERA, DOORBELL, DISPLAY), which decides the device-instance limits and nothing else. `named` is False
    when Google gave no Info trait, so that `display_name` is only a stand-in.
    """

    name: str
    id: str
    kind: str
    display_name: str
    protocols: tuple[Protocol, ...]
    video_codecs: tuple[str, ...] = ()
    audio_codecs: tuple[str, ...] = ()
    resolution: Resolution = Resolution()
    named: bool = True

    @property
    def protocol(self) -> Protocol:
        """The protocol to use: a camera that lists WEB_RTC answers only WebRTC commands (SDM CameraLiveStream)."""
        return Protocol.WEB_RTC if Protocol.WEB_RTC in self.protocols else Protocol.RTSP


class Listing(msgspec.Struct, frozen=True):
    """Result of one devices.list: the devices with a live stream, in Google's order, and the names of the others.

    A camera whose CameraLiveStream trait is "not currently available" (SDM) is among the others, with the thermostats.
    """

    devices: list[Device]
    others: frozenset[str] = frozenset()
    streamless: tuple[str, ...] = ()
    """Cameras and doorbells among the others, for people: display name, and type in brackets."""


class LiveStream(msgspec.Struct, frozen=True):
    """A granted live stream.

    `handle` is what Extend and Stop take: the streamExtensionToken (RTSP) or the mediaSessionId (WebRTC). `expires_in`
    is its lifetime in seconds from when its command was sent; `expires_at` is its expiry on the server's wall clock
    (Unix seconds), for display only. RTSP streams have a `url` (with its token), WebRTC streams an `answer_sdp` (with
    its ICE password).
    """

    protocol: Protocol
    handle: Secret
    expires_in: float
    expires_at: float
    url: Secret | None = None
    answer_sdp: Secret | None = None

    @property
    def port(self) -> int:
        """TCP port of its `url`, by default that of the scheme (RFC 7826, 21); 0 without a URL, or with a wrong one."""
        try:
            parts = urllib.parse.urlsplit(self.url.reveal() if self.url is not None else "")
            return parts.port or {"rtsp": 554, "rtsps": 322}.get(parts.scheme, 0)
        except ValueError:
            return 0

    def extended(self, extension: Extension) -> LiveStream:
        """This stream after an extension: new handle, new lifetime and, for RTSP, the URL a reconnect must use."""
        url = self.url
        if url is not None and extension.token:
            url = Secret(with_token(url.reveal(), extension.token.reveal()))
        return LiveStream(
            protocol=self.protocol,
            handle=extension.handle or self.handle,
            expires_in=extension.expires_in,
            expires_at=extension.expires_at,
            url=url,
            answer_sdp=self.answer_sdp,
        )


class Extension(msgspec.Struct, frozen=True):
    """What an Extend command grants; an empty `handle` means the old one stays valid."""

    handle: Secret
    expires_in: float
    expires_at: float
    token: Secret = Secret("")


def with_token(url: str, token: str) -> str:
    """`url` with its whole query replaced by `auth=token`, as a reconnect after an extension needs it."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(query=f"auth={token}"))


class ParentRelation(msgspec.Struct):
    """The room or structure a device is in."""

    display_name: str | None = msgspec.field(name="displayName", default=None)


class DeviceBody(msgspec.Struct):
    """One device as devices.list and devices.get return it."""

    name: str
    type: str | None = None
    traits: dict[str, Any] | None = None
    parent_relations: list[ParentRelation | None] | None = msgspec.field(name="parentRelations", default=None)


class DeviceListBody(msgspec.Struct):
    """A page of devices.list; an account without devices omits the key.

    Devices are decoded one by one, so that a malformed one does not lose the others.
    """

    devices: list[msgspec.Raw] | None = None
    next_page_token: str | None = msgspec.field(name="nextPageToken", default=None)


class NameBody(msgspec.Struct):
    """Fallback for a device whose other fields cannot be read."""

    name: str


class StreamUrlsBody(msgspec.Struct):
    """URLs of a GenerateRtspStream answer."""

    rtsp_url: str = msgspec.field(name="rtspUrl")


class StreamBody(msgspec.Struct):
    """`results` of any stream command; which fields are present depends on the command."""

    stream_urls: StreamUrlsBody | None = msgspec.field(name="streamUrls", default=None)
    stream_token: str | None = msgspec.field(name="streamToken", default=None)
    stream_extension_token: str | None = msgspec.field(name="streamExtensionToken", default=None)
    answer_sdp: str | None = msgspec.field(name="answerSdp", default=None)
    media_session_id: str | None = msgspec.field(name="mediaSessionId", default=None)
    expires_at: str | None = msgspec.field(name="expiresAt", default=None)


class CommandBody(msgspec.Struct):
    """Answer of executeCommand."""

    results: StreamBody = msgspec.field(default_factory=StreamBody)


def device_from(body: DeviceBody) -> Device | None:
    """The device that `body` describes, or None when it has no live stream."""
    traits = body.traits or {}
    live = traits.get(LIVE_STREAM)
    if not isinstance(live, dict):
        return None
    device_id = body.name.rsplit("/", 1)[-1]
    return Device(
        name=body.name,
        id=device_id,
        kind=(body.type or "").rsplit(".", 1)[-1],
        display_name=_display_name(body) or device_id,
        protocols=_protocols(live.get("supportedProtocols")),
        video_codecs=_strings(live.get("videoCodecs")),
        audio_codecs=_strings(live.get("audioCodecs")),
        resolution=_resolution(live.get("maxVideoResolution")),
        named=isinstance(traits.get(INFO), dict),
    )


def streamless(body: DeviceBody) -> str:
    """Name and type of a camera or doorbell that `body` describes without a live stream; "" for any other device."""
    kind = (body.type or "").rsplit(".", 1)[-1]
    if kind not in _WITH_CAMERA or isinstance((body.traits or {}).get(LIVE_STREAM), dict):
        return ""
    return f"{_display_name(body) or 'a device without a name'} ({kind})"


def updated(known: Device, device: Device) -> Device:
    """`device` as just read, but with its known name if the response omitted it.

    A missing trait is only unavailable at present and says nothing about the camera, and the configuration selects
    cameras by name.
    """
    if device.named or not known.named:
        return device
    return msgspec.structs.replace(device, display_name=known.display_name, named=True)


def _display_name(body: DeviceBody) -> str:
    info = (body.traits or {}).get(INFO)
    custom = info.get("customName") if isinstance(info, dict) else None
    if isinstance(custom, str) and custom.strip():
        return custom.strip()
    names = (relation.display_name for relation in body.parent_relations or [] if relation is not None)
    return next((name.strip() for name in names if name and name.strip()), "")


def _protocols(value: object) -> tuple[Protocol, ...]:
    # Unknown protocol names are skipped and an absent list means RTSP, as for Google's own oldest cameras.
    known = {protocol.value: protocol for protocol in Protocol}
    return tuple(known[name] for name in _strings(value) if name in known) or (Protocol.RTSP,)


def _strings(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _resolution(value: object) -> Resolution:
    if isinstance(value, dict):
        width, height = value.get("width"), value.get("height")
        if isinstance(width, int) and isinstance(height, int):
            return Resolution(width, height)
    return Resolution()
