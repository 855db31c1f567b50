"""What a process may take beside what it runs: long work keeps slots free for short, and one thing trains at a time.

It knows queues and needs, not how a shard is run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from contract.jobs.kinds import KINDS
from contract.jobs.numerics import Needs

_LONG = {kind.queue for kind in KINDS.values() if kind.long}
_SHORT = {kind.queue for kind in KINDS.values() if not kind.long}


@dataclass
class Offer:
    """What a thread may take now, and holds until its `with` statement ends, or until it `keeps` less."""

    long: ExitStack
    trains: ExitStack
    may_be_long: bool = False
    may_train: bool = False

    def keep(self, needs: Needs) -> None:
        """Let others have what a shard with these needs does not use."""
        if not needs.long:
            self.long.close()
        if not needs.trains:
            self.trains.close()


class Admission:
    """Keeps count of the long work of a process with so many slots, which serves `queues`."""

    def __init__(self, training: threading.Lock, slots: int, queues: frozenset[str]) -> None:
        self._training = training
        # A worker that serves short work too keeps half of its slots for it.
        self._long = threading.Semaphore(max(1, slots // 2) if queues & _SHORT else slots)

    @contextmanager
    def offer(self, queue: str) -> Iterator[Offer]:
        """Hold what a shard of a queue may need, as far as it is free."""
        with ExitStack() as long, ExitStack() as trains:
            offer = Offer(long, trains)
            if queue in _LONG:
                if self._long.acquire(blocking=False):
                    long.callback(self._long.release)
                    offer.may_be_long = True
                if self._training.acquire(blocking=False):
                    trains.callback(self._training.release)
                    offer.may_train = True
            yield offer
