"""Repeats of a small picture: what a decoder shows of them, and keyframes that are not repeated."""

from __future__ import annotations

import pytest

from relay_worker.rendition.codec import KEYFRAMES_FORMAT, SMOOTH_FORMAT, SmallPictures
from relay_worker.rendition.repeat import repeats_of
from tests.fixtures.coded_pictures import PayloadDecoder, camera_frames, nals_of, pictures_of


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (960, 1280), (200, 150)])
def test_a_repeat_shows_the_same_picture_in_a_few_octets(width: int, height: int) -> None:
    """More of them than frame_num has values, and after each of several keyframes."""
    maker, decoder = SmallPictures(KEYFRAMES_FORMAT, references=False), PayloadDecoder()
    for picture in pictures_of(camera_frames(width, height, count=3, group=1)):
        decoded = maker.decode(picture)
        assert decoded is not None
        small = maker.encode(decoded, picture.media_time, 1200, keyframe=True)
        (shown,) = decoder.decode(small.payloads)
        assert small.repeats is not None
        for _ in range(40):
            repeat = small.repeats.next()
            assert len(repeat) <= 8
            (again,) = decoder.decode([(repeat, True)])
            assert not again.is_corrupt
            assert [bytes(plane) for plane in again.planes] == [bytes(plane) for plane in shown.planes]


def test_a_picture_that_others_follow_soon_is_not_repeated() -> None:
    maker = SmallPictures(SMOOTH_FORMAT, references=True)
    (picture,) = pictures_of(camera_frames(count=1))
    decoded = maker.decode(picture)
    assert decoded is not None
    assert maker.encode(decoded, picture.media_time, 1200, keyframe=True).repeats is None


@pytest.mark.parametrize("profile", ["main", "high"])
def test_what_is_coded_otherwise_is_not_repeated(profile: str) -> None:
    """CABAC, other profiles, pictures that are not shown as they come."""
    (picture,) = pictures_of(camera_frames(count=1, profile=profile, preset="superfast"))
    assert repeats_of(nals_of(picture.payloads)) is None


def test_parameter_sets_that_lack_or_are_cut_off_end_in_no_repeat() -> None:
    (picture,) = pictures_of(camera_frames(count=1, profile="baseline"))
    nals = nals_of(picture.payloads)
    assert repeats_of(nals) is not None
    assert repeats_of(nals[1:]) is None
    for length in range(1, 8):
        assert repeats_of([nals[0][:length], *nals[1:]]) is None
    for length in range(1, 3):
        assert repeats_of([nals[0], nals[1][:length], *nals[2:]]) is None
