"""Signed links to one camera: the camera, an expiry, and a signature over both (HMAC-SHA256, RFC 2104).

Whoever has the link may watch that camera until then and do nothing else. There is no list of links: one that has
leaked can only be revoked with all others, by changing `viewers.link_secret`.
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


class Links:
    """Makes links and checks them; none are valid while `settings.access` is "token"."""

    def __init__(self, settings: ViewerSettings, clock: Clock) -> None:
        self._key, self._clock = settings.link_secret.reveal().encode(), clock
        self.enabled = settings.access != "token" and bool(self._key)

    def make(self, camera: str, seconds: int) -> Link:
        """A link to `camera` that expires in `seconds`."""
        end = int(self._clock.wall()) + seconds
        return Link(path=f"/watch/{camera}?expires={end}&signature={self._sign(camera, str(end))}", expires_at=end)

    def check(self, camera: str, expires: str, signature: str) -> Audience:
        """The audience that the link grants; raises LinkError when it is not ours or has expired."""
        if not self.enabled:
            raise LinkError("links_off", "Links to cameras are switched off here", 'Set viewers.access to "links"')
        genuine = hmac.compare_digest(signature.encode(), self._sign(camera, expires).encode())
        # Check the signature first: `expires` is then known to be digits we wrote.
        if not genuine:
            raise LinkError("link_invalid", "This link is not valid", "Use it as it was given, or ask for another")
        if self._clock.wall() >= int(expires):
            raise LinkError("link_expired", "This link has expired", "Ask for another")
        return Audience(cameras=frozenset({camera}), until=float(expires))

    def _sign(self, camera: str, expires: str) -> str:
        return hmac.new(self._key, f"relay-link:{camera}:{expires}".encode(), hashlib.sha256).hexdigest()
