"""TLS read by OpenSSL's own functions: what a connection is known by, and records that fill the buffer."""

from __future__ import annotations

import _ssl
import ctypes
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from relay_common.simulation.camera.certs import make_server_context
from relay_worker import native
from relay_worker.rtsp import transport
from relay_worker.rtsp.transport import client_context, wrapped
from tests.unit.native.test_reading import Reading

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())

COMPILED: Any = None if native.missing() else native.decide("compiled")
GET_MODE, RELEASE_BUFFERS = 33, 0x10  # SSL_CTRL_MODE, SSL_MODE_RELEASE_BUFFERS
LONGEST = 16384
"""Bytes of text in a record (RFC 8446 §5.1)."""


def wrap(context: ssl.SSLContext) -> tuple[ssl.SSLObject, object | None]:
    return wrapped(COMPILED, context, ssl.MemoryBIO(), ssl.MemoryBIO(), "camera.example")


def test_each_connection_is_known_by_itself() -> None:
    found = [wrap(client_context())[1] for _ in range(3)]
    assert len({repr(one) for one in found}) == 3
    assert all("relay_worker.SSL" in repr(one) for one in found)


def test_its_buffers_are_kept() -> None:
    """The standard library asks for them to be released (SSL_MODE_RELEASE_BUFFERS), which is 17 KB for each record."""
    library, pointer = ctypes.CDLL(_ssl.__file__), ctypes.pythonapi.PyCapsule_GetPointer
    library.SSL_ctrl.restype, pointer.restype = ctypes.c_long, ctypes.c_void_p
    library.SSL_ctrl.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
    pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    tls, known = wrap(client_context())
    mode = library.SSL_ctrl(pointer(known, b"relay_worker.SSL"), GET_MODE, 0, None)
    assert mode & RELEASE_BUFFERS == 0
    assert mode, "the others are as they were"
    assert tls is not None


def test_what_makes_no_connection_is_known_by_none() -> None:
    assert COMPILED.watch_tls(_ssl.__file__, object)[1] is None
    with pytest.raises(ZeroDivisionError):
        COMPILED.watch_tls(_ssl.__file__, lambda: 1 / 0)
    with pytest.raises(TypeError):
        COMPILED.watch_tls(_ssl.__file__)


def test_another_threads_connection_is_not_taken_for_it() -> None:
    made: list[ssl.SSLObject] = []

    def elsewhere() -> object:
        other = threading.Thread(target=lambda: made.append(wrap(client_context())[0]))
        other.start()
        other.join()
        return made

    assert COMPILED.watch_tls(_ssl.__file__, elsewhere) == (made, None)
    assert len(made) == 1


def test_without_openssl_as_a_library_it_is_read_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in ((_ssl, "__file__", None), (ssl, "OPENSSL_VERSION", "LibreSSL 3.9.0")):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, value)
            tls, known = wrap(client_context())
        assert (type(tls), known) == (ssl.SSLObject, None)
    assert wrapped(None, client_context(), ssl.MemoryBIO(), ssl.MemoryBIO(), "camera.example")[1] is None


def test_a_file_that_is_not_loaded_has_nothing() -> None:
    """In a process of its own: what was found once is not looked for again."""
    program = (
        "import _ssl, ssl; from relay_worker import native; found = native.decide('compiled');"
        "context = ssl.create_default_context();"
        "wrap = lambda: context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname='camera.example');"
        "print([found.watch_tls(file, wrap)[1] for file in ('/nowhere', _ssl.__file__)])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "[None, None]\n"


@pytest.mark.parametrize("room", [LONGEST - 1, LONGEST, LONGEST + 1, 2 * LONGEST - 1, 2 * LONGEST, 40_000])
async def test_records_that_the_buffer_has_no_room_for_are_read_all_the_same(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_buffer", bytearray(room))
    reading = Reading(tmp_path, True)
    reading.begin()
    text = b"".join(bytes([number]) * LONGEST for number in range(1, 5))
    coded = b"".join(map(reading.server.coded, (text[:-7], text[-7:])))
    got = b""
    sent = 0
    while sent < len(coded):  # as much at a time as a socket takes
        part = coded[sent : sent + 2 * room]
        sent += len(part)
        for data in (part, b"", b"", b""):
            for took in reading.read(data):
                got += took[0]
    assert got == text
    assert reading.told.closed == []
    reading.connection.close()
    reading.server.sock.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_either_version_of_tls(version: ssl.TLSVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, ca_file = make_server_context(tmp_path)
    context.maximum_version = context.minimum_version = version
    monkeypatch.setattr("tests.unit.native.test_reading.make_server_context", lambda folder: (context, ca_file))
    reading = Reading(tmp_path, True)
    reading.begin()
    assert reading.connection._tls is not None
    assert reading.connection._tls.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
    for text in (b"one", b"two" * 5000, b"x" * 60_000):
        got = b"".join(took[0] for took in reading.receive(text))
        assert got == text
    reading.connection.close()
    reading.server.sock.close()
