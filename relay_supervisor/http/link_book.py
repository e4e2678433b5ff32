"""Links that were given out: which there are, when each was last used, and which of them were revoked.

A link is valid by its signature (`links.py`) unless it stands here as revoked, so that a lost state ends no link that
was given out. One that is used and not listed, of an earlier release or from before the state was lost, is listed from
then on. An entry is kept until its link ends.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from relay_common.clock import Clock
from relay_supervisor.state.links import SavedLink

MOST_LINKS: Final = 1000
"""Most links that are valid or revoked at the same time; no more are made then, and none that is used is added."""
_SEEN_EVERY: Final = 600.0
"""Seconds between two notes of a link's use."""


class LinkStore(Protocol):
    """Where entries outlive the supervisor; implemented by `state.links.LinkRows`."""

    @property
    def problem(self) -> str: ...

    def save_link(self, saved: SavedLink) -> None: ...

    def forget_link(self, link: str) -> None: ...

    def links(self) -> list[SavedLink]: ...


class LinkBook:
    """The links of one relay, by id. `new_id` makes ids, which are not secret."""

    def __init__(
        self, clock: Clock, store: LinkStore | None = None, *, new_id: Callable[[], str] = lambda: secrets.token_hex(5)
    ) -> None:
        self._clock, self._store, self._new_id = clock, store, new_id
        self._links: dict[str, SavedLink] = {}
        self._key = ""
        self.unlisted = 0
        """Uses of links that found no room here."""

    def load(self, key: str) -> None:
        """Read the entries of the present `link_secret`, whose digest is `key`; links made with another are invalid."""
        self._key = key
        for saved in self._store.links() if self._store is not None else ():
            if saved.key == key and saved.expires > self._clock.wall():
                self._links[saved.id] = saved
            elif self._store is not None:
                self._store.forget_link(saved.id)

    @property
    def saved(self) -> bool:
        """Whether what is noted now outlives the supervisor."""
        return self._store is not None and not self._store.problem

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"unlisted": self.unlisted}

    def given(self) -> list[SavedLink]:
        """All entries whose link has not ended, the newest first; those that have are forgotten."""
        self._forget_ended()
        return sorted(self._links.values(), key=lambda link: link.made_at, reverse=True)

    def give(self, camera: str, expires: int) -> str:
        """Note a new link to `camera` that ends at `expires` (Unix seconds); its id, or "" when there is no room."""
        self._forget_ended()
        if len(self._links) >= MOST_LINKS:
            return ""
        name = self._new_id()
        while name in self._links:
            name = self._new_id()
        self._note(SavedLink(id=name, camera=camera, expires=expires, key=self._key, made_at=self._clock.wall()))
        return name

    def used(self, name: str, camera: str, expires: int) -> None:
        """Note that a valid link was used."""
        now = self._clock.wall()
        found = self._links.get(name)
        if found is None:
            self._forget_ended()
            if len(self._links) >= MOST_LINKS:
                self.unlisted += 1
                return
            found = SavedLink(id=name, camera=camera, expires=expires, key=self._key)
        if now - found.seen_at >= _SEEN_EVERY:
            self._note(msgspec.structs.replace(found, seen_at=now))

    def revoked(self, name: str) -> bool:
        """Whether the link with that id was revoked."""
        found = self._links.get(name)
        return found is not None and found.revoked_at > 0

    def revoke(self, name: str) -> SavedLink | None:
        """Revoke a link; None when there is none with that id."""
        self._forget_ended()
        found = self._links.get(name)
        if found is not None and not found.revoked_at:
            found = msgspec.structs.replace(found, revoked_at=self._clock.wall())
            self._note(found)
        return found

    def _note(self, link: SavedLink) -> None:
        self._links[link.id] = link
        if self._store is not None:
            self._store.save_link(link)

    def _forget_ended(self) -> None:
        now = self._clock.wall()
        for name in [link.id for link in self._links.values() if link.expires <= now]:
            del self._links[name]
            if self._store is not None:
                self._store.forget_link(name)
