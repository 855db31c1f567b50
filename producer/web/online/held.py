"""Counts the bytes that requests under way hold, so that all of them together stay within the memory of the process."""

from __future__ import annotations

from starlette.requests import Request

from producer.web.problems import Problem

MOST_HELD_BYTES = 256 * 2**20
"""Bodies and answers of all requests under way. A request takes three to four times its body."""


class Held:
    """What the requests of one process hold together."""

    bytes = 0


class Holding:
    """What one request holds, until `close`. Used in the event loop alone."""

    def __init__(self, held: Held) -> None:
        self._held, self._bytes = held, 0

    def take(self, count: int) -> None:
        """Hold so many bytes more; raises Problem 503 if that is more than the process may hold."""
        self._bytes += count
        self._held.bytes += count
        if self._held.bytes > MOST_HELD_BYTES:
            # No `Connection: close`: the client may still be sending, and would lose the answer with the connection.
            raise Problem(
                503, "This server holds as many bytes of requests as it can; try again.", headers={"Retry-After": "1"}
            )

    def close(self) -> None:
        """Let go of everything."""
        self._held.bytes -= self._bytes
        self._bytes = 0


def holding_of(request: Request) -> Holding:
    """Return what a request holds, as the guard counts it."""
    found = request.scope["imagemill.held"]
    assert isinstance(found, Holding)
    return found
