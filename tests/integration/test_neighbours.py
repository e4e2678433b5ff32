"""Strangers at the HTTP port: a flood of silent connections, and clients behind a real nginx."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from relay_common.clock import ManualClock
from relay_common.secrets import Secret
from relay_common.simulation.camera.certs import make_certificates
from relay_supervisor.http.app import HttpSettings, create_app
from relay_supervisor.http.server import HttpServer
from tests.fixtures.fake_relay import FakeRelay
from tests.fixtures.nginx import PASSED_ON, nginx, nginx_command
from tests.fixtures.ports import free_port
from tests.fixtures.running_relay import SMALL, UNLIMITED, RunningRelay, running_relay

pytestmark = [pytest.mark.media, pytest.mark.timeout(180)]

TOKEN: Final = "a-token-for-the-tests-only"
OPERATOR: Final = {"Authorization": f"Bearer {TOKEN}"}
LEASE: Final = 16
"""Seconds that a stream lives: each has to be extended during the flood."""

LISTEN: Final = "0A"
"""State of a listening socket in /proc/net/tcp (Linux's tcp_states.h)."""

FLOOD: Final = """
import asyncio, resource, sys
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))

async def one(number, port):
    while True:
        try:
            source = (f"127.0.1.{number % 24 + 1}", 0)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=source)
            if number % 2:
                writer.write(b"GET /api/view HTTP/1.1\\r\\nHost: ")
            await reader.read()
            writer.close()
        except OSError:
            pass
        await asyncio.sleep(5.0)

async def main():
    await asyncio.gather(*(one(number, int(sys.argv[1])) for number in range(1200)))

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def relay_with(**http: object) -> AsyncIterator[RunningRelay]:
    options = (*SMALL, "--unlimited", "--lease", str(LEASE))
    sections = UNLIMITED | {
        "http": {"listen": "127.0.0.1:0", "token": TOKEN} | http,
        "viewers": {"access": "links", "link_secret": "a-link-secret-for-tests"},
    }
    async with running_relay(3, options=options, sections=sections) as relay:
        await relay.until_live()
        yield relay


def connections(port: str) -> int:
    """TCP connections at a port of this machine that this process holds."""
    held = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            held.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(
        row[1].endswith(f":{int(port):04X}") and f"socket:[{row[9]}]" in held and row[3] != LISTEN for row in rows
    )


async def test_1200_silent_connections_cost_nobody_anything(unused_tcp_port: int) -> None:
    probes = f"http://127.0.0.1:{unused_tcp_port}"
    async with relay_with(probe_listen=f"127.0.0.1:{unused_tcp_port}") as relay:
        port = relay.supervisor.url.rpartition(":")[2]
        before = {c.name: (c.lease.extends, c.lease.generates) for c in relay.supervisor.status().cameras}
        flood = await asyncio.create_subprocess_exec(sys.executable, "-c", FLOOD, port)
        try:
            await relay.until(lambda: connections(port) >= 250, 30.0, "full")
            # A connection a request: any that is kept idle may be displaced, also while the next request is on its way.
            apart = httpx.Limits(max_keepalive_connections=0)
            async with httpx.AsyncClient(timeout=20.0, trust_env=False, limits=apart) as client:
                end = time.monotonic() + LEASE
                while time.monotonic() < end:
                    assert (await client.get(f"{probes}/livez")).json() == {"live": True}
                    ready = await client.get(f"{probes}/readyz")
                    assert (ready.status_code, ready.json()) == (200, {"ready": True})
                    assert (await client.get(f"{probes}/api/stats")).status_code == 404
                    reply = await client.get(f"{relay.supervisor.url}/api/stats", headers=OPERATOR)
                    assert reply.status_code == 200
                    await asyncio.sleep(1.0)
        finally:
            flood.kill()
            await flood.wait()
        counted = relay.supervisor.status().counters
        assert counted["socket.tcp.displaced"] > 100
        assert connections(port) <= 256
        await relay.until(
            lambda: all(c.lease.extends > before[c.name][0] for c in relay.supervisor.status().cameras),
            30.0,
            "extended",
        )
        for camera in relay.supervisor.status().cameras:
            assert camera.state == "live", relay.summary()
            assert camera.lease.generates == before[camera.name][1]


async def test_behind_a_real_nginx_one_bad_client_locks_no_other_out(tmp_path: Path) -> None:
    nginx_command()
    async with contextlib.AsyncExitStack() as stack:
        relay = await stack.enter_async_context(relay_with(trusted_proxies=["127.0.0.1"]))
        everything = f"location / {{ proxy_pass {relay.supervisor.url}; {PASSED_ON} }}"
        url = await stack.enter_async_context(nginx(everything, tmp_path))

        def client(address: str) -> httpx.AsyncClient:
            transport = httpx.AsyncHTTPTransport(local_address=address)
            return httpx.AsyncClient(base_url=url, transport=transport, timeout=10.0)

        async with client("127.0.2.1") as bad, client("127.0.2.2") as good:
            wrong = {"Authorization": "Bearer wrong-one-entirely"}
            # An entry that the client itself writes into the header is ignored.
            forged = [{**wrong, "X-Forwarded-For": f"198.51.100.{n}"} for n in range(11)]
            statuses = [(await bad.get("/api/stats", headers=headers)).status_code for headers in forged]
            assert statuses == [401] * 9 + [429] * 2
            assert (await good.get("/api/stats", headers=wrong)).status_code == 401
            assert (await bad.get("/api/stats", headers=OPERATOR)).status_code == 200

            camera = relay.camera("Front Door").id
            links = [(await good.post(f"/api/cameras/{camera}/link", headers=OPERATOR, json={"seconds": s})).json()
                     for s in (600, 700)]  # fmt: skip
            views = []
            for _ in range(9):
                reply = await bad.post("/api/view", json={"cameras": [camera]}, headers=link_header(links[0]["path"]))
                views.append(reply.status_code)
            assert views == [200] * 8 + [429]
            reply = await good.post("/api/view", json={"cameras": [camera]}, headers=link_header(links[1]["path"]))
            assert (reply.status_code, reply.json()["action"]) == (200, "answer")


async def test_behind_a_real_nginx_with_tls_the_cookie_is_for_tls_alone(tmp_path: Path) -> None:
    nginx_command()
    pem, authority = make_certificates(tmp_path)
    port, clock = free_port(), ManualClock()
    settings = HttpSettings(token=Secret(TOKEN), trusted_proxies=("127.0.0.1",))
    server = HttpServer(create_app(FakeRelay(clock, cameras=1), settings, clock), "127.0.0.1", 0)
    await server.start()
    tls = f"listen 127.0.0.1:{port} ssl; ssl_certificate {pem}; ssl_certificate_key {pem};"
    try:
        async with nginx(f"{tls} location / {{ proxy_pass {server.url}; {PASSED_ON} }}", tmp_path) as plain:
            context = ssl.create_default_context(cafile=str(authority))
            async with httpx.AsyncClient(verify=context, trust_env=False) as client:
                for url, secure in ((plain, False), (f"https://127.0.0.1:{port}", True)):
                    # What the client itself writes into the header is replaced.
                    forged = {"X-Forwarded-Proto": "http" if secure else "https"}
                    reply = await client.post(f"{url}/login", data={"token": TOKEN}, headers=forged)
                    assert reply.status_code == 303
                    assert ("secure" in reply.headers["set-cookie"].lower().split("; ")) is secure
    finally:
        await server.stop()


def link_header(path: str) -> dict[str, str]:
    """The header with which a camera's page sends the link it was opened with."""
    url = httpx.URL(path)
    camera = url.path.removeprefix("/watch/")
    return {"Authorization": f"Link {camera}.{url.params['expires']}.{url.params['signature']}"}
