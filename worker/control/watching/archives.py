"""Has what watches have labelled moved to their archives, a segment at a time, once its job has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from contract.backend.objects import ObjectStore
from contract.settings import Settings
from contract.watches.archive import archived_segments
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

    def of(self, watch: Watch) -> str:
        return watch.root if watch.archive else ""

    def done(self, watch: Watch) -> set[int]:
        return archived_segments(self.store, watch.root)
