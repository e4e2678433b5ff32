"""The verdict on a camera: which of several faults is named, and since when."""

from __future__ import annotations

import pytest

from relay_common.causes import CAUSES, Cause
from relay_common.cloudflare.errors import request_error
from relay_common.engine_waits import WAITS, EngineWait
from relay_common.fsm import Machine
from relay_common.protocol import Stage, WorkerState
from relay_common.worker_stats import TrackStats, WorkerStats
from relay_supervisor.cameras.verdict import CameraFacts, judge_camera
from relay_supervisor.fleet.launcher import EnginePhase
from relay_supervisor.fleet.restart import RestartPolicy
from relay_supervisor.fleet.slot import WORKER_TABLE, Slot, SlotEvent
from relay_supervisor.status.model import LeaseStatus
from relay_supervisor.status.verdict import StatusVerdict, spoken_verdict
from relay_worker.process.spec import WorkerSpec

WALL = 1_000_000.0
HELD = LeaseStatus(state="held", next_step="extend", next_at=WALL + 60.0)
REFUSED = request_error("sessions/new", 500, "internal_error", "no")


class _Alive:
    phase = EnginePhase.RUNNING
    where = reason = ""
    number = 1


class _Waiting(_Alive):
    phase = EnginePhase.WAITING
    reason = "Unschedulable: 0/3 nodes are available: 3 Insufficient cpu."


def slot(state: WorkerState = WorkerState.RECONNECTING, **stats: object) -> Slot:
    spec = WorkerSpec(camera="a", name="Porch", instance="", control="", stats="")
    made = Slot(spec, RestartPolicy(), 0.0)
    made.launch("a.1", 0.0)
    made.bind("a.1", _Alive(), 0.0)  # type: ignore[arg-type]
    made.machine.fire(SlotEvent.HELLO)
    made.state = state
    made.stats = WorkerStats(instance="a.1", camera="a", sequence=1, at=0.0, uptime=9.0, state=state)
    for name, value in stats.items():
        setattr(made.stats, name, value)
    return made


def judged(of: Slot | None, before: StatusVerdict | None = None, at: float = 0.0, **facts: object) -> StatusVerdict:
    known = {"why_not": "", "idle": "", "lease": HELD} | facts
    return judge_camera(CameraFacts(id="a", name="Porch", slot=of, **known), at, WALL + at, before)  # type: ignore[arg-type]


def test_every_cause_has_its_words() -> None:
    assert set(CAUSES) == set(Cause)
    for cause, words in CAUSES.items():
        assert words.stage in ("", "google", "network", "camera", "decode", "relay", "sfu", "viewers", "sink"), cause
        assert bool(words.sentence) is (cause is not Cause.NONE)
        assert not words.sentence.endswith(".")


def test_what_is_wrong_with_the_camera_is_not_explained_by_the_next_extension() -> None:
    stalled = slot(stage=Stage.STREAMING, reason="RTSP streaming: no video for 10 s", code="camera_stalled")
    found = judged(stalled)
    assert (found.state, found.stage, found.code) == ("reconnecting", "camera", "camera_stalled")
    assert found.cause == "The camera sends no video", "no figure that would stand still"
    assert found.next.startswith("the worker connects again")
    assert found.next_at == 0.0
    assert "Wi-Fi" in found.advice


def test_a_stall_is_named_before_its_deadline_has_passed() -> None:
    fresh = slot(source="playing", webrtc="connected", video=TrackStats(frames=100))
    assert judged(fresh).code == "camera_stalled"
    assert judged(slot(source="playing", webrtc="connecting")).code == "starting"


def test_a_first_picture_on_its_way_is_no_stall() -> None:
    """A report may come before the word that it is live, or after it: the two have connections of their own."""
    first = slot(WorkerState.CONNECTING, source="playing", webrtc="connected", video=TrackStats(frames=1))
    assert (judged(first).state, judged(first).code) == ("connecting", "starting")
    assert first.stats is not None
    first.stats.state = WorkerState.LIVE
    assert (judged(first).state, judged(first).code) == ("connecting", "starting")


