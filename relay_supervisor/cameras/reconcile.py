"""From what should run and what runs to what to do: a pure function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relay_supervisor.cameras.registry import Camera


@dataclass(frozen=True)
class Start:
    """Begin to relay a camera."""

    camera: Camera


@dataclass(frozen=True)
class Stop:
    """Stop relaying a camera."""

    camera: Camera
    reason: str


@dataclass(frozen=True)
class Update:
    """Something about a running camera changed; `restart` when its worker must be started anew to follow."""

    camera: Camera
    restart: bool


Action = Start | Stop | Update


def reconcile(desired: Mapping[str, Camera], actual: Mapping[str, Camera]) -> list[Action]:
    """Actions that turn `actual` into `desired`, both by camera id; stops come first, so that they free budget.

    A camera that did not change causes no action. One that speaks another protocol now is only updated: its lease
    notices, and its worker follows with the publication in place.
    """
    actions: list[Action] = [
        Stop(camera, "no longer configured or granted") for id_, camera in actual.items() if id_ not in desired
    ]
    for id_, camera in desired.items():
        running = actual.get(id_)
        if running is None:
            actions.append(Start(camera))
        elif running.account != camera.account:
            actions += [Stop(running, "moved to another account"), Start(camera)]
        elif running != camera:
            # What else there is in the settings concerns the supervisor alone.
            changed = (running.name, running.settings.audio) != (camera.name, camera.settings.audio)
            actions.append(Update(camera, restart=changed))
    return actions
