"""Which models a worker may load, as its operator or its machine has it.

Jobs are not matched with a worker's patterns in Redis, which would take a look at each job. Every rule of a live worker
has a short id. A job carries the ids of the rules that admit its models, and a worker compares one id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from pydantic import Field

from contract.models.registry import PROGRAM, Model
from contract.records import Record


class Rule(Record):
    """The models that a worker loads; by default any."""

    models: tuple[str, ...] = Field(default=(), description="Patterns of `NAME` or `NAME@VERSION`; empty: all models.")
    programs: bool = Field(default=True, description="Whether it takes pushed programs that are not trusted.")
    trusted: tuple[str, ...] = Field(default=(), description="Patterns of programs that it takes in any case.")
    why: str = Field(default="", description="Why it takes no programs, for people.")

    @property
    def id(self) -> str:
        """A short name of what the rule admits; empty for a rule that admits everything."""
        if not self.models and self.programs:
            return ""
        return hashlib.sha256(self.model_dump_json(exclude={"why"}).encode()).hexdigest()[:8]

    def admits(self, models: Iterable[Model]) -> bool:
        """Return whether a worker with this rule loads all of these models."""
        return all(self._admits(model) for model in models)

    def _admits(self, model: Model) -> bool:
        if self.models and not matches(model, self.models):
            return False
        return self.programs or model.family != PROGRAM or matches(model, self.trusted)

    def __str__(self) -> str:
        parts = [f"models {', '.join(self.models)}"] if self.models else []
        if not self.programs:
            trusted = f" but {', '.join(self.trusted)}" if self.trusted else ""
            parts.append(f"no programs{trusted}{f' ({self.why})' if self.why else ''}")
        return "; ".join(parts)


ANY = Rule()
"""Admits every model."""


def patterns(text: str) -> tuple[str, ...]:
    """Return the patterns of a setting, which has commas between them."""
    return tuple(sorted({part.strip() for part in text.split(",")} - {""}))


def matches(model: Model, wanted: Sequence[str]) -> bool:
    """Return whether one of the patterns matches a model's name, or its name@version."""
    return any(fnmatchcase(name, pattern) for name in (model.name, model.ref) for pattern in wanted)


def admitting(rules: Iterable[Rule], models: Sequence[Model]) -> tuple[str, ...]:
    """Return the ids of the rules that admit all of these models, in order."""
    return tuple(sorted({rule.id for rule in rules if rule.id and rule.admits(models)}))