@pytest.mark.parametrize(
    ("code", "reason", "cause"),
    [
        ("camera_refuses", "RTSP describe: DESCRIBE was answered 404 Not Found", "refused: 404 Not Found"),
        ("codec_unsupported", "RTSP describe: the camera's video cannot be carried: H265", "not relayed: H265"),
        ("uplink_blocked", "Porch: no connection in 15 s", "UDP does not get through"),
        ("", "an earlier release says this", "an earlier release says this"),
    ],
)
def test_the_workers_word_travels_as_a_code(code: str, reason: str, cause: str) -> None:
    found = judged(slot(stage=Stage.DESCRIBE, reason=reason, code=code))
    assert found.cause.endswith(cause)
    assert found.code == (code or "camera_broken")


def test_what_ended_first_is_named() -> None:
    reported = slot(stage=Stage.PUBLISH, reason="…", code="sfu_refuses")
    assert judged(reported, refused=REFUSED).cause == "Cloudflare refuses to publish: 500"
    lost = LeaseStatus(state="held_off", code="camera_offline", next_step="a stream is generated", next_at=WALL + 9)
    found = judged(reported, lease=lost, refused=REFUSED)
    assert (found.code, found.next, found.next_at) == ("camera_offline", "a stream is generated", WALL + 9)
    reported.policy.died(0.0, "killed by SIGKILL")
    reported.machine.fire(SlotEvent.EXIT)
    reported.unbind()
    reported.last_exit, reported.next_start = "killed by SIGKILL while live, 3rd time in 10 minutes", 20.0
    reported.ended_by = "killed by SIGKILL"
    found = judged(reported, lease=lost, at=5.0)
    assert (found.code, found.next_at) == ("worker_crashes", WALL + 20.0)
    assert found.cause == "The camera's worker keeps ending: killed by SIGKILL"


def test_a_worker_that_was_taken_away_has_not_crashed() -> None:
    moved = slot()
    moved.policy.died(0.0, "killed by SIGKILL")
    moved.machine.fire(SlotEvent.EXIT)
    moved.unbind()
    moved.ended_by, moved.was_taken = "its Pod was deleted", True
    found = judged(moved, at=5.0)
    assert found.code == "worker_moves"
    assert found.cause == "The cluster has taken the camera's worker away: its Pod was deleted"


def test_a_worker_whose_node_is_silent_or_does_not_start_it_does_not_hang_or_crash() -> None:
    lost = slot()
    lost.policy.died(0.0, "hung")
    lost.machine.fire(SlotEvent.EXIT)
    lost.unbind()
    lost.ended_by, lost.node_failed = "nothing is heard of node node1", True
    found = judged(lost, at=1.0)
    assert (found.code, found.stage) == ("node_lost", "relay")
    assert found.cause == "The node of the camera's worker is lost, or too busy: nothing is heard of node node1"
    assert "kubectl get nodes" in found.advice


def test_a_stream_that_has_ended_is_not_what_a_camera_waits_for_that_has_another() -> None:
    ended = LeaseStatus(state="generating", code="stream_ended", next_step="Google's answer")
    assert judged(slot(), lease=ended).code == "stream_ended"
    again = LeaseStatus(state="held", code="stream_ended", next_step="extend", next_at=WALL + 180.0)
    found = judged(slot(), lease=again)
    assert (found.code, found.next_at) == ("starting", 0.0)
    assert "extend" not in found.next


