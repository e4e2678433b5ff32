"""Which cameras exist, from all accounts' listings, under stable short ids; and which of them are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from relay_common import ids
from relay_common.config import CamerasConfig, CameraSettings
from relay_common.errors import UnknownCamera
from relay_supervisor.cameras.overrides import Override, Overrides
from relay_supervisor.google.models import Device, Listing, updated


@dataclass(frozen=True)
class Camera:
    """A discovered camera. `account` is its index in the configuration's list of [[nest]] tables."""

    id: str
    account: int
    device: Device
    settings: CameraSettings

    @property
    def name(self) -> str:
        return self.device.display_name

    @property
    def track_prefix(self) -> str:
        """Prefix of its track names at the SFU, which tell camera and kind."""
        return f"{ids.slug(self.name)}-{self.id}"


class Registry:
    """All discovered cameras; the configuration, overridden by `overrides`, decides which should run.

    `only` limits what runs to these ids while the relay is being drained; None: no limit.
    """

    def __init__(self, config: CamerasConfig, overrides: Overrides | None = None) -> None:
        self.config = config
        self.overrides = overrides or Overrides()
        self.only: set[str] | None = None
        self._devices: dict[int, list[Device]] = {}
        self._absent: dict[int, set[str]] = {}
        """Names of known devices missing from an account's last listing; one entry per listed account."""

    def restored(self, account: int, devices: Iterable[Device]) -> None:
        """Start with the devices that an earlier process knew of an account; listings correct them."""
        self._devices[account] = list(devices)

    def devices(self, account: int) -> list[Device]:
        """The known devices of an account."""
        return list(self._devices.get(account, []))

    def discovered(self, account: int, listing: Listing) -> list[Device]:
        """Apply a listing of one account; returns the known devices that it lacks.

        Those are kept until the next listing, and dropped when that lacks them, too: a single listing may be
        incomplete. A known device listed without a live stream, whose trait is only unavailable at present, stays
        unchanged.
        """
        listed = {device.name: device for device in listing.devices}
        before = self._absent.get(account, set())
        kept: list[Device] = []
        absent: list[Device] = []
        for known in self._devices.get(account, []):
            fresh = listed.pop(known.name, None)
            if fresh is not None:
                kept.append(updated(known, fresh))
            elif known.name in listing.others:
                kept.append(known)
            elif known.name not in before:
                kept.append(known)
                absent.append(known)
        self._devices[account] = [*kept, *listed.values()]
        self._absent[account] = {device.name for device in absent}
        return absent

    def seen(self, account: int, device: Device) -> Device:
        """Apply the freshly read traits of one device; returns the device as it is known now."""
        known = self._devices.get(account, [])
        device = next((updated(one, device) for one in known if one.name == device.name), device)
        self._devices[account] = [device if one.name == device.name else one for one in known]
        return device

    @property
    def accounts(self) -> int:
        """How many accounts have been listed so far."""
        return len(self._absent)

    def __iter__(self) -> Iterator[Camera]:
        for account, devices in sorted(self._devices.items()):
            for device in devices:
                settings = self.config.setting(device.display_name, device.id)
                yield Camera(ids.camera_id(device.name), account, device, settings)

    def get(self, camera: str) -> Camera | None:
        """The camera with this id."""
        return next((known for known in self if known.id == camera), None)

    def find(self, camera: str) -> Camera:
        """The camera with this id; raises UnknownCamera."""
        if (known := self.get(camera)) is None:
            raise UnknownCamera(camera, (one.id for one in self))
        return known

    def name_of(self, camera: str) -> str:
        """The display name of the camera with this id; of another word, that."""
        known = self.get(camera)
        return known.name if known is not None else camera

    def included(self, camera: Camera) -> bool:
        """Whether the camera is one of those to relay, enabled or not."""
        override = self.overrides[camera.id].included
        return self.config.lists(camera.name, camera.device.id) if override is None else override

    def enabled(self, camera: Camera) -> bool:
        """Whether the camera is switched on."""
        override = self.overrides[camera.id].enabled
        return camera.settings.enabled if override is None else override

    def wanted(self, camera: Camera) -> bool:
        """Whether this camera should run."""
        return not self.why_not(camera)

    def why_not(self, camera: Camera) -> str:
        """Why a camera does not run, in words; empty when it should."""
        override = self.overrides[camera.id]
        if not self.included(camera):
            removed = override.included is False
            return "removed by hand: add it again" if removed else "not included in the configuration"
        if not self.enabled(camera):
            disabled = override.enabled is False
            return "disabled by hand: enable it again" if disabled else "disabled in the configuration"
        if self.only is not None and camera.id not in self.only:
            return "the relay is drained"
        return ""

    async def override(self, camera: Camera, *, included: bool | None = None, enabled: bool | None = None) -> None:
        """Record an override for a camera, valid until it is reversed; raises RelayError (see Overrides)."""
        override = self.overrides[camera.id]
        if included is None:
            included = override.included
        if enabled is None:
            enabled = override.enabled
        listed = self.config.lists(camera.name, camera.device.id)
        keep = Override(
            name=camera.name,
            included=None if included == listed else included,
            enabled=None if enabled == camera.settings.enabled else enabled,
        )
        await self.overrides.set(camera.id, keep)

    def desired(self) -> dict[str, Camera]:
        """The cameras that should run, by id."""
        return {camera.id: camera for camera in self if self.wanted(camera)}

    def unknown_names(self) -> list[str]:
        """Names in the configuration that no discovered camera has: misspelt, or not granted to this project."""
        known = {camera.name for camera in self} | {camera.device.id for camera in self}
        asked = set(self.config.settings) | (set() if self.config.include == "all" else set(self.config.include))
        return sorted(asked - known)
