"""What a tick must know of each job that has not ended, read in one round trip for hundreds of them.

Everything may have changed when it is acted upon: the steps that follow look again, and duplicates do no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contract.backend.ledger import Ledger

_AT_ONCE = 500
_FIELDS = ("state", "kind", "source_kind", "run", "unmet_since", "waiting_for", "ruled")


@dataclass(frozen=True, kw_only=True)
class Glance:
    """A job as the ledger has it; `state` is None for one that it does not know."""

    state: str | None
    kind: str | None
    source_kind: str | None
    """The kind of its source; None for an entry of an earlier version."""
    run: int
    unmet: bool
    """Whether it is noted that no live worker could run it."""
    waiting_for: str | None
    """The worker that it waits for, as `Ledger.waits_for` has noted it."""
    ruled: str
    """The rules of workers against which its models were held, as `Ledger.admit` has noted them."""
    planned: bool
    """Whether somebody plans it now."""
    finalized: bool
    """Whether somebody finalizes it now."""
    compared: bool
    """Whether it was compared with the bucket lately."""


def glance(ledger: Ledger, ids: Sequence[str]) -> dict[str, Glance]:
    """Return what the ledger has of each job; raises RedisUnavailable."""
    found = {}
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        with ledger.pipeline() as pipe:
            for id in part:
                pipe.hmget(ledger.keys.job(id)[0], *_FIELDS)
                for what in ("plan", "finalize", COMPARED):
                    pipe.exists(ledger.keys.lock(what, id))
            answers = pipe.execute()
        for n, id in enumerate(part):
            fields, planned, finalized, compared = answers[4 * n : 4 * n + 4]
            state, kind, source_kind, run, unmet, waiting_for, ruled = fields
            found[id] = Glance(
                state=state,
                kind=kind,
                source_kind=source_kind,
                run=int(run or 0),
                unmet=unmet is not None,
                waiting_for=waiting_for,
                ruled=ruled or "",
                planned=bool(planned),
                finalized=bool(finalized),
                compared=bool(compared),
            )
    return found


COMPARED = "standing"
"""The name under which `Ledger.once_in` notes that a job was compared with the bucket."""
