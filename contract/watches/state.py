"""How each watch stands, in one hash in Redis: its controller writes it, and lists, metrics and alerts read it.

It is disposable: a controller writes it again within seconds.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field, ValidationError

from contract.backend.ledger import Ledger
from contract.records import Record

_SLACK_SECONDS = 15.0
"""A controller tells when it swept every few seconds."""


class WatchState(Record):
    """What the controller of a watch last knew. Times are seconds since the epoch."""

    name: str
    stamp: str = Field(description="When the watch was added; tells it from an earlier one of the same name.")
    controller: str
    at: float
    every: float
    paused: bool = False
    swept_at: float = Field(0.0, description="When the newest round began that planned everything it found.")
    planned: int = 0
    pending: int = Field(0, description="Objects that were found and are not planned.")
    oldest: float | None = Field(None, description="When the oldest of them was last modified.")
    jobs: tuple[str, ...] = Field((), description="Segments that have not ended.")
    table_waiting: int = Field(0, description="Segments that have ended and are not in the table.")
    archive_waiting: int = Field(0, description="Segments that have ended and are not in the archive.")
    archived: int = Field(0, description="Images that are in the archive.")
    reason: str = Field("", description="Why the last round did not plan everything.")

    def lag(self, now: float) -> float:
        """Return the age in seconds of the oldest object that is not planned, as far as is known.

        If no round has planned everything for long, objects may have come that nobody has seen: then it is the time
        since that round.
        """
        if self.paused:
            return 0.0
        behind = now - self.swept_at if self.swept_at and now - self.swept_at > 2 * self.every + _SLACK_SECONDS else 0.0
        return max(0.0, behind, now - self.oldest if self.oldest is not None else 0.0)


def write_states(ledger: Ledger, states: Iterable[WatchState], gone: Iterable[str] = ()) -> None:
    """Write how some watches stand, and forget those that are gone; raises RedisUnavailable."""
    key = ledger.keys.watches
    with ledger.pipeline() as pipe:
        for state in states:
            pipe.hset(key, state.name, state.model_dump_json())
        for name in gone:
            pipe.hdel(key, name)
        pipe.execute()


def read_states(ledger: Ledger) -> dict[str, WatchState]:
    """Return how each watch stands, by name; raises RedisUnavailable."""
    found = {}
    for name, text in ledger.hash(ledger.keys.watches).items():
        try:
            found[name] = WatchState.model_validate_json(text)
        except ValidationError:
            continue  # of another version
    return found
