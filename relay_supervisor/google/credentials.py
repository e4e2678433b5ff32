"""Checks of the values from Google's set-up by their form, and the exchange of a code for a refresh token.

Three things are called "project" there and only one belongs in the configuration; for a wrong one Google only says
invalid_client. Every check returns a description of the problem, or "" when the form is right. Source:
https://developers.google.com/nest/device-access/authorize.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec

from relay_common.authorities import public_authorities
from relay_common.errors import RelayError, Remedy
from relay_common.secrets import Secret, redact
from relay_common.spoken import spoken
from relay_common.undecodable import UNDECODABLE
from relay_supervisor.google.oauth import REDIRECT_URI

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_CLIENT_SUFFIX: Final = ".apps.googleusercontent.com"
_WHERE_PROJECT: Final = "The Device Access project id is a UUID on console.nest.google.com/device-access"
_WHERE_CLIENT: Final = "It is on console.cloud.google.com, APIs & Services > Credentials"
_TIMEOUT: Final = 15.0


class TokenReply(msgspec.Struct):
    """The token endpoint's answer, good or bad (RFC 6749 5.1, 5.2)."""

    access_token: str = ""
    refresh_token: str = ""
    error: str = ""
    error_description: str = ""


def project_id_problem(value: str) -> str:
    """What is wrong with a Device Access project id."""
    if _UUID.fullmatch(value):
        return ""
    if re.fullmatch(r"\d{6,}", value):
        return f"That is the number of a Google Cloud project. {_WHERE_PROJECT}"
    if value.endswith(_CLIENT_SUFFIX):
        return f"That is an OAuth client id. {_WHERE_PROJECT}"
    if value.startswith("enterprises/"):
        return "Leave out enterprises/ and what follows the UUID"
    if re.fullmatch(r"[a-z][a-z0-9-]{4,28}[a-z0-9]", value):
        return f"That looks like the id of a Google Cloud project. {_WHERE_PROJECT}"
    return f"That is not a UUID. {_WHERE_PROJECT}"


def client_id_problem(value: str) -> str:
    """What is wrong with an OAuth client id."""
    if value.endswith(_CLIENT_SUFFIX) and value != _CLIENT_SUFFIX and not re.search(r"\s|/", value):
        return ""
    if _UUID.fullmatch(value):
        return f"That is the Device Access project id. An OAuth client id ends in {_CLIENT_SUFFIX}. {_WHERE_CLIENT}"
    if value.startswith("GOCSPX-"):
        return f"That is the client secret: change it there now, it was shown here. {_WHERE_CLIENT}"
    return f"An OAuth client id ends in {_CLIENT_SUFFIX}. {_WHERE_CLIENT}"


def client_secret_problem(value: str) -> str:
    """What is wrong with an OAuth client secret."""
    if value.startswith("1//"):
        return f"That is a refresh token. A client secret begins with GOCSPX-. {_WHERE_CLIENT}"
    if value.startswith("4/"):
        return f"That is an authorisation code. A client secret begins with GOCSPX-. {_WHERE_CLIENT}"
    if value.endswith(_CLIENT_SUFFIX):
        return f"That is the client id; its secret is shown beside it and begins with GOCSPX-. {_WHERE_CLIENT}"
    # Secrets made before 2021 have no prefix and 24 characters.
    if value.startswith("GOCSPX-") or re.fullmatch(r"[\w-]{24}", value):
        return ""
    return f"A client secret begins with GOCSPX-. {_WHERE_CLIENT}"


def find_code(pasted: str) -> Secret:
    """The authorisation code in a pasted redirect URL, or the code itself; raises RelayError when there is none."""
    pasted = pasted.strip()
    if "://" in pasted or "code=" in pasted or "error=" in pasted:
        parts = urlsplit(pasted)
        query = parse_qs(parts.query or pasted.lstrip("?"))
        if "error" in query:
            raise RelayError(
                f"Google did not grant access ({redact(query['error'][0])[:60]})",
                hint="Open the link again, switch on the home and the cameras, and allow both questions",
                remedy=Remedy.PARK,
            )
        if "code" in query:
            return Secret(query["code"][0])
        ours = "nestservices.google.com" in parts.netloc or "accounts.google.com" in parts.netloc
        hint = "Open the link in a browser and go through to the end; then" if ours else "After allowing access,"
        raise RelayError(
            "there is no code in that address",
            hint=f"{hint} copy the address of the page that you land on: {REDIRECT_URI}/?code=…",
            remedy=Remedy.PARK,
        )
    if re.fullmatch(r"[\w/%.~-]{8,}", pasted):
        return Secret(pasted.replace("%2F", "/").replace("%2f", "/"))
    raise RelayError(
        "that is neither an address nor a code", hint="Copy the whole address of the page", remedy=Remedy.PARK
    )


def exchange(
    code: Secret,
    *,
    client_id: str,
    client_secret: Secret,
    token_url: str,
    redirect_uri: str = REDIRECT_URI,
    transport: httpx.BaseTransport | None = None,
) -> Secret:
    """Trade an authorisation code for a refresh token; raises RelayError with a hint on how to proceed."""
    form = {
        "grant_type": "authorization_code",
        "code": code.reveal(),
        "client_id": client_id,
        "client_secret": client_secret.reveal(),
        "redirect_uri": redirect_uri,
    }
    try:
        with httpx.Client(timeout=_TIMEOUT, transport=transport, verify=public_authorities(), trust_env=False) as http:
            response = http.post(token_url, data=form)
        reply = msgspec.json.decode(response.content, type=TokenReply)
    except httpx.HTTPError as error:
        raise RelayError(
            f"Google's token endpoint cannot be reached: {spoken(error)}",
            hint="Check the network and try again",
        ) from None
    except UNDECODABLE:
        raise RelayError("Google's token endpoint did not answer with JSON", hint="Try again") from None
    if reply.refresh_token:
        return Secret(reply.refresh_token)
    raise _refusal(reply)


def _refusal(reply: TokenReply) -> RelayError:
    hints = {
        "invalid_grant": "A code works once and only for a few minutes: open the link again and paste the new address",
        "redirect_uri_mismatch": (
            f"Add {REDIRECT_URI} (exactly as written) to the authorised redirect URIs of the OAuth client; "
            "this takes effect within an hour"
        ),
        "invalid_client": (
            "The client id and secret do not belong together, or not to this Device Access project: copy both again"
        ),
        "unauthorized_client": "The OAuth client must be of the type Web application",
    }
    if not reply.error:
        return RelayError(
            "Google gave no refresh token",
            hint="Use the link that is printed here: it asks for one (access_type=offline, prompt=consent)",
            remedy=Remedy.PARK,
        )
    quoted = f"{reply.error}: {reply.error_description}" if reply.error_description else reply.error
    hint = hints.get(reply.error, "Go through the steps again")
    return RelayError(f"Google refused the code ({redact(quoted)[:200]})", hint=hint, remedy=Remedy.PARK)
