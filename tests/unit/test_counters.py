"""Every counter has a reader: what is counted reaches a report, a metric, a log line or a decision, once.

A counter is an attribute that starts at zero and is raised with `+=`, in its own file or in one that imports it.
Reading it is loading the attribute anywhere in the three packages but where it is raised, again in its own file or in
one that imports it. A report that is encoded as a whole (a struct of the bus or of the API) is read by whoever gets it,
and the simulators' counters are read by tests. Where counters of several files have one name, each is read in its own
file, or `READERS` says where: another file's counter of that name must not vouch for it.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from typing import Final

from tests.fixtures.product_source import ROOT, files, module, nodes, reachable

REPORTS = frozenset(("relay_common/worker_stats.py", "relay_supervisor/status/model.py", "relay_common/protocol.py"))
"""Files whose structs leave the process whole."""

TRAFFIC: Final = re.compile("((received|sent)_)?(packets|bytes|frames|wakes|calls)|decoded|encoded")
"""Names of totals that say how much there was, and nothing about what went wrong."""

_CAMERA, _SFU = "relay_common/simulation/camera/", "relay_common/simulation/sfu/"
READERS: Final[dict[tuple[str, str], str]] = {
    (_CAMERA + "player.py", "dropped"): _CAMERA + "camera.py",
    (_CAMERA + "player.py", "keyframes"): _CAMERA + "camera.py",
    (_CAMERA + "player.py", "sender_reports"): _CAMERA + "camera.py",
    (_CAMERA + "webrtc_habits.py", "failures"): "relay_common/simulation/home.py",
    (_CAMERA + "webrtc_habits.py", "firs"): "",
    (_CAMERA + "webrtc_habits.py", "malformed"): "",
    (_CAMERA + "webrtc_habits.py", "plis"): "",
    (_CAMERA + "webrtc_habits.py", "probes"): _CAMERA + "webrtc_player.py",
    (_CAMERA + "webrtc_habits.py", "receiver_reports"): _CAMERA + "camera.py",
    (_CAMERA + "webrtc_habits.py", "reordered"): "",
    (_CAMERA + "webrtc_habits.py", "requests"): "",
    (_CAMERA + "webrtc_habits.py", "retransmitted"): "",
    (_CAMERA + "webrtc_habits.py", "sessions"): "relay_common/simulation/home.py",
    (_CAMERA + "webrtc_habits.py", "unanswered"): "",
    (_CAMERA + "webrtc_port.py", "unknown"): "",
    (_CAMERA + "webrtc_port.py", "unsent"): "",
    ("relay_common/simulation/google/devices.py", "extends"): "relay_common/simulation/home.py",
    ("relay_common/simulation/google/devices.py", "failed"): "relay_common/simulation/home.py",
    ("relay_common/simulation/google/devices.py", "generates"): "relay_common/simulation/home.py",
    ("relay_common/simulation/google/oauth.py", "refreshes"): "",
    ("relay_common/local_messages.py", "lost"): "relay_supervisor/local/service.py",
    ("relay_common/local_messages.py", "refused"): "relay_supervisor/local/service.py",
    ("relay_common/local_messages.py", "retransmitted"): "relay_supervisor/local/service.py",
    (_SFU + "api.py", "requests"): "",
    (_SFU + "ice.py", "refused"): _SFU + "control.py",
    (_SFU + "peer.py", "malformed"): _SFU + "control.py",
    (_SFU + "port.py", "unknown"): _SFU + "simulator.py",
    (_SFU + "port.py", "unsent"): _SFU + "simulator.py",
    ("relay_common/stderr.py", "dropped"): "",
    ("relay_common/wire.py", "malformed"): "relay_supervisor/fleet/bus.py",
    ("relay_common/wire.py", "oversized"): "relay_supervisor/fleet/bus.py",
    ("relay_common/wire.py", "unknown"): "relay_supervisor/fleet/bus.py",
    ("relay_supervisor/events.py", "published"): "relay_supervisor/http/metrics.py",
    ("relay_supervisor/fleet/restart.py", "restarts"): "relay_supervisor/cameras/status.py",
    ("relay_supervisor/google/leases/lease.py", "extends"): "relay_supervisor/google/leases/status.py",
    ("relay_supervisor/google/quota/command.py", "generation"): "relay_supervisor/google/leases/lease.py",
    ("relay_supervisor/google/quota/queue.py", "dropped"): "relay_supervisor/google/leases/book.py",
    ("relay_supervisor/google/quota/queue.py", "failed"): "relay_supervisor/google/leases/status.py",
    ("relay_supervisor/http/auth.py", "failures"): "relay_supervisor/http/metrics.py",
    ("relay_supervisor/local/requests.py", "unanswered"): "relay_supervisor/local/service.py",
    ("relay_worker/capture.py", "dropped"): "relay_worker/process/worker.py",
    ("relay_worker/local/ice.py", "malformed"): "relay_worker/local/viewers.py",
    ("relay_worker/local/ports.py", "unsent"): "relay_worker/local/viewers.py",
    ("relay_worker/media/access_unit.py", "malformed"): "relay_worker/publish/file.py",
    ("relay_worker/media/access_unit.py", "oversized"): "relay_worker/publish/file.py",
    ("relay_worker/media/access_unit_ends.py", "frames"): "relay_worker/media/inputs.py",
    ("relay_worker/media/access_unit_ends.py", "keyframes"): "relay_worker/media/inputs.py",
    ("relay_worker/media/nal_units.py", "dropped"): "relay_worker/media/inputs.py",
    ("relay_worker/media/nal_units.py", "empty"): "relay_worker/media/inputs.py",
    ("relay_worker/media/nal_units.py", "malformed"): "relay_worker/media/inputs.py",
    ("relay_worker/media/parameter_sets.py", "malformed"): "relay_worker/media/inputs.py",
    ("relay_worker/pipeline.py", "sessions"): "relay_worker/relay.py",
    ("relay_worker/process/log_forward.py", "dropped"): "relay_worker/process/worker.py",
    ("relay_worker/publish/history.py", "repaired"): "relay_worker/publish/sender.py",
    ("relay_worker/publish/keeper.py", "published"): "relay_worker/relay.py",
    ("relay_worker/publish/layers.py", "refusals"): "relay_worker/small_pictures.py",
    ("relay_worker/publish/outgoing.py", "bytes"): "relay_worker/publish/keeper.py",
    ("relay_worker/publish/outgoing.py", "firs"): "relay_worker/publish/keeper.py",
    ("relay_worker/publish/outgoing.py", "lost"): "relay_worker/local/viewers.py",
    ("relay_worker/publish/outgoing.py", "oversized"): "relay_worker/publish/sender.py",
    ("relay_worker/publish/outgoing.py", "packets"): "relay_worker/publish/keeper.py",
    ("relay_worker/publish/outgoing.py", "plis"): "relay_worker/publish/keeper.py",
    ("relay_worker/publish/outgoing.py", "probes"): "relay_worker/publish/sender.py",
    ("relay_worker/publish/outgoing.py", "retransmitted"): "relay_worker/publish/keeper.py",
    ("relay_worker/publish/small_layer.py", "unsent"): "relay_worker/publish/publisher.py",
    ("relay_worker/rtp/aac.py", "malformed"): "relay_worker/media/inputs.py",
    ("relay_worker/rtp/latm.py", "malformed"): "relay_worker/media/inputs.py",
    ("relay_worker/rtp/receiver.py", "bytes"): "relay_worker/media/track_input.py",
    ("relay_worker/rtp/receiver.py", "duplicates"): "relay_worker/media/track_input.py",
    ("relay_worker/rtp/receiver.py", "malformed"): "relay_worker/media/track_input.py",
    ("relay_worker/rtp/receiver.py", "restarts"): "relay_worker/media/track_input.py",
    ("relay_worker/rtsp/requests.py", "unanswered"): "relay_worker/rtsp/dialogue.py",
    ("relay_worker/webrtc/protector.py", "failures"): "relay_worker/webrtc/transport.py",
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


def knows(name: str, other: str) -> bool:
    """Whether one file is another, or imports it in whatever way."""
    return name == other or module(ROOT / other) in reachable(module(ROOT / name))


def found() -> tuple[dict[str, list[ast.AST]], set[tuple[str, str]]]:
    """The modules by name, and every (module, counter)."""
    modules = {path.relative_to(ROOT).as_posix(): nodes(path) for path in files()}
    begun = {name: started(tree) for name, tree in modules.items()}
    increments = {name: set(raised(tree)) for name, tree in modules.items()}
    return modules, {
        (name, counter)
        for name, counters in begun.items()
        for counter in counters
        if any(counter in increments[other] and knows(other, name) for other in modules)
    }


def in_tests(counter: str) -> bool:
    """Whether a test reads an attribute or a key of that name."""
    written = re.compile(rf"""\.{counter}\b|["']{counter}["']""")
    return any(written.search(path.read_text()) for path in (ROOT / "tests").rglob("*.py"))


def test_every_counter_has_a_reader() -> None:
    modules, counters = found()
    read = {name: loaded(module) for name, module in modules.items()}
    unread = sorted(
        f"{name}: {counter}"
        for name, counter in counters
        if name not in REPORTS
        and not any(counter in read[other] and knows(other, name) for other in modules)
        and not ("/simulation/" in name and in_tests(counter))
    )
    assert len(counters) > 50
    assert unread == []


def functions(module: list[ast.AST], named: str) -> list[ast.AST]:
    """Every node of the functions of that name, but what only leads to another attribute (`a` of `a.b`)."""
    found = [item for item in module if isinstance(item, ast.FunctionDef) and item.name == named]
    inside = [node for function in found for node in ast.walk(function)]
    ways = {id(node.value) for node in inside if isinstance(node, ast.Attribute)}
    return [node for node in inside if id(node) not in ways]


def test_what_is_counted_is_told_once() -> None:
    """Either as one of `counters`, or as a field of a report: never as both."""
    modules, counters = found()
    names = {counter for name, counter in counters if "/simulation/" not in name}
    named = set().union(*(loaded(functions(module, "counters")) for module in modules.values())) & names
    fields = set().union(*(loaded(functions(module, "stats")) for module in modules.values())) & names
    assert {"oversized", "gso_refusals", "wedges"} <= named
    assert {"drops"} <= fields
    assert named & fields == set()


def test_counters_are_no_totals_of_the_media() -> None:
    """They are what was tolerated, limited, refused or repaired; a track's totals are fields of `TrackStats`."""
    modules, _ = found()
    keys = {
        key.value
        for module in modules.values()
        for node in functions(module, "counters")
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    }
    assert len(keys) > 40
    assert {key for key in keys if TRAFFIC.fullmatch(str(key))} == set()


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
    wrong = {
        key: reader
        for key, reader in READERS.items()
        if reader and not (key[1] in loaded(modules[reader]) and knows(reader, key[0]))
    }
    assert wrong == {}, "does not read it"
