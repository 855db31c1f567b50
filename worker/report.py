"""Writes the page of a job that generated, from its committed shards, and measures what the page shows."""

from __future__ import annotations

from dataclasses import dataclass

from contract.lifecycle import House
from contract.specs import Generate, Synthesize
from worker.models import Models
from worker.reference import References


@dataclass(frozen=True)
class Report:
    """What a worker needs to write pages."""

    house: House
    models: Models
    references: References

    def write(self, spec: Generate | Synthesize) -> dict[str, float]:
        """Write the page of a job; figures for `show`."""
        return {}
