"""`relay-worker debug`: options that cannot work are refused before the camera is asked for anything; its verdict."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from relay_common.protocol import WorkerState
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
    ("loss", "stage", "more"), [(0.0, "decode", ""), (0.4, "sending", "; the uplink loses 40% of the packets")]
)
def test_video_that_nobody_decodes_is_no_good_verdict(loss: float, stage: str, more: str) -> None:
    stats = WorkerStats(
        instance="debug",
        camera="debug",
        sequence=1,
        at=0.0,
        uptime=9.0,
        state=WorkerState.LIVE,
        video=TrackStats(frames=100, fps=30.0, loss_out=loss),
        requests_in_vain=12.0,
    )
    words = "live, not decodable: viewers have requested keyframes for 12 s, and the complete ones sent did not help"
    assert _verdict(stats, Reporter(), flowing=True) == (stage, words + more)
