"""Local viewers: answered by workers, bounded, owned by who made them, and ended with their link."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from relay_common.clock import ManualClock, SystemClock
from relay_common.config import CamerasConfig, CameraSettings, LocalConfig
from relay_common.local_messages import (
    LocalAnswer,
    LocalClose,
    LocalOffer,
    LocalPatched,
    LocalRefused,
    LocalStats,
    LocalTrickle,
    LocalViewerChanged,
    LocalViewerStats,
    SetLocal,
)
from relay_common.protocol import FromWorker, Hello, Protocol, WorkerState
from relay_common.worker_stats import WorkerStats
from relay_supervisor.cameras.director import Director
from relay_supervisor.cameras.registry import Registry
from relay_supervisor.cameras.watching import Watching
from relay_supervisor.events import EventHub
from relay_supervisor.google.models import Device, Listing
from relay_supervisor.local.service import FORGOTTEN_AFTER, LocalViewing
from relay_supervisor.local.sessions import WhepError, digest
from relay_supervisor.local.strangers import ENDED_AFTER
from relay_supervisor.state.store import LinkCredential, Store
from relay_supervisor.viewing.bounds import VIEWS_OF_AN_ADDRESS
from relay_supervisor.viewing.decoding import PageState, Received
from relay_supervisor.viewing.views import ALL_CAMERAS, OPERATOR, Audience, ViewError, Visitor

OFFER = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\n"
ANSWER = "v=0\r\na=candidate:1 1 udp 1 127.0.0.1 8560 typ host\r\na=candidate:2 1 udp 1 10.0.0.5 8560 typ host\r\n"
LOCAL = LocalConfig(listen="127.0.0.1", udp_ports="8560-8561")
END = 1_700_000_060.0


class Workers:
    """The fleet with workers that answer at once, as the director and the sessions see it."""

    def __init__(self) -> None:
        self.slots: dict[str, SimpleNamespace] = {}
        self.sent: list[tuple[str, Any]] = []
        self.refusal: LocalRefused | None = None
        self.quality = ""
        """What viewers get, as the answers say."""
        self.patched = LocalPatched(request=0, status=204)
        self.silent = self.unreachable = False
        self.director: Director | None = None

    def listen(self, listener: Director) -> None:
        self.director = listener

    def slot(self, camera: str) -> Any:
        return self.slots.get(camera)

    def start(self, spec: Any) -> None:
        pass

    def stop(self, camera: str, reason: str) -> Any:
        self.slots.pop(camera, None)
        return asyncio.sleep(0)

    def starts(self, camera: str, *, instance: str = "1", local: bool = True) -> None:
        """The camera's worker says hello."""
        hello = Hello(
            protocol=1, instance=instance, camera=camera, pid=1, started=1, state=WorkerState.LIVE, local=local
        )
        self.slots[camera] = SimpleNamespace(instance=instance, running=True, hello=hello, stats=None, stats_at=0.0)
        assert self.director is not None
        for listener in self.director._listeners:
            listener.worker_ready(self.director.running[camera])

    def reports(self, camera: str, at: float, report: LocalStats) -> None:
        """The camera's worker reports."""
        slot = self.slots[camera]
        stats = {"instance": slot.instance, "camera": camera, "sequence": 1, "at": 0.0, "uptime": 0.0}
        slot.stats, slot.stats_at = WorkerStats(**stats, state=WorkerState.LIVE, local=report), at

    def send(self, camera: str, message: Any) -> bool:
        if self.unreachable or camera not in self.slots:
            return False
        self.sent.append((camera, message))
        reply: FromWorker | None = None
        match message:
            case LocalOffer(request=number, viewer=viewer):
                answer = LocalAnswer(request=number, viewer=viewer, answer=ANSWER, quality=self.quality)
                reply = self.refusal or answer
                if self.refusal is not None:
                    reply = LocalRefused(request=number, status=self.refusal.status, reason=self.refusal.reason)
            case LocalTrickle(request=number):
                reply = msgspec.structs.replace(self.patched, request=number)
        if reply is not None and not self.silent:
            asyncio.get_running_loop().call_soon(self.says, camera, reply)
        return True

    def says(self, camera: str, message: FromWorker) -> None:
        assert self.director is not None
        self.director.worker_message(camera, message)

    def of(self, kind: type) -> list[Any]:
        return [message for _, message in self.sent if isinstance(message, kind)]


