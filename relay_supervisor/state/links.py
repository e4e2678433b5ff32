"""The rows of links that were given out, in the state database."""

from __future__ import annotations

import msgspec

from relay_supervisor.state.store import Store


class SavedLink(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A link that was given out. Its signature, which is the secret, is nowhere."""

    id: str
    camera: str
    expires: int
    """Unix seconds, as the other times; 0: not known, or never."""
    key: str
    """A digest of the `link_secret` that it was made with."""
    made_at: float = 0.0
    seen_at: float = 0.0
    revoked_at: float = 0.0


class LinkRows:
    """Links in `store`'s database. Writes return at once and are durable soon after."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def problem(self) -> str:
        """What is wrong with the state directory, in words; "" when nothing is."""
        return self._store.problem

    def save_link(self, saved: SavedLink) -> None:
        """Save a link that was given out."""
        sql = "INSERT OR REPLACE INTO links VALUES (?, ?)"
        self._store.database.write(("link", saved.id), sql, saved.id, msgspec.json.encode(saved))

    def forget_link(self, link: str) -> None:
        """Delete a link that has ended."""
        self._store.database.write(("link", link), "DELETE FROM links WHERE id = ?", link)

    def links(self) -> list[SavedLink]:
        """All saved links."""
        rows = self._store.database.read("SELECT NULL, body FROM links")
        return self._store.reader.decoded("given links (one that was revoked is valid again)", rows, SavedLink)
