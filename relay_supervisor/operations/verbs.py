"""Operators' commands to a running supervisor: the server side of the command line's verbs."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from relay_common import log as log_setup
from relay_common import protocol
from relay_common.clock import Clock
from relay_common.config import Config
from relay_common.disk import DiskWork
from relay_common.errors import ConfigError, RelayError, Remedy
from relay_common.proc import start_ticks
from relay_common.protocol import FromWorker
from relay_supervisor.cameras.director import Director
from relay_supervisor.cameras.discovery import Discovery
from relay_supervisor.cameras.registry import Camera, Registry
from relay_supervisor.fleet.slot import Phase
from relay_supervisor.google import grant
from relay_supervisor.google.leases.account import Account
from relay_supervisor.operations.reload import ReloadReport, compare, merged
from relay_supervisor.operations.worker_files import WorkerFiles
from relay_supervisor.status.log_ring import LogEntry, LogRing

log = logging.getLogger(__name__)

DRAIN_TIMEOUT: Final = 8.0
"""Seconds for one camera to stop while draining, before the next one is stopped."""


class CameraChange(msgspec.Struct, frozen=True, kw_only=True):
    """A camera after add, remove, enable or disable; `why_not` says why it does not run, when it does not."""

    id: str
    name: str
    running: bool
    why_not: str = ""


class Stopping(msgspec.Struct, frozen=True, kw_only=True):
    """Which process is ending: its pid and kernel start time (`relay_common.proc.start_ticks`)."""

    pid: int
    started: int


class DrainStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of draining: display names of the cameras that still run."""

    draining: bool
    left: list[str]