class Home:
    """Two cameras, Door and Yard, and their local viewers; `clock` stands still."""

    def __init__(self, directory: Path, config: LocalConfig = LOCAL, *, settings: CamerasConfig | None = None) -> None:
        self.clock = ManualClock(wall=1_700_000_000.0)
        self.store = Store(directory / "relay.db", self.clock, boot="boot").open()
        self.registry = Registry(settings or CamerasConfig())
        self.workers, self.events = Workers(), EventHub(self.clock, boot="b")
        leases = SimpleNamespace(want=lambda *_, **__: None, unwant=lambda _: None, drop=lambda _: None)
        sinks = SimpleNamespace(listen=lambda _: None, targets=lambda *_: [], forget=lambda _: None)
        sinks.retire = lambda _: asyncio.sleep(0)
        self.director = Director(
            self.registry,
            [SimpleNamespace(leases=leases)],  # type: ignore[list-item]
            sinks,  # type: ignore[arg-type]
            self.workers,  # type: ignore[arg-type]
            self.store,
            self.events,
            lambda camera: SimpleNamespace(camera=camera.id),  # type: ignore[arg-type,return-value]
            self.clock,
        )
        self.valid = True
        self.local = self.supervise(config)
        devices = [
            Device(f"enterprises/p/devices/{n}", n, "CAMERA", n.title(), (Protocol.RTSP,)) for n in ("door", "yard")
        ]
        self.registry.discovered(0, Listing(devices))
        self.door, self.yard = (camera.id for camera in self.registry)
        self.director.reconcile()

    def supervise(self, config: LocalConfig, credential: str = "token") -> LocalViewing:
        local = LocalViewing(
            config,
            registry=self.registry,
            director=self.director,
            store=self.store,
            clock=self.clock,
            on_asked=Watching(self.registry, self.director, self.clock).asked_for,
            tell=self.events.publish,
            link_valid=lambda link: self.valid,
            credential=credential,
        )
        local.load()
        return local

    def started(self) -> Home:
        for camera in (self.door, self.yard):
            self.workers.starts(camera)
        return self

    async def watch(self, camera: str, visitor: Visitor = OPERATOR, **more: Any) -> str:
        audience = more.pop("audience", ALL_CAMERAS)
        return (await self.local.open(camera, OFFER, audience=audience, visitor=visitor, **more)).viewer


def guest(number: int = 1, camera: str = "x") -> Visitor:
    return Visitor(operator=False, address=f"192.0.2.{number}", link=f"{camera}.{number}")


async def refused(opening: Any) -> ViewError:
    with pytest.raises(ViewError) as error:
        await opening
    return error.value


async def test_every_worker_is_told_its_port_and_those_that_get_none_are_named(tmp_path: Path) -> None:
    home = Home(tmp_path, LocalConfig(listen="127.0.0.1", udp_ports="8560", viewers=2, announce=["192.168.1.10"]))
    home.started()
    assert home.workers.sent == [
        (home.door, SetLocal(listen=["127.0.0.1"], port=8560, announce=["192.168.1.10"], viewers=2)),
        (home.yard, SetLocal(listen=[])),
    ]
    assert home.local.status(home.yard).problem == "no UDP port is left in local.udp_ports"
    error = await refused(home.watch(home.yard))
    assert (error.status, error.hint) == (503, "no UDP port is left in local.udp_ports")
    home.store.close()
    again = Home(tmp_path, LocalConfig(listen="127.0.0.1", udp_ports="8550-8560"))
    again.workers.starts(again.yard)
    again.workers.starts(again.door)
    assert [message.port for message in again.workers.of(SetLocal)] == [8550, 8560], "kept across restarts"


async def test_a_worker_of_an_earlier_release_is_left_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.workers.starts(home.door, local=False)
    assert home.workers.sent == []
    error = await refused(home.watch(home.door))
    assert (error.status, "earlier release" in error.hint) == (503, True)


