from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_common.errors import Remedy
from relay_common.fsm import IllegalTransition, Machine
from relay_common.secrets import Secret, redact
from relay_worker.media.stream import Batch
from relay_worker.rtsp import errors
from relay_worker.rtsp.dialogue import MAX_DIALOGUE
from relay_worker.rtsp.errors import RtspError, RtspStage
from relay_worker.rtsp.events import Playing, Redirected, SessionSettings
from relay_worker.rtsp.session import RtspSession
from relay_worker.rtsp.states import TABLE, RtspEvent, RtspState

pytestmark = pytest.mark.usefixtures("data_path")

URL = "rtsps://cam.example/x?auth=g.0.token"
SDP = (
    b"v=0\r\ns=x\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:v\r\n"
    b"m=audio 0 RTP/AVP 97\r\na=rtpmap:97 MPEG4-GENERIC/16000\r\na=control:a\r\n"
)
SETTINGS = SessionSettings(read_timeout=30, media_timeout=8)


def answer(status: str = "200 OK", *headers: str, cseq: int, body: bytes = b"") -> bytes:
    lines = [f"RTSP/1.0 {status}", f"CSeq: {cseq}", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


OPENING = [
    answer("200 OK", "Public: OPTIONS, GET_PARAMETER", cseq=1),
    answer("200 OK", "Content-Base: rtsps://cam.example/x/", cseq=2, body=SDP),
    answer("200 OK", "Session: 77;timeout=20", "Transport: RTP/AVP/TCP;interleaved=0-1", cseq=3),
    answer("200 OK", "Session: 77;timeout=20", "Transport: RTP/AVP/TCP;interleaved=2-3", cseq=4),
    answer("200 OK", cseq=5),
]


def opened(count: int = 5, url: str = URL) -> RtspSession:
    session = RtspSession(Secret(url), SETTINGS)
    session.start(0.0)
    for data in OPENING[:count]:
        session.receive_data(data, 0.0)
    session.data_to_send()
    return session


def test_table_walks_every_edge_and_no_other() -> None:
    edges = {(state, event): target for state, event, target in TABLE.edges()}
    for state in RtspState:
        for event in RtspEvent:
            machine = Machine(TABLE, state)
            if (state, event) in edges:
                assert machine.fire(event) is edges[state, event]
            else:
                with pytest.raises(IllegalTransition):
                    machine.fire(event)
                assert machine.state is state


@pytest.mark.parametrize(
    ("status", "kind", "remedy"),
    [
        ("404 Not Found", errors.NotFoundError, Remedy.RETRY),
        ("403 Forbidden", errors.AccessError, Remedy.REGENERATE),
        ("401 Unauthorized", errors.AccessError, Remedy.REGENERATE),
        ("410 Gone", errors.GoneError, Remedy.REGENERATE),
        ("454 Session Not Found", errors.SessionLostError, Remedy.RETRY),
        ("503 Service Unavailable", errors.RtspServerError, Remedy.RETRY),
        ("461 Unsupported Transport", errors.UnsupportedError, Remedy.PARK),
    ],
)
@pytest.mark.parametrize(("stage", "steps"), [(RtspStage.DESCRIBE, 1), (RtspStage.SETUP, 2), (RtspStage.PLAY, 4)])
def test_refusals(status: str, kind: type[RtspError], remedy: Remedy, stage: RtspStage, steps: int) -> None:
    session = opened(steps)
    with pytest.raises(kind) as caught:
        session.receive_data(answer(status, cseq=steps + 1), 0.0)
    assert caught.value.stage is stage
    assert caught.value.remedy is remedy
    assert caught.value.status == int(status[:3])
    assert "g.0.token" not in str(caught.value)


def test_not_found_escalates_to_a_new_url() -> None:
    assert errors.NotFoundError.escalation is Remedy.REGENERATE


def test_unauthorized_is_answered_once() -> None:
    session = RtspSession(Secret("rtsp://us%40er:p%3Aw@cam/x"), SETTINGS)
    session.start(0.0)
    assert b"p%3Aw" not in session.data_to_send()
    session.receive_data(answer(cseq=1), 0.0)
    session.receive_data(answer("401 No", 'WWW-Authenticate: Basic realm="x"', cseq=2), 0.0)
    assert b"Authorization: Basic dXNAZXI6cDp3\r\n" in session.data_to_send()
    with pytest.raises(errors.AccessError, match="does not accept this user name and password"):
        session.receive_data(answer("401 No", 'WWW-Authenticate: Basic realm="x"', cseq=3), 0.0)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (URL, "token is stale"),
        ("rtsp://cam/x", "before its host: USER:PASSWORD@HOST"),
        ("rtsp://me:pw@cam/x", "user name and password"),
    ],
)
@pytest.mark.parametrize("steps", [1, 2])
def test_refused_access_says_what_was_not_accepted(url: str, words: str, steps: int) -> None:
    with pytest.raises(errors.AccessError) as caught:
        opened(steps, url).receive_data(answer("403 Forbidden", cseq=steps + 1), 0.0)
    assert words in redact(caught.value.hint), "as it is shown"