class Verbs:
    """Operators' commands. `reread` reads the configuration again (None: it has no file).

    Methods raise a RelayError that says what to do.
    """

    def __init__(
        self,
        config: Config,
        *,
        registry: Registry,
        director: Director,
        accounts: Sequence[Account],
        discoveries: Sequence[Discovery],
        clock: Clock,
        reread: Callable[[], Config] | None,
        on_config: Callable[[Config], None],
    ) -> None:
        self.stop_requested = asyncio.Event()
        self.keep_workers = False
        self.logs = LogRing(name_of=registry.name_of)
        self._config, self._reread, self._on_config = config, reread, on_config
        self._registry, self._director = registry, director
        self._accounts, self._discoveries, self._clock = accounts, discoveries, clock
        self._files = WorkerFiles(director.fleet.send)
        self._debug: list[str] = []
        self._grants: list[grant.Grant | None] = [None] * len(config.nest)
        self._disk, self._reloading = DiskWork("reload"), asyncio.Lock()
        self._draining: asyncio.Task[None] | None = None

        director.listen(self)

    def load(self) -> None:
        """Read from the state directory when each account was authorised."""
        self._grants = _recall(self._config)

    def close(self) -> None:
        """Cancel what is under way."""
        if self._draining is not None:
            self._draining.cancel()

    # --- messages of workers --------------------------------------------------------------------------------------

    def worker_ready(self, camera: Camera) -> None:
        """Send a new worker the current log settings."""
        self._director.fleet.send(camera.id, self._log_settings())

    def worker_message(self, camera: Camera, message: FromWorker) -> None:
        """Handle a worker's answer to a verb, or its log line."""
        match message:
            case protocol.FilePart():
                self._files.receive_part(camera.id, message)
            case protocol.LogLine():
                self.logs.worker_line(camera.name, message)
            case _:
                pass

    # --- single cameras ------------------------------------------------------------------------------------------

    async def change(self, camera: str, *, included: bool | None = None, enabled: bool | None = None) -> CameraChange:
        """Add (`included`), remove, enable or disable a camera; it persists across restarts until reversed."""
        found = self._registry.find(camera)
        await self._registry.override(found, included=included, enabled=enabled)
        self._director.reconcile()
        why_not = self._registry.why_not(found)
        return CameraChange(id=found.id, name=found.name, running=not why_not, why_not=why_not)

    async def snapshot(self, camera: str) -> bytes:
        """A JPEG of what a camera shows now."""
        return await self._files.snapshot(camera, self._registry.find(camera).name)

    async def capture(self, camera: str, seconds: float) -> bytes:
        """A camera's packets of the next `seconds` as a pcapng file."""
        return await self._files.capture(camera, self._registry.find(camera).name, seconds)

    async def discover(self) -> int:
        """List the cameras of every account now; returns how many there are."""
        for discovery in self._discoveries:
            await discovery.refresh()
        return len(list(self._registry))

    # --- the whole relay -----------------------------------------------------------------------------------------

    def stop(self, *, keep_workers: bool) -> Stopping:
        """End the supervisor, and with it its workers unless `keep_workers`."""
        self.keep_workers = keep_workers
        self.stop_requested.set()
        return Stopping(pid=os.getpid(), started=start_ticks(os.getpid()))

    def drain(self, on: bool) -> DrainStatus:
        """Stop all cameras one by one and start none until draining is ended with `on` False."""
        if self._draining is not None:
            self._draining.cancel()
            self._draining = None
        if on:
            self._registry.only = set(self._director.running)
            self._draining = asyncio.get_running_loop().create_task(self._drain(), name="drain")
        else:
            self._registry.only = None
            self._director.reconcile()
        return self.drained()

    def drained(self) -> DrainStatus:
        """The progress of draining."""
        left = [camera.name for camera in self._director.running.values()]
        return DrainStatus(draining=self._registry.only is not None, left=left)

    async def _drain(self) -> None:
        held = self._registry.only or set()
        # Those without a picture first: they are the ones for which a new stream might be generated meanwhile.
        for camera in sorted(held, key=self._is_live):
            held.discard(camera)
            self._director.reconcile()
            end = self._clock.now() + DRAIN_TIMEOUT
            while self._runs(camera) and self._clock.now() < end:
                await self._clock.sleep(0.1)
        log.info("drained: no camera runs")

    def _runs(self, camera: str) -> bool:
        slot = self._director.fleet.slot(camera)
        return slot is not None and slot.phase is not Phase.ABSENT

    def _is_live(self, camera: str) -> bool:
        slot = self._director.fleet.slot(camera)
        return slot is not None and slot.state is protocol.WorkerState.LIVE

    async def reload(self) -> ReloadReport:
        """Reload the configuration and the overrides and apply what can be applied; mistakes change nothing."""
        reread = self._reread
        if reread is None:
            raise RelayError(
                "this relay has no configuration file", remedy=Remedy.PARK, hint="It was started for a demo"
            )
        async with self._reloading:
            fresh, grants = await self._read_again(reread)
            await self._registry.overrides.reload()
            return self._adopt(fresh, grants)

    async def _read_again(self, reread: Callable[[], Config]) -> tuple[Config, list[grant.Grant | None]]:
        """The configuration, and when its accounts were authorised."""
        known = self._config

        def read() -> tuple[Config, list[grant.Grant | None]]:
            fresh = reread()
            return fresh, _recall(merged(known, fresh))

        try:
            return await self._disk.do(read)
        except ConfigError as error:
            message, hint = error.message, error.hint or "Correct it and reload"
        except (OSError, RuntimeError) as error:  # the latter without a thread
            message = getattr(error, "strerror", "") or str(error)
            hint = "Look at the disk that the configuration and its secrets are on, and reload"
        raise RelayError(f"nothing was changed: {message}", remedy=Remedy.PARK, hint=hint)

    def _adopt(self, fresh: Config, grants: list[grant.Grant | None]) -> ReloadReport:
        report = compare(self._config, fresh)
        previous, self._config = self._config, merged(self._config, fresh)
        self._on_config(self._config)
        self._registry.config = self._config.cameras
        self._grants = grants
        for account, discovery, nest in zip(self._accounts, self._discoveries, self._config.nest, strict=True):
            if account.authorised(nest.refresh_token):
                discovery.wake()
        if previous.log != self._config.log:
            log_setup.configure(self._config.log.level, self._config.log.format)
            self.logs.install()
            self._tell_log_settings()
        self._director.reconcile()
        for key in report.restart:
            log.warning("%s has changed: it takes effect when the supervisor is restarted", key)
        log.info("configuration reloaded: %s", ", ".join(report.applied + report.later) or "nothing to apply")
        return report

    def auth_warning(self, account: int) -> str:
        """Warning that this account's authorisation expires soon; "" when it does not, or that is not known."""
        return grant.warning(self._grants[account], self._clock.wall())

    # --- logs ----------------------------------------------------------------------------------------------------

    def recent(self, *, after: int, camera: str, level: str, most: int) -> list[LogEntry]:
        """Lines of the log; `camera` is an id, or empty for all."""
        name = self._registry.find(camera).name if camera else ""
        return self.logs.since(after, camera=name, level=level, most=most)

    @property
    def debug(self) -> list[str]:
        """Subsystems whose debug lines are switched on."""
        return self._debug

    def set_debug(self, categories: list[str]) -> None:
        """Switch the debug lines of these subsystems on, here and in all workers, and those of the others off.

        Raises ValueError when there is no such subsystem.
        """
        log_setup.set_debug(categories)
        self._debug = sorted(set(categories))
        self._tell_log_settings()

    def _tell_log_settings(self) -> None:
        for camera in self._director.running:
            self._director.fleet.send(camera, self._log_settings())

    def _log_settings(self) -> protocol.SetLog:
        return protocol.SetLog(level=self._config.log.level, debug=self._debug)


def _recall(config: Config) -> list[grant.Grant | None]:
    state_dir = config.paths.state()
    return [grant.recall(state_dir, nest.refresh_token) for nest in config.nest]
