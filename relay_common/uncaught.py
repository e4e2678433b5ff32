"""What Python itself would print on standard error, as lines of the log: redacted, in its form, with its context."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from types import TracebackType

log = logging.getLogger(__name__)


def log_uncaught() -> None:
    """Log warnings, and exceptions that nobody caught: of this process, its threads, and where none can be raised."""
    logging.captureWarnings(True)
    sys.excepthook = _of_the_process
    threading.excepthook = _of_a_thread
    sys.unraisablehook = _not_raised


@contextlib.contextmanager
def logged_end() -> Iterator[None]:
    """Log the exception that ends a process of multiprocessing's, which would print it; the exit status stays 1."""
    try:
        yield
    except Exception:
        log.critical("the process ends by an error", exc_info=True)
        raise SystemExit(1) from None


def _of_the_process(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, Exception):
        log.critical("the process ends by an error", exc_info=(kind, error, trace))
    else:  # such as Ctrl-C
        sys.__excepthook__(kind, error, trace)


def _of_a_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        name = args.thread.name if args.thread is not None else "unknown"
        log.critical("thread %s ends by an error", name, exc_info=(args.exc_type, args.exc_value, args.exc_traceback))


def _not_raised(args: sys.UnraisableHookArgs) -> None:
    if args.exc_value is not None:
        words, what = args.err_msg or "Exception ignored in", type(args.object).__name__
        log.error("%s %s", words, what, exc_info=(args.exc_type, args.exc_value, args.exc_traceback))
