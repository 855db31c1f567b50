"""Has the segments of watches written to their tables once their jobs have ended, one at a time, in a child process.

A child, because Arrow takes memory that a controller does not have, and gives none of it back.
"""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess

from contract.backend.objects import ObjectStore
from contract.data.children.limits import die_with_parent, no_core_dump
from contract.errors import ImagemillError, ServiceUnavailable
from contract.jobs.ends import read_standing
from contract.jobs.templates import output
from contract.keys import JobKeys
from contract.settings import Settings
from contract.telemetry import logs
from contract.watches.record import Watch
from contract.watches.segments import segment_numbers
from contract.watches.tables import table_of, written_segments

log = logging.getLogger(__name__)

_LOOK_SECONDS = 30.0
_AGAIN_SECONDS = 600.0
"""Until a segment is tried again that could not be written."""
DONE, LATER, FAILED = 0, 3, 4


def serve(settings: Settings, table: str, segment: int, job: str, run: int) -> None:
    """Write one segment, in a process of its own; exit with DONE, LATER or FAILED."""
    from worker.control.watching.table import compact

    die_with_parent()
    no_core_dump()
    logs.set_up(settings.log, logging.INFO, "[%(asctime)s: %(levelname)s/table] %(message)s")
    logs.tell_always(job=job)
    try:
        made = compact(ObjectStore(settings, patience=30.0), table, segment, job, run)
        log.info("%s is in %s: %d rows in %d files", job, table, made.rows, len(made.files))
    except ServiceUnavailable as error:
        log.info("%s is written to its table later: %s", job, error)
        raise SystemExit(LATER) from None
    except ImagemillError as error:
        log.warning("%s is not in its table: %s", job, error)
        raise SystemExit(FAILED) from None


@dataclass(eq=False)
class Tables:
    """The tables of the watches that one controller keeps."""

    store: ObjectStore
    settings: Settings
    serve: Callable[[Settings, str, int, str, int], None] = serve
    _watches: Sequence[Watch] = ()
    _again: dict[str, float] = field(default_factory=dict)
    """When a job is tried again, by the monotonic clock."""
    _closing: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def follow(self, watches: Sequence[Watch]) -> None:
        """Write the tables of these watches from now on; return at once."""
        self._watches = watches
        if self._thread is None and watches:
            self._thread = threading.Thread(target=self._loop, name="tables", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write nothing more; a child that is at work is ended, and another controller starts over."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(5)

    def look(self, watch: Watch) -> None:
        """Write the segments of a watch whose jobs have ended and that are not in its table."""
        numbers = segment_numbers(self.store, watch.root)
        first = watch.job(0)
        found = table_of(self.store, first, output(JobKeys(first), self.store.bucket, watch.template.to))
        assert found is not None, "the id of a segment's job says so"
        table, _ = found
        for number in sorted(set(numbers) - (written_segments(self.store, table) if numbers else set())):
            job = watch.job(number)
            if self._closing.is_set() or time.monotonic() < self._again.get(job, 0.0):
                continue
            standing = read_standing(self.store, job)
            if standing.end is None:
                if not self.store.exists(JobKeys(job).spec):  # no job, or one that was deleted
                    self._again[job] = float("inf")
                continue
            self._again[job] = time.monotonic() + (
                _AGAIN_SECONDS if self._write(table, number, job, standing.run) else 0
            )

    def _write(self, table: str, segment: int, job: str, run: int) -> bool:
        """Write a segment; return whether that failed, so that it had better wait."""
        context = multiprocessing.get_context("forkserver")
        child: BaseProcess = context.Process(
            target=self.serve, args=(self.settings, table, segment, job, run), name=f"table {job}", daemon=True
        )
        child.start()
        while child.exitcode is None:
            child.join(0.5)
            if self._closing.is_set():
                child.terminate()
        if child.exitcode not in (DONE, LATER):
            log.warning("%s is not in its table: the process that writes it ended with %s", job, child.exitcode)
        return child.exitcode not in (DONE, LATER)

    def _loop(self) -> None:
        while not self._closing.wait(_LOOK_SECONDS):
            for watch in self._watches:
                try:
                    self.look(watch)
                except ImagemillError as error:
                    log.info("The table of %s waits: %s", watch.name, error)
                except Exception:
                    log.exception("The table of %s waits", watch.name)
