"""Signing in on the page: the token, once shown, becomes a session cookie."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from relay_supervisor.http.auth import COOKIE, SESSION_LIFE, Gatekeeper
from relay_supervisor.http.replies import ApiError, read_body, sign_in_page

_LONGEST_FORM: Final = 8 * 1024
"""Bytes of what is sent to sign in, by whomever."""


async def sign_in_by_form(gatekeeper: Gatekeeper, request: Request) -> Response:
    """The answer to the page's form; raises ApiError for what is none."""
    try:
        fields = parse_qs((await read_body(request, _LONGEST_FORM)).decode("utf-8", "replace"), max_num_fields=8)
    except ValueError as error:
        raise ApiError(400, "bad_request", "The form has too many fields", "Send token alone") from error
    return sign_in(gatekeeper, request, fields.get("token", [""])[0])


def sign_in(gatekeeper: Gatekeeper, request: Request, token: str) -> Response:
    """To the page with a cookie if the token is right, else the form again."""
    wait = gatekeeper.check_token(token.strip(), request.state.address)
    if wait is not None:
        page = sign_in_page(429 if wait else 401)
        if wait:
            page.headers["Retry-After"] = str(int(wait) + 1)
        return page
    at = f"{request.state.prefix}/"
    reply = RedirectResponse(at, status_code=303)
    reply.set_cookie(
        COOKIE,
        gatekeeper.new_cookie(),
        max_age=SESSION_LIFE,
        path=at,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return reply
