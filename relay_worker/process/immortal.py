"""Makes the objects of the fork server immortal (PEP 683), so that workers do not copy pages to count references.

Nothing that was imported before the fork is ever freed, but each reference that comes or goes is counted in the object,
and the page with it becomes the worker's own. From CPython 3.12 on, an object whose count has one certain value is not
counted any more. This sets that value: a trick on the interpreter's internals, only on versions that it was tested on,
and only on types that are known here.

What refers to what is asked of those types alone: what modules of C tell of themselves may be of no use to others, and
a wider walk broke asyncio on 3.12.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import platform
import re
import struct
import sys
import sysconfig
import types
import weakref
from typing import Any, Final

VERSIONS: Final = ((3, 12), (3, 13))
"""CPython's, on which this was tested. The value is another one in 3.14."""
_IMMORTAL: Final = 0xFFFF_FFFF
_REFERRING: Final = frozenset(
    {
        *(tuple, list, dict, set, frozenset, property, classmethod, staticmethod),
        *(types.FunctionType, types.MethodType, types.CellType, types.MappingProxyType),
    }
)
_KNOWN: Final = _REFERRING | {
    *(str, bytes, int, float, complex, types.CodeType, types.ModuleType),
    *(types.BuiltinFunctionType, types.MethodDescriptorType, types.ClassMethodDescriptorType),
    *(types.WrapperDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType),
    *(types.GenericAlias, types.UnionType, weakref.ReferenceType, re.Pattern, struct.Struct),
    *(functools.partial, type(functools.lru_cache(len))),
}
_HEAP: Final = 1 << 9
"""Of a class's `__flags__`: it was made while the interpreter ran (`Py_TPFLAGS_HEAPTYPE`)."""
_IMMUTABLE: Final = 1 << 8
"""`Py_TPFLAGS_IMMUTABLETYPE`."""
_made = ""
"""How it went in this process, or the one that it was forked from; see `words`."""


def unsupported() -> str:
    """Why the objects of this interpreter stay counted, in words; empty when they can be made immortal."""
    name, version = platform.python_implementation(), sys.version_info
    if name != "CPython" or version[:2] not in VERSIONS:
        tested = " and ".join(f"{major}.{minor}" for major, minor in VERSIONS)
        return f"this was tested on CPython {tested}, not on {name} {version.major}.{version.minor}"
    if sys.maxsize <= 2**32 or sys.byteorder != "little":
        return "this was tested on little-endian processors of 64 bits"
    if hasattr(sys, "gettotalrefcount") or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "this interpreter counts references in another way"
    return ""


def make_immortal() -> None:
    """Make what this process has immortal, where that can be done; `words` says how it went.

    To be called in a process that forks and does not end by itself, with nothing running in it but this.
    """
    global _made
    _made = unsupported() or _refuted()
    if _made:
        return
    waiting: list[Any] = gc.get_objects()
    while waiting:
        one = waiting.pop()
        kind: Any = type(one)
        if not _is_known(one, kind) or sys.getrefcount(one) >= _IMMORTAL:
            continue
        _set_count(one)
        if kind is types.CodeType:
            waiting += _parts(one)
        elif kind in _REFERRING or isinstance(one, type) or _in_python(kind):
            waiting += gc.get_referents(one)
    _made = "immortal"


def words() -> str:
    """How the objects that this process has inherited are: `immortal`, or why not; empty where nobody tried."""
    return _made


def described(setting: str) -> str:
    """What workers with this setting will have, in words."""
    if setting == "off":
        return "counted, as configured"
    return f"counted ({why})" if (why := unsupported()) else "immortal"


def _is_known(one: object, kind: Any) -> bool:
    return kind in _KNOWN or isinstance(one, type) or _in_python(kind)


@functools.cache
def _in_python(kind: Any) -> bool:
    """Whether a class is written in Python, on `object` and known types alone.

    Only those have a dictionary or slots of their own, unless a base of theirs has.
    """
    own = vars(kind)
    if not kind.__flags__ & _HEAP or kind.__flags__ & _IMMUTABLE or "__module__" not in own:
        return False
    bases = [base for base in kind.__bases__ if base is not object and base not in _KNOWN]
    return all(map(_in_python, bases)) and (bool(bases) or "__dict__" in own or "__slots__" in own)


def _set_count(one: object) -> None:
    ctypes.c_uint64.from_address(id(one)).value = _IMMORTAL


def _refuted() -> str:
    """Why this interpreter is not what is expected, by what it does to an object's count; empty when it is."""
    probe = [object()]
    field = ctypes.c_uint64.from_address(id(probe))
    if sys.getrefcount(None) != _IMMORTAL or field.value != sys.getrefcount(probe) - 1:
        return "this interpreter keeps its counts of references elsewhere"
    field.value = _IMMORTAL
    more = [probe, probe]
    counted = sys.getrefcount(probe)
    more.clear()
    if counted != _IMMORTAL or field.value != _IMMORTAL:
        return "this interpreter went on counting references"
    return ""


def _parts(code: types.CodeType) -> list[Any]:
    """What a code object refers to, as far as it shows that; the collector does not know code."""
    names = [*code.co_varnames, *code.co_freevars, *code.co_cellvars]
    whole = [code.co_consts, code.co_names, code.co_linetable, code.co_exceptiontable]
    return [*names, *whole, code.co_name, code.co_qualname, code.co_filename]
