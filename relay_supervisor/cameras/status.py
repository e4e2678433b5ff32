"""Status of one camera for people, from its lease, worker and publication. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from relay_common.protocol import Stage
from relay_common.worker_stats import SinkStats, TrackStats, WorkerStats
from relay_supervisor.cameras.registry import Camera
from relay_supervisor.cameras.verdict import CameraFacts, engine_wait, judge_camera
from relay_supervisor.fleet.slot import Phase, Slot
from relay_supervisor.google.models import Device
from relay_supervisor.status.model import CameraStatus, LocalStatus, RenditionStatus, Totals, WorkerStatus
from relay_supervisor.status.verdict import StatusVerdict

_GOOGLE: Final = "google"
"""Stage of what Google refuses or does not answer."""
OLD: Final = "its worker is of an earlier release, and publishes there after its next restart"
_RELAY: Final = "relay"
"""Stage of what fails in the relay itself."""


def camera_status(
    camera: Camera,
    facts: CameraFacts,
    *,
    publication: str,
    local: LocalStatus,
    sfu: bool,
    rendition: RenditionStatus,
    small: bool = False,
    sinks: Sequence[str] = (),
    now: float,
    wall: float,
    before: StatusVerdict | None = None,
) -> CameraStatus:
    """The status of `camera` as judged from `facts`.

    `publication` is the name of the live one, or empty; `local` is about viewers without the SFU, `sfu`
    tells whether there is one; `rendition` is about its smaller picture, `small` tells whether the publication has it;
    `sinks` are the names of the WHIP servers that are to get it; `now` is
    monotonic, `wall` Unix seconds; `before` is the verdict until now.
    """
    slot, lease = facts.slot, facts.lease
    at_rest = facts.why_not or facts.idle
    stats = slot.stats if slot is not None and not (at_rest and slot.phase is Phase.ABSENT) else None
    found = judge_camera(facts, now, wall, before)
    reason, stage = _reason(facts, found.state, stats, now)
    decodable = "unknown"
    if found.state == "live":
        decodable, stage, reason = facts.picture
        if not reason and stats is not None and stats.reason:
            stage, reason = stats.stage.value, stats.reason  # a note: it plays all the same
    status = CameraStatus(
        id=camera.id,
        name=camera.name,
        device=f"…{camera.device.id[-8:]}",
        state=found.state,
        reason=reason,
        stage=stage,
        enabled=not facts.why_not,
        viewable=(bool(publication) if sfu else local.on) and found.state not in ("stopped", "idle"),
        publication=publication,
        lease=lease,
        worker=_worker(slot, now),
        decodable=decodable,
        verdict=found,
        local=local,
        sfu=sfu,
        renditions=rendition.mode if small or (local.on and not sfu) else "off",
        rendition=rendition,
    )
    status.lease.protocol = status.lease.protocol or camera.device.protocol.value
    if stats is None or slot is None:
        status.video = _listed_video(camera.device)
        return status
    status.uptime, status.stats_age = stats.uptime, now - slot.stats_at
    status.webrtc, status.source, status.source_sessions = stats.webrtc, stats.source, stats.source_sessions
    status.video, status.audio = stats.video, stats.audio
    status.delay_p50, status.delay_p99, status.skew = stats.delay_p50, stats.delay_p99, stats.skew
    status.counters, status.sinks = stats.counters, [*stats.sinks, *_unknown_sinks(slot, sinks)]
    return status


def _listed_video(device: Device) -> TrackStats:
    """What Google says of a camera's video."""
    size = device.resolution
    return TrackStats(width=size.width, height=size.height, codec=next(iter(device.video_codecs), ""))


def _unknown_sinks(slot: Slot, sinks: Sequence[str]) -> list[SinkStats]:
    """The sinks that an adopted worker publishes nothing at, because it does not know of any."""
    if slot.hello is None or slot.hello.sinks:
        return []
    return [SinkStats(name=name, reason=OLD) for name in sinks]


def _reason(facts: CameraFacts, state: str, stats: WorkerStats | None, now: float) -> tuple[str, str]:
    """The reason as it was reported, in full, and at which stage; the verdict has it in the words of every surface."""
    slot, lease = facts.slot, facts.lease
    if state in ("disabled", "idle") or slot is None:
        return facts.why_not or facts.idle, ""
    if lease.state == "parked":
        return lease.last_error, _GOOGLE
    if slot.phase in (Phase.BACKOFF, Phase.HUNG):
        again = f"; it is started again in {max(0.0, slot.next_start - now):.0f} s" if state == "degraded" else ""
        return f"its worker {slot.last_exit}{again}", _RELAY
    if slot.waits and slot.process is not None and slot.process.reason:
        return f"its worker waits: {slot.process.reason}", _RELAY
    if lease.degraded:
        return lease.last_error, _GOOGLE
    # The stage is that of the reason which is told.
    reason = lease.last_error or (stats.reason if stats is not None else "")
    stage = stats.stage.value if stats is not None and stats.stage is not Stage.NONE else ""
    return reason, _GOOGLE if lease.last_error else stage


def _worker(slot: Slot | None, now: float) -> WorkerStatus:
    if slot is None:
        return WorkerStatus()
    stats, handle = slot.stats, slot.process
    return WorkerStatus(
        state=slot.phase.value,
        instance=slot.instance,
        pid=handle.number if handle is not None else 0,
        uptime=stats.uptime if stats is not None else 0.0,
        restarts=slot.policy.restarts,
        last_exit=slot.last_exit,
        heartbeat_age=now - slot.seen_at if handle is not None else 0.0,
        cpu=stats.cpu if stats is not None else 0.0,
        rss=stats.rss if stats is not None else 0,
        confinement=slot.hello.confinement if slot.hello is not None else "",
        data_path=slot.hello.data_path if slot.hello is not None else "",
        data_path_fallbacks=int(slot.policy.trust.lost),
        where=handle.where if handle is not None else "",
        phase=handle.phase.value if handle is not None else "",
        phase_reason=handle.reason if handle is not None else "",
        waits=wait.value if (wait := engine_wait(slot)) is not None else "",
        immortal_objects=slot.hello.immortal_objects if slot.hello is not None else "",
        rehearsal=slot.hello.rehearsal if slot.hello is not None else "",
    )


def totals(cameras: Sequence[CameraStatus], *, viewers: int) -> Totals:
    """Sums over all cameras."""
    enabled = [camera for camera in cameras if camera.enabled]
    live = sum(camera.state == "live" for camera in enabled)
    idle = sum(camera.state == "idle" for camera in enabled)
    return Totals(
        cameras=len(enabled),
        connected=live,
        failed=len(enabled) - live - idle,
        video_packets=sum(camera.video.packets_in for camera in cameras),
        video_frames=sum(camera.video.frames for camera in cameras),
        audio_packets=sum(camera.audio.packets_in for camera in cameras),
        audio_frames=sum(camera.audio.frames for camera in cameras),
        bytes=sum(camera.video.bytes_in + camera.audio.bytes_in for camera in cameras),
        bitrate=sum(camera.video.bitrate_in + camera.audio.bitrate_in for camera in cameras),
        restarts=sum(camera.worker.restarts for camera in cameras),
        viewers=viewers,
    )
