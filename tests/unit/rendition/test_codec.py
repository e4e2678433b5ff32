"""Small pictures by PyAV: their size, what a viewer decodes of them, and pictures that are not made smaller."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence

import av
import pytest

from relay_worker.media.parameter_sets import parse_sps
from relay_worker.media.stream import Frame, Kind
from relay_worker.rendition.codec import (
    B_PICTURES,
    INTERLACED,
    KEYFRAMES_FORMAT,
    SMOOTH_FORMAT,
    PictureFailed,
    PictureRefused,
    SmallPicture,
    SmallPictures,
    sets_twice,
    small_size,
)
from relay_worker.rendition.tap import MAX_PICTURE, CodedPicture, PictureTap
from relay_worker.rtp.bits import BitReader
from tests.fixtures.coded_pictures import PayloadDecoder, camera_frames, nals_of, pictures_of


def made(maker: SmallPictures, picture: CodedPicture, *, keyframe: bool = False) -> SmallPicture:
    decoded = maker.decode(picture)
    assert decoded is not None
    return maker.encode(decoded, picture.media_time, 1200, keyframe=keyframe)


def idr_number(small: SmallPicture) -> int:
    """The idr_pic_id of its slice (H.264 §7.3.3)."""
    sps, _, idr, *_ = nals_of(small.payloads)
    parameters, header = BitReader(sps[4:], ValueError), BitReader(idr[1:], ValueError)
    parameters.ue()
    frame_number_bits = parameters.ue() + 4
    for _ in range(3):
        header.ue()  # first_mb_in_slice, slice_type, pic_parameter_set_id
    header.read(frame_number_bits)
    return header.ue()


@pytest.mark.parametrize(
    ("original", "most", "small"),
    [
        ((1280, 720), 320, (320, 180)),
        ((1920, 1080), 480, (480, 270)),
        ((960, 1280), 320, (320, 426)),
        ((1600, 1200), 320, (320, 240)),
        ((200, 150), 320, (200, 150)),
        ((641, 361), 320, (320, 180)),
        ((176, 20), 320, (176, 64)),
    ],
)
def test_the_aspect_is_kept_in_even_numbers(original: tuple[int, int], most: int, small: tuple[int, int]) -> None:
    assert small_size(*original, most) == small


def test_each_keyframe_becomes_a_small_one_that_decodes_alone() -> None:
    maker = SmallPictures(KEYFRAMES_FORMAT, references=False)
    idr_numbers = []
    for picture in pictures_of(camera_frames(1280, 720, count=4, group=1)):
        small = made(maker, picture)
        assert (small.keyframe, small.width, small.height) == (True, 320, 180)
        (decoded,) = PayloadDecoder().decode(small.payloads)
        assert (decoded.width, decoded.height) == (320, 180)
        assert parse_sps(nals_of(small.payloads)[0]).profile_level_id[:4] == "42c0", (
            "constrained baseline, which every browser decodes"
        )
        assert all(len(payload) <= 1200 for payload, _ in small.payloads)
        assert [marker for _, marker in small.payloads].count(True) == small.payloads[-1][1] == 1
        idr_numbers.append(idr_number(small))
    assert all(one != other for one, other in itertools.pairwise(idr_numbers))


def test_keyframes_stay_below_sixty_kilobits_a_second() -> None:
    maker = SmallPictures(KEYFRAMES_FORMAT, references=False)
    sizes = [
        sum(len(payload) + 40 for payload, _ in made(maker, picture).payloads)
        for picture in pictures_of(camera_frames(count=5, group=1))
    ]
    assert max(sizes) * 8 <= 60_000, "one a second at most"


def test_smooth_pictures_refer_to_each_other_until_a_keyframe_is_asked_for() -> None:
    maker, viewer = SmallPictures(SMOOTH_FORMAT, references=True), PayloadDecoder()
    size, keyframes = 0, []
    for index, picture in enumerate(pictures_of(camera_frames(1280, 720, count=60))):
        if index % 3:
            assert maker.decode(picture) is not None
            continue
        small = made(maker, picture, keyframe=index in (0, 45))
        keyframes += [index] if small.keyframe else []
        (decoded,) = viewer.decode(small.payloads)
        assert (decoded.width, decoded.height) == (480, 270)
        size += sum(len(payload) + 40 for payload, _ in small.payloads)
    assert keyframes == [0, 45]
    assert size * 8 / 2 <= 200_000


def test_without_its_keyframe_nothing_is_decoded() -> None:
    maker = SmallPictures(SMOOTH_FORMAT, references=True)
    first, second, *_ = pictures_of(camera_frames(count=3))
    assert maker.decode(second) is None
    assert maker.decode(first) is not None
    assert maker.decode(second) is not None


def test_another_resolution_makes_another_size() -> None:
    maker = SmallPictures(SMOOTH_FORMAT, references=True)
    small = [
        made(maker, pictures_of(camera_frames(width, height, count=1))[0])
        for width, height in ((640, 360), (960, 1280), (640, 360))
    ]
    assert [(one.width, one.height) for one in small] == [(480, 270), (480, 640), (480, 270)]
    viewer = PayloadDecoder()
    assert [viewer.decode(one.payloads)[-1].height for one in small] == [270, 640, 270]


@pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
def test_a_damaged_keyframe_is_none(at: float) -> None:
    maker = SmallPictures(KEYFRAMES_FORMAT, references=False)
    good, next_one = pictures_of(camera_frames(count=2, group=1, crf="10"))
    nal = len(good.payloads) - 1 - int((1 - at) * (len(good.payloads) - 2))
    payloads = [
        (payload[:2] + bytes(range(256))[: len(payload) - 2] + payload[258:], marker)
        if index == nal
        else (payload, marker)
        for index, (payload, marker) in enumerate(good.payloads)
    ]
    assert payloads != good.payloads
    with pytest.raises(PictureFailed):
        maker.decode(good._replace(payloads=payloads))
    assert made(maker, next_one).keyframe


def test_a_keyframe_with_a_gap_is_none() -> None:
    maker = SmallPictures(KEYFRAMES_FORMAT, references=False)
    (good,) = pictures_of(camera_frames(count=1, crf="10"))
    assert len(good.payloads) > 4
    with pytest.raises(PictureFailed):
        maker.decode(good._replace(payloads=good.payloads[:2] + good.payloads[3:]))


def test_too_large_interlaced_and_b_pictures_are_refused() -> None:
    maker = SmallPictures(SMOOTH_FORMAT, references=True)
    large, after = pictures_of(camera_frames(2880, 1620, count=2))
    with pytest.raises(PictureRefused, match="2880x1620"):
        maker.decode(large)
    with pytest.raises(PictureRefused, match="2880x1620"):
        maker.decode(after)
    interlaced = pictures_of(camera_frames(640, 480, count=1, profile="high", x264_params="interlaced=1"))[0]
    with pytest.raises(PictureRefused, match=INTERLACED):
        maker.decode(interlaced)
    again = pictures_of(camera_frames(count=1))[0]
    assert made(maker, again).keyframe, "what is of another kind is made again"


def test_of_b_pictures_keyframes_alone_are_made() -> None:
    keyframe, *others = pictures_of(camera_frames(count=6, bf="2", x264_params="b-adapt=0"))
    maker = SmallPictures(SMOOTH_FORMAT, references=True)
    with pytest.raises(PictureRefused, match=B_PICTURES):
        maker.decode(keyframe)
    quiet = [(payload, marker) for payload, marker in keyframe.payloads if payload[0] & 0x1F != 24]
    sets = [(nal, False) for nal in nals_of(keyframe.payloads[:1])]
    sets[0] = (sets[0][0][:-4] + b"\x80", False)  # an SPS that ends too soon to say so, as of some cameras
    maker = SmallPictures(SMOOTH_FORMAT, references=True)
    with pytest.raises(PictureRefused, match=B_PICTURES):
        list(map(maker.decode, (keyframe._replace(payloads=[*sets, *quiet]), *others)))
    alone = SmallPictures(KEYFRAMES_FORMAT, references=False)
    assert [made(alone, keyframe).keyframe for _ in range(3)] == [True] * 3


def test_the_latest_again_is_another_keyframe() -> None:
    maker = SmallPictures(KEYFRAMES_FORMAT, references=False)
    assert maker.encode_again(1.0, 1200) is None
    first = made(maker, pictures_of(camera_frames(count=1))[0])
    second = maker.encode_again(1.0, 1200)
    maker.release()
    third = maker.encode_again(2.0, 1200)
    assert second is not None
    assert third is not None
    smooth = SmallPictures(SMOOTH_FORMAT, references=True)
    smooth.inherit(maker)
    fourth = smooth.encode_again(3.0, 1200)
    assert fourth is not None
    viewer = PayloadDecoder()
    for small in (first, second, third, fourth):
        assert small.keyframe
        assert viewer.decode(small.payloads)[0].width == 320
    numbers = [idr_number(small) for small in (first, second, third, fourth)]
    assert all(one != other for one, other in itertools.pairwise(numbers))


def set_numbers(small: SmallPicture) -> tuple[int, int, int]:
    """Numbers of a keyframe's sequence and picture parameter sets, and the one that its slice names."""
    sps, pps, idr, *_ = nals_of(small.payloads)
    header = BitReader(idr[1:], ValueError)
    for _ in range(2):
        header.ue()  # first_mb_in_slice, slice_type
    return parse_sps(sps).sps_id, BitReader(pps[1:], ValueError).ue(), header.ue()


