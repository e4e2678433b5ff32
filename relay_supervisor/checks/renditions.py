"""Check of the cameras' smaller pictures: what they may cost on this machine, were all of them watched at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from relay_common.config import Config
from relay_supervisor.checks.report import Finding, ok, warn
from relay_supervisor.google.models import Device
from relay_supervisor.renditions.admission import KEYFRAMES_COST
from relay_supervisor.renditions.service import all_may_cost

_MS_A_MEGAPIXEL: Final = 1.6
"""Milliseconds of CPU in which a million pixels are decoded, and a third of them made small (docs/limits.md) …"""
_MS_BESIDES: Final = 25.0
"""… beside those a second for ten small pictures to be encoded."""
_FPS: Final = 30
_USUAL: Final = (1280, 720)
"""Size of the pictures of a camera for which Google names none."""
_PART: Final = "cameras.renditions"


def smooth_cost(device: Device) -> float:
    """Milliseconds of CPU a second that a camera's smooth rendition costs, roughly."""
    width, height = device.resolution.width or _USUAL[0], device.resolution.height or _USUAL[1]
    return _MS_BESIDES + _MS_A_MEGAPIXEL * width * height * _FPS / 1e6


def smaller_pictures(config: Config, devices: Sequence[Device] | None) -> list[Finding]:
    """What there is to say of renditions; nothing while they are off, or where the cameras are not known (None)."""
    found = [device for device in devices or () if config.cameras.included(device.display_name, device.id)]
    settings = {device.name: config.cameras.setting(device.display_name, device.id) for device in found}
    made = [device for device in found if settings[device.name].renditions != "off"]
    if not made:
        return []
    each, most = config.workers.rendition_cpu_ms, all_may_cost(config.workers)
    smooth = [device for device in made if settings[device.name].renditions == "smooth"]
    dear = [device for device in smooth if smooth_cost(device) > each]
    findings = [
        warn(
            _PART,
            f"smooth pictures of {device.display_name} cost about {smooth_cost(device):.0f} ms of CPU a second, and "
            f"one camera may cost {each:.0f}: they will be of keyframes alone",
            "Choose keyframes for it, or raise workers.rendition_cpu_ms",
        )
        for device in dear
    ]
    need = KEYFRAMES_COST * (len(made) - len(smooth))
    need += sum(max(KEYFRAMES_COST, min(each, smooth_cost(device))) for device in smooth)
    of_them = f" ({len(smooth)} of them smooth)" if smooth else ""
    words = f"{len(made)} cameras{of_them}" if len(made) > 1 else f"{made[0].display_name}"
    on_demand = sum(settings[device.name].mode == "on_demand" for device in made)
    waits = f"; {on_demand} on demand, at rest while nobody watches" if on_demand else ""
    if need > most:
        return [
            *findings,
            warn(
                _PART,
                f"smaller pictures of {words} may cost {need:.0f} ms of CPU a second where all are watched, and this "
                f"machine has {most:.0f} for them: those watched last will be of keyframes alone{waits}",
                "Choose keyframes for some, or set workers.all_renditions_cpu_ms if the machine has more to spare",
            ),
        ]
    return findings or [ok(_PART, f"smaller pictures of {words} cost at most {need:.0f} ms of CPU a second{waits}")]
