"""Signed links to one camera: the camera, an expiry, an id, and a signature over them (HMAC-SHA256, RFC 2104).

Whoever has the link may watch that camera until then and do nothing else. The id stands in front of the signature,
`ID-SIGNATURE`, and by it a link can be revoked (`link_book.py`); links of earlier releases have none. All links at once
end by changing `viewers.link_secret`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Final, Literal

import msgspec

from relay_common.clock import Clock
from relay_common.config import Config
from relay_common.errors import ConfigError
from relay_common.loopback import is_loopback
from relay_common.secrets import Secret
from relay_supervisor.http.link_book import MOST_LINKS, LinkBook
from relay_supervisor.net import SHORTEST_TOKEN
from relay_supervisor.viewing.views import Audience

SCHEME: Final = "link"
"""Scheme of `Authorization: Link CAMERA.EXPIRES.SIGNATURE`, which the camera's page sends with every call."""

_SITE: Final = re.compile(r"https?://[A-Za-z0-9.*\[\]:-]+")


class ViewerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who may watch: the effective `[viewers]` settings."""

    access: Literal["open", "links", "token"] = "token"
    link_secret: Secret = Secret("")
    frame_ancestors: tuple[str, ...] = ()


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A generated link; `path` is relative to where the dashboard is served."""

    path: str
    expires_at: int
    """Unix seconds."""
    id: str = ""
    """By which it is listed and revoked."""
    whep_path: str = ""
    """For players that speak WHEP, relative as `path`; empty where the camera cannot be watched without Cloudflare."""
    frame_ancestors: list[str] = []
    """Sites that may show the page in a frame; empty: none."""


class LinkError(Exception):
    """The link is not accepted; `code` is for machines."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


def viewer_settings(config: Config, host: str) -> ViewerSettings:
    """Effective `[viewers]` settings for an interface that listens on `host`; raises ConfigError with key and fix."""
    viewers, token = config.viewers, bool(config.http.token)
    access = viewers.access if viewers.access != "auto" else "token" if token else "open"
    if access == "open" and not is_loopback(host):
        raise ConfigError(
            f'[viewers] access is "open", and other machines can reach [http] listen {config.http.listen!r}',
            hint='Set it to "links" or "token", or listen on "127.0.0.1:8080"',
        )
    if access == "token" and not token:
        raise ConfigError('[viewers] access is "token", and there is no [http] token', hint="Set token or token_file")
    secret = viewers.link_secret
    if secret and len(secret.reveal()) < SHORTEST_TOKEN:
        raise ConfigError(
            f"[viewers] link_secret is shorter than {SHORTEST_TOKEN} characters",
            hint="Make one with: openssl rand -hex 24",
        )
    for site in viewers.frame_ancestors:
        # It becomes part of a header: nothing but an origin may pass.
        if not _SITE.fullmatch(site):
            raise ConfigError(
                f"[viewers] frame_ancestors has {site!r}, which is no origin",
                hint='Write scheme and host only, for example "https://home.example"',
            )
    return ViewerSettings(
        access=access,
        link_secret=secret or Secret(secrets.token_hex(32)),
        frame_ancestors=tuple(viewers.frame_ancestors),
    )


def link_name(camera: str, expires: str, signature: str) -> str:
    """The id of a link that was checked; of one without, its camera and expiry: two with both the same are one."""
    return signature.rpartition("-")[0] or f"{camera}.{expires}"


def key_name(secret: Secret) -> str:
    """A digest of a `link_secret`, to tell whether a link was made with it."""
    return hmac.new(secret.reveal().encode(), b"relay-link-key", hashlib.sha256).hexdigest()[:16]


class Links:
    """Makes links, noting them in `book`, and checks them; none are valid while `settings.access` is "token"."""

    def __init__(self, settings: ViewerSettings, clock: Clock, book: LinkBook) -> None:
        self._key, self._clock, self._book = settings.link_secret.reveal().encode(), clock, book
        self._frames = list(settings.frame_ancestors)
        self.enabled = settings.access != "token" and bool(self._key)

    def make(self, camera: str, seconds: int, *, whep: bool = False) -> Link:
        """A link to `camera` that expires in `seconds`, with its WHEP endpoint if there is one; raises LinkError."""
        end = int(self._clock.wall()) + seconds
        name = self._book.give(camera, end)
        if not name:
            raise LinkError(
                "too_many_links",
                f"{MOST_LINKS} links are valid or revoked, the most of one relay",
                "Wait until some end, or change viewers.link_secret, which ends all",
            )
        query = f"expires={end}&signature={name}-{self._sign(camera, str(end), name)}"
        return Link(
            path=f"/watch/{camera}?{query}",
            expires_at=end,
            id=name,
            whep_path=f"/whep/{camera}?{query}" if whep else "",
            frame_ancestors=self._frames,
        )

    def check(self, camera: str, expires: str, signature: str) -> Audience:
        """The audience that the link grants, whose use is noted; raises LinkError when it is not ours or has ended."""
        self.judge(camera, expires, signature)
        self._book.used(link_name(camera, expires, signature), camera, int(expires))
        return Audience(cameras=frozenset({camera}), until=float(expires))

    def judge(self, camera: str, expires: str, signature: str) -> None:
        """Raise LinkError when the link is not ours, has expired or was revoked."""
        if not self.enabled:
            raise LinkError("links_off", "Links to cameras are switched off here", 'Set viewers.access to "links"')
        name, _, code = signature.rpartition("-")
        genuine = hmac.compare_digest(code.encode(), self._sign(camera, expires, name).encode())
        # Check the signature first: `expires` is then known to be digits we wrote.
        if not genuine:
            raise LinkError("link_invalid", "This link is not valid", "Use it as it was given, or ask for another")
        if self._clock.wall() >= int(expires):
            raise LinkError("link_expired", "This link has expired", "Ask for another")
        if self._book.revoked(link_name(camera, expires, signature)):
            raise LinkError("link_revoked", "This link has been revoked", "Ask for another")

    def _sign(self, camera: str, expires: str, name: str) -> str:
        signed = f"relay-link-2:{camera}:{expires}:{name}" if name else f"relay-link:{camera}:{expires}"
        return hmac.new(self._key, signed.encode(), hashlib.sha256).hexdigest()
