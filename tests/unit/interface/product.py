"""The only place of this test that knows where things are in the product: follow a move or a new name here.

Nothing of what stands here (module paths, names of classes) is recorded.
"""

from __future__ import annotations

from typing import Any

from relay_common import protocol as bus_messages
from relay_common.clock import ManualClock as ManualClock
from relay_common.config import SECRET_SUFFIX as SECRET_SUFFIX
from relay_common.config import SECTIONS as SECTIONS
from relay_common.config import CameraSettings, Config
from relay_common.config_environment import PREFIX as PREFIX
from relay_common.errors import Remedy
from relay_common.log import CATEGORIES as LOG_CATEGORIES
from relay_common.log import ConsoleFormatter as ConsoleFormatter
from relay_common.log import JsonFormatter as JsonFormatter
from relay_common.log import configure as configure_log
from relay_common.secrets import Secret as Secret
from relay_common.wire import encode as encode_message
from relay_common.worker_stats import WorkerStats as WorkerStats
from relay_supervisor.cameras import overrides
from relay_supervisor.checks.report import Finding
from relay_supervisor.commands.cli import cli as supervisor_cli
from relay_supervisor.commands.demo import DemoReport
from relay_supervisor.events import EventHub as EventHub
from relay_supervisor.events import RelayEvent
from relay_supervisor.fleet.bus import Bus as Bus
from relay_supervisor.fleet.slot import Phase
from relay_supervisor.google import grant
from relay_supervisor.google.leases import states as lease_states
from relay_supervisor.google.models import Device as Device
from relay_supervisor.google.models import LiveStream as LiveStream
from relay_supervisor.google.models import Resolution as Resolution
from relay_supervisor.google.quota.command import Command as Command
from relay_supervisor.google.quota.command import Verb
from relay_supervisor.http import admin, viewing
from relay_supervisor.http.app import CameraSummary
from relay_supervisor.http.app import HttpSettings as HttpSettings
from relay_supervisor.http.app import create_app as create_app
from relay_supervisor.http.links import Link
from relay_supervisor.http.sharing import LinkRequest
from relay_supervisor.operations.reload import ReloadReport
from relay_supervisor.operations.verbs import CameraChange, DrainStatus, Stopping
from relay_supervisor.state.account_rows import SavedLease as SavedLease
from relay_supervisor.state.links import LinkRows as LinkRows
from relay_supervisor.state.links import SavedLink as SavedLink
from relay_supervisor.state.rows import WorkerRow
from relay_supervisor.state.store import LinkCredential as LinkCredential
from relay_supervisor.state.store import SavedLocalViewer as SavedLocalViewer
from relay_supervisor.state.store import SavedPublication as SavedPublication
from relay_supervisor.state.store import SavedWorker as SavedWorker
from relay_supervisor.state.store import Store as Store
from relay_supervisor.status.given_links import GivenLinks, Revoked
from relay_supervisor.status.health import Health
from relay_supervisor.status.model import RelayStatus
from relay_supervisor.viewing.views import ViewAnswer
from relay_worker.camera.webrtc_source import IngestState
from relay_worker.debug import cli as worker_cli
from relay_worker.publish.publisher_states import PublisherState
from relay_worker.rtsp.states import RtspState as RtspState
from tests.fixtures.fake_relay import FakeRelay as FakeRelay

PROGRAMS = {"relay-supervisor": supervisor_cli, "relay-worker": worker_cli}
SUPERVISOR = supervisor_cli
CONFIGURATION = Config
CAMERA_SETTINGS = CameraSettings

FROM_WORKER = bus_messages.FromWorker
FROM_SUPERVISOR = bus_messages.FromSupervisor
STATS = WorkerStats
PROTOCOL = bus_messages.PROTOCOL
MAX_FRAME = bus_messages.MAX_FRAME
Protocol = bus_messages.Protocol
CommandVerb = Verb
encode_message = encode_message
configure_log = configure_log
LOG_CATEGORIES = LOG_CATEGORIES

JSON: dict[str, Any] = {
    "GET /api/cameras: cameras[]": CameraSummary,
    "GET /api/stats": RelayStatus,
    "GET /readyz": Health,
    "GET /api/events: event": RelayEvent,
    "POST /api/cameras/{id}/link: body": LinkRequest,
    "POST /api/cameras/{id}/link": Link,
    "POST /api/cameras/{id}/add, remove, enable, disable": CameraChange,
    "POST /api/cameras/{id}/capture: body": admin.CaptureRequest,
    "POST /api/stop: body": admin.StopRequest,
    "POST /api/stop": Stopping,
    "POST /api/drain: body": admin.DrainRequest,
    "GET, POST /api/drain": DrainStatus,
    "POST /api/reload": ReloadReport,
    "GET /api/logs: query": admin.LogQuery,
    "GET /api/logs": admin.LogReply,
    "POST /api/debug: body": admin.DebugRequest,
    "GET /api/watch/{id}": viewing.WatchStatus,
    "POST /api/view: body": viewing.ViewRequest,
    "POST /api/view/{id}/answer: body": viewing.AnswerRequest,
    "POST /api/view/{id}/update: body": viewing.UpdateRequest,
    "POST /api/view/{id}/received: body": viewing.ReceivedRequest,
    "POST /api/view/{id}/received": viewing.ReceivedAnswer,
    "POST /api/view, /api/view/{id}/update": ViewAnswer,
    "check --json: findings[]": Finding,
    "demo --json": DemoReport,
    "GET /api/links": GivenLinks,
    "DELETE /api/links/{id}": Revoked,
}
"""What goes over HTTP or to standard output as JSON, by where."""

STORED: dict[str, Any] = {
    "publications.body": SavedPublication,
    "workers.body": WorkerRow,
    "local_viewers.body": SavedLocalViewer,
    "devices.body[]": Device,
    "overrides.json: {camera id}": overrides.Override,
    "grants.json[]": grant.Grant,
    "links.body": SavedLink,
}
"""What the state directory holds as JSON, by where."""

ENUMERATIONS: dict[str, Any] = {
    "remedy (code of an HTTP error, remedy of a failed source)": Remedy,
    "cameras[].lease.state": lease_states.LeaseState,
    "cameras[].worker.state": Phase,
    "cameras[].webrtc": PublisherState,
    "cameras[].source of an RTSP camera": RtspState,
    "cameras[].source of a WebRTC camera": IngestState,
}
"""Enumerations whose values are told as plain strings, by where."""

STATE_FILES = (overrides.FILE, grant.FILE)
