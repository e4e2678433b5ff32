"""What went wrong with a connection, in words: exceptions carry class names and numbers that help nobody at night."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Final

from relay_common.secrets import redact

_LONGEST: Final = 200
_NAMES: Final = {
    socket.EAI_NONAME: "the name is not known",
    socket.EAI_AGAIN: "the name cannot be resolved now: no name server answers",
}
_NUMBERS: Final = {
    errno.ECONNREFUSED: "the connection was refused: nothing listens there",
    errno.ECONNRESET: "the connection was reset by the other side",
    errno.EPIPE: "the connection was closed by the other side",
    errno.ENETUNREACH: "there is no route to it: this machine is offline",
    errno.EHOSTUNREACH: "there is no route to it",
    errno.ETIMEDOUT: "it did not answer",
    errno.EMFILE: "this process has too many files open",
}


def spoken(error: BaseException) -> str:
    """The cause of a failed connection, for people: at most 200 characters, and no secret."""
    causes = list(_causes(error))
    for cause in causes:
        if words := _known(cause):
            return words
    # httpx and asyncio put the number into the text when they raise an error of their own.
    texts = (re.sub(r"\[Errno -?\d+\] ", "", str(cause)).strip() for cause in causes)
    return redact(next(filter(None, texts), type(error).__name__))[:_LONGEST]


def unresolved(error: BaseException) -> bool:
    """Whether a connection failed because a name could not be resolved."""
    return any(isinstance(cause, socket.gaierror | UnicodeError) for cause in _causes(error))


def _known(cause: BaseException) -> str:
    """Words for what is known; empty for anything else."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        reason = getattr(cause, "reason", None) or "the handshake was broken off"
        return f"TLS failed: {reason.lower().replace('_', ' ')}"
    if isinstance(cause, socket.gaierror):
        return _NAMES.get(cause.errno or 0, cause.strerror or "the name cannot be resolved")
    if isinstance(cause, UnicodeError):
        return "no name can be like that"
    if isinstance(cause, OSError):
        return _NUMBERS.get(cause.errno or 0, "")
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from, of a group its first."""
    for _ in range(8):
        if error is None:
            return
        yield error
        group = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
        error = group or error.__cause__ or error.__context__
