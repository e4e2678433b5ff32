"""Viewers that a worker answers itself: stock peers, hellos as the path delivers them, one viewer beside another."""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aioice.ice
import pytest

from relay_common.local_messages import LocalAnswer
from relay_common.sdp_lines import ice_ufrag
from relay_worker.local.dtls import MTU
from relay_worker.local.ports import MAX_DESTINATIONS
from relay_worker.rtp import rtcp
from tests.fixtures.link_emulator import Link, LinkEmulator
from tests.fixtures.local_rig import LocalRig, StockViewer, local_rig, until
from tests.fixtures.network_namespace import in_own_network
from tests.fixtures.raw_viewer import Order, RawViewer

pytestmark = pytest.mark.media


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """aioice leaves loopback out."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


@pytest.fixture
async def rig() -> AsyncIterator[LocalRig]:
    async with local_rig() as made:
        yield made


def answered(rig: LocalRig, viewer: RawViewer) -> LocalAnswer:
    said = rig.ask(viewer.offer())
    assert isinstance(said, LocalAnswer), said
    return said


async def test_a_stock_peer_decodes_and_leaves(rig: LocalRig) -> None:
    viewer = StockViewer(rig)
    await viewer.watch()
    await until(lambda: len(viewer.frames) > 60, "two seconds of pictures")
    await until(lambda: rig.report().viewers[0].rtt > 0, "a receiver report")
    assert rig.connected() == [viewer.name]
    assert rig.keyframe_requests == 0, "the held group was enough"
    await viewer.close()
    await until(lambda: rig.ended() == {viewer.name: "the viewer has left"}, "its end is noticed")
    report = rig.report()
    assert (report.viewers, report.lost) == ([], 0)
    assert report.packets_sent > 60


async def test_names_among_the_candidates_are_not_resolved(rig: LocalRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Browsers hide their addresses behind names of multicast DNS; a lite agent learns them from checks."""
    asked: list[object] = []
    resolve = socket.getaddrinfo

    def note(host: object, *arguments: Any, **more: Any) -> Any:
        asked.append(host)
        return resolve("127.0.0.1", *arguments, **more)

    viewer = RawViewer()
    hidden = "".join(
        f"a=candidate:{number} 1 udp 2113937151 {host} 54321 typ host\r\n"
        for number, host in enumerate(["8f0c2e0a-3b39-4ea9-9c4e-1d8b1a1d2f11.local", "relay.example", "printer.local."])
    )
    monkeypatch.setattr(socket, "getaddrinfo", note)
    said = rig.ask(viewer.offer().replace("a=rtcp-mux\r\n", f"a=rtcp-mux\r\n{hidden}"))
    assert isinstance(said, LocalAnswer), said
    assert ".local" not in said.answer
    patched = rig.patch(said.viewer, f"a=ice-ufrag:raw\r\n{hidden}")
    assert patched.status == 204
    await viewer.connect(said.answer)
    await until(lambda: len(viewer.sequences) > 20, "media come")
    assert [host for host in asked if host != "127.0.0.1"] == []
    viewer.close()


async def test_who_takes_sound_alone_hears_it(rig: LocalRig) -> None:
    """As a Firefox without H.264 does."""
    viewer = StockViewer(rig, kinds=("audio",))
    await viewer.watch()
    await until(lambda: viewer.sounds > 100, "two seconds of sound")
    assert rig.ended() == {}
    await viewer.close()


HELLOS: dict[str, Order] = {
    "in order": lambda flight: flight,
    "reversed": lambda flight: flight[::-1],
    "repeated": lambda flight: [piece for piece in flight for _ in range(2)],
    "shuffled": lambda flight: random.Random(3).sample(flight * 2, 2 * len(flight)),
    "first lost": lambda flight: flight[1:],
    "last lost": lambda flight: flight[:-1],
}


