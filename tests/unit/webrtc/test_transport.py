"""Addresses to gather on, and the in-place protector."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable

import pytest
from aioice.ice import CandidatePair
from aiortc import RTCDtlsParameters
from pylibsrtp import Policy, Session

from relay_worker import native
from relay_worker.rtp import rtcp
from relay_worker.webrtc.addresses import default_host_addresses
from relay_worker.webrtc.gso import UdpPath
from relay_worker.webrtc.protector import SLOT_SIZE, SLOTS, SrtpProtector
from relay_worker.webrtc.transport import MediaTransport, PeerConnectError
from tests.fixtures.two_ends import remote

pytestmark = pytest.mark.usefixtures("data_path")


def test_there_is_always_an_address() -> None:
    addresses = default_host_addresses()
    assert addresses
    assert len(addresses) == len(set(addresses))
    assert default_host_addresses(loopback=True) == ["127.0.0.1"]
    both = default_host_addresses(loopback_too=True)
    assert both.count("127.0.0.1") == 1
    assert set(both) == {"127.0.0.1", *addresses}


async def test_gathering_on_loopback_gives_one_loopback_candidate() -> None:
    transport = MediaTransport(addresses=["127.0.0.1"])
    try:
        local = await transport.gather()
        (candidate,) = local.candidates
        assert candidate.split()[4] == "127.0.0.1"
        assert candidate.split()[6:8] == ["typ", "host"]
        assert len(local.fingerprint.split(":")) == 32
        assert local.ice_ufrag
    finally:
        await transport.close()
        await transport.close()  # more than once is fine


async def test_each_candidate_has_a_priority_of_its_own_in_the_order_of_the_addresses() -> None:
    addresses = ["127.0.0.2", "127.0.0.1", "127.0.0.3"]
    transport = MediaTransport(addresses=addresses)
    try:
        candidates = [candidate.split() for candidate in (await transport.gather()).candidates]
    finally:
        await transport.close()
    ranked = sorted(candidates, key=lambda words: -int(words[3]))
    assert [words[4] for words in ranked] == addresses
    assert len({words[3] for words in candidates}) == 3
    assert max(int(words[3]) for words in candidates) == 126 << 24 | 65535 << 8 | 255


async def test_what_the_peer_sends_to_another_of_our_addresses_is_read() -> None:
    """As pion does, which likes another of the pairs that were nominated."""
    came: list[bytes] = []
    ours = MediaTransport(addresses=["127.0.0.1", "127.0.0.2"], on_packet=lambda packet, _, __: came.append(packet))
    peer = MediaTransport(addresses=["127.0.0.1"])
    peer._connection.ice_controlling = False
    try:
        here, there = await ours.gather(), await peer.gather()
        await asyncio.gather(ours.connect(remote(there, "client")), peer.connect(remote(here, "server")))
        reports = {
            protocol.transport.get_extra_info("sockname"): rtcp.pack_receiver_report(ssrc, [])
            for ssrc, protocol in enumerate(ours._connection._protocols)
        }
        assert len(reports) == 2
        async with asyncio.timeout(30):
            while not set(reports.values()) <= set(came):  # one alone may be lost while ICE still chooses
                for address, report in reports.items():
                    peer._connection._protocols[0].transport.sendto(peer._dtls._tx_srtp.protect_rtcp(report), address)
                await asyncio.sleep(0.1)
        assert set(came) == set(reports.values())
        assert ours.media.rejected == 0
    finally:
        await asyncio.gather(ours.close(), peer.close())


async def test_nothing_is_opened_by_a_connection_that_is_closed_while_it_is_made() -> None:
    """Its descriptor would be closed with the loop still watching it, and the next one of that number be deaf."""
    ours = MediaTransport(addresses=["127.0.0.1"], on_wake=lambda now: None, on_frames=lambda *frames: None)
    peer = MediaTransport(addresses=["127.0.0.1"])
    peer._connection.ice_controlling = False
    start, stop, closing, go_on = ours._dtls.start, ours._dtls.stop, list[asyncio.Task[None]](), asyncio.Event()

    async def stop_late() -> None:
        await go_on.wait()
        await stop()

    async def start_late(parameters: RTCDtlsParameters) -> None:
        await start(parameters)
        closing.append(asyncio.get_running_loop().create_task(ours.close()))
        await asyncio.sleep(0)  # it has begun

    ours._dtls.stop, ours._dtls.start = stop_late, start_late  # type: ignore[method-assign]
    here, there = await ours.gather(), await peer.gather()
    made = asyncio.gather(
        ours.connect(remote(there, "client")), peer.connect(remote(here, "server")), return_exceptions=True
    )
    (error, _) = await made
    go_on.set()
    await asyncio.gather(*closing, peer.close())
    assert isinstance(error, PeerConnectError)
    assert (ours._incoming, ours.path, ours.media.arrivals) == (None, None, None)


@pytest.mark.parametrize("after", [0, 1, 40])
async def test_a_connection_that_is_closed_before_it_is_made_says_so(after: int) -> None:
    """So many rounds of the loop after its beginning, in which it is not made."""
    ours, peer = MediaTransport(addresses=["127.0.0.1"]), MediaTransport(addresses=["127.0.0.1"])
    _, there = await ours.gather(), await peer.gather()
    connecting = asyncio.get_running_loop().create_task(ours.connect(remote(there, "client")))
    for _ in range(after):
        await asyncio.sleep(0)
    await asyncio.gather(ours.close(), peer.close())
    with pytest.raises(PeerConnectError, match="closed while it was made"):
        await connecting


async def test_an_ice_restart_whose_old_way_has_ended_meanwhile_has_failed() -> None:
    """The peer's consent runs out while it is asked for the restart: aioice forgets what it had nominated."""
    ours, peer = MediaTransport(addresses=["127.0.0.1"]), MediaTransport(addresses=["127.0.0.1"])
    peer._connection.ice_controlling = False
    here, there = await ours.gather(), await peer.gather()
    await asyncio.gather(ours.connect(remote(there, "client")), peer.connect(remote(here, "server")))
    assert ours.ip_header == 20
    await ours.gather_again()
    await ours._connection.close()
    with pytest.raises(PeerConnectError, match="the way to the SFU has ended"):
        await ours.reconnect(remote(there, "client"))
    await asyncio.gather(ours.close(), peer.close())


