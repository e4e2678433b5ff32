"""One session's transport: ICE-lite, DTLS, SRTP in place, and the routing of RTP and RTCP."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Protocol

from pylibsrtp._binding import lib

from relay_common.simulation.sfu import rtcp as sfu_rtcp
from relay_common.simulation.sfu import sdp as sfu_sdp
from relay_common.simulation.sfu.bottleneck import Bottleneck
from relay_common.simulation.sfu.downstream import Downstream
from relay_common.simulation.sfu.dtls import DtlsIdentity, DtlsServer
from relay_common.simulation.sfu.feedback import TransportFeedback, one_byte_extension
from relay_common.simulation.sfu.ice import Address, IceLite
from relay_common.simulation.sfu.publication import Publication
from relay_common.simulation.sfu.switching import LayerSwitch
from relay_common.simulation.sfu.viewer_line import ViewerLine

_PROBES_AT_ONCE = 32
RTP_HEADER = struct.Struct("!BBHII")


class Port(Protocol):
    """The shared UDP port as a peer sees it."""

    scratch: memoryview
    scratch_pointer: Any
    length: Any
    lossy: dict[Publication, None]
    record: Callable[[float, memoryview], None] | None
    clock: Callable[[], float]

    @property
    def downstream_rate(self) -> float: ...

    def send(self, datagram: bytes | memoryview, address: Address, waits: float = 0.0) -> None: ...

    def lose_downstream(self) -> bool: ...


class Peer:
    """The media side of one session. The port calls `receive_*`; `on_connected` is called when DTLS is done."""

    def __init__(self, port: Port, ice: IceLite, identity: DtlsIdentity, ssrc: int) -> None:
        self._port = port
        self.ice = ice
        self.dtls = DtlsServer(identity)
        self.ssrc = ssrc
        self.line: ViewerLine | None = None
        """The estimate of what a viewer's line carries, where that was negotiated."""
        self.scratch = port.scratch
        self.publications: list[Publication] = []
        self.downstreams: dict[int, Downstream] = {}
        """By the SSRC that the viewer sees."""
        self.sources: dict[Downstream, Publication] = {}
        self.switching: dict[Downstream, LayerSwitch] = {}
        self.on_connected: Callable[[], None] = lambda: None
        self.on_closed: Callable[[], None] = lambda: None
        self.closed = False
        self.last_datagram: float | None = None
        self.first_check: float | None = None
        self.mute_checks = False
        self.upstream_loss: float | None = None
        """Upstream loss for this session, instead of the port's."""
        self.bottleneck = Bottleneck()
        self.downstream_rate: float | None = None
        """The rate of this session's line, instead of the port's."""
        self.feedback: TransportFeedback | None = None
        self.unauthenticated = self.unrouted = self.malformed = self.dropped_by_fault = self.send_errors = 0
        self._routes: dict[int, tuple[Publication, bool]] = {}
        self._types: dict[int, tuple[Publication, bool]] = {}
        self._layers: dict[tuple[str, str], Publication] = {}
        self._inbound: Any = None
        self._outbound: Any = None

    # -- set-up -------------------------------------------------------------------------------------------------

    def publish(self, publication: Publication) -> None:
        """Start routing the section's SSRCs and payload types to `publication`."""
        self.publications.append(publication)
        section = publication.section
        rtx = set(section.rtx_ssrcs.values())
        if publication.rid:
            # By the rid that its packets carry alone: SSRCs of a simulcast section say nothing of the layer (RFC 8853).
            self._layers[section.mid, publication.rid] = publication
        else:
            self._routes |= {ssrc: (publication, ssrc in rtx) for ssrc in section.ssrcs}
        for codec in section.codecs:
            self._types[codec.payload_type] = publication, codec.apt is not None

    def unpublish(self, publication: Publication) -> None:
        """Start dropping packets for `publication`."""
        if publication in self.publications:
            self.publications.remove(publication)
        self._routes = {s: route for s, route in self._routes.items() if route[0] is not publication}
        self._types = {t: route for t, route in self._types.items() if route[0] is not publication}
        self._layers = {key: layer for key, layer in self._layers.items() if layer is not publication}
        for other in self.publications:
            # Layers share their payload types; those that are left keep them.
            for codec in other.section.codecs:
                self._types.setdefault(codec.payload_type, (other, codec.apt is not None))

    def subscribe(self, downstream: Downstream, publication: Publication) -> None:
        """Forward `publication` through `downstream`, replacing its previous source."""
        self.unsubscribe(downstream)
        self.downstreams[downstream.ssrc] = downstream
        self.sources[downstream] = publication
        publication.subscribers.append(downstream)

    def unsubscribe(self, downstream: Downstream) -> None:
        """Stop forwarding through `downstream`."""
        self._leave(downstream)
        self.downstreams.pop(downstream.ssrc, None)
        if (publication := self.sources.pop(downstream, None)) is not None:
            publication.subscribers.remove(downstream)

    def join(self, downstream: Downstream, publication: Publication, now: float, *, at_keyframe: bool) -> None:
        """Switch to another layer of the same track, from its next keyframe or from its next packet; request one."""
        under_way = self.switching.get(downstream)
        if publication is (under_way.target if under_way is not None else self.sources.get(downstream)):
            return
        self._leave(downstream)
        if publication is self.sources.get(downstream):
            return
        if not at_keyframe:
            downstream.follow(publication.upstream, same_clock=True)
            self.subscribe(downstream, publication)
        arrived = self._arrive if at_keyframe else None
        switch = self.switching[downstream] = LayerSwitch(downstream, publication, arrived)
        publication.subscribers.append(switch)
        switch.ask(now)

    def _leave(self, downstream: Downstream) -> None:
        if (switch := self.switching.pop(downstream, None)) is not None:
            switch.target.subscribers.remove(switch)

    def _arrive(self, switch: LayerSwitch) -> None:
        # In its place, and not removed and appended: the publication is going through its subscribers.
        subscribers = switch.target.subscribers
        subscribers[subscribers.index(switch)] = switch.viewer
        del self.switching[switch.viewer]
        if (left := self.sources.get(switch.viewer)) is not None:
            left.subscribers.remove(switch.viewer)
        self.sources[switch.viewer] = switch.target
        switch.viewer.follow(switch.target.upstream, same_clock=True)

    # -- in -----------------------------------------------------------------------------------------------------

    def receive_check(self, datagram: bytes, source: Address) -> None:
        """Answer a STUN binding request."""
        if (response := self.ice.receive(datagram, source)) is not None:
            self._port.send(response, source)

    def receive_dtls(self, datagram: bytes) -> None:
        """Advance the handshake, or call `on_closed` if the peer has closed."""
        was_ready = self.dtls.srtp is not None
        self.dtls.receive(datagram)
        self.flush_dtls()
        if not was_ready and self.dtls.srtp is not None:
            self._inbound, self._outbound = (session._srtp[0] for session in self.dtls.srtp)
            self.on_connected()
        if self.dtls.closed and not self.closed:
            self.on_closed()

    def flush_dtls(self) -> None:
        """Send pending DTLS datagrams."""
        if self.ice.remote is not None:
            for datagram in self.dtls.outgoing():
                self._port.send(datagram, self.ice.remote)

    def receive_media(self, buffer: memoryview, pointer: Any, now: float) -> None:
        """Take an SRTP or SRTCP packet; `pointer` is the C address of `buffer`, which is decrypted in place."""
        if self._inbound is None or len(buffer) < 12:
            self.malformed += 1
            return
        length = self._port.length
        length[0] = len(buffer)
        if 192 <= buffer[1] <= 223:
            if lib.srtp_unprotect_rtcp(self._inbound, pointer, length):
                self.unauthenticated += 1
            else:
                self._receive_rtcp(buffer[: length[0]], now)
            return
        if lib.srtp_unprotect(self._inbound, pointer, length):
            self.unauthenticated += 1
            return
        packet = buffer[: length[0]]
        _, second, sequence, timestamp, ssrc = RTP_HEADER.unpack_from(packet)
        port = self._port
        if port.record is not None:
            port.record(now, packet)
        if self.feedback is not None:
            self.feedback.receive(packet, now)
        route = self._routes.get(ssrc) or self._latch(ssrc, second & 127, packet)
        if route is None:
            return
        publication, rtx = route
        if rtx:
            publication.receive_rtx(packet, timestamp, now)
        else:
            publication.receive(packet, sequence, timestamp, ssrc, now)
        if publication.upstream.missing:
            port.lossy[publication] = None

    def _latch(self, ssrc: int, payload_type: int, packet: memoryview) -> tuple[Publication, bool] | None:
        """Where a new SSRC belongs: by its payload type, and for a simulcast layer by the rid that it carries."""
        route = self._types.get(payload_type)
        if route is not None and route[0].rid:
            section, rtx = route[0].section, route[1]
            wanted = sfu_sdp.REPAIRED_RID if rtx else sfu_sdp.RID
            numbers = (number for number, uri in section.extensions.items() if uri == wanted)
            rids = (one_byte_extension(packet, number) for number in numbers)
            layers = [self._layers.get((section.mid, rid.decode(errors="replace"))) for rid in rids if rid is not None]
            route = next(((layer, rtx) for layer in layers if layer is not None), None)
        if route is None:
            self.unrouted += 1
        elif len(self._routes) < 64:
            self._routes[ssrc] = route
        return route

    def _receive_rtcp(self, compound: memoryview, now: float) -> None:
        for kind, count, body in sfu_rtcp.packets(compound):
            if kind == sfu_rtcp.SR and len(body) >= 24:
                self._receive_sender_report(body, now)
                self._receive_blocks(body[24:], count)
            elif kind == sfu_rtcp.RR and len(body) >= 4:
                self._receive_blocks(body[4:], count)
            elif kind in (sfu_rtcp.RTPFB, sfu_rtcp.PSFB) and len(body) >= 8:
                self._receive_feedback(kind, count, body, now)

    def _receive_sender_report(self, body: memoryview, now: float) -> None:
        ssrc, ntp, rtp = struct.unpack_from("!IQI", body)
        for publication in self.publications:
            if publication.upstream.ssrc == ssrc:
                publication.upstream.sender_report = ntp, rtp, now
                publication.upstream.sender_reports += 1

    def _receive_blocks(self, blocks: memoryview, count: int) -> None:
        for index in range(min(count, len(blocks) // 24)):
            ssrc, loss = struct.unpack_from("!II", blocks, 24 * index)
            if (downstream := self.downstreams.get(ssrc)) is not None:
                downstream.reported_lost = loss & 0xFFFFFF

    def _receive_feedback(self, kind: int, fmt: int, body: memoryview, now: float) -> None:
        if self.line is not None:
            self.line.feedback(kind, fmt, body, now)
        (media,) = struct.unpack_from("!I", body, 4)
        intra = kind == sfu_rtcp.PSFB and fmt == sfu_rtcp.FMT_FIR
        if intra and len(body) >= 16:
            (media,) = struct.unpack_from("!I", body, 8)
        if (downstream := self.downstreams.get(media)) is None:
            return
        if intra or (kind == sfu_rtcp.PSFB and fmt == sfu_rtcp.FMT_PLI):
            downstream.firs += intra
            downstream.plis += not intra
            switch = self.switching.get(downstream)
            (switch.target if switch else self.sources[downstream]).request_keyframe(now, intra=intra)
        elif kind == sfu_rtcp.RTPFB and fmt == sfu_rtcp.FMT_NACK:
            downstream.retransmit(sfu_rtcp.nacked(body)[:512])

    # -- out ----------------------------------------------------------------------------------------------------

    def send_rtp(self, size: int) -> None:
        """Protect and send the first `size` bytes of `scratch`."""
        port = self._port
        length = port.length
        if self.line is not None:
            size = self.line.stamp(self.scratch, size, port.clock())
        length[0] = size
        if self._outbound is None or lib.srtp_protect(self._outbound, port.scratch_pointer, length):
            self.send_errors += 1
        elif not port.lose_downstream():
            self._leave_by_line(length[0])

    def _leave_by_line(self, size: int) -> None:
        port = self._port
        rate = port.downstream_rate if self.downstream_rate is None else self.downstream_rate
        waits = self.bottleneck.delay(size, rate, port.clock()) if self.downstreams and rate else 0.0
        if waits is not None:
            port.send(self.scratch[:size], self.ice.remote, waits)  # type: ignore[arg-type]

    def send_rtcp(self, compound: bytes) -> None:
        """Protect and send a compound (or reduced-size) RTCP packet."""
        port = self._port
        size = len(compound)
        self.scratch[:size] = compound
        port.length[0] = size
        if self._outbound is None or lib.srtp_protect_rtcp(self._outbound, port.scratch_pointer, port.length):
            self.send_errors += 1
        else:
            self._leave_by_line(port.length[0])

    def send_reports(self, now: float, remb: int | None, *, probe: bool = False) -> None:
        """Send receiver reports for published tracks and sender reports for forwarded ones."""
        if self._outbound is None or self.closed:
            return
        live = [p for p in self.publications if p.upstream.ssrc is not None]
        blocks = [block for p in live if (block := p.upstream.report_block(now)) is not None]
        if blocks:
            compound = sfu_rtcp.receiver_report(self.ssrc, blocks[:31])
            if remb is not None:
                compound += sfu_rtcp.remb(self.ssrc, remb, [p.upstream.ssrc or 0 for p in live])
            self.send_rtcp(compound)
        for viewer, switch in list(self.switching.items()):
            if switch.decodable:
                self._leave(viewer)
            else:
                switch.ask(now)
        for downstream in self.downstreams.values():
            if downstream.active and (report := downstream.report(now)) is not None:
                self.send_rtcp(report)
                if probe:
                    downstream.probe()

    def probe_line(self, now: float) -> None:
        """Send what the viewer's line is to be tried out with, every few milliseconds."""
        if self.line is None:
            return
        owed = self.line.owed(now)
        videos = [d for d in self.downstreams.values() if d.active and d.source.kind == "video"] if owed > 0 else []
        for index in range(_PROBES_AT_ONCE if videos else 0):
            size = videos[index % len(videos)].repeat_for_probe(index // len(videos))
            self.line.probed += size
            owed -= size
            if owed <= 0:
                break

    def close(self) -> None:
        """Stop everything; a connected peer gets a DTLS alert."""
        if self.closed:
            return
        self.closed = True
        for downstream in list(self.downstreams.values()):
            self.unsubscribe(downstream)
        self.dtls.close()
        self.flush_dtls()
        self._inbound = self._outbound = None
