from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_worker.rtp.sdp_formats import RtpMap, parse_rtpmap
from relay_worker.rtsp.sdp import MAX_FORMATS, MAX_MEDIA, RtspDescription, SdpError, parse_sdp
from relay_worker.rtsp.tracks import base_url, choose_tracks, is_rtsp_url, resolve_control, without_credentials

FIXTURES = Path(__file__).parents[2] / "fixtures" / "sdp"
BASE = "rtsp://cam/live/"


def load(name: str) -> RtspDescription:
    return parse_sdp((FIXTURES / f"{name}.sdp").read_bytes())


def controls(name: str) -> list[str]:
    return [track.control for track in choose_tracks(load(name), BASE)]


def test_latm() -> None:
    video, audio = choose_tracks(load("latm"), BASE)
    assert video.format.encoding == "H264"
    assert (audio.format.encoding, audio.clock_rate) == ("MP4A-LATM", 90000)
    assert audio.parameters["config"] == "400028103fc0"
    assert audio.parameters["cpresent"] == "0"


def test_spaces_around_equals() -> None:
    assert controls("spaces_around_equals") == [BASE + "track1"]
    assert load("spaces_around_equals").media[0].formats[0].clock_rate == 90000


def test_binary_junk_in_name() -> None:
    assert controls("binary_junk_in_name") == [BASE + "track1"]


def test_application_track_first() -> None:
    assert controls("application_track_first") == [BASE + "trackID=1", BASE + "trackID=2"]


def test_inactive_media_is_not_chosen_and_recvonly_is() -> None:
    assert controls("video_inactive_then_active") == [BASE + "on"]


def test_fmtp_for_another_payload_type_is_meant_for_the_only_one() -> None:
    body = b"v=0\r\nm=audio 0 RTP/AVP %b\r\na=rtpmap:97 MPEG4-GENERIC/16000\r\na=fmtp:96 config=1408\r\n"
    (alone,) = parse_sdp(body % b"97").media[0].formats
    assert alone.parameters == {"config": "1408"}
    assert [found.parameters for found in parse_sdp(body % b"97 98").media[0].formats] == [{}, {}]


def test_fmtp_before_rtpmap() -> None:
    assert load("fmtp_before_rtpmap").media[0].formats[0].parameters == {"packetization-mode": "1"}


def test_what_is_kept_of_a_description_is_bounded() -> None:
    formats = " ".join(map(str, range(120))) + " 96" * 5000
    body = b"v=0\r\n" + f"m=video 0 RTP/AVP {formats}\r\n".encode() * 500
    description = parse_sdp(body)
    assert len(description.media) == MAX_MEDIA
    assert all(len(media.formats) <= MAX_FORMATS for media in description.media)


def test_no_media() -> None:
    with pytest.raises(SdpError):
        parse_sdp(b"v=0\r\ns=x\r\n")


@given(st.binary(max_size=300))
def test_takes_any_bytes(body: bytes) -> None:
    try:
        choose_tracks(parse_sdp(b"m=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\n" + body), BASE)
        parse_sdp(body)
    except SdpError:
        pass


@pytest.mark.parametrize(
    ("base", "control", "url"),
    [
        ("rtsp://c/a/", "t", "rtsp://c/a/t"),
        ("rtsp://c/a", "t", "rtsp://c/a/t"),
        ("rtsp://c/a?auth=x", "t", "rtsp://c/a?auth=x/t"),
        ("rtsp://c/a/", "/t", "rtsp://c/t"),
        ("rtsp://c/a", "?t=1", "rtsp://c/a?t=1"),
        ("rtsp://c/a", "RTSP://u:p@d/t", "RTSP://d/t"),
        ("rtsp://c/a", "*", "rtsp://c/a"),
        ("rtsp://c/a", "", "rtsp://c/a"),
    ],
)
def test_control(base: str, control: str, url: str) -> None:
    assert resolve_control(base, control) == url


def test_base() -> None:
    request = "rtsps://c:443/a?auth=x"
    assert base_url(request, "rtsps://c/b/", "rtsps://c/d/") == "rtsps://c/b/"
    assert base_url(request, "", "rtsps://c/d/") == "rtsps://c/d/"
    assert base_url(request, "/b/", "") == "rtsps://c:443/b/"
    assert base_url(request, "http://c/", "nonsense") == request


def test_urls() -> None:
    assert is_rtsp_url("rtsp://[::1]:554/x")
    assert not any(
        map(
            is_rtsp_url,
            (
                "rtsp://",
                "rtsp://c:port/",
                "http://c/",
                "rtsp://c:99999/",
                "rtsp://[::1/",
                "rtsp://c/\tx",
                "rtsp://c/\r\nx",
            ),
        )
    )
    assert without_credentials("rtsp://u:p@c/x@y") == "rtsp://c/x@y"


def test_numbers_that_no_stream_has_are_skipped() -> None:
    endless = b"9" * 5000  # more digits than int() converts
    body = b"m=video 0 RTP/AVP 96 %b\r\na=rtpmap:96 H264/90000\r\na=rtpmap:%b H264/90000\r\na=fmtp:%b x=1\r\n"
    media = parse_sdp(body % (endless, endless, endless)).media[0]
    assert [(format_.payload_type, format_.encoding, format_.clock_rate) for format_ in media.formats] == [
        (96, "H264", 90000)
    ]
    media = parse_sdp(
        b"m=audio 0 RTP/AVP 97\r\na=rtpmap:97 OPUS/%b/%b\r\na=rtpmap:\r\na=fmtp:" % (endless, endless)
    ).media[0]
    assert (media.formats[0].encoding, media.formats[0].channels) == ("OPUS", 1)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("H264/90000", ("H264", 90000, 1)),
        ("opus/48000/2", ("OPUS", 48000, 2)),
        (" MPEG4-GENERIC / 16000 / 1", ("MPEG4-GENERIC", 16000, 1)),
        ("mpeg4-generic", ("MPEG4-GENERIC", 0, 1)),
        ("/90000", None),
        ("", None),
    ],
)
def test_what_a_payload_type_stands_for_is_read_in_one_way(text: str, known: RtpMap | None) -> None:
    assert parse_rtpmap(text) == known
