"""The fault matrix: each fault, what a viewer may notice of it and for how long, and what it may cost.

A row is inflicted on one camera. Rows of one lane share a camera and run in sequence; lanes run in parallel.
"""

from __future__ import annotations

import enum
import signal
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.inflict import (
    Bites,
    Inflict,
    command_failed,
    delete_sockets,
    empty_disk,
    extended,
    fill_disk,
    frames_dropped,
    later,
    of_camera,
    of_command,
    of_publishing,
    of_session,
    of_worker,
    publication_replaced,
    rediscover,
    renewed,
    source_replaced,
    step_clock,
    swell,
    worker_replaced,
)
from tests.chaos.world import COLLECT_AFTER


class Sees(enum.Enum):
    """What a viewer sees at the SFU."""

    FIRST = "first picture late"
    """There was no picture before: the fault occurs at the camera's start."""
    NOTHING = "nothing"
    """The same publication, no packet lost, live throughout."""
    SLATE = "slate, same publication"
    """The same publication, no packet lost; filler keeps it up if the camera's picture is missing for over 2 s."""
    ANOTHER = "another publication"
    """The viewer is moved to a new publication."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fault. `bites(before, now)` says whether it has taken effect; only then does health count as recovery.

    `within` is in seconds from the fault to health. `generates` is what it may cost, exactly, in Generate commands
    that reach Google (in a camera's first row: beyond the one that it needs anyway). With `degraded` (a state of the
    camera, and words of the reason it must give) the camera does not come back until `relieve`.
    """

    name: str
    inflict: Inflict
    bites: Bites
    sees: Sees
    within: float
    generates: int = 0
    degraded: tuple[str, str] = ("", "")
    relieve: Inflict | None = None
    over: Bites = lambda before, now: True
    """A further condition of recovery, if health is never lost."""
    cold: bool = False
    """Inflicted before the supervisor starts."""


HTML: Final = "<html><body><h1>502. That’s an error.</h1></body></html>"
LATE: Final[dict[str, Any]] = {"delay": 60.0}
GENERATE_429: Final[dict[str, Any]] = {"message": "Rate limited for the GenerateRtspStream command for the user."}
EXTEND_429: Final[dict[str, Any]] = {"message": "Rate limited for the ExtendRtspStream command for the user."}


def generate(what: str, status: int, *, within: float, degraded: tuple[str, str] = ("", ""), **answer: Any) -> Row:
    return Row(
        name=f"SDM {what} on Generate",
        inflict=of_command("Generate", status, **answer),
        bites=command_failed,
        sees=Sees.FIRST,
        within=within,
        generates=1,
        degraded=degraded,
        relieve=rediscover if degraded[0] else None,
        cold=True,
    )


def extend(
    what: str,
    status: int,
    *,
    sees: Sees = Sees.NOTHING,
    within: float = 20.0,
    generates: int = 0,
    degraded: tuple[str, str] = ("", ""),
    **answer: Any,
) -> Row:
    return Row(
        name=f"SDM {what} on Extend",
        inflict=of_command("Extend", status, **answer),
        bites=command_failed,
        over=renewed,
        sees=sees,
        within=within,
        generates=generates,
        degraded=degraded,
        relieve=rediscover if degraded[0] else None,
    )


def rtsp(what: str, fault: Inflict, *, within: float, sees: Sees = Sees.SLATE, **more: Any) -> Row:
    return Row(
        name=f"RTSP {what}", inflict=fault, bites=more.pop("bites", source_replaced), sees=sees, within=within, **more
    )


def sfu(what: str, fault: Inflict, *, within: float = 15.0, **more: Any) -> Row:
    return Row(name=f"SFU {what}", inflict=fault, bites=publication_replaced, sees=Sees.ANOTHER, within=within, **more)


SHARE: Final = "partnerconnections"

# fmt: off
SDM: Final[tuple[tuple[Row, ...], ...]] = (
    (generate("401", 401, within=20),
     extend("401", 401),
     # Not in the lane of the other 429, which takes a minute.
     extend("429", 429, sees=Sees.SLATE, within=30, generates=1, **EXTEND_429)),
    (generate("403", 403, within=30, degraded=("offline", SHARE)),
     extend("403", 403, sees=Sees.SLATE, within=30, generates=1, degraded=("offline", SHARE))),
    (generate("404", 404, within=30, degraded=("offline", SHARE)),
     extend("404", 404, sees=Sees.SLATE, within=30, generates=1)),
    (generate("409", 409, within=60),
     extend("409", 409)),
    (generate("429", 429, within=90, **GENERATE_429),),
    (generate("500", 500, within=25),
     extend("500", 500),
     extend("answer lost", 200, sees=Sees.SLATE, within=30, generates=1, after_effect=True, **LATE)),
    (generate("503", 503, within=25, raw_body=HTML),
     extend("503", 503, raw_body=HTML),
     extend("answer that trickles in", 503, raw_body=HTML, trickle=0.3)),
    (generate("time-out", 503, within=60, **LATE),
     extend("time-out", 503, **LATE)),
    (generate("non-JSON body", 200, within=25, raw_body=HTML),
     extend("non-JSON body", 200, raw_body=HTML)),
)
"""Lanes of cameras with short leases. A lease of `SHORT_LEASE` cannot outlast the 60 s for which a 429 holds Extend
back: it costs a Generate here, where one of 300 s would be extended later."""