async def test_an_offer_is_answered_with_announced_addresses_alone(tmp_path: Path) -> None:
    home = Home(tmp_path).started()
    made = await home.local.open("door", OFFER, audience=ALL_CAMERAS, visitor=OPERATOR)
    assert made.camera == home.door, "its name does as well as its id"
    assert "127.0.0.1" in made.answer
    assert "10.0.0.5" not in made.answer
    assert len(made.viewer) >= 32
    (offer,) = home.workers.of(LocalOffer)
    assert (offer.offer, offer.ends_at, offer.viewer) == (OFFER, 0.0, made.viewer)
    assert home.local.watched() == {home.door}
    assert home.local.status(home.door).viewers == 1
    assert (await home.local.trickle(made.viewer, "a=ice-ufrag:x", "*", visitor=OPERATOR)).fragment == ""
    home.workers.patched = LocalPatched(request=0, status=200, fragment=ANSWER)
    restarted = await home.local.trickle(made.viewer, "a=ice-ufrag:y", '"tag"', visitor=OPERATOR)
    assert [message.match for message in home.workers.of(LocalTrickle)] == ["*", '"tag"']
    assert "127.0.0.1" in restarted.fragment
    assert "10.0.0.5" not in restarted.fragment


async def test_who_has_the_small_picture_is_known_and_outlives_the_supervisor(tmp_path: Path) -> None:
    home = Home(tmp_path).started()
    await home.local.open("door", OFFER, audience=ALL_CAMERAS, visitor=OPERATOR, quality="small")
    await home.local.open("yard", OFFER, audience=ALL_CAMERAS, visitor=OPERATOR, quality="full")
    assert [offer.quality for offer in home.workers.of(LocalOffer)] == ["small", "full"]
    assert home.local.having_small() == {home.door: 1}
    home.store.close()
    later = Home(tmp_path)
    later.local.load()
    assert later.local.having_small() == {home.door: 1}


async def test_who_asked_for_the_small_picture_and_gets_the_full_one_does_not_count(tmp_path: Path) -> None:
    home = Home(tmp_path).started()
    home.workers.quality = "full"
    other = await home.local.open("yard", OFFER, audience=ALL_CAMERAS, visitor=OPERATOR, quality="small")
    assert home.local.having_small() == {}, "no small one is made"
    assert home.local.quality(other.viewer, visitor=OPERATOR) == "full", "and it is told"
    home.workers.quality = "small"
    made = await home.local.open("door", OFFER, audience=ALL_CAMERAS, visitor=OPERATOR, quality="small")
    assert home.local.having_small() == {home.door: 1}
    viewer = LocalViewerStats(name=digest(made.viewer), connected=True, quality="small")
    home.workers.reports(home.door, 1.0, LocalStats(viewers=[viewer]))
    assert home.local.having_small() == {home.door: 1}
    assert home.local.quality(made.viewer, visitor=OPERATOR) == "small"
    viewer.quality = "full"
    home.workers.reports(home.door, 2.0, LocalStats(viewers=[viewer]))
    assert home.local.having_small() == {}, "none is made any longer"
    assert home.local.quality(made.viewer, visitor=OPERATOR) == "full"
    with pytest.raises(WhepError):
        home.local.quality(made.viewer, visitor=guest())


async def test_what_the_worker_refuses_is_refused_in_its_words(tmp_path: Path) -> None:
    home = Home(tmp_path).started()
    home.workers.refusal = LocalRefused(request=0, status=406, reason="The offer has no H.264")
    error = await refused(home.watch(home.door))
    assert (error.status, error.code, str(error)) == (406, "no_common_codec", "The offer has no H.264")
    assert home.local.watched() == set()


async def test_an_answer_that_comes_too_late_leaves_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay_supervisor.local.requests.ANSWER_WITHIN", 0.01)
    home = Home(tmp_path).started()
    home.workers.silent = True
    error = await refused(home.watch(home.door))
    assert error.status == 503
    (offer,), (closed,) = home.workers.of(LocalOffer), home.workers.of(LocalClose)
    assert closed.viewer == offer.viewer
    home.workers.says(home.door, LocalAnswer(request=offer.request, viewer=offer.viewer, answer=ANSWER))
    assert len(home.workers.of(LocalClose)) == 2
    assert home.local.counters()["unanswered"] == 1


