"""The pages of what went wrong: failures by code over the jobs that ended last, and of one job image by image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from contract.backend.objects import ObjectStore
from contract.data.items import read_manifest
from contract.errors import ObjectNotFound
from contract.jobs.kinds import KINDS, makes_labels
from contract.keys.jobs import JobKeys
from producer.jobs import cleaning, pages
from producer.jobs.failures import Failure, failures
from producer.jobs.tallies import Tallies
from producer.web.console.jobs.listing import ENDS, actions_of, opened, owner_of
from producer.web.console.jobs.samples import Sample
from producer.web.console.rendering import page
from producer.web.owned import Review
from producer.web.v1.jobs import Id, cursor_of, place_of

_IMAGES = 24
_JOBS = 50
SHOWN = frozenset({"truncated", "decode_failed", "inference_failed"})
"""Codes of images that a browser may show in part. The others hold no image, cannot be reached, or are made to harm
what opens them, so they are only named."""


def router() -> APIRouter:
    """Return the routes of failures."""
    routes = APIRouter(prefix="/console", include_in_schema=False)
    tallies = Tallies()

    @routes.get("/errors")
    def list_errors(request: Request, owned: Review, cursor: Annotated[str, Query(max_length=400)] = "") -> Response:
        """Show the codes of a page of jobs, and those of its jobs in which something failed."""
        backend = owned.client.backend
        cleaning.complete_index(backend.store)
        listed = pages.listed(backend, _JOBS, place_of(cursor) if cursor else pages.FIRST_ENDED, owner_of(owned), ENDS)
        jobs = [*([] if cursor else opened(owned)), *listed.jobs]
        failed = [
            (one, ranked(tallies.codes_of(backend.store, one))) for one in jobs if one.errors or one.state == "failed"
        ]
        counts: Counter[str] = Counter()
        within: Counter[str] = Counter()
        for _, codes in failed:
            counts.update(dict(codes))
            within.update(code for code, _ in codes)
        return page(
            request,
            "jobs/errors.html",
            looked=len(jobs),
            codes=[(code, number, within[code]) for code, number in ranked(counts)],
            jobs=failed,
            next_steps={one.id: KINDS[one.kind].next_step(one) for one, _ in failed if one.ended and one.kind in KINDS},
            after=cursor_of(listed.cursor),
            first=not cursor,
        )

    @routes.get("/jobs/{id}/errors")
    def show_errors(
        request: Request,
        owned: Review,
        id: Id,
        code: Annotated[str, Query(max_length=200)] = "",
        after: Annotated[str, Query(max_length=20)] = "",
    ) -> Response:
        """Show the failures of a job by code, and each image that failed with why and what to do."""
        status, store = owned.job(id), owned.client.backend.store
        found: dict[str, Any] = {"failures": [], "after": ""}
        if makes_labels(status.kind) and status.errors:
            some = failures(store, id, _IMAGES, code=code, after=after)
            found = {"failures": pictured(store, id, some.failures), "after": some.after}
        return page(
            request,
            "jobs/job_errors.html",
            job=status,
            labels=makes_labels(status.kind),
            codes=ranked(tallies.codes_of(store, status)),
            code=code,
            first=not after,
            retries="retry" in actions_of(status, owned),
            **found,
        )

    return routes


def ranked(counts: Mapping[str, int], most: int | None = None) -> list[tuple[str, int]]:
    """Return counts, largest first; with `most`, the largest, and one for all others."""
    found = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rest = [] if most is None else found[most:]
    return [*found[:most], *([(f"{len(rest):,} others", sum(n for _, n in rest))] if rest else [])]


def pictured(store: ObjectStore, id: str, found: Sequence[Failure]) -> list[Sample]:
    """Return rows with the end of the address of each picture; empty for what is only named."""
    shards = {one.shard for one in found if one.row.get("error_code") in SHOWN}
    places: dict[tuple[int, str, str], int] = {}
    for shard in shards:
        try:
            manifest = read_manifest(store.get(JobKeys(id).manifest(shard)))
        except ObjectNotFound:
            continue
        places |= {(shard, item.key, item.uri): place for place, item in enumerate(manifest)}
    samples = []
    for one in found:
        place = places.get((one.shard, one.row["key"], one.row["uri"]))
        shown = place is not None and one.row.get("error_code") in SHOWN
        samples.append(Sample(one.row, f"pictures/{one.shard}/{place}" if shown else ""))
    return samples
