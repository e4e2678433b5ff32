"""A wake that is worked out a little differently is noticed: the C with one place changed, against the Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.test_native_memory import LOADING, ROOT, build, changed

CHANGES = {
    "jitter": (41, "input.c", "(deviation - R(jitter)) / 16", "(deviation - R(jitter)) / 15"),
    "B-pictures": (48, "pictures.c", "(nal[1] >> 4 == 0xA || nal[1]", "(nal[1]"),
    "end of a keyframe": (41, "pictures.c", "    I(keyframes) += I(key);\n", ""),
    "sets before a keyframe": (41, "pictures.c", "I(sets_seen) != 3 || I(repeats_sets)", "I(sets_seen) != 3"),
    "slices of a picture": (410, "pictures.c", "I(marked) || I(closed) || !slice", "!slice"),
    "a STAP-A as it came": (41, "pictures.c", "whole = whole && work", "whole = work"),
    "skew": (350, "timeline.c", "R(skew) -= less > -limit ? less : -limit;", "R(skew) -= less;"),
    "transport-wide number": (
        54,
        "output.c",
        "(uint32_t)OI(transport_sequence) + 1",
        "(uint32_t)OI(transport_sequence)",
    ),
    "sound's timestamps": (41, "output.c", "header.number++, header.timestamp += step", "header.number++, (void)step"),
    "sound that is even": (
        41,
        "smoother.c",
        "return high - low <= OR(threshold);",
        "return high - low <= OR(threshold) + 1;",
    ),
    "a second that is forgotten": (5, "smoother.c", "second[0] < start - WINDOW", "second[0] < start - 4"),
    "sound that stands still": (11, "hearing.c", "if (!*size || run->timestamp == I(unit_timestamp))", "if (!*size)"),
    "time of sound": (11, "hearing.c", "run->sent_timestamp = I(unit_timestamp) =", "run->sent_timestamp ="),
    "sound behind a fragment": (195, "hearing.c", "!is_empty(ATTRIBUTE(parts[UNITS], fragment))", "0"),
    "place of what sound becomes": (7, "transcoding.c", "position) += FRAME_TICKS * made;", "position) += 959 * made;"),
    "end of a unit": (15, "transcoding.c", "media + (double)count / (double)with->rate;", "media + 0.06;"),
    "sound behind a hole": (71, "transcoding.c", "NUMBER_OF(transcoder, hole) || ", ""),
    "bytes that are kept": (41, "history.c", "f_kept_bytes)->i += run->bytes;", "f_kept_bytes)->i += run->bytes + 1;"),
    "arrival of a picture": (41, "input.c", "    R(arrived_at) = now;\n", ""),
    "pictures that are handed on": (6, "wake.c", "hand_on(&work, run, parts[PIPELINE], n__passed, material)", "0"),
    "what the pacer lets through": (
        41,
        "sending.c",
        "!= Py_None))\n        return 0;\n    count_run(output, run, now);",
        "!= Py_None))\n        return 0;",
    ),
    "rest of a frame": (46, "input.c", "work->taken = at;", "work->taken = at == work->size ? at : at + 1;"),
}
"""The seed of a stream that shows it, what stands in which file, and what a mistake might have written."""


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found(tmp_path: Path, name: str) -> None:
    seed, *change = CHANGES[name]
    module = tmp_path / "_runs.abi3.so"
    build(changed(tmp_path, *map(str, change)), module, "-O1", "-ffp-contract=off")
    command = [sys.executable, "-c", LOADING, str(module), "--made", "--packets", "9000", "--seed", str(seed)]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0, done.stdout
    assert "Difference: " in done.stderr
