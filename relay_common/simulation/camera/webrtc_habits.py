"""A WebRTC camera's habits, which can be switched per camera, and the counters of its sessions.

The defaults are what has been reported of Google's cameras; the opposite of each has also been observed, so clients
should be tested both ways. The faults (see `faults`) that concern RTP apply to these cameras, too: silence, stall,
burst, loss, reorder, garbage, timestamp jump, drift, parameters, no parameter sets, no sender reports. "No audio" makes
new answers mute, "slow describe" delays the first packet, and "reset" ends sessions silently.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class WebRtcHabits:
    """The defects of a camera's answers, and its behaviour.

    Answer: `ice_lite` adds a=ice-lite; `bundle_out_of_order` makes the BUNDLE group "0 2 1"; `no_foundation` and
    `no_component` omit that field from candidates (with both, alternately); `sendrecv` claims that direction for
    recvonly offers; `no_final_newline`; `two_h264_types` answers with two H.264 payload types where two were offered,
    and sends the second; `sprop` adds sprop-parameter-sets; `unserved_candidates` lists TCP and SSLTCP ones;
    `ssrc_lines` names the SSRCs; `rtx` accepts retransmission payload types.

    `lenient` also accepts offers that public clients send and Google refuses: without a host candidate (500), and with
    sections in another order (400; go2rtc#2311).

    Media: `first_keyframe_rate` in bit/s is the pace of a session's first IDR until a REMB arrives (0: no pacing);
    `idle_gop` seconds between unrequested IDRs; `sets_after_pli` sends SPS and PPS also before an IDR requested by PLI;
    `probe_interval` seconds between RTP packets without payload (0: none); `report_interval` seconds between sender
    reports; `goodbye` closes DTLS at the end instead of falling silent; `one_client` ends a camera's session when
    another begins (a device of one stream at most refuses the other one instead).
    """

    ice_lite: bool = True
    bundle_out_of_order: bool = True
    no_foundation: bool = True
    no_component: bool = False
    sendrecv: bool = True
    no_final_newline: bool = True
    two_h264_types: bool = True
    sprop: bool = False
    unserved_candidates: bool = True
    ssrc_lines: bool = True
    rtx: bool = True
    first_keyframe_rate: int = 375_000
    idle_gop: float = 3.3
    sets_after_pli: bool = False
    probe_interval: float = 2.0
    report_interval: float = 1.0
    goodbye: bool = True
    lenient: bool = False
    one_client: bool = False

    def changed(self, **changes: Any) -> WebRtcHabits:
        """A copy with other values; ValueError for an unknown name or a value of another type."""
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in changes.items():
            if name not in known:
                raise ValueError(f"unknown habit {name!r}; known: {', '.join(known)}")
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (isinstance(value, bool) if isinstance(known[name], bool) else number and value >= 0):
                raise ValueError(f"habit {name!r} must be like {known[name]!r}, not {value!r}")
        return replace(self, **changes)


@dataclass
class WebRtcCounters:
    """Counters of a camera's WebRTC side, over all its sessions.

    `request_gap` is the shortest time in seconds between two keyframe requests (PLI or FIR) of one session, as they
    arrived, however late they were read; those in one datagram count as one. `remb_bitrate` in bit/s is the last one
    received. `nacked` counts packets requested by NACK, `unanswered` those that were not in the history or could not be
    retransmitted.
    """

    sessions: int = 0
    connected: int = 0
    plis: int = 0
    firs: int = 0
    firs_repeated: int = 0
    requests: int = 0
    request_gap: float | None = None
    rembs: int = 0
    remb_bitrate: int = 0
    receiver_reports: int = 0
    reported_lost: int = 0
    nacked: int = 0
    retransmitted: int = 0
    unanswered: int = 0
    reordered: int = 0
    probes: int = 0
    checks: int = 0
    malformed: int = 0
    failures: int = 0
