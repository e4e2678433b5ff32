"""Settings of the simulated SFU: timings, variants of its behaviour, and injected faults."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields
from typing import Any, Literal


@dataclass(slots=True)
class SfuTimings:
    """Durations in seconds; the defaults are Cloudflare's where known. Tests scale them down."""

    connect_wait: float = 5.0
    """How long a call that needs a connected transport waits for it before 425."""
    empty_track_wait: float = 8.3
    """How long a pull of a published but silent track is held before `empty_track_error`."""
    flowing_within: float = 2.0
    """A track whose last packet is older than this counts as silent for a new pull."""
    layer_silent_after: float = 12.0
    """A simulcast layer whose last packet is older counts as no longer sent (Cloudflare does not say when)."""
    collect_after: float = 30.0
    """A track without packets for this long is garbage-collected: it turns inactive and pulls fail, without notice."""
    unconnected_expiry: float = 15.0
    """A session that never connected is gone after this long (the real value is not published)."""
    connectivity_timeout: float = 30.0
    """A connected session that has sent no datagram for this long is gone."""
    report_interval: float = 1.0
    """Between RTCP receiver and sender reports."""
    nack_retry: float = 0.05
    """Between repeated NACKs for the same packet."""
    nack_give_up: float = 1.5
    """A missing packet counts as lost after this long."""
    keyframe_coalesce: float = 0.1
    """Viewers' PLI and FIR closer together than this reach the publisher as one."""


@dataclass(slots=True)
class SfuVariant:
    """Behaviour that differs between observations of the real SFU, or that a test changes."""

    end_of_candidates: bool = True
    h264_profiles: tuple[str, ...] | None = None
    """Accepted profile-level-id values (lower case); None accepts all. A section left without a codec is refused."""
    transport_cc: bool = False
    """Negotiate transport-wide congestion control feedback (and its header extension) when offered."""
    remb: bool = False
    """Negotiate goog-remb when offered; the estimate sent is `remb_bitrate`."""
    remb_bitrate: int = 10_000_000
    padding_probes: bool = False
    """Send viewers a padding-only packet with each report, on video with RTX."""
    simulcast: Literal["all", "first", "refused"] = "all"
    """Of the rids offered, which the answer takes: every one, the first alone, or none (a plain answer)."""
    simulcast_policies: bool = True
    """Whether `priorityOrdering` and `ridNotAvailable` are known; else anything but `none` is `invalid_params`."""
    switch_at_keyframes: bool = True
    """Viewers get another layer from its next keyframe; otherwise from its next packet. Both request a keyframe."""
    viewer_estimate: Literal["", "transport-cc", "remb"] = ""
    """By which feedback viewers' bandwidth is estimated, and simulcast layers chosen for them; empty: not at all."""
    allow_source_update: bool = True
    """Whether `tracks/update` may point a mid at another publication; `update_track_error` otherwise."""
    retired_sections: int = 20
    """m-sections closed on one session before it answers 410."""
    requests_per_second: int = 50
    tracks_per_call: int = 64
    max_body: int = 1 << 20
    srtp_profiles: str = "SRTP_AEAD_AES_128_GCM:SRTP_AEAD_AES_256_GCM:SRTP_AES128_CM_SHA1_80"
    """OpenSSL names in order of preference."""


# fmt: off
Operation = Literal[
    "sessions/new", "session", "tracks/new", "renegotiate", "tracks/close", "tracks/update",
    "datachannels/establish", "datachannels/new", "datachannels/update", "datachannels/close", "*",
]
# fmt: on
FaultKind = Literal["error", "lost_response", "delay", "trickle", "track_error", "never_connect"]


@dataclass(slots=True)
class ApiFault:
    """One fault of the HTTP interface, injected `times` times (-1: without limit) with `probability` per call.

    `error` answers with `status` and `code` before any effect; `lost_response` performs the call, then breaks the
    connection; `trickle` performs it, too, and sends a byte of the answer every `seconds`; `delay` waits `seconds`
    first; `track_error` performs nothing and answers 200 with `code` for every track; `never_connect` (for
    `sessions/new`) creates a session whose checks are never answered. `correlation` limits it to sessions created with
    that correlationId, `session` to one session.
    """

    operation: Operation = "*"
    kind: FaultKind = "error"
    times: int = 1
    probability: float = 1.0
    status: int = 500
    code: str = "internal_error"
    seconds: float = 0.0
    session: str | None = None
    correlation: str | None = None


@dataclass(slots=True)
class SfuFaults:
    """Faults of the simulated SFU and of the path to it; all can be changed while it runs."""

    upstream_loss: float = 0.0
    """Share (0..1) of RTP packets from publishers dropped at random on arrival."""
    downstream_loss: float = 0.0
    """Share (0..1) of RTP packets to viewers dropped at random."""
    downstream_rate: float = 0.0
    """Bits a second that the line to each viewer carries, with a queue of 0.3 s; 0: no limit."""
    delay: float = 0.0
    """Seconds added to every datagram in each direction."""
    ice_delay: float = 0.0
    """Seconds after the first check during which checks go unanswered (1.8 was observed)."""
    never_connect: float = 0.0
    """Share (0..1) of sessions whose checks are never answered (about 1 in 6 was observed)."""
    api: list[ApiFault] = field(default_factory=list)
    rng: random.Random = field(default_factory=random.Random)

    def take(self, operation: str, session: str | None, correlation: str = "") -> ApiFault | None:
        """The fault to inject into this call, counted as used, or None."""
        for fault in self.api:
            if fault.operation not in ("*", operation) or fault.session not in (None, session):
                continue
            if fault.correlation not in (None, correlation):
                continue
            if fault.probability < 1 and self.rng.random() >= fault.probability:
                continue
            if fault.times > 0:
                fault.times -= 1
                if not fault.times:
                    self.api.remove(fault)
            return fault
        return None

    def change(self, wanted: dict[str, Any]) -> None:
        """Apply a JSON object: numbers by field name, `api` a list of ApiFault fields (appended), `clear` resets first.

        Raises ValueError for an unknown key or a value that is not a number.
        """
        plain = {f.name for f in fields(self)} - {"api", "rng"}
        unknown = wanted.keys() - plain - {"api", "clear"}
        if unknown:
            raise ValueError(f"unknown fault {sorted(unknown)}; known: {sorted(plain)}, api, clear")
        try:
            numbers = {name: float(wanted[name]) for name in plain & wanted.keys()}
            api = [ApiFault(**fault) for fault in wanted.get("api", ())]
        except TypeError as error:
            raise ValueError(f"bad fault: {error}") from error
        if wanted.get("clear"):
            self.api.clear()
            for name in plain:
                setattr(self, name, 0.0)
        for name, number in numbers.items():
            setattr(self, name, number)
        self.api += api
