"""A device as Google's API shows it, and its hidden behaviour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

STRUCTURE: Final = "home"
"""Id of the one structure of a project."""


def room_id(name: str) -> str:
    """Id of the room with that name."""
    return "room-" + name.encode().hex()


@dataclass
class Device:
    """A camera, doorbell or display in the project.

    `lease` in seconds (0: the project's); `max_streams` at once (0: any number); `extendable` is False for battery
    doorbells; `renews_session_id` gives each extension of a WebRTC stream a new mediaSessionId; `answer` makes a WebRTC
    answer from (offer, the stream's path) or raises OfferError. `offline` devices still get RTSP streams, but the URLs
    do not work; `withdrawn` ones have disappeared from the API; `traitless` ones are listed without their live stream
    trait and their name.
    """

    id: str
    name: str
    kind: Literal["CAMERA", "DOORBELL", "DISPLAY"] = "CAMERA"
    protocol: Literal["RTSP", "WEB_RTC"] = "RTSP"
    width: int = 640
    height: int = 480
    room: str = "Home"
    lease: float = 0.0
    max_streams: int = 0
    extendable: bool = True
    renews_session_id: bool = False
    offline: bool = False
    withdrawn: bool = False
    traitless: bool = False
    answer: Callable[[str, str], str] | None = None
    generates: int = 0
    extends: int = 0
    stops: int = 0
    failed: int = 0

    def resource(self, project_id: str) -> dict[str, Any]:
        """The device as devices.get returns it."""
        name = f"enterprises/{project_id}/devices/{self.id}"
        room = f"enterprises/{project_id}/structures/{STRUCTURE}/rooms/{room_id(self.room)}"
        traits = {
            "sdm.devices.traits.Info": {"customName": self.name},
            "sdm.devices.traits.CameraLiveStream": {
                "maxVideoResolution": {"width": self.width, "height": self.height},
                "videoCodecs": ["H264"],
                "audioCodecs": ["AAC" if self.protocol == "RTSP" else "OPUS"],
                "supportedProtocols": [self.protocol],
            },
        }
        return {
            "name": name,
            "type": f"sdm.devices.types.{self.kind}",
            "assignee": room,
            "traits": {**({} if self.traitless else traits), "sdm.devices.traits.CameraMotion": {}},
            "parentRelations": [{"parent": room, "displayName": self.room}],
        }

    def count(self, command: str, status: int) -> None:
        """Count a command that reached the device."""
        if status != 200:
            self.failed += 1
        elif command.startswith("Generate"):
            self.generates += 1
        elif command.startswith("Extend"):
            self.extends += 1
        else:
            self.stops += 1
