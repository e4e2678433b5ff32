"""A supervisor that stands by beside one that commands, over real sockets: what it passes on, and what it refuses."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from pathlib import Path

import httpx
import msgspec
import pytest

from relay_supervisor.cluster.peer_tls import peer_tls
from relay_supervisor.http import passed_on
from relay_supervisor.http.passing import Commander
from relay_supervisor.status.model import RelayStatus
from relay_supervisor.supervise import Loops
from tests.fixtures.ports import free_port
from tests.fixtures.supervisor_pair import BEARER, TLS, TOKEN, commanded_by, pair


async def test_whoever_asks_the_one_that_stands_by_is_answered_by_the_one_that_commands(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        client = two.client
        status = msgspec.json.decode((await client.get("/api/stats", headers=BEARER)).content, type=RelayStatus)
        assert (status.seat.replica, [one.name for one in status.cameras]) == ("a", ["Front door", "Driveway"])
        assert (await client.post("/api/cameras/cam00001/restart", headers=BEARER)).json() == {"ok": True}
        assert two.relay.calls == [("restart", "cam00001")]
        page, itself = [await one.get("/", headers=BEARER) for one in (client, two.direct)]
        assert (page.status_code, page.text) == (200, itself.text)
        assert {name: value for name, value in page.headers.multi_items() if name != "date"} == {
            name: value for name, value in itself.headers.multi_items() if name != "date"
        }
        again = await client.get("/", headers=BEARER | {"If-None-Match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert (await client.head("/static/app.js", headers=BEARER)).content == b""
        view = await client.post("/api/view", json={"cameras": ["cam00000"]}, headers=BEARER)
        assert (view.status_code, view.json()["unavailable"][0]["camera"]) == (200, "cam00000")
        assert (await client.get("/api/none?x=%2F..%2f", headers=BEARER)).status_code == 404
        large = await client.post("/api/view", content=b" " * 700_000, headers=BEARER)
        assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")


async def test_its_own_are_health_metrics_and_who_commands(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        seat = (await two.client.get("/api/seat", headers=BEARER)).json()
        assert (seat["replica"], seat["commands"], seat["known"]) == ("b", False, True)
        assert (await two.direct.get("/api/seat", headers=BEARER)).json()["replica"] == "a"
        assert [(await two.client.get(path)).status_code for path in ("/livez", "/readyz")] == [200, 200]
        metrics = (await two.client.get("/metrics", headers=BEARER)).text.splitlines()
        assert {"relay_in_command 0.0", 'relay_passed_on_total{outcome="failed"} 0.0'} <= set(metrics)
        refused = await two.client.post("/api/stop", json={}, headers=BEARER)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "standing_by")


async def test_nobody_gets_in_by_way_of_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with pair(tmp_path) as two:
        answered = two.passing.passed
        for headers in ({}, {"Authorization": "Bearer another token that is wrong"}, {"relay-operator": "1"}):
            assert (await two.client.get("/api/cameras", headers=headers)).status_code == 401
        assert (await two.client.get("/")).status_code == 401
        foreign = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
        crossed = await two.client.post("/api/cameras/cam00000/restart", headers=BEARER | foreign)
        assert crossed.status_code == 403
        assert two.passing.passed == answered, "refused by the first that was asked"
        assert two.relay.calls == []
        spoofed = {"relay-client": "10.9.9.9", "relay-operator": "1"}
        signed = await two.client.post("/login", data={"token": "wrong"}, headers=spoofed)
        assert signed.status_code == 401
        flood = await two.client.post("/login", content=b"token=" + b"x" * 10_000)
        assert flood.status_code == 413
        signed = await two.client.post("/login", data={"token": TOKEN})
        cookie = {"Cookie": signed.headers["set-cookie"].partition(";")[0]}
        for client in (two.client, two.direct):
            assert (await client.get("/api/cameras", headers=cookie)).status_code == 200
    said = [one.getMessage() for one in caplog.records if not one.name.startswith("http")]  # silent in the product
    assert not [line for line in said if TOKEN in line or cookie["Cookie"].partition("=")[2] in line]


async def test_a_link_is_good_at_either_and_a_revoked_one_at_neither(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        made = await two.client.post("/api/cameras/cam00000/link", json={"seconds": 600}, headers=BEARER)
        path = f"/{made.json()['path'].lstrip('/')}"
        assert path.startswith("/watch/cam00000?")
        query = httpx.URL(path).params
        header = {"Authorization": f"link cam00000.{query['expires']}.{query['signature']}"}
        for client in (two.client, two.direct):
            assert (await client.get(path)).status_code == 200
            assert (await client.get("/api/watch/cam00000", headers=header)).json()["name"] == "Front door"
            assert (await client.get("/api/cameras", headers=header)).status_code == 403
        identity = (await two.client.get("/api/links", headers=BEARER)).json()["links"][0]["id"]
        assert (await two.client.delete(f"/api/links/{identity}", headers=BEARER)).status_code == 200
        for client in (two.client, two.direct):
            assert (await client.get("/api/watch/cam00000", headers=header)).status_code == 403


async def test_who_is_locked_out_is_the_client_and_not_the_supervisor_in_between(tmp_path: Path) -> None:
    async with pair(tmp_path, proxies=["127.0.0.1"]) as two:
        wrong = [
            (await two.client.post("/login", data={"token": "wrong"}, headers={"X-Forwarded-For": "192.0.2.7"}))
            for _ in range(11)
        ]
        assert [one.status_code for one in wrong[-2:]] == [429, 429]
        other = await two.client.post("/login", data={"token": "wrong"}, headers={"X-Forwarded-For": "192.0.2.8"})
        assert other.status_code == 401


async def test_events_come_as_they_happen_and_end_with_either_side(tmp_path: Path) -> None:
    async with pair(tmp_path) as two, asyncio.timeout(60.0):
        async with two.client.stream("GET", "/api/events", headers=BEARER, timeout=None) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            parts = stream.aiter_text()
            text = ""
            while "event: status" not in text:
                text += await anext(parts)
            for number in range(3):  # each before the next one is published, so nothing is held back
                two.relay.events.publish("state", f"number {number}")
                while f"number {number}" not in text:
                    text += await anext(parts)
            assert two.relay.events.clients == two.passing.under_way == 1
        while two.relay.events.clients or two.passing.under_way:
            await asyncio.sleep(0.01)
        async with two.client.stream("GET", "/api/events", headers=BEARER, timeout=None) as stream:
            await anext(stream.aiter_bytes())
            await two.standby.stop()


async def test_the_socket_is_the_operators_there_as_well(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        assert (await two.socket.post("/api/cameras/cam00000/keyframe")).json() == {"ok": True}
        assert two.relay.calls == [("keyframe", "cam00000")]


async def test_more_than_so_many_at_once_are_refused_and_counted(tmp_path: Path) -> None:
    async with pair(tmp_path, most=1) as two, asyncio.timeout(60.0):
        async with two.client.stream("GET", "/api/events", headers=BEARER, timeout=None) as stream:
            await anext(stream.aiter_bytes())
            refused = await two.client.get("/api/cameras", headers=BEARER)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_many_passed_on")
            metrics = (await two.client.get("/metrics", headers=BEARER)).text.splitlines()
            assert {'relay_passed_on_total{outcome="refused"} 1.0', "relay_passing_on 1.0"} <= set(metrics)
        while two.passing.under_way:
            await asyncio.sleep(0.01)
        assert (await two.client.get("/api/cameras", headers=BEARER)).status_code == 200


async def torn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One that commands, and dies while it answers: at the end of a request whose path says so."""
    asked = await reader.readuntil(b"\r\n\r\n")
    kind = b"text/event-stream" if b"/api/events" in asked else b"application/json"
    if b"/api/drain" in asked:
        await reader.read()  # it answers nothing, for as long as anybody waits
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: " + kind + b"\r\n\r\n5\r\ndata:\r\n")
    await writer.drain()
    writer.close()


