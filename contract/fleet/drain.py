"""Asks live workers to drain: to take nothing new, end their shards, and exit.

A mark in Redis names one process of a worker, which finds it with its next heartbeat; a process that is started later
under the same name is not meant. The mark expires.
"""

from __future__ import annotations

from collections.abc import Iterable

from contract.backend.heartbeats import Worker
from contract.backend.ledger import Ledger
from contract.errors import InvalidInput
from contract.suggest import did_you_mean

MARK_SECONDS = 600
"""How long a mark stays: far longer than a live worker goes without a heartbeat."""


def find(alive: Iterable[Worker], name: str = "", *, all_of: str = "") -> list[Worker]:
    """Return the workers to drain: the one called `name`, or all of a host or pool `all_of`.

    A prefix that only one worker has names it too. Raises InvalidInput if no worker, or more than one, is meant.
    """
    workers = list(alive)
    if bool(name) == bool(all_of):
        raise InvalidInput("Name either a worker or, with --all-of, a host or a pool; `imagemill workers` lists them.")
    if not workers:
        raise InvalidInput("No worker is alive, so there is none to drain.")
    if all_of:
        found = [w for w in workers if all_of in (w.fields.get("host", ""), w.fields.get("pool", "default"))]
        if not found:
            places = {place for w in workers for place in (w.fields.get("host", ""), w.fields.get("pool", "default"))}
            known = did_you_mean(all_of, sorted(places - {""}))
            raise InvalidInput(f"No live worker is on a host or in a pool {all_of!r}; {known}")
        return found
    exact = [worker for worker in workers if worker.name == name]
    found = exact or [worker for worker in workers if worker.name.startswith(name)]
    if len(found) > 1:
        names = ", ".join(worker.name for worker in found[:5])
        raise InvalidInput(f"{name!r} may be any of {len(found)} workers ({names}); write more of the name.")
    if not found:
        raise InvalidInput(f"There is no live worker {name!r}; {did_you_mean(name, [w.name for w in workers])}")
    return found


def drain(ledger: Ledger, workers: Iterable[Worker]) -> list[str]:
    """Ask workers to drain; return their names. Raises RedisUnavailable."""
    named = [worker for worker in workers if worker.fields.get("process")]
    with ledger.pipeline() as pipe:
        for worker in named:
            pipe.set(ledger.keys.drain(worker.name), worker.fields["process"], ex=MARK_SECONDS)
        pipe.execute()
    return [worker.name for worker in named]
