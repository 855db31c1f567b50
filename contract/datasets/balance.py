"""How many images of each class are missing: to the largest class, or to a number, by what was seen and what was made.

The counts are read once, when a job is submitted or a tick is decided, and pinned in the spec. So the same tick makes
the same images, whatever the watch sees meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from contract.backend.objects import ObjectStore
from contract.datasets.records import Balance
from contract.datasets.versions import Datasets
from contract.errors import InvalidInput, InvalidSource, NothingMissing
from contract.models.registry import Model
from contract.watches.segments import count_labels


def pin(store: ObjectStore, watch: str, model: Model, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a spec that say how many images of each class a job makes, and why.

    Raises InvalidSource if the watch has labelled nothing yet, InvalidInput if it labels other classes than those of
    the generator, and NothingMissing if no class lacks an image.
    """
    segments, counted = count_labels(store, watch)
    if not counted:
        raise InvalidSource(
            f"No segment of the watch {watch!r} has succeeded with a label yet; `imagemill watch show {watch}` shows "
            "those that are open."
        )
    seen = {label: counted[label] for label in model.labels if counted[label]}
    if not seen:
        ((often, _),) = counted.most_common(1)
        raise InvalidInput(
            f"The watch {watch!r} labels other classes than those of {model.ref}, {often!r} most often; name a "
            "generator of its classes."
        )
    extend = fields.get("extend")
    made: dict[str, int] = {}
    if extend is not None and extend.number > 1:
        made = Datasets(store).grown(f"{extend.dataset}@{extend.number - 1}").accepted
    have = Counter(seen) + Counter(made)
    aim = fields["per_class"] or max(have.values())
    missing = {label: aim - have[model.labels[label]] for label in fields["classes"]}
    missing = {label: count for label, count in missing.items() if count > 0}
    if not missing:
        raise NothingMissing(
            f"Every class has {aim:,} images or more, seen by the watch {watch!r} and made before; there is nothing "
            "to fill."
        )
    return {
        "classes": tuple(missing),
        "counts": tuple(missing.values()),
        "per_class": max(missing.values()),
        "balance": Balance(
            watch=watch,
            segments=segments,
            seen=seen,
            made=made,
            aim=aim,
            per_class=fields["per_class"],
            among=tuple(model.labels[label] for label in fields["classes"]),
        ),
    }