async def test_what_reads_stops_before_the_socket_is_closed() -> None:
    ours = MediaTransport(addresses=["127.0.0.1"], on_wake=lambda now: None, on_frames=lambda *frames: None)
    peer = MediaTransport(addresses=["127.0.0.1"])
    peer._connection.ice_controlling = False
    here, there = await ours.gather(), await peer.gather()
    await asyncio.gather(ours.connect(remote(there, "client")), peer.connect(remote(here, "server")))
    incoming, loop = ours._incoming, asyncio.get_running_loop()
    assert incoming is not None
    number = incoming.fileno()
    assert (ours.media.arrivals is None) == (native.compiled() is None)
    await asyncio.gather(ours.close(), peer.close())
    assert incoming.fileno() < 0
    await ours.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    near, far = socket.socketpair()
    came = asyncio.Event()
    with near, far, socket.socket(fileno=os.dup2(near.fileno(), number)):  # who has its number next
        loop.add_reader(number, came.set)
        far.send(b"x")
        async with asyncio.timeout(10):
            await came.wait()
        loop.remove_reader(number)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_peer_that_is_gone_is_noticed_by_its_unreachable_port(address: str) -> None:
    over = asyncio.Event()
    async with connected(address, over.set) as (ours, peer):
        assert isinstance(ours.path, UdpPath)
        killed(peer)
        began = time.monotonic()
        async with asyncio.timeout(30):
            while not over.is_set():
                for _ in range(2):  # the second meets the error of the first
                    ours.path.send([memoryview(b"\x80" * 200)] * 3)
                    ours.path.send([memoryview(b"\x80" * 200)])
                await asyncio.sleep(0.02)
        print(f"noticed after {time.monotonic() - began:.2f} s")
        assert ours.counters()["unreachable"] > 0
        assert ours.path.drops == 0, "a packet that met the error of another was sent again"


