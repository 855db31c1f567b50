"""Write the page of a classify job that has ended: its labels, its least certain images, its errors, its speed.

    rows, shard by shard → counts → thumbnails → page

Two million rows take no more memory than one shard and the counts. Knows neither the model nor Celery.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from contract.errors import ImagemillError, ObjectNotFound
from contract.jobs import results
from contract.jobs.ends import read_end
from contract.jobs.lifecycle import Backend, read_classify
from contract.keys.jobs import JobKeys
from worker.classify import neighbours, thumbnails
from worker.classify.sections import sections
from worker.classify.summary import Summary
from worker.execution.resources import Resources
from worker.pages import page
from worker.sources.fetch import Fetcher

log = logging.getLogger(__name__)


def write(backend: Backend, fetcher: Fetcher, job: str, *, max_pixels: int) -> None:
    """Write the page of a classify job that has ended, in whatever state, to `JobKeys(job).report`.

    Running it twice is harmless. A job that has not ended, or that is resumed meanwhile, gets no page, because rows are
    missing. Thumbnails follow `thumbnails.tiles`, with its limit `max_pixels`.

    Raises UnknownJob, JobConflict for a job of another kind, ObjectDamaged if rows differ from what was committed, and
    StoreUnavailable.
    """
    spec = read_classify(backend.store, job)
    end = read_end(backend.store, job)
    if end is None:
        log.info("%s has not ended, so it gets no page yet", job)
        return
    found = Summary()
    try:
        for commit, table in results.tables(backend.store, job):
            found.add(commit, table)
        tiles = thumbnails.tiles(backend, fetcher, job, found.doubts, max_pixels)
    except ObjectNotFound:
        if read_end(backend.store, job) == end:
            raise
        log.info("%s was resumed, so its page is not written", job)
        return
    html = page.render(
        f"Labels of {job}",
        model=spec.model,
        data=f"{spec.source.label}, {found.ok + found.codes.total():,} images",
        date=datetime.fromisoformat(end.finished_at or end.created_at),
        sections=sections(spec, end, found, tiles),
    )
    key = JobKeys(job).report
    backend.store.put(key, html.encode())
    # A retry removes the end first and the page second, so whichever of the two comes last removes the outdated page.
    if read_end(backend.store, job) != end:
        backend.store.delete(key)


def make_page(resources: Resources) -> Callable[[str], None]:
    """Return the function that writes a job's page in this process; it logs an error, since the job itself is done."""

    def make(job: str) -> None:
        try:
            write(resources.backend, resources.fetcher, job, max_pixels=resources.settings.max_image_pixels)
            neighbours.write(resources.backend.store, job)
        except ImagemillError as error:
            log.warning("The page of %s cannot be made: %s", job, error)

    return make
