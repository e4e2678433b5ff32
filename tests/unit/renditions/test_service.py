"""What workers are told of renditions, and what is said about them."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from relay_common.clock import ManualClock
from relay_common.config import CameraSettings, WorkersConfig
from relay_common.rendition_messages import SetRendition
from relay_common.worker_stats import RenditionStats
from relay_supervisor.renditions.service import OF_A_PROCESSOR, Renditions, all_may_cost


class Home:
    """Cameras with workers that take whatever they are told; `small` counts the viewers of the small pictures."""

    def __init__(self, most: float = 250.0, **modes: str) -> None:
        self.sent: list[tuple[str, SetRendition]] = []
        self.told: list[tuple[str, str]] = []
        self.small: Counter[str] = Counter()
        self.slots: dict[str, Any] = {}
        self.reachable = True
        fleet = SimpleNamespace(slot=self.slots.get, send=self._send)
        self.running: dict[str, Any] = {}
        director = SimpleNamespace(fleet=fleet, running=self.running, listen=lambda listener: None)
        self.clock = ManualClock()
        self.renditions = Renditions(
            WorkersConfig(all_renditions_cpu_ms=most),
            director,  # type: ignore[arg-type]
            self.clock,
            watching=lambda: self.small,
            tell=lambda words, camera: self.told.append((camera, words)),
        )
        for camera, mode in modes.items():
            self.configure(camera, mode)
            self.starts(camera)

    def _send(self, camera: str, message: SetRendition) -> bool:
        if self.reachable:
            self.sent.append((camera, message))
        return self.reachable

    def configure(self, camera: str, mode: str) -> None:
        settings = CameraSettings(renditions=mode)  # type: ignore[arg-type]
        self.running[camera] = SimpleNamespace(id=camera, name=camera.title(), settings=settings)

    def starts(self, camera: str, *, knows: bool = True, instance: str = "1") -> None:
        hello = SimpleNamespace(renditions=knows)
        self.slots[camera] = SimpleNamespace(running=True, instance=instance, hello=hello, stats=None)
        self.renditions.worker_ready(self.running[camera])

    def reports(self, camera: str, **report: Any) -> None:
        self.slots[camera].stats = SimpleNamespace(rendition=RenditionStats(**report))

    def look(self) -> list[tuple[str, SetRendition]]:
        """What is sent at the next look."""
        before = len(self.sent)
        self.renditions.look(self.clock.now())
        return self.sent[before:]


def test_a_worker_is_told_when_it_is_ready_and_again_only_when_something_changes() -> None:
    home = Home(door="smooth", yard="off")
    assert home.sent == [("door", SetRendition(mode="smooth", budget=150.0)), ("yard", SetRendition())]
    assert home.look() == []
    home.small["door"] = 2
    assert home.look() == [("door", SetRendition(mode="smooth", watched=True, budget=150.0))]
    home.small["door"] = 1
    assert home.look() == []
    home.configure("door", "keyframes")
    assert home.look() == [("door", SetRendition(mode="keyframes", watched=True, budget=4.0))]
    home.starts("door", instance="2")
    assert home.sent[-1] == ("door", SetRendition(mode="keyframes", watched=True, budget=4.0))
    assert home.look() == []
    before = len(home.sent)
    home.starts("door", instance="2")
    assert len(home.sent) == before + 1, "whoever says hello again may have been told nothing"


def test_another_budget_reaches_workers_at_the_next_look() -> None:
    home = Home(door="smooth")
    home.small["door"] = 1
    home.look()
    home.renditions.configure(WorkersConfig(rendition_cpu_ms=90.0))
    assert home.look() == [("door", SetRendition(mode="smooth", watched=True, budget=90.0))]


def test_what_does_not_reach_a_worker_is_sent_again() -> None:
    home = Home(door="keyframes")
    home.small["door"], home.reachable = 1, False
    assert home.look() == []
    home.reachable = True
    assert home.look() == [("door", SetRendition(mode="keyframes", watched=True, budget=4.0))]


def test_a_worker_of_an_earlier_release_is_left_alone_with_a_note() -> None:
    home = Home()
    home.configure("door", "keyframes")
    home.starts("door", knows=False)
    assert home.look() == home.sent == []
    reason = "its worker is of an earlier release, and makes smaller pictures after its next restart"
    assert home.renditions.status(home.running["door"]).reason == reason
    assert home.told == [("door", f"smaller picture: {reason}")]
    home.configure("door", "off")
    assert home.renditions.status(home.running["door"]).reason == ""


def test_the_one_for_which_no_cpu_is_left_gets_no_budget_and_its_reason_is_told_once() -> None:
    home = Home(most=200.0, door="smooth", yard="smooth")
    home.small.update(["door", "yard"])
    sent = dict(home.look())
    assert (sent["door"].budget, sent["yard"].budget) == (150.0, 0.0)
    reason = "all renditions together may cost 200 ms of CPU a second, which others take: keyframes alone"
    home.look()
    assert home.told == [("yard", f"smaller picture: {reason}")]
    assert home.renditions.counters() == {"unafforded": 1}
    status = home.renditions.status(home.running["yard"])
    assert (status.wanted, status.watched, status.budget, status.reason) == ("smooth", 1, 0.0, reason)
    del home.small["door"], home.small["yard"]
    home.look()
    assert home.told[-1] == ("yard", "smaller picture: as configured again")


def test_status_tells_what_the_worker_reports() -> None:
    home = Home(door="smooth")
    home.reports("door", mode="smooth", active="keyframes", reason="this machine is too busy", pictures=7, cpu=3.5)
    home.look()
    status = home.renditions.status(home.running["door"])
    assert (status.mode, status.active, status.pictures, status.cpu) == ("smooth", "keyframes", 7, 3.5)
    assert home.told == [("door", "smaller picture: this machine is too busy")]


def test_every_processor_counts_where_the_configuration_names_no_number() -> None:
    assert all_may_cost(WorkersConfig(all_renditions_cpu_ms=123.0)) == 123.0
    assert all_may_cost(WorkersConfig()) % OF_A_PROCESSOR == 0 < all_may_cost(WorkersConfig())
