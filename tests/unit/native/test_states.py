"""Attributes that are plain memory behave as the Python's own would."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import pytest

from relay_worker import native
from relay_worker.native import states
from relay_worker.publish.outgoing import SentStats
from relay_worker.publish.pacer import Pacer
from relay_worker.rtp.receiver import RtpReceiver
from relay_worker.rtsp.parser import RtspParser

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())


def test_numbers_come_back_as_they_were_given() -> None:
    receiver: Any = RtpReceiver(90000, 96)
    for value in (0, 1, -1, 2**63 - 1, -(2**63) + 1, True):
        receiver.packets = receiver.ssrc = value
        assert (receiver.packets, receiver.ssrc) == (value, value)
    for value in (0.0, -0.5, 1e300, math.inf, -math.inf, 3):
        receiver._jitter = receiver._transit = value
        assert (receiver._jitter, receiver._transit) == (value, value)
        assert type(receiver._jitter) is type(receiver._transit) is float
    receiver.ssrc = receiver._transit = None
    assert (receiver.ssrc, receiver._transit) == (None, None)
    pacer: Any = Pacer()
    for truth in (True, False, [1], "", None):
        pacer._skipping = truth
        assert pacer._skipping is bool(truth)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("packets", None, TypeError),
        ("packets", 1.5, TypeError),
        ("packets", "1", TypeError),
        ("packets", 2**63, OverflowError),
        ("ssrc", 1.5, TypeError),
        ("ssrc", -(2**63) - 1, OverflowError),
        ("_jitter", None, TypeError),
        ("_jitter", "1", TypeError),
        ("_transit", b"", TypeError),
        ("_transit", 10**400, OverflowError),
    ],
)
def test_what_does_not_fit_changes_nothing(name: str, value: object, error: type[Exception]) -> None:
    receiver: Any = RtpReceiver(90000, 96)
    receiver.packets, receiver.ssrc, receiver._jitter, receiver._transit = 5, 6, 7.0, 8.0
    with pytest.raises(error):
        setattr(receiver, name, value)
    with pytest.raises(TypeError):
        delattr(receiver, name)
    assert (receiver.packets, receiver.ssrc, receiver._jitter, receiver._transit) == (5, 6, 7.0, 8.0)


def test_an_attribute_that_is_an_object_is_held_and_let_go() -> None:
    class Value:
        pass

    parser: Any = RtspParser()
    value = Value()
    gone = weakref.ref(value)
    parser._pending = value
    del value
    assert parser._pending is gone()
    parser._pending = b""
    assert gone() is None
    del parser._pending
    with pytest.raises(AttributeError):
        _ = parser._pending


def test_a_ring_of_parts_is_collected() -> None:
    parser: Any = RtspParser()
    gone = weakref.ref(parser)
    parser._pending = [parser]
    parser.another = parser
    del parser
    gc.collect()
    assert gone() is None


def test_a_default_of_a_class_hides_nothing() -> None:
    stats, other = SentStats(packets=3), SentStats()
    stats.bytes = 5
    assert (stats.packets, stats.bytes, other.packets, other.bytes) == (3, 5, 0, 0)
    assert not {"packets", "bytes"} & (vars(SentStats).keys() | vars(stats).keys())
    assert stats != other


def test_types_are_bases_only_where_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert issubclass(RtpReceiver, states.ReceiverState)
    assert states.ReceiverState is not states.Plain
    monkeypatch.setattr(native, "_found", None)
    assert states.ReceiverState is states.Plain
    with pytest.raises(AttributeError):
        _ = states.nothing  # type: ignore[attr-defined]


def test_each_type_may_be_made_and_freed_by_itself() -> None:
    for name in dir(native._found):
        if name.endswith("State"):
            made = getattr(native._found, name)()
            for attribute in (one for one in vars(type(made)) if not one.startswith("__")):
                if getattr(made, attribute, None) is None:  # an object, or a number that is not there
                    setattr(made, attribute, None)
            del made
