"""Debug categories cover every module that logs, and one line says all of its record."""

from __future__ import annotations

import importlib.util
import logging
import re
import sys
from pathlib import Path

from relay_common.log import CATEGORIES, NOISY, set_debug, whole_line
from tests.fixtures.product_source import MODULES


def test_every_module_that_logs_is_in_a_category() -> None:
    covered = [name for names in CATEGORIES.values() for name in names]
    logging_ = [
        name
        for name, path in MODULES.items()
        if name.split(".")[0] in ("relay_supervisor", "relay_worker") and "getLogger(__name__)" in path.read_text()
    ]
    assert len(logging_) > 40
    assert [name for name in logging_ if not any(name == c or name.startswith(f"{c}.") for c in covered)] == []


def test_http_libraries_log_no_request() -> None:
    """lightkube brings other ones than ours: a supervisor in a cluster wrote a line for each question who commands."""
    loggers = set[str]()
    for library in ("httpx", "httpcore", "httpx2", "httpcore2"):
        found = importlib.util.find_spec(library)
        assert found is not None, library
        for folder in found.submodule_search_locations or ():
            for file in Path(folder).rglob("*.py"):
                loggers.update(re.findall(r'getLogger\("([^"]+)"\)', file.read_text()))
    assert {"httpx", "httpx2"} <= loggers
    assert [name for name in sorted(loggers) if name.partition(".")[0] not in NOISY] == []


def test_a_logger_in_two_categories_is_on_while_either_is() -> None:
    camera = logging.getLogger("relay_worker.camera")
    try:
        for category in ("rtsp", "webrtc"):
            set_debug([category])
            assert camera.level == logging.DEBUG
        set_debug(["bus"])
        assert camera.level == logging.NOTSET
    finally:
        set_debug([])


def test_a_line_has_its_context_and_its_traceback_and_of_a_long_one_both_ends() -> None:
    def record(text: str) -> logging.LogRecord:
        made = logging.LogRecord("relay_worker.x", logging.ERROR, "x.py", 1, text, (), sys.exc_info())
        made.camera, made.instance, made.retry_in = "Porch", "a.1", 2.5
        return made

    try:
        raise ValueError("broken")
    except ValueError:
        whole, cut = whole_line(record("it failed"), 4000), whole_line(record("y" * 4000), 1000)
    assert whole.startswith("it failed retry_in=2.5\nTraceback (most recent call last):\n")
    assert "Porch" not in whole, "that has a place of its own"
    assert whole.endswith("ValueError: broken")
    assert cut.endswith("ValueError: broken")
    assert len(cut) == 1000
