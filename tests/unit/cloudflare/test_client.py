"""The SFU client against scripted answers: what it repeats, what it never repeats, and what it hands on."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from relay_common.clock import ManualClock
from relay_common.cloudflare import (
    LocalTrack,
    PoliciesRefused,
    RemoteTrack,
    ResponseLost,
    SessionGone,
    SfuClient,
    SfuError,
    SimulcastChoice,
)
from relay_common.cloudflare import client as client_module
from relay_common.cloudflare.client import ASK_AGAIN
from relay_common.cloudflare.errors import ErrorClass, request_error, track_error
from relay_common.cloudflare.exchange import MAX_BODY
from relay_common.errors import ConfigError, LocalError, Remedy
from relay_common.secrets import Secret

OFFER = "v=0\r\noffer"
ANSWER = {"sessionDescription": {"type": "answer", "sdp": "v=0\r\nanswer"}}
TRACKS = [LocalTrack(mid="0", name="cam-video", kind="video"), LocalTrack(mid="1", name="cam-audio", kind="audio")]
REMOTE = RemoteTrack(session="pub", name="cam-video", kind="video")
PULLED = {
    "requiresImmediateRenegotiation": True,
    "tracks": [{"sessionId": "pub", "trackName": "cam-video", "mid": "7"}],
    "sessionDescription": {"type": "offer", "sdp": OFFER},
}

Step = tuple[int, Any] | type[httpx.TransportError]


def failure(status: int, code: str = "") -> Step:
    return status, {"errorCode": code, "errorDescription": "as the script says"}


class Script(httpx.AsyncBaseTransport):
    """Answers requests with the given steps, in order, and remembers the requests."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.requests: list[tuple[str, str, Any]] = []
        self.headers: list[httpx.Headers] = []
        self.at_once = self.most_at_once = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        content = request.content
        self.requests.append((request.method, request.url.raw_path.decode(), json.loads(content) if content else None))
        self.headers.append(request.headers)
        step = self.steps.pop(0)
        if not isinstance(step, tuple):
            raise step("scripted")
        status, body = step
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.Response(status, content=raw)


def make(*steps: Step) -> tuple[SfuClient, Script, ManualClock]:
    script, clock = Script(*steps), ManualClock()
    client = SfuClient(
        "app", Secret("s3cret"), clock=clock, rng=random.Random(1), base_url="http://sfu/v1/", transport=script
    )
    return client, script, clock


async def finish(clock: ManualClock, work: Any, seconds: float = 60.0) -> Any:
    task = asyncio.ensure_future(work)
    await clock.advance(seconds)
    return await asyncio.wait_for(task, 5)


async def test_speaks_the_api_as_described() -> None:
    client, script, _ = make(
        (201, {"sessionId": "abc"}),
        (200, {"tracks": [{"mid": "0", "trackName": "cam-video"}], **ANSWER}),
        (200, PULLED),
        (200, {}),
        (200, {"tracks": [{"mid": "7"}], "requiresImmediateRenegotiation": False}),
        (200, {"tracks": [{"location": "local", "mid": "0", "trackName": "cam-video", "status": "active"}]}),
    )
    assert await client.new_session("cam 1") == "abc"
    assert await client.publish("abc", OFFER, TRACKS) == "v=0\r\nanswer"
    pull = await client.pull("abc", [REMOTE])
    assert (pull.offer, pull.tracks[0].mid, pull.tracks[0].error) == (OFFER, "7", None)
    await client.renegotiate("abc", "v=0\r\nanswer")
    await client.close("abc", ["7"])
    (track,) = await client.get_session("abc")
    assert (track.mid, track.name, track.local, track.active) == ("0", "cam-video", True, True)
    base = "/v1/apps/app/sessions"
    assert [(method, path) for method, path, _ in script.requests] == [
        ("POST", f"{base}/new?correlationId=cam%201"),
        ("POST", f"{base}/abc/tracks/new"),
        ("POST", f"{base}/abc/tracks/new"),
        ("PUT", f"{base}/abc/renegotiate"),
        ("PUT", f"{base}/abc/tracks/close"),
        ("GET", f"{base}/abc"),
    ]
    bodies = [body for _, _, body in script.requests]
    assert bodies[1] == {
        "sessionDescription": {"type": "offer", "sdp": OFFER},
        "tracks": [
            {"location": "local", "mid": "0", "trackName": "cam-video"},
            {"location": "local", "mid": "1", "trackName": "cam-audio"},
        ],
    }
    assert bodies[2] == {"tracks": [{"location": "remote", "sessionId": "pub", "trackName": "cam-video"}]}
    assert bodies[3] == {"sessionDescription": {"type": "answer", "sdp": "v=0\r\nanswer"}}
    assert bodies[4] == {"tracks": [{"mid": "7"}], "force": True}
    assert all(headers["authorization"] == "Bearer s3cret" for headers in script.headers)


