"""What a worker is on its machine is known to the local launcher alone: others use `Launcher` and `Handle`."""

from __future__ import annotations

import re
from typing import Final

from tests.fixtures.product_source import ROOT, files

_OF_PROCESSES: Final = re.compile(
    r"\bpid\b|pidfd|start_ticks|process_of|process_ref|\bref_of\b|peer_pid|SIGUSR1|signal\.SIG|\.stacks\b|stacks_file"
    r"|ipc:|forkserver|os\.kill"
)
"""Words of one machine: ids and start times of processes, signals, the files of stacks, paths of sockets."""

_WORKERS: Final = frozenset(
    {"fleet", "cameras", "state", "status", "app.py", "report.py", "local", "renditions", "viewing", "sinks"}
)
"""What has to do with workers. Elsewhere it is the supervisor's own process that is meant."""

_ELSEWHERE: Final = {
    "fleet/bus.py": {"pid", "ipc:", "peer_pid", "ref_of"},  # the bus on this machine: its sockets, and whose they are
    "fleet/bus_sockets.py": {"ipc:"},
    "fleet/zap.py": {"pid", "peer_pid", "ref_of"},  # workers of a release without keys are known by their process
    "fleet/keyring.py": {"process_ref"},  # the same, in a docstring
    "fleet/keeper.py": {"pid"},  # a field of the log
    "cameras/status.py": {"pid"},  # a field of the status
    "status/model.py": {"pid"},
    "state/rows.py": {"pid", "process_of", "process_ref"},  # rows of releases that know processes only
    "state/lock.py": {"pid"},  # the supervisor's own, which holds the lock
}
"""Words that files outside the local launcher may use."""


def test_processes_are_the_local_launchers_business() -> None:
    root, words, local = ROOT / "relay_supervisor", {}, 0
    for path in files():
        name = str(path.relative_to(root)) if path.is_relative_to(root) else ""
        found = set(_OF_PROCESSES.findall(path.read_text()))
        if name.startswith("fleet/processes/"):
            local += len(found)
        elif found and name.split("/")[0] in _WORKERS:
            words[name] = found
    assert words == _ELSEWHERE
    assert local > 5, "these are the words"
