"""RTP as FFmpeg packetises it, to UDP ports on loopback: what a peer without an encoder of its own sends on."""

from __future__ import annotations

import array
import math
import threading
import time
from fractions import Fraction

import av

RATE = 30
SIZE = (320, 240)


class RtpFeed:
    """A moving picture (H.264, 30 fps, an IDR a second) and a tone (Opus, 20 ms) in real time, until `stop`."""

    def __init__(self, video_port: int, audio_port: int) -> None:
        self._ports = {"video": video_port, "audio": audio_port}
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=run) for run in (self._video, self._audio)]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, and wait for it."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _video(self) -> None:
        with av.open(f"rtp://127.0.0.1:{self._ports['video']}?pkt_size=1200", "w", format="rtp") as out:
            stream = out.add_stream("libx264", rate=RATE)
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            stream.options = {"tune": "zerolatency", "preset": "ultrafast", "profile": "baseline", "g": str(RATE)}
            began = time.monotonic()
            number = 0
            while not self._ended.wait(max(0.0, began + number / RATE - time.monotonic())):
                frame = av.VideoFrame(*SIZE, "yuv420p")
                for plane, shade in zip(frame.planes, (number % 256, 128, 255 - number % 256), strict=True):
                    plane.update(bytes([shade]) * plane.buffer_size)
                frame.pts, frame.time_base = number, Fraction(1, RATE)
                out.mux(stream.encode(frame))
                number += 1

    def _audio(self) -> None:
        with av.open(f"rtp://127.0.0.1:{self._ports['audio']}", "w", format="rtp") as out:
            stream = out.add_stream("libopus", rate=48000, layout="stereo")
            began = time.monotonic()
            number = 0
            while not self._ended.wait(max(0.0, began + number * 0.02 - time.monotonic())):
                tone = (int(8000 * math.sin(2 * math.pi * 440 * (number * 960 + n) / 48000)) for n in range(960))
                frame = av.AudioFrame("s16", "stereo", 960)
                frame.planes[0].update(array.array("h", [sample for one in tone for sample in (one, one)]).tobytes())
                frame.sample_rate, frame.pts, frame.time_base = 48000, number * 960, Fraction(1, 48000)
                out.mux(stream.encode(frame))
                number += 1
