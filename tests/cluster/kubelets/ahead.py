"""Give a container that runc is about to create a wall clock that is ahead: `ahead.py VARIABLES [runc's arguments]`.

libfaketime of this machine is mounted into it. A program that is linked statically, as the pause process, or that
comes later by `exec`, has the machine's clock.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def changed(bundle: Path, variables: Mapping[str, str]) -> None:
    """Change an OCI bundle's description of its container."""
    file = bundle / "config.json"
    described = json.loads(file.read_text())
    library = variables["LD_PRELOAD"]
    mount = {"destination": library, "type": "bind", "source": library, "options": ["bind", "ro"]}
    described.setdefault("mounts", []).append(mount)
    described["process"].setdefault("env", []).extend(f"{name}={value}" for name, value in variables.items())
    file.write_text(json.dumps(described))


def main(arguments: Sequence[str]) -> None:
    variables, *words = arguments
    changed(Path(words[words.index("--bundle") + 1]), json.loads(variables))


if __name__ == "__main__":
    main(sys.argv[1:])
