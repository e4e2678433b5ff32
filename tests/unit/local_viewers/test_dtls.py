"""Our end of a viewer's DTLS: flights that fit the path, and bounds on what a peer may send."""

from __future__ import annotations

import pytest

from relay_worker.local import dtls
from relay_worker.local.dtls import MAX_DATAGRAMS, DtlsCertificate, DtlsEndpoint, DtlsState


def pair() -> tuple[DtlsEndpoint, DtlsEndpoint]:
    """A server and a client that expect each other."""
    ours, theirs = DtlsCertificate(), DtlsCertificate()
    server = DtlsEndpoint(ours, [("sha-256", theirs.fingerprint.lower())])
    client = DtlsEndpoint(theirs, [("SHA-256", ours.fingerprint), ("md5", "unknown")], server=False)
    return server, client


def shake(server: DtlsEndpoint, client: DtlsEndpoint) -> list[bytes]:
    """Everything that the server sends until both are done."""
    sent = []
    client.start(0.0)
    for _ in range(10):
        for datagram in client.take_datagrams():
            server.receive_datagram(datagram, 0.0)
        for datagram in server.take_datagrams():
            sent.append(datagram)
            client.receive_datagram(datagram, 0.0)
    return sent


def test_both_ends_derive_the_same_keys() -> None:
    server, client = pair()
    shake(server, client)
    assert server.state is client.state is DtlsState.CONNECTED
    assert server.sending is not None
    assert client.receiving is not None
    assert client.sending is not None
    assert server.receiving is not None
    packet = bytes.fromhex("80600001000000010000000a") + b"payload"
    assert client.receiving.unprotect(server.sending.protect(packet)) == packet
    assert server.receiving.unprotect(client.sending.protect(packet)) == packet
    assert server.next_deadline() is None


@pytest.mark.parametrize("mtu", [300, 600])
def test_no_datagram_is_larger_than_the_path_takes(monkeypatch: pytest.MonkeyPatch, mtu: int) -> None:
    monkeypatch.setattr(dtls, "MTU", mtu)
    server, client = pair()
    sizes = [len(datagram) for datagram in shake(server, client)]
    assert server.state is DtlsState.CONNECTED
    assert max(sizes) <= mtu
    assert len(sizes) >= sum(sizes) / mtu
    assert sum(sizes) > mtu, "the certificate does not fit into one"


def test_the_end_is_told_and_understood() -> None:
    server, client = pair()
    shake(server, client)
    server.close()
    (goodbye,) = server.take_datagrams()
    client.receive_datagram(goodbye, 1.0)
    assert client.state is DtlsState.CLOSED


def test_another_certificate_is_refused() -> None:
    server, _ = pair()
    _, client = pair()
    shake(server, client)
    assert server.state is DtlsState.FAILED
    assert "fingerprint" in server.reason
    assert server.sending is None


def test_garbage_before_the_handshake_is_bounded_and_does_not_disturb_it() -> None:
    server, client = pair()
    for number in range(MAX_DATAGRAMS // 2):
        server.receive_datagram(bytes((22, 254, 253)) + bytes([number]) * 40, 0.0)
    shake(server, client)
    assert server.state is DtlsState.CONNECTED
    flooded, _ = pair()
    for _ in range(3 * MAX_DATAGRAMS):
        flooded.receive_datagram(bytes((22, 254, 253)) + bytes(40), 0.0)
    assert flooded.unread == 2 * MAX_DATAGRAMS
