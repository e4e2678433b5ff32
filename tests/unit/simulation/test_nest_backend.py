"""The Nest core on plain numbers for time."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from relay_common.simulation.google.backend import COMMAND_PREFIX, NestBackend
from relay_common.simulation.google.devices import Device
from relay_common.simulation.google.errors import NoHostCandidate, OfferError, Reply
from relay_common.simulation.google.failures import failure
from relay_common.simulation.google.oauth import Client, OAuth
from relay_common.simulation.google.quota import UNLIMITED, Limits, most_in_any

T0 = 1_700_000_000.0
CLIENT = Client("id", "secret", "1//refresh")
GOOD_FORM = {"client_id": "id", "client_secret": "secret", "refresh_token": "1//refresh", "grant_type": "refresh_token"}


class Project:
    """A backend with a token, called as a client calls it."""

    def __init__(self, *devices: Device, limits: Limits = UNLIMITED, **options: Any) -> None:
        self.oauth = OAuth(CLIENT, lifetime=10 * 86400)
        self.backend = NestBackend("project", self.oauth, limits=limits, **options)
        for device in devices:
            self.backend.add(device)
        body = self.oauth.token(GOOD_FORM, T0).body
        assert isinstance(body, dict)
        self.token = str(body["access_token"])

    def __call__(self, device: str, command: str, now: float = T0, **params: Any) -> Reply:
        return self.backend.execute(self.token, device, COMMAND_PREFIX + command, params, now)

    def results(self, device: str, command: str, now: float = T0, **params: Any) -> dict[str, Any]:
        reply = self(device, command, now, **params)
        assert reply.status == 200, reply
        assert isinstance(reply.body, dict)
        results = reply.body["results"]
        assert isinstance(results, dict)
        return results


def message(reply: Reply) -> str:
    assert isinstance(reply.body, dict)
    return f"{reply.body['error']['status']}: {reply.body['error']['message']}"


def test_generate_gives_a_long_url_and_two_tokens() -> None:
    results = Project(Device("d", "Door")).results("d", "GenerateRtspStream")
    url = urlsplit(results["streamUrls"]["rtspUrl"])
    assert (url.scheme, url.path.split("/")[1]) == ("rtsps", "sdm_live_stream")
    assert len(url.path) > 200
    assert parse_qs(url.query)["auth"] == [results["streamToken"]]
    assert results["streamToken"].startswith("g.0.")
    assert results["expiresAt"] == "2023-11-14T22:18:20.000Z"


def test_extension_rotates_both_tokens_and_gives_a_full_new_life() -> None:
    project = Project(Device("d", "Door"))
    first = project.results("d", "GenerateRtspStream")
    second = project.results("d", "ExtendRtspStream", T0 + 200, streamExtensionToken=first["streamExtensionToken"])
    assert set(second) == {"streamExtensionToken", "streamToken", "expiresAt"}
    assert second["streamToken"] != first["streamToken"]
    assert second["expiresAt"] == "2023-11-14T22:21:40.000Z"
    stale = project("d", "ExtendRtspStream", T0 + 201, streamExtensionToken=first["streamExtensionToken"])
    assert stale.status == 404
    project.results("d", "ExtendRtspStream", T0 + 499, streamExtensionToken=second["streamExtensionToken"])


def test_extension_after_expiry_is_not_found() -> None:
    project = Project(Device("d", "Door"), lease=10)
    token = project.results("d", "GenerateRtspStream")["streamExtensionToken"]
    assert project("d", "ExtendRtspStream", T0 + 10, streamExtensionToken=token).status == 404


def test_stop_ends_the_stream_and_tells_the_edge() -> None:
    project = Project(Device("d", "Door"))
    stopped: list[str] = []
    project.backend.streams.on_stop = stopped.append
    results = project.results("d", "GenerateRtspStream")
    project.results("d", "StopRtspStream", streamExtensionToken=results["streamExtensionToken"])
    assert stopped == [urlsplit(results["streamUrls"]["rtspUrl"]).path]
    assert project("d", "StopRtspStream", streamExtensionToken=results["streamExtensionToken"]).status == 404


@pytest.mark.parametrize(("protocol", "command"), [("RTSP", "GenerateWebRtcStream"), ("WEB_RTC", "GenerateRtspStream")])
def test_commands_of_the_other_protocol_are_invalid(protocol: Any, command: str) -> None:
    reply = Project(Device("d", "Door", protocol=protocol))("d", command, offerSdp="v=0")
    assert message(reply).startswith("INVALID_ARGUMENT")


def test_webrtc_sessions_and_the_battery_doorbell() -> None:
    device = Device("d", "Bell", "DOORBELL", "WEB_RTC", answer=lambda offer, session: f"answer to {offer}")
    project = Project(device)
    results = project.results("d", "GenerateWebRtcStream", offerSdp="v=0")
    assert results["answerSdp"] == "answer to v=0"
    extended = project.results("d", "ExtendWebRtcStream", mediaSessionId=results["mediaSessionId"])
    assert set(extended) == {"mediaSessionId", "expiresAt"}
    device.extendable = False
    refused = project("d", "ExtendWebRtcStream", mediaSessionId=results["mediaSessionId"])
    assert message(refused).startswith("FAILED_PRECONDITION")
    project.results("d", "StopWebRtcStream", mediaSessionId=results["mediaSessionId"])


def test_an_offline_camera_still_gets_a_url_and_a_withdrawn_one_does_not() -> None:
    device = Device("d", "Door", offline=True)
    project = Project(device)
    project.results("d", "GenerateRtspStream")
    device.withdrawn = True
    assert message(project("d", "GenerateRtspStream")) == "NOT_FOUND: Device enterprises/project/devices/d not found."


def test_a_second_stream_is_a_conflict_where_only_one_is_allowed() -> None:
    project = Project(Device("d", "Door", max_streams=1), lease=60)
    project.results("d", "GenerateRtspStream")
    assert project("d", "GenerateRtspStream").status == 409
    project.results("d", "GenerateRtspStream", T0 + 60)


def test_throttling_names_the_bucket_and_failed_commands_count() -> None:
    project = Project(*(Device(f"d{n}", f"Door {n}") for n in range(11)), limits=Limits())
    project.backend.failures.add("*", "*", failure(500, count=10))
    assert [project(f"d{n}", "GenerateRtspStream", T0 + n).status for n in range(10)] == [500] * 10
    limited = project("d10", "GenerateRtspStream", T0 + 59)
    assert message(limited) == ("RESOURCE_EXHAUSTED: Rate limited for the ExecuteDeviceCommand API for the user.")
    assert project("d10", "GenerateRtspStream", T0 + 62).status == 200


def test_lists_come_in_pages_and_are_limited() -> None:
    project = Project(*(Device(f"d{n}", f"Door {n}") for n in range(5)), limits=Limits(), page_size=2)
    seen, page = [], ""
    for _ in range(3):
        body = project.backend.list_devices(project.token, page, T0).body
        assert isinstance(body, dict)
        seen += [device["traits"]["sdm.devices.traits.Info"]["customName"] for device in body["devices"]]
        page = body.get("nextPageToken", "")
    assert (seen, page) == ([f"Door {n}" for n in range(5)], "")
    statuses = [project.backend.list_devices(project.token, "", T0 + 1).status for _ in range(3)]
    assert statuses == [200, 200, 429]


def test_an_empty_project_has_no_devices_key() -> None:
    project = Project()
    assert project.backend.list_devices(project.token, "", T0).body == {}


def test_failures_that_were_to_come_can_be_ended() -> None:
    failures = Project().backend.failures
    failures.add("Door", "ExtendRtspStream", failure(503))
    failures.add("Door", "GenerateRtspStream", failure(503))
    failures.add("Garden", "ExtendRtspStream", failure(503))
    failures.add("Door", "GenerateRtspStream", failure(503, count=0))
    assert failures.take("Door", "GenerateRtspStream") is None
    failures.add("Door", "*", failure(503, count=0))
    assert failures.take("Door", "ExtendRtspStream") is None
    assert failures.take("Garden", "ExtendRtspStream") is not None


def test_failures_are_counted_down_and_may_come_after_the_effect() -> None:
    project = Project(Device("d", "Door"))
    token = project.results("d", "GenerateRtspStream")["streamExtensionToken"]
    project.backend.failures.add("Door", "ExtendRtspStream", failure(503, count=2))
    assert [project("d", "ExtendRtspStream", streamExtensionToken=token).status for _ in range(2)] == [503, 503]
    lost = failure(500, raw_body="<html>oops</html>", after_effect=True)
    project.backend.failures.add("Door", "ExtendRtspStream", lost)
    reply = project("d", "ExtendRtspStream", streamExtensionToken=token)
    assert (reply.status, reply.body) == (500, "<html>oops</html>")
    assert project("d", "ExtendRtspStream", streamExtensionToken=token).status == 404, "the token had rotated"
    assert [record.status for record in project.backend.commands] == [200, 503, 503, 500, 404]


def test_late_answers_keep_their_content() -> None:
    project = Project(Device("d", "Door"))
    project.backend.failures.add("Door", "*", failure(200, delay=7.0, after_effect=True))
    reply = project("d", "GenerateRtspStream")
    assert (reply.status, reply.delay) == (200, 7.0)
    assert isinstance(reply.body, dict)
    assert "results" in reply.body


def test_tokens_expire_and_grants_are_revoked() -> None:
    oauth = OAuth(CLIENT, lifetime=3600)
    backend = NestBackend("project", oauth)
    body = oauth.token(GOOD_FORM, T0).body
    assert isinstance(body, dict)
    token = body["access_token"]
    assert backend.list_devices(token, "", T0 + 3599).status == 200
    assert backend.list_devices(token, "", T0 + 3600).status == 401
    oauth.forbidden = True
    assert backend.list_devices(token, "", T0).status == 403
    oauth.revoked = True
    assert oauth.token(GOOD_FORM, T0).body == {
        "error": "invalid_grant",
        "error_description": "Token has been expired or revoked.",
    }
    oauth.down = True
    assert oauth.token(GOOD_FORM, T0).status == 503
    oauth.down = False
    assert oauth.token({**GOOD_FORM, "client_secret": "x"}, T0).status == 401
    code = {**GOOD_FORM, "grant_type": "authorization_code", "code": CLIENT.authorization_code}
    assert oauth.token(code, T0).status == 200
    assert oauth.token(GOOD_FORM, T0).status == 200, "authorising again mends a revoked grant"


@pytest.mark.slow
def test_a_day_of_forty_cameras_stays_within_the_published_limits() -> None:
    project = Project(*(Device(f"d{n}", f"Door {n}") for n in range(40)), limits=Limits())
    tokens: dict[int, str] = {}
    for step in range(86400 // 6):
        camera, now = step % 40, T0 + step * 6.0
        if camera in tokens:
            results = project.results(f"d{camera}", "ExtendRtspStream", now, streamExtensionToken=tokens[camera])
        else:
            results = project.results(f"d{camera}", "GenerateRtspStream", now)
        tokens[camera] = results["streamExtensionToken"]
    assert most_in_any((record.time for record in project.backend.commands), 60.0) == 10


def test_structures_and_rooms_are_those_that_devices_name() -> None:
    devices = (Device("a", "Door", room="Hall"), Device("b", "Drive", room="Hall"), Device("c", "Cot", room="Nursery"))
    project = Project(*devices)

    def get(*path: str) -> Any:
        reply = project.backend.structures(project.token, path, T0)
        assert reply.status == 200, reply
        return reply.body

    (structure,) = get()["structures"]
    assert structure == get("home")
    assert structure["traits"] == {"sdm.structures.traits.Info": {"customName": "Home"}}
    rooms = get("home", "rooms")["rooms"]
    assert [room["traits"]["sdm.structures.traits.RoomInfo"]["customName"] for room in rooms] == ["Hall", "Nursery"]
    assert get("home", "rooms", rooms[1]["name"].rpartition("/")[2]) == rooms[1]
    relations = [device.resource("project")["parentRelations"][0]["parent"] for device in devices]
    assert relations == [rooms[0]["name"], rooms[0]["name"], rooms[1]["name"]]
    for path in (["other"], ["home", "rooms", "other"], ["home", "else"]):
        assert project.backend.structures(project.token, path, T0).status == 404
    assert project.backend.structures("wrong", [], T0).status == 401
    limited = Project(*devices, limits=Limits())
    replies = [limited.backend.structures(limited.token, [], T0).status for _ in range(6)]
    assert replies == [200] * 5 + [429]


@pytest.mark.parametrize(
    ("refusal", "status", "words"),
    [
        (NoHostCandidate("no host candidate"), 500, "INTERNAL: Internal error encountered."),
        (OfferError("wrong order"), 400, "INVALID_ARGUMENT: wrong order"),
    ],
)
def test_an_offer_is_refused_as_google_refuses_it(refusal: OfferError, status: int, words: str) -> None:
    def refuses(offer: str, stream: str) -> str:
        raise refusal

    project = Project(Device("d", "Door", protocol="WEB_RTC", answer=refuses))
    reply = project("d", "GenerateWebRtcStream", offerSdp="v=0")
    assert (reply.status, message(reply)) == (status, words)
