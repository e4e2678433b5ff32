"""Book: what each kind of answer leads to, late results, admission, and what it says about it."""

from __future__ import annotations

import itertools
import random

import pytest

from relay_common.config import LimitsConfig
from relay_common.protocol import Protocol
from relay_common.secrets import Secret
from relay_supervisor.google import errors
from relay_supervisor.google.leases.book import LeaseBook
from relay_supervisor.google.leases.effects import Granted, Listed, Lost, NotExtended, Renewed, TraitsRead
from relay_supervisor.google.leases.states import LeaseState
from relay_supervisor.google.leases.status import budget_status, lease_status
from relay_supervisor.google.models import Device, Extension, Listing, LiveStream
from relay_supervisor.google.quota.budget import UNANSWERED
from relay_supervisor.google.quota.command import Command, Result, Verb
from relay_supervisor.google.quota.limits import limits_from


def device(name: str = "cam", protocol: Protocol = Protocol.RTSP) -> Device:
    return Device(f"enterprises/p/devices/{name}", name, "CAMERA", name, (protocol,))


def stream(handle: str = "x1", life: float = 300.0) -> LiveStream:
    return LiveStream(Protocol.RTSP, Secret(handle), life, 0.0, url=Secret("rtsps://h/p?auth=t1"))


def extension(handle: str = "x2", life: float = 300.0) -> Extension:
    return Extension(Secret(handle), life, 0.0, Secret("t2"))


class Desk:
    """A book and a clock; `step` answers the next command."""

    def __init__(self, **limits: float) -> None:
        self.book = LeaseBook(limits_from(LimitsConfig(**limits)), rng=random.Random(5))  # type: ignore[arg-type]
        self.now = 1000.0

    def want(self, *cameras: str) -> None:
        for camera in cameras:
            self.book.want(camera, device(camera), self.now)

    def next(self) -> Command:
        """The next command, however long it takes until it may go."""
        for _ in range(1000):
            command = self.book.poll(self.now)
            if command is not None:
                return command
            deadline = self.book.next_deadline(self.now)
            assert deadline is not None, "nothing will ever happen"
            self.now = max(deadline, self.now + 1e-6)
        raise AssertionError("the book never sends anything")

    def step(self, result: Result) -> Command:
        command = self.next()
        self.now += 0.1
        self.book.settle(command, result, self.now)
        return command

    def state(self, camera: str = "cam") -> LeaseState:
        return self.book.leases[camera].state

    def effects(self) -> list[object]:
        effects, self.book.effects = self.book.effects, []
        return list(effects)

    def held(self) -> Desk:
        self.want("cam")
        self.step(stream())
        self.effects()
        return self


