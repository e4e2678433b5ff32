"""Pictures and captures from workers, in pieces; and what a capture holds and leaves out."""

from __future__ import annotations

import asyncio

import pytest

from relay_common.errors import RelayError
from relay_common.protocol import FilePart, FromSupervisor, TakeCapture, TakeSnapshot
from relay_supervisor.operations import worker_files
from relay_supervisor.operations.worker_files import WorkerFiles
from relay_worker.capture import Capture
from relay_worker.media.stream import Batch, Kind, Track
from relay_worker.rtsp.events import RtspMessage
from relay_worker.rtsp.tracks import Format
from tests.fixtures import pcapng


class Worker:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, FromSupervisor]] = []
        self.there = True

    def send(self, camera: str, message: FromSupervisor) -> bool:
        self.asked.append((camera, message))
        return self.there


async def test_pieces_make_a_file_and_askers_share_it() -> None:
    worker = Worker()
    files = WorkerFiles(worker.send, first=1)
    askers = [asyncio.create_task(files.snapshot("cam", "Door")) for _ in range(2)]
    await asyncio.sleep(0)
    assert worker.asked == [("cam", TakeSnapshot(request=1))]
    files.receive_part("another", FilePart(request=1, data=b"forged", last=True))
    files.receive_part("cam", FilePart(request=1, data=b"one "))
    files.receive_part("cam", FilePart(request=7, data=b"stray", last=True))
    files.receive_part("cam", FilePart(request=1, data=b"two", last=True))
    assert await asyncio.gather(*askers) == [b"one two"] * 2
    files.receive_part("cam", FilePart(request=1, data=b"late", last=True))


async def test_a_picture_and_a_capture_are_two_things() -> None:
    worker = Worker()
    files = WorkerFiles(worker.send, first=1)
    asking = [asyncio.create_task(files.snapshot("cam", "Door")), asyncio.create_task(files.capture("cam", "Door", 2))]
    await asyncio.sleep(0)
    assert [message for _, message in worker.asked] == [TakeSnapshot(request=1), TakeCapture(request=2, seconds=2)]
    files.receive_part("cam", FilePart(request=2, last=True, error="no"))
    files.receive_part("cam", FilePart(request=1, data=b"jpeg", last=True))
    assert await asking[0] == b"jpeg"
    with pytest.raises(RelayError, match="no"):
        await asking[1]


async def test_captures_of_different_lengths_are_two_files() -> None:
    worker = Worker()
    files = WorkerFiles(worker.send, first=1)
    asking = [asyncio.create_task(files.capture("cam", "Door", seconds)) for seconds in (2, 5, 2)]
    await asyncio.sleep(0)
    assert [message for _, message in worker.asked] == [
        TakeCapture(request=1, seconds=2),
        TakeCapture(request=2, seconds=5),
    ]
    for number in (1, 2):
        files.receive_part("cam", FilePart(request=number, data=b"%d" % number, last=True))
    assert await asyncio.gather(*asking) == [b"1", b"2", b"1"]


async def test_why_there_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_files, "FILE_TIMEOUT", 0.01)
    monkeypatch.setattr(worker_files, "MAX_FILE", 4)
    worker = Worker()
    files = WorkerFiles(worker.send, first=1)
    with pytest.raises(RelayError, match="Door gave no picture"):
        await files.snapshot("cam", "Door")
    asking = asyncio.create_task(files.capture("cam", "Door", 5))
    await asyncio.sleep(0)
    files.receive_part("cam", FilePart(request=2, data=b"12345"))
    with pytest.raises(RelayError, match="larger"):
        await asking
    worker.there = False
    with pytest.raises(RelayError, match="Door has no worker"):
        await files.snapshot("cam", "Door")


def test_a_capture_is_bounded_in_order_and_without_credentials() -> None:
    track = Track(Kind.VIDEO, Format(96, "H264", 90000), "rtsp://camera/video")
    capture = Capture(wall=1000.0, max_bytes=3000)
    capture.received([Batch(track, [b"a" * 1200, b"b" * 1200, b"c" * 1200], [b"report"])], 2.0)
    assert capture.dropped == 1
    request = b"PLAY rtsps://camera/x?auth=g.0.secret RTSP/1.0\r\nAuthorization: Basic c2VjcmV0\r\n\r\n"
    capture.dialogue = [RtspMessage(1.0, True, request), RtspMessage(1.5, False, b"RTSP/1.0 200 OK")]
    packets = pcapng.read(capture.file())
    assert [(p.at, p.protocol, p.port) for p in packets] == [
        (1001.0, 6, 50554),
        (1001.5, 6, 554),
        (1002.0, 17, 5000),
        (1002.0, 17, 5000),
        (1002.0, 17, 5001),
    ]
    assert packets[2].data == b"a" * 1200
    assert b"secret" not in packets[0].data
    assert b"c2VjcmV0" not in packets[0].data


async def test_what_an_earlier_supervisor_asked_for_is_not_taken_for_an_answer() -> None:
    """The worker answers both: the one that is gone as well."""
    worker = Worker()
    for _ in range(2):
        asking = asyncio.create_task((files := WorkerFiles(worker.send)).snapshot("cam", "Door"))
        await asyncio.sleep(0)
        if len(worker.asked) == 1:
            asking.cancel()
    earlier, later = (message.request for _, message in worker.asked if isinstance(message, TakeSnapshot))
    files.receive_part("cam", FilePart(request=earlier, data=b"of the other", last=True))
    files.receive_part("cam", FilePart(request=later, data=b"ours", last=True))
    assert await asking == b"ours"