def publish(client: SfuClient) -> Any:
    return client.publish("s", OFFER, TRACKS)


def pull(client: SfuClient) -> Any:
    return client.pull("s", [REMOTE])


def once(client: SfuClient) -> Any:
    return client.new_session(attempts=1)


def renegotiate(client: SfuClient) -> Any:
    return client.renegotiate("s", "v=0")


def new_session(client: SfuClient) -> Any:
    return client.new_session()


def close(client: SfuClient) -> Any:
    return client.close("s", ["0"])


@pytest.mark.parametrize(
    ("work", "first", "requests", "remedy"),
    [
        # What the server says it did not do may be asked again; the second answer here ends it.
        (pull, failure(425, "session_error"), 2, Remedy.REGENERATE),
        (pull, failure(429), 2, Remedy.REGENERATE),
        (pull, failure(503), 2, Remedy.REGENERATE),
        (pull, failure(500, "retryable_transient_error"), 2, Remedy.REGENERATE),
        (pull, httpx.ConnectError, 2, Remedy.REGENERATE),
        (pull, failure(401, "unauthorized"), 2, Remedy.REGENERATE),
        (pull, failure(403), 2, Remedy.REGENERATE),
        # An unknown state, or a lost answer: replace the connection.
        (publish, failure(500, "internal_error"), 1, Remedy.RETRY),
        (publish, httpx.ReadTimeout, 1, Remedy.REGENERATE),
        (publish, httpx.RemoteProtocolError, 1, Remedy.REGENERATE),
        (renegotiate, httpx.ReadTimeout, 1, Remedy.REGENERATE),
        (publish, failure(406, "invalid_session_description"), 1, Remedy.REGENERATE),
        (publish, failure(410, "session_error"), 1, Remedy.REGENERATE),
        (publish, failure(404, "not_found"), 1, Remedy.FATAL),
        # These may be repeated at will.
        (new_session, httpx.ReadTimeout, 2, Remedy.REGENERATE),
        (new_session, failure(500, "internal_error"), 2, Remedy.REGENERATE),
        (new_session, failure(401), 2, Remedy.REGENERATE),
        (new_session, failure(400, "decoding_error"), 1, Remedy.REGENERATE),
        (close, httpx.ReadTimeout, 2, Remedy.REGENERATE),
    ],
)
async def test_repeats_only_where_it_helps(
    work: Callable[[SfuClient], Any], first: Step, requests: int, remedy: Remedy
) -> None:
    client, script, clock = make(first, failure(400, "decoding_error"))
    with pytest.raises(SfuError) as caught:
        await finish(clock, work(client))
    assert len(script.requests) == requests
    assert caught.value.remedy is remedy
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("work", [publish, once])
@pytest.mark.parametrize(
    "first",
    [
        failure(401, "unauthorized"),
        failure(403),
        failure(425, "session_error"),
        failure(429),
        failure(503),
        failure(500, "retryable_transient_error"),
    ],
)
async def test_publishing_is_tried_once_and_the_worker_decides_when_again(
    work: Callable[[SfuClient], Any], first: Step
) -> None:
    client, script, clock = make(first)
    began = clock.now()
    with pytest.raises(SfuError):
        await asyncio.wait_for(work(client), 5)
    assert (len(script.requests), clock.now()) == (1, began)


async def test_a_refused_secret_is_believed_when_it_is_refused_twice() -> None:
    refused = failure(401, "unauthorized")
    client, script, clock = make(refused, (201, {"sessionId": "s"}), refused, refused)
    asking = asyncio.ensure_future(client.new_session())
    await clock.advance(ASK_AGAIN / 2 - 0.1)
    assert len(script.requests) == 1, "not at once: it would only be refused again"
    await clock.advance(ASK_AGAIN / 2 + 0.2)
    assert await asking == "s"
    with pytest.raises(SfuError, match="app_secret") as caught:
        await finish(clock, client.new_session())
    assert (caught.value.remedy, caught.value.code) == (Remedy.FATAL, "unauthorized")
    assert len(script.requests) == 4


