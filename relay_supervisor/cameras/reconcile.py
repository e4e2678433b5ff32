"""Actions that make what runs match what should run: a pure function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relay_supervisor.cameras.registry import Camera


@dataclass(frozen=True)
class StartCamera:
    """Start relaying a camera."""

    camera: Camera


@dataclass(frozen=True)
class StopCamera:
    """Stop relaying a camera."""

    camera: Camera
    reason: str


@dataclass(frozen=True)
class UpdateCamera:
    """Something about a running camera changed; `restart` when its worker must be restarted to apply it."""

    camera: Camera
    restart: bool


Action = StartCamera | StopCamera | UpdateCamera


def reconcile(desired: Mapping[str, Camera], actual: Mapping[str, Camera]) -> list[Action]:
    """Actions that turn `actual` into `desired`, both by camera id; stops come first, so that they free budget.

    A camera that did not change causes no action. One whose protocol changed is only updated: its lease notices, and
    its worker follows, keeping the publication.
    """
    actions: list[Action] = [
        StopCamera(camera, "no longer configured or granted") for id_, camera in actual.items() if id_ not in desired
    ]
    for id_, camera in desired.items():
        running = actual.get(id_)
        if running is None:
            actions.append(StartCamera(camera))
        elif running.account != camera.account:
            actions += [StopCamera(running, "moved to another account"), StartCamera(camera)]
        elif running != camera:
            # All other settings concern only the supervisor.
            changed = (running.name, running.settings.audio) != (camera.name, camera.settings.audio)
            actions.append(UpdateCamera(camera, restart=changed))
    return actions
