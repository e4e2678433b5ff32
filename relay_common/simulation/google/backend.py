"""The Nest simulator's core: devices, streams, tokens and quota of one Device Access project.

No I/O and no clock: every method takes `now` in seconds since the Unix epoch, so a day of forty cameras can run on a
manual clock. `api` serves it over HTTP. Behaviour follows Google's SDM documentation and field reports.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from relay_common.simulation.google import errors as errors
from relay_common.simulation.google.devices import STRUCTURE, Device, room_id
from relay_common.simulation.google.errors import Reply
from relay_common.simulation.google.failures import Failures
from relay_common.simulation.google.oauth import Authorization, OAuth
from relay_common.simulation.google.quota import Accounting, Limits
from relay_common.simulation.google.streams import Stream, Streams, rfc3339

COMMAND_PREFIX: Final = "sdm.devices.commands.CameraLiveStream."
_REMEMBERED_COMMANDS: Final = 100_000


@dataclass(frozen=True)
class CommandRecord:
    """One executeCommand as received: time, device, command, and the HTTP status of its reply."""

    time: float
    device: str
    command: str
    status: int

    @property
    def succeeded(self) -> bool:
        """Whether it was executed."""
        return self.status == 200


class NestBackend:
    """Google's API for one project."""

    def __init__(
        self,
        project_id: str,
        oauth: OAuth,
        *,
        limits: Limits | None = None,
        rtsp_url: str = "rtsps://127.0.0.1:443",
        lease: float = 300.0,
        page_size: int = 50,
        seed: int = 0,
    ) -> None:
        self.project_id, self.oauth = project_id, oauth
        self.lease, self.page_size = lease, page_size
        self.devices: dict[str, Device] = {}
        self.failures = Failures()
        self.commands: deque[CommandRecord] = deque(maxlen=_REMEMBERED_COMMANDS)
        self.streams = Streams(random.Random(f"{seed}/nest"), rtsp_url)
        self.accounting = Accounting(limits or Limits())
        self._commands: dict[str, Callable[[Device, dict[str, Any], float], Reply]] = {
            "GenerateRtspStream": self._generate_rtsp,
            "ExtendRtspStream": self._extend_rtsp,
            "StopRtspStream": self._stop_rtsp,
            "GenerateWebRtcStream": self._generate_webrtc,
            "ExtendWebRtcStream": self._extend_webrtc,
            "StopWebRtcStream": self._stop_webrtc,
        }

    def add(self, device: Device) -> None:
        """Grant a device to the project."""
        self.devices[device.id] = device

    def list_devices(self, token: str, page_token: str, now: float, page_size: int = 0) -> Reply:
        """devices.list: one page, with nextPageToken while there are more; no `devices` key for an empty project."""
        refused = self._refused(token, self.accounting.list_devices, now)
        if refused:
            return refused
        granted = [device for device in self.devices.values() if not device.withdrawn]
        start = int(page_token) if page_token.isdecimal() else 0
        end = start + min(page_size or self.page_size, self.page_size)
        body: dict[str, Any] = {}
        if granted[start:end]:
            body["devices"] = [device.resource(self.project_id) for device in granted[start:end]]
        if end < len(granted):
            body["nextPageToken"] = str(end)
        return Reply(200, body)

    def get_device(self, token: str, device_id: str, now: float) -> Reply:
        """devices.get."""
        refused = self._refused(token, self.accounting.get_device, now)
        if refused:
            return refused
        device = self._device(device_id)
        return Reply(200, device.resource(self.project_id)) if device else self._no_device(device_id)

    def structures(self, token: str, path: Sequence[str], now: float) -> Reply:
        """structures.list and get, rooms.list and get: `path` is what follows `structures` in the URL."""
        refused = self._refused(token, self.accounting.structures, now)
        if refused:
            return refused
        home = f"enterprises/{self.project_id}/structures/{STRUCTURE}"
        names = list(dict.fromkeys(device.room for device in self.devices.values() if not device.withdrawn))
        rooms = [_named(f"{home}/rooms/{room_id(name)}", "RoomInfo", name) for name in names]
        structure = _named(home, "Info", "Home")
        match list(path):
            case []:
                return Reply(200, {"structures": [structure]} if names else {})
            case [structure_id] if structure_id == STRUCTURE:
                return Reply(200, structure)
            case [structure_id, "rooms"] if structure_id == STRUCTURE:
                return Reply(200, {"rooms": rooms} if rooms else {})
            case [structure_id, "rooms", room] if structure_id == STRUCTURE:
                found = next((entry for entry in rooms if entry["name"].endswith(f"/rooms/{room}")), None)
                return Reply(200, found) if found else errors.not_found("Room not found.")
        return errors.not_found("Structure not found.")

    def execute(self, token: str, device_id: str, command: str, params: dict[str, Any], now: float) -> Reply:
        """devices.executeCommand; `command` is the full name with its prefix."""
        refused = self._authorize(token, now)
        if refused:
            return refused
        reply = self._execute(device_id, command.removeprefix(COMMAND_PREFIX), params, now)
        name = self.devices[device_id].name if device_id in self.devices else device_id
        self.commands.append(CommandRecord(now, name, command.removeprefix(COMMAND_PREFIX), reply.status))
        return reply

    def _execute(self, device_id: str, command: str, params: dict[str, Any], now: float) -> Reply:
        device = self._device(device_id)
        exhausted = self.accounting.execute(device_id, device.kind if device else "", command, now)
        if exhausted:
            return errors.rate_limited(exhausted)
        handler = self._commands.get(command)
        if device is None:
            return self._no_device(device_id)
        failure = self.failures.take(device.name, command)
        if failure and not failure.after_effect:
            return failure.reply
        if handler is None:
            return errors.not_found("Command not found.")
        if ("Rtsp" in command) != (device.protocol == "RTSP"):
            return errors.wrong_protocol(command)
        reply = handler(device, params, now)
        if failure:
            device.count(command, reply.status)
            return failure.applied_to(reply)
        device.count(command, reply.status)
        return reply

    def _refused(self, token: str, charge: Callable[[float], str | None], now: float) -> Reply | None:
        """Why a read is refused: its token, or the bucket that `charge` names."""
        if refused := self._authorize(token, now):
            return refused
        exhausted = charge(now)
        return errors.rate_limited(exhausted) if exhausted else None

    def _authorize(self, token: str, now: float) -> Reply | None:
        match self.oauth.check(token, now):
            case Authorization.VALID:
                return None
            case Authorization.FORBIDDEN:
                return errors.error(403, "The caller does not have permission")
        return errors.error(401, "Request had invalid authentication credentials.")

    def _device(self, device_id: str) -> Device | None:
        device = self.devices.get(device_id)
        return None if device is None or device.withdrawn else device

    def _no_device(self, device_id: str) -> Reply:
        return errors.not_found(f"Device enterprises/{self.project_id}/devices/{device_id} not found.")

    def _generate(self, device: Device, now: float) -> Stream | Reply:
        if device.max_streams and len(self.streams.live(device, now)) >= device.max_streams:
            return errors.error(409, "The operation was aborted.")
        return self.streams.generate(device, now, device.lease or self.lease)

    def _generate_rtsp(self, device: Device, params: dict[str, Any], now: float) -> Reply:
        stream = self._generate(device, now)
        if isinstance(stream, Reply):
            return stream
        return Reply(200, {"results": {"streamUrls": {"rtspUrl": stream.url}, **stream.tokens()}})

    def _extend_rtsp(self, device: Device, params: dict[str, Any], now: float) -> Reply:
        stream = self.streams.by_extension_token(device, params.get("streamExtensionToken"), now)
        if stream is None:
            return errors.not_found()
        self.streams.extend(stream, now, device.lease or self.lease)
        return Reply(200, {"results": stream.tokens()})

    def _stop_rtsp(self, device: Device, params: dict[str, Any], now: float) -> Reply:
        stream = self.streams.by_extension_token(device, params.get("streamExtensionToken"), now)
        if stream is None:
            return errors.not_found()
        self.streams.stop(stream)
        return Reply(200, {"results": {}})

    def _generate_webrtc(self, device: Device, params: dict[str, Any], now: float) -> Reply:
        if not isinstance(params.get("offerSdp"), str):
            return errors.error(400, "offerSdp is required.")
        if device.offline or device.answer is None:
            return errors.failed_precondition()
        stream = self._generate(device, now)
        if isinstance(stream, Reply):
            return stream
        try:
            answer = device.answer(params["offerSdp"], stream.path)
        except errors.NoHostCandidate:
            self.streams.stop(stream)
            return errors.error(500, "Internal error encountered.")
        except errors.OfferError as refusal:
            self.streams.stop(stream)
            return errors.error(400, str(refusal))
        results = {"answerSdp": answer, "mediaSessionId": stream.media_session_id}
        return Reply(200, {"results": {**results, "expiresAt": rfc3339(stream.expires_at)}})

    def _extend_webrtc(self, device: Device, params: dict[str, Any], now: float) -> Reply:
        if not device.extendable:
            return errors.failed_precondition("Extending the stream is not supported for doorbell.")
        stream = self.streams.by_media_session(device, params.get("mediaSessionId"), now)
        if stream is None:
            return errors.not_found()
        self.streams.extend(stream, now, device.lease or self.lease)
        results = {"mediaSessionId": stream.media_session_id, "expiresAt": rfc3339(stream.expires_at)}
        return Reply(200, {"results": results})

    def _stop_webrtc(self, device: Device, params: dict[str, Any], now: float) -> Reply:
        stream = self.streams.by_media_session(device, params.get("mediaSessionId"), now)
        if stream is None:
            return errors.not_found()
        self.streams.stop(stream)
        return Reply(200, {"results": {}})


def _named(name: str, trait: str, custom: str) -> dict[str, Any]:
    """A structure or a room as the API shows it."""
    return {"name": name, "traits": {f"sdm.structures.traits.{trait}": {"customName": custom}}}
