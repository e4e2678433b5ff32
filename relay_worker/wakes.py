"""Makes a camera's parts into one `native.Wake`: what takes a whole wake, where all in it is plain.

Only the state of these parts is read and written there (`native/states.py`), so nothing has to be told to it or asked
of it. Where another object could take a part's place, the place is guarded: then another `Wake` is made.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from relay_worker import native
from relay_worker.media.inputs import AudioInput, VideoInput
from relay_worker.media.opus_input import OpusInput
from relay_worker.media.stream import Batch, Feed, Kind
from relay_worker.media.track_input import TrackInput

Found = tuple[list[native.OutputParts], list[native.StillSo]]
"""The parts of each connection that frames leave by, and what must stay as it is."""


def parts_of(output: object) -> Found | None:
    """What an output's `wake_parts` has found; None for one without, and for anything unusual.

    Asked at every wake while there is no `Wake`.
    """
    wake_parts: Callable[[], Found | None] | None = getattr(output, "wake_parts", None)
    return None if wake_parts is None else wake_parts()


def prepare(compiled: native.Compiled, feed: Feed, pipeline: Any, track_input: TrackInput | None) -> native.Wake | None:
    """What takes the wakes of `feed` from now on; None while the Python has to."""
    track = pipeline.timeline.state(Kind.VIDEO)
    if not isinstance(track_input, VideoInput) or track.clock is None or pipeline.capture is not None:
        return None
    # The places where somebody wants pictures that only the Python can give: where one does, it sends all.
    others: list[native.StillSo] = [
        (pipeline, name, getattr(pipeline, name)) for name in ("viewers", "rendition", "tap")
    ]
    outputs: list[native.OutputParts] = []
    guards = [(feed.session, "state", feed.playing), (pipeline, "capture", None), *others]
    if all(who is None for _, _, who in others):
        found = parts_of(pipeline.output)
        if found is None:
            return None
        outputs += found[0]
        guards += [*found[1], (pipeline, "output", pipeline.output), (pipeline, "filling", False)]
    receiver, passthrough = track_input.receiver, track_input.passthrough
    common = (feed.session, feed.parser, pipeline, track_input, receiver, track)
    reorder, wait_clock = track_input.order_parts()
    parts = native.InputParts(*common, passthrough=passthrough, reorder=reorder, wait_clock=wait_clock)
    return compiled.Wake(tuple(guards), parts, tuple(outputs), Kind.VIDEO, feed.rtp, feed.rtcp)


def only_sound(feed: Feed, batches: Sequence[Batch]) -> bytes:
    """What was left to the session, as it came, where that is one packet of sound; nothing where it is anything else,
    or where a part of a frame has come behind it.
    """
    if len(batches) != 1 or feed.sound is None or not feed.parser.is_between:
        return b""
    track, rtp, rtcp = batches[0].track, batches[0].rtp, batches[0].rtcp
    if track.kind is not Kind.AUDIO or len(rtp) != 1 or rtcp:
        return b""
    return b"$" + struct.pack("!BH", feed.sound[0], len(rtp[0])) + rtp[0]


def prepare_sound(compiled: native.Compiled, feed: Feed, pipeline: Any, track_input: AudioInput) -> native.Wake | None:
    """What hears the sound of `feed` from now on; None where it is not AAC in packets of its own."""
    units = track_input.units
    if feed.sound is None or units is None:
        return None
    transcoding, guards = track_input.wake_parts()
    guards += [(feed.session, "state", feed.playing), (pipeline, "capture", None)]
    track = pipeline.timeline.state(Kind.AUDIO)
    parts = native.InputParts(
        *(feed.session, feed.parser, pipeline, track_input, track_input.receiver, track), units=units
    )
    return compiled.Wake(tuple(guards), parts, (), Kind.AUDIO, *feed.sound, transcoding)


def prepare_opus(compiled: native.Compiled, feed: Feed, pipeline: Any, track_input: OpusInput) -> native.Wake | None:
    """The same for sound that is Opus already."""
    if feed.sound is None:
        return None
    guards = ((feed.session, "state", feed.playing), (pipeline, "capture", None))
    common = (feed.session, feed.parser, pipeline, track_input, track_input.receiver)
    reorder, wait_clock = track_input.order_parts()
    track = pipeline.timeline.state(Kind.AUDIO)
    parts = native.InputParts(*common, track, reorder=reorder, wait_clock=wait_clock)
    return compiled.Wake(guards, parts, (), Kind.AUDIO, *feed.sound)
