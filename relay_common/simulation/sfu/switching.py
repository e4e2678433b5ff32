"""A viewer on its way to another simulcast layer: which packet it is switched at.

Whether Cloudflare waits for a keyframe is not documented, so both are simulated: a viewer keeps its old layer until the
new one can be decoded, or gets the new one from its next packet. Either way the keyframe is requested until it comes:
Chromium ignores a request within 300 ms of the last one, whichever layer that was for, and a viewer that decodes one
layer on top of the other sees no error that would make it ask.
"""

from __future__ import annotations

from collections.abc import Callable

from relay_common.simulation.sfu.downstream import Downstream, header_size
from relay_common.simulation.sfu.keyframes import begins_keyframe
from relay_common.simulation.sfu.publication import Publication
from relay_common.simulation.sfu.upstream import Upstream

_ASK_AGAIN = 1.0
"""Seconds between keyframe requests to a layer that has sent none."""


class LayerSwitch:
    """Stands among the subscribers of the layer to come until that can be decoded; then `arrived` is called, once.

    `arrived` must put the viewer in its place; the packet that began the keyframe is the first that the viewer gets.
    Without it the viewer has been switched already (`at once`), and all that is waited for is the keyframe.
    """

    def __init__(self, viewer: Downstream, target: Publication, arrived: Callable[[LayerSwitch], None] | None) -> None:
        self.viewer, self.target = viewer, target
        self.decodable = False
        """Whether a keyframe of the new layer has begun."""
        self._arrived = arrived
        self._asked = float("-inf")

    @property
    def active(self) -> bool:
        """Whether the viewer takes packets."""
        return self.viewer.active

    @property
    def waits(self) -> bool:
        """It is not sent anything of this layer yet."""
        return True

    def follow(self, source: Upstream) -> None:
        """The layer started over; nothing of it has been forwarded yet."""

    def forward(self, packet: memoryview, extended: int, timestamp: int, now: float) -> None:
        """Look at a packet of the new layer."""
        head = header_size(packet)
        if self.decodable or head >= len(packet) or not begins_keyframe(self.target.upstream.codec, packet[head:]):
            return
        self.decodable = True
        if self._arrived is not None:
            self._arrived(self)
            self.viewer.forward(packet, extended, timestamp, now)

    def ask(self, now: float) -> None:
        """Request a keyframe of the new layer, again after a second, until it has begun."""
        if not self.decodable and now - self._asked >= _ASK_AGAIN:
            self._asked = now
            self.target.request_keyframe(now)
