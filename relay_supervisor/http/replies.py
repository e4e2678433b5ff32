"""Responses: JSON by msgspec, errors in one shape, and the page's files from memory."""

from __future__ import annotations

import asyncio
import hashlib
from importlib import resources
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from relay_common.bounded_http import BodyTooLarge, whole_body
from relay_common.errors import RelayError, Remedy, UnknownCamera
from relay_common.undecodable import UNDECODABLE
from relay_supervisor.status.model import CameraStatus, RelayStatus
from relay_supervisor.viewing.views import ViewError

MAX_BODY: Final = 640 * 1024
"""Largest request body, in bytes: an SDP for 64 media sections fits."""

BODY_WITHIN: Final = 20.0
"""Seconds a request's body may take to arrive."""

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_encode = msgspec.json.Encoder().encode


class ApiError(Exception):
    """An error response; `code` is stable and for machines."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.hint = status, code, message, hint


def json_reply(value: Any, status: int = 200) -> Response:
    """`value` as JSON."""
    return Response(_encode(value), status_code=status, media_type="application/json")


def error_reply(status: int, code: str, message: str, hint: str) -> Response:
    """An error in the shape that all of them have."""
    return json_reply({"error": {"code": code, "message": message, "hint": hint}}, status)


def flag(request: Request, name: str, default: bool = False) -> bool:
    """Whether the query parameter `name` is "1", "true" or "yes"; `default` when it is missing."""
    value = request.query_params.get(name)
    return default if value is None else value in ("1", "true", "yes")


async def on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_reply(error.status, error.code, error.message, error.hint)


async def on_relay_error(request: Request, error: Exception) -> Response:
    """The reply to a RelayError: a view's own status, 404 for a camera that there is not, else 409 or 503 by remedy."""
    assert isinstance(error, RelayError)
    if isinstance(error, UnknownCamera):
        # A guest's link says which camera it is for, and nothing of the others.
        return error_reply(404, "unknown_camera", error.message, error.hint if request.state.signed_in else "")
    if isinstance(error, ViewError):
        return error_reply(error.status, error.code, error.message, error.hint)
    status = 503 if error.remedy in (Remedy.RETRY, Remedy.HOLD) else 409
    return error_reply(status, error.remedy.value, error.message, error.hint)


async def on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    reply = error_reply(error.status_code, code, error.detail, "")
    reply.headers.update(error.headers or {})
    return reply


async def read_body(request: Request, most: int = MAX_BODY) -> bytes:
    """The request's body; raises ApiError when it is larger than `most` bytes, takes over 20 s or is cut off."""
    try:
        async with asyncio.timeout(BODY_WITHIN):
            return await whole_body(request.stream(), most)
    except BodyTooLarge as error:
        raise ApiError(413, "too_large", f"The request is {error}") from error
    except TimeoutError as error:
        raise ApiError(408, "too_slow", f"The request's body did not arrive within {BODY_WITHIN:.0f} s") from error
    except ClientDisconnect as error:
        raise ApiError(400, "incomplete", "The request was cut off") from error


async def read_json(request: Request, model: type[Any]) -> Any:
    """The body as `model`; raises ApiError that says which field is wrong."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "not_json", "The body must be JSON", "Send Content-Type: application/json")
    body = await read_body(request)
    try:
        return msgspec.json.decode(body, type=model)
    except UNDECODABLE as error:
        if isinstance(error, UnicodeDecodeError):
            raise ApiError(400, "bad_request", "The body is not UTF-8") from error
        raise ApiError(400, "bad_request", f"The body is not what this call takes: {error}") from error


def camera_in(status: RelayStatus, request: Request) -> CameraStatus:
    """The camera that the request's path names; raises UnknownCamera."""
    wanted = request.path_params["id"]
    for camera in status.cameras:
        if camera.id == wanted:
            return camera
    raise UnknownCamera(wanted, (camera.id for camera in status.cameras))


class Assets:
    """The files of the package's `static` directory, held in memory with their types and tags."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}
        for file in resources.files("relay_supervisor.http").joinpath("static").iterdir():
            kind = _TYPES.get("." + file.name.rpartition(".")[2])
            if kind is not None:
                data = file.read_bytes()
                self._files[file.name] = (data, kind, f'"{hashlib.sha256(data).hexdigest()[:20]}"')

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def reply(self, name: str, request: Request | None = None, status: int = 200) -> Response:
        """The file, or 304 when the client has it; raises ApiError (404)."""
        found = self._files.get(name)
        if found is None:
            raise ApiError(404, "not_found", "There is no such file")
        data, kind, tag = found
        headers = {"Cache-Control": "no-cache", "ETag": tag}
        if request is not None and tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        headers["Content-Type"] = kind
        return Response(data, status_code=status, headers=headers)


ASSETS: Final = Assets()


def sign_in_page(status: int) -> Response:
    """The page that asks for the token."""
    reply = ASSETS.reply("login.html", status=status)
    reply.headers["Cache-Control"] = "no-store"
    return reply


def watch_page(status: int) -> Response:
    """The page of one camera, which asks the API for what it may show."""
    reply = ASSETS.reply("watch.html", status=status)
    reply.headers["Cache-Control"] = "no-store"
    return reply