@pytest.mark.parametrize("mtu", [1232, 300])
@pytest.mark.parametrize("path", HELLOS)
async def test_a_hello_in_fragments_is_taken_however_they_come(rig: LocalRig, path: str, mtu: int) -> None:
    """Firefox's, with post-quantum key shares, spans two datagrams (1408 and 103 bytes), at an MTU of 1280 as well."""
    viewer = RawViewer(mtu=mtu, order=HELLOS[path])
    await viewer.connect(answered(rig, viewer).answer)
    await until(lambda: len(viewer.sequences) > 20, "media come")
    assert sum(viewer.flights[0]) > 1280
    assert len(viewer.flights[0]) >= 2
    assert viewer.largest <= MTU, "our flights fit a path of 1280 bytes"
    assert rig.counters()["failures"] == 0
    viewer.close()


async def test_a_viewer_that_wants_to_be_the_dtls_server_is_called(rig: LocalRig) -> None:
    viewer = RawViewer(active=False)
    answer = answered(rig, viewer).answer
    assert "a=setup:active" in answer
    await viewer.connect(answer)
    await until(lambda: len(viewer.sequences) > 20, "media come")
    viewer.close()


async def test_who_has_another_certificate_gets_nothing(rig: LocalRig) -> None:
    viewer, other = RawViewer(), RawViewer()
    said = rig.ask(other.offer())
    assert isinstance(said, LocalAnswer)
    await viewer.connect(said.answer)
    await until(lambda: said.viewer in rig.ended(), "it is refused")
    assert "fingerprint" in rig.ended()[said.viewer]
    assert rig.connected() == []
    assert viewer.sequences == []
    viewer.close()


async def test_ending_a_viewer_is_said_to_it_and_costs_no_other(rig: LocalRig) -> None:
    first, second = RawViewer(), RawViewer()
    names = []
    for viewer in (first, second):
        said = answered(rig, viewer)
        names.append(said.viewer)
        await viewer.connect(said.answer)
        await until(lambda viewer=viewer: viewer.sequences, "media come")  # type: ignore[misc]
    rig.close(names[0], "its link was revoked")
    await until(lambda: first.closed, "close_notify comes")
    assert rig.ended() == {names[0]: "its link was revoked"}
    before = len(second.sequences)
    await until(lambda: len(second.sequences) > before + 60, "the other goes on")
    assert second.missing == 0
    for viewer in (first, second):
        viewer.close()


async def test_a_viewer_moves_to_another_address(rig: LocalRig) -> None:
    viewer = RawViewer()
    said = answered(rig, viewer)
    await viewer.connect(said.answer)
    await until(lambda: viewer.sequences, "media come")
    viewer.close()  # its old address
    await viewer.connect(said.answer)
    before = len(viewer.sequences)
    await until(lambda: len(viewer.sequences) > before + 30, "media come to the new one")
    viewer.close()


async def test_keyframe_requests_go_upstream_once_a_second(rig: LocalRig) -> None:
    viewer = RawViewer()
    answer = answered(rig, viewer).answer
    await viewer.connect(answer)
    await until(lambda: viewer.sequences, "media come")
    found = re.search(r"a=ssrc-group:FID (\d+) ", answer)
    assert found is not None
    assert viewer.sending is not None
    for _ in range(10):
        viewer.transport.sendto(viewer.sending.protect_rtcp(rtcp.pack_pli(7, int(found[1]))))
    await until(lambda: rig.keyframe_requests, "it is passed on")
    before = len(viewer.sequences)
    await until(lambda: len(viewer.sequences) > before + 10, "all have been handled")
    assert rig.keyframe_requests == 1
    viewer.close()


async def test_ice_is_restarted_by_patch(rig: LocalRig) -> None:
    viewer = RawViewer()
    said = answered(rig, viewer)
    await viewer.connect(said.answer)
    await until(lambda: viewer.sequences, "media come")
    assert rig.patch(said.viewer, "a=ice-ufrag:raw\r\na=candidate:1 1 udp 1 x.local 9 typ host\r\n").status == 204
    before, trickled = (
        f'"{ice_ufrag(said.answer)}"',
        "a=ice-ufrag:raw\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n",
    )
    assert rig.patch(said.viewer, trickled, f'"x", {before}').status == 204
    assert rig.patch(said.viewer, trickled, '"x"').status == 412
    restarted = rig.patch(said.viewer, f"a=ice-ufrag:other\r\na=ice-pwd:{'q' * 22}\r\n", "*")
    assert restarted.status == 200
    assert rig.patch(said.viewer, trickled, before).status == 412, "it was sent before, and restarts nothing"
    assert rig.patch(said.viewer, "a=ice-ufrag:other\r\n", f'"{ice_ufrag(restarted.fragment)}"').status == 204
    viewer.close()
    await viewer.connect(restarted.fragment)
    before = len(viewer.sequences)
    await until(lambda: len(viewer.sequences) > before + 30, "media come with the new credentials")
    viewer.close()