async def test_of_an_answer_that_is_torn_the_client_sees_that_and_an_event_stream_ends(tmp_path: Path) -> None:
    async with pair(tmp_path) as two, asyncio.timeout(60.0), commanded_by(two, torn):
        with pytest.raises(httpx.RemoteProtocolError):
            await two.client.get("/api/cameras", headers=BEARER)
        assert (await two.client.get("/api/events", headers=BEARER)).text == "data:"
        assert two.passing.broken == 2
        # Whoever does not wait for an answer keeps nothing from others.
        with pytest.raises(httpx.ReadTimeout):
            await two.client.get("/api/drain", headers=BEARER, timeout=httpx.Timeout(60.0, read=0.5))
        while two.passing.under_way:
            await asyncio.sleep(0.01)
        waiting = asyncio.ensure_future(two.client.get("/api/drain", headers=BEARER, timeout=None))
        while not two.passing.under_way:
            await asyncio.sleep(0.01)
        await two.standby.stop()
        assert (await waiting).json()["error"]["code"] == "stopping"


async def test_nothing_is_passed_on_twice(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        refused = await two.client.get("/api/cameras", headers=BEARER | {"relay-passed-on-by": "c"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (508, "passed_on_twice")


async def test_where_nobody_answers_it_says_what_happened_since_when_and_what_to_do(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        two.commander = Commander("a", f"127.0.0.1:{free_port()}", two.clock.now())
        await two.clock.advance(7.0)
        silent = (await two.client.get("/api/cameras", headers=BEARER)).json()["error"]
        assert silent["code"] == "commander_silent"
        assert "a, which commands the cameras, does not answer it (the connection was refused" in silent["message"]
        assert silent["message"].endswith("last heard of by its Lease 7 s ago")
        assert "this one takes over within 20 s of that" in silent["hint"]
        assert two.passing.failed == 1
        two.commander = two.commander._replace(knows=False)
        unknown = (await two.client.get("/api/cameras", headers=BEARER)).json()["error"]
        assert "takes over ten minutes after that" in unknown["hint"]
        assert "kubectl delete pod a --force" in unknown["hint"]
        guest = (await two.client.get("/static/style.css")).json()["error"]
        assert guest["message"] == "The supervisor that commands the cameras does not answer", "no names for guests"
        two.commander = Commander("", "", math.inf)
        nobody = await two.client.get("/api/cameras", headers=BEARER)
        assert nobody.json()["error"]["code"] == "nobody_commands"
        assert "nobody has been known to command the cameras for 7 s" in nobody.json()["error"]["message"]
        assert (nobody.status_code, nobody.headers["retry-after"]) == (503, "5")
        page = await two.client.get("/", headers=BEARER)
        assert (page.status_code, page.headers["refresh"]) == (503, "5")
        assert "nobody has been known" in page.text
        own = msgspec.json.decode((await two.client.get("/api/stats", headers=BEARER)).content, type=RelayStatus)
        assert (own.seat, own.cameras) == (two.seat, [])
        assert own.counters["passed_on.failed"] == 3
        two.commander = Commander("a", "", two.clock.now())
        unheard = (await two.client.get("/api/cameras", headers=BEARER)).json()["error"]
        assert "a commands the cameras, and has not said where it takes requests" in unheard["message"]


async def test_a_stranger_gets_nothing_out_of_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(tmp_path) as two, asyncio.timeout(60.0):
        at = f"https://127.0.0.1:{two.at.port}"
        stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
        unsafe = peer_tls("another relay's key").client
        unsafe.verify_mode = ssl.CERT_NONE
        for context in (stranger, unsafe, peer_tls("another relay's key").client):
            async with httpx.AsyncClient(verify=context, base_url=at) as client:
                with pytest.raises(httpx.TransportError):
                    await client.get("/api/cameras", headers={"relay-passed-on-by": "b", "relay-operator": "1"})
        async with httpx.AsyncClient(verify=TLS.client, base_url=at) as client:
            assert (await client.get("/api/cameras")).json()["error"]["code"] == "not_passed_on"
        while two.holder.counters().get("peers.strangers", 0) < 3:
            await asyncio.sleep(0.01)
        # The other way round: whoever has the address of the one that commands, without the key, is told nothing.
        two.context = peer_tls("another relay's key").client
        refused = (await two.client.get("/api/cameras", headers=BEARER)).json()["error"]
        assert refused["code"] == "commander_silent"
        two.context = TLS.client  # a key that was replaced is used at once
        assert (await two.client.get("/api/cameras", headers=BEARER)).status_code == 200
        # Nor can strangers keep more than a few descriptors.
        monkeypatch.setattr(passed_on, "MOST_GREETED", 2)
        opened = [await asyncio.open_connection("127.0.0.1", two.at.port) for _ in range(3)]
        while not two.holder.counters().get("peers.crowded"):
            await asyncio.sleep(0.01)
        for _, writer in opened:
            writer.close()


async def test_an_address_that_is_taken_costs_no_camera(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with pair(tmp_path) as two, asyncio.timeout(60.0):
        again = Loops(two.clock)
        server = passed_on.PeerServer(passed_on.PassedOn(two.relay, two.relay), two.at, two.clock, on_stop=int)  # type: ignore[arg-type]
        server.begin(again)
        while "others cannot pass requests on to this supervisor: [cluster] peer_listen" not in caplog.text:
            await asyncio.sleep(0.01)
        await server.stop()
        await again.aclose()
