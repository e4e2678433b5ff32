"""OpenTelemetry export, into a receiver that speaks OTLP/HTTP."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from relay_common import VERSION
from relay_common.clock import ManualClock
from relay_common.cloudflare.errors import ErrorClass
from relay_common.config import OtelConfig
from relay_common.errors import ConfigError
from relay_common.secrets import Secret
from relay_supervisor.google.errors import RateLimited
from relay_supervisor.google.quota.command import Command, Verb
from relay_supervisor.http.auth import Gatekeeper
from relay_supervisor.http.metrics import RelayCollector
from relay_supervisor.otel import OtelExport
from tests.fixtures.fake_relay import FakeRelay
from tests.fixtures.otlp_receiver import Receiver, spans_of, texts

Points = dict[tuple[str, frozenset[tuple[str, str]]], float]

DEADLINE = 30.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def collector(relay: FakeRelay) -> RelayCollector:
    return RelayCollector(relay.status, relay.telemetry, relay.events, Gatekeeper(None, relay.clock))


def received(body: bytes) -> Points:
    """Every data point of an export, by its metric and attributes."""
    points: Points = {}
    (resource,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
    assert (
        texts(resource.resource.attributes).items()
        >= {"service.name": "nest-relay", "service.version": VERSION}.items()
    )
    for metric in resource.scope_metrics[0].metrics:
        kind = metric.WhichOneof("data")
        assert kind == "gauge" or (metric.sum.is_monotonic and metric.sum.aggregation_temporality == 2), metric.name
        for point in getattr(metric, kind).data_points:
            value = point.as_double if point.WhichOneof("value") == "as_double" else point.as_int
            points[metric.name, frozenset(texts(point.attributes).items())] = value
    return points


def shown(relay: FakeRelay) -> Points:
    """What Prometheus is shown now, without histograms."""
    return {
        (family.name, frozenset(sample.labels.items())): sample.value
        for family in collector(relay).collect()
        for sample in family.samples
        if family.type != "histogram"
    }


async def test_what_is_exported_names_one_of_several_accounts(receiver: Receiver) -> None:
    clock = ManualClock()
    for account in ("", "shop"):
        export = OtelExport(OtelConfig(endpoint=receiver.url, interval=3600, traces=False), clock, account)
        export.start(collector(FakeRelay(clock)).collect)
        await export.stop()
    resources = [ExportMetricsServiceRequest.FromString(body).resource_metrics[0].resource for body in receiver.metrics]
    named = [texts(resource.attributes).get("relay.account") for resource in resources]
    assert named == [None, "shop"]


async def test_each_counter_and_gauge_of_prometheus_is_exported_as_it_is_now(receiver: Receiver) -> None:
    clock = ManualClock()
    relay = FakeRelay(clock, cameras=2)
    export = OtelExport(OtelConfig(endpoint=receiver.url + "/", interval=1), clock)
    export.start(collector(relay).collect)
    async with asyncio.timeout(DEADLINE):
        while not receiver.metrics:
            await asyncio.sleep(0.05)
    assert received(receiver.metrics[0]) == shown(relay)
    relay.budget.used = 9
    relay.cameras[1].video.packets_in += 1000
    relay.events.publish("notice", "Something happened")
    # The values of half a second ago would do; these are the last ones.
    await asyncio.sleep(0.6)
    await export.stop()
    points = received(receiver.metrics[-1])
    assert points == shown(relay)
    assert points["relay_budget_used", frozenset({("account", "home")})] == 9
    assert not receiver.traces


async def test_spans_tell_of_calls_and_hold_no_secret(receiver: Receiver) -> None:
    clock = ManualClock()
    relay = FakeRelay(clock)
    export = OtelExport(OtelConfig(endpoint=receiver.url, interval=3600), clock)
    export.start(collector(relay).collect)
    generate = Command(
        verb=Verb.GENERATE, camera="cam00001", device="enterprises/p/devices/d", handle=Secret("hush-handle")
    )
    export.command(generate, RateLimited("hush: rtsps://hush.example/?auth=hush"), 12.5, 0.25)
    export.command(Command(verb=Verb.LIST, camera=""), [], 0.0, 0.1)
    relay.client.meter.on_call = export.sfu_call
    relay.client.meter.count("publish", ErrorClass.OK, 0.5)
    await export.stop()
    export.sfu_call("pull", ErrorClass.OK, 0.1)  # too late, and harmless
    (body,) = receiver.traces
    assert b"hush" not in body
    assert b"enterprises" not in body
    spans = {span.name: span for span in spans_of(body)}
    failed = spans["nest generate"]
    assert texts(failed.attributes) == {"verb": "generate", "result": "RateLimited", "camera": "cam00001"}
    assert [a.value.double_value for a in failed.attributes if a.key == "wait_seconds"] == [12.5]
    assert failed.end_time_unix_nano - failed.start_time_unix_nano == 250_000_000
    assert failed.end_time_unix_nano == int(clock.wall() * 1e9)
    assert texts(spans["nest list"].attributes) == {"verb": "list", "result": "ok"}
    assert texts(spans["sfu publish"].attributes) == {"operation": "publish", "result": "ok"}
    assert [spans[name].status.code for name in ("nest generate", "nest list", "sfu publish")] == [2, 1, 1]


async def test_without_traces_only_metrics_leave(receiver: Receiver) -> None:
    clock = ManualClock()
    export = OtelExport(OtelConfig(endpoint=receiver.url, interval=3600, traces=False), clock)
    export.start(collector(FakeRelay(clock)).collect)
    export.sfu_call("publish", ErrorClass.OK, 0.5)
    await export.stop()
    assert (len(receiver.metrics), len(receiver.traces)) == (1, 0)


async def test_a_collector_that_is_down_costs_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        clock = ManualClock()
        config = OtelConfig(endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}", interval=3600)
        export = OtelExport(config, clock)
        export.start(collector(FakeRelay(clock)).collect)
        for _ in range(2000):  # more than are kept
            export.sfu_call("publish", ErrorClass.OK, 0.5)
        began = time.monotonic()
        await export.stop()
        assert time.monotonic() - began < DEADLINE
    complaints = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in complaints] == ["relay_supervisor.otel"]
    assert complaints[0].getMessage().startswith("OpenTelemetry export: ")


async def test_a_status_that_cannot_be_read_leaves_a_hole_and_one_line(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    relay = FakeRelay(clock)
    export = OtelExport(OtelConfig(endpoint=receiver.url, interval=3600), clock)
    export.start(collector(relay).collect)
    relay.budget = None  # type: ignore[assignment]
    await export.stop()
    assert not any(map(received, receiver.metrics))
    assert [record.name for record in caplog.records if record.levelno >= logging.WARNING] == ["relay_supervisor.otel"]


def test_a_missing_sdk_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    with pytest.raises(ConfigError) as caught:
        OtelExport(OtelConfig(endpoint="http://127.0.0.1:4318"), ManualClock())
    assert "pip install nest-relay[otel]" in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    ["127.0.0.1:4318", "grpc://127.0.0.1:4317", "http://", "http://[", "http://user:hush@host", "http://h/?k=hush"],
)
def test_what_is_no_base_url_is_refused_without_quoting_it(endpoint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OtelExport(OtelConfig(endpoint=endpoint), ManualClock())
    assert "otel.endpoint" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_without_an_endpoint_nothing_is_imported() -> None:
    code = """
import sys
from relay_common.clock import ManualClock
from relay_common.cloudflare.errors import ErrorClass
from relay_common.config import OtelConfig
from relay_supervisor.otel import OtelExport
export = OtelExport(OtelConfig(), ManualClock())
export.start(lambda: [])
export.sfu_call("publish", ErrorClass.OK, 0.1)
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert ran.stdout.strip() == "[]"
