"""PyAV's decoder asked directly: how it is found, that both ways ask the same one, and what is not as before."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, ClassVar, Final

import av
import av.codec.context
import pytest
from av.audio.codeccontext import AudioCodecContext

from relay_worker import native
from relay_worker.media import opus
from relay_worker.media.aac_decoder import aac_decoder
from relay_worker.media.opus import OpusTranscoder
from tests.fuzz.sound_streams import HBR, RATE, UNITS, hbr
from tests.unit.native.test_hearing import FRAME
from tests.unit.native.test_transcoding import Speaker, transcoder

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())

COMPILED: Any = None if native.missing() else native.decide("compiled")
FILE: Final = av.codec.context.__file__
LONGEST: Final = 16 * 320
"""Samples of one unit: of 16 packets of Opus."""


def found(decoder: object) -> object | None:
    made: object | None = COMPILED.find_decoder(FILE, decoder)
    return made


def law(layout: str = "mono") -> AudioCodecContext:
    """A decoder to 16-bit samples, one for each byte."""
    made = av.CodecContext.create("pcm_mulaw", "r")
    assert isinstance(made, AudioCodecContext)
    made.sample_rate, made.layout = RATE, layout
    made.open()
    return made


def decoded_by(speaker: Speaker, decoder: Any) -> None:
    """Have the compiled path of both decode by this from now on."""
    transcoder(speaker.inputs[1])._decoder = decoder
    speaker.pair.both[1].pipeline._ear = None


def say(speaker: Speaker, unit: bytes) -> list[str]:
    """To the compiled path alone: what the Python was asked for."""
    del speaker.asked[:], speaker._heard[:]
    speaker.pair.now += FRAME / RATE
    speaker.pair.both[1].receive(speaker.packet(hbr(unit)), speaker.pair.now)
    return speaker.asked[:] if native.DONE in speaker._heard else ["hear"]


def test_each_decoder_is_known_by_itself() -> None:
    decoders = [aac_decoder(bytes.fromhex(HBR["config"])), law(), law()]
    known = [found(decoder) for decoder in decoders]
    assert len({repr(one) for one in known}) == 3
    assert all("relay_worker.AVCodecContext" in repr(one) for one in known)


@pytest.mark.parametrize(
    "other", [object(), SimpleNamespace(decode=1), [aac_decoder(b"\x14\x08")], 7, b"bytes", av.Packet]
)
def test_what_is_no_decoder_is_none(other: object) -> None:
    assert found(other) is None


def test_to_look_for_a_decoder_leaves_nothing_open() -> None:
    decoder, before = law(), os.listdir("/proc/self/fd")
    for other in (decoder, object()) * 10:
        found(other)
    assert os.listdir("/proc/self/fd") == before


def test_what_is_no_file_is_refused() -> None:
    for arguments in ((FILE,), (None, law()), (FILE, law(), 1)):
        with pytest.raises(TypeError):
            COMPILED.find_decoder(*arguments)


def test_a_library_that_is_not_loaded_has_nothing() -> None:
    """In a process of its own: what was found once is not looked for again."""
    program = (
        "import av.codec.context; from relay_worker import native; find = native.decide('compiled').find_decoder;"
        "decoder = av.CodecContext.create('aac', 'r');"
        "print([find(file, decoder) for file in ('/nowhere', av.codec.context.__file__)])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "[None, None]\n"


def test_another_library_has_nothing() -> None:
    program = (
        "import _ssl, av; from relay_worker import native;"
        "print(native.decide('compiled').find_decoder(_ssl.__file__, av.CodecContext.create('aac', 'r')))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "None\n"


@pytest.mark.parametrize("directly", [True, False])
def test_sound_is_decoded_either_way(speaker: Speaker, monkeypatch: pytest.MonkeyPatch, directly: bool) -> None:
    """The Python's packets, made by PyAV, are compared with each."""
    parts_of = OpusTranscoder.wake_parts

    def wake_parts(self: OpusTranscoder) -> Any:
        parts, guards = parts_of(self)
        assert parts is not None
        assert parts.decoder is not None
        return parts._replace(**({"decode": None, "packet": None} if directly else {"decoder": None})), guards

    monkeypatch.setattr(OpusTranscoder, "wake_parts", wake_parts)
    speaker.pair.both[1].pipeline._ear = None
    assert [speaker.say() for _ in range(60)] == [[]] * 60


def test_both_ways_ask_the_same_decoder(speaker: Speaker) -> None:
    """What overlaps with the next unit is the decoder's: behind one that another decoded, packets would differ."""
    for _ in range(10):
        speaker.change(transcoder, _hole=True)
        assert [speaker.say(), speaker.say()] == [["decode"], []]


