"""Decodes a camera's pictures and encodes them small, with PyAV's FFmpeg and libx264. Blocks; runs in a thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, NamedTuple

import av
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from relay_worker.media.access_unit import AccessUnitAssembler
from relay_worker.media.coded import coded
from relay_worker.media.parameter_sets import ParameterSetError, SpsInfo, parse_sps
from relay_worker.media.stream import VIDEO_CLOCK_RATE
from relay_worker.rendition.repeat import Repeats, repeats_of
from relay_worker.rendition.tap import CodedPicture
from relay_worker.rtp.h264 import (
    FU_A,
    FU_START,
    NAL_AUD,
    NAL_PPS,
    NAL_SEI,
    NAL_SPS,
    STAP_A,
    PayloadError,
    split_annex_b,
    split_stap_a,
)
from relay_worker.rtp.h264_packetize import packetize
from relay_worker.rtp.h264_slices import is_b_slice

MOST_PIXELS: Final = 2560 * 1600
"""Luma samples of the largest picture that is made smaller: the time of one that is larger would be the original's."""
SMALLEST: Final = 64
"""Lines and columns of the smallest picture that is made."""
TOO_LARGE: Final = "pictures of {width}x{height} are not made smaller: the limit is 2560x1600"
INTERLACED: Final = "interlaced video is not made smaller"
B_PICTURES: Final = "the camera sends B-frames, of which only keyframes are made smaller"

PARAMETER_SETS: Final = (13, 14)
"""Numbers of the parameter sets of small pictures, of one encoder and the next. Cameras use 0, or the first few: where
an SFU goes from one layer to the other without waiting for a keyframe, pictures that name the other's sets are not
decoded, and the last whole one stays. Chromium takes an IDR picture for complete although the packet with its sets is
lost, and would decode those of a new size by the sets of the old one, if they had its number.
"""

_SETS: Final = frozenset((NAL_SPS, NAL_PPS))
_LEFT_OUT: Final = frozenset((NAL_SEI, NAL_AUD))
"""What libx264 writes and nobody needs: its settings in words."""


@dataclass(frozen=True)
class RenditionFormat:
    """How small pictures are encoded."""

    width: int
    """Columns; lines follow by the aspect, both even. A narrower original is not made wider."""
    fps: int
    """Pictures a second that the rate control expects."""
    bitrate: int
    """Bit/s on average, `peak` over a second; 0: by quality alone, below `peak`."""
    peak: int


KEYFRAMES_FORMAT: Final = RenditionFormat(width=320, fps=1, bitrate=0, peak=56_000)
SMOOTH_FORMAT: Final = RenditionFormat(width=480, fps=10, bitrate=165_000, peak=185_000)


class PictureRefused(Exception):
    """The camera's pictures are of a kind that is not made smaller; the message says which."""


class PictureFailed(Exception):
    """A picture could not be decoded or encoded."""


class SmallPicture(NamedTuple):
    """An encoded small picture."""

    payloads: list[tuple[bytes, bool]]
    """Its RTP payloads."""
    keyframe: bool
    width: int
    height: int
    repeats: Repeats | None = None
    """What repeats it, where it is of those that come alone, seconds apart."""
    original: tuple[int, int] = (0, 0)
    """Columns and lines of what it was made of."""


