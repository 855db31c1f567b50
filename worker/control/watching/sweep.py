"""Finds the objects of a watch: follows the end of its prefix, and lists it in full now and then.

Listing is the truth. The tail finds the keys that sort behind all others so far; a full listing finds the rest, and the
first one is the backfill. Hints only say where to look earlier. Whatever finds an object, and however often, the chain
plans it once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Literal, TypeAlias

from contract.backend.listing import Entry
from contract.backend.objects import ObjectStore
from contract.data.items import Item, is_image_name
from contract.errors import ImagemillError
from contract.jobs.commits import in_parallel
from contract.watches.record import Watch
from worker.control.watching.chain import Chain

_DUTY = 20
"""A full listing takes at most a twentieth of the time."""
_PAGE = 1000
"""Up to so many keys a full listing is one request, as the tail is, so it often takes the tail's place."""
_HINTS = 64
"""Objects that are asked for one by one; for more, the prefix is listed in full."""
_THREADS = 8


Outcome: TypeAlias = Literal["planned", "more", "full"]


class Sweep:
    """The sweeps of one watch. `round` is called at every interval, by one thread at a time."""

    def __init__(
        self,
        store: ObjectStore,
        watch: Watch,
        chain: Chain,
        *,
        full_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._watch, self._chain, self._clock = store, watch, chain, clock
        self._full_seconds = full_seconds
        self._pending: dict[str, Item] = {}
        self._after = ""
        """The last key that was found, in the order of the store."""
        self._position = ""
        """The last key of the full listing that is under way."""
        self._listing: Iterator[Sequence[Entry]] | None = None
        self._began = self._spent = 0.0
        self._keys = 0
        self._full_due = 0.0
        self._before: list[bytes] | None = [] if watch.start == "now" and not chain.begun else None
        self.swept_at = 0.0
        """When the newest round began that planned everything it found, in seconds since the epoch."""

    @property
    def pending(self) -> int:
        """Objects that were found and are not planned."""
        return len(self._pending)

    @property
    def oldest(self) -> float | None:
        """When the oldest of them was last modified, in seconds since the epoch."""
        return min((item.modified or 0.0 for item in self._pending.values()), default=None)

    def round(self, seconds: float, hints: Iterable[str] = ()) -> Outcome:
        """Look for new objects and plan them, for about `seconds`.

        `hints` are keys that may be new, in any order and number. Return "planned" once all that was found and hinted
        at is planned, "more" if there was no time for all of it, and "full" if earlier segments must end first.
        """
        began = self._clock()
        deadline = time.monotonic() + seconds
        self._chain.announce()
        self._chain.close_if_due(began)
        if not self._chain.room():
            return "full"
        wanted = set(hints)
        if self._listing is None and (began >= self._full_due or len(wanted) > _HINTS):
            self._listing, self._began, self._spent, self._keys = self._pages(""), self._clock(), 0.0, 0
            self._position = ""
        self._hinted(wanted)
        done = self._tail(deadline) if self._listing is None else self._full(deadline)
        if self._before is None and not self._cut(everything=True):
            return "full"
        if done:
            self.swept_at = began
        return "planned" if done else "more"

    # Listing

    def _full(self, deadline: float) -> bool:
        """Go on with a full listing; return whether it has come to its end, and all it found has room."""
        assert self._listing is not None
        began = time.monotonic()
        try:
            for page in self._listing:
                self._keys += len(page)
                self._position = page[-1].key if page else self._position
                self._found(page)
                if (self._before is None and not self._cut()) or time.monotonic() > deadline:
                    return False
        except ImagemillError:
            # The generator has ended with its error, and the prefix has not.
            self._listing = self._pages(self._position)
            raise
        finally:
            self._spent += time.monotonic() - began
        self._end_full()
        return True

    def _end_full(self) -> None:
        # First, so that a store that fails here leaves the listing open, and nothing is planned before it is recorded.
        if self._before is not None:
            self._chain.record_before(self._before)
            self._chain.begin_after(self._began)
            self._before = None
        self._listing = None
        least = 0.0 if self._keys <= _PAGE else self._full_seconds
        self._full_due = self._began + max(least, _DUTY * self._spent)

    def _tail(self, deadline: float) -> bool:
        """List what sorts behind everything so far; return whether all of it was."""
        for page in self._pages(self._after):
            self._found(page)
            if not self._cut():
                return False
            if time.monotonic() > deadline:
                return False
        return True

    def _pages(self, after: str) -> Iterator[Sequence[Entry]]:
        return self._store.pages(self._watch.prefix, bucket=self._watch.bucket, after=after)

    def _hinted(self, keys: set[str]) -> None:
        """Look at single keys, but those that the listing finds anyway."""
        behind = (self._after if self._listing is None else self._position).encode()
        known = self._watch.overwrites == "ignore"
        wanted = [
            key
            for key in sorted(keys)
            if key.startswith(self._watch.prefix)
            and is_image_name(key)
            and key.encode() <= behind
            and not (known and not self._chain.unseen([Item(key, "")]))
        ]
        for entry in in_parallel(self._look, wanted, threads=_THREADS):
            self._found([entry] if entry else [])

    def _look(self, key: str) -> Entry | None:
        """Return one object as a listing shows it, None if it is gone."""
        # Not a HEAD: a version must have the same etag however it was found.
        first = next(iter(self._store.pages(key, bucket=self._watch.bucket)), ())
        return next((entry for entry in first if entry.key == key), None)

    # Planning

    def _found(self, entries: Sequence[Entry]) -> None:
        """Remember the objects that are not planned yet."""
        if entries and entries[-1].key.encode() > self._after.encode():
            self._after = entries[-1].key
        images = [self._item(entry) for entry in entries if is_image_name(entry.key)]
        for item in self._chain.unseen(images):
            if self._before is not None and self._was_there(item):
                self._before.append(self._chain.hash(item))
            else:
                self._pending[item.key] = item

    def _was_there(self, item: Item) -> bool:
        """Whether an object is older than the watch; stores tell whole seconds, so the second of its birth is not."""
        return int(item.modified or 0.0) < int(datetime.fromisoformat(self._watch.created_at).timestamp())

    def _item(self, entry: Entry) -> Item:
        again = self._watch.overwrites == "again"
        uri = f"s3://{self._watch.bucket}/{entry.key}"
        return Item(
            key=entry.key,
            uri=uri,
            size=entry.size,
            etag=entry.etag if again else None,
            modified=round(entry.modified, 3),
            archive=self._watch.archived(entry.key, entry.etag),
        )

    def _cut(self, *, everything: bool = False) -> bool:
        """Plan full shards, and with `everything` the rest too; return False if earlier segments must end first."""
        while self._pending and (everything or len(self._pending) >= self._chain.shard_size):
            now = self._clock()
            self._chain.close_if_due(now)
            if not self._chain.room():
                return False
            some = list(self._pending.values())[: self._chain.shard_size]
            self._chain.append(some, now)
            for item in some:
                del self._pending[item.key]
        return True
