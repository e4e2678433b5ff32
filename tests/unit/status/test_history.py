"""What is wrong is logged and published once when it begins and once when it is over."""

from __future__ import annotations

import logging

import pytest

from relay_common.causes import Cause
from relay_supervisor.status.history import VerdictHistory
from relay_supervisor.status.model import BudgetStatus, CameraStatus, RelayStatus, Totals
from relay_supervisor.status.verdict import StatusVerdict, duration, verdict


class Watched:
    """A history that is shown one status a second."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.caplog, self.events = caplog, list[tuple[str, str, str]]()
        self.history = VerdictHistory(lambda *event: self.events.append(event))
        self.now, self.uptime, self.detail = 1000.0, 0.0, ""

    def show(self, *causes: Cause, problems: tuple[Cause, ...] = (), seconds: int = 1) -> list[str]:
        """The cameras a, b, … have these causes, and the relay these problems; returns the warnings since."""
        self.caplog.clear()
        for _ in range(seconds):
            self.now += 1.0
            self.uptime += 1.0
            cameras = [
                CameraStatus(id=name, name=name.upper(), device="", state="", verdict=self._verdict(cause, name))
                for name, cause in zip("abcdefgh", causes, strict=False)
            ]
            found = [self._verdict(cause, "") for cause in problems]
            self.history.observe(
                RelayStatus(
                    version="",
                    at=self.now,
                    uptime=self.uptime,
                    totals=Totals(),
                    budgets=[],
                    cameras=cameras,
                    problems=found,
                )
            )
        return [record.getMessage() for record in self.caplog.records if record.levelno == logging.WARNING]

    def _verdict(self, cause: Cause, camera: str) -> StatusVerdict:
        before = self.history.before(camera) if camera else self.history.problem_before(cause.value, "")
        state = "live" if cause is Cause.NONE else "degraded"
        return verdict(
            cause, self.detail, state=state, wall=self.now, before=before, subject=camera.upper(), camera=camera
        )


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> Watched:
    return Watched(caplog)


def test_once_when_it_begins_and_once_when_it_is_over(watched: Watched) -> None:
    assert watched.show(Cause.NONE) == []
    (begun,) = watched.show(Cause.CAMERA_STALLED, seconds=30)
    assert begun.startswith("The camera sends no video; next: the worker connects again")
    record = watched.caplog.records[0]
    assert (record.__dict__["camera"], record.__dict__["reason"], record.__dict__["stage"]) == (
        "A",
        "camera_stalled",
        "camera",
    )
    assert watched.show(Cause.NONE, seconds=30) == ["over after 30 s, live: The camera sends no video"]
    assert [(kind, camera) for kind, _, camera in watched.events] == [("verdict", "a")] * 2


@pytest.mark.parametrize("step", [365 * 86400.0, -2 * 86400.0])
def test_how_long_something_lasted_is_not_told_by_a_clock_that_steps(watched: Watched, step: float) -> None:
    """As at the start of a machine without a clock of its own, or when somebody sets it."""
    (begun,) = watched.show(problems=(Cause.CLOCK_WRONG,), seconds=20)
    assert begun.startswith("This machine's clock is wrong")
    watched.now += step
    assert watched.show(seconds=4) == []
    assert watched.show(seconds=30) == ["over after 20 s: This machine's clock is wrong"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (172800, "2 days"),
        (3e7, "347 days"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_what_comes_and_goes_is_one_thing(watched: Watched) -> None:
    assert len(watched.show(Cause.WORKER_CRASHES)) == 1
    for _ in range(5):
        assert watched.show(Cause.NONE, seconds=4) == []
        assert watched.show(Cause.WORKER_CRASHES, seconds=2) == []


def test_another_cause_ends_the_one_before(watched: Watched) -> None:
    watched.show(Cause.SFU_LOST)
    over, begun = watched.show(Cause.UPLINK_BLOCKED)
    assert over.endswith("The publication at Cloudflare has ended")
    assert begun.startswith("No connection to Cloudflare")


def test_what_concerns_the_account_is_not_repeated_for_each_camera(watched: Watched) -> None:
    revoked = Cause.TOKEN_REVOKED
    assert len(watched.show(revoked, revoked, revoked, problems=(revoked,), seconds=10)) == 1
    assert len(watched.show(Cause.NONE, Cause.NONE, Cause.NONE, seconds=10)) == 1


def test_another_detail_is_logged_too_so_that_the_words_are_the_same_everywhere(watched: Watched) -> None:
    watched.show(Cause.SFU_REFUSES)
    watched.detail = "503"
    (again,) = watched.show(Cause.SFU_REFUSES, seconds=3)
    assert again.startswith("Cloudflare refuses to publish: 503")


def test_what_is_as_it_should_be_is_no_news(watched: Watched) -> None:
    assert watched.show(Cause.STARTING, Cause.IDLE, Cause.BUDGET_QUEUE, seconds=10) == []


def test_what_happens_to_many_cameras_at_once_is_one_line_and_an_event_for_each(watched: Watched) -> None:
    watched.show(*[Cause.NONE] * 6)
    (begun,) = watched.show(*[Cause.CAMERA_STALLED] * 5, Cause.NONE, seconds=3)
    assert begun.startswith("The camera sends no video; next: ")
    assert begun.endswith("; the same for 4 more cameras: B, C, D, E")
    assert watched.caplog.records[0].__dict__["camera"] == "A"
    assert [camera for _, _, camera in watched.events] == ["a", "b", "c", "d", "e"]
    watched.events.clear()
    (over,) = watched.show(*[Cause.NONE] * 6, seconds=10)
    assert over.startswith("over after 3 s, live: The camera sends no video")
    assert over.endswith("; the same for 4 more cameras: B, C, D, E")
    assert len(watched.events) == 5
    assert len(watched.show(*[Cause.CAMERA_STALLED] * 3)) == 3, "three are told of one by one"


def test_of_several_accounts_an_event_says_which_it_is_about(watched: Watched) -> None:
    refused = verdict(Cause.TOKEN_REVOKED, state="failed", wall=1.0, subject="p#2")
    for accounts, said in ((["p"], False), (["p", "p#2"], True)):
        watched.events.clear()
        budgets = [BudgetStatus(account=name) for name in accounts]
        status = RelayStatus(
            version="", at=1.0, uptime=0, totals=Totals(), budgets=budgets, cameras=[], problems=[refused]
        )
        VerdictHistory(lambda *event: watched.events.append(event)).observe(status)
        ((kind, text, camera),) = watched.events
        assert (kind, text.startswith("p#2: "), camera) == ("verdict", said, "")
