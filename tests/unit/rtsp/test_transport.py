from __future__ import annotations

import asyncio
import socket
import struct
import time
import tracemalloc
from pathlib import Path

import uvloop

from relay_common.simulation.camera.certs import make_certificates, make_server_context
from relay_worker.rtsp.transport import BUFFER_SIZE, MAX_UNSENT, client_context, connect
from tests.fixtures.openssl_server import KeyUpdateServer


async def test_all_records_that_have_arrived_are_delivered(tmp_path: Path) -> None:
    tls, ca_file = make_server_context(tmp_path)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(40):  # a TLS record each; then nothing more comes that could wake the client
            writer.write(bytes([number]) * 1000)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        connection = await connect("127.0.0.1", port, client_context(str(ca_file)), 10.0)
        received, complete = bytearray(), asyncio.Event()

        def on_data(data: bytes) -> None:
            received.extend(data)
            if len(received) == 40_000:
                complete.set()

        connection.start(on_data, lambda error: None)
        async with asyncio.timeout(10):
            await complete.wait()
        assert received == b"".join(bytes([number]) * 1000 for number in range(40))
        connection.close()


async def test_reading_takes_no_memory_but_for_what_came() -> None:
    """Reads go into one buffer that is used again: what is allocated is as large as what has arrived."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = await connect("127.0.0.1", listener.getsockname()[1], None, 10.0)
        server, _ = listener.accept()
        peaks: list[int] = []
        done = asyncio.Event()

        def on_data(data: bytes) -> None:
            peaks.append(tracemalloc.get_traced_memory()[1])
            if len(peaks) < 20:
                server.send(bytes(1000))
            else:
                done.set()

        connection.start(on_data, lambda error: None)
        tracemalloc.start()
        try:
            server.send(bytes(1000))
            async with asyncio.timeout(10):
                await done.wait()
        finally:
            tracemalloc.stop()
            connection.close()
            server.close()
        assert max(peaks) < BUFFER_SIZE // 2


async def test_a_server_that_does_not_read_is_given_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()
        await closed.wait()
        writer.transport.abort()

    closed = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        connection = await connect("127.0.0.1", server.sockets[0].getsockname()[1], None, 10.0)
        heard: list[Exception | None] = []
        connection.start(lambda data: None, heard.append)
        for _ in range(64 * 1024 * 1024 // MAX_UNSENT):
            connection.write(bytes(MAX_UNSENT))
            if heard:
                break
        closed.set()
        assert [type(error) for error in heard] == [OSError]
        connection.close()


async def test_end_of_connection_is_told_once_after_the_data() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"last words")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        connection = await connect("127.0.0.1", server.sockets[0].getsockname()[1], None, 10.0)
        heard: list[object] = []
        closed = asyncio.Event()

        def on_closed(error: Exception | None) -> None:
            heard.append(error)
            closed.set()

        connection.start(heard.append, on_closed)
        async with asyncio.timeout(10):
            await closed.wait()
        connection.close()
        connection.write(b"ignored")
        assert heard == [b"last words", None]


async def test_a_key_update_is_answered_within_five_looks(tmp_path: Path) -> None:
    """By OpenSSL alone only with the next request or report: a client that reads for long would never answer."""
    key_file, ca_file = make_certificates(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = KeyUpdateServer(listener, key_file, b"under new keys")
        server.start()
        connection = await connect("127.0.0.1", listener.getsockname()[1], client_context(str(ca_file)), 10.0)
        heard, received = bytearray(), asyncio.Event()

        def on_data(data: bytes) -> None:
            heard.extend(data)
            received.set()

        connection.start(on_data, lambda error: None)
        connection.look()
        async with asyncio.timeout(30):
            await received.wait()
            for _ in range(5):
                connection.look()
            while not server.key_updates:
                await asyncio.sleep(0.01)
        assert (server.key_updates, server.received) == ([0], b"")
        connection.look()
        connection.write(b"as well")
        connection.close()
        await asyncio.to_thread(server.join, 30)
        assert (bytes(heard), server.key_updates, server.received) == (b"under new keys", [0], b"as well")


def test_a_reset_behind_unread_data_is_noticed() -> None:
    """On uvloop, as in a worker: data and a reset that one wake finds together are one call to the reader, the last."""

    async def scene() -> tuple[int, list[Exception | None]]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connection = await connect("127.0.0.1", listener.getsockname()[1], None, 10.0)
            server, _ = listener.accept()
            ends: list[Exception | None] = []
            received = bytearray()
            connection.start(received.extend, ends.append)
            await asyncio.sleep(0.05)
            server.send(b"data")
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            server.close()
            time.sleep(0.05)  # noqa: ASYNC251 - both have to arrive before the loop polls again
            for _ in range(3):
                await asyncio.sleep(0.05)
                connection.look()
            connection.close()
            return len(received), ends

    received, ends = uvloop.run(scene())
    assert received == 4
    assert [type(end) for end in ends] == [ConnectionResetError]
