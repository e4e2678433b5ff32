"""What decoding bytes from outside can raise: more than msgspec's own errors."""

from __future__ import annotations

from typing import Final

import msgspec

UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""All that msgspec's decoders raise for bytes that are no message: not JSON or MessagePack, not of the type, a string
that is not UTF-8, too many levels of nesting."""
