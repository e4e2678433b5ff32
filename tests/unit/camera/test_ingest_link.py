"""A WebRTC camera over a poor link, on a manual clock: what is lost is sent again in time, whatever the order."""

from __future__ import annotations

import heapq
import random

import pytest

from relay_worker.camera.ingest_answer import parse_ingest_answer
from relay_worker.camera.webrtc_ingest import Ingest
from relay_worker.media.stream import Batch, Kind
from relay_worker.pipeline import Pipeline
from relay_worker.rtp import rtcp
from relay_worker.rtp.rtcp import Nack
from tests.unit.camera.test_ingest import NO_SSRC, OURS, packet, retransmission
from tests.unit.camera.test_ingest_inputs import IDR, SETS, SLICE, Output

FRAMES, PACKETS, INTERVAL = 600, 4, 1 / 30


class Camera:
    """Sends pictures of four packets over a link of `delay` seconds one way, and again what it is asked for."""

    def __init__(self, seed: int, *, delay: float, loss: float, reorder: float, repairs_lost: float) -> None:
        self.rng = random.Random(seed)
        self.delay, self.loss, self.reorder, self.repairs_lost = delay, loss, reorder, repairs_lost
        self.link: list[tuple[float, int, bytes]] = []
        self.dropped = self.asked = 0
        self._order = self._repairs = 0
        self._free_at = 0.0
        self._payloads: dict[int, bytes] = {}

    def picture(self, number: int, now: float) -> None:
        safe = number in (0, FRAMES - 1)  # nothing would show that the last packet is missing
        for index in range(PACKETS):
            sequence = PACKETS * number + index
            start = (SETS, IDR)[index] if number == 0 and index < 2 else SLICE
            payload = start + sequence.to_bytes(4, "big") if start is SLICE else start
            self._payloads[sequence] = payload
            if not safe and self.rng.random() < self.loss:
                self.dropped += 1
                continue
            late = 0.004 if not safe and self.rng.random() < self.reorder else 0.0
            self._send(packet(sequence, payload=payload, marker=index == PACKETS - 1), now + late)

    def answer(self, sequences: tuple[int, ...], now: float) -> None:
        for sequence in sequences:
            self.asked += 1
            if self.rng.random() >= self.repairs_lost:
                self._repairs += 1
                again = retransmission(self._repairs, sequence, self._payloads[sequence])
                self._send(again, now + self.delay)

    def pause(self, until: float) -> None:
        """Nothing leaves before `until`; what would have comes then."""
        self._free_at = until

    def _send(self, datagram: bytes, at: float) -> None:
        self._order += 1
        heapq.heappush(self.link, (max(at, self._free_at) + self.delay, self._order, datagram))


def relay(camera: Camera, pauses: dict[int, float]) -> tuple[Pipeline, Output, Ingest]:
    """Run the pictures through; `pauses` are seconds of silence that begin with a picture."""
    answer = parse_ingest_answer(NO_SSRC)
    pipeline, output = Pipeline(), Output()
    ingest = Ingest(answer, OURS, pipeline.receiver_report)
    pipeline.attach(output, 0.0)
    pipeline.on_playing(answer.tracks, 0.0)
    number, checked, now = 0, 0.0, 0.0
    while number < FRAMES or camera.link:
        next_picture = number * INTERVAL if number < FRAMES else 1e9
        now = min(next_picture, checked + 1.0, camera.link[0][0] if camera.link else 1e9)
        if now == next_picture:
            if number in pauses:
                camera.pause(now + pauses[number])
            camera.picture(number, now)
            number += 1
            continue
        batches: list[Batch] = []
        while camera.link and camera.link[0][0] <= now:
            batch = ingest.receive_packet(heapq.heappop(camera.link)[2], now)
            if batch is not None:
                batches.append(batch)
        if batches:
            pipeline.on_media(batches, now)
        else:
            checked = now
            pipeline.flush(now)
        said = ingest.feedback(now)
        for item in rtcp.parse_compound(said) if said else []:
            if isinstance(item, Nack):
                camera.answer(tuple(item.sequences), now)
    return pipeline, output, ingest


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pause", [0.0, 0.3, 1.0, 1.8])
@pytest.mark.parametrize("delay", [0.001, 0.02, 0.05])
def test_what_is_lost_late_or_behind_a_pause_is_there_in_its_place(seed: int, pause: float, delay: float) -> None:
    camera = Camera(seed, delay=delay, loss=0.05, reorder=0.05, repairs_lost=0.0)
    pauses = dict.fromkeys(range(30, FRAMES, 90), pause) if pause else {}
    pipeline, output, ingest = relay(camera, pauses)
    assert camera.dropped > 50
    stats = pipeline.track_stats(Kind.VIDEO)
    assert (stats.lost_in, ingest.nack.given_up) == (0, 0)
    assert not pipeline.waits_for_keyframe
    sent = [payload[-4:] for payload in output.payloads(Kind.VIDEO)[2:]]
    assert sent == [sequence.to_bytes(4, "big") for sequence in range(2, FRAMES * PACKETS)]


def test_repairs_that_are_lost_too_are_asked_for_again() -> None:
    camera = Camera(1, delay=0.02, loss=0.05, reorder=0.0, repairs_lost=0.2)
    pipeline, _, ingest = relay(camera, {})
    assert camera.asked > camera.dropped * 1.1
    # Three tries fit: 0.2³ of them stay away, about one in these 100.
    assert ingest.nack.given_up <= 0.03 * camera.dropped
    assert pipeline.track_stats(Kind.VIDEO).lost_in == ingest.nack.given_up
