"""Structured logs for people (console) and machines (JSON), redacted on the way out.

Context travels as the `extra` of a record: `log.info("extended", extra={"camera": "front-door", …})`. Every line,
including those of libraries, passes `redact`, so a secret that slips into a message or traceback stays out of the log.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final

import msgspec

from relay_common.secrets import redact
from relay_common.stderr import StderrHandler

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
NOISY: Final = (
    *("httpx", "httpcore", "httpx2", "httpcore2"),
    *("aioice", "aiortc", "google", "urllib3", "uvicorn.access", "libav"),
)
"""Libraries that log every request and every ICE check at INFO, URLs included: of them only warnings are written."""
_COLOURS: Final = {"DEBUG": "2", "INFO": "36", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


_ACCOUNT: Final = ContextVar("account", default="")


def log_account(account: str) -> None:
    """Have all that this task logs from now on, and what it starts, name the account that it is about."""
    _ACCOUNT.set(account)


def account_logged() -> str:
    """The account that what is logged now is about; "" where there is but one, or it is about all."""
    return _ACCOUNT.get()


def _context(record: logging.LogRecord) -> dict[str, Any]:
    return {k: v for k, v in vars(record).items() if k not in _STANDARD}


def whole_line(record: logging.LogRecord, longest: int) -> str:
    """A record as text, redacted: message, context but for camera, instance and account, traceback.

    Of a longer one the middle is left out: a traceback's end says most.
    """
    context = "".join(f" {k}={v}" for k, v in _context(record).items() if k not in ("camera", "instance", "account"))
    text = record.getMessage() + context
    if record.exc_info and record.exc_info[1] is not None:
        text += "\n" + logging.Formatter().formatException(record.exc_info)
    text, head = redact(text), longest // 4
    return text if len(text) <= longest else f"{text[:head]}\n…\n{text[head + 3 - longest :]}"


class ConsoleFormatter(logging.Formatter):
    """`12:00:01.123 INFO  leases: extended camera=front-door expires_in=300`"""

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}"
        level = f"{record.levelname:<7}"
        if self._colour:
            level = f"\x1b[{_COLOURS.get(record.levelname, '0')}m{level}\x1b[0m"
        context = "".join(f" {k}={redact(str(v))}" for k, v in _context(record).items())
        line = f"{clock} {level} {record.name.removeprefix('relay_')}: {redact(record.getMessage())}{context}"
        if record.exc_info:
            line += "\n" + redact(self.formatException(record.exc_info))
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339), level, logger, message and the record's context."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        entry: dict[str, Any] = {
            "time": stamp,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        entry |= {k: redact(v) if isinstance(v, str) else v for k, v in _context(record).items()}
        if record.exc_info:
            entry["exception"] = redact(self.formatException(record.exc_info))
        return msgspec.json.encode(entry, enc_hook=lambda value: redact(str(value))).decode()


class ContextFilter(logging.Filter):
    """Adds the process's own context (camera and instance) to every record that does not carry it, and the account."""

    def __init__(self, context: Mapping[str, str]) -> None:
        super().__init__()
        self._entries = dict(context)

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in self._entries.items():
            if not hasattr(record, name):
                setattr(record, name, value)
        if account := account_logged():
            record.account = account
        return True


class CameraNames(logging.Filter):
    """Puts a camera's name where a record carries its id, or the instance of one of its workers and no camera.

    `name_of` gives the display name for a camera's id, and any other word as it is. Added to handlers, not to loggers,
    so that it sees the records of all.
    """

    def __init__(self, name_of: Callable[[str], str]) -> None:
        super().__init__()
        self._name_of = name_of

    def filter(self, record: logging.LogRecord) -> bool:
        instance = str(getattr(record, "instance", ""))
        camera = str(getattr(record, "camera", "")) or instance.partition(".")[0]
        if camera:
            record.camera = self._name_of(camera)
        return True

    def install(self) -> None:
        """Name cameras in what all handlers of this process write."""
        for handler in logging.getLogger().handlers:
            handler.addFilter(self)

    def remove(self) -> None:
        """Name them no longer."""
        for handler in logging.getLogger().handlers:
            handler.removeFilter(self)


def configure(level: str = "info", style: str = "console", context: Mapping[str, str] | None = None) -> None:
    """Send all logs to standard error; `style` is "console" or "json", `context` goes into every line.

    Logging never waits for the reader of standard error (`relay_common.stderr`).
    """
    handler = StderrHandler()
    handler.addFilter(ContextFilter(context or {}))
    handler.setFormatter(JsonFormatter() if style == "json" else ConsoleFormatter(sys.stderr.isatty()))
    root = logging.getLogger()
    flush()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # A worker that outlives its terminal must not die from a closed pipe.
    logging.raiseExceptions = False


def flush() -> None:
    """Wait at most a second for logged lines to be written; for exits that bypass `atexit`."""
    for handler in logging.getLogger().handlers:
        handler.flush()


CATEGORIES: Final = {
    "rtsp": ("relay_worker.rtsp", "relay_worker.camera"),
    "rtp": (
        *("relay_worker.rtp", "relay_worker.media", "relay_worker.pipeline", "relay_worker.relay"),
        "relay_worker.rendition",
    ),
    "sdp": ("relay.sdp",),
    "sfu": (
        "relay_common.cloudflare",
        "relay_supervisor.sinks",
        "relay_supervisor.viewing",
        "relay_worker.webrtc",
        "relay_worker.publish",
    ),
    "nest": ("relay_supervisor.google", "relay_supervisor.state"),
    "bus": ("relay_supervisor.fleet", "relay_supervisor.cluster", "relay_worker.process"),
    "webrtc": ("relay_worker.webrtc", "relay_worker.camera", "relay_worker.local"),
    "relay": (
        *("relay_supervisor.app", "relay_supervisor.cameras", "relay_supervisor.commands", "relay_supervisor.http"),
        *("relay_supervisor.loop_errors", "relay_supervisor.operations", "relay_supervisor.otel"),
        *("relay_supervisor.renditions", "relay_supervisor.socket_file", "relay_supervisor.status"),
        "relay_supervisor.supervise",
        *("relay_common.tasks", "relay_common.config_file"),
    ),
}
"""Subsystems whose debug logging can be enabled individually, with their loggers."""


def set_level(level: str) -> None:
    """Log at `level` and above."""
    logging.getLogger().setLevel(level.upper())


def set_debug(categories: Iterable[str]) -> None:
    """Enable debug logging for exactly these subsystems, at any level; raises ValueError for an unknown one."""
    wanted = set(categories)
    if unknown := wanted - CATEGORIES.keys():
        raise ValueError(f"no such debug category: {', '.join(sorted(unknown))}; known: {', '.join(CATEGORIES)}")
    chosen = {name for category in wanted for name in CATEGORIES[category]}
    for name in {name for names in CATEGORIES.values() for name in names}:
        logging.getLogger(name).setLevel(logging.DEBUG if name in chosen else logging.NOTSET)
