from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_worker.rtsp.messages import Headers, Request, Response
from relay_worker.rtsp.parser import MAX_BODY, MAX_GARBAGE, MAX_START_LINE, Item, ParseError, RtspParser

pytestmark = pytest.mark.usefixtures("data_path")

OK = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"


def frame(channel: int, packet: bytes) -> bytes:
    return b"$" + bytes((channel,)) + len(packet).to_bytes(2, "big") + packet


def parse(*chunks: bytes) -> tuple[list[Item], RtspParser]:
    parser = RtspParser()
    return [item for chunk in chunks for item in parser.receive_data(chunk)], parser


def test_frames_and_messages_in_order() -> None:
    items, parser = parse(frame(0, b"one") + OK + frame(1, b"") + frame(0, b"two"))
    assert items == [(0, b"one"), Response(200, "OK", Headers([("CSeq", "1")])), (1, b""), (0, b"two")]
    assert parser.garbage == 0


def test_response_with_body() -> None:
    items, _ = parse(b"RTSP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc" + frame(0, b"x"))
    assert items == [Response(200, "OK", Headers([("Content-Length", "3")]), b"abc"), (0, b"x")]


def test_server_request() -> None:
    items, _ = parse(b"OPTIONS * RTSP/1.0\r\nCSeq: 7\r\n\r\n")
    assert items == [Request("OPTIONS", "*", Headers([("CSeq", "7")]))]


def test_line_of_eight_kilobytes() -> None:
    url = b"rtsps://cam/" + b"a" * 8192
    items, _ = parse(b"REDIRECT " + url + b" RTSP/1.0\r\nLocation: " + url + b"\r\n\r\n")
    assert isinstance(items[0], Request)
    assert items[0].url == items[0].headers.get("location") == url.decode()


def test_garbage_between_frames_is_skipped_and_counted() -> None:
    garbage = b"\x00\x01garbage$\xff\x10\x00"
    items, parser = parse(frame(0, b"one") + garbage + frame(1, b"two") + b"junk" + OK)
    assert [item for item in items if isinstance(item, tuple)] == [(0, b"one"), (1, b"two")]
    assert isinstance(items[-1], Response)
    assert (parser.garbage, parser.resyncs) == (len(garbage) + 4, 2)


def test_after_garbage_only_known_channels_are_believed() -> None:
    parser = RtspParser()
    parser.channels = {2, 3}
    assert parser.receive_data(b"\x80\x60$\x00\x00\x02ab" + frame(2, b"x")) == [(2, b"x")]


@pytest.mark.parametrize("between", [OK, frame(0, b"one")])
def test_garbage_that_ends_is_forgiven(between: bytes) -> None:
    parser = RtspParser()
    for _ in range(4):
        assert parser.receive_data(b"\x01" * (MAX_GARBAGE // 2) + between)
    assert parser.garbage == 4 * (MAX_GARBAGE // 2)


def test_endless_garbage_is_an_error() -> None:
    with pytest.raises(ParseError, match="neither RTSP nor"):
        parse(b"\x01" * (MAX_GARBAGE + 10))


@pytest.mark.parametrize(
    "data",
    [
        b"RTSP/1.0 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"RTSP/1.0 200 OK\r\nA: " + b"b" * 70_000,
        b"RTSP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1),
        b"RTSP/1.0 200 " + b"O" * (MAX_START_LINE + MAX_GARBAGE),
    ],
)
def test_limits(data: bytes) -> None:
    with pytest.raises(ParseError):
        parse(data)


def test_memory_is_bounded_while_nothing_completes() -> None:
    parser = RtspParser()
    parser.receive_data(b"RTSP/1.0 200 OK\r\n")
    for _ in range(80):  # 64 000 bytes
        assert parser.receive_data(b"A: bcd\r\n" * 100) == []
    with pytest.raises(ParseError, match="headers"):
        parser.receive_data(b"A: bcd\r\n" * 300)


pieces = st.one_of(
    st.builds(frame, st.integers(0, 40), st.binary(max_size=40)),
    st.sampled_from([OK, b"RTSP/1.0 404 Not Found\nContent-Length: 2\n\nab", b"\r\n", b"RTSP/", b"$", b"$\x00", b"RT"]),
    st.sampled_from([b"PLAY_NOTIFY rtsp://x RTSP/1.0\r\n\r\n", b"rtsp/1.0 200\r\n\r\n", b"OPTIONS \xff\r\n"]),
    st.sampled_from([b"RTSP/1.0 200 \xff\r\nA: \xfe\r\n\r\n"]),
    st.binary(max_size=30),
)


@given(st.lists(pieces, max_size=20), st.integers())
def test_result_does_not_depend_on_chunks(parts: list[bytes], seed: int) -> None:
    stream = b"".join(parts)
    whole, one = parse(stream)
    rng, chunks, position = random.Random(seed), [], 0
    while position < len(stream):
        size = rng.choice((1, 2, 3, 10, 50))
        chunks.append(stream[position : position + size])
        position += size
    cut, other = parse(*chunks)
    assert cut == whole
    assert (one.garbage, one.resyncs, one._pending) == (other.garbage, other.resyncs, other._pending)


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_takes_any_bytes(chunks: list[bytes]) -> None:
    parse(*chunks)


def test_secrets_stay_out_of_reprs() -> None:
    request = Request("DESCRIBE", "rtsps://x/?auth=g.0.secret", Headers([("Authorization", "Basic c2VjcmV0")]))
    assert "secret" not in repr(request)
    assert "c2VjcmV0" not in repr(request)


def test_a_line_break_cannot_be_smuggled_into_a_request() -> None:
    with pytest.raises(ValueError, match="line break"):
        Request("SETUP", "rtsp://x/\r\nEvil: 1").encode()
