"""Prometheus metrics: names, units and help are an interface and stay as they are.

Collected from one `RelayStatus` at scrape time. Everything that can be counted exists at zero from the start; the
labels of cameras appear with the cameras.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from relay_common.causes import Cause, RestartCause
from relay_common.cloudflare.meter import CallMeter, Histogram
from relay_common.tolerated import TOLERATED
from relay_common.worker_stats import SinkStats
from relay_supervisor.events import EventHub
from relay_supervisor.google.leases.states import LeaseState
from relay_supervisor.http.auth import Gatekeeper
from relay_supervisor.http.metrics_engine import of_engine
from relay_supervisor.http.metrics_viewers import of_viewers
from relay_supervisor.status.model import CameraStatus, RelayStatus
from relay_supervisor.viewing.decoding import Decodable
from relay_supervisor.viewing.viewers import OUTCOMES

CAMERA_STATES: Final = (
    "live",
    "connecting",
    "reconnecting",
    "waiting",
    "idle",
    "degraded",
    "disabled",
    "offline",
    "stopped",
)
DECODABLE: Final = tuple(verdict.value for verdict in Decodable)
BUS_REFUSALS: Final = (
    *("no_key", "unproven", "bad_handshake", "stranger", "unknown_process", "anothers_name", "ended"),
)
LEASE_STATES: Final = tuple(state.value for state in LeaseState)
RESTART_CAUSES: Final = tuple(cause.value for cause in RestartCause)
"""Why a worker was replaced."""


class Telemetry(msgspec.Struct, kw_only=True):
    """Counters that the status does not hold; what is missing is reported as zero."""

    sfu: CallMeter = msgspec.field(default_factory=CallMeter)
    restarts: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Worker restarts by cause (`RESTART_CAUSES`; another cause counts as "other")."""
    views: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Views by outcome (`viewing.viewers.OUTCOMES`)."""
    command_wait: Histogram = msgspec.field(default_factory=lambda: Histogram((0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0)))
    """Seconds that Nest commands waited in the queue."""


_Value = Callable[[CameraStatus], float]

_CAMERA_GAUGES: Final[tuple[tuple[str, str, _Value], ...]] = (
    ("up", "1 when the camera is live.", lambda c: float(c.state == "live")),
    ("viewable", "1 when a viewer that asks now gets a picture.", lambda c: float(c.viewable)),
    ("uptime_seconds", "Time since the camera's worker started.", lambda c: c.uptime),
    ("stats_age_seconds", "Time since the worker last reported.", lambda c: c.stats_age),
    ("skew_seconds", "Audio behind video on the media clock.", lambda c: c.skew),
    ("video_fps", "Video frames per second.", lambda c: c.video.fps),
    ("keyframe_interval_seconds", "Time between the last two keyframes.", lambda c: c.video.keyframe_interval),
    ("lease_expires_in_seconds", "Life left of the stream lease; 0 when none.", lambda c: c.lease.expires_in),
    ("lease_failures", "Failed commands in a row.", lambda c: float(c.lease.failures)),
    ("degraded", "1 while retries are slowed after five failures in a row.", lambda c: float(c.lease.degraded)),
    ("worker_rss_bytes", "Resident memory of the worker.", lambda c: float(c.worker.rss)),
    ("worker_heartbeat_age_seconds", "Time since the worker was last heard.", lambda c: c.worker.heartbeat_age),
    ("worker_compiled", "1 when compiled code moves its packets.", lambda c: float(c.worker.data_path == "compiled")),
)
_CAMERA_COUNTERS: Final[tuple[tuple[str, str, _Value], ...]] = (
    ("source_sessions", "Sessions opened to the camera by its worker.", lambda c: c.source_sessions),
    ("lease_generates", "Generate commands sent.", lambda c: c.lease.generates),
    ("lease_extends", "Extend commands sent.", lambda c: c.lease.extends),
    ("worker_restarts", "Times the worker was replaced.", lambda c: c.worker.restarts),
    ("worker_cpu_seconds", "CPU time of the worker.", lambda c: c.worker.cpu),
    (
        "worker_data_path_fallbacks",
        "Times crashes cost it the compiled data path.",
        lambda c: c.worker.data_path_fallbacks,
    ),
    ("keyframes", "Keyframes received.", lambda c: c.video.keyframes),
)
_TRACK_COUNTERS: Final = (
    ("received_packets", "RTP packets received from the camera.", "packets_in"),
    ("received_bytes", "RTP bytes received from the camera.", "bytes_in"),
    ("lost_packets", "RTP packets missing from the camera's sequence.", "lost_in"),
    ("frames", "Video access units or encoded audio frames.", "frames"),
    ("dropped_packets", "Packets deliberately not forwarded.", "dropped"),
    ("sent_packets", "RTP packets sent to the SFU.", "packets_out"),
    ("sent_bytes", "RTP bytes sent to the SFU.", "bytes_out"),
    ("retransmitted_packets", "Packets sent again, on request or as a precaution.", "retransmitted"),
    ("nacks", "NACKs received from the SFU.", "nacks"),
    ("plis", "Picture loss indications received from the SFU.", "plis"),
    ("firs", "Full intra requests received from the SFU.", "firs"),
    ("send_drops", "Packets that the socket would not take.", "send_drops"),
    ("thinned_frames", "Frames left out because the uplink could not carry them in time.", "thinned"),
)
_TRACK_GAUGES: Final = (
    ("jitter_seconds", "Interarrival jitter from the camera (RFC 3550).", "jitter_in"),
    ("receive_bits_per_second", "Bit rate from the camera.", "bitrate_in"),
    ("send_bits_per_second", "Bit rate to the SFU.", "bitrate_out"),
    ("sent_loss_ratio", "Fraction lost as last reported by the SFU, 0 to 1.", "loss_out"),
    ("rtt_seconds", "Round trip to the SFU.", "rtt"),
    ("ceiling_bits_per_second", "What the uplink was found to carry; 0 while it is not the limit.", "ceiling"),
)


class RelayCollector(Collector):
    """Turns the relay's status and counters into metric families, all named `relay_…`."""

    def __init__(
        self,
        status: Callable[[], RelayStatus],
        telemetry: Callable[[], Telemetry],
        events: EventHub,
        gatekeeper: Gatekeeper,
    ) -> None:
        self._status, self._telemetry, self._events, self._gatekeeper = status, telemetry, events, gatekeeper

    def collect(self) -> Iterator[Metric]:
        status, telemetry = self._status(), self._telemetry()
        yield from relay_families(status)
        yield from _budgets(status)
        yield from _cameras(status.cameras)
        yield from _reasons(status)
        yield from _sfu(telemetry.sfu)
        yield from _views(telemetry)
        yield _histogram("relay_command_wait_seconds", "Time Nest commands waited.", {(): telemetry.command_wait})
        yield _by_label(
            "relay_restarts",
            "Worker restarts by cause.",
            "cause",
            _folded(telemetry.restarts, RESTART_CAUSES),
        )
        yield from self._http()
        yield from _sinks(status.cameras)
        yield from of_viewers(status.cameras)
        yield from of_engine(status.cameras)

    def _http(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("relay_event_streams", "Event streams that are open.", value=self._events.clients)
        yield _counter("relay_events", "Events published.", self._events.published)
        yield _counter("relay_event_streams_dropped", "Streams closed for slowness.", self._events.dropped_clients)
        yield _counter("relay_event_streams_refused", "Streams over the bound.", self._events.refused_clients)
        yield _counter("relay_auth_failures", "Requests with a wrong token.", self._gatekeeper.failures)
        yield _counter("relay_auth_blocked", "Tries refused after too many failures.", self._gatekeeper.blocked)


def relay_families(status: RelayStatus) -> Iterator[Metric]:
    info = GaugeMetricFamily("relay_build_info", "Always 1; the label tells the version.", labels=["version"])
    info.add_metric([status.version], 1)
    yield info
    totals = status.totals
    yield GaugeMetricFamily("relay_in_command", "1 while this supervisor commands.", value=float(status.seat.commands))
    yield GaugeMetricFamily("relay_uptime_seconds", "Time since the supervisor started.", value=status.uptime)
    yield GaugeMetricFamily("relay_connected_cameras", "Cameras that are live.", value=totals.connected)
    yield GaugeMetricFamily("relay_failed_cameras", "Cameras enabled but not live.", value=totals.failed)
    yield GaugeMetricFamily("relay_viewers", "Pages that watch now.", value=totals.viewers)
    yield GaugeMetricFamily("relay_bits_per_second", "Bit rate of all cameras.", value=totals.bitrate)
    by_state = GaugeMetricFamily("relay_cameras", "Cameras by state.", labels=["state"])
    for state in CAMERA_STATES:
        by_state.add_metric([state], sum(c.state == state for c in status.cameras))
    yield by_state
    kinds = {kind: status.counters.get(f"bus.refused_{kind}", 0) for kind in BUS_REFUSALS}
    yield _by_label("relay_bus_refused", "Connections and messages that the bus refused.", "kind", kinds)


def _budgets(status: RelayStatus) -> Iterator[Metric]:
    gauges = {
        "used": ("Nest commands in the last 60 seconds.", "used"),
        "limit": ("Nest commands allowed in any 60 seconds.", "limit"),
        "peak": ("Most Nest commands in any 60 seconds since the start.", "peak"),
        "hold_seconds": ("Time until commands are allowed again after a refusal.", "hold"),
        "capacity_cameras": ("Cameras that the budget can hold.", "capacity"),
    }
    for name, (text, field) in gauges.items():
        family = GaugeMetricFamily(f"relay_budget_{name}", text, labels=["account"])
        for budget in status.budgets:
            family.add_metric([budget.account], getattr(budget, field))
        yield family
    depth = GaugeMetricFamily("relay_queue_depth", "Nest commands that wait.", labels=["account"])
    commands = CounterMetricFamily("relay_commands", "Nest commands by result.", labels=["account", "result"])
    error = GaugeMetricFamily("relay_account_error", "1 when the account cannot be used at all.", labels=["account"])
    expiring = GaugeMetricFamily(
        "relay_account_expiring", "1 when its authorisation will end soon.", labels=["account"]
    )
    for budget in status.budgets:
        depth.add_metric([budget.account], budget.depth)
        commands.add_metric([budget.account, "ok"], budget.executed - budget.failed)
        commands.add_metric([budget.account, "failed"], budget.failed)
        error.add_metric([budget.account], float(bool(budget.auth_error)))
        expiring.add_metric([budget.account], float(bool(budget.auth_warning)))
    yield from (depth, commands, error, expiring)


def _cameras(cameras: list[CameraStatus]) -> Iterator[Metric]:
    labels = ["camera", "name"]
    for name, text, value in _CAMERA_GAUGES:
        gauge = GaugeMetricFamily(f"relay_camera_{name}", text, labels=labels)
        for camera in cameras:
            gauge.add_metric([camera.id, camera.name], value(camera))
        yield gauge
    for name, text, value in _CAMERA_COUNTERS:
        counter = CounterMetricFamily(f"relay_camera_{name}", text, labels=labels)
        for camera in cameras:
            counter.add_metric([camera.id, camera.name], value(camera))
        yield counter
    for kind, rows in ((CounterMetricFamily, _TRACK_COUNTERS), (GaugeMetricFamily, _TRACK_GAUGES)):
        for name, text, field in rows:
            family = kind(f"relay_camera_{name}", text, labels=[*labels, "kind"])
            for camera in cameras:
                family.add_metric([camera.id, camera.name, "video"], getattr(camera.video, field))
                family.add_metric([camera.id, camera.name, "audio"], getattr(camera.audio, field))
            yield family
    whose = GaugeMetricFamily(
        "relay_camera_account", "Always 1; says which of several accounts has the camera.", labels=[*labels, "account"]
    )
    for camera in cameras:
        if camera.account:
            whose.add_metric([camera.id, camera.name, camera.account], 1.0)
    yield whose
    yield from _camera_states(cameras, labels)
    yield _tolerated(cameras, labels)


def _reasons(status: RelayStatus) -> Iterator[Metric]:
    text = "Cameras by what is wrong with them: the reason in the status."
    by_reason = GaugeMetricFamily("relay_cameras_by_reason", text, labels=["reason"])
    problem = GaugeMetricFamily("relay_problem", "1 for what is wrong with the relay or an account.", labels=["reason"])
    counts = Counter(camera.verdict.code for camera in status.cameras)
    problems = {found.code for found in status.problems}
    for cause in Cause:
        by_reason.add_metric([cause.value], counts[cause.value])
        problem.add_metric([cause.value], float(cause.value in problems))
    labels = ["camera", "name", "stage", "reason"]
    reason = GaugeMetricFamily("relay_camera_reason", "1 for what is wrong with the camera.", labels=labels)
    for camera in status.cameras:
        found = camera.verdict
        reason.add_metric([camera.id, camera.name, found.stage or "none", found.code], 1.0)
    yield from (by_reason, problem, reason)


_SinkValue = Callable[[SinkStats], float]
_SINK_COUNTERS: Final[tuple[tuple[str, str, _SinkValue], ...]] = (
    ("sent_packets", "RTP packets sent to the sink.", lambda s: s.video_packets + s.audio_packets),
    ("sent_bytes", "RTP bytes sent to the sink.", lambda s: s.bytes),
    ("retransmitted_packets", "Packets sent to the sink again.", lambda s: s.retransmitted),
    ("dropped_packets", "Packets not sent for want of room on the way there.", lambda s: s.dropped),
    ("publications", "Publications made at the sink.", lambda s: s.publications),
    ("ice_restarts", "ICE restarts that kept a publication at the sink.", lambda s: s.restarts),
    ("ice_restarts_failed", "ICE restarts after which another publication was made.", lambda s: s.restarts_failed),
)
_SINK_GAUGES: Final[tuple[tuple[str, str, _SinkValue], ...]] = (
    ("up", "1 when the sink gets packets of every track.", lambda s: float(s.live)),
    ("send_bits_per_second", "Bit rate to the sink.", lambda s: s.bitrate),
    ("sent_loss_ratio", "Fraction of the video lost, as last reported by the sink, 0 to 1.", lambda s: s.loss),
    ("rtt_seconds", "Round trip to the sink.", lambda s: s.rtt),
)


def _sinks(cameras: list[CameraStatus]) -> Iterator[Metric]:
    """Each sink of each camera; the SFU's is called `sfu`."""
    for kind, rows in ((CounterMetricFamily, _SINK_COUNTERS), (GaugeMetricFamily, _SINK_GAUGES)):
        for name, text, value in rows:
            family = kind(f"relay_sink_{name}", text, labels=["camera", "name", "sink"])
            for camera in cameras:
                for sink in camera.sinks:
                    family.add_metric([camera.id, camera.name, sink.name or "sfu"], value(sink))
            yield family


def _tolerated(cameras: list[CameraStatus], labels: list[str]) -> Metric:
    text = "Deviations of the camera's stream that were put up with; those in _ms count milliseconds."
    family = CounterMetricFamily("relay_camera_tolerated", text, labels=[*labels, "kind", "quirk"])
    for camera in cameras:
        for kind, track in (("video", camera.video), ("audio", camera.audio)):
            for quirk, count in _folded(track.tolerated, TOLERATED).items():
                if count or quirk.startswith("sound_") == (kind == "audio"):
                    family.add_metric([camera.id, camera.name, kind, quirk], count)
    return family


def _camera_states(cameras: list[CameraStatus], labels: list[str]) -> Iterator[Metric]:
    delay = GaugeMetricFamily(
        "relay_camera_delay_seconds", "Time of a packet in the relay, last interval.", labels=[*labels, "quantile"]
    )
    state = GaugeMetricFamily("relay_camera_state", "1 for the state the camera is in.", labels=[*labels, "state"])
    lease = GaugeMetricFamily("relay_camera_lease_state", "1 for the lease's state.", labels=[*labels, "state"])
    decodable = GaugeMetricFamily(
        "relay_camera_decodable",
        "1 for whether browsers can decode the picture.",
        labels=[*labels, "verdict"],
    )
    for camera in cameras:
        own = [camera.id, camera.name]
        delay.add_metric([*own, "0.5"], camera.delay_p50)
        delay.add_metric([*own, "0.99"], camera.delay_p99)
        for known in CAMERA_STATES:
            state.add_metric([*own, known], float(camera.state == known))
        for known in LEASE_STATES:
            lease.add_metric([*own, known], float(camera.lease.state == known))
        for known in DECODABLE:
            decodable.add_metric([*own, known], float(camera.decodable == known))
    yield from (delay, state, lease, decodable)


def _sfu(meter: CallMeter) -> Iterator[Metric]:
    calls = CounterMetricFamily("relay_sfu_calls", "Calls to the SFU by result.", labels=["operation", "result"])
    for (operation, result), count in meter.results.items():
        calls.add_metric([operation, result.value], count)
    yield calls
    yield _by_label("relay_sfu_retries", "Calls to the SFU made again.", "operation", meter.retries)
    seconds: dict[tuple[str, ...], Histogram] = {
        (operation,): histogram for operation, histogram in meter.seconds.items()
    }
    yield _histogram("relay_sfu_call_seconds", "Time calls to the SFU took.", seconds, ["operation"])


def _views(telemetry: Telemetry) -> Iterator[Metric]:
    yield _by_label("relay_views", "Views by outcome.", "outcome", {o: telemetry.views.get(o, 0) for o in OUTCOMES})


def _folded(counts: Mapping[str, int], known: tuple[str, ...]) -> dict[str, int]:
    folded = dict.fromkeys(known, 0)
    for name, count in counts.items():
        folded[name if name in folded else "other"] += count
    return folded


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _by_label(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _histogram(
    name: str, text: str, rows: Mapping[tuple[str, ...], Histogram], labels: list[str] | None = None
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels or [])
    for values, histogram in rows.items():
        family.add_metric(list(values), histogram.cumulative(), histogram.sum)
    return family
