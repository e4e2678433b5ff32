"""The inner loops of the data path, compiled: whether they are there, and whether they are used.

The Python beside each call is the specification and the fallback. `Wake` takes a wake in which everything is plain,
from decrypted bytes to `sendmsg`, or changes nothing. The other functions take what is plain from the front of a run
and say where they stopped; the Python goes on from there, as it does for everything where nothing is compiled. All
state is the Python's: a camera may change hands at any wake, a run at any packet, and the result does not depend on
where.

Chosen once a process, before anything is made of what uses it (`choose`); objects keep what was chosen when they
were made.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from importlib.machinery import PathFinder
from typing import Final, Literal, cast

from relay_common.errors import ConfigError
from relay_common.proc import CRASHES
from relay_worker.native.interface import (
    ArrivalCalls,
    Arrivals,
    Compiled,
    Datagrams,
    InputParts,
    OutputParts,
    Reader,
    ReaderParts,
    Slots,
    StillSo,
    TranscodingParts,
    Wake,
)

__all__ = [
    "CHANGED",
    "DONE",
    "MOST_OUTPUTS",
    "NOT_PLAIN",
    "NO_VIDEO",
    "OTHERS_LEFT",
    "VARIABLE",
    "ArrivalCalls",
    "Arrivals",
    "Compiled",
    "Datagrams",
    "InputParts",
    "OutputParts",
    "Reader",
    "ReaderParts",
    "Setting",
    "Slots",
    "StillSo",
    "TranscodingParts",
    "Wake",
    "choose",
    "compiled",
    "decide",
    "missing",
    "state_type",
    "words",
]

Setting = Literal["auto", "compiled", "python"]

NOT_PLAIN, DONE, OTHERS_LEFT, NO_VIDEO, CHANGED = 0, 1, 2, 3, -1
MOST_OUTPUTS: Final = 8
"""In one `Wake`; with more the Python takes it."""
VARIABLE: Final = "RELAY_WORKERS_DATA_PATH"
"""What decides where the setting is `auto`: for programs that read no configuration, and for a whole test suite."""

_EXTENSION: Final = "relay_worker.native._runs"
_TRIAL: Final = """
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec
loader = ExtensionFileLoader(*sys.argv[1:])
loader.exec_module(loader.create_module(ModuleSpec(sys.argv[1], loader, origin=sys.argv[2])))
"""


def _load() -> tuple[Compiled | None, str]:
    """The extension module, or why there is none."""
    if crash := _crash():
        return None, f"loading it ends a process by {crash}"
    try:
        # `from … import` would raise the same error for a module that is not there as for one that does not load.
        module = importlib.import_module(_EXTENSION)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        return None, "it was installed without a C compiler" if missing else str(error)
    return cast("Compiled", module), ""


def _crash() -> str:
    """The signal by which loading the extension module ends a process: one of its own tries it. "" where it does not.

    A file that was cut short does so (SIGBUS), and one that was compiled for another processor (SIGILL): supervisor,
    fork server and `check` would end as well, where all of them can do without it. It takes 16 ms.
    """
    found = PathFinder.find_spec(_EXTENSION, __path__)
    if found is None or found.origin is None or _EXTENSION in sys.modules:
        return ""
    command = [sys.executable, "-I", "-S", "-c", _TRIAL, _EXTENSION, found.origin]
    null, environ = subprocess.DEVNULL, {name: value for name, value in os.environ.items() if name[:6] != "RELAY_"}
    try:  # without secrets: they would be in its core
        code = subprocess.run(command, stdin=null, stdout=null, stderr=null, env=environ, check=False).returncode
    except OSError:
        return ""  # it has not been tried
    return signal.Signals(-code).name if -code in CRASHES else ""


_found, _why_not = _load()
_in_use: Compiled | None = None


def state_type(name: str) -> type | None:
    """A base of `states`; None where nothing is compiled."""
    return getattr(_found, name, None)


def decide(setting: Setting) -> Compiled | None:
    """What a process with this setting uses: what is compiled, where it is there and the setting is not `python`.
    Raises ConfigError for `compiled` where it is not.
    """
    if setting == "auto" and (named := os.environ.get(VARIABLE)) in ("compiled", "python"):
        setting = cast("Setting", named)
    if setting == "compiled" and _found is None:
        raise ConfigError(
            f"workers.data_path is compiled, and the compiled data path is not there: {_why_not}",
            hint="Install the relay again where a C compiler and Python's headers are, or leave workers.data_path out",
        )
    return None if setting == "python" else _found


def choose(setting: Setting) -> None:
    """Decide for this process; see `decide`."""
    global _in_use
    _in_use = decide(setting)


def compiled() -> Compiled | None:
    """What is in use, or None: then all is done in Python."""
    return _in_use


def words() -> str:
    """Which one is in use: `compiled` or `python`."""
    return "python" if _in_use is None else "compiled"


def missing() -> str:
    """Why the compiled one is not there; empty when it is."""
    return _why_not
