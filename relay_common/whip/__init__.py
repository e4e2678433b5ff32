"""Client of WHIP, the WebRTC-HTTP ingestion protocol (RFC 9725)."""

from relay_common.whip.client import WhipClient
from relay_common.whip.endpoint import WhipEndpoint, parse_endpoint
from relay_common.whip.errors import WhipError
from relay_common.whip.exchange import WhipSession

__all__ = ["WhipClient", "WhipEndpoint", "WhipError", "WhipSession", "parse_endpoint"]
