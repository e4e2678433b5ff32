"""What `make test-cluster` is made of: every row, and pieces that are ended with all that they started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relay_supervisor.status.model import BudgetStatus
from tests.cluster.kubelets import __main__ as whole
from tests.cluster.kubelets import ahead, piecewise
from tests.cluster.kubelets.pieces import AHEAD, Piece, pieces
from tests.cluster.kubelets.piecewise import Result, run
from tests.cluster.matrix.pair_rows import PAIR_ROWS
from tests.cluster.matrix.patience import MINUTE, PATIENCE, at_once, patience
from tests.cluster.matrix.rows import LIMITED_ROWS, ROWS
from tests.fixtures.product_source import ROOT

EVERY = {*ROWS, *LIMITED_ROWS, *PAIR_ROWS}
ASLEEP = """
import subprocess, time
print("asleep", subprocess.Popen(["sleep", "600"]).pid, flush=True)
time.sleep(600)
"""


def test_every_row_is_in_a_piece() -> None:
    found = list(pieces())
    assert {row for piece in found for row in piece.rows} == EVERY
    once = [(piece.second, piece.ahead, row) for piece in found for row in piece.rows]
    assert len(once) == len(set(once))
    assert {piece.ahead for piece in found} == {0.0, AHEAD}
    assert all((ROOT / test).exists() for piece in found for test in piece.tests)


def test_cameras_are_waited_for_at_the_pace_of_their_commands() -> None:
    unlimited = BudgetStatus(limit=10_000, capacity=40_000, used=20)
    assert PATIENCE <= patience(unlimited, 20, 20) < PATIENCE + 1.0
    ten_a_minute = BudgetStatus(limit=10, capacity=44)
    assert patience(ten_a_minute, 20, 0) == PATIENCE
    # Seven Generates, each aborted once, and the Stops: 21 commands beside extensions, which take 4.5 of ten.
    assert PATIENCE + 230.0 < patience(ten_a_minute, 20, 7) < PATIENCE + 240.0
    used_up = BudgetStatus(limit=10, capacity=44, used=10)
    assert patience(used_up, 20, 7) > patience(ten_a_minute, 20, 7) + 60.0
    assert patience(BudgetStatus(limit=10, capacity=20), 20, 1) == PATIENCE + 3 * MINUTE, "it is never none"


def test_what_a_minute_has_room_for_is_counted_with_stops_and_refusals() -> None:
    def sent(time: float, command: str, status: int = 200) -> dict[str, object]:
        return {"time": time, "device": "d", "command": f"{command}WebRtcStream", "status": status}

    earlier = [sent(20.0 + number, "Extend") for number in range(5)]
    assert at_once(3, [*earlier, *(sent(91.0, "Generate") for _ in range(3))], 5, 100.0) == 3
    assert at_once(3, earlier, 5, 100.0) == 3, "none needs a command"
    used_up = [sent(85.0, "Generate") for _ in range(10)]
    assert at_once(3, [*used_up, *(sent(146.0, "Generate") for _ in range(3))], 10, 100.0) == 0
    stopped = [command for _ in range(3) for command in (sent(91.0, "Stop"), sent(92.0, "Generate"))]
    busy = [sent(50.0 + number, "Extend") for number in range(5)]
    assert at_once(3, [*busy, *stopped], 5, 100.0) == 2, "the third one's Stop takes the last place"
    refused = [sent(91.0, "Generate", 409), sent(92.0, "Stop"), sent(93.0, "Generate")]
    assert at_once(1, [*busy, sent(60.0, "Extend"), sent(61.0, "Extend"), *refused], 7, 100.0) == 1
    assert at_once(1, [*busy, *(sent(60.0, "Extend") for _ in range(3)), *refused], 8, 100.0) == 0


def test_a_subset_has_no_other_rows() -> None:
    found = list(pieces(["replace"], ["hung", "as shipped"]))
    assert [piece.tests for piece in found] == [("tests/cluster/test_manifests.py",), ()]
    assert [(piece.second, piece.rows) for piece in found if piece.rows] == [("replace", ("worker hung",))]


def test_what_a_piece_says_and_how_it_ends_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    said = "| fault | …\n| row | refuse |\n20 cameras, 8 over WebRTC, live after 11.0 s\nsomething else"
    result = run("it", [sys.executable, "-c", f"print({said!r}); raise SystemExit(1)"], {}, 60.0)
    assert result == Result("it", "exit code 1", ["| row | refuse |"], ["20 cameras, 8 over WebRTC, live after 11.0 s"])
    assert "something else" in capfd.readouterr().out
    assert whole.told([result], 60.0) == 1
    assert "exit code 1" in capfd.readouterr().out
    assert whole.told([Result("it")], 60.0) == 0


def test_a_piece_that_is_silent_is_ended_with_all_it_started(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(piecewise, "ENDS", 0.2)
    result = run("it", [sys.executable, "-c", f"import signal; signal.signal(2, signal.SIG_IGN)\n{ASLEEP}"], {}, 3.0)
    assert "nothing was heard of it for 3 s" in result.wrong
    assert gone(int(capfd.readouterr().out.split()[-1]))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_ends_its_piece(tmp_path: Path, number: signal.Signals) -> None:
    program = (
        "import signal, sys\nfrom tests.cluster.kubelets import __main__ as whole\n"
        "from tests.cluster.kubelets.pieces import Piece\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        f"Piece.command = lambda self, options: ['-c', {ASLEEP!r}]\n"
        "sys.exit(whole.every([Piece('it'), Piece('another')], [], [], 60.0))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = ""
        while "asleep" not in line:
            line = process.stdout.readline()
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(60) == 1
    assert "interrupted" in rest
    assert "another" not in rest
    assert gone(int(line.split()[-1]))


def gone(process: int) -> bool:
    """Whether it ends soon."""
    deadline = time.monotonic() + 30
    while Path(f"/proc/{process}").exists() and "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text():
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            return False
        time.sleep(0.05)
    return True


def test_a_container_gets_the_clock_of_its_node(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"process": {"env": ["A=b"]}, "mounts": []}')
    ahead.main(
        ['{"LD_PRELOAD": "/lib/it.so", "FAKETIME": "+2.0s"}', "--root", "/r", "create", "--bundle", str(tmp_path)]
    )
    text = (tmp_path / "config.json").read_text()
    assert '"env": ["A=b", "LD_PRELOAD=/lib/it.so", "FAKETIME=+2.0s"]' in text
    assert '"destination": "/lib/it.so"' in text


def test_a_piece_of_rows_names_them_and_what_they_are_run_on() -> None:
    piece = Piece("it", "replace", ("worker hung",), ahead=2.0)
    words = piece.command(["--cameras", "4"])
    assert words[2:] == [
        *("tests.cluster.matrix", "--second", "replace", "--ahead", "2.0", "--row", "worker hung", "--cameras", "4")
    ]
