"""The HTTP interface over a relay that tests write themselves."""

from __future__ import annotations

import asyncio
import socket
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay_common.causes import Cause
from relay_common.clock import ManualClock, SystemClock
from relay_common.errors import ConfigError, RelayError, Remedy
from relay_supervisor.http.app import HttpSettings, create_app
from relay_supervisor.http.metrics import CAMERA_STATES, RESTART_CAUSES
from relay_supervisor.http.probes import create_probes
from relay_supervisor.http.server import HttpServer
from relay_supervisor.status.health import PartStatus, judge
from relay_supervisor.status.model import RelayStatus
from relay_supervisor.status.verdict import verdict
from tests.fixtures.fake_relay import FakeRelay


def served(cameras: int = 2) -> tuple[httpx.AsyncClient, FakeRelay]:
    clock = ManualClock()
    relay = FakeRelay(clock, cameras=cameras)
    app = create_app(relay, HttpSettings(), clock)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080"), relay


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/static/app.js", "text/javascript; charset=utf-8"),
        ("/static/style.css", "text/css; charset=utf-8"),
        ("/static/icon.svg", "image/svg+xml"),
    ],
)
async def test_files_have_their_types_and_tags(path: str, kind: str) -> None:
    http, _ = served()
    reply = await http.get(path)
    assert (reply.status_code, reply.headers["content-type"]) == (200, kind)
    again = await http.get(path, headers={"If-None-Match": reply.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/static/none.js", "/static/..%2fapp.py", "/static/__init__.py", "/api/none"])
async def test_what_is_not_there_is_an_error_in_the_usual_shape(path: str) -> None:
    http, _ = served()
    reply = await http.get(path)
    assert reply.status_code == 404
    assert set(reply.json()["error"]) == {"code", "message", "hint"}


async def test_stats_are_the_status() -> None:
    http, _ = served()
    reply = (await http.get("/api/stats")).json()
    assert set(reply) == set(RelayStatus.__struct_fields__)
    assert [camera["name"] for camera in reply["cameras"]] == ["Front door", "Driveway"]
    cameras = (await http.get("/api/cameras")).json()["cameras"]
    assert cameras[0]["codecs"] == ["H264", "AAC"]
    assert "secret" not in (await http.get("/api/stats")).text


async def test_verbs_reach_the_relay_and_its_refusals_the_client() -> None:
    http, relay = served()
    assert (await http.post("/api/cameras/cam00001/restart")).json() == {"ok": True}
    assert (await http.post("/api/cameras/cam00001/keyframe")).json() == {"ok": True}
    assert relay.calls == [("restart", "cam00001"), ("keyframe", "cam00001")]
    unknown = await http.post("/api/cameras/none/restart")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_camera")
    assert unknown.json()["error"]["hint"] == "There are: cam00000, cam00001"
    assert (await http.get("/api/cameras/cam00001/restart")).status_code == 405

    async def refuse(camera: str) -> None:
        raise RelayError("Not now", hint="Wait", remedy=Remedy.HOLD)

    relay.restart = refuse  # type: ignore[method-assign]
    reply = await http.post("/api/cameras/cam00001/restart")
    assert (reply.status_code, reply.json()) == (503, {"error": {"code": "hold", "message": "Not now", "hint": "Wait"}})


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "application/json", 400),
        (b'{"cameras": "all"}', "application/json", 400),
        (b'{"cameras": [], "extra": 1}', "application/json", 400),
        (b'{"cameras": []}', "application/json", 400),
        (b"\xff", "application/json", 400),
        (b'{"cameras": ["x"]}', "text/plain", 415),
        (b'{"cameras": ["x"]}', "application/json", 200),
        (b'{"cameras": ["x"], "qualities": {"x": "small"}}', "application/json", 200),
        (b'{"cameras": ["x"], "qualities": {"x": "medium"}}', "application/json", 400),
        (b" " * 700_000, "application/json", 413),
    ],
)
async def test_bodies_are_checked(body: bytes, kind: str, status: int) -> None:
    http, _ = served()
    reply = await http.post("/api/view", content=body, headers={"Content-Type": kind})
    assert reply.status_code == status
    if status == 200:
        assert reply.json()["unavailable"] == [{"camera": "x", "reason": "The camera is not live"}]


