"""What `add`, `remove`, `enable` and `disable` share: say it to the supervisor and tell what follows."""

from __future__ import annotations

import msgspec

from relay_supervisor.commands.client import CameraSummary, RelayClient, decode, say


class _Changed(msgspec.Struct):
    name: str
    running: bool
    why_not: str = ""


def change(client: RelayClient, camera: CameraSummary, verb: str, past: str, as_json: bool) -> None:
    """Have `verb` done to `camera`; `past` is the verb's participle."""
    body = client.post(f"/api/cameras/{camera.id}/{verb}")
    changed = decode(body, _Changed)
    now = "it is being relayed" if changed.running else f"it is not relayed: {changed.why_not}"
    say(f"{changed.name}: {past}; {now}", body, as_json)
