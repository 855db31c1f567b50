"""Which models a job loads, and what that asks of a worker: room on its device, and a rule that admits them."""

from __future__ import annotations

from collections.abc import Iterable

from contract.backend.objects import ObjectStore
from contract.errors import ImagemillError, ServiceUnavailable
from contract.jobs.kinds import kind_of
from contract.jobs.specs import AnySpec
from contract.models.registry import Model, Registry
from contract.models.rules import Rule, admitting

_GIB = 2**30


def names_of(spec: AnySpec) -> tuple[str, ...]:
    """Return each `name@version` that a job loads; none for a training, whose model it makes."""
    kind = kind_of(spec)
    judge = getattr(spec, kind.judge) if kind.judge else None
    return tuple(dict.fromkeys(str(ref) for ref in (spec.model, judge) if ref and "@" in ref))


def models_of(store: ObjectStore, spec: AnySpec) -> tuple[Model, ...]:
    """Return the records of the models that a job loads, but those that cannot be read: its shards say why."""
    registry, found = Registry(store), []
    for ref in names_of(spec):
        try:
            found.append(registry.get(ref))
        except ServiceUnavailable:
            raise
        except ImagemillError:
            continue
    return tuple(found)


def memory_of(models: Iterable[Model]) -> int:
    """Return the GiB that a device must have for the largest of these weights; 0 for less than a GiB.

    The sizes are 1, 2, 3, 4, 6, 8, 12, 16 and so on, so that many models need few different sizes. What a model needs
    beside its weights is not known; a worker that runs out of memory makes its batches smaller.
    """
    most = max((model.weights.bytes for model in models), default=0)
    if most < _GIB:
        return 0
    size = 1
    while size * _GIB < most:
        size = size * 3 // 2 if size > 1 and size & (size - 1) == 0 else 1 << size.bit_length()
    return size


def rules_for(models: tuple[Model, ...], rules: Iterable[Rule]) -> tuple[str, str]:
    """Return the ids of the rules that admit these models, and of those that were asked, with commas between."""
    known = [rule for rule in rules if rule.id]
    return ",".join(admitting(known, models)), ",".join(sorted({rule.id for rule in known}))
