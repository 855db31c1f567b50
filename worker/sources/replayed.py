"""Lists what a watch planned in a span of time, to label it with another model."""

from __future__ import annotations

from collections.abc import Iterator

from contract.data.items import Item
from contract.watches.replays import Replay, replayed
from worker.sources.lister import Lister


class Replayed(Lister):
    """The objects of a replay, in the order in which they were planned."""

    def items(self) -> Iterator[Item]:
        return replayed(self.store, Replay.of_uri(self.source.uri))