def test_a_worker_for_which_there_is_no_room_says_so_however_the_one_before_it_ended() -> None:
    waiting = slot()
    waiting.policy.died(0.0, "its Pod is gone")
    waiting.process, waiting.hello = _Waiting(), None  # type: ignore[assignment]
    waiting.machine = Machine(WORKER_TABLE)
    waiting.machine.fire(SlotEvent.LAUNCH)
    assert judged(waiting, at=1.0).code == "worker_crashes"
    found = judged(waiting, at=4.0)
    assert (found.code, found.stage) == ("worker_waits", "relay")
    assert found.cause.endswith(
        "start the camera's worker: Unschedulable: 0/3 nodes are available: 3 Insufficient cpu."
    )
    assert found.advice == WAITS[EngineWait.INSUFFICIENT_CPU].advice
    waiting.process.reason = "ContainerCreating"
    found = judged(waiting, at=4.0)
    assert (found.code, found.advice) == ("starting", WAITS[EngineWait.PREPARING].advice), "as at every start"


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (
            'the cluster refuses it: pods "x" is forbidden: exceeded quota: cameras',
            WAITS[EngineWait.QUOTA_EXCEEDED].advice,
        ),
        ("not enough memory", CAUSES[Cause.WORKER_UNSTARTED].advice),
    ],
)
def test_what_is_advised_where_a_worker_cannot_be_started_is_for_that_engine(words: str, advice: str) -> None:
    unstarted = slot()
    unstarted.machine.fire(SlotEvent.GIVE_UP)
    unstarted.unbind()
    unstarted.policy.unstarted()
    unstarted.ended_by = f"could not be started: {words}"
    found = judged(unstarted, at=4.0)
    assert (found.code, found.advice) == ("worker_unstarted", advice)


def test_a_live_camera_that_nobody_may_watch_says_so() -> None:
    live = slot(WorkerState.LIVE)
    assert judged(live).code == "none"
    found = judged(live, viewers_refused=REFUSED)
    assert (found.state, found.stage, found.cause) == ("live", "viewers", "Cloudflare refuses viewers: 500")


def test_it_says_when_the_worker_tries_again() -> None:
    stalled = slot(code="camera_stalled", reason="…", retry_at=WALL + 3.0)
    assert judged(stalled).next_at == WALL + 3.0
    told = spoken_verdict(judged(stalled, at=1.0), WALL + 1.0)
    assert told.startswith("The camera sends no video; next: the worker connects again in 2 s; ")
    assert judged(stalled, at=4.0).next_at == 0.0, "the report is old: it is being tried"
    refused = slot(code="sfu_refuses", reason="…", retry_at=WALL + 60.0)
    assert judged(refused, refused=REFUSED).next_at == WALL + 60.0
    note = slot(WorkerState.LIVE, code="sink_fails", reason="go2rtc: no answer", retry_at=WALL + 9.0)
    assert (judged(note).code, judged(note).next_at) == ("sink_fails", WALL + 9.0)


def test_a_refused_token_is_tried_when_its_own_pause_is_over() -> None:
    revoked = LeaseStatus(state="held_off", code="token_revoked", next_step="a stream is generated", next_at=WALL + 30)
    found = judged(slot(), lease=revoked, token_at=WALL + 600.0)
    assert (found.next, found.next_at) == ("the token is tried again", WALL + 600.0)


def test_it_dates_from_when_the_cause_began() -> None:
    stalled = slot(reason="…", code="camera_stalled")
    first = judged(stalled)
    again = judged(stalled, first, 7.0)
    assert (first.since, again.since) == (WALL, WALL)
    assert judged(slot(WorkerState.LIVE), again, 9.0).since == WALL + 9.0


def test_a_time_is_told_once_and_from_now() -> None:
    off = LeaseStatus(state="held_off", code="quota_held", next_step="a stream is generated", next_at=WALL + 40)
    told = spoken_verdict(judged(slot(), lease=off), WALL + 10.0)
    assert told.startswith("Google's command quota is used up: 429; next: a stream is generated in 30 s; Stop other")


def test_a_live_camera_that_cannot_be_watched_without_cloudflare_says_why() -> None:
    live = slot(WorkerState.LIVE)
    found = judged(live, local_problem="no UDP port is left in local.udp_ports")
    assert (found.state, found.stage, found.code) == ("live", "relay", "local_unavailable")
    assert found.cause.endswith(": no UDP port is left in local.udp_ports")
    assert "`relay-supervisor check`" in found.advice
    assert judged(live, local_problem="x", viewers_refused=REFUSED).code == "viewers_refused", "others may not watch"
    assert judged(live).code == "none"
