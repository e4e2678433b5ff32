"""Functions whose code was moved behave as before; what has not run keeps its code."""

from __future__ import annotations

import asyncio
import gc
import sys
import traceback
from collections.abc import Callable, Iterator

import pytest

from relay_worker.process import gathered


def make(step: int) -> Callable[[int], int]:
    """Adds `step`."""

    def add(number: int, *, times: int = 1) -> int:
        return number + sum(step for _ in range(times))

    return add


class Class:
    def method(self) -> type:
        return __class__  # type: ignore[name-defined, no-any-return]

    @staticmethod
    def fail() -> None:
        raise ValueError("on purpose")

    def numbers(self) -> Iterator[int]:
        yield from (1, 2)

    async def wait(self) -> int:
        await asyncio.sleep(0)
        return 3


def idle() -> None:
    """Never called."""


@pytest.fixture(autouse=True)
def _nothing_is_frozen() -> None:
    """The collector lists nothing that is, and a test before may have frozen what there was."""
    gc.unfreeze()


def test_moved_code_does_what_it_did() -> None:
    made, one = make(2), Class()

    def run() -> list[object]:
        return [make(5)(1, times=2), made(1), one.method(), [*one.numbers()], asyncio.run(one.wait())]

    with gathered.watched() as ran:
        before = run()
        with pytest.raises(ValueError, match="on purpose"):
            one.fail()
    codes = [function.__code__ for function in (make, made, Class.method, Class.fail, Class.numbers, Class.wait)]
    names = [code.co_qualname for code in codes]
    assert gathered.gather(ran) >= len(codes)
    moved = [function.__code__ for function in (make, made, Class.method, Class.fail, Class.numbers, Class.wait)]
    assert not {*map(id, moved)} & {*map(id, codes)}
    assert [code.co_qualname for code in moved] == names
    assert make.__doc__ == "Adds `step`."
    assert run() == before == [11, 3, Class, [1, 2], 3]
    with pytest.raises(ValueError, match="on purpose") as raised:
        one.fail()
    (*_, last) = traceback.extract_tb(raised.value.__traceback__)
    assert (last.name, last.line) == ("fail", 'raise ValueError("on purpose")')


def test_functions_made_later_get_what_was_moved() -> None:
    with gathered.watched() as ran:
        made = make(1)
        made(1)
    gathered.gather(ran)
    assert make(2).__code__ is made.__code__
    assert id(made.__code__) not in ran


def test_what_has_not_run_keeps_its_code() -> None:
    code = idle.__code__
    with gathered.watched() as ran:
        make(1)
    gathered.gather(ran)
    assert idle.__code__ is code
    assert id(code) in gathered.of_modules([__name__])
    assert id(code) not in gathered.of_modules(["json"])


def test_whoever_traced_before_goes_on() -> None:
    before = sys.gettrace()
    with gathered.watched():
        assert sys.gettrace() is not before
    assert sys.gettrace() is before
