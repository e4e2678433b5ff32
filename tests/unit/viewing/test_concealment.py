"""Offers for browsers: no inner name of the SFU, and the tracks of a camera in one stream."""

from __future__ import annotations

from relay_supervisor.viewing.concealment import conceal

OFFER = "\r\n".join(
    [
        "v=0",
        "a=group:BUNDLE 0 1 2",
        "m=video 9 UDP/TLS/RTP/SAVPF 101",
        "a=mid:0",
        "a=msid:secretsession front-door-abc-video",
        "a=ssrc:11 cname:secretsession",
        "a=ssrc:11 msid:secretsession front-door-abc-video",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "a=msid:secretsession front-door-abc-audio",
        "a=mid:1",
        "a=ssrc:12 cname:secretsession",
        "a=ssrc:12 label:front-door-abc-audio",
        "m=video 9 UDP/TLS/RTP/SAVPF 101",
        "a=mid:2",
        "a=msid:othersession garage-def-video",
        "",
    ]
)


def test_inner_names_are_gone_and_a_cameras_tracks_share_a_stream() -> None:
    shown = conceal(OFFER, {"0": "abc", "1": "abc"})
    assert "secretsession" not in shown
    assert "othersession" not in shown
    assert "front-door" not in shown
    assert shown.count("a=msid:abc abc-") == 2
    assert "a=msid:section-2 section-2-2" in shown
    assert shown.splitlines()[:4] == OFFER.splitlines()[:4]
    assert len(shown.splitlines()) == len(OFFER.splitlines())
    assert shown.count("\r\n") == OFFER.count("\r\n")
