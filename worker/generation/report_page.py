"""Store the page of a job that made images."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from contract.backend.objects import ObjectStore
from contract.jobs.lifecycle import read_created
from contract.jobs.specs import ImagesSpec
from contract.keys.jobs import JobKeys
from worker.pages import page


def write_page(store: ObjectStore, spec: ImagesSpec, title: str, data: str, sections: Sequence[page.Section]) -> None:
    """Store the page of a job, dated by its submission, so that writing it again gives the same bytes."""
    html = page.render(
        title,
        model=spec.model,
        data=f"job {spec.id}, {data}",
        date=datetime.fromisoformat(read_created(store, spec.id)),
        sections=sections,
    )
    store.put(JobKeys(spec.id).report, html.encode())
