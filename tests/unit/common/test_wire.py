"""Bus messages: what goes in comes out; what is bad is counted and never raised."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from relay_common import protocol, wire
from relay_common.protocol import Hello, Play, WorkerState
from relay_common.rendition_messages import SetRendition
from relay_common.sdp_lines import MAX_SDP
from relay_common.worker_stats import RenditionStats, WorkerStats


def test_messages_survive_the_wire() -> None:
    hello = Hello(protocol=1, instance="a.b", camera="a", pid=1, started=2, state=WorkerState.LIVE, expires_at=3.5)
    assert wire.supervisor_reader().decode(wire.encode(hello)) == hello
    play = Play(generation=4, protocol=protocol.Protocol.RTSP, url="rtsps://x/y?auth=z", expires_at=1.0)
    assert wire.worker_reader().decode(wire.encode(play)) == play
    stats = WorkerStats(instance="a.b", camera="a", sequence=1, at=2.0, uptime=3.0, state=WorkerState.LIVE)
    assert wire.stats_reader().decode(wire.encode(stats)) == stats


def test_what_is_said_of_renditions_survives_the_wire_and_is_left_out_of_what_earlier_releases_read() -> None:
    order = SetRendition(mode="smooth", watched=True, budget=60.0)
    assert wire.worker_reader().decode(wire.encode(order)) == order
    published = protocol.Published(publication="p1", rids=["a", "b"])
    assert wire.supervisor_reader().decode(wire.encode(published)) == published
    assert msgspec.msgpack.decode(wire.encode(protocol.Published(publication="p1"))) == {
        "t": "published",
        "publication": "p1",
    }
    rendition = RenditionStats(mode="smooth", active="keyframes", reason="over its budget", cpu=3.5)
    stats = WorkerStats(
        instance="a.b", camera="a", sequence=1, at=2.0, uptime=3.0, state=WorkerState.LIVE, rendition=rendition
    )
    assert wire.stats_reader().decode(wire.encode(stats)) == stats


def test_the_longest_sdp_fits_into_a_frame() -> None:
    publish = protocol.PublishRequest(
        request=1 << 40,
        offer="a" * MAX_SDP,
        tracks=[protocol.TrackOffer(kind="video", mid=str(mid)) for mid in range(64)],
    )
    assert wire.supervisor_reader().decode(wire.encode(publish)) == publish


def test_fields_of_a_newer_peer_are_ignored_and_its_message_types_counted() -> None:
    reader = wire.worker_reader()
    newer = msgspec.msgpack.encode({"t": "stream_lost", "generation": 7, "colour": "blue"})
    assert reader.decode(newer) == protocol.StreamLost(generation=7)
    assert reader.decode(msgspec.msgpack.encode({"t": "sing", "song": 1})) is None
    assert (reader.unknown, reader.malformed) == (1, 0)


def test_oversized_and_wrongly_typed_frames_are_counted() -> None:
    reader = wire.worker_reader()
    assert reader.decode(bytes(protocol.MAX_FRAME + 1)) is None
    assert reader.decode(msgspec.msgpack.encode({"t": "play", "generation": "seven"})) is None
    assert (reader.oversized, reader.malformed) == (1, 1)


@given(st.binary(max_size=200))
def test_any_bytes_are_taken(frame: bytes) -> None:
    for reader in (wire.worker_reader(), wire.supervisor_reader(), wire.stats_reader()):
        if reader.decode(frame) is None:
            assert reader.oversized + reader.malformed + reader.unknown == 1


def test_secrets_travel_only_where_they_are_needed() -> None:
    holders = {
        struct.__name__
        for struct in protocol.FromSupervisor.__args__ + protocol.FromWorker.__args__
        if "url" in struct.__struct_fields__
    }
    assert holders == {"Play", "Extended"}