def test_redirect() -> None:
    (event,) = opened(1).receive_data(answer("302 Found", "Location: rtsps://other/x?auth=1", cseq=2), 0.0)
    assert event == Redirected(Secret("rtsps://other/x?auth=1"))
    assert "auth=1" not in repr(event)


@pytest.mark.parametrize("location", ["rtsp://other/x", "http://other/", ""])
def test_redirect_that_must_not_be_followed(location: str) -> None:
    with pytest.raises(errors.RedirectError) as caught:
        opened(1).receive_data(answer("301 Moved", f"Location: {location}", cseq=2), 0.0)
    assert caught.value.remedy is Remedy.REGENERATE


@pytest.mark.parametrize(("steps", "timeout"), [(0, 30), (1, 30), (2, 30), (4, 30)])
def test_answers_have_deadlines(steps: int, timeout: float) -> None:
    session = opened(steps)
    assert session.next_deadline() == timeout
    session.poll(timeout - 0.1)
    with pytest.raises(errors.RtspTimeoutError) as caught:
        session.poll(timeout)
    assert caught.value.stage is session.stage
    assert "in 30 s" in caught.value.message


def test_the_longest_wait_for_an_answer_is_no_limit_for_media_and_the_other_way_round() -> None:
    session = RtspSession(Secret(URL), SessionSettings(read_timeout=3, media_timeout=20))
    session.start(0.0)
    for data in OPENING:
        session.receive_data(data, 0.0)
    session.data_to_send()
    session.poll(15.0)  # a keep-alive is due, and media may pause
    session.poll(19.9)
    session.stop(19.9)
    assert session.next_deadline() == pytest.approx(22.9)  # of TEARDOWN
    with pytest.raises(errors.RtspTimeoutError, match="no answer to TEARDOWN in 3 s"):
        session.poll(23.0)


@pytest.mark.parametrize("number", [0, 1, 7])
def test_answers_with_one_number_for_all_are_those_that_are_waited_for(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "relay_worker.rtsp")
    session = RtspSession(Secret(URL), SETTINGS)
    session.start(0.0)
    for count, data in enumerate(OPENING, 1):
        session.receive_data(data.replace(f"CSeq: {count}".encode(), f"CSeq: {number}".encode()), 0.0)
    assert session.state is RtspState.PLAYING
    session.receive_data(b"$\x00\x00\x01x", 9.0)
    session.poll(10.0)
    session.receive_data(answer(cseq=number), 10.0)
    assert session.dialogue.requests.unmatched == 0
    taken = 5 if number == 1 else 6
    assert dict(session.dialogue.tolerated()) == {
        "answer_misnumbered": taken,
        "keepalive_unanswered": 0,
        "session_renamed": 0,
    }
    said = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert len(said) == 1, "once a session"
    assert "CSeq" in said[0]


def test_of_two_requests_that_wait_neither_is_answered_by_a_number_of_its_own() -> None:
    session = opened()
    session.receive_data(b"$\x00\x00\x01x", 9.0)
    session.poll(10.0)
    session.stop(10.5)
    session.receive_data(answer(cseq=99), 11.0)
    assert session.state is RtspState.TEARDOWN
    assert session.dialogue.requests.unmatched == 1


def test_a_late_answer_to_a_keepalive_that_was_given_up_answers_nothing() -> None:
    session = opened()
    for second in (10.0, 20.0):
        session.receive_data(b"$\x00\x00\x01x", second - 1.0)
        session.poll(second)
    session.receive_data(answer("454 Session Not Found", cseq=6), 20.5)
    assert session.dialogue.requests.unmatched == 1
    assert dict(session.dialogue.tolerated())["keepalive_unanswered"] == 1


