"""What a viewer learns from an answer: no address of this machine or its network but those that it is to be told."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

_RELATED: Final = re.compile(r" raddr (\S+) rport \d+")
_CONNECTION: Final = re.compile(r"^(c=IN IP[46] |a=rtcp:\d+ IN IP[46] )(\S+)")
_NOWHERE: Final = {"4": "0.0.0.0", "6": "::"}


def only_announced(answer: str, addresses: Collection[str]) -> str:
    """`answer` (SDP) without candidates of other addresses than `addresses`, and without others elsewhere in it."""
    lines = []
    for line in answer.splitlines():
        if line.startswith("a=candidate:"):
            fields = line.split()
            if len(fields) < 6 or fields[4] not in addresses:
                continue
            related = _RELATED.search(line)
            if related is not None and related[1] not in addresses:
                line = _RELATED.sub("", line)
        elif (found := _CONNECTION.match(line)) is not None and found[2] not in addresses:
            line = found[1] + _NOWHERE[found[1].rstrip()[-1]]
        lines.append(line)
    return "\r\n".join(lines) + "\r\n"