async def test_a_session_obeys_only_the_credential_that_made_it(tmp_path: Path) -> None:
    home = Home(tmp_path).started()
    mine, theirs = await home.watch(home.door), await home.watch(home.door, guest(1))
    for viewer, stranger in ((mine, guest(1)), (theirs, OPERATOR), (theirs, guest(2))):
        with pytest.raises(WhepError) as error:
            home.local.close(viewer, visitor=stranger)
        assert error.value.status == 404, "as if there were none"
        assert (await refused(home.local.trickle(viewer, "a=", "*", visitor=stranger))).status == 404
    elsewhere = Visitor(operator=False, address="198.51.100.9", link=guest(1).link)
    assert (await home.local.trickle(theirs, "a=", "*", visitor=elsewhere)).status == 204, "a phone changes its address"
    home.local.close(theirs, visitor=guest(1))
    home.local.close(mine, visitor=OPERATOR)
    assert len(home.local) == 0
    assert [message.viewer for message in home.workers.of(LocalClose)] == [theirs, mine]


async def test_a_link_shows_its_own_camera_and_says_nothing_of_others(tmp_path: Path) -> None:
    home = Home(tmp_path).started()
    audience = Audience(cameras=frozenset({home.door}), until=END)
    for other in (home.yard, "yard", "none"):
        error = await refused(home.watch(other, guest(), audience=audience))
        assert (error.status, error.code) == (403, "not_allowed")
    await home.watch(home.door, guest(), audience=audience)
    assert home.workers.of(LocalOffer)[0].ends_at == END


async def test_a_links_viewers_are_bounded(tmp_path: Path) -> None:
    home = Home(tmp_path, msgspec.structs.replace(LOCAL, viewers=12)).started()
    for _ in range(8):
        await home.watch(home.door, guest())
    assert (await refused(home.watch(home.door, guest()))).status == 429
    await home.watch(home.door, guest(2))
    assert home.local.counters()["refused"] == 1


async def test_viewers_of_an_address_are_bounded_whatever_their_links(tmp_path: Path) -> None:
    home = Home(tmp_path, msgspec.structs.replace(LOCAL, viewers=99)).started()
    everywhere = [Visitor(operator=False, address="192.0.2.1", link=f"x.{link}") for link in range(9) for _ in range(4)]
    for visitor in everywhere[:VIEWS_OF_AN_ADDRESS]:
        await home.watch(home.door, visitor)
    assert (await refused(home.watch(home.yard, everywhere[VIEWS_OF_AN_ADDRESS]))).status == 429
    await home.watch(home.yard, guest(2))


async def test_guests_leave_a_place_to_the_operator(tmp_path: Path) -> None:
    home = Home(tmp_path).started()
    watching = [await home.watch(home.door, guest(number)) for number in range(3)]
    full = await refused(home.watch(home.door, guest(9)))
    assert (full.status, getattr(full, "retry_after", 0.0)) == (503, 5.0)
    await home.watch(home.yard, guest(9))
    await home.watch(home.door)
    home.local.close(watching[0], visitor=guest(0))
    await home.watch(home.door, guest(9))


async def test_the_end_of_a_link_and_its_revocation_end_its_viewers(tmp_path: Path) -> None:
    home = Home(tmp_path).started()
    link = LinkCredential(home.door, str(int(END)), "signature")
    audience = Audience(cameras=frozenset({home.door}), until=END)
    ends = await home.watch(home.door, guest(), audience=audience, link=link)
    home.local.sweep(home.clock.now())
    assert len(home.local) == 1
    await home.clock.advance(60.0)
    home.local.sweep(home.clock.now())
    later = Audience(cameras=frozenset({home.door}), until=END + 3600)
    revoked, operators = await home.watch(home.door, guest(), audience=later, link=link), await home.watch(home.door)
    home.workers.unreachable, home.valid = True, False
    home.local.sweep(home.clock.now())
    assert len(home.local) == 2, "it is tried again: the worker has not heard of it"
    home.workers.unreachable = False
    home.local.sweep(home.clock.now())
    assert [message.viewer for message in home.workers.of(LocalClose)] == [ends, revoked]
    assert home.local.outcomes["expired"] == home.local.outcomes["revoked"] == 1
    await home.store.database.flush(30.0)  # a writer of its own saves them
    assert [viewer.viewer for viewer in home.store.local_viewers()] == [operators]
    # A link that is revoked on request ends at once, and no other.
    home.valid = True
    again = await home.watch(home.door, guest(), audience=later, link=link)
    (name,) = {viewer.visitor.link for viewer in home.local._viewers.values()} - {""}
    assert (home.local.of_link(name), home.local.of_link("other")) == (1, 0)
    home.local.end_link(name)
    assert home.workers.of(LocalClose)[-1].viewer == again
    assert (home.local.of_link(name), home.local.outcomes["revoked"]) == (0, 2)