def test_the_first_setup_names_the_session(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "relay_worker.rtsp")
    session = opened(3)
    session.receive_data(answer("200 OK", "Session: 78", "Transport: RTP/AVP/TCP;interleaved=2-3", cseq=4), 0.0)
    assert b"Session: 77\r\n" in session.data_to_send()
    assert dict(session.dialogue.tolerated())["session_renamed"] == 1
    assert "another session" in caplog.text
    assert "78" not in caplog.text
    session.receive_data(answer(cseq=5), 0.0)
    session.stop(1.0)
    assert b"Session: 77\r\n" in session.data_to_send()


def test_silence_is_noticed() -> None:
    session = opened()
    session.receive_data(b"$\x00\x00\x01x", 5.0)
    assert session.next_deadline() == 10.0  # keepalive: half of the session's 20 s
    session.poll(10.0)
    assert session.data_to_send().startswith(b"GET_PARAMETER rtsps://cam.example/x/ RTSP/1.0\r\n")
    assert session.next_deadline() == 13.0
    with pytest.raises(errors.RtspTimeoutError, match="after 8 s, without an answer to GET_PARAMETER"):
        session.poll(13.0)


def test_keepalive_falls_back_to_options() -> None:
    session = opened()
    session.receive_data(b"$\x00\x00\x00", 9.0)
    session.poll(10.0)
    session.receive_data(answer("405 Method Not Allowed", cseq=6), 10.0)
    session.data_to_send()
    session.receive_data(b"$\x00\x00\x00", 19.0)
    session.poll(20.0)
    assert session.data_to_send().startswith(b"OPTIONS rtsps://cam.example/x/ ")


def test_keepalive_tells_that_the_session_is_lost() -> None:
    session = opened()
    session.receive_data(b"$\x00\x00\x00", 9.0)
    session.poll(10.0)
    with pytest.raises(errors.SessionLostError):
        session.receive_data(answer("454 Session Not Found", cseq=6), 10.0)


def test_unanswered_keepalives_do_not_pile_up() -> None:
    session = opened()
    for second in range(10, 1000, 10):
        session.receive_data(b"$\x00\x00\x00", second - 1.0)
        session.poll(float(second))
    assert len(session.dialogue.requests) == 1
    assert dict(session.dialogue.tolerated())["keepalive_unanswered"] == 98
    assert len(session.dialogue.recorded) <= MAX_DIALOGUE


def test_media_may_come_before_the_answer_to_play() -> None:
    session = opened(4)
    batch, *_ = session.receive_data(b"$\x00\x00\x01a", 0.0)
    assert isinstance(batch, Batch)
    playing, batch = session.receive_data(b"$\x00\x00\x01b" + OPENING[4] + b"$\x01\x00\x01r", 0.0)
    assert isinstance(playing, Playing)
    assert isinstance(batch, Batch)
    assert (batch.rtp, batch.rtcp) == ([b"b"], [b"r"])


@pytest.mark.parametrize(
    ("method", "status"), [("OPTIONS", b"200"), ("ANNOUNCE", b"200"), ("SET_PARAMETER", b"200"), ("RECORD", b"501")]
)
def test_server_requests_are_answered(method: str, status: bytes) -> None:
    session = opened()
    session.receive_data(f"{method} * RTSP/1.0\r\nCSeq: 99\r\n\r\n".encode(), 0.0)
    reply = session.data_to_send()
    assert reply.startswith(b"RTSP/1.0 " + status)
    assert b"CSeq: 99\r\n" in reply


def test_teardown_by_the_server() -> None:
    with pytest.raises(errors.SessionLostError):
        opened().receive_data(b"TEARDOWN * RTSP/1.0\r\nCSeq: 99\r\n\r\n", 0.0)


def test_stop_tears_down() -> None:
    session = opened()
    session.stop(0.0)
    assert session.data_to_send().startswith(b"TEARDOWN rtsps://cam.example/x/ ")
    session.receive_data(b"$\x00\x00\x01x" + answer(cseq=6), 0.0)
    assert session.state is RtspState.CLOSED
    session.connection_lost()
    session.stop(0.0)


def test_stop_before_setup_has_nothing_to_tear_down() -> None:
    session = opened(1)
    session.stop(0.0)
    assert session.data_to_send() == b""
    assert session.state is RtspState.CLOSED


