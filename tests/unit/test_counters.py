"""Every counter has a reader: what is counted reaches a report, a metric, a log line or a decision.

A counter is an attribute that starts at zero and is raised with `+=`. Reading it is loading the attribute anywhere in
the three packages but where it is raised. A report that is encoded as a whole (a struct of the bus or of the API) is
read by whoever gets it. Where counters of several files have one name, each is read in its own file, or `READERS` says
where: another file's counter of that name must not vouch for it.
"""

from __future__ import annotations

import ast
from collections import Counter
from typing import Final

from tests.fixtures.product_source import ROOT, files, nodes

REPORTS = frozenset(("relay_common/worker_stats.py", "relay_supervisor/status/model.py", "relay_common/protocol.py"))
"""Files whose structs leave the process whole."""

_CAMERA, _SFU = "relay_common/simulation/camera/", "relay_common/simulation/sfu/"
READERS: Final[dict[tuple[str, str], str]] = {
    (_CAMERA + "player.py", "dropped"): _CAMERA + "camera.py",
    (_CAMERA + "player.py", "keyframes"): _CAMERA + "camera.py",
    (_CAMERA + "webrtc_port.py", "unknown"): "",
    (_CAMERA + "webrtc_port.py", "unsent"): "",
    ("relay_common/simulation/google/devices.py", "extends"): "relay_common/simulation/home.py",
    ("relay_common/simulation/google/devices.py", "generates"): "relay_common/simulation/home.py",
    ("relay_common/simulation/google/oauth.py", "refreshes"): "",
    (_SFU + "ice.py", "refused"): _SFU + "control.py",
    (_SFU + "peer.py", "malformed"): _SFU + "control.py",
    (_SFU + "port.py", "unknown"): _SFU + "simulator.py",
    (_SFU + "port.py", "unsent"): _SFU + "simulator.py",
    (_SFU + "port.py", "wakes"): _SFU + "simulator.py",
    ("relay_common/stderr.py", "dropped"): "",
    ("relay_common/wire.py", "malformed"): "relay_supervisor/fleet/bus.py",
    ("relay_common/wire.py", "oversized"): "relay_supervisor/fleet/bus.py",
    ("relay_common/wire.py", "unknown"): "relay_supervisor/fleet/bus.py",
    ("relay_supervisor/events.py", "published"): "relay_supervisor/http/metrics.py",
    ("relay_supervisor/fleet/restart.py", "restarts"): "relay_supervisor/cameras/status.py",
    ("relay_supervisor/google/leases/lease.py", "extends"): "relay_supervisor/google/leases/status.py",
    ("relay_supervisor/google/quota/queue.py", "dropped"): "relay_supervisor/google/leases/book.py",
    ("relay_supervisor/http/auth.py", "failures"): "relay_supervisor/http/metrics.py",
    ("relay_supervisor/state/database.py", "dropped"): "relay_supervisor/state/store.py",
    ("relay_worker/capture.py", "dropped"): "relay_worker/process/worker.py",
    ("relay_worker/media/access_unit.py", "malformed"): "relay_worker/publish/file.py",
    ("relay_worker/media/access_unit.py", "oversized"): "relay_worker/publish/file.py",
    ("relay_worker/media/access_unit_ends.py", "frames"): "relay_worker/media/inputs.py",
    ("relay_worker/media/access_unit_ends.py", "keyframes"): "relay_worker/media/inputs.py",
    ("relay_worker/media/nal_units.py", "dropped"): "relay_worker/media/inputs.py",
    ("relay_worker/media/nal_units.py", "malformed"): "relay_worker/media/inputs.py",
    ("relay_worker/media/parameter_sets.py", "malformed"): "relay_worker/media/inputs.py",
    ("relay_worker/process/log_forward.py", "dropped"): "relay_worker/process/worker.py",
    ("relay_worker/publish/history.py", "repaired"): "relay_worker/publish/sender.py",
    ("relay_worker/publish/keeper.py", "published"): "relay_worker/relay.py",
    ("relay_worker/publish/sender.py", "malformed_rtcp"): "relay_worker/publish/publisher.py",
    ("relay_worker/rtp/aac.py", "malformed"): "relay_worker/media/inputs.py",
    ("relay_worker/rtp/latm.py", "malformed"): "relay_worker/media/inputs.py",
    ("relay_worker/rtp/receiver.py", "bytes"): "relay_worker/media/track_input.py",
    ("relay_worker/rtp/receiver.py", "duplicates"): "relay_worker/media/track_input.py",
    ("relay_worker/rtp/receiver.py", "malformed"): "relay_worker/media/track_input.py",
    ("relay_worker/rtp/receiver.py", "restarts"): "relay_worker/media/track_input.py",
    ("relay_worker/rtsp/requests.py", "unanswered"): "relay_worker/rtsp/session.py",
}
"""Which file reads the counter of another; empty: tests do, or its own file tells of it in other words."""


def is_zero(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and type(value.value) in (int, float) and value.value == 0


def started(module: list[ast.AST]) -> set[str]:
    """Attributes of `self` and fields of classes that start at zero."""
    names: set[str] = set()
    for item in module:
        if isinstance(item, ast.AnnAssign) and is_zero(item.value):
            names |= {item.target.attr} if isinstance(item.target, ast.Attribute) else set()
            names |= {item.target.id} if isinstance(item.target, ast.Name) else set()
        elif isinstance(item, ast.Assign):
            for target in item.targets:
                pairs = [(target, item.value)]
                if isinstance(target, ast.Tuple) and isinstance(item.value, ast.Tuple):
                    pairs = list(zip(target.elts, item.value.elts, strict=False))
                names |= {one.attr for one, value in pairs if isinstance(one, ast.Attribute) and is_zero(value)}
    return names


def raised(module: list[ast.AST]) -> Counter[str]:
    return Counter(
        item.target.attr
        for item in module
        if isinstance(item, ast.AugAssign) and isinstance(item.op, ast.Add) and isinstance(item.target, ast.Attribute)
    )


def loaded(module: list[ast.AST]) -> set[str]:
    return {item.attr for item in module if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Load)}


def found() -> tuple[dict[str, list[ast.AST]], set[tuple[str, str]]]:
    """The modules by name, and every (module, counter)."""
    modules = {path.relative_to(ROOT).as_posix(): nodes(path) for path in files()}
    return modules, {
        (name, counter) for name, module in modules.items() for counter in started(module) & raised(module).keys()
    }


def test_every_counter_has_a_reader() -> None:
    modules, counters = found()
    read = set().union(*map(loaded, modules.values()))
    reported = set().union(*(started(modules[name]) for name in REPORTS))
    assert len(counters) > 50
    unread = sorted(f"{name}: {counter}" for name, counter in counters if counter not in read | reported)
    assert unread == []


def test_counters_of_one_name_have_a_reader_each() -> None:
    modules, counters = found()
    names = Counter(counter for _, counter in counters)
    shared = {
        (name, counter)
        for name, counter in counters
        if names[counter] > 1 and name not in REPORTS and counter not in loaded(modules[name])
    }
    assert sorted(shared - READERS.keys()) == [], "say in READERS which file reads it"
    assert sorted(READERS.keys() - shared) == [], "listed without need"
    wrong = {key: reader for key, reader in READERS.items() if reader and key[1] not in loaded(modules[reader])}
    assert wrong == {}, "does not read it"
