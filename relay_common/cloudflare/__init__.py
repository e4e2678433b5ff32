"""Client of the session API of Cloudflare's Realtime SFU."""

from relay_common.cloudflare.client import SfuClient, require_usable
from relay_common.cloudflare.errors import ResponseLost, SessionGone, SfuError, unauthorized
from relay_common.cloudflare.exchange import BASE_URL
from relay_common.cloudflare.models import LocalTrack, Pull, PulledTrack, RemoteTrack, SessionTrack, SimulcastChoice
from relay_common.cloudflare.policies import PoliciesRefused
from relay_common.cloudflare.turn import TurnError, TurnKey, require_usable_key

__all__ = [
    "BASE_URL",
    "LocalTrack",
    "PoliciesRefused",
    "Pull",
    "PulledTrack",
    "RemoteTrack",
    "ResponseLost",
    "SessionGone",
    "SessionTrack",
    "SfuClient",
    "SfuError",
    "SimulcastChoice",
    "TurnError",
    "TurnKey",
    "require_usable",
    "require_usable_key",
    "unauthorized",
]
