"""Addresses to gather on, and the in-place protector."""

from __future__ import annotations

import os

from pylibsrtp import Policy, Session

from relay_worker.webrtc.transport import SLOT_SIZE, SLOTS, MediaTransport, SrtpProtector, default_host_addresses


def test_there_is_always_an_address() -> None:
    addresses = default_host_addresses()
    assert addresses
    assert len(addresses) == len(set(addresses))
    assert default_host_addresses(loopback=True) == ["127.0.0.1"]


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