RTSP: Final[tuple[tuple[Row, ...], ...]] = (
    (rtsp("reset", of_camera("reset"), within=10),
     rtsp("garbage", of_camera("garbage", bytes=400, seconds=2.0), within=10, bites=frames_dropped),
     rtsp("404 for two seconds", of_camera("describe_status", status=404, seconds=2.0, reset=True), within=12),
     rtsp("slow DESCRIBE", of_camera("slow_describe", delay=8.0, seconds=5.0, reset=True), within=20),
     rtsp("silence of the sound", of_camera("silence", track="audio", seconds=4.0), within=10, sees=Sees.NOTHING,
          bites=later(5.0))),
    (rtsp("stall, answers included", of_camera("stall", seconds=14.0), within=30),
     rtsp("silence, longer than the SFU keeps a track", of_camera("silence", seconds=COLLECT_AFTER + 4), within=25),
     # Until there is a new URL, however long that takes on a busy machine.
     rtsp("403", of_camera("describe_status", status=403, one_stream=True, seconds=60.0, reset=True), within=25,
          generates=1)),
    (rtsp("404, lasting", of_camera("describe_status", status=404, one_stream=True, seconds=60.0, reset=True),
          within=35, generates=1),),
)

PROCESS: Final[tuple[tuple[Row, ...], ...]] = (
    (Row(name="worker SIGKILL", inflict=of_worker(signal.SIGKILL), bites=worker_replaced, sees=Sees.ANOTHER, within=8),
     Row(name="worker over its memory limit", inflict=swell, bites=worker_replaced, sees=Sees.ANOTHER, within=15),
     Row(name="worker SIGSTOP (hang)", inflict=of_worker(signal.SIGSTOP), bites=worker_replaced, sees=Sees.ANOTHER,
         within=20)),
)

SFU: Final[tuple[tuple[Row, ...], ...]] = (
    (sfu("4xx on a new session", of_publishing(operation="sessions/new", status=400, code="decoding_error")),
     sfu("429 on a new session", of_publishing(operation="sessions/new", status=429, code="rate_limited")),
     sfu("5xx on a new session", of_publishing(operation="sessions/new", status=500, times=4)),
     sfu("4xx on publish", of_publishing(operation="tracks/new", status=406, code="invalid_session_description")),
     sfu("410 on publish", of_publishing(operation="tracks/new", status=410, code="session_error")),
     sfu("5xx on publish", of_publishing(operation="tracks/new", status=500, times=2))),
    # On a camera of their own: the more often one is published anew, the longer it waits to be.
    (sfu("503 on publish", of_publishing(operation="tracks/new", status=503, code="")),
     sfu("error of a track", of_publishing(operation="tracks/new", kind="track_error", code="backend_error")),
     sfu("answer lost after the session was made", of_publishing(operation="sessions/new", kind="lost_response")),
     sfu("answer lost after the tracks were published", of_publishing(operation="tracks/new", kind="lost_response")),
     sfu("slow answer", of_publishing(operation="tracks/new", kind="delay", seconds=4.0), within=20),
     sfu("answer that trickles in", of_publishing(operation="sessions/new", kind="trickle", seconds=2.0), within=40)),
    (sfu("410 in mid-stream", of_session(end=True), within=25),
     sfu("collects the track (nothing of it arrives)", of_session(upstream_loss=1.0), within=30),
     sfu("connection that never completes", of_publishing(operation="sessions/new", kind="never_connect"), within=25),
     sfu("401, once", of_publishing(operation="sessions/new", status=401, code="unauthorized"))),
    # It takes a minute.
    (sfu("401 (a wrong secret)", of_publishing(operation="sessions/new", status=401, code="unauthorized", times=2),
         within=90, degraded=("reconnecting", "app_secret")),),
)

WHOLE: Final[tuple[Row, ...]] = (
    Row(name="bus socket files deleted", inflict=delete_sockets, bites=worker_replaced, sees=Sees.ANOTHER, within=20),
    Row(name="disk full", inflict=fill_disk, bites=extended(2), sees=Sees.NOTHING, within=40,
        degraded=("live", "cannot be written"), relieve=empty_disk),
    Row(name="clock jump (an hour forward, two back)", inflict=step_clock, bites=extended(2), sees=Sees.NOTHING,
        within=40),
)
"""Faults of the whole relay, in sequence after all others, on a camera with a short lease."""
# fmt: on

SUPERVISOR_KILLED: Final = "supervisor SIGKILL"
LANES: Final = (*SDM, *RTSP, *PROCESS, *SFU)
ROWS: Final = tuple(row for lane in (*LANES, WHOLE) for row in lane)