async def test_a_peer_that_is_there_is_kept_whatever_icmp_says() -> None:
    over = asyncio.Event()
    async with connected("127.0.0.1", over.set) as (ours, peer):
        pair = ours._connection._nominated[1]
        for _ in range(5):
            ours._refused(pair)
        assert ours._checking is not None
        first = ours._checking
        async with asyncio.timeout(30):
            await first
        assert not over.is_set()
        peer._connection._protocols[0].datagram_received = lambda data, address: None  # type: ignore[method-assign]
        ours._refused(pair)
        assert ours._checking is not first, "and it is checked again"
        async with asyncio.timeout(30):
            await over.wait()


async def test_a_peer_nearby_that_falls_silent_is_noticed_without_icmp() -> None:
    """As one that was started again before a packet of ours was refused."""
    over = asyncio.Event()
    async with connected("127.0.0.1", over.set) as (ours, peer):
        asked, answer = [0], peer._connection._protocols[0].datagram_received

        def counting(data: bytes, address: tuple[str, int]) -> None:
            asked[0] += 1
            answer(data, address)

        peer._connection._protocols[0].datagram_received = counting  # type: ignore[method-assign]
        async with asyncio.timeout(30):
            while asked[0] < 3:  # it says nothing by itself, and answers
                await asyncio.sleep(0.01)
        assert not over.is_set()
        pair = ours._connection._nominated[1]  # aioice may nominate another later, as with Chromium
        ours._connection._nominated[1] = CandidatePair(pair.protocol, pair.remote_candidate)
        peer._connection._protocols[0].datagram_received = lambda data, address: None  # type: ignore[method-assign]
        async with asyncio.timeout(30):
            await over.wait()
        assert ours.counters()["unreachable"] == 0


@contextlib.asynccontextmanager
async def connected(
    address: str, on_closed: Callable[[], None]
) -> AsyncIterator[tuple[MediaTransport, MediaTransport]]:
    """Two ends, of which the first one notices refusals."""
    ours = MediaTransport(addresses=[address], on_unanswered=on_closed)
    peer = MediaTransport(addresses=[address])
    peer._connection.ice_controlling = False
    try:
        here, there = await ours.gather(), await peer.gather()
        await asyncio.gather(ours.connect(remote(there, "client")), peer.connect(remote(here, "server")))
        yield ours, peer
    finally:
        await asyncio.gather(ours.close(), peer.close())


def killed(peer: MediaTransport) -> None:
    """End its sockets without a word."""
    assert isinstance(peer.path, UdpPath)
    peer.path.close()
    for protocol in peer._connection._protocols:
        protocol.transport.abort()


def test_the_protector_is_in_place_and_counts_refusals() -> None:
    key = os.urandom(28)
    profile = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
    protector = SrtpProtector(Session(Policy(key=key, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile)))
    far = Session(Policy(key=key, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=profile))
    for slot in range(SLOTS):
        packet = bytes([0x80, 96]) + slot.to_bytes(2, "big") + bytes(8) + b"payload"
        protector.buffer[slot * SLOT_SIZE : slot * SLOT_SIZE + len(packet)] = packet
        length = protector.protect(slot, len(packet))
        assert length == len(packet) + 16
        assert far.unprotect(bytes(protector.slots[slot][:length])) == packet
    assert protector.protect(0, 4) == 0
    assert protector.failures == 1


def test_foreign_code_holds_the_bytes_and_no_view_of_them() -> None:
    """CPython's collector releases the views that it finds in a cycle; one that is held ends the process later."""
    protector = SrtpProtector(Session(Policy(key=os.urandom(30), ssrc_type=Policy.SSRC_ANY_OUTBOUND)))
    protector.buffer.release()  # BufferError while somebody holds it
    assert protector.protect(0, 60) == 60 + 10
