"""A WebRTC camera's video: loops that can start a new GOP almost anywhere, as a live encoder can.

A clip is encoded several times, each time rotated by a fraction of a GOP: whenever a keyframe is requested, one of the
loops has an IDR soon, and switching to that loop looks like an encoder that was asked for an IDR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from relay_common.simulation.camera.media import VideoSpec
from relay_common.simulation.camera.packetizer import VIDEO_CLOCK_RATE, RtpTrack, RtpUnit, video_track

_LOOPS: Final = 4
"""Most encodings of one clip; the wait for an IDR is at most a GOP divided by their number."""


def live_specs(spec: VideoSpec, idle_gop: float) -> tuple[VideoSpec, ...]:
    """The clips of a camera that shows `spec` with an IDR about every `idle_gop` seconds; the first is not rotated.

    The GOP is chosen to divide the loop; B-frames are left out, as in every WebRTC stream.
    """
    count = max(1, round(spec.frames / (idle_gop * spec.fps)))
    count = next(c for c in range(count, 0, -1) if spec.frames % c == 0)
    gop = spec.frames // count
    loops = next(n for n in range(_LOOPS, 0, -1) if gop % n == 0)
    whole = replace(spec, gop=gop / spec.fps, b_frames=0)
    return tuple(replace(whole, first=n * gop // loops) for n in range(loops))


@dataclass(frozen=True)
class LiveVideo:
    """One clip as a live encoder would produce it. Pictures are numbered from 0 at the epoch, loop after loop."""

    fps: int
    frames: int
    gop: int
    loops: tuple[RtpTrack, ...]
    bare: tuple[Mapping[int, RtpUnit], ...]
    """By loop and position in it: the IDRs without SPS and PPS."""
    sprop: str
    """The value of sprop-parameter-sets, for cameras that signal it."""

    @property
    def step(self) -> int:
        """An IDR is possible at every picture whose number is a multiple of this."""
        return self.gop // len(self.loops)

    def loop_with_idr(self, number: int) -> int | None:
        """The loop that has an IDR at picture `number`, if any."""
        return None if number % self.step else number // self.step % len(self.loops)

    def unit(self, number: int, loop: int, *, parameter_sets: bool = True) -> RtpUnit:
        """Picture `number` of that loop; an IDR comes with SPS and PPS unless `parameter_sets` is False."""
        place = (number - loop * self.step) % self.frames
        if not parameter_sets and place in self.bare[loop]:
            return self.bare[loop][place]
        return self.loops[loop].units[place]


def live_video(spec: VideoSpec, idle_gop: float, payload: int) -> LiveVideo:
    """Encode and packetise; takes seconds unless the clips of `live_specs` are cached."""
    specs = live_specs(spec, idle_gop)
    loops = tuple(video_track(one, payload) for one in specs)
    ticks = VIDEO_CLOCK_RATE // spec.fps
    bare = tuple(
        {unit.timestamp // ticks: unit for unit in video_track(one, payload, "out_of_band", True).units}
        for one in specs
    )
    sprop = loops[0].sdp[-1].rpartition("sprop-parameter-sets=")[2]
    return LiveVideo(spec.fps, spec.frames, specs[0].gop_frames, loops, bare, sprop)
