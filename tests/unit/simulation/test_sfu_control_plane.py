"""The rules of the session API, through HTTP but without sockets: connection and packets are put in by hand."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx
import pytest

from relay_common.simulation.sfu import sdp as sfu_sdp
from relay_common.simulation.sfu.sessions import SESSION_TABLE, ApiError, Event, State
from relay_common.simulation.sfu.simulator import ApiFault, SfuFaults, SfuSimulator, SfuTimings, SfuVariant

QUICK = {
    "connect_wait": 0.05,
    "empty_track_wait": 0.1,
    "flowing_within": 60.0,
}


def offer(mids: str = "01", direction: str = "sendonly", ufrag: str = "uu") -> str:
    """Audio at mid 0, video at every other."""
    lines = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=fingerprint:sha-256 AA:BB"]
    for mid in mids:
        kind, codec = ("audio 9 UDP/TLS/RTP/SAVPF 96", "96 opus/48000/2")
        if mid != "0":
            kind, codec = ("video 9 UDP/TLS/RTP/SAVPF 97", "97 H264/90000")
        lines += [f"m={kind}", f"a=mid:{mid}", f"a=ice-ufrag:{ufrag}", "a=ice-pwd:pp", f"a=rtpmap:{codec}"]
        lines += ["a=setup:actpass", f"a={direction}"]
    return "\r\n".join(lines)


class Api:
    """The API of one simulator that is not started, and the shortcuts the tests need."""

    def __init__(self, sfu: SfuSimulator) -> None:
        self.sfu = sfu
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=sfu.app, raise_app_exceptions=False),
            base_url="http://sfu/v1/apps/app",
            headers={"Authorization": "Bearer secret"},
        )

    async def new(self) -> str:
        response = await self.http.post("/sessions/new")
        assert response.status_code == 201
        return str(response.json()["sessionId"])

    async def call(self, session: str, operation: str, body: dict[str, Any]) -> httpx.Response:
        method = "POST" if operation.endswith(("/new", "/establish")) else "PUT"
        return await self.http.request(method, f"/sessions/{session}/{operation}", json=body)

    async def publish(self, session: str, names: dict[str, str], **kwargs: Any) -> httpx.Response:
        tracks = [{"location": "local", "mid": mid, "trackName": name} for mid, name in names.items()]
        description = {"type": "offer", "sdp": offer(**kwargs)}
        return await self.call(session, "tracks/new", {"sessionDescription": description, "tracks": tracks})

    async def pull(self, session: str, *sources: tuple[str, str]) -> httpx.Response:
        tracks = [{"location": "remote", "sessionId": publisher, "trackName": name} for publisher, name in sources]
        return await self.call(session, "tracks/new", {"tracks": tracks})

    async def answer(self, session: str, mids: Iterable[str], kind: str = "answer") -> httpx.Response:
        sdp = offer("".join(mids), "recvonly").replace("actpass", "active")
        return await self.call(session, "renegotiate", {"sessionDescription": {"type": kind, "sdp": sdp}})

    def connect(self, session: str) -> None:
        self.sfu.service.sessions[session].fire(Event.CONNECTED)

    def send(self, session: str, name: str, sequence: int = 1) -> None:
        """One RTP packet on a published track."""
        track = self.sfu.service.sessions[session].published(name)
        assert track is not None
        assert track.publication is not None
        payload_type = track.publication.payload_types[0]
        packet = struct.pack("!BBHII", 0x80, payload_type, sequence, 0, 5) + b"Axx"
        track.publication.receive(memoryview(packet), sequence, 0, 5, time.monotonic())

    async def publisher(self) -> str:
        """A connected session whose tracks `a` and `v` flow."""
        session = await self.new()
        assert (await self.publish(session, {"0": "a", "1": "v"})).status_code == 200
        self.connect(session)
        self.send(session, "a")
        self.send(session, "v")
        return session


def code(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert set(body) == {"errorCode", "errorDescription"}
    return response.status_code, body["errorCode"]


def make(**kwargs: Any) -> Api:
    return Api(SfuSimulator(timings=SfuTimings(**QUICK), **kwargs))


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made = make()
    yield made
    await made.http.aclose()


async def test_authorisation_app_and_methods(api: Api) -> None:
    assert code(await api.http.post("/sessions/new", headers={"Authorization": "Bearer no"})) == (401, "unauthorized")
    assert code(await api.http.post("http://sfu/v1/apps/other/sessions/new")) == (404, "not_found")
    session = await api.new()
    for operation in ("renegotiate", "tracks/close", "tracks/update"):
        assert (await api.http.post(f"/sessions/{session}/{operation}", json={})).status_code == 405


async def test_bodies(api: Api) -> None:
    session = await api.new()
    path = f"/sessions/{session}/tracks/new"
    assert code(await api.http.post(path, content=b"{")) == (400, "decoding_error")
    assert code(await api.http.post(path, content=b"[]")) == (400, "decoding_error")
    assert code(await api.http.post(path, content=b"x" * (api.sfu.variant.max_body + 1))) == (413, "payload_too_large")
    assert code(await api.http.post(path, json={"tracks": [{"trackName": 5}]})) == (400, "decoding_error")


@pytest.mark.parametrize(
    "tracks",
    [
        [],
        [{"location": "remote", "sessionId": "s", "trackName": "t"}] * 65,
        [
            {"location": "local", "mid": "0", "trackName": "t"},
            {"location": "remote", "sessionId": "s", "trackName": "t"},
        ],
        [{"location": "local", "trackName": "t"}],
        [{"location": "local", "mid": "9", "trackName": "t"}],
        [{"location": "local", "mid": "0", "trackName": "t"}, {"location": "local", "mid": "0", "trackName": "u"}],
        [{"location": "remote", "trackName": "t"}],
        [{"location": "remote", "sessionId": "s"}],
    ],
)
async def test_invalid_tracks(api: Api, tracks: list[dict[str, str]]) -> None:
    body = {"tracks": tracks, "sessionDescription": {"type": "offer", "sdp": offer()}}
    if any(track.get("location") == "remote" for track in tracks):
        del body["sessionDescription"]
    assert code(await api.call(await api.new(), "tracks/new", body)) == (406, "invalid_params")


async def test_publish_is_answered_at_once(api: Api) -> None:
    session = await api.new()
    response = await api.publish(session, {"0": "a", "1": "v"})
    assert response.status_code == 200
    body = response.json()
    assert body["requiresImmediateRenegotiation"] is False
    assert body["tracks"] == [{"mid": "0", "trackName": "a"}, {"mid": "1", "trackName": "v"}]
    assert body["sessionDescription"]["type"] == "answer"
    listed = (await api.http.get(f"/sessions/{session}")).json()
    assert listed == {
        "tracks": [
            {"location": "local", "mid": "0", "trackName": "a", "status": "active"},
            {"location": "local", "mid": "1", "trackName": "v", "status": "active"},
        ],
        "dataChannels": [],
    }


async def test_session_with_an_offer_and_discovery(api: Api) -> None:
    description = {"type": "offer", "sdp": offer()}
    response = await api.http.post("/sessions/new", json={"sessionDescription": description})
    assert response.status_code == 201
    assert response.json()["sessionDescription"]["type"] == "answer"
    session = await api.new()
    found = await api.call(session, "tracks/new", {"autoDiscover": True, "sessionDescription": description})
    assert [track["mid"] for track in found.json()["tracks"]] == ["0", "1"]


async def test_bad_descriptions(api: Api) -> None:
    session = await api.new()
    tracks = [{"location": "local", "mid": "0", "trackName": "a"}]
    for description in (None, {"type": "answer", "sdp": offer()}, {"type": "offer", "sdp": "v=0"}):
        body = {"tracks": tracks, "sessionDescription": description}
        status, name = code(await api.call(session, "tracks/new", body))
        assert status == 406
        assert name == ("invalid_params" if description is None else "invalid_session_description")


async def test_pull_renegotiate_and_overlap(api: Api) -> None:
    publisher, viewer = await api.publisher(), await api.new()
    pulled = (
        await api.pull(viewer, (publisher, "v"), (publisher, "nothing"), (publisher, "a"), (publisher, "a"))
    ).json()
    assert pulled["requiresImmediateRenegotiation"] is True
    assert [track["mid"] for track in pulled["tracks"]] == ["0", "", "1", "2"]
    assert pulled["tracks"][1]["errorCode"] == "not_found_track_error"
    sections = sfu_sdp.parse(pulled["sessionDescription"]["sdp"])
    assert [(s.kind, s.direction, s.setup) for s in sections] == [
        ("video", "sendonly", "actpass"),
        ("audio", "sendonly", "actpass"),
        ("audio", "sendonly", "actpass"),
    ]
    assert [s.codecs[0].payload_type for s in sections] == [97, 96, 96]
    ssrcs = [ssrc for section in sections for ssrc in section.ssrcs]
    assert len(set(ssrcs)) == len(ssrcs) == 3

    assert code(await api.pull(viewer, (publisher, "a"))) == (406, "invalid_session_description")
    assert code(await api.answer(viewer, "012", kind="offer")) == (406, "invalid_session_description")
    assert code(await api.answer(viewer, "01")) == (406, "invalid_session_description")
    response = await api.answer(viewer, "012")
    assert (response.status_code, response.json()) == (200, {})
    assert code(await api.answer(viewer, "012")) == (406, "invalid_session_description")

    # Negotiated but not connected: held, then 425; once connected, a further pull adds sections.
    began = time.monotonic()
    assert code(await api.pull(viewer, (publisher, "v"))) == (425, "session_error")
    assert time.monotonic() - began >= 0.05
    api.connect(viewer)
    more = (await api.pull(viewer, (publisher, "v"))).json()
    assert more["tracks"][0]["mid"] == "3"
    assert len(sfu_sdp.parse(more["sessionDescription"]["sdp"])) == 4


async def test_a_call_waits_for_the_connection(api: Api) -> None:
    api.sfu.timings.connect_wait = 5
    session = await api.new()
    await api.publish(session, {"0": "a", "1": "v"})
    update = asyncio.create_task(api.call(session, "tracks/update", {"tracks": [{"mid": "9"}]}))
    while not api.sfu.service.sessions[session]._busy:
        await asyncio.sleep(0.001)
    assert code(await api.publish(session, {"0": "b"})) == (406, "invalid_session_description")
    api.connect(session)
    assert (await update).json()["tracks"][0]["errorCode"] == "update_track_error"


async def test_pulls_of_what_does_not_flow(api: Api) -> None:
    publisher, viewer = await api.new(), await api.new()
    await api.publish(publisher, {"0": "a", "1": "v"})
    item = {"sessionId": publisher, "trackName": "v", "mid": "", "errorCode": "not_found_track_error"}
    for _ in range(2):
        body = (await api.pull(viewer, (publisher, "v"))).json()
        assert body["requiresImmediateRenegotiation"] is False
        assert "sessionDescription" not in body
        assert item.items() <= body["tracks"][0].items()
    api.connect(publisher)
    began = time.monotonic()
    body = (await api.pull(viewer, (publisher, "v"))).json()
    assert body["tracks"][0]["errorCode"] == "empty_track_error"
    assert time.monotonic() - began >= 0.1
    api.sfu.timings.empty_track_wait = 10
    pull = asyncio.create_task(api.pull(viewer, (publisher, "v")))
    await asyncio.sleep(0.01)
    api.send(publisher, "v")
    assert (await pull).json()["tracks"][0]["mid"] == "0"


async def test_close(api: Api) -> None:
    publisher, viewer = await api.publisher(), await api.new()
    mids = [track["mid"] for track in (await api.pull(viewer, (publisher, "v"), (publisher, "a"))).json()["tracks"]]
    await api.answer(viewer, mids)
    api.connect(viewer)
    assert code(await api.call(viewer, "tracks/close", {"tracks": [{"mid": "0"}]})) == (400, "decoding_error")
    closed = await api.call(viewer, "tracks/close", {"tracks": [{"mid": "0"}, {"mid": "7"}], "force": True})
    assert closed.status_code == 200
    assert closed.json()["tracks"] == [
        {"mid": "0"},
        {
            "mid": "7",
            "errorCode": "close_track_error",
            "errorDescription": "Track doesn't exist or was already closed",
        },
    ]
    negotiated = {
        "tracks": [{"mid": "1"}],
        "force": False,
        "sessionDescription": {"type": "offer", "sdp": offer("".join(mids), "recvonly")},
    }
    answer = (await api.call(viewer, "tracks/close", negotiated)).json()["sessionDescription"]
    assert answer["type"] == "answer"
    assert [section.direction for section in sfu_sdp.parse(answer["sdp"])] == ["inactive", "inactive"]
    listed = (await api.http.get(f"/sessions/{viewer}")).json()["tracks"]
    assert [track["status"] for track in listed] == ["inactive", "inactive"]


async def test_a_force_closed_mid_is_never_seen_again(api: Api) -> None:
    publisher, viewer = await api.publisher(), await api.new()
    await api.call(publisher, "tracks/close", {"tracks": [{"mid": "1"}], "force": True})
    assert (await api.publish(publisher, {"1": "again"})).status_code == 200
    api.send(publisher, "again")
    body = (await api.pull(viewer, (publisher, "again"))).json()
    assert body["tracks"][0]["errorCode"] == "empty_track_error"


async def test_update_switches_the_source(api: Api) -> None:
    first, second, viewer = await api.publisher(), await api.publisher(), await api.new()
    await api.pull(viewer, (first, "v"))
    await api.answer(viewer, "0")
    api.connect(viewer)
    entry = {"location": "remote", "mid": "0", "sessionId": second, "trackName": "v"}
    body = (await api.call(viewer, "tracks/update", {"tracks": [entry]})).json()
    assert body == {
        "requiresImmediateRenegotiation": False,
        "tracks": [{"mid": "0", "sessionId": second, "trackName": "v"}],
    }
    subscribers = {s["session"]: [t["subscribers"] for t in s["published"]] for s in api.sfu.sessions()[:2]}
    assert subscribers == {first: [0, 0], second: [0, 1]}
    api.sfu.variant.allow_source_update = False
    body = (await api.call(viewer, "tracks/update", {"tracks": [entry]})).json()
    assert body["tracks"][0]["errorCode"] == "update_track_error"


async def test_gone_sessions(api: Api) -> None:
    assert code(await api.http.get("/sessions/unknown")) == (410, "session_error")
    publisher, viewer = await api.publisher(), await api.new()
    await api.pull(viewer, (publisher, "v"))
    await api.answer(viewer, "0")
    api.connect(viewer)
    api.sfu.end_session(publisher)
    assert code(await api.http.get(f"/sessions/{publisher}")) == (410, "session_error")
    assert code(await api.publish(publisher, {"0": "x"})) == (410, "session_error")
    # The viewer is not told, but its track has ended.
    assert (await api.http.get(f"/sessions/{viewer}")).json()["tracks"][0]["status"] == "inactive"


async def test_expiry_and_collection(api: Api) -> None:
    publisher, fresh = await api.publisher(), await api.new()
    service, timings = api.sfu.service, api.sfu.timings
    service.tick(time.monotonic() + timings.unconnected_expiry + 1)
    assert code(await api.http.get(f"/sessions/{fresh}")) == (410, "session_error")
    timings.unconnected_expiry = 1000
    viewer = await api.new()
    service.sessions[publisher].peer.last_datagram = now = time.monotonic()
    service.tick(now + timings.collect_after - 10)
    assert api.sfu.published("v") is not None
    timings.connectivity_timeout = 1000
    service.tick(now + timings.collect_after + 1)
    assert [t["status"] for t in (await api.http.get(f"/sessions/{publisher}")).json()["tracks"]] == ["inactive"] * 2
    assert (await api.pull(viewer, (publisher, "v"))).json()["tracks"][0]["errorCode"] == "not_found_track_error"
    timings.connectivity_timeout = 30
    service.tick(now + 31)
    assert code(await api.http.get(f"/sessions/{publisher}")) == (410, "session_error")


async def test_rate_is_per_session() -> None:
    api = make(variant=SfuVariant(requests_per_second=2))
    session, other = [api.sfu.service.sessions[await api.new()] for _ in range(2)]
    for now in (10.0, 10.5, 11.0):
        session.count_request(now)
    with pytest.raises(ApiError) as caught:
        session.count_request(11.4)
    assert caught.value.status == 429
    other.count_request(11.4)
    session.count_request(11.5)
    api.sfu.variant.requests_per_second = 0
    assert (await api.http.get(f"/sessions/{session.id}")).status_code == 429


async def test_too_many_retired_sections_end_the_session() -> None:
    api = make(variant=SfuVariant(retired_sections=1))
    session = await api.publisher()
    for mid in "01":
        assert (await api.call(session, "tracks/close", {"tracks": [{"mid": mid}], "force": True})).status_code == 200
    assert code(await api.publish(session, {"0": "x"})) == (410, "session_error")


async def test_injected_faults() -> None:
    faults = SfuFaults(
        api=[
            ApiFault("sessions/new", "error", status=503, code="temporarily_unavailable_error"),
            ApiFault("tracks/new", "track_error", times=2),
        ]
    )
    api = make(faults=faults)
    assert code(await api.http.post("/sessions/new")) == (503, "temporarily_unavailable_error")
    session = await api.new()
    for _ in range(2):
        body = (await api.publish(session, {"0": "a", "1": "v"})).json()
        assert [track["errorCode"] for track in body["tracks"]] == ["internal_error"] * 2
    assert (await api.publish(session, {"0": "a", "1": "v"})).json()["tracks"][0] == {"mid": "0", "trackName": "a"}
    control = "http://sfu/control/faults"
    assert (await api.http.post(control, json={"upstream_loss": 0.1, "api": [{"times": -1}]})).status_code == 200
    assert (await api.http.get(f"/sessions/{session}")).status_code == 500
    assert (await api.http.post(control, json={"clear": True})).status_code == 200
    assert (await api.http.get(f"/sessions/{session}")).status_code == 200
    assert (await api.http.post(control, json={"nonsense": 1})).status_code == 400


async def test_a_fault_of_one_correlation_leaves_other_sessions_alone() -> None:
    waiting = [ApiFault("sessions/new", "never_connect", correlation="me"), ApiFault("session", correlation="me")]
    api = make(faults=SfuFaults(api=waiting))
    other = (await api.http.post("/sessions/new?correlationId=you")).json()["sessionId"]
    mine = (await api.http.post("/sessions/new?correlationId=me")).json()["sessionId"]
    muted = {name: api.sfu.service.sessions[name].peer.mute_checks for name in (mine, other)}
    assert muted == {mine: True, other: False}
    assert [(await api.http.get(f"/sessions/{name}")).status_code for name in (other, mine, mine)] == [200, 500, 200]
    assert (await api.http.get("http://sfu/control/sessions")).json()["api_faults"] == []


async def test_a_lost_response_has_its_effect() -> None:
    async with SfuSimulator() as sfu, httpx.AsyncClient(headers={"Authorization": "Bearer secret"}) as http:
        sfu.faults.api.append(ApiFault("sessions/new", "lost_response"))
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post(f"{sfu.base_url}/apps/app/sessions/new")
        listed = (await http.get(f"{sfu.control_url}/sessions")).json()["sessions"]
        assert [session["state"] for session in listed] == ["new"]


def test_every_move_of_a_session_leads_towards_its_end() -> None:
    order = list(State)
    for source, _, target in SESSION_TABLE.edges():
        assert order.index(target) > order.index(source)
    assert SESSION_TABLE.allowed(State.GONE) == []
