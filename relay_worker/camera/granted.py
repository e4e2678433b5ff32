"""The stream a worker has been granted."""

from __future__ import annotations

from dataclasses import dataclass, field

from relay_common.protocol import Protocol
from relay_common.secrets import Secret

NONE = Secret("")


@dataclass
class GrantedStream:
    """A granted stream: over RTSP the `url` with its token; over WebRTC the `answer` to our offer number `offer`."""

    generation: int
    protocol: Protocol
    url: Secret = field(repr=False)
    expires_at: float
    """Unix seconds."""
    answer: Secret = field(repr=False, default=NONE)
    offer: int = 0
    contested: bool = False
    """Whether another worker, lost from sight, was the one client of `url`: Google may refuse a second one."""
    contested_until: float = 0.0
    """Until when (monotonic) that one may be alive."""

    def same_as(self, other: GrantedStream) -> bool:
        """Whether both are one grant, told twice."""
        return (self.generation, self.url, self.answer) == (other.generation, other.url, other.answer)