def test_a_lease_is_granted_and_extended_with_new_tokens() -> None:
    desk = Desk()
    desk.want("cam")
    assert desk.step(stream()).verb is Verb.GENERATE
    (granted,) = desk.effects()
    assert isinstance(granted, Granted)
    assert granted.expires == 1300.0
    command = desk.step(extension())
    assert (command.verb, command.handle) == (Verb.EXTEND, Secret("x1"))
    assert 1150.0 <= desk.now < 1180.0
    (renewed,) = desk.effects()
    assert isinstance(renewed, Renewed)
    assert renewed.generation == granted.generation
    assert renewed.stream.url == Secret("rtsps://h/p?auth=t2")
    assert desk.step(extension("x3")).handle == Secret("x2")


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (errors.GoogleServerError("500", status=500), LeaseState.HELD_OFF),
        (errors.NestTimeout("slow"), LeaseState.HELD_OFF),
        (errors.Conflict("409"), LeaseState.HELD_OFF),
        (errors.CameraUnavailable("off"), LeaseState.HELD_OFF),
        (errors.MalformedAnswer("?"), LeaseState.HELD_OFF),
        (errors.OfferUnavailable("no offer"), LeaseState.HELD_OFF),
        (errors.WrongProtocol("400"), LeaseState.HELD_OFF),
        (errors.Forbidden("403"), LeaseState.PARKED),
        (errors.DeviceNotFound("404"), LeaseState.PARKED),
        (errors.CommandUnknown("404"), LeaseState.PARKED),
        (errors.RateLimited("429", bucket="ExecuteDeviceCommand"), LeaseState.WANTED),
        (errors.Unauthenticated("401"), LeaseState.WANTED),
        (errors.TokenUnavailable("down"), LeaseState.WANTED),
        (errors.AuthorizationRevoked("revoked"), LeaseState.WANTED),
        (errors.ProjectNotFound("404"), LeaseState.WANTED),
    ],
)
def test_what_a_failed_generate_leads_to(error: errors.NestError, state: LeaseState) -> None:
    desk = Desk()
    desk.want("cam")
    desk.step(error)
    assert desk.state() is state
    lease = desk.book.leases["cam"]
    assert lease.failures == (0 if state is LeaseState.WANTED else 1)
    if state is not LeaseState.PARKED:
        assert desk.step(stream()).verb in (Verb.GENERATE, Verb.GET)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (errors.GoogleServerError("500", status=500), LeaseState.HELD),
        (errors.NestTimeout("slow"), LeaseState.HELD),
        (errors.RateLimited("429"), LeaseState.HELD),
        (errors.Unauthenticated("401"), LeaseState.HELD),
        (errors.AuthorizationRevoked("revoked"), LeaseState.HELD),
        (errors.NotExtendable("doorbell"), LeaseState.HELD),
        (errors.StreamGone("404"), LeaseState.WANTED),
        (errors.DeviceNotFound("404"), LeaseState.PARKED),
    ],
)
def test_what_a_failed_extension_leads_to(error: errors.NestError, state: LeaseState) -> None:
    desk = Desk().held()
    desk.step(error)
    assert desk.state() is state
    lost = [effect for effect in desk.effects() if isinstance(effect, Lost)]
    assert bool(lost) is (state is not LeaseState.HELD)


def test_an_extension_is_tried_again_before_the_end() -> None:
    desk = Desk().held()
    for _ in range(3):
        assert desk.step(errors.GoogleServerError("500")).verb is Verb.EXTEND
    assert desk.step(extension()).verb is Verb.EXTEND
    assert desk.now < 1300.0
    assert desk.state() is LeaseState.HELD
    assert desk.book.leases["cam"].failures == 0


def test_a_429_holds_every_command_for_a_minute_and_costs_the_camera_nothing() -> None:
    desk = Desk()
    desk.want("a", "b")
    desk.step(errors.RateLimited("429", bucket="ExecuteDeviceCommand"))
    refused = desk.now
    assert 59.0 < budget_status(desk.book, "acct", desk.now, 0.0).hold <= 61.0
    assert desk.step(stream()).verb is Verb.GENERATE
    assert desk.now - refused >= 60.0
    assert desk.book.leases["a"].failures == 0


def test_retry_after_is_honoured() -> None:
    desk = Desk()
    desk.want("cam")
    desk.step(errors.RateLimited("429", bucket="ExecuteDeviceCommand", retry_after=200.0))
    refused = desk.now
    desk.step(stream())
    assert desk.now - refused >= 200.0


def test_the_first_401_is_repeated_at_once_the_second_holds_the_account() -> None:
    desk = Desk()
    desk.want("cam")
    desk.step(errors.Unauthenticated("401"))
    before = desk.now
    desk.step(errors.Unauthenticated("401"))
    assert desk.now - before < 1.0
    assert "401" in budget_status(desk.book, "acct", desk.now, 0.0).auth_error
    desk.step(stream())
    assert desk.now - before > 25.0
    assert budget_status(desk.book, "acct", desk.now, 0.0).auth_error == ""


def test_a_revoked_grant_stops_everything_until_somebody_authorised_again() -> None:
    desk = Desk()
    desk.want("a", "b")
    desk.step(errors.AuthorizationRevoked("Google refused the refresh token"))
    assert desk.book.poll(desk.now + 29) is None
    waiting = "waiting for the account: Google has revoked the authorisation: invalid_grant"
    assert lease_status(desk.book, "a", desk.now, 0.0).next_action == waiting
    used = budget_status(desk.book, "acct", desk.now, 0.0)
    assert desk.book.budget.api.used(desk.now) == 0, f"nothing was sent, nothing counts: {used}"
    desk.book.resume_account(desk.now)
    assert desk.book.poll(desk.now) is not None


