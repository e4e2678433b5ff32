"""Changes of the ICE session of a publication, which a worker asks for and its sink may take."""

from __future__ import annotations

from relay_common.patch_messages import PatchSession, SessionPatched
from relay_supervisor.sinks.broker import Broker
from relay_supervisor.sinks.sink import SinkError


async def patch_session(broker: Broker | None, camera: str, message: PatchSession) -> SessionPatched:
    """Tell the sink of `broker` what a worker has to say; the result is for the worker.

    Where it is not taken, also as sink or publication are gone, the worker publishes anew.
    """
    found = broker.find(camera, message.publication) if broker is not None else None
    if broker is None or found is None:
        return SessionPatched(request=message.request, reason="the publication is gone")
    try:
        fragment = await broker.sink.patch(found.session, message.fragment, restart=message.restart)
    except SinkError as error:
        return SessionPatched(request=message.request, reason=error.message)
    return SessionPatched(request=message.request, fragment=fragment)