async def test_lost_answers_and_gone_sessions_have_their_own_types() -> None:
    client, _, clock = make(httpx.ReadTimeout, failure(410, "session_error"), failure(410), failure(404))
    with pytest.raises(ResponseLost):
        await finish(clock, publish(client))
    with pytest.raises(SessionGone):
        await finish(clock, renegotiate(client))
    await client.close("s", ["0"])  # 410: done
    with pytest.raises(SessionGone):
        await client.get_session("s")


async def test_gives_up_after_three_attempts_and_waits_as_told() -> None:
    client, script, clock = make(failure(429), failure(429), failure(429))
    started = clock.now()
    task = asyncio.ensure_future(client.new_session())
    await clock.advance(0.1)
    assert len(script.requests) == 1
    with pytest.raises(SfuError):
        await finish(clock, task)
    assert len(script.requests) == 3
    assert client.meter.retries["new_session"] == 2
    assert client.meter.results["new_session", ErrorClass.RATE_LIMITED] == 3
    assert clock.now() > started


async def test_errors_of_single_tracks_inside_200_are_not_overlooked() -> None:
    refused = {"sessionId": "pub", "trackName": "cam-audio", "mid": "", "errorCode": "not_found_track_error"}
    client, _, _ = make(
        (200, {**PULLED, "tracks": [refused, *PULLED["tracks"]]}),
        (200, {"requiresImmediateRenegotiation": False, "tracks": [refused]}),
        (200, {"tracks": [{"mid": "0", "errorCode": "internal_error", "errorDescription": "x"}], **ANSWER}),
    )
    audio = RemoteTrack(session="pub", name="cam-audio", kind="audio")
    pull = await client.pull("s", [REMOTE, audio])
    assert [(t.track.name, t.mid, t.error and t.error.remedy) for t in pull.tracks] == [
        ("cam-video", "7", None),
        ("cam-audio", "", Remedy.RETRY),
    ]
    pull = await client.pull("s", [audio])
    assert (pull.offer, pull.tracks[0].mid) == (None, "")
    with pytest.raises(SfuError, match="internal_error"):
        await client.publish("s", OFFER, TRACKS)
    assert client.meter.results["pull", ErrorClass.TRACK] == 2


async def test_closing_what_is_closed_is_done_but_other_errors_are_told() -> None:
    client, _, _ = make(
        (200, {"tracks": [{"mid": "0", "errorCode": "close_track_error"}]}),
        (200, {"tracks": [{"mid": "0", "errorCode": "internal_error"}]}),
    )
    await client.close("s", ["0"])
    with pytest.raises(SfuError, match="internal_error"):
        await client.close("s", ["0"])


@pytest.mark.parametrize(
    "body",
    [
        b"<html>gateway</html>",
        b"{}",
        b"[]",
        b'{"tracks": 5}',
        {"sessionDescription": {"type": "offer", "sdp": "v=0"}},
        {"sessionDescription": {"type": "answer", "sdp": "error"}},
        {"errorCode": "invalid_params", **ANSWER},
        b"\xff\xfe",
        b"x" * (2 << 20),
        {"sessionDescription": {"type": "answer", "sdp": "v=0\r\n" + "a=x\r\n" * 30_000}},
    ],
)
async def test_an_answer_that_is_none_is_never_taken_for_sdp(body: Any) -> None:
    client, script, clock = make((200, body))
    with pytest.raises(SfuError) as caught:
        await finish(clock, publish(client))
    assert caught.value.remedy is Remedy.REGENERATE
    assert len(script.requests) == 1


async def test_an_update_tells_each_mids_outcome() -> None:
    client, script, _ = make((200, {"tracks": [{"mid": "8", "errorCode": "update_track_error"}, {"mid": "7"}]}))
    other = RemoteTrack(session="new", name="cam-video")
    results = await client.update("s", [("7", REMOTE), ("8", other)])
    assert [(r.mid, r.error is None) for r in results] == [("7", True), ("", False)]
    assert script.requests[0][:2] == ("PUT", "/v1/apps/app/sessions/s/tracks/update")


LAYERED = RemoteTrack(
    session="pub",
    name="cam-video",
    simulcast=SimulcastChoice(preferred_rid="b", priority_ordering="asciibetical", rid_not_available="asciibetical"),
)


