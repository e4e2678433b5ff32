#!/usr/bin/env bash
# libsrtp (in pylibsrtp 1.0.0) refuses to *encrypt* after a forward jump of the sequence number of half the range or
# more, but not in the first half of the first cycle. Seen 2026-11-28, Python 3.11.
#
# Guess: the sender owns the sequence number, so the sender's side accepts any and counts a rollover when the number
# falls; guessing the rollover (RFC 3711 section 3.3.1) is the receiver's job, and would work the same everywhere in the
# cycle.
# Seen: protect() guesses, too. A jump of 40000 from 100 is accepted, from 33000 it fails with "replay check failed (index
# too old)", and so does each packet after it, until the number has come round to where it was: 25537 packets, 85 s at
# 300 packets a second, in which nothing is sent. A test that starts at a low number never sees it. Steps of 32767 always
# pass.
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


def rtp(sequence: int) -> bytes:
    return struct.pack(">BBHII", 0x80, 96, sequence & 0xFFFF, 0, 1) + bytes(20)


def jump(first: int, step: int) -> str:
    """What protect() says of the packet `step` after `first`, which is the first of its stream."""
    session = Session(Policy(key=bytes(range(30)), ssrc_type=Policy.SSRC_ANY_OUTBOUND))
    session.protect(rtp(first))
    try:
        session.protect(rtp(first + step))
        return "taken"
    except Error as error:
        return str(error)


def refused_in_a_row(step: int) -> int:
    """After a whole cycle, how many packets in a row are refused from one that is `step` ahead."""
    session = Session(Policy(key=bytes(range(30)), ssrc_type=Policy.SSRC_ANY_OUTBOUND))
    last = 65536 + 200
    for sequence in range(last):
        session.protect(rtp(sequence))
    for refused in range(65536):
        try:
            session.protect(rtp(last - 1 + step + refused))
            return refused
        except Error:
            pass
    return 65536


print("pylibsrtp", importlib.metadata.version("pylibsrtp"))
OLD = "replay check failed (index too old)"
expected = {
    (100, 32767): "taken",
    (100, 40000): "taken",
    (33000, 32767): "taken",
    (33000, 32768): OLD,
    (33000, 40000): OLD,
}
seen = {case: jump(*case) for case in expected}
for (first, step), result in seen.items():
    print(f"from {first} a jump of {step}: {result}")
run = refused_in_a_row(40000)
print("refused in a row after a jump of 40000 in the second cycle:", run)
sys.exit(0 if seen == expected and run == 25537 else f"changed: expected {expected} and 25537")
PY
