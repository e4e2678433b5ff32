"""A whole relay, exporting."""

from __future__ import annotations

import asyncio

import pytest

from tests.fixtures.otlp_receiver import Receiver, spans_of, texts
from tests.fixtures.running_relay import running_relay

pytestmark = pytest.mark.media


async def test_a_relay_exports_its_metrics_and_its_calls() -> None:
    receiver = Receiver()
    try:
        async with running_relay(1, sections={"otel": {"endpoint": receiver.url}}) as relay:
            await relay.until_live()
            camera = relay.supervisor.status().cameras[0].id
    finally:
        await asyncio.to_thread(receiver.close)
    spans = [(span.name, texts(span.attributes)) for body in receiver.traces for span in spans_of(body)]
    assert ("nest list", {"verb": "list", "result": "ok"}) in spans
    assert ("nest generate", {"verb": "generate", "result": "ok", "camera": camera}) in spans
    assert ("sfu publish", {"operation": "publish", "result": "ok"}) in spans
    assert b"relay_camera_received_packets" in receiver.metrics[-1]
    # The simulators' stream tokens and addresses.
    for body in receiver.traces + receiver.metrics:
        assert b"auth=" not in body
        assert b"rtsp" not in body
