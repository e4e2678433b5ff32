"""Google's JSON, with all that may be missing or new."""

from __future__ import annotations

import msgspec
import pytest

from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google.models import (
    DeviceBody,
    DeviceListBody,
    Extension,
    LiveStream,
    Resolution,
    device_from,
    updated,
    with_token,
)

FULL = {
    "name": "enterprises/p/devices/AVPHw",
    "type": "sdm.devices.types.DOORBELL",
    "assignee": "enterprises/p/structures/s/rooms/r",
    "somethingNew": {"a": 1},
    "traits": {
        "sdm.devices.traits.Info": {"customName": " Front door "},
        "sdm.devices.traits.CameraLiveStream": {
            "maxVideoResolution": {"width": 1280, "height": 960},
            "videoCodecs": ["H264"],
            "audioCodecs": ["OPUS"],
            "supportedProtocols": ["WEB_RTC"],
        },
    },
    "parentRelations": [{"parent": "enterprises/p/structures/s", "displayName": "Hall"}],
}


def body(**changes: object) -> DeviceBody:
    return msgspec.convert({**FULL, **changes}, DeviceBody)


def traits(info: object = None, live: object = None) -> dict[str, object]:
    return {"sdm.devices.traits.Info": info, "sdm.devices.traits.CameraLiveStream": live or {}}


def test_a_full_device() -> None:
    device = device_from(body())
    assert device is not None
    assert (device.id, device.kind, device.display_name) == ("AVPHw", "DOORBELL", "Front door")
    assert device.protocol is Protocol.WEB_RTC
    assert (device.video_codecs, device.audio_codecs) == (("H264",), ("OPUS",))
    assert str(device.resolution) == "1280x960"


@pytest.mark.parametrize("info", [None, {}, {"customName": ""}, {"customName": None}, {"customName": "  "}])
def test_without_a_name_of_its_own_a_device_is_called_after_its_room(info: object) -> None:
    device = device_from(body(traits=traits(info)))
    assert device is not None
    assert device.display_name == "Hall"


@pytest.mark.parametrize("relations", [None, [], [{"parent": "x"}], [{"displayName": None}]])
def test_without_any_name_its_id_will_do(relations: object) -> None:
    device = device_from(body(traits=traits(), parentRelations=relations))
    assert device is not None
    assert device.display_name == "AVPHw"


@pytest.mark.parametrize(
    ("announced", "protocol"),
    [
        ([], Protocol.RTSP),
        (None, Protocol.RTSP),
        (["QUIC"], Protocol.RTSP),
        (["RTSP"], Protocol.RTSP),
        (["RTSP", "WEB_RTC"], Protocol.WEB_RTC),
        (["MOQ", "WEB_RTC"], Protocol.WEB_RTC),
    ],
)
def test_protocols(announced: object, protocol: Protocol) -> None:
    device = device_from(body(traits=traits(live={"supportedProtocols": announced})))
    assert device is not None
    assert device.protocol is protocol


@pytest.mark.parametrize("resolution", [None, {}, {"width": "a"}, []])
def test_a_missing_resolution(resolution: object) -> None:
    device = device_from(body(traits=traits(live={"maxVideoResolution": resolution})))
    assert device is not None
    assert device.resolution == Resolution()
    assert str(device.resolution) == "unknown"


def test_a_name_that_is_not_available_leaves_the_one_that_is_known() -> None:
    known = device_from(body())
    nameless = device_from(body(traits={"sdm.devices.traits.CameraLiveStream": {"supportedProtocols": ["RTSP"]}}))
    unnamed = device_from(body(traits=traits({"customName": ""})))
    assert known is not None
    assert nameless is not None
    assert unnamed is not None
    assert (nameless.display_name, nameless.named) == ("Hall", False)
    fresh = updated(known, nameless)
    assert (fresh.display_name, fresh.named, fresh.protocol) == ("Front door", True, Protocol.RTSP)
    assert updated(known, unnamed).display_name == "Hall", "Google says that it has no name of its own"
    assert updated(nameless, known) == known


def test_a_thermostat_is_no_camera() -> None:
    assert device_from(body(traits={"sdm.devices.traits.ThermostatHvac": {}})) is None


def test_an_empty_account_answers_without_devices() -> None:
    assert msgspec.json.decode(b"{}", type=DeviceListBody) == DeviceListBody()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rtsps://h:443/sdm/abc?auth=old", "rtsps://h:443/sdm/abc?auth=new"),
        ("rtsps://h/sdm/abc?x=1&auth=old&y=2", "rtsps://h/sdm/abc?auth=new"),
        ("rtsps://h/sdm/abc", "rtsps://h/sdm/abc?auth=new"),
    ],
)
def test_an_extension_replaces_the_whole_query(url: str, expected: str) -> None:
    assert with_token(url, "new") == expected


def test_what_an_extension_does_not_renew_stays() -> None:
    stream = LiveStream(Protocol.WEB_RTC, Secret("m1"), 300.0, 1.0, answer_sdp=Secret("v=0"))
    after = stream.extended(Extension(Secret(""), 280.0, 2.0))
    assert after == LiveStream(Protocol.WEB_RTC, Secret("m1"), 280.0, 2.0, answer_sdp=Secret("v=0"))


def test_a_stream_does_not_print_its_secrets() -> None:
    stream = LiveStream(Protocol.RTSP, Secret("handle"), 300.0, 1.0, url=Secret("rtsps://h/p?auth=token"))
    assert "token" not in repr(stream)
    assert "'handle'" not in repr(stream)


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("rtsps://stream-eu1-charlie.dropcam.com:443/sdm_live_stream/x?auth=g.0", 443),
        ("rtsps://camera.example/x", 322),
        ("rtsp://camera.example/x", 554),
        ("rtsp://[::1]:8554/x", 8554),
        ("rtsp://camera.example:99999/x", 0),
        ("", 0),
    ],
)
def test_the_port_of_a_stream(url: str, port: int) -> None:
    stream = LiveStream(Protocol.RTSP, Secret("h"), 300.0, 0.0, url=Secret(url) if url else None)
    assert stream.port == port
