"""The code that a worker runs, moved together, so that what the interpreter writes into it is on few pages.

CPython counts in the bytecode itself, at each place that it has not specialised or cannot, and a page on which it
counts becomes the worker's own. What a worker runs is a tenth of what is imported, and lies everywhere. Here the
functions that have run get copies of their code, made one after the other, by what the language offers for that:
`CodeType.replace`, and a function's `__code__`. Code that runs at this moment goes on as it is.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType, FunctionType
from typing import Final

PAYS: Final = sys.version_info >= (3, 12)
"""Before, a call counts references in the function as well, whose page is then copied all the same (measured)."""
Ran = dict[int, CodeType]
"""Code by its id, in the order in which it first ran."""


@contextlib.contextmanager
def watched() -> Iterator[Ran]:
    """Note which code begins to run meanwhile in this thread."""
    ran: Ran = {}

    def note(frame: FrameType, event: str, argument: object) -> None:
        ran.setdefault(id(frame.f_code), frame.f_code)

    before = sys.gettrace()
    sys.settrace(note)
    try:
        yield ran
    finally:
        sys.settrace(before)


def of_modules(names: Iterable[str]) -> Ran:
    """The code of all functions that are written in these modules."""
    return {id(one.__code__): one.__code__ for one in _functions() if one.__module__ in names}


def gather(ran: Ran) -> int:
    """Move this code, and the code that what has run makes functions of; returns how many pieces were moved.

    Functions that are made later from code that has not run keep theirs.
    """
    functions: dict[int, list[FunctionType]] = {}
    for function in _functions():
        functions.setdefault(id(function.__code__), []).append(function)
    moved: Ran = {}
    for code in ran.values():
        for function in functions.get(id(code), ()):
            function.__code__ = _moved(code, ran, moved)
    return len(moved)


def _moved(code: CodeType, ran: Ran, moved: Ran) -> CodeType:
    if id(code) not in moved:
        constants = (_moved(c, ran, moved) if isinstance(c, CodeType) and id(c) in ran else c for c in code.co_consts)
        moved[id(code)] = code.replace(co_consts=tuple(constants))
    return moved[id(code)]


def _functions() -> list[FunctionType]:
    return [one for one in gc.get_objects() if type(one) is FunctionType]
