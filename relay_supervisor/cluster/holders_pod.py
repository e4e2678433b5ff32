"""Whether a supervisor that holds a Lease has ended, by its Pod.

Kubernetes keeps a Pod's object until its processes have ended, as far as it knows. One whose node has been removed, or
that somebody deletes by force, counts as ended: StatefulSets rely on the same. What the object says while it is there
proves nothing, as its node may be late.
"""

from __future__ import annotations

import ipaddress

from relay_common.announced import announced
from relay_supervisor.cluster.objects import Objects, find
from relay_supervisor.fleet.pods.api import PODS, ApiRefused


async def own_pod(objects: Objects, name: str, address: str) -> str | None:
    """The UID of the Pod called `name`, if this supervisor runs there: if it has the host of `address`, else "".

    None when that cannot be told yet. Raises ApiAway.
    """
    try:
        found = await find(objects, PODS, name) if address else None
    except ApiRefused:
        found = None
    if found is None:
        return ""
    ip = (found.get("status") or {}).get("podIP")
    if not ip:
        return None
    here = ipaddress.ip_address(ip) == ipaddress.ip_address(announced(address)[0])
    return str(found["metadata"].get("uid", "")) if here else ""


async def pod_is_gone(objects: Objects, name: str, uid: str) -> bool:
    """Whether Kubernetes has let that Pod go, whose UID a supervisor had found so ("": it had not). Raises ApiAway."""
    try:
        found = await find(objects, PODS, name) if uid else None
    except ApiRefused:
        return False
    return bool(uid) and (found is None or found["metadata"].get("uid") != uid)