async def test_over_ipv6(rig: LocalRig) -> None:
    rig.listen("127.0.0.1", "::1")
    if rig.report().problem:
        pytest.skip(f"no IPv6 here: {rig.report().problem}")
    viewer = RawViewer()
    answer = answered(rig, viewer).answer
    assert f" ::1 {rig.report().port} typ host" in answer
    only = "\r\n".join(line for line in answer.splitlines() if " 127.0.0.1 " not in line)
    await viewer.connect(only, local="::1")
    await until(lambda: len(viewer.sequences) > 30, "media come")
    assert viewer.missing == 0
    viewer.close()


async def answered_from(rig: LocalRig, everywhere: str, hosts: Sequence[str]) -> None:
    """Watch at each of the hosts, from the last one; a viewer's socket takes nothing from another address."""
    rig.listen(everywhere, announce=list(hosts), viewers=len(hosts) + 1)
    assert not rig.report().problem
    viewers = []
    for host in hosts:
        viewer = RawViewer()
        answer = answered(rig, viewer).answer.splitlines()
        only = [line for line in answer if not line.startswith("a=candidate") or f" {host} " in line]
        await viewer.connect("\r\n".join(only), local=hosts[-1])
        viewers.append(viewer)
    for viewer in viewers:
        await until(lambda viewer=viewer: len(viewer.sequences) > 30, f"media come to {hosts}")  # type: ignore[misc]
        viewer.close()


async def test_who_listens_on_all_addresses_answers_from_the_one_that_was_sent_to(rig: LocalRig) -> None:
    await answered_from(rig, "0.0.0.0", ["127.0.0.2", "127.0.0.1"])
    rig.listen()
    await answered_from(rig, "0.0.0.0", [f"127.0.1.{host}" for host in range(1, MAX_DESTINATIONS + 1)])
    assert rig.counters()["undirected_datagrams"] == 0, "listening anew forgets"
    viewer = RawViewer()
    answer = answered(rig, viewer).answer.replace(" 127.0.1.1 ", " 127.0.2.1 ")
    await viewer.connect(answer)
    await until(lambda: rig.counters()["undirected_datagrams"], "one address more is not told apart")
    viewer.close()


def test_so_it_does_between_interfaces_and_over_ipv6() -> None:
    async def watch() -> None:
        async with local_rig() as rig:
            await answered_from(rig, "0.0.0.0", ["198.18.0.2", "198.18.1.3"])
            await answered_from(rig, "::", ["fd00:18::2", "fd00:18::3"])

    in_own_network(lambda: asyncio.run(watch()), ["198.18.0.2", "198.18.1.3", "fd00:18::2", "fd00:18::3"])


async def test_a_viewer_on_a_bad_path_costs_a_clean_one_nothing(rig: LocalRig) -> None:
    clean = RawViewer()
    await clean.connect(answered(rig, clean).answer)
    link = LinkEmulator()
    link.target = ("127.0.0.1", rig.report().port)
    await link.start()
    rig.listen(announce=[f"127.0.0.1:{link.address[1]}"])
    bad = StockViewer(rig)
    await bad.watch()
    await until(lambda: bad.name in rig.connected(), "it connects")
    link.down = Link(loss=0.5)
    before = len(clean.sequences)
    await until(lambda: link.down.lost > 150, "packets are lost")
    await until(lambda: rig.report().viewers[-1].loss > 0.2, "it says so")
    assert len(clean.sequences) > before + 100
    assert clean.missing == 0
    assert rig.report().retransmitted > 0
    clean.close()
    await bad.close()
    link.close()