async def test_a_layer_is_asked_for_with_policies_and_without_them_where_the_sfu_refuses_those() -> None:
    client, script, clock = make((200, PULLED), failure(406, "invalid_params"), (200, PULLED), (200, PULLED))
    await client.pull("s", [LAYERED])
    updated = await finish(clock, client.update("s", [("7", LAYERED)]))
    assert [one.error for one in updated] == [None]
    await client.pull("s", [LAYERED])
    asked = [body["tracks"][0]["simulcast"] for _, _, body in script.requests]
    full = {"preferredRid": "b", "priorityOrdering": "asciibetical", "ridNotAvailable": "asciibetical"}
    assert asked == [full, full, {"preferredRid": "b"}, {"preferredRid": "b"}]
    assert client.counters()["policies_refused"] == 1


async def test_policies_are_not_blamed_for_what_fails_without_them() -> None:
    refused = {"tracks": [{"sessionId": "pub", "trackName": "cam-video", "errorCode": "invalid_params"}]}
    client, script, clock = make(
        *(failure(406, "invalid_params"), failure(406, "invalid_params")), *((200, refused), (200, refused))
    )
    with pytest.raises(SfuError):
        await finish(clock, client.pull("s", [LAYERED]))
    (one,) = (await finish(clock, client.pull("s", [LAYERED]))).tracks
    assert one.error is not None
    assert "priorityOrdering" in script.requests[2][2]["tracks"][0]["simulcast"]
    assert client.counters()["policies_refused"] == 0


SOUND = RemoteTrack(session="pub", name="cam-audio", kind="audio")
REFUSED_TRACK = {"sessionId": "pub", "trackName": "cam-video", "mid": "", "errorCode": "invalid_params"}


async def test_a_layer_that_is_refused_by_itself_is_asked_for_again_by_itself() -> None:
    sound = {"sessionId": "pub", "trackName": "cam-audio", "mid": "8"}
    client, script, _ = make((200, {"tracks": [sound, REFUSED_TRACK | {"mid": "7"}]}), (200, PULLED), (200, PULLED))
    results = await client.update("s", [("8", SOUND), ("7", LAYERED)])
    assert [(one.mid, one.error) for one in results] == [("8", None), ("7", None)]
    first, again = ([track["mid"] for track in body["tracks"]] for _, _, body in script.requests)
    assert (first, again) == (["8", "7"], ["7"])
    assert script.requests[1][2]["tracks"][0]["simulcast"] == {"preferredRid": "b"}
    assert client.counters()["policies_refused"] == 1
    await client.pull("s", [LAYERED])
    assert script.requests[2][2]["tracks"][0]["simulcast"] == {"preferredRid": "b"}


async def test_a_layer_that_is_refused_beside_an_offer_is_pulled_without_policies_in_another_session() -> None:
    sound = {"sessionId": "pub", "trackName": "cam-audio", "mid": "8"}
    part = PULLED | {"tracks": [sound, REFUSED_TRACK]}
    client, script, _ = make((200, part), (200, PULLED), (200, PULLED))
    with pytest.raises(PoliciesRefused):
        await client.pull("s", [SOUND, LAYERED])
    assert client.counters()["policies_refused"] == 0, "it is not known yet"
    assert (await client.pull("t", [LAYERED])).tracks[0].error is None
    await client.pull("u", [LAYERED])
    assert [body["tracks"][-1]["simulcast"] for _, _, body in script.requests[1:]] == [{"preferredRid": "b"}] * 2
    assert client.counters()["policies_refused"] == 1


async def test_a_part_that_is_refused_without_policies_too_is_told_as_it_is() -> None:
    sound = {"sessionId": "pub", "trackName": "cam-audio", "mid": "8"}
    part = PULLED | {"tracks": [sound, REFUSED_TRACK]}
    client, script, _ = make((200, part), (200, part), (200, PULLED))
    with pytest.raises(PoliciesRefused):
        await client.pull("s", [SOUND, LAYERED])
    pull = await client.pull("t", [SOUND, LAYERED])
    assert [one.error is None for one in pull.tracks] == [True, False]
    assert pull.offer is not None
    await client.pull("u", [LAYERED])
    assert "priorityOrdering" in script.requests[2][2]["tracks"][0]["simulcast"], "they were not the reason"
    assert client.counters()["policies_refused"] == 0


