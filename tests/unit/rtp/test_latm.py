from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_worker.rtp.h264 import PayloadError
from relay_worker.rtp.latm import MAX_ELEMENT, LatmDepacketizer, LatmFormat, parse_latm_fmtp

# RFC 6416 §7.3's example configurations: 24 kHz-style stereo and mono AAC.
FORMAT = parse_latm_fmtp({"cpresent": "0", "config": "400026203fc0"})


def test_config_of_rfc_6416() -> None:
    assert FORMAT.subframes == 1
    assert (FORMAT.config.object_type, FORMAT.config.sample_rate, FORMAT.config.channels) == (2, 24000, 2)
    assert FORMAT.config.data[:2] == bytes.fromhex("1310")


@pytest.mark.parametrize(
    "parameters",
    [{}, {"cpresent": "0"}, {"cpresent": "0", "config": "xy"}, {"cpresent": "0", "config": "c00026203fc0"}],
)
def test_formats_that_cannot_be_served(parameters: dict[str, str]) -> None:
    with pytest.raises(PayloadError):
        parse_latm_fmtp(parameters)


def test_unit_with_long_length_in_two_packets() -> None:
    depacketizer = LatmDepacketizer(FORMAT)
    unit = bytes(range(256)) * 2
    element = b"\xff\xff\x02" + unit
    assert depacketizer.receive_payload(element[:100], False, 7, 0) == []
    assert depacketizer.receive_payload(element[100:], True, 7, 0) == [(unit, 7)]


def test_subframes() -> None:
    depacketizer = LatmDepacketizer(LatmFormat(2, FORMAT.config))
    assert depacketizer.receive_payload(b"\x02ab\x01c", True, 0, 0) == [(b"ab", 0), (b"c", 1024)]


def test_loss_inside_an_element() -> None:
    depacketizer = LatmDepacketizer(FORMAT)
    assert depacketizer.receive_payload(b"\x09abc", False, 7, 0) == []
    assert depacketizer.receive_payload(b"\x02xy", True, 8, 1) == [(b"xy", 8)]
    assert (depacketizer.incomplete, depacketizer.malformed) == (1, 0)


def test_an_element_that_never_ends_is_given_up() -> None:
    depacketizer = LatmDepacketizer(FORMAT)
    for _ in range(MAX_ELEMENT // 1000 + 1):
        assert depacketizer.receive_payload(bytes(1000), False, 7, 0) == []
    assert depacketizer.malformed == 1
    assert depacketizer.receive_payload(b"\x02ab", True, 8, 0) == [(b"ab", 8)]


@given(st.lists(st.tuples(st.binary(max_size=40), st.booleans(), st.integers(0, 3), st.integers(0, 1))), st.binary())
def test_takes_any_bytes(packets: list[tuple[bytes, bool, int, int]], config: bytes) -> None:
    depacketizer = LatmDepacketizer(FORMAT)
    for packet in packets:
        depacketizer.receive_payload(*packet)
    try:
        parse_latm_fmtp({"cpresent": "0", "config": config.hex()})
    except PayloadError:
        pass
