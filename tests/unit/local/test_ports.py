"""One UDP port for each camera, and which one it keeps."""

from __future__ import annotations

from relay_supervisor.local.ports import ANY, PortDealer


def test_without_a_range_any_free_one() -> None:
    ports = PortDealer({"a": 8560})
    assert ports.deal("a", ["a"]) == ANY
    assert ports.dealt() == {"a": 8560}, "and the range's is kept for when it comes back"


def test_each_camera_has_its_own_and_keeps_it() -> None:
    ports = PortDealer()
    ports.configure(range(8560, 8562))
    known = ["a", "b", "c"]
    assert [ports.deal(camera, known) for camera in ("a", "b", "c", "a", "b")] == [8560, 8561, None, 8560, 8561]
    again = PortDealer(ports.dealt())
    again.configure(range(8560, 8570))
    assert [again.deal(camera, known) for camera in ("c", "b", "a")] == [8562, 8561, 8560]


def test_the_port_of_a_camera_that_is_gone_serves_another_only_when_there_is_no_other() -> None:
    ports = PortDealer({"gone": 8560})
    ports.configure(range(8560, 8562))
    assert ports.deal("a", ["a"]) == 8561
    assert ports.deal("b", ["a", "b"]) == 8560
    assert ports.dealt() == {"a": 8561, "b": 8560}
    assert ports.deal("gone", ["a", "b", "gone"]) is None


def test_another_range_moves_those_that_are_not_in_it() -> None:
    ports = PortDealer()
    ports.configure(range(8560, 8562))
    assert (ports.deal("a", ["a", "b"]), ports.deal("b", ["a", "b"])) == (8560, 8561)
    ports.configure(range(8561, 8563))
    assert (ports.deal("a", ["a", "b"]), ports.deal("b", ["a", "b"])) == (8562, 8561)
