"""Fragments of SDP that change the ICE session of a connection and nothing else (application/trickle-ice-sdpfrag):
ours, and what a WHIP server answers to a restart. RFC 8840 §9, RFC 9725 §4.3.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Final

from relay_common.sdp_lines import attribute, lines
from relay_worker.webrtc.sdp import (
    MAX_CANDIDATES,
    AnswerError,
    LocalTransport,
    RemoteTransport,
    check_length,
    is_usable,
)

_ICE_CHARS: Final = re.compile(r"[A-Za-z0-9+/]{4,256}")
"""RFC 8839 §5.4; a password has at least 22 of them."""
_SHORTEST_PASSWORD: Final = 22


def write_patch(local: LocalTransport, kind: str, mids: Sequence[str], *, complete: bool = True) -> str:
    """Our end as `local` has it. All media are bundled; `kind` is that of the first, whose section stands for all.
    `complete` says that no candidates follow.
    """
    written = [
        f"a=group:BUNDLE {' '.join(mids)}",
        f"a=ice-ufrag:{local.ice_ufrag}",
        f"a=ice-pwd:{local.ice_pwd}",
        f"m={kind} 9 UDP/TLS/RTP/SAVPF 0",
        f"a=mid:{mids[0]}",
        *(f"a=candidate:{candidate}" for candidate in local.candidates),
        *(["a=end-of-candidates"] if complete else []),
    ]
    return "\r\n".join(written) + "\r\n"


def read_restart(fragment: str, before: RemoteTransport) -> RemoteTransport:
    """The answerer's end after a restart; what the fragment leaves out is as it was `before`.

    Raises AnswerError when it names no new credentials, and so has restarted nothing.
    """
    check_length(fragment)
    attributes = [attribute(value) for kind, value in lines(fragment) if kind == "a"]
    ufrag = next((value for name, value in attributes if name == "ice-ufrag"), "")
    password = next((value for name, value in attributes if name == "ice-pwd"), "")
    if not _ICE_CHARS.fullmatch(ufrag) or not _ICE_CHARS.fullmatch(password) or len(password) < _SHORTEST_PASSWORD:
        raise AnswerError("the server's answer to an ICE restart has no credentials that can be used")
    if ufrag == before.ice_ufrag or password == before.ice_pwd:
        raise AnswerError("the server's answer to an ICE restart has the credentials of before")
    found = dict.fromkeys(value for name, value in attributes if name == "candidate" and is_usable(value))
    return dataclasses.replace(
        before,
        ice_ufrag=ufrag,
        ice_pwd=password,
        ice_lite=before.ice_lite or any(name == "ice-lite" for name, _ in attributes),
        candidates=tuple(found)[:MAX_CANDIDATES] or before.candidates,
    )
