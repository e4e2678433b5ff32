#!/usr/bin/env bash
# pylibsrtp 1.0.0 takes no packet beyond 1500 bytes, and says so by an exception that is not its own. Seen 2026-11-30,
# Python 3.11.
#
# Guess: libsrtp works in place on packets of any size that UDP carries, so its binding does too; and what cannot be
# protected or decrypted raises pylibsrtp.Error, as a packet with a wrong tag or of too few bytes does.
# Seen: a session has one buffer of 1500 bytes. unprotect() refuses 1501, also of RTCP, and protect() refuses 1357, since
# it keeps 144 bytes for a trailer of which the profile uses 10: where packets are larger than Ethernet's (loopback,
# jumbo frames), a sender has to stay 144 bytes below what it could receive. Both raise ValueError, which a handler of
# pylibsrtp.Error lets through. A packet of 11 bytes is pylibsrtp.Error.
#
# It takes python3 of 3.11 or later.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check pylibsrtp==1.0.0

timeout 60 "$dir/venv/bin/python" - <<'PY'
import importlib.metadata
import struct
import sys

from pylibsrtp import Error, Policy, Session

KEY = bytes(range(30))


def rtp(size: int) -> bytes:
    return struct.pack(">BBHII", 0x80, 96, 1, 0, 1) + bytes(size - 12)


def said(call: str, packet: bytes, direction: int) -> str:
    """What a new session says of a packet."""
    try:
        return f"{len(getattr(Session(Policy(key=KEY, ssrc_type=direction)), call)(packet))} bytes"
    except (Error, ValueError) as error:
        return f"{type(error).__name__}: {error}"


OUT, IN = Policy.SSRC_ANY_OUTBOUND, Policy.SSRC_ANY_INBOUND
print("pylibsrtp", importlib.metadata.version("pylibsrtp"))
LONG = "ValueError: packet is too long"
expected = {
    ("protect", 1356, OUT): "1366 bytes",
    ("protect", 1357, OUT): LONG,
    ("unprotect", 11, IN): "Error: unsupported parameter",
    ("unprotect", 1500, IN): "Error: authentication failure",
    ("unprotect", 1501, IN): LONG,
}
seen = {case: said(case[0], rtp(max(12, case[1]))[: case[1]], case[2]) for case in expected}
for (call, size, _), result in seen.items():
    print(f"{call} of {size} bytes: {result}")
sys.exit(0 if seen == expected else f"changed: expected {expected}")
PY