async def test_a_plain_track_is_asked_for_as_ever() -> None:
    client, script, _ = make((200, PULLED), failure(406, "invalid_params"))
    await client.pull("s", [REMOTE])
    with pytest.raises(SfuError):
        await client.pull("s", [REMOTE])
    assert script.requests[0] == script.requests[1]
    assert script.requests[0][2] == {"tracks": [{"location": "remote", "sessionId": "pub", "trackName": "cam-video"}]}


async def test_one_change_at_a_time_per_session_and_many_sessions_at_once() -> None:
    client, script, _ = make(*[(200, PULLED)] * 8)
    await asyncio.gather(*[client.pull("one", [REMOTE]) for _ in range(4)])
    assert script.most_at_once == 1
    await asyncio.gather(*[client.pull(f"s{n}", [REMOTE]) for n in range(4)])
    assert script.most_at_once == 4


async def test_stays_within_fifty_requests_a_second_per_session() -> None:
    client, script, clock = make(*[(200, {"tracks": []})] * 60)
    work = asyncio.gather(*[client.get_session("s") for _ in range(60)])
    await clock.advance(0.9)
    assert len(script.requests) == 50
    await finish(clock, work, 1.0)
    assert len(script.requests) == 60


async def test_remembers_a_bounded_number_of_sessions() -> None:
    client, _, _ = make(*[(200, {"tracks": []})] * 20)
    client._gate._bound = 5
    for number in range(20):
        await client.get_session(str(number))
    assert len(client._gate) == 5
    assert client._gate.forgotten == 15
    client.forget("19")
    assert len(client._gate) == 4


async def test_wrong_use_and_wrong_configuration() -> None:
    client, script, _ = make()
    with pytest.raises(LocalError):
        await client.pull("s", [REMOTE] * 65)
    with pytest.raises(LocalError):
        await client.publish("s", OFFER, [])
    assert not script.requests
    for app, secret, url in [
        ("", "secret", "http://x"),
        ("app", "sec\nret", "http://x"),
        ("app", "", "http://x"),
        ("app", "secret", "ftp://x"),
        ("app", "secret", "http://x:port"),
    ]:
        with pytest.raises(ConfigError) as caught:
            SfuClient(app, Secret(secret), clock=ManualClock(), rng=random.Random(1), base_url=url)
        assert "sec\nret" not in str(caught.value)


async def test_session_ids_cannot_escape_their_place_in_the_path() -> None:
    client, script, _ = make((200, {"tracks": []}))
    await client.get_session("../../other?x=1")
    assert script.requests[0][1] == "/v1/apps/app/sessions/..%2F..%2Fother%3Fx%3D1"


@pytest.mark.parametrize(
    "body", [b'{"tracks": [{"trackName": "\xff"}]}', b'{"tracks":' * 50_000], ids=["UTF-8", "deep"]
)
async def test_an_answer_that_no_decoder_takes_is_an_error_of_the_call(body: bytes) -> None:
    client, _, clock = make(*[(200, body)] * 6)
    with pytest.raises(SfuError, match="is not the JSON that the API describes"):
        await finish(clock, client.get_session("pub"))


def test_long_codes_and_descriptions_are_quoted_in_part() -> None:
    assert len(str(request_error("pull", 400, "x" * 1_000_000, "a." * 1_000_000))) < 500
    assert len(str(track_error("pull", "x" * 1_000_000, "a." * 1_000_000))) < 500


class Trickle(httpx.AsyncBaseTransport, httpx.AsyncByteStream):
    """Answers every request with a body that never ends, a byte at a time."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.02)


async def test_an_answer_that_trickles_ends_at_the_calls_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "CALL_WITHIN", 0.2)
    client = SfuClient("app", Secret("s"), clock=ManualClock(), rng=random.Random(1), transport=Trickle())
    with pytest.raises(ResponseLost, match="no complete answer within"):
        await asyncio.wait_for(client.publish("s1", OFFER, TRACKS), 30.0)
    with pytest.raises(SfuError, match="no complete answer within"):
        await asyncio.wait_for(client.new_session(attempts=1), 30.0)


async def test_an_answer_without_end_is_given_up() -> None:
    client, _, _ = make((200, b" " * (MAX_BODY + 1)))
    with pytest.raises(SfuError, match="larger than 1048576 bytes"):
        await client.new_session(attempts=1)