async def test_viewers_end_with_their_worker_and_with_their_connection(tmp_path: Path) -> None:
    home = Home(tmp_path).started()
    first, second = await home.watch(home.door), await home.watch(home.yard)
    home.workers.says(home.yard, LocalViewerChanged(viewer=first, state="ended"))
    assert len(home.local) == 2, "another camera's worker says nothing about it"
    home.workers.says(home.door, LocalViewerChanged(viewer=first, state="connected"))
    home.workers.says(home.door, LocalViewerChanged(viewer=first, state="ended", reason="it left"))
    assert home.local.watched() == {home.yard}
    home.workers.starts(home.yard, instance="2")
    home.local.sweep(home.clock.now())
    assert home.local.watched() == set()
    assert home.local.outcomes["lost"] == 1
    with pytest.raises(WhepError):
        home.local.close(second, visitor=OPERATOR)


async def test_a_viewer_that_its_worker_does_not_report_is_forgotten(tmp_path: Path) -> None:
    home = Home(tmp_path).started()
    kept, gone = await home.watch(home.door), await home.watch(home.door)
    report = LocalStats(port=8560, viewers=[LocalViewerStats(name=digest(kept))])
    await home.clock.advance(FORGOTTEN_AFTER + 1)
    home.local.sweep(home.clock.now())
    assert len(home.local) == 2, "no report since"
    home.workers.reports(home.door, home.clock.now(), report)
    home.local.sweep(home.clock.now())
    assert home.local.watched() == {home.door}
    with pytest.raises(WhepError):
        home.local.close(gone, visitor=OPERATOR)
    home.local.close(kept, visitor=OPERATOR)


async def test_the_next_supervisor_knows_the_viewers_of_the_workers_that_it_adopts(tmp_path: Path) -> None:
    home = Home(tmp_path).started()
    await home.watch(home.door)
    link = LinkCredential(home.door, str(int(END)), "signature")
    theirs = await home.watch(home.door, guest(), link=link, audience=Audience(until=END))
    home.store.close()
    home.store = Store(tmp_path / "relay.db", home.clock, boot="boot").open()
    home.director._listeners.clear()
    home.local = home.supervise(LOCAL)
    home.local.sweep(home.clock.now())
    assert len(home.local) == 2
    rotated = home.supervise(LOCAL, credential="another token")
    rotated.sweep(home.clock.now())
    assert rotated.outcomes["revoked"] == 1, "the operator's, made with the token of before"
    rotated.close(theirs, visitor=guest())
    assert len(rotated) == 0


async def test_a_reload_moves_it_and_switches_it_off(tmp_path: Path) -> None:
    home = Home(tmp_path).started()
    home.workers.sent.clear()
    home.local.configure(LOCAL)
    assert home.workers.sent == []
    home.local.configure(LocalConfig(listen=["127.0.0.1", "::1"], udp_ports="8561-8562"))
    assert {camera: message.port for camera, message in home.workers.sent} == {home.door: 8562, home.yard: 8561}
    home.workers.sent.clear()
    home.local.configure(LocalConfig())
    assert home.workers.of(SetLocal) == [SetLocal(listen=[])] * 2
    assert (await refused(home.watch(home.door))).code == "local_off"
    assert not home.local.status(home.door).on


async def test_a_port_that_becomes_free_is_dealt_to_who_has_none(tmp_path: Path) -> None:
    home = Home(tmp_path, LocalConfig(listen="127.0.0.1", udp_ports="8560")).started()
    home.workers.sent.clear()
    home.registry.discovered(0, Listing([camera.device for camera in home.registry if camera.id == home.yard]))
    home.registry.discovered(0, Listing([camera.device for camera in home.registry if camera.id == home.yard]))
    home.director.reconcile()
    home.local.sweep(home.clock.now())
    assert [message.port for message in home.workers.of(SetLocal)] == [8560]
    assert home.local.status(home.yard).problem == ""


