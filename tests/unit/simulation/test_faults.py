from __future__ import annotations

import pytest

from relay_common.simulation.camera.faults import FaultKind, FaultSet, parse_fault


def test_a_fault_ends_after_its_seconds() -> None:
    faults = FaultSet()
    faults.add(parse_fault("loss", seconds=5, rate=0.5), 100.0)
    fault = faults.get(FaultKind.LOSS, 104.9)
    assert fault is not None
    assert fault["rate"] == 0.5
    assert faults.get(FaultKind.LOSS, 105.0) is None
    assert not faults


def test_a_fault_without_seconds_lasts_until_cleared() -> None:
    faults = FaultSet()
    faults.add(parse_fault("no_audio"), 0.0)
    faults.add(parse_fault("drift"), 0.0)
    assert faults.names(1e9) == ["no_audio", "drift"]
    faults.clear(FaultKind.NO_AUDIO)
    assert faults.names(1e9) == ["drift"]
    faults.clear()
    assert not faults


@pytest.mark.parametrize(
    ("kind", "parameters", "text"),
    [
        ("melt", {}, "unknown fault 'melt'; there are: burst"),
        ("loss", {"percent": 3}, "no parameter 'percent' (it has: rate)"),
        ("loss", {"rate": "much"}, "'rate' must be like 0.01"),
        ("silence", {"track": "smell"}, "one of video, audio, both"),
    ],
)
def test_wrong_faults_say_what_there_is(kind: str, parameters: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_fault(kind, **parameters)  # type: ignore[arg-type]
    assert text in str(raised.value)


def test_a_fault_of_one_stream_spares_the_next() -> None:
    faults = FaultSet()
    faults.add(parse_fault("describe_status", status=403, one_stream=True), 0.0)
    assert [faults.of_stream(FaultKind.DESCRIBE_STATUS, key, 1.0) is not None for key in "aaba"] == [1, 1, 0, 1]
    faults.add(parse_fault("describe_status", status=404), 2.0)
    assert all(faults.of_stream(FaultKind.DESCRIBE_STATUS, key, 3.0) for key in "ab")
