"""The socket of the server."""

from __future__ import annotations

import asyncio
import socket

from producer.web.serve import listen, url_of


def test_no_answer_waits_for_an_acknowledgement() -> None:
    # Given a server on our socket, if a client connects, I expect the connection to send at once what it has.
    found: asyncio.Queue[int] = asyncio.Queue()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = writer.get_extra_info("socket")
        await found.put(wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def connect() -> int:
        with listen("127.0.0.1", 0) as bound:
            async with await asyncio.start_server(answer, sock=bound):
                _, writer = await asyncio.open_connection(*bound.getsockname())
                delays = await asyncio.wait_for(found.get(), 30)
                writer.close()
                return delays

    assert asyncio.run(connect()) != 0


def test_a_client_that_comes_before_the_server_has_started_waits_for_it() -> None:
    with listen("127.0.0.1", 0) as bound, socket.create_connection(bound.getsockname(), timeout=30):
        pass


def test_the_address_is_one_that_this_machine_can_open() -> None:
    with listen("0.0.0.0", 0) as bound:
        assert url_of(bound, tls=True) == f"https://127.0.0.1:{bound.getsockname()[1]}"
