"""The diagrams in docs/state-machines.md, generated from the tables that the product uses.

python -m tests.state_machines > docs/state-machines.md
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any, Final

from relay_common.fsm import Table
from relay_supervisor.cluster.election import COMMAND
from relay_supervisor.fleet.replacement import REPLACEMENT_TABLE
from relay_supervisor.fleet.slot import WORKER_TABLE
from relay_supervisor.google.leases.states import LEASE
from relay_supervisor.viewing.decoding import PAGE_TABLE
from relay_worker.camera.webrtc_source import INGEST_TABLE
from relay_worker.publish.keyframe_requests import REQUEST_TABLE
from relay_worker.publish.publisher_states import PUBLISHER_TABLE
from relay_worker.rtsp.states import TABLE as RTSP_TABLE

PAGE: Final = Path(__file__).parents[1] / "docs" / "state-machines.md"

HEAD: Final = """\
# State machines

Every state machine of the relay is a table. These diagrams are generated from the tables
(`python -m tests.state_machines > docs/state-machines.md`); a test compares them. A transition that is not drawn is
illegal: it raises an error and leaves the state unchanged.
"""

MACHINES: Final[tuple[tuple[str, str, Table[Any, Any]], ...]] = (
    (
        "Lease",
        "One camera's stream at Google, in the supervisor (`relay_supervisor/google/leases/states.py`). `lost` does "
        "not last: a stream that had worked is generated again at once, one that had not only after a pause. "
        "`doubted` means that the camera may have been moved to the other protocol: its stream continues while its "
        "traits are read.",
        LEASE,
    ),
    (
        "Command",
        "One of several supervisors for the same cameras (`relay_supervisor/cluster/election.py`). `unconfirmed`: its "
        "Lease may be taken by now, so it sends nothing but extensions of streams, and these only while the others "
        "promise to wait.",
        COMMAND,
    ),
    (
        "Worker process",
        "One camera's process, as the supervisor sees it (`relay_supervisor/fleet/slot.py`).",
        WORKER_TABLE,
    ),
    (
        "Replacement of a worker",
        "A running worker and its successor (`relay_supervisor/fleet/replacement.py`).",
        REPLACEMENT_TABLE,
    ),
    (
        "RTSP session",
        "One connection to a camera, in the worker (`relay_worker/rtsp/states.py`).",
        RTSP_TABLE,
    ),
    (
        "WebRTC ingest",
        "One session with a camera that speaks WebRTC, in the worker (`relay_worker/camera/webrtc_source.py`).",
        INGEST_TABLE,
    ),
    (
        "Publisher",
        "One connection to the SFU, in the worker (`relay_worker/publish/publisher.py`).",
        PUBLISHER_TABLE,
    ),
    (
        "Keyframe requests",
        "Viewers' keyframe requests for one publication, in the worker (`relay_worker/publish/keyframe_requests.py`). "
        "`ineffective` makes the camera undecodable unless a page is known to decode it.",
        REQUEST_TABLE,
    ),
    (
        "Picture on a page",
        "What one page receives of one camera, in the supervisor (`relay_supervisor/viewing/decoding.py`). A page that "
        "is `blind` makes the camera undecodable only if no other page is `decoding`.",
        PAGE_TABLE,
    ),
)


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, words, table in MACHINES:
        parts.append(f"\n## {title}\n\n{textwrap.fill(words, 120)}\n\n```mermaid\n{table.mermaid()}```\n")
    return "".join(parts)


if __name__ == "__main__":
    print(page(), end="")
