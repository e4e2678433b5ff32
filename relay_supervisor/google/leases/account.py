"""One Google account: its token, its API, its leases and their budget."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

import httpx

from relay_common.authorities import public_authorities
from relay_common.clock import Clock
from relay_common.config import LimitsConfig, NestConfig
from relay_common.secrets import Secret
from relay_supervisor.google.api import NestApi
from relay_supervisor.google.leases.effects import Effect
from relay_supervisor.google.leases.manager import LeaseManager
from relay_supervisor.google.oauth import TokenSource
from relay_supervisor.google.quota.dispatcher import OfferSource, OnCommand
from relay_supervisor.google.quota.limits import limits_from
from relay_supervisor.state.store import Store

log = logging.getLogger(__name__)


def open_api(config: NestConfig, clock: Clock) -> tuple[NestApi, TokenSource, httpx.AsyncClient]:
    """The SDM API of an account, and the token source and HTTP client to close after use."""
    tokens = TokenSource(
        project_id=config.project_id,
        client_id=config.client_id,
        client_secret=config.client_secret,
        refresh_token=config.refresh_token,
        token_url=config.token_url,
        clock=clock,
    )
    http = httpx.AsyncClient(verify=public_authorities(), trust_env=False)
    return NestApi(config.project_id, tokens, config.api_base_url, http, wall=clock.wall), tokens, http


class Account:
    """The control plane of one [[nest]] table."""

    def __init__(
        self,
        config: NestConfig,
        limits: LimitsConfig,
        clock: Clock,
        store: Store,
        on_effect: Callable[[Effect], None],
        offer: OfferSource,
        rng: random.Random,
        name: str = "",
        on_command: OnCommand = lambda *_: None,
    ) -> None:
        """`name` distinguishes it from others of the same project, whose users have separate budgets."""
        self.api, self.tokens, self._http = open_api(config, clock)
        self.leases = LeaseManager(
            account=name or config.project_id,
            api=self.api,
            limits=limits_from(limits),
            clock=clock,
            on_effect=on_effect,
            offer=offer,
            store=store,
            rng=rng,
            on_command=on_command,
        )
        self._refresh_token = config.refresh_token
        self._task: asyncio.Task[None] | None = None

    def start(self, keep: Callable[[str, Callable[[], Awaitable[None]]], asyncio.Task[None]], name: str) -> None:
        """Start serving leases; `keep` (`Loops.start`) keeps an endless loop running under `name`."""
        self._task = keep(name, self.leases.run)

    def authorised(self, refresh_token: Secret) -> bool:
        """Apply a reloaded refresh token; whether Google is asked again, because the token is new or had failed."""
        if refresh_token == self._refresh_token and self.tokens.error is None and not self.leases.book.account_error:
            return False
        self._refresh_token = refresh_token
        self.tokens.replace_refresh_token(refresh_token)
        self.leases.resume_account()
        return True

    @property
    def running(self) -> bool:
        """Whether the task that serves the leases is alive."""
        return self._task is not None and not self._task.done()

    async def stop(self, *, release: bool, within: float = 1.0) -> None:
        """Stop serving; with `release` end the streams at Google as far as budget and time allow."""
        if release:
            await self.leases.release_all(within)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.tokens.aclose()
        await self._http.aclose()

    def counters(self) -> dict[str, int]:
        """Totals since the start, by name."""
        return self.leases.counters() | self.tokens.counters()
