"""Deals out UDP ports: one for each camera, the same for as long as it is known, restarts included. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

ANY = 0
"""Any free port: what every camera gets while no range is configured."""


class PortDealer:
    """`saved` are the ports that an earlier supervisor dealt, by camera."""

    def __init__(self, saved: Mapping[str, int] | None = None) -> None:
        self._dealt = dict(saved or {})
        self._ports: range | None = None

    def configure(self, ports: range | None) -> None:
        """Deal from these ports from now on; None: any free ones. Cameras keep those that are still among them."""
        self._ports = ports

    def deal(self, camera: str, known: Collection[str]) -> int | None:
        """The port of `camera`; ANY without a range, None when there is none left.

        Cameras that are not `known` any more keep theirs until others need them.
        """
        if self._ports is None:
            return ANY
        if (port := self._dealt.get(camera, ANY)) in self._ports:
            return port
        taken = {port: owner for owner, port in self._dealt.items()}
        port = next((port for port in self._ports if port not in taken), ANY)
        port = port or next((port for port in self._ports if taken[port] not in known), ANY)
        if not port:
            return None
        if port in taken:
            del self._dealt[taken[port]]
        self._dealt[camera] = port
        return port

    def dealt(self) -> dict[str, int]:
        """All ports that are kept for a camera, to be saved."""
        return dict(self._dealt)
