"""Requests and answers of the SDM API: canned documents, and the simulator over real HTTP in test_oauth.py."""

from __future__ import annotations

import asyncio
import http.server
import json
import socketserver
import threading
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google.api import UNKNOWN_LIFE, NestApi
from relay_supervisor.google.errors import (
    GoogleServerError,
    MalformedAnswer,
    NestTimeout,
    NestUnreachable,
    NotReached,
    OfferRefused,
    RateLimited,
    TokenUnavailable,
    Unauthenticated,
    WrongProtocol,
)

WALL = 1_700_000_000.0  # 2023-11-14T22:13:20Z
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
RTSP = {
    "streamUrls": {"rtspUrl": "rtsps://h/p?auth=t1"},
    "streamExtensionToken": "x1",
    "streamToken": "t1",
    "expiresAt": "2023-11-14T22:18:20.500Z",
}
CAMERA = {"name": "enterprises/p/devices/d1", "traits": {"sdm.devices.traits.CameraLiveStream": {}}}


class Tokens:
    """Counts what is asked of it."""

    def __init__(self) -> None:
        self.serial = 1

    async def token(self) -> Secret:
        return Secret(f"token{self.serial}")

    def invalidate(self, token: Secret) -> None:
        self.serial += 1


class Google:
    """Answers with what it was given, in turn, and keeps the requests."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers, self.requests = list(answers), list[httpx.Request]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def api(self, wall: float = WALL) -> NestApi:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return NestApi("p", Tokens(), "https://google.test/v1", http, wall=lambda: wall)

    def body(self, index: int = 0) -> object:
        return json.loads(self.requests[index].content)


def results(document: object, date: str | None = DATE) -> httpx.Response:
    return httpx.Response(200, json={"results": document}, headers={"Date": date} if date else {})


def refusal(status: int, message: str = "", headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": status, "message": message}}, headers=headers)


async def test_generate_rtsp() -> None:
    google = Google(results(RTSP))
    stream = await google.api().generate("d1", Protocol.RTSP)
    request = google.requests[0]
    assert str(request.url) == "https://google.test/v1/enterprises/p/devices/d1:executeCommand"
    assert request.headers["authorization"] == "Bearer token1"
    assert google.body() == {"command": "sdm.devices.commands.CameraLiveStream.GenerateRtspStream", "params": {}}
    assert stream.url == Secret("rtsps://h/p?auth=t1")
    assert stream.handle == Secret("x1")
    assert stream.expires_in == 299.5


async def test_generate_webrtc() -> None:
    google = Google(results({"answerSdp": "v=0 answer", "mediaSessionId": "m1", "expiresAt": "2023-11-14T22:18:20Z"}))
    stream = await google.api().generate("enterprises/p/devices/d1", Protocol.WEB_RTC, offer_sdp="v=0 offer")
    assert google.body() == {
        "command": "sdm.devices.commands.CameraLiveStream.GenerateWebRtcStream",
        "params": {"offerSdp": "v=0 offer"},
    }
    assert (stream.answer_sdp, stream.handle, stream.url) == (Secret("v=0 answer"), Secret("m1"), None)


@pytest.mark.parametrize(
    ("protocol", "answer", "params", "handle"),
    [
        (Protocol.RTSP, RTSP, {"streamExtensionToken": "old"}, "x1"),
        (Protocol.WEB_RTC, {"mediaSessionId": "m2"}, {"mediaSessionId": "old"}, "m2"),
        (Protocol.WEB_RTC, {}, {"mediaSessionId": "old"}, ""),
    ],
)
async def test_extend(protocol: Protocol, answer: object, params: object, handle: str) -> None:
    google = Google(results(answer))
    extension = await google.api().extend("d1", protocol, Secret("old"))
    assert google.body()["params"] == params  # type: ignore[index]
    assert extension.handle == Secret(handle)


async def test_stop() -> None:
    google = Google(httpx.Response(200, json={}))
    await google.api().stop("d1", Protocol.RTSP, Secret("x1"))
    assert google.body()["params"] == {"streamExtensionToken": "x1"}  # type: ignore[index]


@pytest.mark.parametrize("offset", [-86_400.0, 0.0, 7200.0])
async def test_a_wrong_local_clock_does_no_harm(offset: float) -> None:
    stream = await Google(results(RTSP)).api(WALL + offset).generate("d1", Protocol.RTSP)
    assert stream.expires_in == 299.5


@pytest.mark.parametrize("date", [None, "not a date"])
async def test_without_a_date_the_local_clock_serves(date: str | None) -> None:
    stream = await Google(results(RTSP, date)).api(WALL + 10).generate("d1", Protocol.RTSP)
    assert stream.expires_in == 290.5


@pytest.mark.parametrize("expires", [None, "", "tomorrow", "2099-01-01T00:00:00Z"])
async def test_a_missing_or_senseless_expiry_is_taken_for_a_short_one(expires: str | None) -> None:
    answer = {key: value for key, value in {**RTSP, "expiresAt": expires}.items() if value is not None}
    stream = await Google(results(answer)).api().generate("d1", Protocol.RTSP)
    assert stream.expires_in == UNKNOWN_LIFE


async def test_a_stream_that_has_ended_already_has_no_life() -> None:
    stream = await Google(results({**RTSP, "expiresAt": "2023-11-14T22:00:00Z"})).api().generate("d1", Protocol.RTSP)
    assert stream.expires_in == 0.0


@pytest.mark.parametrize("digits", ["", ".5", ".123456", ".123456789"])
async def test_every_precision_of_rfc3339(digits: str) -> None:
    answer = {**RTSP, "expiresAt": f"2023-11-14T22:18:20{digits}Z"}
    stream = await Google(results(answer)).api().generate("d1", Protocol.RTSP)
    assert 299.0 <= stream.expires_in < 300.0


@pytest.mark.parametrize(
    "broken",
    [
        {"name": "enterprises/p/devices/d2", "traits": {"sdm.devices.traits.CameraLiveStream": {}}, "type": 7},
        {"name": "enterprises/p/devices/d2", "traits": 5},
        {"name": "enterprises/p/devices/d2", "traits": None, "type": None, "parentRelations": [None]},
    ],
)
async def test_a_device_that_cannot_be_read_costs_no_other_and_is_still_known_by_name(broken: object) -> None:
    listing = (
        await Google(httpx.Response(200, json={"devices": [broken, CAMERA], "nextPageToken": None})).api().listing()
    )
    assert [device.id for device in listing.devices] == ["d1"]
    assert listing.others == {"enterprises/p/devices/d2"}


@pytest.mark.parametrize("broken", [None, {"name": None}, [], {}])
async def test_an_entry_that_names_no_device_is_left_out(broken: object) -> None:
    listing = await Google(httpx.Response(200, json={"devices": [CAMERA, broken]})).api().listing()
    assert [device.id for device in listing.devices] == ["d1"]
    assert listing.others == frozenset()


async def test_a_null_beside_a_granted_stream_does_not_cost_it() -> None:
    answer = {**RTSP, "answerSdp": None, "mediaSessionId": None, "expiresAt": None}
    stream = await Google(results(answer)).api().generate("d1", Protocol.RTSP)
    assert (stream.handle, stream.expires_in) == (Secret("x1"), UNKNOWN_LIFE)


async def test_an_sdp_that_no_worker_could_be_given_is_refused_in_words() -> None:
    long = {"answerSdp": "v=0" + "x" * 128 * 1024, "mediaSessionId": "m1"}
    with pytest.raises(MalformedAnswer, match="131075 characters"):
        await Google(results(long)).api().generate("d1", Protocol.WEB_RTC, offer_sdp="v=0 offer")


class Trickle(httpx.AsyncByteStream):
    """A body that comes in parts, each after `pause` seconds."""

    def __init__(self, part: bytes, pause: float) -> None:
        self.part, self.pause = part, pause

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield self.part
            await asyncio.sleep(self.pause)


async def test_an_answer_that_trickles_ends_at_the_calls_deadline() -> None:
    google = Google(httpx.Response(200, stream=Trickle(b" ", 0.02)))
    with pytest.raises(NestTimeout) as caught:
        await asyncio.wait_for(google.api().extend("d1", Protocol.RTSP, Secret("x"), timeout=0.3), 30.0)
    assert caught.value.counted, "Google has carried it out, for all we know"


async def test_an_answer_that_came_while_the_supervisor_stood_still_is_read() -> None:
    """It was given up as late: a stream that Google had granted was lost, and another one generated."""
    loop = asyncio.get_running_loop()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            loop.call_soon_threadsafe(time.sleep, 4.0)
            time.sleep(0.3)
            answer = results(RTSP).content
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        async with httpx.AsyncClient() as client:
            api = NestApi("p", Tokens(), f"http://127.0.0.1:{server.server_address[1]}/v1", client)
            stream = await api.generate("d1", Protocol.RTSP, timeout=3.0)
    assert stream.handle == Secret("x1")


async def test_an_answer_without_end_is_given_up() -> None:
    google = Google(httpx.Response(200, stream=Trickle(b" " * 65536, 0.0)))
    with pytest.raises(MalformedAnswer, match="larger than"):
        await asyncio.wait_for(google.api().devices(), 30.0)


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (httpx.ConnectError("[Errno -3] Temporary failure in name resolution"), "name resolution"),
        (httpx.ConnectError("[Errno 101] Network is unreachable"), "route"),
        (httpx.ConnectTimeout(""), "interface"),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate is not yet valid"), "clock"),
    ],
)
async def test_a_call_that_never_reached_google_is_told_apart(error: Exception, hint: str) -> None:
    with pytest.raises(NotReached, match=hint) as caught:
        await Google(error).api().generate("d1", Protocol.RTSP)
    assert not caught.value.counted
    assert caught.value.account, "it says nothing about the camera"


@pytest.mark.parametrize("error", [httpx.ReadError(""), httpx.RemoteProtocolError("cut off"), httpx.WriteError("")])
async def test_a_call_that_may_have_arrived_counts(error: Exception) -> None:
    with pytest.raises(NestUnreachable) as caught:
        await Google(error).api().generate("d1", Protocol.RTSP)
    assert caught.value.counted
    assert not isinstance(caught.value, NotReached)


async def test_a_token_that_does_not_come_in_time_is_no_call() -> None:
    class Slow(Tokens):
        async def token(self) -> Secret:
            await asyncio.sleep(60.0)
            raise AssertionError

    google = Google()
    api = NestApi("p", Slow(), "https://google.test/v1", httpx.AsyncClient(transport=httpx.MockTransport(google)))
    with pytest.raises(TokenUnavailable):
        await asyncio.wait_for(api.extend("d1", Protocol.RTSP, Secret("x"), timeout=0.1), 30.0)
    assert google.requests == []


async def test_devices_follow_their_pages() -> None:
    google = Google(
        httpx.Response(200, json={"devices": [CAMERA, {"name": "enterprises/p/devices/t"}], "nextPageToken": "2"}),
        httpx.Response(200, json={"devices": [{**CAMERA, "name": "enterprises/p/devices/d2"}]}),
    )
    assert [device.id for device in await google.api().devices()] == ["d1", "d2"]
    assert google.requests[1].url.params["pageToken"] == "2"


async def test_a_listing_names_the_devices_without_a_live_stream() -> None:
    camera = {
        "name": "enterprises/p/devices/d2",
        "type": "sdm.devices.types.DOORBELL",
        "traits": {"sdm.devices.traits.CameraMotion": {}, "sdm.devices.traits.Info": {"customName": "Porch"}},
    }
    google = Google(
        httpx.Response(200, json={"devices": [{"name": "enterprises/p/devices/t"}], "nextPageToken": "2"}),
        httpx.Response(200, json={"devices": [CAMERA, camera]}),
    )
    listing = await google.api().listing()
    assert [device.id for device in listing.devices] == ["d1"]
    assert listing.others == {"enterprises/p/devices/t", "enterprises/p/devices/d2"}
    assert listing.streamless == ("Porch (DOORBELL)",)


async def test_an_empty_account() -> None:
    assert await Google(httpx.Response(200, json={})).api().devices() == []


async def test_a_401_of_a_list_is_repeated_once_with_a_new_token() -> None:
    google = Google(refusal(401), httpx.Response(200, json=CAMERA))
    assert (await google.api().device("d1")).id == "d1"
    assert [request.headers["authorization"] for request in google.requests] == ["Bearer token1", "Bearer token2"]
    google = Google(refusal(401), refusal(401))
    with pytest.raises(Unauthenticated):
        await google.api().devices()


async def test_every_request_of_a_listing_but_the_first_waits_for_its_turn() -> None:
    google = Google(
        refusal(401),
        httpx.Response(200, json={"devices": [CAMERA], "nextPageToken": "2"}),
        refusal(401),
        httpx.Response(200, json={}),
        refusal(401),
        httpx.Response(200, json=CAMERA),
    )
    sent_before: list[int] = []

    async def turn() -> None:
        sent_before.append(len(google.requests))

    api = google.api()
    assert len((await api.listing(turn=turn)).devices) == 1
    assert sent_before == [1, 2, 3]
    await api.device("d1", turn=turn)
    assert sent_before == [1, 2, 3, 5]


async def test_a_401_of_a_command_is_left_to_the_budget_but_the_token_is_replaced() -> None:
    google = Google(refusal(401), results(RTSP))
    api = google.api()
    with pytest.raises(Unauthenticated):
        await api.extend("d1", Protocol.RTSP, Secret("x"))
    await api.extend("d1", Protocol.RTSP, Secret("x"))
    assert google.requests[1].headers["authorization"] == "Bearer token2"


async def test_429_with_retry_after() -> None:
    message = "Rate limited for the ExecuteDeviceCommand API for the user."
    with pytest.raises(RateLimited) as caught:
        await Google(refusal(429, message, {"Retry-After": "90"})).api().extend("d1", Protocol.RTSP, Secret("x"))
    assert (caught.value.bucket, caught.value.retry_after) == ("ExecuteDeviceCommand", 90.0)


Call = Callable[[NestApi], object]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx.Response(200, content=b"<html>"), MalformedAnswer),
        (httpx.Response(200, json=[]), MalformedAnswer),
        (results({}), MalformedAnswer),
        (results({"streamUrls": {"rtspUrl": "rtsps://h/p"}}), MalformedAnswer),
        (httpx.Response(502, content=b"\xff<html>"), GoogleServerError),
        (httpx.ReadTimeout("slow"), NestTimeout),
        (httpx.ConnectError("refused"), NestUnreachable),
        (httpx.RemoteProtocolError("Bearer token1 rtsps://h?auth=secret1"), NestUnreachable),
    ],
)
async def test_what_can_go_wrong_has_a_type_and_names_the_device_and_no_secret(
    answer: httpx.Response | Exception, kind: type[Exception]
) -> None:
    with pytest.raises(kind) as caught:
        await Google(answer).api().generate("AVPHwEvxyz12345678", Protocol.RTSP)
    assert "GenerateRtspStream of device …12345678" in str(caught.value)
    assert "secret1" not in str(caught.value)


async def test_an_incomplete_webrtc_answer() -> None:
    with pytest.raises(MalformedAnswer, match="no SDP"):
        await Google(results({"mediaSessionId": "m"})).api().generate("d1", Protocol.WEB_RTC, offer_sdp="v=0")


async def test_a_device_that_is_no_camera_any_more() -> None:
    with pytest.raises(MalformedAnswer, match="no live stream"):
        await Google(httpx.Response(200, json={**CAMERA, "traits": {}})).api().device("d1")


COMPLETE = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=candidate:1 1 udp 2113937151 192.0.2.7 50000 typ host\r\n"
BARE = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"


@pytest.mark.parametrize(
    ("offer", "status", "message", "kind"),
    [
        (BARE, 500, "Internal error encountered.", OfferRefused),
        (COMPLETE, 500, "Internal error encountered.", GoogleServerError),
        (BARE, 503, "The service is currently unavailable.", GoogleServerError),
        (COMPLETE, 400, "Invalid offer SDP: m-lines must be audio, video, application", OfferRefused),
        (COMPLETE, 400, "Request contains an invalid argument.", WrongProtocol),
    ],
)
async def test_what_google_finds_wrong_with_an_offer_is_no_outage(
    offer: str, status: int, message: str, kind: type[Exception]
) -> None:
    word = {400: "INVALID_ARGUMENT", 500: "INTERNAL", 503: "UNAVAILABLE"}[status]
    body = {"error": {"code": status, "status": word, "message": message}}
    with pytest.raises(kind):
        await Google(httpx.Response(status, json=body)).api().generate("d1", Protocol.WEB_RTC, offer_sdp=offer)