async def test_views_that_are_not_known() -> None:
    http, _ = served()
    assert (await http.post("/api/view/none/answer", json={"sdp": "v=0"})).status_code == 410
    assert (await http.post("/api/view/none/answer", json={"sdp": "nonsense"})).status_code == 400
    assert (await http.post("/api/view/none/update", json={})).json()["error"]["code"] == "view_gone"
    assert (await http.delete("/api/view/none")).status_code == 200


async def test_ready_names_the_camera_or_part_that_is_the_reason() -> None:
    http, relay = served()
    assert (await http.get("/livez")).json() == {"live": True}
    reply = await http.get("/readyz")
    assert (reply.status_code, reply.json()["ready"], reply.json()["live"]) == (200, True, 2)
    relay.cameras[0].state, relay.cameras[0].reason = "degraded", "five failures in a row"
    reply = await http.get("/readyz")
    assert reply.status_code == 200
    assert reply.json()["degraded"][0]["reason"] == "five failures in a row"
    assert (await http.get("/readyz?strict=1")).status_code == 503
    relay.cameras[1].state = "connecting"
    reply = await http.get("/readyz")
    assert reply.status_code == 503
    assert {reason["camera"] for reason in reply.json()["reasons"]} == {"cam00000", "cam00001"}


async def test_probes_judge_as_the_dashboard_does_and_name_no_camera() -> None:
    _, relay = served()
    relay.cameras[0].state, relay.cameras[0].reason = "degraded", "five failures in a row"
    transport = httpx.ASGITransport(app=create_probes(relay.health))
    async with httpx.AsyncClient(transport=transport, base_url="http://probes") as probes:
        assert (await probes.get("/livez")).json() == {"live": True}
        replies = [await probes.get(f"/readyz{query}") for query in ("", "?strict=0", "?strict=1", "?strict=yes")]
        assert [reply.status_code for reply in replies] == [200, 200, 503, 503]
        assert [reply.json() for reply in replies] == [{"ready": True}] * 4


async def test_the_probes_address_tells_the_verdict_and_nothing_else() -> None:
    relay = FakeRelay(ManualClock(), cameras=1)
    relay.cameras[0].state, relay.cameras[0].reason = "degraded", "five failures in a row"
    transport = httpx.ASGITransport(create_probes(lambda: judge(relay.status())))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        assert (await http.get("/livez")).json() == {"live": True}
        reply = await http.get("/readyz")
        assert (reply.status_code, reply.json()) == (503, {"ready": False})
        assert [(await http.get(path)).status_code for path in ("/", "/api/stats", "/metrics")] == [404] * 3


def test_health_is_about_parts_accounts_and_enabled_cameras() -> None:
    relay = FakeRelay(ManualClock(), cameras=2)
    relay.cameras[0].state, relay.cameras[0].enabled = "disabled", False
    assert judge(relay.status()).ready
    assert not judge(relay.status()).degraded
    health = judge(relay.status(), [PartStatus(name="bus", ok=False, reason="socket is gone")])
    assert (health.ready, health.reasons[0].part) == (False, "bus")
    relay.budget.auth_error = "The refresh token was revoked"
    assert judge(relay.status()).reasons[0].reason == "The refresh token was revoked"


def test_what_is_wrong_with_a_camera_that_plays_is_told_and_costs_no_readiness() -> None:
    relay = FakeRelay(ManualClock(), cameras=2)
    name, id_ = relay.cameras[0].name, relay.cameras[0].id
    relay.cameras[0].verdict = verdict(Cause.SOUND_MISSING, state="live", wall=1.0, subject=name, camera=id_)
    relay.cameras[1].verdict = verdict(Cause.NONE, state="live", wall=1.0)
    health = judge(relay.status())
    assert (health.ready, health.degraded) == (True, [])
    (noted,) = health.problems
    assert (noted.name, noted.reason) == (name, "The camera sends no sound")
    assert (noted.next, noted.code) == ("the picture goes on with silence", "sound_missing")


# --- metrics -------------------------------------------------------------------------------------------------------


async def scrape(http: httpx.AsyncClient) -> dict[str, list[tuple[dict[str, str], float]]]:
    text = (await http.get("/metrics")).text
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples


