"""Which tracks of a description to play, and which URLs control them (RFC 2326 §C.1.1)."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from relay_worker.media.stream import Format, Kind, Track
from relay_worker.rtsp.errors import RtspStage, UnsupportedError
from relay_worker.rtsp.sdp import Media, RtspDescription

VIDEO_ENCODINGS: Final = frozenset(("H264",))
AUDIO_ENCODINGS: Final = frozenset(("MPEG4-GENERIC", "MP4A-LATM", "OPUS", "PCMU", "PCMA"))


def choose_tracks(description: RtspDescription, aggregate: str) -> list[Track]:
    """The first video and the first audio that the relay can carry, video first; `aggregate` is the base URL."""
    tracks = []
    for kind, encodings in ((Kind.VIDEO, VIDEO_ENCODINGS), (Kind.AUDIO, AUDIO_ENCODINGS)):
        choices = (
            Track(kind, chosen, resolve_control(aggregate, media.control))
            for media in description.media
            if media.sending and (chosen := _choose_format(media, kind, encodings)) is not None
        )
        tracks += [track for track in [next(choices, None)] if track is not None]
    return tracks


def no_video(description: RtspDescription) -> UnsupportedError:
    """Why nothing of it can be relayed: sound alone is not enough for a camera."""
    video = [media for media in description.media if media.kind == "video" and media.sending]
    offered = {item.encoding or f"payload type {item.payload_type}" for media in video for item in media.formats}
    if not offered:
        return UnsupportedError(
            RtspStage.DESCRIBE, "the camera offers no video", hint="Sound is relayed only together with H.264 video"
        )
    return UnsupportedError(
        RtspStage.DESCRIBE,
        f"the camera's video cannot be carried: {', '.join(sorted(offered)[:8])}",
        hint="Set the camera, or this stream of it, to H.264, which every browser plays over WebRTC",
    )


def _choose_format(media: Media, kind: Kind, encodings: frozenset[str]) -> Format | None:
    if media.kind != kind.value:
        return None
    return next((item for item in media.formats if item.encoding in encodings), None)


def base_url(request_url: str, content_base: str, content_location: str) -> str:
    """The URL that controls are relative to: Content-Base, else Content-Location, else the request's own."""
    for candidate in (content_base.strip(), content_location.strip()):
        if candidate.startswith("/") and not candidate.startswith("//"):
            return origin(request_url) + candidate
        if is_rtsp_url(candidate):
            return without_credentials(candidate)
    return request_url


def aggregate_url(base: str, control: str) -> str:
    """The URL of the presentation as a whole: the session-level control, `*` or none meaning the base."""
    return resolve_control(base, control)


def resolve_control(base: str, control: str) -> str:
    """A control attribute against its base, the way servers expect it: appended as a path segment.

    Strict resolution (RFC 3986) would replace the last segment of a base without a final slash, or drop its query;
    servers that leave Content-Base out mean neither.
    """
    if control in ("", "*"):
        return base
    if is_rtsp_url(control):
        return without_credentials(control)
    if control.startswith("/"):
        return origin(base) + control
    if control.startswith("?") or base.endswith("/"):
        return base + control
    return f"{base}/{control}"


def is_rtsp_url(text: str) -> bool:
    """Whether the text is an absolute RTSP URL with a host; one with control characters is none (RFC 3986 §2)."""
    # urlsplit drops tabs and line breaks, but a request line would hold them.
    if not text.lower().startswith(("rtsp://", "rtsps://")) or any(c < " " or c == "\x7f" for c in text):
        return False
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def origin(url: str) -> str:
    """Scheme, host and port of a URL."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.split('/', 1)[0].split('?', 1)[0]}"


def without_credentials(url: str) -> str:
    """The URL without `user:password@`, which belongs only in the Authorization header."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return scheme + separator + authority.rpartition("@")[2] + slash + path
