"""Names of the camera deviations that the relay tolerates; docs/quirks.md says how each is handled."""

from __future__ import annotations

from typing import Final

TOLERATED: Final = (
    "marker_missing",
    "marker_misplaced",
    "picture_split",
    "annex_b",
    "stap_padding",
    "empty_payload",
    "unknown_payload",
    "broken_stream",
    "malformed_parameter_set",
    "changed_parameter_set",
    "malformed_packet",
    "unexpected_packet",
    "duplicate_packet",
    "restarted_sequence",
    "over_rate",
    "answer_misnumbered",
    "keepalive_unanswered",
    "session_renamed",
    "sound_frame_inserted",
    "sound_frame_removed",
    "sound_moved",
    "sound_gap_filled_ms",
    "sound_gap_jumped",
    "sound_overlap_ms",
    "sound_unit_undecodable",
    "sound_unit_malformed",
    "sound_unit_incomplete",
    "other",
)
"""Keys of `TrackStats.tolerated` and labels of its metric; "other" (metric only) covers names from newer workers."""