def test_pictures_of_another_encoder_name_other_parameter_sets() -> None:
    """Whoever lost the packet with the new sets would else decode pictures of the new size by the old ones."""
    maker = SmallPictures(KEYFRAMES_FORMAT, references=False)
    (picture,) = pictures_of(camera_frames(count=1))
    found = [set_numbers(made(maker, picture)) for _ in range(2)]
    smooth = SmallPictures(SMOOTH_FORMAT, references=True)
    smooth.inherit(maker)
    again = smooth.encode_again(1.0, 1200)
    assert again is not None
    assert again.width == 320, "of what the other made"
    found += [set_numbers(again), set_numbers(made(smooth, picture, keyframe=True))]
    smooth.release()
    found.append(set_numbers(made(smooth, picture, keyframe=True)))
    assert found == [(13, 13, 13), (13, 13, 13), (14, 14, 14), (13, 13, 13), (14, 14, 14)]


def test_the_packet_with_the_parameter_sets_goes_twice_where_it_holds_nothing_else() -> None:
    maker = SmallPictures(SMOOTH_FORMAT, references=True)
    (picture,) = pictures_of(camera_frames(1280, 720, count=1))
    large = made(maker, picture, keyframe=True).payloads
    sets, *slices = large
    assert sets_twice(large) == [sets, sets, *slices]
    (decoded,) = PayloadDecoder().decode(sets_twice(large))
    assert decoded.width == 480
    assert PayloadDecoder().decode(sets_twice(large)[1:])[0].width == 480, "the first of them was lost"
    whole = [(sets[0] + b"\x00\x02\x65\x88", True)]
    assert sets_twice(whole) == whole, "with it, its picture is lost"
    assert sets_twice(slices) == slices
    assert sets_twice([]) == []


