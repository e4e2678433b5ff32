"""Order, reserve and fairness of the queue."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from relay_common.config import LimitsConfig
from relay_common.secrets import Secret
from relay_supervisor.google.quota.budget import Budget
from relay_supervisor.google.quota.command import Command, Verb
from relay_supervisor.google.quota.limits import limits_from
from relay_supervisor.google.quota.queue import CommandQueue
from relay_supervisor.http.metrics import Telemetry


def queue(limit: int = 10, **config: int) -> CommandQueue:
    return CommandQueue(Budget(limits_from(LimitsConfig(commands_per_minute=limit, **config), guard=0.0)))


def extend(camera: str, deadline: float, *, due: float | None = None, not_before: float = 0.0) -> Command:
    return Command(
        verb=Verb.EXTEND,
        camera=camera,
        device=camera,
        kind="CAMERA",
        due=deadline - 60 if due is None else due,
        latest=deadline - 30,
        deadline=deadline,
        not_before=not_before,
    )


def generate(camera: str, *, attempts: int = 0, submitted: float = 0.0, renewal: bool = False) -> Command:
    return Command(
        verb=Verb.GENERATE,
        camera=camera,
        device=camera,
        kind="CAMERA",
        attempts=attempts,
        submitted=submitted,
        renewal=renewal,
    )


def stop(camera: str, *, renewal: bool = False) -> Command:
    return Command(verb=Verb.STOP, camera=camera, device=camera, kind="CAMERA", renewal=renewal)


def blocking_stop(camera: str) -> Command:
    return Command(
        verb=Verb.STOP, camera=camera, device=camera, kind="CAMERA", orphan=True, blocking=True, handle=Secret(camera)
    )


def drain(subject: CommandQueue, now: float) -> list[str]:
    sent = []
    while (command := subject.poll(now)) is not None:
        subject.budget.answered(command.ticket, now)  # type: ignore[arg-type]
        subject.answered(command)
        sent.append(f"{command.verb.value} {command.camera}")
    return sent


def test_order_of_classes() -> None:
    subject = queue()
    now = 100.0
    subject.submit(stop("released"))
    subject.submit(extend("early", 400.0, due=340.0))
    subject.submit(generate("retry", attempts=2, submitted=1.0))
    subject.submit(generate("second", submitted=6.0))
    subject.submit(generate("first", submitted=5.0))
    subject.submit(stop("battery", renewal=True))
    subject.submit(extend("later", 150.0))
    subject.submit(extend("soonest", 120.0))
    assert drain(subject, now) == [
        "extend soonest",
        "extend later",
        "stop battery",
        "generate first",
        "generate second",
        "generate retry",
        "extend early",
        "stop released",
    ]


def test_no_more_than_the_limit_and_the_next_chance_is_exact() -> None:
    subject = queue(3)
    for n in range(5):
        subject.submit(generate(f"c{n}"))
    assert len(drain(subject, 10.0)) == 3
    chance = subject.next_deadline(10.0)
    assert chance is not None
    assert 70.0 < chance < 70.01
    assert drain(subject, chance - 0.005) == []
    assert len(drain(subject, chance)) == 2


def test_a_generate_waits_when_it_would_take_an_extensions_last_place() -> None:
    subject = queue(2)
    subject.submit(extend("a", 60.0, due=20.0, not_before=10.0))
    subject.submit(extend("b", 62.0, due=22.0, not_before=10.0))
    subject.submit(generate("new"))
    assert drain(subject, 0.0) == [], "both places of this minute belong to the two leases"
    assert drain(subject, 20.0) == ["extend a", "extend b"]
    assert drain(subject, 81.0) == ["generate new"]


def test_a_generate_goes_when_the_extensions_have_room_after_it() -> None:
    subject = queue(2)
    subject.submit(extend("a", 300.0, not_before=150.0))
    subject.submit(extend("b", 300.0, not_before=150.0))
    subject.submit(generate("new"))
    assert drain(subject, 0.0) == ["generate new"]


def test_early_extensions_leave_the_reserve_and_are_paced() -> None:
    subject = queue(4)
    subject.reserve = 1
    for n in range(4):
        subject.submit(extend(f"c{n}", 300.0 + n, due=250.0))
    sent = []
    now = 100.0
    while now < 159.0:
        sent += [(now, what) for what in drain(subject, now)]
        now += 1.0
    assert [what for _, what in sent] == ["extend c0", "extend c1", "extend c2"]
    assert [at for at, _ in sent] == [100.0, 120.0, 140.0]
    subject.submit(generate("lost"))
    assert drain(subject, 159.0) == ["generate lost"], "the place kept free is there for recovery"


def test_early_extensions_take_no_place_of_a_generate_that_waits_for_its_stop() -> None:
    subject = queue(2)
    left = blocking_stop("cam")
    left.blocking = False
    subject.submit(left)
    subject.submit(generate("cam"))
    subject.submit(extend("live", 300.0, due=200.0))
    assert subject.poll(1.0) is left
    assert subject.poll(1.5) is None
    subject.answered(left)
    assert drain(subject, 1.5) == ["generate cam"]


def test_early_extensions_take_no_place_that_a_blocking_stop_saves_up_for() -> None:
    subject = queue(4)
    subject.reserve = 1
    subject.submit(generate("x"))
    assert drain(subject, 0.0) == ["generate x"]
    for name in ("a", "b"):
        subject.submit(blocking_stop(name))
    behind = generate("a")
    behind.not_before = 5.0
    subject.submit(behind)
    subject.submit(extend("live", 300.0, due=200.0))
    assert drain(subject, 1.0) == ["stop a"]
    assert drain(subject, 5.0) == ["generate a"]
    subject.submit(generate("b"))
    assert drain(subject, 60.5) == ["stop b", "generate b"]


def test_a_command_blocked_by_its_own_device_blocks_no_other() -> None:
    subject = queue(10, device_commands_per_minute=1)
    subject.submit(extend("a", 50.0))
    assert drain(subject, 0.0) == ["extend a"]
    subject.submit(extend("a", 55.0))
    subject.submit(generate("b"))
    assert drain(subject, 1.0) == ["generate b"]


def test_a_generate_that_its_own_device_holds_back_keeps_no_extension_waiting() -> None:
    """Whoever is pressed makes a generate leave a place free; one that cannot go anyway saves no places up for that."""
    subject = queue(10, device_commands_per_minute=1)
    subject.submit(generate("bad"))
    assert drain(subject, 0.0) == ["generate bad"]
    subject.submit(extend("pressed", 60.0, due=30.0))
    subject.submit(extend("early", 250.0, due=200.0))
    subject.submit(generate("bad"))
    assert "extend early" in drain(subject, 1.0) + drain(subject, 10.0) + drain(subject, 20.0)


def test_a_pointless_command_is_dropped() -> None:
    subject = queue()
    subject.submit(extend("a", 50.0))
    assert drain(subject, 50.0) == []
    assert (subject.dropped, subject.depth(50.0)) == (1, 0)


def test_one_command_per_camera_and_verb() -> None:
    subject = queue()
    for _ in range(3):
        subject.submit(generate("a"))
    assert drain(subject, 0.0) == ["generate a"]
    subject.submit(generate("a"))
    subject.cancel("a")
    assert drain(subject, 0.0) == []


def test_a_held_account_sends_nothing() -> None:
    subject = queue()
    subject.held_until = 10.0
    subject.submit(generate("a"))
    assert drain(subject, 5.0) == []
    assert subject.next_deadline(5.0) == 10.0
    subject.submit(Command(verb=Verb.LIST, camera=""))
    assert drain(subject, 5.0) == ["list "], "but says what is wrong to whoever asks"
    assert drain(subject, 10.0) == ["generate a"]


def test_waits_and_peak_are_counted() -> None:
    subject = queue(2)
    for n in range(4):
        subject.submit(generate(f"c{n}", submitted=0.0))
    drain(subject, 0.0)
    drain(subject, 61.0)
    assert (subject.executed, subject.peak, subject.waits.count) == (4, 2, 4)
    assert subject.waits.longest == 61.0
    assert subject.waits.mean == 30.5
    assert subject.waits.cumulative()[-1] == ("+Inf", 4.0)
    told = Telemetry().command_wait
    told.add(subject.waits)
    assert (told.cumulative()[-1], told.sum) == (("+Inf", 4.0), subject.waits.sum), "what is exported takes it"
    assert [now - 61.0 for now in subject.recent(61.0)] == [0.0, 0.0]


@settings(max_examples=25, deadline=None)
@given(
    lives=st.lists(st.floats(130, 400), min_size=1, max_size=12),
    generates=st.integers(0, 40),
    spare=st.integers(0, 6),
)
def test_generates_never_make_an_extension_late(lives: list[float], generates: int, spare: int) -> None:
    """However many cameras want a stream, each live lease is extended before it ends."""
    subject = queue(len(lives) + spare)
    for n, life in enumerate(lives):
        subject.submit(extend(f"live{n}", life, due=life * 0.75, not_before=life / 2))
    for n in range(generates):
        subject.submit(generate(f"new{n}"))
    now, extended = 0.0, 0
    while (then := subject.next_deadline(now)) is not None and now < 1000:
        extended += sum(what.startswith("extend") for what in drain(subject, now))
        now = max(then, now + 0.01)
    assert extended == len(lives)
    assert subject.dropped == 0
    assert subject.peak <= len(lives) + spare


def on_demand(camera: str, submitted: float = 0.0) -> Command:
    command = generate(camera, submitted=submitted)
    command.on_demand = True
    return command


def test_a_camera_on_demand_comes_after_every_other_and_leaves_a_place() -> None:
    subject = queue(4)
    subject.submit(on_demand("watched", submitted=1.0))
    subject.submit(generate("failed", attempts=3, submitted=2.0))
    subject.submit(generate("new", submitted=3.0))
    assert drain(subject, 10.0) == ["generate new", "generate failed", "generate watched"]
    subject.submit(on_demand("another"))
    assert drain(subject, 11.0) == [], "the fourth place is for recovery"
    subject.submit(generate("lost"))
    assert drain(subject, 12.0) == ["generate lost"]


def test_what_nobody_waits_for_never_takes_the_place_of_a_second_try() -> None:
    """Found by the simulation: a stop went while an extension that had failed waited to be tried again."""
    subject = queue(4)
    for camera in ("one", "two"):
        subject.submit(extend(camera, 400.0, due=5.0))
    assert drain(subject, 10.0) == ["extend one", "extend two"]
    for camera in ("three", "four"):
        subject.submit(extend(camera, 60.0, due=5.0, not_before=20.0))
    subject.submit(stop("released"))
    subject.submit(on_demand("watched"))
    assert drain(subject, 11.0) == [], "two places are left, and both will be needed"
    assert drain(subject, 20.0) == ["extend three", "extend four"]
