"""What supervisor and worker say to get an SDP offer for a camera that speaks WebRTC.

Part of the bus' messages (`protocol.py`), by the same rules.
"""

from __future__ import annotations

import msgspec


class _IngestMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", omit_defaults=True):
    pass


class MakeOffer(_IngestMessage, frozen=True, tag="make_offer"):
    """Make an offer, under this number, for a WebRTC stream that is about to be generated."""

    request: int


class IngestOffer(_IngestMessage, frozen=True, tag="ingest_offer"):
    """Answer to `MakeOffer`: the SDP offer for the camera's side."""

    request: int
    offer: str


class IngestOfferFailed(_IngestMessage, frozen=True, tag="ingest_offer_failed"):
    """Answer to `MakeOffer` when no offer can be made."""

    request: int
    reason: str


IngestFromWorker = IngestOffer | IngestOfferFailed
