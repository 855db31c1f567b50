"""Has the segments of watches written to their tables once their jobs have ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from contract.backend.objects import ObjectStore
from contract.settings import Settings
from contract.watches.record import Watch
from contract.watches.tables import table_of_watch, written_segments
from worker.control.watching.afterwards import Afterwards, Serve, in_child

_DELTA = "delta+"
"""Before the address of a table that is a Delta table too."""


def serve(settings: Settings, address: str, segment: int, job: str, run: int) -> None:
    """Write one segment, in a process of its own; exit with DONE, LATER or FAILED."""
    from worker.control.watching.delta import DeltaLog
    from worker.control.watching.table import compact

    table = address.removeprefix(_DELTA)

    def work(store: ObjectStore) -> str:
        delta = DeltaLog(settings, table) if address != table else None
        made = compact(store, table, segment, job, run, delta=delta)
        return f"{job} is in {table}: {made.rows} rows in {len(made.files)} files"

    in_child(settings, Tables.what, job, work)


@dataclass(eq=False)
class Tables(Afterwards):
    """The tables of the watches that one controller keeps."""

    what: ClassVar[str] = "table"
    serve: Serve = serve

    def of(self, watch: Watch) -> str:
        return f"{_DELTA if watch.delta else ''}{table_of_watch(self.store, watch)}"

    def done(self, watch: Watch) -> set[int]:
        return written_segments(self.store, table_of_watch(self.store, watch))

    def figures(self, watch: Watch) -> dict[str, int]:
        return {"table_waiting": self.waiting(watch)}