async def test_what_a_worker_says_is_wrong_is_told(tmp_path: Path) -> None:
    home = Home(tmp_path).started()
    problem = "UDP port 8560 is taken"
    home.workers.reports(home.door, 1.0, LocalStats(problem=problem))
    assert home.local.status(home.door).problem == problem
    assert (await refused(home.watch(home.door))).hint == problem


async def test_a_viewer_wakes_a_camera_on_demand_and_keeps_it_awake(tmp_path: Path) -> None:
    settings = CamerasConfig(settings={"Door": CameraSettings(mode="on_demand", idle_after=30.0)})
    home = Home(tmp_path, settings=settings)
    home.local._clock = SystemClock()  # it waits for the worker, which starts meanwhile
    assert home.door not in home.director.running
    opening = asyncio.ensure_future(home.watch(home.door))
    async with asyncio.timeout(10):
        while home.door not in home.director.running:
            await asyncio.sleep(0)
        assert home.local.watched() == {home.door}
        home.workers.starts(home.door)
        await opening
    assert home.local.watched() == {home.door}


async def test_a_camera_that_is_switched_off_or_not_there(tmp_path: Path) -> None:
    settings = CamerasConfig(settings={"Door": CameraSettings(enabled=False)})
    home = Home(tmp_path, settings=settings)
    assert (await refused(home.watch(home.door))).status == 409
    assert (await refused(home.watch("none"))).status == 404


async def test_what_a_page_receives_counts_for_its_sessions_camera_until_that_ends(tmp_path: Path) -> None:
    home = Home(tmp_path).started()
    visitor = guest()
    viewer = await home.watch(home.door, visitor)
    decoding, told = (
        home.local._decoding,
        [Received(camera=camera, bytes=9, frames=3) for camera in (home.door, home.yard)],
    )

    def sight(camera: str) -> PageState:
        return decoding.page_state(viewer, camera, home.clock.now())

    assert viewer in home.local
    assert home.local.received(viewer, told, visitor=visitor) == {}
    assert (sight(home.door), sight(home.yard)) == (PageState.DECODING, PageState.UNKNOWN)
    with pytest.raises(WhepError):
        home.local.received(viewer, told, visitor=guest(2))
    home.local.close(viewer, visitor=visitor)
    assert viewer not in home.local
    assert sight(home.door) is PageState.UNKNOWN


async def test_a_viewer_that_only_its_worker_knows_is_ended(tmp_path: Path) -> None:
    """Its credential was lost with the state, or could not be saved: nobody could revoke it."""
    home = Home(tmp_path).started()
    known = await home.watch(home.door)
    report = LocalStats(viewers=[LocalViewerStats(name=digest(name)) for name in (known, "lost")])

    def sweep() -> None:
        home.workers.reports(home.door, home.clock.now(), report)
        home.local.sweep(home.clock.now())

    sweep()
    await home.clock.advance(ENDED_AFTER - 0.1)
    sweep()
    assert home.workers.of(LocalClose) == [], "it may just have ended, and the report be older"
    await home.clock.advance(0.1)
    sweep()
    (close,) = home.workers.of(LocalClose)
    assert (close.viewer, close.digest) == ("", digest("lost"))
    assert (home.local.outcomes["unknown"], known in home.local) == (1, True)
    report = LocalStats(viewers=[LocalViewerStats(name=digest(known))])
    for _ in range(10):
        await home.clock.advance(1.0)
        sweep()
    assert len(home.workers.of(LocalClose)) == 1


async def test_a_viewer_is_not_lost_to_a_report_that_the_paused_supervisor_reads_late(tmp_path: Path) -> None:
    home = Home(tmp_path).started()
    watching = asyncio.create_task(home.local.watch())
    await home.clock.advance(2.0)
    name = await home.watch(home.door)
    home.clock._now += 60.0  # it stands still
    home.workers.reports(home.door, home.clock.now(), LocalStats())  # of before the viewer came
    await home.clock.advance(3.0)
    assert name in home.local
    for _ in range(round(FORGOTTEN_AFTER)):
        await home.clock.advance(1.0)
        home.workers.reports(home.door, home.clock.now(), LocalStats())
    await home.clock.advance(1.0)
    assert name not in home.local, "it was never there"
    watching.cancel()
