"""Imports go down only: between the three packages, and between the folders of each, as this table allows.

A node is a folder, or a file that stands at a package's root. A new arrow is a decision: it goes into the table, and
into the map in docs/architecture.md when the map shows it. An arrow that nothing needs any more has to go, too.
"""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter

from tests.fixtures.product_source import MODULES, PACKAGES, imports, tree

ALLOWED = {
    "relay_worker": {
        "__main__": "debug",
        "debug": "camera debug_sinks process publish relay rtsp",
        "debug_sinks": "publish",
        "process": "camera media native publish relay rtp rtsp webrtc",
        "relay": "camera capture local media meter pipeline publish remedies rtsp small_pictures snapshot watchdog",
        "capture": "media publish rtsp",
        "small_pictures": "local media pipeline publish rendition",
        "snapshot": "media pipeline",
        "meter": "media pipeline publish",
        "watchdog": "media pipeline publish",
        "remedies": "",
        "camera": "media native pipeline rtp rtsp webrtc",
        "rendition": "media rtp",
        "local": "media pipeline publish rtp webrtc",
        "publish": "media native pipeline rtp wakes webrtc",
        "pipeline": "media native rtp wakes",
        "wakes": "media native",
        "rtsp": "media native rtp",
        "webrtc": "native",
        "media": "native rtp",
        "rtp": "native",
        "native": "",
    },
    "relay_supervisor": {
        "__main__": "commands",
        "commands": "app cameras checks cluster fleet fleet.pods fleet.processes google google.leases http loop_errors "
        "memory net operations prerequisites state status supervise",
        "app": "cameras events fleet fleet.pods fleet.processes google google.leases http local memory operations otel "
        "renditions report sinks state supervise viewing",
        "report": "cameras fleet google.leases http local operations renditions sinks state status supervise viewing",
        "cluster": "fleet fleet.pods google state status supervise",
        "supervise": "",
        "loop_errors": "",
        "socket_file": "",
        "checks": "cluster fleet fleet.pods google google.quota net prerequisites renditions state status",
        "prerequisites": "fleet.pods google http net otel state",
        "http": "events google.leases local net operations socket_file state status supervise viewing",
        "local": "cameras fleet state status viewing",
        "renditions": "cameras fleet status",
        "operations": "cameras fleet google google.leases status",
        "cameras": "events fleet google google.leases sinks state status",
        "fleet.processes": "fleet",
        "fleet.pods": "fleet supervise",
        "fleet": "socket_file supervise",
        "viewing": "sinks",
        "sinks": "",
        "google.leases": "google google.quota state status",
        "state": "google google.quota",
        "google.quota": "google",
        "google": "",
        "events": "status",
        "otel": "google google.quota",
        "status": "",
        "net": "",
    },
    "relay_common": {
        "simulation": "clock simulation.camera simulation.google simulation.sfu",
        "simulation.camera": "clock simulation.google simulation.sfu",
        "simulation.google": "clock",
        "simulation.sfu": "fsm",
        "authorities": "errors",
        "bounded_http": "deadline",
        "cloudflare": "authorities backoff bounded_http clock errors protocol sdp_lines secrets spoken undecodable",
        "causes": "engine_waits",
        "config_reference": "config config_environment config_mistakes secrets",
        "config_accounts": "announced config config_cluster",
        "config_file": "config config_accounts config_cluster config_environment config_forms config_local "
        "config_mistakes errors secrets",
        "config_environment": "config",
        "config_cluster": "announced",
        "config_local": "announced config",
        "config": "config_cluster errors secrets",
        "config_forms": "config_local",
        "config_mistakes": "config config_forms loopback secrets whip",
        "deadline": "pauses",
        "disk": "tasks",
        "fsm": "errors",
        "log": "secrets stderr",
        "protocol": "beat_messages ingest_messages local_messages patch_messages rendition_messages",
        "spoken": "secrets",
        "tasks": "clock",
        "undecodable": "",
        "whip": "bounded_http clock deadline errors loopback sdp_lines secrets spoken",
        "wire": "errors protocol undecodable worker_stats",
        "worker_stats": "local_messages protocol",
    },
}
"""Which node may import which others of its own package; nodes that are not named import none."""

BELOW = {
    "relay_common": (),
    "relay_worker": ("relay_common",),
    "relay_supervisor": ("relay_common", "relay_worker.process"),
}
"""What each package may import of the others. The launcher forks `relay_worker.process`; simulators serve the demo."""

SIMULATION = "relay_common.simulation"


FOLDERS = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def node(name: str) -> str:
    """The folder of a module, or the module itself where it stands at a package's root; without the package."""
    package, _, rest = name.partition(".")
    folder = rest if name in FOLDERS else rest.rpartition(".")[0]
    return f"{package}.{folder or rest}"


@cache
def arrows() -> dict[tuple[str, str], str]:
    """Every arrow there is, with a module that draws it."""
    return {
        (node(name), node(target)): name
        for name in MODULES
        for target in imports(name)
        if node(target) != node(name) and target not in PACKAGES
    }


def test_folders_import_only_what_the_table_allows() -> None:
    allowed = {
        (f"{package}.{source}", f"{package}.{target}")
        for package, table in ALLOWED.items()
        for source, targets in table.items()
        for target in targets.split()
    }
    within = {pair: name for pair, name in arrows().items() if pair[0].split(".")[0] == pair[1].split(".")[0]}
    assert {pair: name for pair, name in within.items() if pair not in allowed} == {}, "an arrow the table lacks"
    assert allowed - within.keys() == set(), "the table allows what nobody needs"


def test_the_table_has_no_way_back_up() -> None:
    for table in ALLOWED.values():
        list(TopologicalSorter({source: targets.split() for source, targets in table.items()}).static_order())


def test_no_two_files_import_each_other() -> None:
    """Neither directly nor by way of others; imports inside functions and for types alone count, too."""
    list(TopologicalSorter({name: imports(name) - {name, *FOLDERS} for name in MODULES}).static_order())


def test_packages_import_only_what_lies_below() -> None:
    for (source, target), name in arrows().items():
        mine, theirs = source.split(".")[0], target.split(".")[0]
        if mine != theirs:
            assert theirs in BELOW[mine] or target in BELOW[mine], f"{name} imports {target}"


def test_simulators_and_product_do_not_know_each_other() -> None:
    shared = {"relay_common.clock", "relay_common.fsm"}
    for (source, target), name in arrows().items():
        if source.startswith(SIMULATION) and not target.startswith(SIMULATION):
            assert target in shared, f"{name} imports {target}"
        if target.startswith(SIMULATION) and not source.startswith(SIMULATION):
            assert name == "relay_supervisor.commands.demo", f"{name} imports {target}"


def test_the_vocabulary_of_the_media_path_imports_nothing_of_ours() -> None:
    body = tree(MODULES["relay_worker.media.stream"]).body
    top = [statement for statement in body if isinstance(statement, ast.ImportFrom)]
    assert not [statement.module for statement in top if (statement.module or "").startswith(PACKAGES)]
