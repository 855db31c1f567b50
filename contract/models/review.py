"""The review of a pushed model, between the producer and a worker: a draft, a verdict, then the record.

    producer: claim → files → draft → message          worker: draft → trial → verdict → record, draft away

The first verdict that is written is final, whoever writes it: a message that comes twice, a worker that dies in between
and a producer that gives up waiting all end in one state. It knows neither what a trial is nor the queue.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from contract.backend.objects import ObjectStore
from contract.errors import ObjectNotFound
from contract.keys.models import model_claim, model_draft, model_file, model_verdict
from contract.models.registry import Model, Registry
from contract.records import Record


class Verdict(Record):
    """`check.json`: what became of a model that was pushed."""

    ok: bool
    reason: str = Field(default="", description="Why not, in one sentence.")
    by: str = Field(default="", description="The machine of the worker that tried it; empty where nobody did.")


@dataclass(frozen=True)
class Review:
    """The review of one version."""

    store: ObjectStore
    name: str
    version: int

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"

    def submit(self, draft: Model) -> None:
        """Put the record as it is to be, after the files that it names."""
        self.store.put(model_draft(self.name, self.version), draft.to_json())

    def draft(self) -> bytes | None:
        """Return the draft of the record, as JSON; None if no model waits for a verdict."""
        return self._get(model_draft(self.name, self.version))

    def verdict(self) -> Verdict | None:
        found = self._get(model_verdict(self.name, self.version))
        return None if found is None else Verdict.model_validate_json(found)

    def settle(self, verdict: Verdict) -> Verdict:
        """Write the verdict if there is none; return the one that stands."""
        self.store.put_if_absent(model_verdict(self.name, self.version), verdict.to_json())
        return self.verdict() or verdict

    def publish(self, draft: Model) -> None:
        """Make the draft the record, after a verdict that says so."""
        Registry(self.store).enter(draft)
        self.store.delete(model_draft(self.name, self.version))

    def discard(self) -> None:
        """Remove what was staged, after a verdict that says so. Claim and verdict stay, and whatever is published."""
        self.store.delete(model_draft(self.name, self.version))
        if Registry(self.store).exists(self.name, self.version):
            return
        kept = {model_claim(self.name, self.version), model_verdict(self.name, self.version)}
        for entry in list(self.store.list(model_file(self.name, self.version, ""))):
            if entry.key not in kept:
                self.store.delete(entry.key)

    def _get(self, key: str) -> bytes | None:
        try:
            return self.store.get(key)
        except ObjectNotFound:
            return None
