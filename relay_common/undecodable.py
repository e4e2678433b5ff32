"""Exceptions that decoding untrusted bytes can raise: more than msgspec's own errors."""

from __future__ import annotations

from typing import Final

import msgspec

UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Everything msgspec's decoders raise for an invalid message: not JSON or MessagePack, the wrong type, a string that is
not UTF-8, too many levels of nesting."""
