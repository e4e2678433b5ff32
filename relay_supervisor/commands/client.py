"""The command line's connection to the running supervisor: HTTP over its Unix socket, or over TCP with the token."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import quote

import click
import click.shell_completion
import httpx
import msgspec

from relay_common import config_file
from relay_common.config import HttpConfig, PathsConfig
from relay_common.config_accounts import path_of
from relay_common.errors import ConfigError
from relay_common.undecodable import UNDECODABLE
from relay_supervisor.commands import listener
from relay_supervisor.commands.cli import Failure, chosen_account
from relay_supervisor.net import require_usable, resolve, split_listen

TIMEOUT: Final = 10.0

_NO_ACCOUNT: Final = {
    "not_found": "This supervisor's accounts have no names of their own: leave out --account {}",
    "unknown_account": "The supervisor has no account {}: `relay-supervisor status` lists them",
}
"""What one that does not have the account of `--account` has answered, by its code, and what to do."""

T = TypeVar("T")


class CameraSummary(msgspec.Struct, kw_only=True):
    """One camera in GET /api/cameras."""

    id: str
    name: str
    device: str
    """The end of the SDM device id, behind an ellipsis."""
    protocol: str = ""
    state: str = ""
    reason: str = ""
    enabled: bool = True
    codecs: list[str] = []
    width: int = 0
    height: int = 0
    account: str = ""


class CameraList(msgspec.Struct):
    """Answer of GET /api/cameras."""

    cameras: list[CameraSummary]


class _ErrorBody(msgspec.Struct):
    code: str = ""
    message: str = ""
    hint: str = ""


class _ErrorReply(msgspec.Struct):
    error: _ErrorBody = msgspec.field(default_factory=_ErrorBody)


class RelayClient:
    """Client of the supervisor that `paths` and `http` point at, or of one of its accounts; a context manager.

    Every method raises `Failure`: exit code 3 when no supervisor answers, 2 when it requires another token, 1 when it
    refuses.
    """

    def __init__(self, paths: PathsConfig, http: HttpConfig, account: str = "") -> None:
        self._socket, self._state = paths.socket(), paths.state()
        self._account, self._below = account, path_of(quote(account, safe="")) if account else ""
        self._host, self._port = _tcp_address(http)
        self._tcp = _url(self._host, self._port)
        self._token = http.token
        self._http = httpx.Client(
            base_url="http://localhost",
            transport=httpx.HTTPTransport(uds=str(self._socket), verify=False),  # no TLS: a context takes 60 ms
            timeout=TIMEOUT,
        )

    def __enter__(self) -> RelayClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, *, timeout: float = TIMEOUT, **query: str | int) -> bytes:
        """The body of an answer to GET."""
        return self._request("GET", path, params=query, timeout=timeout).content

    def post(self, path: str, body: Any = None, *, timeout: float = TIMEOUT) -> bytes:
        """The body of an answer to POST."""
        content = msgspec.json.encode(body) if body is not None else b""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        return self._request("POST", path, content=content, headers=headers, timeout=timeout).content

    def delete(self, path: str) -> bytes:
        """The body of an answer to DELETE."""
        return self._request("DELETE", path).content

    def alive(self) -> bool:
        """Whether the supervisor still answers where it answered before."""
        try:
            return self._http.get("/livez").status_code == 200
        except httpx.HTTPError:
            return False

    def cameras(self) -> list[CameraSummary]:
        """All cameras known to the supervisor."""
        return decode(self.get("/api/cameras"), CameraList).cameras

    def camera(self, name: str) -> CameraSummary:
        """The camera that `name` means: its id, its display name in any case, or the end of its device id."""
        return pick(self.cameras(), name)

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        path = f"{self._below}{path}"
        try:
            try:
                response = self._http.request(method, path, **options)
            except (httpx.ConnectError, PermissionError):
                self._switch_to_tcp()
                response = self._http.request(method, path, **options)
        except httpx.TimeoutException:
            raise Failure("The supervisor did not answer in time. Look at its log, or try again") from None
        except httpx.HTTPError:
            raise Failure(
                f"No supervisor answers at {self._socket} or {self._tcp}. Start one with `relay-supervisor run`, or "
                "name the configuration that it runs with (--config): paths.runtime_dir and http.listen say where",
                3,
            ) from None
        if response.status_code == 401:
            sent = "Authorization" in self._http.headers
            raise Failure(
                "The supervisor requires a token: set http.token (or http.token_file) to the same value"
                if sent or not self._token
                else f"No process on this machine is known to listen at {self._tcp}, so the token was not sent. Run "
                "this where the supervisor runs (in its container: docker compose exec)",
                2,
            )
        if response.status_code >= 400:
            error = _error(response)
            if self._account and error.code in _NO_ACCOUNT:
                raise Failure(_NO_ACCOUNT[error.code].format(self._account), 2)
            raise Failure(f"{error.message}. {error.hint}" if error.hint else error.message)
        return response

    def _switch_to_tcp(self) -> None:
        self._http.close()
        headers = {}
        # A name is resolved once, so that the token goes to the address whose owner was looked up.
        address = resolve(self._host, self._port)
        if self._token and (owners := listener.owners(address, self._port)):
            # A process that took the port while the supervisor is down would be handed full access.
            if not listener.trusted(owners, self._state, self._socket.parent):
                raise Failure(
                    f"{self._socket} does not answer, and {self._tcp} is served by another user's process "
                    f"(uid {', '.join(map(str, sorted(owners)))}): the token was not sent there. Is the supervisor "
                    "running? Run this as its user, or as root",
                    3,
                )
            require_usable(self._token)
            headers = {"Authorization": f"Bearer {self._token.reveal()}"}
        self._http = httpx.Client(
            base_url=_url(address, self._port), headers=headers, timeout=TIMEOUT, trust_env=False, verify=False
        )


def _complete_camera(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[click.shell_completion.CompletionItem]:
    """Names of cameras for the shell; none when no supervisor answers."""
    try:
        with connect(Path(context.params.get("config_path") or "relay.toml"), tell=None) as client:
            names = [camera.name for camera in client.cameras()]
    except (Failure, ConfigError):
        return []
    fitting = [name for name in names if name.casefold().startswith(incomplete.casefold())]
    return [click.shell_completion.CompletionItem(name) for name in fitting]


camera_argument = click.argument("name", shell_complete=_complete_camera)
"""The NAME argument of verbs that act on one camera."""


def _tell(text: str) -> None:
    click.echo(text, err=True)


def connect(config_path: Path, *, tell: Callable[[str], None] | None = _tell) -> RelayClient:
    """A client of the supervisor that runs with the configuration at `config_path`.

    If the default file does not exist, the environment and the defaults say where to look. So they do, with what can be
    read of the file, where that is not valid TOML, which `tell` is told; without `tell` that ends the command with exit
    code 2, as mistakes in [paths] and [http] do.
    """
    default = config_path == Path("relay.toml") and not config_path.exists()
    try:
        paths, http = config_file.load_interface(None if default else config_path)
    except config_file.NotToml as error:
        if tell is None:
            raise
        paths, http = config_file.salvage_interface(config_path)
        tell(f"{error}\nA supervisor that runs is asked nevertheless, at {paths.socket()}")
    return RelayClient(paths, http, chosen_account())


def decode(body: bytes, kind: type[T]) -> T:
    """An answer as `kind`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except UNDECODABLE as error:
        raise Failure(f"The supervisor's answer cannot be understood ({error}). Is it another version?") from None


