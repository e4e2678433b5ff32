"""Export to an OpenTelemetry collector over OTLP/HTTP: the metrics of `http/metrics.py`, and spans of calls outward.

There is one list of metrics, that of Prometheus: each of its counters and gauges is an observable instrument of the
same name here (histograms are left to Prometheus). The SDK is imported only if an endpoint is configured; it exports in
its own threads, and drops what cannot be exported.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from prometheus_client.metrics_core import Metric

from relay_common import VERSION
from relay_common.clock import Clock
from relay_common.cloudflare.errors import ErrorClass
from relay_common.config import OtelConfig
from relay_common.errors import ConfigError
from relay_common.secrets import redact
from relay_supervisor.google.errors import NestError
from relay_supervisor.google.quota.command import Command, Result

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

log = logging.getLogger(__name__)
_SDK_LOG: Final = logging.getLogger("opentelemetry")

TIMEOUT: Final = 2
"""Seconds that one export may take; stopping takes little longer when the collector does not answer."""
QUEUE: Final = 512
"""Spans kept for the next export; more are dropped."""
COMPLAIN: Final = 300.0
"""Shortest interval in seconds between warnings about an unreachable collector."""
_FRESH: Final = 0.5
_INSTRUMENTED: Final = ("counter", "gauge")

Collect = Callable[[], Iterable[Metric]]


class OtelExport:
    """Exports from `start` to `stop`; without an endpoint every method does nothing.

    `account` names one of several accounts; then it is in all that is exported. Raises ConfigError when the endpoint is
    not a web address or the SDK is not installed.
    """

    def __init__(self, config: OtelConfig, clock: Clock, account: str = "") -> None:
        self._config, self._clock, self._account = config, clock, account
        self._meters: MeterProvider | None = None
        self._spans: TracerProvider | None = None
        self._tracer: Tracer | None = None
        self._complaints = _Complaints()
        require_exporter(config)

    def start(self, collect: Collect) -> None:
        """Start exporting what `collect` returns; it is called on this event loop."""
        if not self._config.endpoint:
            return
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._complaints.install()
        of_account = {"relay.account": self._account} if self._account else {}
        resource = Resource.create({"service.name": "nest-relay", "service.version": VERSION} | of_account)
        base = self._config.endpoint.rstrip("/")
        reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(f"{base}/v1/metrics", timeout=TIMEOUT),
            export_interval_millis=self._config.interval * 1e3,
            export_timeout_millis=TIMEOUT * 1e3,
        )
        self._meters = MeterProvider([reader], resource, shutdown_on_exit=False)
        _instrument(self._meters, collect, asyncio.get_running_loop())
        if self._config.traces:
            self._spans = TracerProvider(resource=resource, shutdown_on_exit=False)
            exporter = OTLPSpanExporter(f"{base}/v1/traces", timeout=TIMEOUT)
            self._spans.add_span_processor(
                BatchSpanProcessor(exporter, max_queue_size=QUEUE, max_export_batch_size=QUEUE)
            )
            self._tracer = self._spans.get_tracer("nest-relay", VERSION)
        log.info("exporting to the OpenTelemetry collector every %g s", self._config.interval)

    async def stop(self) -> None:
        """Export what is left, for a few seconds at most."""
        meters, spans = self._meters, self._spans
        self._meters = self._spans = self._tracer = None
        # In threads, because the last values are read on this loop.
        work = [asyncio.to_thread(meters.shutdown, 2e3 * TIMEOUT)] if meters is not None else []
        work += [asyncio.to_thread(spans.shutdown)] if spans is not None else []
        for failure in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(failure, Exception):
                log.debug("the OpenTelemetry SDK did not shut down cleanly: %s", failure)
        self._complaints.remove()

    def command(self, command: Command, result: Result, waited: float, took: float) -> None:
        """Export a span of a completed command to Google (`quota.dispatcher.OnCommand`)."""
        verdict = type(result).__name__ if isinstance(result, NestError) else "ok"
        attributes: dict[str, str | float] = {"verb": command.verb.value, "result": verdict, "wait_seconds": waited}
        if command.camera:
            attributes["camera"] = command.camera
        self._span(f"nest {command.verb.value}", attributes, took, failed=verdict != "ok")

    def sfu_call(self, operation: str, kind: ErrorClass, took: float) -> None:
        """Export a span of a completed call to the SFU (`cloudflare.meter.CallMeter.on_call`)."""
        attributes = {"operation": operation, "result": kind.value}
        self._span(f"sfu {operation}", attributes, took, failed=kind is not ErrorClass.OK)

    def _span(self, name: str, attributes: dict[str, str | float] | dict[str, str], took: float, failed: bool) -> None:
        if self._tracer is None:
            return
        from opentelemetry.trace import SpanKind, StatusCode

        end = int(self._clock.wall() * 1e9)
        span = self._tracer.start_span(
            name, kind=SpanKind.CLIENT, attributes=attributes, start_time=end - int(took * 1e9)
        )
        span.set_status(StatusCode.ERROR if failed else StatusCode.OK)
        span.end(end)


def require_exporter(config: OtelConfig) -> None:
    """Raise ConfigError when an endpoint is set that is no web address, or for which the SDK is not installed."""
    if not config.endpoint:
        return
    try:
        parts = urlsplit(config.endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.username
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError("otel.endpoint is not the base URL of a collector", hint="Use http://127.0.0.1:4318")
    try:
        import opentelemetry.exporter.otlp.proto.http.metric_exporter
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace.export  # noqa: F401
    except ImportError:
        raise ConfigError(
            "otel.endpoint is set, but the OpenTelemetry SDK is not installed",
            hint="pip install nest-relay[otel], or leave otel.endpoint empty",
        ) from None


def _instrument(provider: MeterProvider, collect: Collect, loop: asyncio.AbstractEventLoop) -> None:
    """Create an instrument for each family; all of them exist from the start."""
    meter = provider.get_meter("nest-relay", VERSION)
    snapshot = _Snapshot(collect, loop)
    for family in collect():
        if family.type in _INSTRUMENTED:
            create = meter.create_observable_counter if family.type == "counter" else meter.create_observable_gauge
            create(family.name, [snapshot.reader(family.name)], description=family.documentation)


class _Snapshot:
    """The families as of this export, read once for all instruments, on the event loop that owns the status."""

    def __init__(self, collect: Collect, loop: asyncio.AbstractEventLoop) -> None:
        self._collect, self._loop = collect, loop
        self._families: dict[str, Metric] = {}
        self._read_at = 0.0

    def reader(self, name: str) -> Callable[[CallbackOptions], Iterator[Observation]]:
        """A callback for the SDK, which calls it in its own thread."""
        from opentelemetry.metrics import Observation

        # Of a counter only its value, not its creation time.
        names = (name, f"{name}_total")

        def observe(_: CallbackOptions) -> Iterator[Observation]:
            family = self._current().get(name)
            for sample in family.samples if family is not None else ():
                if sample.name in names:
                    yield Observation(sample.value, sample.labels)

        return observe

    def _current(self) -> dict[str, Metric]:
        if time.monotonic() - self._read_at > _FRESH:
            reading: Future[dict[str, Metric]] = Future()
            try:
                self._loop.call_soon_threadsafe(self._read, reading)
                self._families = reading.result(TIMEOUT)
            except Exception as error:  # the loop is busy or has ended, or this is a bug: report once, not per metric
                self._families = {}
                _SDK_LOG.warning("the relay's state could not be read: %s", type(error).__name__)
            self._read_at = time.monotonic()
        return self._families

    def _read(self, reading: Future[dict[str, Metric]]) -> None:
        try:
            reading.set_result({family.name: family for family in self._collect()})
        except Exception as error:  # raised in the SDK's thread
            reading.set_exception(error)


class _Complaints(logging.Handler):
    """One occasional warning in place of everything that the SDK logs about a collector that is down."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._next = 0.0

    def install(self) -> None:
        _SDK_LOG.addHandler(self)
        _SDK_LOG.propagate = False

    def remove(self) -> None:
        _SDK_LOG.removeHandler(self)
        _SDK_LOG.propagate = True

    def emit(self, record: logging.LogRecord) -> None:
        if record.created >= self._next:
            self._next = record.created + COMPLAIN
            log.warning("OpenTelemetry export: %s", redact(record.getMessage()))