def test_end_of_connection_names_the_stage() -> None:
    session = opened(2)
    with pytest.raises(errors.SessionLostError) as caught:
        session.connection_lost()
    assert caught.value.stage is RtspStage.SETUP


def test_rtcp_goes_out_interleaved() -> None:
    session = opened(4)
    (playing,) = session.receive_data(OPENING[4], 0.0)
    assert isinstance(playing, Playing)
    session.send_rtcp(playing.tracks[1], b"abcd")
    assert session.data_to_send() == b"$\x03\x00\x04abcd"


SOUND = b"m=audio 0 RTP/AVP 97\r\na=rtpmap:97 MPEG4-GENERIC/16000\r\na=control:a\r\n"


@pytest.mark.parametrize("sound", [b"", SOUND], ids=["alone", "with sound"])
@pytest.mark.parametrize(
    ("video", "codec"),
    [
        (b"m=video 0 RTP/AVP 96\r\na=rtpmap:96 H265/90000\r\n", "H265"),
        (b"m=video 0 RTP/AVP 96\r\na=rtpmap:96 AV1/90000\r\n", "AV1"),
        (b"m=video 0 RTP/AVP 26\r\n", "JPEG"),
        (b"m=video 0 RTP/AVP 99\r\n", "payload type 99"),
    ],
)
def test_video_that_cannot_be_carried_is_named_with_what_to_do(video: bytes, codec: str, sound: bytes) -> None:
    """With sound it was played, and begun anew after each seven seconds without video."""
    with pytest.raises(errors.UnsupportedError, match=f"the camera's video cannot be carried: {codec}") as caught:
        opened(1).receive_data(answer(cseq=2, body=b"v=0\r\n" + video + sound), 0.0)
    assert caught.value.remedy is Remedy.PARK
    assert caught.value.stage is RtspStage.DESCRIBE
    assert "H.264" in caught.value.hint


def test_sound_alone_is_refused() -> None:
    with pytest.raises(errors.UnsupportedError, match="offers no video") as caught:
        opened(1).receive_data(answer(cseq=2, body=b"v=0\r\n" + SOUND), 0.0)
    assert caught.value.remedy is Remedy.PARK


def test_control_with_line_break_cannot_be_smuggled() -> None:
    session = opened(1)
    body = b"v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:x\x0bEvil: 1\r\n"
    session.receive_data(answer(cseq=2, body=body), 0.0)
    assert b"Evil" not in session.data_to_send().split(b"\r\n", 1)[1]


@pytest.mark.parametrize("channels", ["0-0", "256-257", "1-2"])
def test_unusable_channels(channels: str) -> None:
    session = opened(3)
    (playing, *_) = [
        *session.receive_data(
            answer("200 OK", "Session: 77", f"Transport: RTP/AVP/TCP;interleaved={channels}", cseq=4), 0.0
        ),
        *session.receive_data(answer(cseq=5), 0.0),
    ]
    assert isinstance(playing, Playing)
    assert [track.kind.value for track in playing.tracks] == ["video"]
    assert "unusable" in session.refused[0]


def test_a_message_beyond_all_limits_is_a_typed_error() -> None:
    with pytest.raises(errors.ProtocolError, match="body"):
        opened().receive_data(answer("200 OK", "Content-Length: 99999999", cseq=6), 1.0)


replies = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda status, header, cseq, body: answer(status, header, cseq=cseq, body=body),
        st.sampled_from(["200 OK", "100 Continue", "401 No", "302 Found", "404 No", "500 Oops", "999"]),
        st.sampled_from(
            ["Session: ;timeout=9", "Transport: ;;=", "Location: rtsp://[", "WWW-Authenticate: Digest nonce=1", "x"]
        ),
        st.integers(0, 8),
        st.one_of(st.just(SDP), st.binary(max_size=40)),
    ),
    st.sampled_from([*OPENING, b"REDIRECT x RTSP/1.0\r\n\r\n", b"TEARDOWN x RTSP/1.0\r\n\r\n"]),
)


@given(st.integers(0, 5), st.lists(replies, max_size=8))
def test_takes_any_bytes_in_any_state(steps: int, data: list[bytes]) -> None:
    session = opened(steps)
    text = ""
    try:
        for number, part in enumerate(data):
            session.receive_data(part, float(number))
            session.data_to_send()
            session.poll(float(number))
        session.stop(10.0)
        session.receive_data(b"".join(data), 10.0)
    except RtspError as error:
        text = str(error)
    assert "g.0.token" not in text
