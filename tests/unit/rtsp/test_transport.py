from __future__ import annotations

import asyncio
from pathlib import Path

from relay_common.simulation.certs import make_server_context
from relay_worker.rtsp.transport import client_context, connect


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
        assert connection.bytes == 40_000
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
