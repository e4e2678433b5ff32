"""What the thread of a rendition does with each job; results go to the event loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from relay_common.allocator import give_back
from relay_worker.rendition.codec import (
    KEYFRAMES_FORMAT,
    SMOOTH_FORMAT,
    PictureFailed,
    PictureRefused,
    SmallPicture,
    SmallPictures,
)
from relay_worker.rendition.tap import CodedPicture

log = logging.getLogger(__name__)

QUIET: Final = 10
"""Pictures that were decoded alone after which their cost is reported all the same."""


class MakeJob(NamedTuple):
    """One thing to do."""

    picture: CodedPicture | None
    """None: encode the latest again, as a keyframe, or nothing."""
    media_time: float
    max_payload: int
    smooth: bool
    encode: bool = True
    keyframe: bool = False
    """Whether somebody waits for a picture that needs no other."""
    release: bool = False
    """Whether nothing that takes memory is to be kept afterwards."""


class Made(NamedTuple):
    """What became of a job, and of those before it that made nothing."""

    job: MakeJob
    small: SmallPicture | None
    cost: float
    """Milliseconds of CPU time."""
    pictures: int
    """Pictures that took it."""
    refused: str = ""
    failed: str = ""


class PictureMaker:
    """Does jobs, in one thread. `on_made` takes each result; it may be called from that thread."""

    def __init__(self, on_made: Callable[[Made], None], *, cpu: Callable[[], float] = time.thread_time) -> None:
        self._on_made, self._cpu = on_made, cpu
        self._pictures: SmallPictures | None = None
        self._smooth = False
        self._cost, self._count = 0.0, 0

    def work(self, job: MakeJob) -> None:
        """Do the job, and say what came of it unless that is nothing."""
        began = self._cpu()
        small, refused, failed = None, "", ""
        try:
            small = self._make(job)
        except PictureRefused as refusal:
            refused = str(refusal)
        except PictureFailed as failure:
            failed = str(failure)
        except Exception:
            # A mistake of ours costs a picture, never the thread.
            log.exception("a small picture could not be made")
            self._pictures, failed = None, "internal error; see the log"
        if job.release and self._pictures is not None:
            self._pictures.release()
            give_back()
        self._cost += 1e3 * (self._cpu() - began)
        self._count += 1
        if small is not None or refused or failed or job.encode or self._count >= QUIET:
            made = Made(job, small, self._cost, self._count, refused, failed)
            self._cost, self._count = 0.0, 0
            self._on_made(made)

    def _make(self, job: MakeJob) -> SmallPicture | None:
        pictures = self._pictures
        if pictures is None or job.smooth != self._smooth:
            form = SMOOTH_FORMAT if job.smooth else KEYFRAMES_FORMAT
            before, pictures = pictures, SmallPictures(form, references=job.smooth)
            if before is not None:
                pictures.inherit(before)
            self._pictures, self._smooth = pictures, job.smooth
        if job.picture is None and not job.encode:
            return None
        if job.picture is None:
            return pictures.encode_again(job.media_time, job.max_payload)
        decoded = pictures.decode(job.picture)
        if decoded is None or not job.encode:
            return None
        return pictures.encode(decoded, job.media_time, job.max_payload, keyframe=job.keyframe)
