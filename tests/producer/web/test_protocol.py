"""An answer that its client does not read: it lies in memory, so its connection ends."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from producer.web import guard
from producer.web.protocol import Protocol


def test_a_client_that_takes_nothing_of_an_answer_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SEND_SECONDS", 0.05)

    async def never(message: guard.Message) -> None:
        await asyncio.Event().wait()

    with pytest.raises(ConnectionError, match="took nothing"):
        asyncio.run(guard._Answer(never, "id")({"type": "http.response.body"}))


class Transport:
    """A connection with an answer in its buffer."""

    def __init__(self, unread: int) -> None:
        self.unread, self.end = unread, ""

    def get_write_buffer_size(self) -> int:
        return self.unread

    def is_closing(self) -> bool:
        return bool(self.end)

    def close(self) -> None:
        self.end = "closed"

    def abort(self) -> None:
        self.end = "aborted"


@pytest.mark.parametrize(("unread", "end"), [([0], "closed"), ([9, 5, 0], "closed"), ([9, 5, 5], "aborted")])
def test_the_end_of_an_answer_is_waited_for_while_it_is_read(unread: list[int], end: str) -> None:
    protocol = Protocol.__new__(Protocol)
    transport, later = Transport(0), list[Any]()
    protocol.transport = cast("Any", transport)
    protocol.loop = cast("Any", SimpleNamespace(call_later=lambda seconds, call: later.append(call)))
    protocol.cycle = cast("Any", SimpleNamespace(response_complete=True))
    for size in unread:
        assert transport.end == ""
        transport.unread = size
        protocol._give_up()
    assert transport.end == end and len(later) == len(unread) - 1
