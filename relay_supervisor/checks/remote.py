"""Checks that ask Google and Cloudflare: token, cameras, application, and the clocks on both sides."""

from __future__ import annotations

import contextlib
import difflib
import email.utils
import random
import time
from typing import Final

import httpx

from relay_common.authorities import public_authorities
from relay_common.clock import SystemClock
from relay_common.cloudflare import SfuClient, SfuError, TurnError, TurnKey
from relay_common.config import CamerasConfig, CloudflareConfig, NestConfig
from relay_common.errors import ConfigError
from relay_supervisor.checks.report import Finding, failed, of_account, ok, warn
from relay_supervisor.google.api import NestApi
from relay_supervisor.google.errors import NestError
from relay_supervisor.google.models import Listing
from relay_supervisor.google.oauth import TokenSource, authorize_url

SKEW_NOTED = 5.0
SKEW_BAD = 300.0
"""Seconds between our clock and a server's: certificates and tokens fail when they differ by minutes."""


_STREAMLESS: Final = (
    "Try it in the Google Home app: one that is offline there is listed like this. Cameras and doorbells of the 3rd "
    "generation can be listed for good with motion and persons, but no stream (and doorbells without their chime): "
    "nothing can be set against that, and the relay takes the camera when Google lists its stream"
)
_UNGRANTED: Final = "(one that is not offered there cannot be granted: some of Google's newest devices are not)"


class DatedTransport(httpx.AsyncHTTPTransport):
    """Records how far the server's clock is ahead of ours, from the Date header (whole seconds, RFC 9110 6.6.1)."""

    def __init__(self) -> None:
        super().__init__(verify=public_authorities())
        self.skew: float | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        sent = time.time()
        response = await super().handle_async_request(request)
        with contextlib.suppress(KeyError, ValueError, TypeError):
            date = email.utils.parsedate_to_datetime(response.headers["date"]).timestamp()
            self.skew = _skew(date, sent, time.time())
        return response


def _skew(date: float, sent: float, received: float) -> float:
    """How far a server's clock is ahead of ours at least: it said `date`, in whole seconds, at some time between."""
    return max(0.0, date - received) + min(0.0, date + 1.0 - sent)


async def google(nest: NestConfig) -> tuple[list[Finding], Listing, float | None]:
    """Token and devices.list of one account: findings, the devices, and the clock's skew in seconds."""
    transport = DatedTransport()
    http = httpx.AsyncClient(transport=transport, trust_env=False)
    tokens = TokenSource(
        project_id=nest.project_id,
        client_id=nest.client_id,
        client_secret=nest.client_secret,
        refresh_token=nest.refresh_token,
        token_url=nest.token_url,
        clock=SystemClock(),
    )
    try:
        try:
            await tokens.token()
        except NestError as error:
            return [failed("Google token", error.message, error.hint or "Try again in a minute")], Listing([]), None
        findings = [ok("Google token", "the refresh token yields access tokens")]
        try:
            listing = await NestApi(nest.project_id, tokens, nest.api_base_url, http).listing()
        except NestError as error:
            return (
                [*findings, failed("Google cameras", error.message, error.hint or "Try again in a minute")],
                Listing([]),
                transport.skew,
            )
        return findings, listing, transport.skew
    finally:
        await tokens.aclose()
        await http.aclose()


def cameras(
    listings: list[Listing], config: CamerasConfig, nests: list[NestConfig], accounts: list[str]
) -> list[Finding]:
    """Compare the cameras that Google lists with those that the configuration names; `accounts` are the names of those
    that list them, "" for a single one.
    """
    found = [device for listing in listings for device in listing.devices]
    part = "Google cameras"
    links = [authorize_url(nest.project_id, nest.client_id) for nest in nests]
    findings = []
    for listing, link, account in zip(listings, links, accounts, strict=True):
        findings += of_account(_shared(listing, link, others=bool(found)), account)
    if not found:
        return findings
    known = {device.display_name for device in found} | {device.id for device in found}
    asked = set(config.settings) | (set() if config.include == "all" else set(config.include))
    findings += [
        failed(
            part,
            f"the configuration names {name!r}, but Google shows no such camera",
            _how_to_find(name, known, " or ".join(links)),
        )
        for name in sorted(asked - known)
    ]
    if not any(config.included(device.display_name, device.id) for device in found):
        findings.append(warn(part, "none of them is to be relayed", "Look at [cameras] include and enabled"))
    return findings


def _shared(listing: Listing, link: str, *, others: bool) -> list[Finding]:
    """What there is to say of the cameras of one account; `others`: there are cameras, here or in another one."""
    part = "Google cameras"
    without = [
        warn(part, f"Google lists {which} without a live stream, so it cannot be relayed", _STREAMLESS)
        for which in listing.streamless
    ]
    if not listing.devices:
        grade = warn if others else failed
        return [
            grade(part, "none is shared with this project", f"Switch on the home and its cameras at {link}"),
            *without,
        ]
    names = [f"{device.display_name} ({device.protocol.value})" for device in listing.devices]
    return [ok(part, f"{len(names)} found: {', '.join(names)}"), *without]


def _how_to_find(name: str, known: set[str], link: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    correct = f"Did you mean {near[0]!r}? Correct it" if near else f"Correct the name {name!r}"
    return f"{correct} in [cameras], or switch the camera on at {link} {_UNGRANTED}"


async def cloudflare(config: CloudflareConfig) -> tuple[Finding, float | None]:
    """Check that the application can create sessions (unused ones expire by themselves); also the clock's skew."""
    part = "Cloudflare app"
    transport = DatedTransport()
    try:
        client = SfuClient(
            config.app_id,
            config.app_secret,
            clock=SystemClock(),
            rng=random.Random(),
            base_url=config.api_base_url,
            transport=transport,
        )
    except ConfigError as error:
        return failed(part, error.message, error.hint), None
    try:
        await client.new_session("check")
    except SfuError as error:
        remedy = error.hint
        if error.status in (401, 403, 404):
            remedy = "Compare cloudflare.app_id and app_secret with dash.cloudflare.com, Realtime > SFU"
        return failed(part, error.message, remedy or "Try again in a minute"), transport.skew
    finally:
        await client.aclose()
    return ok(part, f"application {config.app_id} accepts our secret"), transport.skew


async def turn(config: CloudflareConfig) -> Finding | None:
    """Check that the TURN key issues credentials, by one that lives for a minute; None without a key."""
    part = "Cloudflare TURN"
    if not config.turn.key_id:
        return None
    key = TurnKey(config.turn.key_id, config.turn.api_token, base_url=config.api_base_url)
    try:
        servers = await key.issue(60.0)
    except TurnError as error:
        return failed(part, error.message, error.hint or "Try again in a minute")
    finally:
        await key.aclose()
    urls = [url for server in servers if server.credential for url in server.urls]
    return ok(part, f"key {config.turn.key_id} issues credentials, for {urls[0]} and {len(urls) - 1} other URLs")


def clock(skews: list[float | None]) -> Finding:
    """Compare our clock with those of the servers that answered."""
    part = "clock"
    known = [skew for skew in skews if skew is not None]
    if not known:
        return warn(part, "not tested: no server sent its time")
    worst = max(known, key=abs)
    if abs(worst) <= SKEW_NOTED:
        return ok(part, f"within {SKEW_NOTED:.0f} s of the servers'")
    text = f"this machine is {abs(worst):.0f} s {'behind' if worst > 0 else 'ahead of'} the servers"
    remedy = "Keep the time by NTP: timedatectl set-ntp true"
    return failed(part, text, remedy) if abs(worst) > SKEW_BAD else warn(part, text, remedy)
