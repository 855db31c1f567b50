"""What became of annotations that were imported as reviews."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from contract.records import Record

MOST_NAMED = 20


class ImportReport(Record):
    """What became of annotations that were imported."""

    job: str
    annotations: int = Field(description="Annotations that were read.")
    added: int = Field(description="Verdicts that are new.")
    known: int = Field(description="Annotations that had been imported before, in this version or a newer one.")
    withdrawn: int = Field(description="Verdicts that were taken back: their annotation has changed, or is gone.")
    unclear: int = Field(description="Annotations that give no single label, skipped ones among them.")
    unknown: int = Field(description="Annotations of tasks that are no image of the job.")
    unclear_named: tuple[str, ...] = Field(description=f"The first {MOST_NAMED} unclear ones, each with the reason.")
    unknown_named: tuple[str, ...] = Field(description=f"The images of the first {MOST_NAMED} unknown ones.")


def total(job: str, reports: Sequence[ImportReport]) -> ImportReport:
    """Return several reports on one job in one."""
    counts = ("annotations", "added", "known", "withdrawn", "unclear", "unknown")
    named = ("unclear_named", "unknown_named")
    return ImportReport(
        job=job,
        **{name: sum(getattr(one, name) for one in reports) for name in counts},
        **{name: tuple(one for found in reports for one in getattr(found, name))[:MOST_NAMED] for name in named},
    )
