"""The rows of the measurement in the SFU's seat."""

from __future__ import annotations

import itertools

from tests.fixtures.sfu_seat import ROWS, Feedback


def test_each_pair_of_two_settings_is_there_at_least_once() -> None:
    rows = [(row.picture, row.sound, *vars(row.feedback).values()) for row in ROWS]
    for one, other in itertools.combinations(range(5), 2):
        pairs = {(row[one], row[other]) for row in rows}
        assert pairs == set(itertools.product({row[one] for row in rows}, {row[other] for row in rows}))


def test_what_is_not_agreed_is_not_in_the_offer_that_the_page_sees() -> None:
    offer = "\r\n".join(
        (
            *("a=rtcp-fb:106 nack", "a=rtcp-fb:106 goog-remb", "a=rtcp-fb:106 transport-cc"),
            "a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            *("a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01", ""),
        )
    )
    assert Feedback().take(offer) == offer
    assert Feedback(False, False, False).take(offer) == "a=rtcp-fb:106 nack\r\n"
