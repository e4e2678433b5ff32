"""Each transcript in fixtures/rtsp shows one quirk of some RTSP server; the session must reach PLAY through them all.

A transcript is a list of steps: `>>> METHOD url` is the request that is expected, what follows is the answer to it,
with `{cseq}` and `{length}` (of the body) filled in.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from relay_common.secrets import Secret
from relay_worker.rtsp.events import Playing, SessionEvent
from relay_worker.rtsp.session import RtspSession
from relay_worker.rtsp.states import RtspState

pytestmark = pytest.mark.usefixtures("data_path")

FIXTURES = Path(__file__).parents[2] / "fixtures" / "rtsp"
URL = "rtsps://cam.example:443/sdm_live_stream/x?auth=g.0.token"


def steps(name: str) -> list[tuple[str, bytes]]:
    """(request line without version, answer) of each step, `{cseq}` counting from 1."""
    found = []
    for number, block in enumerate((FIXTURES / f"{name}.txt").read_text().split(">>> ")[1:], start=1):
        request, _, answer = block.partition("\n")
        if name != "lf_only":
            answer = answer.replace("\n", "\r\n")
        head, mark, body = answer.partition("{length}")
        if mark:
            answer = f"{head}{len(body.lstrip().encode())}{body}"
        found.append((request, answer.replace("{cseq}", str(number)).encode()))
    return found


def play_through(name: str, chunk: int = 1 << 20) -> tuple[RtspSession, list[SessionEvent], list[str]]:
    session = RtspSession(Secret(URL))
    session.start(0.0)
    events: list[SessionEvent] = []
    sent: list[str] = []
    for expected, answer in steps(name):
        sent.append(session.data_to_send().decode())
        assert sent[-1].split(" RTSP/1.0\r\n")[0] == expected
        for start in range(0, len(answer), chunk):
            events += session.receive_data(answer[start : start + chunk], 0.0)
    return session, events, sent


ALL = sorted(path.stem for path in FIXTURES.glob("*.txt"))


@pytest.mark.parametrize("name", ALL)
def test_reaches_play(name: str) -> None:
    session, events, sent = play_through(name)
    assert session.state is RtspState.PLAYING
    assert session.parser.garbage == 0
    (playing,) = events
    assert isinstance(playing, Playing)
    assert playing.tracks[0].format.encoding == "H264"
    assert "Range: npt=0.000-\r\n" in sent[-1]
    if name not in ("session_timeout_missing", "cseq_missing", "transport_missing"):
        assert "Session: 12345678\r\n" in sent[-1]


@pytest.mark.parametrize("name", ["plain", "header_case", "lf_only", "folded_header"])
def test_reaches_play_a_byte_at_a_time(name: str) -> None:
    session, _, _ = play_through(name, chunk=1)
    assert session.state is RtspState.PLAYING


def audio_encodings(name: str) -> list[str]:
    _, events, _ = play_through(name)
    (playing,) = events
    assert isinstance(playing, Playing)
    return [track.format.encoding for track in playing.tracks[1:]]


def test_audio_that_cannot_be_had_costs_no_video() -> None:
    assert audio_encodings("audio_setup_refused") == []
    assert audio_encodings("audio_unknown_codec") == []


def test_static_payload_type_needs_no_rtpmap() -> None:
    assert audio_encodings("audio_static_payload_type") == ["PCMU"]


def test_odd_fmtp_is_read() -> None:
    _, events, _ = play_through("odd_fmtp")
    (playing,) = events
    assert isinstance(playing, Playing)
    assert playing.tracks[1].parameters["config"] == "1408"
    assert playing.tracks[1].parameters["sizelength"] == "13"


def test_token_goes_only_where_it_must() -> None:
    _, _, sent = play_through("plain")
    assert ["auth=" in request for request in sent] == [True, True, False, False, False]


def test_channels_the_server_chose_are_used() -> None:
    session, events, _ = play_through("server_chooses_channels")
    (playing,) = events
    assert isinstance(playing, Playing)
    batches = session.receive_data(b"$\x04\x00\x01a$\x08\x00\x01v$\x09\x00\x01r$\x00\x00\x01x", 0.0)
    assert {batch.track.kind.value: (batch.rtp, batch.rtcp) for batch in batches} == {
        "audio": ([b"a"], []),
        "video": ([b"v"], [b"r"]),
    }
    assert session.unknown_channel == 1


def test_missing_session_timeout_means_sixty_seconds() -> None:
    _, events, _ = play_through("session_timeout_missing")
    (playing,) = events
    assert isinstance(playing, Playing)
    assert playing.session_timeout == 60
