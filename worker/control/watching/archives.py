"""Has what watches have labelled moved to their archives, a segment at a time, once its job has ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from contract.backend.objects import ObjectStore
from contract.jobs.commits import in_parallel
from contract.settings import Settings
from contract.watches.archive import archived_segments, read_archived
from contract.watches.record import Watch
from worker.control.watching.afterwards import Afterwards, Serve, in_child


def serve(settings: Settings, root: str, segment: int, job: str, run: int) -> None:
    """Move what one segment has labelled, in a process of its own; exit with DONE, LATER or FAILED."""
    from worker.control.watching.move import move

    def work(store: ObjectStore) -> str:
        made = move(store, root, segment, job, run)
        return f"{made.moved} images of {job} are in the archive, {made.kept} stay where they are"

    in_child(settings, Archives.what, job, work)


@dataclass(eq=False)
class Archives(Afterwards):
    """The archives of the watches that one controller keeps."""

    what: ClassVar[str] = "archive"
    serve: Serve = serve
    _moved: dict[str, dict[int, int]] = field(default_factory=dict)
    """Images in the archive by the folder of a watch and the segment."""

    def of(self, watch: Watch) -> str:
        return watch.root if watch.archive else ""

    def done(self, watch: Watch) -> set[int]:
        found = archived_segments(self.store, watch.root)
        known = self._moved.get(watch.root, {})
        fresh = sorted(found - known.keys())
        read = in_parallel(lambda number: read_archived(self.store, watch.root, number), fresh)
        moved = {number: one.moved for number, one in zip(fresh, read, strict=True) if one is not None}
        self._moved[watch.root] = {number: known[number] for number in found & known.keys()} | moved
        return found

    def look(self, watch: Watch) -> None:
        super().look(watch)
        if watch.archive:
            self.done(watch)

    def figures(self, watch: Watch) -> dict[str, int]:
        moved = sum(self._moved.get(watch.root, {}).values())
        return {"archived": moved, "archive_waiting": self.waiting(watch)}
