"""Has the segments of watches written to their tables once their jobs have ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from contract.backend.objects import ObjectStore
from contract.jobs.templates import output
from contract.keys import JobKeys
from contract.settings import Settings
from contract.watches.record import Watch
from contract.watches.tables import table_of, written_segments
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
        return f"{_DELTA if watch.delta else ''}{self._table(watch)}"

    def done(self, watch: Watch) -> set[int]:
        return written_segments(self.store, self._table(watch))

    def _table(self, watch: Watch) -> str:
        first = watch.job(0)
        found = table_of(self.store, first, output(JobKeys(first), self.store.bucket, watch.template.to))
        assert found is not None, "the id of a segment's job says so"
        return found[0]
