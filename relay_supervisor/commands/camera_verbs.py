"""The verbs that take the name of a camera and nothing else, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import click
import msgspec

from relay_supervisor.commands.cli import Failure, config_option, json_option
from relay_supervisor.commands.client import CameraSummary, RelayClient, camera_argument, connect, decode, say

_DISCOVERY_TIMEOUT: Final = 90.0
"""Seconds to wait for Google's list of cameras."""


class CameraVerb(NamedTuple):
    """One verb: `relay-supervisor VERB NAME` is POST /api/cameras/{id}/VERB."""

    help: str
    past: str = ""
    """Past participle of a verb that changes which cameras are wanted; its answer says whether the camera runs."""
    done: str = ""
    """What any other verb has done, in words."""
    over_rtsp: str = ""
    """The same for an RTSP camera, where that is something else."""
    discovers: bool = False
    """Whether to look for an unknown camera at Google."""


class _Changed(msgspec.Struct):
    name: str
    running: bool
    why_not: str = ""


VERBS: Final = {
    "add": CameraVerb(
        """Relay a camera that the configuration does not include.

When the supervisor does not know the camera yet, it asks Google for the list of cameras first (devices.list, of
which five a minute are allowed). The camera stays in, even after a restart of the supervisor, until it is removed.
NAME is a display name (in any case), a camera id, or a device id.

\b
relay-supervisor add "Front Door"
relay-supervisor add Garage --json
""",
        past="added",
        discovers=True,
    ),
    "remove": CameraVerb(
        """Stop relaying a camera and remove it from the list of relayed ones.

It stays out, even after a restart of the supervisor and if the configuration includes it, until it is added.
NAME is a display name (in any case), a camera id, or a device id.

\b
relay-supervisor remove Garage
relay-supervisor remove "Back Garden" --json
""",
        past="removed",
    ),
    "enable": CameraVerb(
        """Enable a camera that was disabled.

It is relayed from now on, even after a restart of the supervisor and whatever the configuration says.
NAME is a display name (in any case), a camera id, or a device id.

\b
relay-supervisor enable "Front Door"
relay-supervisor enable 3f9a01c2 --json
""",
        past="enabled",
    ),
    "disable": CameraVerb(
        """Disable a camera, keeping it in the list.

Its stream and its worker are ended. It stays off, even after a restart of the supervisor, until it is enabled.
NAME is a display name (in any case), a camera id, or a device id.

\b
relay-supervisor disable "Front Door"
relay-supervisor disable 3f9a01c2 --json
""",
        past="disabled",
    ),
    "restart": CameraVerb(
        """Replace a camera's worker process.

Over RTSP its stream at Google is kept, so this uses no command of the budget; over WebRTC it takes a new stream, one
command. Viewers see a gap of a second or two, longer while that command has to wait.
NAME is a display name (in any case), a camera id, or a device id.

\b
relay-supervisor restart "Front Door"
relay-supervisor restart 3f9a01c2 --json
""",
        done="its worker is being replaced",
    ),
    "keyframe": CameraVerb(
        """Ask a camera for a keyframe.

A WebRTC camera is asked at once; RTSP has no way to ask, so an RTSP camera sends its next keyframe when it is due.
NAME is a display name (in any case), a camera id, or a device id.

\b
relay-supervisor keyframe "Front Door"
relay-supervisor keyframe 3f9a01c2 --json
""",
        done="a keyframe was requested",
        over_rtsp="RTSP has no way to ask for a keyframe: the camera sends the next one when it is due",
    ),
}


def _find(client: RelayClient, name: str, verb: CameraVerb) -> CameraSummary:
    try:
        return client.camera(name)
    except Failure as failure:
        if failure.exit_code != 1 or not verb.discovers:
            raise
    client.post("/api/discover", timeout=_DISCOVERY_TIMEOUT)
    return client.camera(name)


def make_command(name: str) -> click.Command:
    """The command of the verb `name`; raises KeyError for one that is not in the table."""
    verb = VERBS[name]
    path = f"/api/cameras/{{}}/{name}"

    @click.command(name, help=verb.help)
    @camera_argument
    @config_option
    @json_option
    def command(name: str, config_path: Path, as_json: bool) -> None:
        with connect(config_path) as client:
            camera = _find(client, name, verb)
            body = client.post(path.format(camera.id))
            if verb.done:
                say(f"{camera.name}: {(camera.protocol == 'RTSP' and verb.over_rtsp) or verb.done}", body, as_json)
                return
            changed = decode(body, _Changed)
            now = "it is being relayed" if changed.running else f"it is not relayed: {changed.why_not}"
            say(f"{changed.name}: {verb.past}; {now}", body, as_json)

    return command
