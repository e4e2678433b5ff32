"""One viewer that the worker answers itself: ICE-lite, DTLS, and media out over the common port."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import pylibsrtp

from relay_common.clock import Clock
from relay_common.counters import joined
from relay_common.local_messages import LocalViewerStats
from relay_common.sdp_lines import ice_ufrag
from relay_worker.local.answer import AnswerTerms, write_answer, write_fragment
from relay_worker.local.dtls import DtlsCertificate, DtlsEndpoint, DtlsState
from relay_worker.local.ice import CONSENT, LiteAgent
from relay_worker.local.offer import MAX_OFFER, ViewerOffer
from relay_worker.local.ports import LocalPorts
from relay_worker.media.stream import Kind
from relay_worker.publish.extensions import NO_EXTENSIONS, max_payload
from relay_worker.publish.media_out import MediaOut
from relay_worker.publish.outgoing import SentStats
from relay_worker.publish.pacer import PacerSettings
from relay_worker.webrtc.addresses import ip_header
from relay_worker.webrtc.gso import UdpPath
from relay_worker.webrtc.protector import SrtpProtector

CONNECT_WITHIN: Final = 10.0
"""Seconds after its answer in which a viewer has to connect."""


class ViewerOwner(Protocol):
    """What a viewer tells whoever made it."""

    def viewer_connected(self, viewer: ViewerConnection, now: float) -> None: ...
    def viewer_ended(self, viewer: ViewerConnection, reason: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class ViewerTerms:
    """Who a viewer is, and how long it may watch."""

    name: str
    """Secret: whoever knows it may end it."""
    ends_at: float = 0.0
    """Unix seconds; 0: never."""
    small: bool = False
    """Whether it wants the small pictures in place of the original."""
    pacer: PacerSettings = field(default_factory=lambda: PacerSettings(max_queue_bytes=3 * 1024 * 1024))
    """A held group of pictures has to fit into its queue."""


class ViewerConnection(MediaOut):
    """Connects to the viewer that made `offer`, from its answer on, and sends it the camera's media.

    `rejected_packets` counts SRTP that could not be decrypted.
    """

    def __init__(
        self,
        terms: ViewerTerms,
        offer: ViewerOffer,
        ports: LocalPorts,
        owner: ViewerOwner,
        clock: Clock,
        on_keyframe_request: Callable[[], None],
    ) -> None:
        super().__init__(clock, terms.pacer, on_keyframe_request=on_keyframe_request)
        now = clock.now()
        self.name, self._terms, self._offer = terms.name, terms, offer
        self._ports, self._owner = ports, owner
        self._certificate = DtlsCertificate()
        self.agent = LiteAgent(terms.name, now)
        self._dtls = DtlsEndpoint(self._certificate, offer.fingerprints, server=offer.setup == "passive")
        self._dtls_begun = False
        self._dtls_timer: asyncio.Handle | None = None
        self._path: UdpPath | None = None
        self._made_at, self._since = now, clock.wall()
        self._measured = (now, 0)
        self._cname, self._stream = secrets.token_hex(8), secrets.token_hex(8)
        self._session = secrets.randbits(62)
        self._remote_ufrag = offer.ice_ufrag
        self.wants_small, self.small = terms.small, False
        """Whether it wants the small pictures, and whether it gets them: there may be none for a while."""
        self.begun = False
        """Whether its video has begun, which it does with a keyframe."""
        self.begins_at = float("-inf")
        """Media time before which no small picture begins it: it has seen the original until then."""
        self.ended = False
        self.rejected_packets = 0

    @property
    def quality(self) -> str:
        """Which of the camera's pictures it gets."""
        return "small" if self.small else "full"

    def answer(self) -> str:
        """The SDP answer."""
        terms = AnswerTerms(
            ice=self.agent.credentials,
            fingerprint=self._certificate.fingerprint,
            addresses=self._ports.reachable_at(),
            session_id=self._session,
            cname=self._cname,
            stream_id=self._stream,
        )
        return write_answer(self._offer, terms)

    def patch(self, fragment: str, match: str = "") -> tuple[int, str]:
        """Take a fragment of SDP (RFC 8840): the HTTP status of it, and ours where it restarts ICE (RFC 9725 §4.3.3).

        Candidates are not needed: a lite agent sends no checks. `match` is the request's If-Match, of which the tag of
        an ICE session is our user name fragment: what was sent before a restart and comes after it restarts nothing.
        """
        if match not in ("", "*") and f'"{self.agent.credentials.ufrag}"' not in match.replace(" ", "").split(","):
            return 412, ""
        found = ice_ufrag(fragment[:MAX_OFFER]) or self._remote_ufrag
        if found == self._remote_ufrag:
            return 204, ""
        self._remote_ufrag = found
        ice = self.agent.restart()
        return 200, write_fragment(self._offer, ice, self._ports.reachable_at())

    # --- what comes ------------------------------------------------------------------------------------------------

    def check_came(self, now: float) -> None:
        """A valid connectivity check came: the address to send to may have changed."""
        selected = self.agent.selected
        if selected is None:
            return
        if self._path is not None:
            sock = self._ports.socket_of(selected)
            if sock is not None:
                self._path.redirect(sock, selected.address)
        elif not self._dtls_begun:
            self._dtls_begun = True
            self._dtls.start(now)
            self._flush_dtls(now)

    def receive_datagram(self, data: bytes, now: float) -> None:
        """Process what came from one of its addresses and is no STUN (RFC 7983 §7)."""
        if 20 <= data[0] <= 63:
            self._dtls.receive_datagram(data, now)
            self._flush_dtls(now)
        elif 128 <= data[0] <= 191 and self._dtls.receiving is not None:
            is_rtcp = len(data) > 1 and 192 <= data[1] <= 223  # RFC 5761 §4
            session = self._dtls.receiving
            try:
                plain = session.unprotect_rtcp(data) if is_rtcp else session.unprotect(data)
            except (pylibsrtp.Error, ValueError):
                self.rejected_packets += 1
                return
            self._received(plain, is_rtcp, now)

    def _waited(self) -> float:
        return self._ports.waited()

    def _flush_dtls(self, now: float) -> None:
        """Send what DTLS has to say, follow its state, and set its timer."""
        dtls = self._dtls
        self._send_datagrams(dtls.take_datagrams())
        if dtls.state is DtlsState.CONNECTED and not self.connected and not self.ended:
            self._connect(now)
        elif dtls.state is DtlsState.FAILED:
            self.end(dtls.reason)
        elif dtls.state is DtlsState.CLOSED:
            self.end("the viewer has left")
        if self._dtls_timer is not None:
            self._dtls_timer.cancel()
            self._dtls_timer = None
        if not self.ended and (deadline := dtls.next_deadline()) is not None:
            self._dtls_timer = asyncio.get_running_loop().call_later(deadline - now, self._dtls_due)

    def _dtls_due(self) -> None:
        now = self._clock.now()
        self._dtls_timer = None
        self._dtls.poll(now)
        self._flush_dtls(now)

    def _send_datagrams(self, datagrams: list[bytes]) -> None:
        if (selected := self.agent.selected) is not None:
            for datagram in datagrams:
                self._ports.send(datagram, selected)

    def _connect(self, now: float) -> None:
        selected = self.agent.selected
        sock = self._ports.socket_of(selected) if selected is not None else None
        if selected is None or sock is None or self._dtls.sending is None:
            return
        self._path = UdpPath(sock, selected.address)
        self._begin(SrtpProtector(self._dtls.sending), self._path, self._offer.tracks, self._cname)
        # The pipeline's media clock is the monotonic clock.
        self.set_clock(now, self._clock.wall(), now)
        self.connected = True
        self._owner.viewer_connected(self, now)

    # --- its life --------------------------------------------------------------------------------------------------

    @property
    def max_payload(self) -> int:
        """Bytes of the largest video payload whose packet fits the path."""
        selected = self.agent.selected
        header = ip_header(selected.address[0] if selected is not None else "")
        video = next((track for track in self._offer.tracks if track.offered.kind == "video"), None)
        return max_payload(header, (video.extensions if video is not None else NO_EXTENSIONS).size)

    def check(self, now: float) -> None:
        """End it where its time is over or nothing comes of it any more; called about once a second."""
        if self._terms.ends_at and self._clock.wall() >= self._terms.ends_at:
            self.end("its time is over")
        elif not self.connected and now - self._made_at > CONNECT_WITHIN:
            self.end(f"it did not connect within {CONNECT_WITHIN:.0f} s")
        elif now - self.agent.heard_at > CONSENT:
            self.end(f"nothing was heard of it for {CONSENT:.0f} s")

    def put_off(self, seconds: float, now: float) -> None:
        """This process was paused until `now`: nothing of it could be heard, and it could not connect."""
        super().put_off(seconds, now)
        self._made_at = min(self._made_at + seconds, now)
        self.agent.heard_at = min(self.agent.heard_at + seconds, now)

    def end(self, reason: str) -> None:
        """Say goodbye and release everything; safe in any state and more than once."""
        if self.ended:
            return
        self.ended = True
        if self.connected and self._sender is not None:
            self._sender.say_goodbye(self._clock.now())
        self.connected = False
        self._stop_timer()
        if self._dtls_timer is not None:
            self._dtls_timer.cancel()
            self._dtls_timer = None
        self._dtls.close()
        self._send_datagrams(self._dtls.take_datagrams())
        self._owner.viewer_ended(self, reason)

    # --- figures ---------------------------------------------------------------------------------------------------

    @property
    def sent(self) -> dict[Kind, SentStats]:
        """What was sent of each kind."""
        return {Kind(track.kind): track.stats for track in (self._video, self._audio) if track is not None}

    def stats(self, name: str, now: float) -> LocalViewerStats:
        """Its figures, under this name; rates since the last call."""
        total = sum(stats.bytes for stats in self.sent.values())
        at, before = self._measured
        self._measured = now, total
        estimate = self._sender.estimate if self._sender is not None else None
        return LocalViewerStats(
            name=name,
            since=self._since,
            connected=self.connected,
            bitrate=8 * (total - before) / (now - at) if now > at else 0.0,
            rtt=estimate.rtt or 0.0 if estimate is not None else 0.0,
            loss=estimate.fraction_lost if estimate is not None else 0.0,
            quality=self.quality,
        )

    def counters(self) -> dict[str, int]:
        """Totals since its answer, by name."""
        here = {
            "not_connected": self._not_connected,
            "rejected_packets": self.rejected_packets,
            "unauthentic_checks": self.agent.unauthentic,
            "role_conflicts": self.agent.conflicts,
            "unread_datagrams": self._dtls.unread,
        }
        return here | joined(
            sender=self._sender.counters() if self._sender is not None else {},
            uplink=self._uplink.counters() if self._uplink is not None else {},
            path=self._path.counters() if self._path is not None else {},
        )
