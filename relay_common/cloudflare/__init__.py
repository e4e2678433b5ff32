"""Client of the session API of Cloudflare's Realtime SFU."""

from relay_common.cloudflare.client import BASE_URL, SfuClient, require_usable
from relay_common.cloudflare.errors import ResponseLost, SessionGone, SfuError, unauthorized
from relay_common.cloudflare.models import LocalTrack, Pull, PulledTrack, RemoteTrack, SessionTrack

__all__ = [
    "BASE_URL",
    "LocalTrack",
    "Pull",
    "PulledTrack",
    "RemoteTrack",
    "ResponseLost",
    "SessionGone",
    "SessionTrack",
    "SfuClient",
    "SfuError",
    "require_usable",
    "unauthorized",
]