def small_size(width: int, height: int, most: int) -> tuple[int, int]:
    """The size at most `most` wide that has the same aspect, in even numbers."""
    columns = min(width, most)
    lines = max(1, round(height * columns / width / 2)) * 2
    return max(SMALLEST, columns // 2 * 2), max(SMALLEST, lines)


class SmallPictures:
    """Makes small pictures of one camera's pictures, which have to come in order."""

    def __init__(self, form: RenditionFormat, *, references: bool) -> None:
        """`references`: pictures that refer to others come as well, not keyframes alone."""
        self._form, self._references = form, references
        self._decoder: VideoCodecContext | None = None
        self._encoder: VideoCodecContext | None = None
        self._scaler = VideoReformatter()
        self._waits = True  # for a keyframe, after which pictures can be decoded
        self._refused = ""
        self._latest: VideoFrame | None = None
        self._original = (0, 0)
        self._encoders = 0  # that were opened so far
        self._idr_number = 0  # that of the encoder's next IDR picture
        self._last_idr_number: int | None = None

    def decode(self, picture: CodedPicture) -> VideoFrame | None:
        """The picture itself; None where it needs others that are not there. Raises PictureRefused, PictureFailed."""
        if picture.keyframe:
            self._judge(picture)
        if self._refused:
            raise PictureRefused(self._refused)
        if self._waits and not picture.keyframe:
            return None
        if not picture.keyframe and any(map(is_b_slice, nal_starts(picture.payloads))):
            self._waits = True
            raise PictureRefused(B_PICTURES)
        self._waits = False
        try:
            frames = self._decoded(_annex_b(picture))
        except av.error.FFmpegError as error:
            self._fail(f"a picture could not be decoded: {error}")
        if not frames and self._references:
            return None  # it waits for another: what comes next shows that there are B-frames
        if not frames or frames[-1].is_corrupt:
            self._fail("a picture was damaged")
        found = frames[-1]
        _check_size(found.width, found.height)
        return found

    def _decoded(self, access_unit: bytes) -> list[VideoFrame]:
        decoder = self._opened_decoder()
        frames = decoder.decode(coded(access_unit))
        if not self._references:
            # Of a stream with B-frames it would come with a later picture.
            frames += decoder.decode(None)
            decoder.flush_buffers()
        return frames

    def _judge(self, picture: CodedPicture) -> None:
        """Look at the parameter sets before a decoder takes memory for what they announce."""
        self._refused = ""
        info = _sps_of(picture.payloads)
        if info is not None:
            try:
                _check_size(info.width, info.height)
                if not info.frames_only:
                    raise PictureRefused(INTERLACED)
                if self._references and info.reorder_frames:
                    raise PictureRefused(B_PICTURES)
            except PictureRefused as refusal:
                self._refused = str(refusal)
                self._waits = True
                raise

    def _fail(self, why: str) -> None:
        self._waits = True
        self._decoder = None  # what it holds may be as damaged
        raise PictureFailed(why)

    def encode(self, picture: VideoFrame, media_time: float, max_payload: int, *, keyframe: bool) -> SmallPicture:
        """Make it small; `keyframe`: as one that needs no other. Raises PictureFailed."""
        width, height = small_size(picture.width, picture.height, self._form.width)
        latest = self._latest
        try:
            small = self._scaler.reformat(picture, width, height, "yuv420p", interpolation=Interpolation.AREA)
        except (av.error.FFmpegError, ValueError) as error:
            raise PictureFailed(f"a picture could not be made smaller: {error}") from None
        self._latest = small
        if picture is not latest:
            self._original = (picture.width, picture.height)
        return self._encode(small, media_time, max_payload, keyframe=keyframe)

    def encode_again(self, media_time: float, max_payload: int) -> SmallPicture | None:
        """The latest small picture as another keyframe; None where there is none."""
        return self.encode(self._latest, media_time, max_payload, keyframe=True) if self._latest is not None else None

    def inherit(self, other: SmallPictures) -> None:
        """Take over from one that is no longer used."""
        self._latest, self._original = other._latest, other._original
        self._last_idr_number, self._encoders = other._last_idr_number, other._encoders

    def _encode(self, small: VideoFrame, media_time: float, max_payload: int, *, keyframe: bool) -> SmallPicture:
        keyframe = keyframe or not self._references
        small.pts, small.time_base = round(media_time * VIDEO_CLOCK_RATE), Fraction(1, VIDEO_CLOCK_RATE)
        small.pict_type = PictureType.I if keyframe else PictureType.NONE
        try:
            encoder = self._encoder
            if encoder is None or (encoder.width, encoder.height) != (small.width, small.height):
                sets = PARAMETER_SETS[self._encoders % len(PARAMETER_SETS)]
                encoder = self._encoder = _open_encoder(self._form, small.width, small.height, sets)
                self._encoders, self._idr_number = self._encoders + 1, 0
                if self._last_idr_number == 0:
                    # Of two IDR pictures in a row the numbers differ (H.264 §7.4.3), and each encoder begins with 0.
                    self._take(encoder, small)
                    small.pts, small.pict_type = small.pts + 1, PictureType.I
            nals, is_keyframe = self._take(encoder, small)
        except (av.error.FFmpegError, ValueError) as error:
            self._encoder = None
            raise PictureFailed(f"a picture could not be encoded: {error}") from None
        if not nals:
            raise PictureFailed("a picture could not be encoded: the encoder returned nothing")
        repeats = repeats_of(nals) if is_keyframe and not self._references else None
        payloads = packetize(nals, max_payload)
        return SmallPicture(payloads, is_keyframe, small.width, small.height, repeats, self._original)

    def _take(self, encoder: VideoCodecContext, small: VideoFrame) -> tuple[list[bytes], bool]:
        """NAL units of the picture, and whether it is a keyframe."""
        packets = encoder.encode(small)
        keyframe = any(packet.is_keyframe for packet in packets)
        if keyframe:
            self._last_idr_number, self._idr_number = self._idr_number, self._idr_number ^ 1
        nals = [nal for packet in packets for nal in split_annex_b(bytes(packet))]
        return [nal for nal in nals if nal[0] & 0x1F not in _LEFT_OUT], keyframe

    def release(self) -> None:
        """Let go of what takes memory: at 720p the decoder holds 3 MB, and the encoder 2 MB."""
        self._decoder = self._encoder = None
        self._scaler = VideoReformatter()
        self._waits = True

    def _opened_decoder(self) -> VideoCodecContext:
        if self._decoder is None:
            decoder = av.CodecContext.create("h264", "r")
            assert isinstance(decoder, VideoCodecContext)
            decoder.thread_count = 1
            decoder.flags |= Flags.low_delay
            if not self._references:
                decoder.options = {"skip_loop_filter": "all"}  # block edges do not survive being made smaller
            self._decoder = decoder
        return self._decoder


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise PictureRefused(TOO_LARGE.format(width=width, height=height))


def _open_encoder(form: RenditionFormat, width: int, height: int, sets: int) -> VideoCodecContext:
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, VIDEO_CLOCK_RATE), Fraction(form.fps)
    encoder.thread_count = 1
    parameters = {
        "scenecut": 0,
        "sps-id": sets,  # libx264 gives the PPS the same number
        # libx264 makes tables for each quantiser that it may use: those between are a fraction of the memory.
        "qpmin": 20,
        "qpmax": 46,
        "vbv-maxrate": form.peak // 1000,
        "vbv-bufsize": form.peak // 1000,
        # Of keyframes alone libx264 would say that nothing may refer to them.
        "keyint": 1000,
    }
    encoder.options = {
        "preset": "superfast",
        "tune": "zerolatency",
        "profile": "baseline",
        "forced-idr": "1",
        "x264-params": ":".join(f"{name}={value}" for name, value in parameters.items()),
    }
    if form.bitrate:
        encoder.bit_rate = form.bitrate
    else:
        encoder.options |= {"crf": "28"}
    return encoder


