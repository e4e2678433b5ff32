"""What supervisors say while rows run, kept for whoever asks why a bar was missed."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from relay_common.log import NOISY, ConsoleFormatter
from tests.cluster.engine import Cluster

_OF_SUPERVISORS: Final = "*/log/pods/nest-relay_nest-relay-*/*/*.log"
"""As true kubelets name them, in nodes' folders: NAMESPACE_NAME_UID/CONTAINER/COUNT."""
_OFTEN: Final = 0.5
"""Seconds between two looks for files that are new."""


@contextlib.contextmanager
def kept(folder: Path | None, name: str, cluster: Cluster) -> Iterator[None]:
    """Write the log of this process's supervisor to `folder` meanwhile, and keep those of supervisors in true Pods."""
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / f"{name}.log")
    handler.setFormatter(ConsoleFormatter(colour=False))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    done = threading.Event()
    linking = threading.Thread(target=_link, args=(cluster.folder, folder / name, done))
    linking.start()
    try:
        yield
    finally:
        done.set()
        linking.join()
        root.removeHandler(handler)
        handler.close()


def _link(nodes: Path, prefix: Path, done: threading.Event) -> None:
    """Give each file another name: a kubelet removes its own with the Pod."""
    while not done.wait(_OFTEN):
        for file in nodes.glob(_OF_SUPERVISORS):
            node, pod = file.parents[4].name, file.parents[1].name.split("_")[1]
            with contextlib.suppress(OSError):  # it is there, or the file is gone, or on another disk
                os.link(file, f"{prefix}-{node}-{pod}-{file.name}")