def test_a_unit_of_which_nothing_comes(speaker: Speaker) -> None:
    for _ in range(3):
        decoder = aac_decoder(bytes.fromhex(HBR["config"]))
        decoder.open()
        decoded_by(speaker, decoder)
        assert say(speaker, UNITS[3]) == []
    assert transcoder(speaker.inputs[1]).stats.faults == 0


def test_a_decoder_that_is_not_open_refuses(speaker: Speaker) -> None:
    decoded_by(speaker, aac_decoder(bytes.fromhex("1188")))
    assert say(speaker, UNITS[3]) == []
    assert transcoder(speaker.inputs[1]).stats.faults == 1
    assert say(speaker, UNITS[4]) == ["decode"], "which opens it"


def by_law(speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two units of this camera have been decoded by it, the second directly."""
    monkeypatch.setattr(OpusTranscoder, "_open_decoder", lambda self: law())
    mine = speaker.inputs[1]._transcoder = OpusTranscoder("aac", bytes.fromhex(HBR["config"]))
    assert [say(speaker, bytes(FRAME)), say(speaker, bytes(FRAME))] == [["hear"], []]
    return mine


@pytest.mark.parametrize("samples", [FRAME - 1, FRAME + 1])
def test_units_of_another_length_are_given_to_the_python(
    speaker: Speaker, monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    """Another rate would look like that: the first unit is lost, and of the next the Python makes all anew."""
    mine = by_law(speaker, monkeypatch)
    assert [say(speaker, bytes(samples)), mine.stats.faults, mine._hole] == [[], 1, True]
    assert say(speaker, bytes(samples)) == ["decode"]
    assert (mine.stats.faults, mine._hole) == (1, False)


@pytest.mark.parametrize(("samples", "faults"), [(1, 0), (2, 0), (LONGEST, 0), (LONGEST + 1, 1)])
def test_the_shortest_and_the_longest_unit(
    speaker: Speaker, monkeypatch: pytest.MonkeyPatch, samples: int, faults: int
) -> None:
    mine = by_law(speaker, monkeypatch)
    speaker.pair.both[1].pipeline._ear = None
    mine._latest = mine._expected = 0.0
    assert say(speaker, bytes(samples)) == []
    assert mine.stats.faults == faults


def test_samples_that_do_not_lie_apart(speaker: Speaker) -> None:
    decoder = av.CodecContext.create("pcm_f32le", "r")
    assert isinstance(decoder, AudioCodecContext)
    decoder.sample_rate, decoder.layout = RATE, "mono"  # type: ignore[assignment]
    decoder.open()
    decoded_by(speaker, decoder)
    assert [say(speaker, bytes(4 * FRAME)), transcoder(speaker.inputs[1]).stats.faults] == [[], 0]


def test_samples_of_another_form_are_refused(speaker: Speaker) -> None:
    decoded_by(speaker, law())
    mine = transcoder(speaker.inputs[1])
    assert [say(speaker, bytes(FRAME)), mine.stats.faults] == [[], 1], "the encoder takes floating-point numbers"


def test_a_second_channel_is_refused(speaker: Speaker) -> None:
    """The encoder takes one; AAC's channels lie apart."""
    encoder = av.CodecContext.create("aac", "w")
    assert isinstance(encoder, AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = RATE, "stereo", "fltp"  # type: ignore[assignment]
    encoder.open()
    frame = av.AudioFrame(format="fltp", layout="stereo", samples=FRAME)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    frame.sample_rate = RATE
    units = [bytes(packet) for _ in range(4) for packet in encoder.encode(frame)]
    assert encoder.extradata is not None
    decoder = aac_decoder(encoder.extradata)
    decoder.open()
    decoded_by(speaker, decoder)
    assert say(speaker, units[-1]) == []
    assert transcoder(speaker.inputs[1]).stats.faults == 1


def test_without_compiled_code_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "compiled", lambda: None)
    assert opus.direct_decoder(law()) is None


class _Heap(ctypes.Structure):
    """`struct mallinfo2` of glibc (mallinfo(3)): ten sizes, of which these are bytes in use."""

    _fields_: ClassVar = [(f"field_{number}", ctypes.c_size_t) for number in range(10)]

    @property
    def used(self) -> int:
        return int(self.field_4 + self.field_7)


def test_nothing_is_kept_for_each_unit(speaker: Speaker) -> None:
    """A packet that is not given back would be half a megabyte, a frame six."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        pytest.skip("the C library does not tell how much is in use")
    mallinfo.restype = _Heap
    for _ in range(200):
        speaker.say()
    before = mallinfo().used
    for _ in range(1500):
        assert speaker.say() == []
    gc.collect()
    assert mallinfo().used - before < 250_000