def test_wrong_protocol_reads_the_traits_and_switches() -> None:
    desk = Desk()
    desk.want("cam")
    desk.step(errors.WrongProtocol("400"))
    assert desk.step(device(protocol=Protocol.WEB_RTC)).verb is Verb.GET
    (read,) = desk.effects()
    assert isinstance(read, TraitsRead)
    command = desk.next()
    assert (command.verb, command.protocol) == (Verb.GENERATE, Protocol.WEB_RTC)


def test_wrong_protocol_without_a_new_protocol_backs_off() -> None:
    desk = Desk()
    desk.want("cam")
    start = desk.now
    for _ in range(6):
        desk.step(errors.WrongProtocol("400"))
        if desk.book.leases["cam"].reread:
            desk.step(device())
    assert desk.now - start > 60.0
    assert desk.book.leases["cam"].degraded


def test_a_stream_that_cannot_be_extended_is_stopped_and_generated_in_time() -> None:
    desk = Desk().held()
    desk.step(errors.NotExtendable("doorbell"))
    stop = desk.step(None)
    assert (stop.verb, stop.handle) == (Verb.STOP, Secret("x1"))
    assert 1260.0 <= desk.now < 1300.0
    assert desk.step(stream("y1")).verb is Verb.GENERATE
    assert desk.now < 1300.0
    again = desk.step(None)
    assert again.verb is Verb.STOP, "it has learnt"


def test_two_early_refusals_of_extensions_teach_the_same() -> None:
    desk = Desk().held()
    desk.step(errors.StreamGone("Precondition check failed", status=400))
    desk.step(stream("y1"))
    desk.step(errors.StreamGone("Precondition check failed", status=400))
    desk.step(stream("z1"))
    assert desk.next().verb is Verb.STOP


def test_a_late_result_of_a_lost_stream_is_discarded() -> None:
    desk = Desk().held()
    extend = desk.next()
    generation = desk.book.leases["cam"].generation
    desk.book.media_failed("cam", generation, "EOF", desk.now)
    desk.effects()
    desk.book.settle(extend, extension(), desk.now + 1)
    assert desk.effects() == []
    assert desk.book.superseded == 1
    assert desk.state() is LeaseState.WANTED


def test_complaints_about_another_generation_change_nothing() -> None:
    desk = Desk().held()
    desk.book.media_failed("cam", desk.book.leases["cam"].generation - 1, "EOF", desk.now)
    desk.book.media_failed("nobody", 0, "EOF", desk.now)
    assert desk.state() is LeaseState.HELD


