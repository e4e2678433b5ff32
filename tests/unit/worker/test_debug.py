"""`relay-worker debug`: options that cannot work are refused before the camera is asked for anything; its verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from relay_common.errors import Remedy
from relay_common.protocol import Stage, WorkerState
from relay_common.worker_stats import TrackStats, WorkerStats
from relay_worker import native
from relay_worker.debug import Reporter, _verdict, cli


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--url", "http://cam/live?auth=hush"], "is http://: a camera's stream is rtsp:// or rtsps://"),
        (["--url", "cam/live?auth=hush"], "has no scheme"),
        (["--url", "rtsp://[::1/live?auth=hush"], "an IPv6 address in brackets"),
        (["--url", "rtsp://cam:port/live?auth=hush"], "cannot be read"),
        (["--url", "rtsp:///live?auth=hush"], "names no host"),
        ([], "no stream URL"),
        (["--sink", "file:{tmp}/none/x.mp4"], "/none/x.mp4 cannot be written: No such file or directory"),
        (["--sink", "file:{tmp}"], "cannot be written: Is a directory"),
        (["--sink", "fil:x.mp4"], "expected null, sfu, file:OUT.mp4 or whip:URL"),
        (["--sink", "whip:ftp://hush/x"], "it is no web address"),
        (["--sink", "whip:http://whip.example/hush"], "http:// is for this machine and private networks"),
        (["--renditions", "smooth"], "--renditions smooth needs --sink sfu"),
        (["--rendition", "keyframes"], "--renditions keyframes needs --sink sfu"),  # as it was called
        (["--sink", "sfu"], "RELAY_CLOUDFLARE_APP_SECRET"),
        (["--dump", "{tmp}/none/x.pcapng"], "/none/x.pcapng cannot be written: No such file or directory"),
        (["--ca-file", "{tmp}/none.pem"], "none.pem cannot be read: No such file or directory"),
        (["--ca-file", __file__], "holds no certificate (PEM)"),
        (["--log-level", "loud"], "--log-level loud: expected debug"),
    ],
)
def test_what_cannot_work_is_said_at_once(options: list[str], words: str, tmp_path: Path) -> None:
    given = [option.replace("{tmp}", str(tmp_path)) for option in options]
    url = [] if not options or "--url" in options else ["--url", "rtsp://127.0.0.1:9/?auth=hush"]
    result = CliRunner().invoke(cli, ["debug", *url, *given])
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split())
    assert "hush" not in result.output


def test_the_data_path_that_the_environment_names_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["debug", "--url", "rtsp://127.0.0.1:9/", "--duration", "0.1"]
    try:
        if native.missing():
            pytest.skip(native.missing())
        monkeypatch.setenv("RELAY_WORKERS_DATA_PATH", "python")
        assert "data path: python (the compiled one is there)" in CliRunner().invoke(cli, command).output
        monkeypatch.setenv("RELAY_WORKERS_DATA_PATH", "compiled")
        said = CliRunner().invoke(cli, command).output
        assert "data path: compiled" in said
        assert "confinement: off in this command" in said, "it writes no file here"
        assert native.words() == "compiled"
        monkeypatch.setattr(native, "_found", None)
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 2
        assert "workers.data_path is compiled, and the compiled data path is not there" in result.output
    finally:
        monkeypatch.undo()
        native.choose("auto")


@pytest.mark.parametrize(
    ("source", "stage", "words"),
    [
        ("options", "options", "the camera has not answered OPTIONS so far. A camera that sleeps"),
        ("setup", "setup", "the camera has not answered SETUP so far"),
        ("connecting", "connect", "there is no connection with the camera so far. Check the URL's host and port"),
        ("playing", "streaming", "no video packet came (RTSP session: playing)"),
    ],
)
def test_what_the_camera_has_not_answered_is_named(source: str, stage: str, words: str) -> None:
    """It was no video packet, and a problem at streaming, when --duration was over before an answer was overdue."""
    found, text = _verdict(seen(source=source), Reporter(), flowing=False)
    assert found == stage
    assert text.startswith(words)


def test_an_answer_that_is_overdue_has_advice_and_the_first_failure_is_told_first() -> None:
    late = seen(source="idle", stage=Stage.OPTIONS, code="camera_stalled", reason="RTSP options: no answer to OPTIONS")
    assert _verdict(late, Reporter(), flowing=False)[1].startswith("RTSP options: no answer to OPTIONS. A camera that")
    reporter = Reporter()
    reporter.source_failed(1, Stage.OPTIONS, Remedy.REGENERATE, "RTSP options: no answer to OPTIONS")
    assert _verdict(late, reporter, flowing=False)[1].startswith("RTSP options: no answer to OPTIONS. A camera that")
    stopped = seen(source="options", stage=Stage.STREAMING, code="camera_stalled", reason="no video for 10 s")
    words = "no video for 10 s; since then the camera has not answered OPTIONS"
    assert _verdict(stopped, Reporter(), flowing=False) == ("streaming", words)


def seen(**fields: Any) -> WorkerStats:
    return WorkerStats(
        instance="debug", camera="debug", sequence=1, at=0.0, uptime=9.0, state=WorkerState.CONNECTING, **fields
    )


@pytest.mark.parametrize(
    ("loss", "stage", "more"), [(0.0, "decode", ""), (0.4, "sending", "; the uplink loses 40% of the packets")]
)
def test_video_that_nobody_decodes_is_no_good_verdict(loss: float, stage: str, more: str) -> None:
    stats = seen(video=TrackStats(frames=100, fps=30.0, loss_out=loss), requests_in_vain=12.0)
    words = "live, not decodable: viewers have requested keyframes for 12 s, and the complete ones sent did not help"
    assert _verdict(stats, Reporter(), flowing=True) == (stage, words + more)
