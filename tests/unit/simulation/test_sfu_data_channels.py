"""DataChannels of the simulated SFU, through its API: the transport, ids, flags, states and errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from relay_common.simulation.sfu import sdp as sfu_sdp
from tests.unit.simulation.test_sfu_control_plane import Api, code, make, offer

TRANSPORT = {"dataChannel": {"location": "remote", "dataChannelName": "server-events"}}


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made = make()
    yield made
    await made.http.aclose()


def with_channels(sdp: str, mid: str) -> str:
    lines = ["m=application 9 UDP/DTLS/SCTP webrtc-datachannel", f"a=mid:{mid}", "a=ice-ufrag:uu", "a=ice-pwd:pp"]
    return "\r\n".join([sdp, *lines, "a=setup:actpass", "a=sctp-port:5000"])


async def established(api: Api) -> str:
    """A connected session that publishes, with the transport of data channels."""
    session = await api.publisher()
    offered = {"sessionDescription": {"type": "offer", "sdp": with_channels(offer(), "2")}}
    response = await api.call(session, "datachannels/establish", TRANSPORT | offered)
    assert response.status_code == 200, response.text
    return session


def local(name: str, **more: Any) -> dict[str, Any]:
    return {"location": "local", "dataChannelName": name, **more}


def remote(owner: str, name: str, **more: Any) -> dict[str, Any]:
    return {"location": "remote", "sessionId": owner, "dataChannelName": name, **more}


async def opened(api: Api, session: str, *channels: dict[str, Any]) -> list[dict[str, Any]]:
    response = await api.call(session, "datachannels/new", {"dataChannels": list(channels)})
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["dataChannels"]
    return results


async def test_an_offer_with_a_section_for_channels_is_answered(api: Api) -> None:
    session = await api.publisher()
    offered = {"sessionDescription": {"type": "offer", "sdp": with_channels(offer(), "2")}}
    answer = (await api.call(session, "datachannels/establish", TRANSPORT | offered)).json()
    assert answer["requiresImmediateRenegotiation"] is False
    assert answer["dataChannel"] == {"location": "remote", "dataChannelName": "server-events", "id": 0}
    section = sfu_sdp.parse(answer["sessionDescription"]["sdp"])[2]
    assert (section.kind, section.mid, section.rejected, section.setup) == ("application", "2", False, "passive")
    assert "a=sctp-port:5000" in answer["sessionDescription"]["sdp"]


async def test_without_an_offer_the_sfu_makes_one(api: Api) -> None:
    session = await api.new()
    made = (await api.call(session, "datachannels/establish", TRANSPORT)).json()
    assert made["requiresImmediateRenegotiation"] is True
    (section,) = sfu_sdp.parse(made["sessionDescription"]["sdp"])
    assert (section.kind, section.setup) == ("application", "actpass")
    answer = with_channels(offer(""), section.mid).replace("actpass", "active")
    done = await api.call(session, "renegotiate", {"sessionDescription": {"type": "answer", "sdp": answer}})
    assert (done.status_code, done.json()) == (200, {})
    api.connect(session)
    again = (await api.call(session, "datachannels/establish", TRANSPORT)).json()
    assert again == {"requiresImmediateRenegotiation": False, "dataChannel": made["dataChannel"]}


async def test_a_section_for_channels_is_refused_before_they_are_established(api: Api) -> None:
    session = await api.new()
    body = {
        "sessionDescription": {"type": "offer", "sdp": with_channels(offer(), "2")},
        "tracks": [{"location": "local", "mid": "0", "trackName": "a"}],
    }
    answer = (await api.call(session, "tracks/new", body)).json()
    assert sfu_sdp.parse(answer["sessionDescription"]["sdp"])[2].rejected


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({}, (400, "decoding_error")),
        ({"dataChannel": {"location": "remote", "dataChannelName": "mine"}}, (406, "invalid_params")),
        ({"dataChannel": {"location": "local", "dataChannelName": "server-events"}}, (406, "invalid_params")),
        (TRANSPORT | {"sessionDescription": {"type": "offer", "sdp": offer()}}, (406, "invalid_session_description")),
    ],
)
async def test_establish_refuses(api: Api, body: dict[str, Any], refusal: tuple[int, str]) -> None:
    assert code(await api.call(await api.publisher(), "datachannels/establish", body)) == refusal


async def test_publish_pull_and_close(api: Api) -> None:
    publisher, viewer = await established(api), await established(api)
    first, second = await opened(api, publisher, local("controls"), local("chat", ordered=False, maxRetransmits=0))
    assert first == {**local("controls"), "id": 1}
    assert second["id"] == 2
    assert (await opened(api, publisher, local("chat")))[0]["errorCode"] == "repeated_local_track_error"
    (pulled,) = await opened(api, viewer, remote(publisher, "controls", canReply=True, waitForAck=True))
    assert pulled["id"] == 1
    assert (await opened(api, viewer, remote(publisher, "other")))[0]["errorCode"] == "not_found_track_error"
    listed = (await api.http.get(f"/sessions/{viewer}")).json()["dataChannels"]
    assert listed == [remote(publisher, "controls", id=1, status="active")]

    closed = await api.call(publisher, "datachannels/close", {"dataChannels": [{"id": 1}, {"id": 9}]})
    assert [one.get("errorCode") for one in closed.json()["dataChannels"]] == [None, "close_track_error"]
    listed = (await api.http.get(f"/sessions/{viewer}")).json()["dataChannels"]
    assert listed == [remote(publisher, "controls", id=1, status="inactive")], "its subscribers lose it, too"


async def test_one_subscriber_may_reply(api: Api) -> None:
    publisher, one, other = [await established(api) for _ in range(3)]
    await opened(api, publisher, local("controls"))
    await opened(api, one, remote(publisher, "controls", canReply=True))
    await opened(api, other, remote(publisher, "controls"))

    async def reply(session: str, may: bool) -> str | None:
        body = {"dataChannels": [{"id": 1, "canReply": may}]}
        (result,) = (await api.call(session, "datachannels/update", body)).json()["dataChannels"]
        return str(result.get("errorCode", ""))

    assert await reply(other, True) == "invalid_params"
    assert await reply(one, False) == ""
    assert await reply(other, True) == ""
    assert await reply(publisher, True) == "not_found_track_error", "its own channel is not a pulled one"


@pytest.mark.parametrize(
    ("entry", "refusal"),
    [
        ({"dataChannelName": "x"}, (406, "invalid_params")),
        (local(""), (406, "invalid_params")),
        (local("server-events"), (406, "invalid_params")),
        (local("x", waitForAck=True), (406, "invalid_params")),
        (local("x", maxRetransmits=1, maxPacketLifeTime=1), (406, "invalid_params")),
        (remote("", "x"), (406, "invalid_params")),
        (local("x", ordered=1), (400, "decoding_error")),
    ],
)
async def test_new_refuses(api: Api, entry: dict[str, Any], refusal: tuple[int, str]) -> None:
    session = await established(api)
    assert code(await api.call(session, "datachannels/new", {"dataChannels": [entry]})) == refusal


async def test_channels_need_their_transport_and_a_list(api: Api) -> None:
    session = await api.publisher()
    assert code(await api.call(session, "datachannels/new", {"dataChannels": [local("x")]})) == (425, "session_error")
    assert code(await api.call(session, "datachannels/new", {"dataChannels": []})) == (406, "invalid_params")
    assert code(await api.call(session, "datachannels/close", {})) == (400, "decoding_error")
    response: httpx.Response = await api.http.get(f"/sessions/{session}/datachannels/new")
    assert response.status_code == 405
