"""Publications as an earlier run left them in the state database."""

from __future__ import annotations

from relay_common.cloudflare import LocalTrack
from relay_supervisor.sinks.broker import Publication
from relay_supervisor.state.store import SavedPublication


def restored(saved: SavedPublication) -> Publication:
    """The saved publication, assumed to be live until the next check shows otherwise."""
    tracks = [
        LocalTrack(mid=mid, kind=kind, name=name)
        for mid, text in saved.tracks.items()
        for kind, _, name in [text.partition(" ")]
    ]
    return Publication(
        id=saved.publication,
        camera=saved.camera,
        session=saved.session,
        tracks=tracks,
        attempt=0,
        created_at=saved.created_at,
        live=True,
        sink=saved.sink,
        rids=saved.rids,
    )
