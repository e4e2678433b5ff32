"""What a WHIP sink asks of a server for the ICE session of a publication, and what it no longer asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import pytest

from relay_common.clock import SystemClock
from relay_common.cloudflare import LocalTrack
from relay_common.config import WhipConfig
from relay_common.patch_messages import PatchSession, SessionPatched
from relay_common.protocol import PublishAnswer, PublishFailed, PublishRequest, TrackOffer
from relay_common.secrets import Secret
from relay_supervisor.sinks.broker import Broker
from relay_supervisor.sinks.patching import patch_session
from relay_supervisor.sinks.sink import SinkError
from relay_supervisor.sinks.whip import WhipSink
from tests.fixtures.scripted_http import SDP, ScriptedServer, reply

TRACKS = [LocalTrack(mid="0", kind="video", name="v")]
RESTARTED = reply("200 OK", b"a=ice-ufrag:theirs", 'ETag: "2"')


class At(NamedTuple):
    server: ScriptedServer
    sink: WhipSink
    asked: Callable[[], list[str]]

    async def open(self, *headers: str) -> str:
        """Open a session, whose answer has these headers."""
        self.server.answer = lambda *_: reply("201 Created", SDP, "Location: /s/1", *headers)
        opened = await self.sink.open("a", "Porch", "v=0", TRACKS, lambda session: True)
        assert opened is not None
        return opened.session


@pytest.fixture
async def at() -> AsyncIterator[At]:
    async with ScriptedServer() as server:
        sink = WhipSink(WhipConfig(name="studio", url=f"http://127.0.0.1:{server.port}/whip"), SystemClock())
        yield At(
            server, sink, lambda: [f"{line} {headers.get('if-match', '')}" for line, headers, _ in server.requests]
        )
        await sink.aclose()


async def test_candidates_follow_the_ice_session_that_was_begun_last(at: At) -> None:
    session = await at.open('ETag: "1"')
    at.server.answer = lambda line, headers, body: RESTARTED if headers["if-match"] == "*" else reply("204 No Content")
    assert await at.sink.patch(session, "a=candidate:1", restart=False) == ""
    assert await at.sink.patch(session, "a=ice-ufrag:x", restart=True) == "a=ice-ufrag:theirs"
    assert await at.sink.patch(session, "a=candidate:2", restart=False) == ""
    assert at.asked()[1:] == ['PATCH /s/1 "1"', "PATCH /s/1 *", 'PATCH /s/1 "2"']


async def test_a_server_without_a_tag_is_not_asked_for_a_restart(at: At) -> None:
    session = await at.open()
    with pytest.raises(SinkError, match="takes no change"):
        await at.sink.patch(session, "a=ice-ufrag:x", restart=True)
    assert len(at.server.requests) == 1
    with pytest.raises(SinkError, match="takes no change"):
        await at.sink.patch("", "a=ice-ufrag:x", restart=True)


async def test_a_session_of_an_earlier_run_is_asked(at: At) -> None:
    at.server.answer = lambda *_: RESTARTED
    found = await at.sink.patch(f"http://127.0.0.1:{at.server.port}/s/9", "a=ice-ufrag:x", restart=True)
    assert found == "a=ice-ufrag:theirs"


@pytest.mark.parametrize("status", ["405 Method Not Allowed", "422 Unprocessable", "501 Not Implemented"])
async def test_a_server_that_takes_none_is_asked_once(at: At, status: str) -> None:
    session = await at.open('ETag: "1"')
    at.server.answer = lambda *_: reply(status)
    for _ in range(3):
        with pytest.raises(SinkError):
            await at.sink.patch(session, "a=ice-ufrag:x", restart=True)
    assert len(at.server.requests) == 2
    with pytest.raises(SinkError, match=status[:3]):  # it may take the other kind
        await at.sink.patch(session, "a=candidate:1", restart=False)


@pytest.mark.parametrize("status", ["404 Not Found", "412 Precondition Failed", "503 Busy", "204 No Content"])
async def test_a_server_that_does_not_now_is_asked_again(at: At, status: str) -> None:
    session = await at.open('ETag: "1"')
    at.server.answer = lambda *_: reply(status)
    for _ in range(2):
        with pytest.raises(SinkError):
            await at.sink.patch(session, "a=ice-ufrag:x", restart=True)
    assert len(at.server.requests) == 3


async def test_the_worker_is_told_what_became_of_it(at: At) -> None:
    broker = Broker(at.sink, SystemClock(), new_id=lambda: "pub")
    at.server.answer = lambda *_: reply("201 Created", SDP, "Location: /s/1", 'ETag: "1"')
    offer = PublishRequest(request=1, offer="v=0", tracks=[TrackOffer(kind="video", mid="0")], sink="studio")
    assert isinstance(await broker.publish("a", "Porch", offer), PublishAnswer)
    ask = PatchSession(request=7, publication="pub", sink="studio", fragment="a=ice-ufrag:x", restart=True)
    at.server.answer = lambda *_: RESTARTED
    assert await patch_session(broker, "a", ask) == SessionPatched(request=7, fragment="a=ice-ufrag:theirs")
    at.server.answer = lambda *_: reply("412 Precondition Failed")
    refused = await patch_session(broker, "a", ask)
    assert (refused.request, refused.fragment) == (7, "")
    assert "412" in refused.reason
    assert "gone" in (await patch_session(broker, "b", ask)).reason, "of another camera"
    assert "gone" in (await patch_session(None, "a", ask)).reason, "so is the sink"
    await broker.retire("a")


@pytest.mark.parametrize(
    ("status", "fields", "retry_after", "unauthorized", "pauses"),
    [
        ("401 Unauthorized", (), 0.0, True, [1.5, 60.0]),
        ("403 Forbidden", ("Retry-After: 90",), 90.0, True, [90.0, 90.0]),
        ("404 Not Found", (), 0.0, False, [0.0, 0.0]),
        ("409 Conflict", (), 0.0, False, [0.0, 0.0]),
        ("422 Unprocessable", (), 0.0, False, [0.0, 0.0]),
        ("503 Busy", ("Retry-After: 7",), 7.0, False, [7.0, 7.0]),
    ],
)
async def test_a_refused_token_waits_as_of_the_second_time_and_others_as_long_as_the_server_says(
    at: At, status: str, fields: tuple[str, ...], retry_after: float, unauthorized: bool, pauses: list[float]
) -> None:
    at.server.answer = lambda *_: reply(status, b"", *fields)
    with pytest.raises(SinkError, match=status[:3]) as caught:
        await at.sink.open("a", "Porch", "v=0", TRACKS, lambda session: True)
    assert (caught.value.retry_after, caught.value.unauthorized) == (retry_after, unauthorized)
    broker = Broker(at.sink, SystemClock())
    offer = PublishRequest(request=1, offer="v=0", tracks=[TrackOffer(kind="video", mid="0")], sink="studio")
    for pause in pauses:
        failed = await broker.publish("a", "Porch", offer)
        assert isinstance(failed, PublishFailed)
        assert failed.retry_after == pause


async def test_a_server_without_a_location_is_warned_of_once_and_only_left(
    at: At, caplog: pytest.LogCaptureFixture
) -> None:
    at.server.answer = lambda *_: reply("201 Created", SDP)
    for _ in range(2):
        opened = await at.sink.open("a", "Porch", "v=0", TRACKS, lambda session: True)
        assert opened is not None
        assert (opened.session, opened.answer) == ("", SDP.decode())
        await at.sink.close(opened.session, TRACKS)
    assert [line for line, _, _ in at.server.requests] == ["POST /whip"] * 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "studio: the server sent no Location" in caplog.text


async def test_a_token_that_can_be_overheard_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    for url in ("http://127.0.0.1:1/whip", "https://studio.example/whip", "http://192.168.1.9:1984/whip"):
        sink = WhipSink(WhipConfig(name="studio", url=url, bearer_token=Secret("t0ken-0123456789")), SystemClock())
        await sink.aclose()
    (record,) = caplog.records
    assert (record.levelname, "http://192.168.1.9:1984" in record.getMessage()) == ("WARNING", True)
    assert "t0ken" not in caplog.text
