"""Entry point of a trial: `python -m relay_worker.process.probe [FILE]`, as `relay-supervisor check` runs it in a Pod.

It connects to both ports of the bus as a worker does, with a key pair of its own, says nothing, and ends; how that went
is its exit code (`relay_common.bus_probe`). FILE is the mounted Secret with a worker's parameters.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from pathlib import Path
from typing import Final

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from relay_common.bus_probe import STATISTICS, BusReached
from relay_common.errors import ConfigError
from relay_common.tcp_bus import watch_over
from relay_worker.process.confine import confine
from relay_worker.process.launch_file import unpacked
from relay_worker.process.remote import FILE
from relay_worker.process.spec import BusKeys, WorkerSpec

WITHIN: Final = 8.0
"""Seconds for both ports: an address that has just been given to a Service may not be known at once."""
_DIAGNOSED: Final = 3.0
"""Seconds to find out why nothing was reached."""
_SHOWN: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
"""Each of them comes after the server has shown that it has its secret key; a release that does not know the probe's
key refuses it."""
_NO_ROUTE: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.EHOSTDOWN)


def main() -> None:
    """Try the bus that the file names."""
    confine()
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    try:
        code = asyncio.run(tried(unpacked(file.read_bytes())))
    except (OSError, ConfigError) as error:
        print(f"{file}: {error.strerror if isinstance(error, OSError) else error}", file=sys.stderr)
        code = BusReached.UNUSABLE
    sys.exit(int(code))


async def tried(spec: WorkerSpec, within: float = WITHIN) -> int:
    """The exit code for the bus of `spec`, which has keys; what was not reached is written to standard error."""
    if spec.keys is None:
        raise ConfigError("a bus over TCP is reached with keys alone")
    control, stats = await asyncio.gather(
        _reached(spec.control, zmq.DEALER, spec.keys, within), _reached(spec.stats, zmq.PUB, spec.keys, within)
    )
    for endpoint, found in ((spec.control, control), (spec.stats, stats)):
        print(f"{endpoint}: {found.name.lower()}", file=sys.stderr)
    if control is not BusReached.REACHED:
        return int(control)
    return int(stats) + STATISTICS if stats is not BusReached.REACHED else int(stats)


async def _reached(endpoint: str, kind: int, keys: BusKeys, within: float) -> BusReached:
    context = zmq.asyncio.Context()
    try:
        tried = context.socket(kind)
        watch_over(tried, endpoint)
        tried.setsockopt(zmq.LINGER, 0)
        tried.setsockopt(zmq.RECONNECT_IVL, 200)
        tried.curve_publickey, tried.curve_secretkey = keys.public.encode(), keys.secret.reveal().encode()
        tried.curve_serverkey = keys.supervisor.encode()
        monitor = tried.get_monitor_socket(_SHOWN)
        try:
            async with asyncio.timeout(within):
                tried.connect(endpoint)
                parse_monitor_message(await monitor.recv_multipart())
                return BusReached.REACHED
        except (TimeoutError, zmq.ZMQError):
            return await _why_not(endpoint)
    finally:
        context.destroy(linger=0)


async def _why_not(endpoint: str) -> BusReached:
    """What the kernel says of a plain connection there."""
    host, _, port = endpoint.rpartition("/")[2].rpartition(":")
    try:
        async with asyncio.timeout(_DIAGNOSED):
            _, writer = await asyncio.open_connection(host.removeprefix("[").removesuffix("]"), int(port))
    except TimeoutError:
        return BusReached.SILENT
    except socket.gaierror:
        return BusReached.UNKNOWN_NAME
    except OSError as error:
        if error.errno == errno.ETIMEDOUT:
            return BusReached.SILENT
        return BusReached.NO_ROUTE if error.errno in _NO_ROUTE else BusReached.REFUSED
    writer.close()
    return BusReached.OTHER_KEY


if __name__ == "__main__":
    main()