def pick(cameras: list[CameraSummary], name: str) -> CameraSummary:
    """The camera that `name` means among `cameras`; see `RelayClient.camera`."""
    tail = f"…{name[-8:]}"
    found = [c for c in cameras if name in (c.id, c.name)] or [
        c for c in cameras if c.name.casefold() == name.casefold() or (len(name) > 20 and c.device == tail)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(f"{c.id} (device {c.device})" for c in found)
        raise Failure(f"{len(found)} cameras are called {name!r}: use an id instead: {ids}")
    known = [c.name for c in cameras]
    near = difflib.get_close_matches(name.casefold(), [k.casefold() for k in known], n=1)
    hint = next((f"Did you mean {k!r}?" for k in known if near and k.casefold() == near[0]), "")
    raise Failure(
        f"There is no camera {name!r}. {hint or 'There are: ' + (', '.join(known) or 'none yet')}\n"
        "A camera that was shared with the project only just now is found by `relay-supervisor add NAME`"
    )


def require_writable(file: str) -> None:
    """Raise Failure at once where `save` could not write: what it is to write may take a minute to come."""
    path = Path(file)
    if file != "-" and not path.exists() and not path.parent.is_dir():
        raise Failure(f"{path} cannot be written: there is no directory {path.parent}. Name another file")
    if file != "-" and not os.access(path if path.exists() else path.parent, os.W_OK):
        raise Failure(f"{path} cannot be written: permission denied. Name another file")


def save(
    camera: CameraSummary, file: str, ending: str, content: bytes, as_json: bool, *, private: bool = False
) -> None:
    """Write a camera's file, and say so; without a name it gets the camera's, and - is standard output."""
    if file == "-":
        sys.stdout.buffer.write(content)
        return
    path = Path(file or f"{camera.name.replace('/', '-')}.{ending}")
    try:
        if private:
            path.touch(mode=0o600)
        path.write_bytes(content)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}. Name another file") from None
    report = {"camera": camera.id, "name": camera.name, "file": str(path), "bytes": len(content)}
    say(f"{camera.name}: {path} ({len(content) / 1024:.0f} KiB)", msgspec.json.encode(report), as_json)


def say(text: str, body: bytes, as_json: bool) -> None:
    """Print the answer itself with --json, else `text`."""
    click.echo(body.decode() if as_json else text)


def _tcp_address(http: HttpConfig) -> tuple[str, int]:
    host, port = split_listen(http.listen)
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _error(response: httpx.Response) -> _ErrorBody:
    answered = f"the supervisor answered {response.status_code}"
    try:
        error = msgspec.json.decode(response.content, type=_ErrorReply).error
    except UNDECODABLE:
        return _ErrorBody(message=answered.capitalize())
    return msgspec.structs.replace(error, message=error.message or answered)
