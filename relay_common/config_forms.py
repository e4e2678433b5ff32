"""Keys whose text has a form of its own, and a value for each: not every text that was meant for one is one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from relay_common.config_local import ORIGIN


class Form(NamedTuple):
    """What a key takes, or each entry of one that takes several."""

    example: Any
    pattern: str = ""
    """What a number in quotation marks, or a text between brackets, has to match to be one; "": none is."""

    def takes(self, value: Any) -> bool:
        """Whether `value`, a text or a list of them, is of this form."""
        return all(re.fullmatch(self.pattern, str(one)) for one in (value if isinstance(value, list) else [value]))


_ADDRESS: Final = r"\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*"
_STUN: Final = r"stuns?:[^/@]+"  # a TURN server is a table, and no text

FORMS: Final[Mapping[str, Form]] = {
    "cloudflare.ice_servers": Form(["stun:stun.example:3478"], _STUN),
    "cluster.bus_bind": Form("0.0.0.0:7420"),
    "cluster.bus_listen": Form("10.0.0.5:7420"),
    "cluster.namespace": Form("relay", r"\d{1,63}"),
    "cluster.peer_listen": Form("10.0.0.5:7422"),
    "cluster.replica": Form("relay-0", r"\d{1,63}"),
    "http.base_path": Form("/cameras"),
    "http.probe_listen": Form("127.0.0.1:8081"),
    "http.trusted_proxies": Form(["127.0.0.1"], _ADDRESS),
    "local.allowed_origins": Form(["https://home.example"], ORIGIN.pattern),
    "local.announce": Form(["192.168.1.10"], _ADDRESS),
    "local.listen": Form("127.0.0.1"),
    "local.udp_ports": Form("8560-8599", r"[1-9]\d{0,3}|[1-5]\d{4}"),
    "nest.account": Form("home", r"\d{1,20}"),
    "otel.endpoint": Form("http://127.0.0.1:4318"),
    "rtsp.ca_file": Form(""),
    "viewers.frame_ancestors": Form(["https://home.example"], ORIGIN.pattern),
    "whip.ca_file": Form(""),
    "whip.ice_servers": Form(["stun:stun.example:3478"], _STUN),
    "whip.name": Form("studio", r"[A-Za-z0-9]+"),
    "whip.url": Form("https://whip.example/{camera}"),
}
"""By section and key."""

WHERE: Final = {
    "project_id": "the Device Access project id (a UUID) from console.nest.google.com/device-access",
    "client_id": "the OAuth client id from the Google Cloud console",
    "client_secret": "the OAuth client secret from the Google Cloud console",
    "refresh_token": "the refresh token from authorising the relay with your Google account",
    "app_id": "the app id from the Cloudflare dashboard, Realtime > SFU",
    "app_secret": "the app secret shown when the Cloudflare app was created",
    "key_id": "the id of the TURN key from the Cloudflare dashboard, Realtime > TURN",
    "api_token": "the token shown when the TURN key was created",
    "urls": "the server's URL",
    "url": "the server's URL for WHIP",
    "name": "what status, log and metrics are to call it",
}
"""Where the values that nobody can guess are found, by their key."""

FOUND_ELSEWHERE: Final[Mapping[str, Form]] = {
    "nest.project_id": Form(""),
    "nest.client_id": Form(""),
    "cloudflare.app_id": Form("", r"\d+"),
}
"""Those of them of which no example could be used."""