async def test_metrics_exist_at_zero_before_anything_happened() -> None:
    http, _ = served(0)
    samples = await scrape(http)
    assert samples["relay_connected_cameras"] == [({}, 0.0)]
    assert {labels["state"] for labels, _ in samples["relay_cameras"]} == set(CAMERA_STATES)
    assert {labels["cause"]: value for labels, value in samples["relay_restarts_total"]} == dict.fromkeys(
        RESTART_CAUSES, 0.0
    )
    calls = samples["relay_sfu_calls_total"]
    assert len(calls) == 7 * 9
    assert not any(value for _, value in calls)
    assert samples["relay_command_wait_seconds_count"] == [({}, 0.0)]
    assert {labels["operation"] for labels, _ in samples["relay_sfu_call_seconds_count"]} >= {"publish", "pull"}
    for name in ("relay_auth_failures_total", "relay_events_total", "relay_event_streams_dropped_total"):
        assert samples[name] == [({}, 0.0)]


async def test_metrics_tell_each_camera_and_sum_causes() -> None:
    http, relay = served(2)
    relay.cameras[1].state = "offline"
    relay.cameras[0].video.packets_in = 77
    relay.telemetry_value.restarts = {"hung": 2, "struck by lightning": 1}
    relay.telemetry_value.command_wait.observe(0.5)
    samples = await scrape(http)
    assert ({"camera": "cam00000", "name": "Front door"}, 1.0) in samples["relay_camera_up"]
    assert ({"camera": "cam00001", "name": "Driveway"}, 0.0) in samples["relay_camera_up"]
    labels = {"camera": "cam00000", "name": "Front door", "kind": "video"}
    assert (labels, 77.0) in samples["relay_camera_received_packets_total"]
    assert ({"cause": "hung"}, 2.0) in samples["relay_restarts_total"]
    assert ({"cause": "other"}, 1.0) in samples["relay_restarts_total"]
    assert ({"le": "0.1"}, 0.0) in samples["relay_command_wait_seconds_bucket"]
    assert ({"le": "1.0"}, 1.0) in samples["relay_command_wait_seconds_bucket"]
    assert ({"account": "home"}, 10.0) in samples["relay_budget_limit"]
    assert "relay_camera_account" not in samples, "there is but one"
    relay.cameras[1].account = "p#2"
    samples = await scrape(http)
    whose = {"camera": "cam00001", "name": "Driveway", "account": "p#2"}
    assert samples["relay_camera_account"] == [(whose, 1.0)]


# --- the server ----------------------------------------------------------------------------------------------------


async def test_serves_on_any_port_and_stops_at_once_with_streams_open() -> None:
    clock = SystemClock()
    relay = FakeRelay(clock, cameras=1)
    server = HttpServer(create_app(relay, HttpSettings(), clock), "127.0.0.1", 0, on_stop=relay.events.close)
    port = await server.start()
    assert server.url == f"http://127.0.0.1:{port}"
    try:
        relay.events.publish("camera", "something", "cam00000")
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
            assert (await http.get("/livez")).status_code == 200
            idle = socket.create_connection(("127.0.0.1", port))  # a connection that says nothing
            async with http.stream("GET", "/api/events") as stream:
                lines = stream.aiter_lines()
                seen = []
                async with asyncio.timeout(5):
                    while not {"event: status", "id: test-1"} <= set(seen):
                        seen.append(await anext(lines))
                assert relay.events.clients == 1
                started = time.monotonic()
                await server.stop()
                assert time.monotonic() - started < 2.0
            idle.close()
        assert relay.events.clients == 0
    finally:
        await server.stop()
        await relay.aclose()


async def test_a_client_that_leaves_is_forgotten() -> None:
    clock = SystemClock()
    relay = FakeRelay(clock)
    server = HttpServer(create_app(relay, HttpSettings(), clock), "127.0.0.1", 0, on_stop=relay.events.close)
    await server.start()
    try:
        async with (
            httpx.AsyncClient(base_url=server.url, trust_env=False) as http,
            http.stream("GET", "/api/events") as stream,
        ):
            await anext(stream.aiter_lines())
        async with asyncio.timeout(5):
            while relay.events.clients:
                await asyncio.sleep(0.01)
    finally:
        await server.stop()
        await relay.aclose()


async def test_a_port_that_is_taken_names_the_key_and_the_fix() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=r"\[http\] listen") as caught:
            await HttpServer(None, "127.0.0.1", port).start()
    assert str(port) in caught.value.message
    assert "another port" in caught.value.hint


async def test_a_host_that_is_not_ours_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"\[http\] listen"):
        await HttpServer(None, "203.0.113.7", 0).start()
