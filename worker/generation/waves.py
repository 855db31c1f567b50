"""How many candidates of each class a synthesis makes at a time: as many as its acceptance so far asks for.

Waves depend on what was accepted, never on who made it when, so any number of workers makes the same candidates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from contract.jobs.specs import Generate, SampledSpec, Synthesize
from worker.generation import candidate_plan
from worker.generation.candidate_plan import Portion

_GUESS = 0.8
"""Acceptance before anything is known."""
_LEAST_RATE, _LEAST = 1 / 50, 64
_MORE = 1.1


def first_wave(spec: SampledSpec) -> list[Portion]:
    """The portions that a job begins with: all of them where nothing is rejected."""
    if isinstance(spec, Generate):
        rows, rest = divmod(spec.count, len(spec.classes))
        whole = list(candidate_plan.cut(spec.classes, 0, rows, spec.shard_size))
        return [*whole, *([Portion(labels=spec.classes[:rest], start=rows, stop=rows + 1)] if rest else [])]
    stop = _stop(spec, accepted=0, made=0)
    return [portion for label in spec.classes for portion in candidate_plan.cut([label], 0, stop, spec.shard_size)]


def next_wave(spec: Synthesize, shards: Sequence[Portion], accepted: Mapping[int, int]) -> list[Portion]:
    """The portions still to be made, none where every class has enough, or as many candidates as it may have."""
    found: list[Portion] = []
    for label, count in accepted.items():
        made = max(portion.stop for portion in shards if portion.labels == (label,))
        if count < spec.per_class:
            found += candidate_plan.cut([label], made, _stop(spec, accepted=count, made=made), spec.shard_size)
    return found


def _stop(spec: Synthesize, *, accepted: int, made: int) -> int:
    """Up to which index a class goes next: a tenth beyond what its rate asks for, 64 more at least."""
    rate = max(accepted / made, _LEAST_RATE) if made else _GUESS
    more = max(_LEAST, math.ceil(_MORE * (spec.per_class - accepted) / rate))
    return min(spec.per_class * spec.max_attempts, made + more)
