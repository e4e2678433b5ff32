"""`python -m tests.fuzz.forked RUNS SEED`: coverage-guided fuzzing of one target after another, for the test suite.

Instrumenting what the targets import takes longer than some thousand inputs, so it is done once, and each target is
fuzzed in a fork. For each line "TARGET DIRECTORY" of standard input, a line "TARGET EXITCODE" is printed when it is
through; what the fuzzer said is in DIRECTORY/said.txt, and so is a finding (`crash-…`).
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Final

from tests.fuzz.__main__ import fuzz, instrumented

SECONDS: Final = 60
"""For a target, at most."""


def main(runs: int, seed: int) -> None:
    """Fuzz what standard input names, until its end."""
    instrumented(supervisor=False)
    for line in sys.stdin:
        name, directory = line.rstrip("\n").split(" ", 1)
        # The fuzzer does not return, and would leave the directory behind.
        with tempfile.TemporaryDirectory(prefix="fuzz-") as corpus:
            child = os.fork()
            if child == 0:
                _child(name, Path(directory), runs, seed, Path(corpus))
            _, status = os.waitpid(child, 0)
        print(name, os.waitstatus_to_exitcode(status), flush=True)


def _child(name: str, directory: Path, runs: int, seed: int, corpus: Path) -> None:
    """Fuzz, and exit."""
    try:
        os.chdir(directory)
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        fuzz(name, SECONDS, runs, seed, corpus)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
