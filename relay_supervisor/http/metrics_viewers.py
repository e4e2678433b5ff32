"""Metrics of what each camera's worker does for single viewers: without the SFU, and in smaller pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from relay_supervisor.status.model import CameraStatus

_Value = Callable[[CameraStatus], float]
_Rows = tuple[tuple[str, str, _Value], ...]


def of_viewers(cameras: list[CameraStatus]) -> Iterator[Metric]:
    """`relay_local_…` and `relay_rendition_…`."""
    yield from _of_cameras("relay_local", cameras, _LOCAL_COUNTERS, _LOCAL_GAUGES)
    yield from _of_cameras("relay_rendition", cameras, _RENDITION_COUNTERS, _RENDITION_GAUGES)


_LOCAL_COUNTERS: Final[_Rows] = (
    ("sent_packets", "RTP packets sent to viewers without the SFU.", lambda c: c.local.packets_sent),
    ("sent_bytes", "RTP bytes sent to viewers without the SFU.", lambda c: c.local.bytes_sent),
    ("retransmitted_packets", "Packets sent to such viewers again.", lambda c: c.local.retransmitted),
    ("lost_packets", "Packets that such viewers reported as lost.", lambda c: c.local.lost),
    ("refused_offers", "Offers that the camera's worker did not answer.", lambda c: c.local.refused),
)
_LOCAL_GAUGES: Final[_Rows] = (
    ("up", "1 when a viewer that asks at /whep is answered.", lambda c: float(c.local.on)),
    ("viewers", "Viewers without the SFU.", lambda c: c.local.viewers),
    ("held_bytes", "Latest pictures that are held for viewers that join.", lambda c: c.local.held_bytes),
)


_RENDITION_COUNTERS: Final[_Rows] = (
    ("pictures", "Smaller pictures sent.", lambda c: c.rendition.pictures),
    ("sent_packets", "RTP packets of smaller pictures sent.", lambda c: c.rendition.packets),
    ("sent_bytes", "RTP bytes of smaller pictures sent.", lambda c: c.rendition.bytes),
    (
        "replaced_pictures",
        "Pictures given up for a newer one before they were made small.",
        lambda c: c.rendition.replaced,
    ),
    ("failed_pictures", "Pictures that could not be decoded or encoded.", lambda c: c.rendition.failed),
    ("refused_pictures", "Pictures of a kind that is not made small.", lambda c: c.rendition.refused),
    ("stuck_threads", "Times that the thread which makes them was given up.", lambda c: c.rendition.stuck),
    ("refused_answers", "Answers of sinks that refused simulcast.", lambda c: c.rendition.refusals),
)
_RENDITION_GAUGES: Final[_Rows] = (
    ("up", "1 when viewers can have a smaller picture.", lambda c: float(c.renditions != "off")),
    ("smooth", "1 while more than keyframes are made small.", lambda c: float(c.rendition.active == "smooth")),
    ("limited", "1 while it is less than was configured.", lambda c: float(bool(c.rendition.reason))),
    ("viewers", "Viewers that have the smaller picture.", lambda c: c.rendition.watched),
    ("cpu_ratio", "CPU that smaller pictures take, of one processor.", lambda c: c.rendition.cpu / 1e3),
)


def _of_cameras(prefix: str, cameras: list[CameraStatus], counters: _Rows, gauges: _Rows) -> Iterator[Metric]:
    for kind, rows in ((CounterMetricFamily, counters), (GaugeMetricFamily, gauges)):
        for name, text, value in rows:
            family = kind(f"{prefix}_{name}", text, labels=["camera", "name"])
            for camera in cameras:
                family.add_metric([camera.id, camera.name], value(camera))
            yield family
