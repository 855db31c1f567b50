"""Lists several sources one behind the other, as one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property

from contract.data.items import Item
from worker.sources.lister import Lister, labelled, lister


class Several(Lister):
    """The images of every part, in the order in which the parts were named."""

    @cached_property
    def _parts(self) -> list[Lister]:
        known = {"frames": self.frames, "labels": self.labels, "min_score": self.min_score}
        return [lister(self.store, part, **known) for part in self.source.parts]  # type: ignore[arg-type]

    def items(self) -> Iterator[Item]:
        for part in self._parts:
            yield from labelled(part, part.items()) if self.labels else part.items()
            self.skipped += part.skipped

    def class_order(self, found: Collection[str]) -> tuple[str, ...] | None:
        """Return the classes in the order of the first part that knows all of them, None if none does."""
        orders = (part.class_order(found) for part in self._parts)
        return next((order for order in orders if order is not None and set(found) <= set(order)), None)
