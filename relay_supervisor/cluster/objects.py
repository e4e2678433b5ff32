"""What is asked of Kubernetes' API here (`fleet.pods.api.ClusterApi`), and how its errors are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from relay_supervisor.fleet.pods.api import ApiRefused, Object, ResourceKind

STATE_LABEL: Final = "nest-relay/state"
"""Of the objects that supervisors of a relay share; its value is the relay's identity."""
_FORBIDDEN: Final = 403
_CONFLICT: Final = 409


class Objects(Protocol):
    """One namespace. Methods raise ApiAway (nobody knows whether it was done) and ApiRefused."""

    async def create(self, kind: ResourceKind, body: Mapping[str, Any]) -> Object:
        """Create an object; returns what the server made of it."""
        ...

    async def patch(self, kind: ResourceKind, name: str, change: Mapping[str, Any]) -> Object:
        """Merge a change into an object, if its version is that in the change; returns what it is then."""
        ...

    async def list(self, kind: ResourceKind, labels: dict[str, str], name: str = "") -> tuple[list[Object], str]:
        """All objects with these labels, of that name alone if it is given, and the version of the list."""
        ...


async def find(objects: Objects, kind: ResourceKind, name: str) -> Object | None:
    """The object of that name, whatever became of its labels; None when there is none. Raises what `Objects` do."""
    found, _ = await objects.list(kind, {}, name)
    return found[0] if found else None


def conflicts(error: ApiRefused) -> bool:
    """Whether the object is not in the version that was to be changed, or exists already."""
    return error.code == _CONFLICT


def forbids(error: ApiRefused) -> bool:
    """Whether we have no right to do that."""
    return error.code == _FORBIDDEN


def version_of(found: Object) -> str:
    """The version of an object, which changes with each write to it."""
    return str(found["metadata"]["resourceVersion"])


def unchanged(version: str) -> dict[str, str]:
    """Metadata of a change that is refused unless the object still has that version."""
    return {"resourceVersion": version}
