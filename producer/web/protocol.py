"""uvicorn's HTTP protocol with a time limit for the head of a request, which uvicorn itself does not have."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from producer.web.problems import Problem

HEAD_SECONDS = 10.0
"""From the start of a connection, or the end of the answer before, to the end of a request's head."""


class Protocol(H11Protocol):
    """Ends connections that send no request, or send one a byte at a time."""

    _late: asyncio.TimerHandle | None = None
    _unread = 0
    """Bytes of an answer that the client had not read at the last look."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the form of all other errors."""
        answer = Problem(400, "This is no HTTP request that is understood here.").response()
        headers = [*answer.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await_head(self) -> None:
        if self._late is not None:
            self._late.cancel()
        self._late = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        """End the connection unless a request is under way, or the client still reads the answer to the last one."""
        if self.cycle is not None and not self.cycle.response_complete:
            return
        before, self._unread = self._unread, self.transport.get_write_buffer_size()
        if not self._unread:
            if not self.transport.is_closing():
                self.transport.close()
        elif before and self._unread >= before:
            self.transport.abort()
        else:
            self._late = self.loop.call_later(HEAD_SECONDS, self._give_up)
