#!/usr/bin/env bash
# aioice 0.13.0 gives every host candidate of a component the same priority. Seen 2026-11-28, Linux, Python 3.11.
#
# Guess: RFC 8445 section 5.1.2.1 wants a distinct local preference for each address of a host with several, so two
# addresses have two priorities.
# Seen: 2130706431 (type preference 126, local preference 65535, component 1) for each of three addresses, IPv4 and
# IPv6 alike. Pairs then tie, and which one is nominated is left to the order of checks.
#
# The addresses are documentation addresses on the loopback device of a network namespace of its own: it takes root or
# unprivileged user namespaces, and python3 of 3.11 or later.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check aioice==0.13.0

cat >"$dir/seen.py" <<'PY'
import asyncio
import importlib.metadata
import sys

import aioice


async def main() -> None:
    connection = aioice.Connection(ice_controlling=True, components=1)
    await connection.gather_candidates()
    hosts = [c for c in connection.local_candidates if c.type == "host"]
    print("aioice", importlib.metadata.version("aioice"))
    for candidate in hosts:
        print(f"{candidate.host:15} priority {candidate.priority}")
    await connection.close()
    same = len(hosts) == 3 and {c.priority for c in hosts} == {2130706431}
    sys.exit(0 if same else "changed: three host candidates of priority 2130706431 were expected")


asyncio.run(main())
PY

timeout 60 unshare --user --map-root-user --net sh -c '
    ip link set lo up
    ip addr add 192.0.2.1/32 dev lo
    ip addr add 198.51.100.1/32 dev lo
    ip -6 addr add 2001:db8::1/128 dev lo nodad
    exec "$@"' sh "$dir/venv/bin/python" "$dir/seen.py"
