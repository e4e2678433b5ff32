"""Simulcast in the simulated SFU: answered with its rids, received by rid, forwarded as a viewer wishes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay_common.simulation.sfu import sdp as sfu_sdp
from relay_common.simulation.sfu.options import SfuVariant
from tests.unit.simulation.test_sfu_control_plane import Api, code, make, offer

LAYERS = ("h", "m", "l")


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made = make(variant=SfuVariant(switch_at_keyframes=False))
    yield made
    await made.http.aclose()


def simulcast_offer() -> str:
    lines = [f"a=extmap:1 {sfu_sdp.MID}", f"a=extmap:2 {sfu_sdp.RID}", f"a=extmap:3 {sfu_sdp.REPAIRED_RID}"]
    lines += ["a=extmap:4 urn:ietf:params:rtp-hdrext:toffset", *(f"a=rid:{rid} send" for rid in LAYERS)]
    return "\r\n".join([offer("1"), *lines, f"a=simulcast:send {';'.join(LAYERS)}"])


async def published(api: Api) -> tuple[str, str]:
    """A connected session with the simulcast track `v`, and the SFU's answer."""
    session = await api.new()
    body = {
        "sessionDescription": {"type": "offer", "sdp": simulcast_offer()},
        "tracks": [{"location": "local", "mid": "1", "trackName": "v"}],
    }
    response = await api.call(session, "tracks/new", body)
    assert response.status_code == 200, response.text
    api.connect(session)
    return session, str(response.json()["sessionDescription"]["sdp"])


def receive(api: Api, session: str, rid: str, ssrc: int, *, at: float | None = None) -> bool:
    """A first packet with that rid; whether the peer found where it belongs."""
    peer = api.sfu.service.sessions[session].peer
    extension = bytes((0x20 | len(rid) - 1,)) + rid.encode()
    extension += bytes(-len(extension) % 4)
    head = bytes((0x90, 97, 0, 1, 0, 0, 0, 0)) + ssrc.to_bytes(4, "big")
    packet = memoryview(head + b"\xbe\xde" + (len(extension) // 4).to_bytes(2, "big") + extension + b"Axx")
    route = peer._routes.get(ssrc) or peer._latch(ssrc, 97, packet)
    if route is not None:
        route[0].receive(packet, 1, 0, ssrc, time.monotonic() if at is None else at)
    return route is not None


async def pull(api: Api, viewer: str, publisher: str, **wish: str) -> tuple[dict[str, Any], str]:
    """Pull `v` and answer the offer; the result and the rid of the layer that is subscribed to."""
    entry: dict[str, Any] = {"location": "remote", "sessionId": publisher, "trackName": "v"}
    entry |= {"simulcast": wish} if wish else {}
    (result,) = (await api.call(viewer, "tracks/new", {"tracks": [entry]})).json()["tracks"]
    if result["mid"]:
        await api.answer(viewer, [section.mid for section in api.sfu.service.sessions[viewer].sections])
        api.connect(viewer)
    return result, subscribed(api, publisher)


def subscribed(api: Api, publisher: str) -> str:
    (session,) = (one for one in api.sfu.sessions() if one["session"] == publisher)
    layers = session["published"][0]["layers"]
    return "".join(rid for rid, layer in layers.items() if layer["subscribers"])


async def test_every_layer_is_answered_with_what_tells_it_apart(api: Api) -> None:
    _, answer = await published(api)
    lines = answer.splitlines()
    assert [line for line in lines if line.startswith("a=rid:")] == ["a=rid:h recv", "a=rid:m recv", "a=rid:l recv"]
    assert "a=simulcast:recv h;m;l" in lines
    extensions = [line.split()[1] for line in lines if line.startswith("a=extmap:")]
    assert extensions == [sfu_sdp.MID, sfu_sdp.RID, sfu_sdp.REPAIRED_RID]


async def test_without_simulcast_no_rid_and_no_extension_is_answered(api: Api) -> None:
    answer = (await api.publish(await api.new(), {"0": "a", "1": "v"})).json()["sessionDescription"]["sdp"]
    assert "a=rid:" not in answer
    assert "simulcast" not in answer
    assert "extmap" not in answer


async def test_packets_go_to_the_layer_that_they_name(api: Api) -> None:
    publisher, _ = await published(api)
    assert not receive(api, publisher, "x", 9), "a layer that was not offered"
    for ssrc, rid in enumerate(LAYERS, 1):
        assert receive(api, publisher, rid, ssrc)
    (session,) = api.sfu.sessions()
    layers = session["published"][0]["layers"]
    assert {rid: layer["packets"] for rid, layer in layers.items()} == dict.fromkeys(LAYERS, 1)
    assert all(layer["restarts"] == 0 for layer in layers.values()), "each keeps its own SSRC"


async def test_a_viewer_gets_the_layer_that_it_prefers_and_may_change_it(api: Api) -> None:
    publisher, _ = await published(api)
    for ssrc, rid in enumerate(LAYERS, 1):
        receive(api, publisher, rid, ssrc)
    viewer = await api.new()
    result, rid = await pull(api, viewer, publisher, preferredRid="m")
    assert rid == "m"
    change = {"location": "remote", "sessionId": publisher, "trackName": "v", "mid": result["mid"]}
    done = await api.call(viewer, "tracks/update", {"tracks": [{**change, "simulcast": {"preferredRid": "l"}}]})
    assert "errorCode" not in done.json()["tracks"][0]
    assert subscribed(api, publisher) == "l"
    await api.call(viewer, "tracks/close", {"tracks": [{"mid": result["mid"]}], "force": True})
    assert subscribed(api, publisher) == ""
    assert (await pull(api, await api.new(), publisher))[1] == "h", "without a wish: the first"


async def test_what_to_do_without_the_preferred_layer_is_the_viewers_choice(api: Api) -> None:
    publisher, _ = await published(api)
    for ssrc, rid in enumerate("ml", 1):
        receive(api, publisher, rid, ssrc)
    result, _ = await pull(api, await api.new(), publisher, preferredRid="h")
    assert result["errorCode"] == "empty_track_error"
    result, _ = await pull(api, await api.new(), publisher, preferredRid="x")
    assert result["errorCode"] == "not_found_track_error"
    _, rid = await pull(api, await api.new(), publisher, preferredRid="h", ridNotAvailable="asciibetical")
    assert rid == "l", "the next one by name"


async def test_wishes_that_the_api_does_not_know(api: Api) -> None:
    publisher, _ = await published(api)
    entry = {"location": "remote", "sessionId": publisher, "trackName": "v"}
    for wish, refusal in (
        ("h", (400, "decoding_error")),
        ({"preferredRid": 1}, (400, "decoding_error")),
        ({"priorityOrdering": "best"}, (406, "invalid_params")),
    ):
        response = await api.call(await api.new(), "tracks/new", {"tracks": [{**entry, "simulcast": wish}]})
        assert code(response) == refusal


async def test_a_track_is_collected_when_no_layer_flows_any_more(api: Api) -> None:
    publisher, _ = await published(api)
    now = time.monotonic()
    receive(api, publisher, "h", 1, at=now)
    receive(api, publisher, "l", 2, at=now + 25)
    service = api.sfu.service
    service.sessions[publisher].peer.last_datagram = now + 40
    service.tick(now + 40)
    assert service.sessions[publisher].published("v") is not None
    service.sessions[publisher].peer.last_datagram = now + 60
    service.tick(now + 60)
    assert service.sessions[publisher].published("v") is None
