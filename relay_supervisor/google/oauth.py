"""Access tokens for the SDM API, refreshed by google-auth in a thread.

`TokenSource.token()` never blocks the loop; callers share one refresh, which starts well before the token expires, so
that a few minutes' outage of the token endpoint goes unnoticed.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

import google.auth.exceptions
import google.auth.transport
import google.oauth2.credentials
import httpx

from relay_common.authorities import public_authorities
from relay_common.backoff import Backoff
from relay_common.bounded_http import bounded_exchange
from relay_common.clock import Clock
from relay_common.secrets import Secret, redact
from relay_common.spoken import spoken, unresolved
from relay_supervisor.google.errors import AuthorizationRevoked, ClientRefused, NestError, TokenUnavailable

SCOPE: Final = "https://www.googleapis.com/auth/sdm.service"
REDIRECT_URI: Final = "https://www.google.com"
_LONGEST_BODY: Final = 64 << 10
_AHEAD: Final = 600.0  # seconds before expiry from which a refresh is tried in the background
_LATEST: Final = 30.0  # seconds before expiry from which a token is no longer handed out
_AHEAD_SHARE: Final = 0.2  # the same two, capped as shares of the lifetime, for tokens that last only minutes
_LATEST_SHARE: Final = 0.05


def authorize_url(project_id: str, client_id: str, *, redirect_uri: str = REDIRECT_URI) -> str:
    """The Partner Connections Manager page where the owner of the cameras grants access.

    Source: https://developers.google.com/nest/device-access/authorize.
    """
    query = urllib.parse.urlencode(
        {
            "redirect_uri": redirect_uri,
            "access_type": "offline",
            "prompt": "consent",
            "client_id": client_id,
            "response_type": "code",
            "scope": SCOPE,
        }
    )
    project = urllib.parse.quote(project_id, safe="")
    return f"https://nestservices.google.com/partnerconnections/{project}/auth?{query}"


class TokenSource:
    """The access token of one Google account, always fresh.

    `timeout` bounds each of google-auth's (at most three) attempts, in seconds. After a failure Google is asked again
    only after a pause, and the calls in between raise the same error: seconds for an endpoint that cannot be reached,
    one minute to one hour for a refusal that only a person can fix. `replace_refresh_token` ends the pause.
    """

    def __init__(
        self,
        *,
        project_id: str,
        client_id: str,
        client_secret: Secret,
        refresh_token: Secret,
        token_url: str,
        clock: Clock,
        timeout: float = 5.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._project_id, self._client_id, self._client_secret = project_id, client_id, client_secret
        self._refresh_token, self._token_url, self._clock = refresh_token, token_url, clock
        self._http = httpx.AsyncClient(
            timeout=timeout,
            transport=transport,
            verify=public_authorities(),
            follow_redirects=False,
            trust_env=False,
        )
        self._timeout = timeout
        self._backoff = Backoff(1.0, 30.0)
        self._refused = Backoff(60.0, 3600.0)
        self._token = Secret("")
        self._life = self._expires = 0.0
        self._refreshing: asyncio.Task[None] | None = None
        self._failure: NestError | None = None
        self._not_before = 0.0
        self.refreshes = 0

    @property
    def error(self) -> NestError | None:
        """Why no token is available at present; None when one is."""
        return self._failure

    @property
    def asks_again(self) -> float:
        """When Google is asked again after a failure (monotonic); 0 without one."""
        return self._not_before

    async def token(self) -> Secret:
        """A token good for at least half a minute (a twentieth of its lifetime, if that is under ten minutes).

        Raises AuthorizationRevoked or ClientRefused (a person has to act) or TokenUnavailable.
        """
        while True:
            left = self._expires - self._clock.now() if self._token else 0.0
            if left > min(_AHEAD, _AHEAD_SHARE * self._life):
                return self._token
            refresh = self._start_refresh()
            if left > min(_LATEST, _LATEST_SHARE * self._life):
                return self._token
            if refresh is not None:
                await asyncio.shield(refresh)
            if self._failure is not None:
                raise self._failure
            if self._token:
                return self._token
            # That refresh was for a refresh token replaced since, or its access token was refused at once.

    def invalidate(self, token: Secret) -> None:
        """Discard `token`, which Google refused: the next call fetches another, unless that has happened already."""
        if token == self._token:
            self._token = Secret("")

    def replace_refresh_token(self, refresh_token: Secret) -> None:
        """Use this refresh token (a new one, or the same one again) from now on, without a pause."""
        self._refresh_token = refresh_token
        self._token, self._failure, self._not_before = Secret(""), None, 0.0
        self._refreshing = None  # a refresh under way is for the old one: its result is discarded
        self._backoff.reset()
        self._refused.reset()

    async def aclose(self) -> None:
        """Close the connection; a refresh under way ends with its current attempt."""
        if self._refreshing is not None:
            self._refreshing.cancel()
        await self._http.aclose()

    def _start_refresh(self) -> asyncio.Task[None] | None:
        """The refresh under way, a new one, or None when it is not time to ask again."""
        if self._refreshing is not None:
            return self._refreshing
        if self._clock.now() < self._not_before:
            return None
        self._refreshing = asyncio.create_task(self._refresh(), name="token refresh")
        return self._refreshing

    async def _refresh(self) -> None:
        refresh_token = self._refresh_token
        try:
            loop = asyncio.get_running_loop()
            token, life = await asyncio.to_thread(self._ask_google, refresh_token, loop)
        except Exception as error:  # google-auth raises any exception on an unexpected response
            if self._refreshing is asyncio.current_task():
                self._failure = _typed_failure(error)
                pauses = self._backoff if isinstance(self._failure, TokenUnavailable) else self._refused
                self._not_before = self._clock.now() + pauses.next_delay()
        else:
            if self._refreshing is asyncio.current_task():
                self._failure, self._not_before = None, 0.0
                self._token, self._life, self._expires = token, life, self._clock.now() + life
                self._backoff.reset()
                self._refused.reset()
                self.refreshes += 1
        finally:
            # Either way the next call may refresh again; a refresh for a newer refresh token is left alone.
            if self._refreshing is asyncio.current_task():
                self._refreshing = None

    def _ask_google(self, refresh_token: Secret, loop: asyncio.AbstractEventLoop) -> tuple[Secret, float]:
        """Refresh, blocking, over connections of `loop`; the token and its life in seconds."""
        credentials = google.oauth2.credentials.Credentials(  # type: ignore[no-untyped-call]
            token=None,
            refresh_token=refresh_token.reveal(),
            token_uri=self._token_url,
            client_id=self._client_id,
            client_secret=self._client_secret.reveal(),
        )
        try:
            credentials.refresh(_Request(self._http, loop, self._timeout))  # type: ignore[no-untyped-call]
        except google.auth.exceptions.RefreshError as error:
            raise self._typed(error) from None
        except google.auth.exceptions.GoogleAuthError as error:
            quoted = redact(str(error))[:200]
            failure = TokenUnavailable(f"Google's token endpoint cannot be reached: {quoted}")
            failure.unreached, failure.unresolved = True, unresolved(error)
            raise failure from None
        if not credentials.token:
            raise TokenUnavailable("Google's token endpoint answered without a token")
        # google-auth returns a wall-clock expiry it has just computed: turn it back into a duration, immune to clock
        # steps.
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        life = (credentials.expiry - now).total_seconds() if credentials.expiry else 3600.0
        return Secret(credentials.token), max(0.0, life)

    def _typed(self, error: google.auth.exceptions.RefreshError) -> NestError:
        body = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], dict) else {}
        code = str(body.get("error", ""))
        quoted = redact(str(error.args[0] if error.args else error))[:200]
        if code == "invalid_grant":
            return AuthorizationRevoked(
                f"Google refused the refresh token of project {self._project_id} ({quoted})",
                hint=self._how_to_authorise(),
            )
        if code in ("invalid_client", "unauthorized_client", "deleted_client", "disabled_client"):
            hint = (
                "Check nest.client_id and nest.client_secret: they belong to the OAuth client (type Web application) "
                "whose id was given to the Device Access project"
            )
            return ClientRefused(f"Google refused the OAuth client of project {self._project_id} ({quoted})", hint=hint)
        return TokenUnavailable(f"Google's token endpoint gave no token ({quoted})")

    def _how_to_authorise(self) -> str:
        return (
            "Authorise again: (1) open "
            f"{authorize_url(self._project_id, self._client_id)} in the browser of the Google account that owns the "
            "cameras, (2) switch on the home and every camera, allow, allow again, (3) copy the code from the address "
            "of the page you land on and run `relay-supervisor auth`, or store the new refresh token in the "
            "configuration and reload it; no restart is needed. If this comes back every 7 days, the OAuth consent "
            "screen is still in Testing: publish it to production first"
        )

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return {"refreshes": self.refreshes}


def _typed_failure(error: Exception) -> NestError:
    """The error to report for a failed refresh; of an unexpected one only its type: its text may quote the response."""
    if isinstance(error, NestError):
        return error
    return TokenUnavailable(f"the access token could not be refreshed: unexpected {type(error).__name__}")


class _Response(google.auth.transport.Response):
    """google-auth's view of an httpx response whose body has been read."""

    def __init__(self, response: httpx.Response, body: bytes) -> None:
        self._response, self._body = response, body

    @property
    def status(self) -> int:
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    @property
    def data(self) -> bytes:
        return self._body


class _Request(google.auth.transport.Request):
    """google-auth's transport, called in a thread, over an httpx client of `loop`.

    An exchange takes at most `within` seconds, however slowly header and body of the answer trickle in, and is bounded:
    httpx itself limits the time between two bytes.
    """

    def __init__(self, http: httpx.AsyncClient, loop: asyncio.AbstractEventLoop, within: float) -> None:
        self._http, self._loop, self._within = http, loop, within

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> _Response:
        exchange = bounded_exchange(
            self._http, method, url, content=body, headers=headers, within=self._within, most=_LONGEST_BODY
        )
        try:
            return _Response(*asyncio.run_coroutine_threadsafe(exchange, self._loop).result())
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError, concurrent.futures.CancelledError) as error:
            # The last two: the client was closed while a retry waited, or the loop.
            exchange.close()
            raise google.auth.exceptions.TransportError(spoken(error)) from error  # type: ignore[no-untyped-call]