def test_the_tap_copies_only_what_is_wanted() -> None:
    frames = camera_frames(count=61)
    tap = PictureTap()
    found = [picture for frame in frames if (picture := tap.take(frame, every=False)) is not None]
    assert [picture.media_time for picture in found] == [0.0, 1.0, 2.0]
    tap = PictureTap()
    parts = [
        Frame(Kind.VIDEO, [(memoryview(bytearray(payload)), marker)], frame.media_time)
        for frame in frames[29:31]
        for payload, marker in frame.payloads
    ]
    (whole,) = [picture for part in parts if (picture := tap.take(part, every=False)) is not None]
    assert whole.payloads == frames[30].payloads
    assert not [tap.take(part, every=False) for part in parts[:-1] if part.media_time == 1.0][-1]


def test_a_picture_that_never_ends_is_bounded() -> None:
    tap, large = PictureTap(), bytes(1000)
    for _ in range(MAX_PICTURE // 1000 + 10):
        assert tap.take(Frame(Kind.VIDEO, [(b"\x5c\x81" + large, False)], 1.0), every=True) is None
    assert tap.oversized_pictures == 1
    assert tap.take(Frame(Kind.VIDEO, [(b"\x41\x9a", True)], 2.0), every=True) is not None


def test_a_viewer_that_is_given_the_other_layer_before_its_keyframe_keeps_the_last_whole_picture() -> None:
    """As by an SFU that switches at once. A decoder that shows what it can must find nothing to decode."""
    full = pictures_of(camera_frames(count=120, group=30))
    maker = SmallPictures(SMOOTH_FORMAT, references=True)
    small = [made(maker, picture, keyframe=index % 30 == 0) for index, picture in enumerate(full)]
    decoder = PayloadDecoder(lenient=True)

    def shown(layer: Sequence[CodedPicture | SmallPicture], begin: int, end: int) -> list[int]:
        found = []
        for picture in layer[begin:end]:
            with contextlib.suppress(av.error.FFmpegError):
                found += [frame.width for frame in decoder.decode(picture.payloads)]
        return found

    assert shown(small, 0, 5) == [480] * 5
    assert shown(full, 5, 12) == [], "its parameter sets are not known yet"
    assert shown(full, 30, 35) == [640] * 5
    assert shown(small, 35, 42) == []
    assert shown(small, 60, 65) == [480] * 5
    assert shown(full, 65, 72) == [], "they are known by now"
    assert shown(full, 90, 95) == [640] * 5
