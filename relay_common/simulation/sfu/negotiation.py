"""Offer and answer for one session: the effect of an endpoint's description, and the SFU's reply to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from relay_common.simulation.sfu import sdp as sfu_sdp
from relay_common.simulation.sfu.feedback import TransportFeedback
from relay_common.simulation.sfu.options import SfuVariant
from relay_common.simulation.sfu.sdp import Section
from relay_common.simulation.sfu.sessions import Event, Session, invalid_description, invalid_params

Body = dict[str, Any]


def parse_description(sdp: str) -> list[Section]:
    """`sfu_sdp.parse`, raising the API's error."""
    try:
        return sfu_sdp.parse(sdp)
    except sfu_sdp.SdpError as error:
        raise invalid_description(str(error)) from error


def check_mids(session: Session, entries: list[Body], known: dict[str, Section]) -> None:
    """Refuse entries whose mid is unknown or in use, or whose name is in use."""
    mids, names = [e["mid"] for e in entries], [e["trackName"] for e in entries]
    for index, mid in enumerate(mids):
        if mid not in known:
            raise invalid_params(f"tracks[{index}]: no media section has the mid {mid!r}")
        if session.track(mid) is not None or mid in mids[:index]:
            raise invalid_params(f"tracks[{index}]: the mid {mid!r} carries a track already")
        if session.published(names[index]) is not None or names[index] in names[:index]:
            raise invalid_params(f"tracks[{index}]: the session publishes {names[index]!r} already")


def answer_offer(session: Session, sdp: str, variant: SfuVariant) -> dict[str, str]:
    """Apply an endpoint's offer for the whole session; returns the answer as a `sessionDescription`."""
    offered = parse_description(sdp)
    known = [section.mid for section in session.sections]
    if [section.mid for section in offered][: len(known)] != known:
        raise invalid_description("The offer drops or reorders media sections of this session")
    take_transport(session, offered)
    feedback = {"nack", "nack pli"}
    extensions = set()
    if variant.transport_cc:
        feedback.add("transport-cc")
        extensions.add(sfu_sdp.TRANSPORT_CC)
    if variant.remb:
        feedback.add("goog-remb")
    ours = []
    for index, section in enumerate(offered):
        track = session.track(section.mid)
        if index < len(known) and session.sections[index].direction == "sendonly":
            direction = "sendonly" if track is not None else "inactive"
            answer = replace(session.sections[index], direction=direction, setup="passive")
        else:
            answer = sfu_sdp.accept(
                section,
                h264_profiles=variant.h264_profiles,
                feedback=frozenset(feedback),
                extensions=frozenset(extensions),
                layers={"all": None, "first": 1, "refused": 0}[variant.simulcast],
                data_channels=session.data_channels_established,
            )
        ours.append(answer)
    text = sfu_sdp.write(ours, session.transport, session.version)
    # For routing only: the publisher's SSRCs are never written into the answer.
    for answer, section in zip(ours, offered, strict=True):
        if answer.direction == "recvonly":
            answer.ssrcs, answer.rtx_ssrcs = section.ssrcs, section.rtx_ssrcs
    for answer in ours:
        for number in (number for number, uri in answer.extensions.items() if uri == sfu_sdp.TRANSPORT_CC):
            session.peer.feedback = session.peer.feedback or TransportFeedback(number)
    session.sections = ours
    session.version += 1
    return {"type": "answer", "sdp": text}


def take_transport(session: Session, remote: list[Section]) -> None:
    """Store the endpoint's ICE and DTLS parameters and mark the session as negotiated."""
    first = next((section for section in remote if not section.rejected), None)
    if first is None:
        return
    peer = session.peer
    if peer.ice.remote_ufrag not in (None, first.ufrag):
        raise invalid_description("ICE restart is not supported: make a new session")
    if first.setup == "passive":
        raise invalid_description("The SFU is the DTLS server: answer setup:active")
    peer.ice.remote_ufrag = first.ufrag
    peer.dtls.fingerprints = first.fingerprints
    session.fire(Event.NEGOTIATED)
