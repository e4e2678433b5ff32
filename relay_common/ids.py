"""Identifiers: stable for machines, readable for people."""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata


def slug(name: str) -> str:
    """`name` as lower-case ASCII words joined by hyphens, at most 32 characters; "camera" when nothing is left."""
    text = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:32].strip("-") or "camera"


def camera_id(device: str) -> str:
    """A short stable identifier of a camera, from its SDM device resource name.

    Google's device names are long and count as personal data; eight hex digits of their SHA-256 distinguish up to a
    thousand cameras and do not change when the camera is renamed.
    """
    return hashlib.sha256(device.encode()).hexdigest()[:8]


def is_camera_id(text: str) -> bool:
    """Whether `text` has the form of a `camera_id`."""
    return re.fullmatch("[0-9a-f]{8}", text) is not None


def instance_id(camera: str) -> str:
    """A fresh identifier of one worker process for `camera` (a camera id)."""
    return f"{camera}.{secrets.token_hex(4)}"
