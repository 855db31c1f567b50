"""Which layers of confinement this machine lacks, as its children told; said once in the log, and in heartbeats."""

from __future__ import annotations

import logging
from collections.abc import Iterable

log = logging.getLogger(__name__)

_said: set[tuple[str, tuple[str, ...], tuple[str, ...]]] = set()
_missing: dict[str, None] = {}


def note(what: str, wanted: Iterable[str], enforced: Iterable[str]) -> None:
    """Log once for each combination what confines children such as `what`, and warn of what does not."""
    there = tuple(enforced)
    lacks = tuple(layer for layer in wanted if layer not in there)
    if (what, there, lacks) in _said:
        return
    _said.add((what, there, lacks))
    _missing.update(dict.fromkeys(lacks))
    log.info("Children such as %s are confined by %s", what, ", ".join(there) or "nothing")
    if lacks:
        log.warning("This machine cannot confine children such as %s by %s", what, ", ".join(lacks))


def missing() -> tuple[str, ...]:
    """Return the layers that some child of this process lacked, in the order in which that was found."""
    return tuple(_missing)
