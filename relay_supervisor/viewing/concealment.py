"""Offers for browsers without the SFU's internal names.

The SFU may put session ids and track names into `msid` and `cname`. A page needs neither, only that the tracks of one
camera share a stream, because browsers keep sound and picture of one stream in sync.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_MID: Final = re.compile(r"^a=mid:(\S+)", re.MULTILINE)
_MSID: Final = re.compile(r"^(a=(?:ssrc:\d+ )?msid:)[^\r\n]*", re.MULTILINE)
_CNAME: Final = re.compile(r"^(a=ssrc:\d+ cname:)[^\r\n]*", re.MULTILINE)
_OLD: Final = re.compile(r"^(a=ssrc:\d+ (?:mslabel|label):)[^\r\n]*", re.MULTILINE)


def conceal(offer: str, streams: Mapping[str, str]) -> str:
    """`offer` (SDP) with the stream named by `streams` (mid → name) in every m-section, and by its mid elsewhere."""
    head, *sections = re.split(r"(?m)^(?=m=)", offer)
    return head + "".join(_conceal_section(section, streams) for section in sections)


def _conceal_section(section: str, streams: Mapping[str, str]) -> str:
    found = _MID.search(section)
    mid = found.group(1) if found else "none"
    stream = streams.get(mid, f"section-{mid}")
    section = _MSID.sub(rf"\g<1>{stream} {stream}-{mid}", section)
    section = _CNAME.sub(rf"\g<1>{stream}", section)
    return _OLD.sub(rf"\g<1>{stream}", section)