def sets_twice(payloads: list[tuple[bytes, bool]]) -> list[tuple[bytes, bool]]:
    """The same keyframe, with the packet that holds its parameter sets alone sent twice.

    It leaves first: into the queue that the full picture has filled before it, where a viewer's line did not carry
    that. If it is lost, Chromium may go on without it, and repeating it later does not help.
    """
    first = payloads[0][0] if payloads else b"\0"
    sets = split_stap_a(first) if first[0] & 0x1F == STAP_A else [first]
    return [payloads[0], *payloads] if {nal[0] & 0x1F for nal in sets} <= _SETS else payloads


def nal_starts(payloads: Sequence[tuple[bytes, bool]]) -> Iterator[bytes]:
    """The NAL units of an access unit's RTP payloads, of fragmented ones the first octets."""
    for payload, _ in payloads:
        kind = payload[0] & 0x1F if payload else 0
        if kind == FU_A and len(payload) > 2:
            if payload[1] & FU_START:
                yield bytes((payload[0] & 0xE0 | payload[1] & 0x1F,)) + payload[2:18]
        elif kind == STAP_A:
            try:
                yield from split_stap_a(payload)
            except PayloadError:
                return
        elif kind:
            yield payload


def _sps_of(payloads: Sequence[tuple[bytes, bool]]) -> SpsInfo | None:
    for nal in nal_starts(payloads):
        if nal[0] & 0x1F == NAL_SPS:
            try:
                return parse_sps(nal)
            except ParameterSetError:
                return None
    return None


def _annex_b(picture: CodedPicture) -> bytes:
    assembler = AccessUnitAssembler()
    units = [unit for payload, marker in picture.payloads for unit in assembler.receive_payload(payload, marker, 0)]
    if len(units) != 1 or not units[0].complete:
        raise PictureFailed("a picture was not complete")
    return units[0].data
