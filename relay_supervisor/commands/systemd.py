"""Reports the service's state to systemd (sd_notify(3)): ready, alive, stopping. Does nothing elsewhere."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import MutableMapping

log = logging.getLogger(__name__)


class ServiceManager:
    """The service manager's socket, from `NOTIFY_SOCKET`, and its watchdog, from `WATCHDOG_USEC` and `WATCHDOG_PID`.

    The variables are removed from `environ`, so that no child process reports in our name.
    """

    def __init__(self, environ: MutableMapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = environ.pop("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        """Kept open: when descriptors run out, the watchdog must not end a relay that works."""
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        ours = pid in ("", str(os.getpid()))
        self.watchdog = int(usec) / 1e6 if usec.isdecimal() and ours else 0.0
        """Seconds without a watchdog message after which systemd kills us; 0: never."""

    def ready(self) -> None:
        """Report that the service is up."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Report that the service is stopping."""
        self._send("STOPPING=1")
        self._close()

    async def keep_alive(self) -> None:
        """Notify the watchdog twice per period until cancelled, from the event loop whose life it proves."""
        while self.watchdog and self._address:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog / 2)

    def _send(self, state: str) -> None:
        if not self._address:
            return
        # A leading @ denotes the zero byte of an abstract address.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
            self._socket.sendto(state.encode(), address)
        except OSError as error:
            log.warning("systemd could not be notified of %s: %s", state, error.strerror)

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