@pytest.mark.parametrize(
    ("live", "bereft", "at_once"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_a_young_stream_that_worked_and_lost_its_receiver_is_generated_again_at_once(
    live: bool, bereft: bool, at_once: bool
) -> None:
    desk = Desk()
    desk.want("cam")
    desk.step(stream())
    lease = desk.book.leases["cam"]
    if live:
        desk.book.media_live("cam", lease.generation, desk.now)
    desk.now += 20.0
    desk.book.media_failed("cam", lease.generation, "refused", desk.now, bereft=bereft)
    began = desk.now
    assert desk.next().verb is Verb.GENERATE
    assert (desk.now - began < 0.1) is at_once


def test_a_camera_that_is_never_live_is_degraded_and_slow() -> None:
    desk = Desk()
    desk.want("cam")
    times = []
    for _ in range(8):
        desk.step(stream())
        times.append(desk.now)
        desk.book.media_failed("cam", desk.book.leases["cam"].generation, "DESCRIBE: 404", desk.now + 1.0)
    status = lease_status(desk.book, "cam", desk.now, 0.0)
    assert status.degraded
    assert status.failures == 8
    assert "degraded after 8 failures" in status.next_action
    assert status.last_error == "DESCRIBE: 404"
    assert min(b - a for a, b in itertools.pairwise(times[4:])) > 260.0


def test_media_that_flows_forgets_the_failures() -> None:
    desk = Desk()
    desk.want("cam")
    desk.step(errors.GoogleServerError("500"))
    desk.step(stream())
    desk.book.media_live("cam", desk.book.leases["cam"].generation, desk.now)
    assert lease_status(desk.book, "cam", desk.now, 0.0).failures == 0


def test_an_outage_of_google_ends_for_all_when_it_ends() -> None:
    desk = Desk()
    cameras = [f"c{n}" for n in range(4)]
    desk.want(*cameras)
    while not all(desk.book.leases[camera].degraded for camera in cameras):
        desk.step(errors.GoogleServerError("500"))
    assert min(desk.book.leases[camera].retry_at for camera in cameras) > desk.now + 240.0
    desk.want("another")
    assert desk.step(stream()).camera == "another"
    begun = desk.now
    assert {desk.step(stream()).camera for _ in cameras} == set(cameras)
    assert desk.now - begun < 21.0, "nobody sits out its five minutes"


def test_unwanting_stops_the_stream_and_wanting_again_takes_it_back() -> None:
    desk = Desk().held()
    desk.book.unwant("cam", desk.now)
    assert desk.state() is LeaseState.RELEASED
    desk.want("cam")
    assert desk.state() is LeaseState.HELD
    assert [type(effect) for effect in desk.effects()] == [Granted]
    assert desk.next().verb is Verb.EXTEND


def test_unwanting_sends_a_stop_when_nobody_takes_it_back() -> None:
    desk = Desk().held()
    desk.book.unwant("cam", desk.now)
    command = desk.step(None)
    assert (command.verb, command.handle) == (Verb.STOP, Secret("x1"))
    desk.want("cam")
    assert desk.next().verb is Verb.GENERATE


def test_unwanting_while_generating_discards_the_stream() -> None:
    desk = Desk()
    desk.want("cam")
    command = desk.next()
    desk.book.unwant("cam", desk.now)
    desk.book.settle(command, stream(), desk.now)
    assert desk.state() is LeaseState.RELEASED
    assert desk.effects() == []


def test_a_parked_camera_is_tried_again_when_it_is_seen() -> None:
    desk = Desk()
    desk.want("cam")
    desk.step(errors.DeviceNotFound("gone"))
    assert desk.book.next_deadline(desk.now) is None
    desk.book.device_seen("cam", device(), desk.now)
    assert desk.next().verb is Verb.GENERATE


def test_resuming_extends_what_is_due_first_and_generates_nothing() -> None:
    desk = Desk()
    for n, left in enumerate((200.0, 20.0, 90.0)):
        saved = stream(f"h{n}", left)
        desk.book.resume(f"c{n}", device(f"c{n}"), saved, n, desk.now, granted=desk.now + left - 300)
    order = [desk.step(extension()) for _ in range(3)]
    assert [(command.verb, command.camera) for command in order] == [
        (Verb.EXTEND, "c1"),
        (Verb.EXTEND, "c2"),
        (Verb.EXTEND, "c0"),
    ]


def test_cameras_beyond_the_budget_wait_and_say_why() -> None:
    desk = Desk(commands_per_minute=1)
    desk.want(*(f"c{n}" for n in range(8)))
    assert len(desk.book.admitted) == 4
    status = lease_status(desk.book, "c7", desk.now, 0.0)
    assert status.state == "wanted"
    assert "1 commands a minute are enough for 4 cameras" in status.next_action
    desk.book.unwant("c0", desk.now)
    assert len(desk.book.admitted) == 4


def test_a_waiting_camera_says_for_what() -> None:
    desk = Desk(commands_per_minute=2)
    desk.want("a", "b", "c")
    desk.step(stream())
    desk.step(stream())
    assert desk.book.poll(desk.now) is None
    assert "waiting for budget, about 60 s" in lease_status(desk.book, "c", desk.now, 0.0).next_action


def test_status_of_a_held_lease() -> None:
    desk = Desk().held()
    status = lease_status(desk.book, "cam", desk.now, 1_700_000_000.0)
    assert (status.state, status.protocol, status.generates, status.extends) == ("held", "RTSP", 1, 0)
    assert status.expires_at == pytest.approx(1_700_000_299.9)
    assert "extend in about" in status.next_action
    assert status.next_at > 1_700_000_100
    assert lease_status(desk.book, "unknown", desk.now, 0.0).state == "released"


def test_budget_status() -> None:
    desk = Desk()
    desk.want(*(f"c{n}" for n in range(12)))
    for _ in range(10):
        desk.step(stream())
    status = budget_status(desk.book, "acct", desk.now, 0.0)
    assert (status.used, status.limit, status.peak, status.depth, status.executed) == (10, 10, 10, 2, 10)
    assert 40 <= status.capacity <= 45
    assert len(status.recent) == 10


def test_listing_goes_through_the_budget() -> None:
    desk = Desk(devices_list_per_minute=1)
    desk.book.list_devices(desk.now)
    assert desk.step(Listing([device()])).verb is Verb.LIST
    (listed,) = desk.effects()
    assert listed == Listed(Listing([device()]))
    before = desk.now
    desk.book.list_devices(desk.now)
    desk.step(errors.RateLimited("429", bucket="ListDevices"))
    desk.step(Listing([]))
    assert desk.now - before > 119.0
    assert desk.effects() == [Listed(Listing([]))]


def test_every_request_of_a_listing_counts_against_the_budget() -> None:
    desk = Desk(devices_list_per_minute=2)
    desk.book.list_devices(desk.now)
    command, book, began = desk.next(), desk.book, desk.now
    assert book.sends_again(command, began + 1.0) == 0.0, "the second page"
    wait = book.sends_again(command, began + 2.0)
    assert 59.0 < wait < 61.0, "the third, when the first is let go"
    desk.now = began + 2.0 + wait
    assert book.sends_again(command, desk.now) == 0.0
    book.settle(command, [], desk.now)
    again = desk.now
    book.list_devices(desk.now)
    desk.next()
    assert 0.5 < desk.now - again < 2.0, "as soon as the second page is let go"


def test_while_the_account_is_in_trouble_one_command_at_a_time_finds_out_whether_it_is_over() -> None:
    desk = Desk()
    desk.want("a", "b", "c")
    sent = [desk.next() for _ in range(3)]
    for command in sent:
        desk.book.settle(command, errors.TokenUnavailable("down"), desk.now)
    probe = desk.next()
    assert desk.now > 1001.0, "after a pause"
    assert desk.book.poll(desk.now) is None
    assert desk.book.next_deadline(desk.now) is None, "what comes next depends on the answer"
    desk.book.settle(probe, errors.TokenUnavailable("still down"), desk.now)
    desk.step(stream())
    assert desk.book.account_error == ""
    assert {desk.next().camera, desk.next().camera, probe.camera} <= {"a", "b", "c"}


def test_a_camera_that_was_dropped_does_not_get_what_was_under_way_for_its_predecessor() -> None:
    desk = Desk()
    desk.want("cam")
    under_way = desk.next()
    desk.book.drop("cam", desk.now)
    desk.want("cam")
    again = desk.next()
    desk.book.settle(under_way, stream("stale"), desk.now)
    assert desk.state() is LeaseState.GENERATING
    desk.book.settle(again, stream("fresh"), desk.now)
    assert [effect.stream.handle for effect in desk.effects() if isinstance(effect, Granted)] == [Secret("fresh")]


def test_cameras_that_are_always_on_are_admitted_first() -> None:
    desk = Desk(commands_per_minute=1)
    room = desk.book.capacity()
    for n in range(room):
        desk.book.want(f"demand{n}", device(f"demand{n}"), desk.now, on_demand=True)
    assert len(desk.book.admitted) == room
    desk.want("always")
    assert "always" in desk.book.admitted
    assert len(desk.book.admitted) == room
    desk.book.want("always", device("always"), desk.now, on_demand=True)
    assert desk.book.leases["always"].on_demand


def test_a_stream_that_cannot_be_extended_is_told() -> None:
    desk = Desk().held()
    desk.step(errors.NotExtendable("not supported for doorbell"))
    assert NotExtended("cam", desk.book.leases["cam"].extension.until) in desk.effects()


@pytest.mark.parametrize("error", [errors.NestTimeout("given up"), errors.NestUnreachable("broke")])
def test_a_call_that_was_given_up_keeps_its_place_until_google_must_have_counted_it(error: errors.NestError) -> None:
    """A Google that stood still counted two extensions after the relay had given them up: eleven in a minute."""
    desk = Desk().held()
    desk.step(error)
    sent = desk.now
    assert max(desk.book.budget.api.releases(sent)) >= sent + UNANSWERED + 60.0
