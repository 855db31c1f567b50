"""Keeps twice as many tickets in each queue as its live workers have slots, as long as there is something to run.

Steps of the ledger send a ticket for what they make ready; this replaces tickets that were lost.
"""

from __future__ import annotations

from collections.abc import Sequence

from contract.backend import dispatch
from contract.backend.heartbeats import Worker
from contract.jobs.kinds import KINDS
from contract.jobs.lifecycle import Backend
from contract.jobs.numerics import Needs, able, serving

_QUEUES = sorted({kind.queue for kind in KINDS.values()})
_NOBODY = 8
"""Slots that are assumed while no worker is alive: one that starts finds tickets at once."""


def top_up(backend: Backend, workers: Sequence[Worker]) -> None:
    """Record the slots of each queue, and send the tickets that it lacks."""
    there = {queue: serving(workers, queue) for queue in _QUEUES}
    slots = {queue: sum(int(worker.fields.get("slots", 1)) for worker in there[queue]) for queue in _QUEUES}
    dispatch.set_slots(backend.ledger, {queue: number for queue, number in slots.items() if number})
    waiting = dispatch.waiting(backend.ledger, _QUEUES)
    for queue in _QUEUES:
        ready = sum(
            shards
            for needs, shards in dispatch.ready(backend.ledger, queue).items()
            # What nobody can run would only send them to ask in vain.
            if not there[queue] or able(there[queue], queue, Needs.parse(needs))
        )
        wanted = min(2 * (slots[queue] or _NOBODY), ready)
        backend.ledger.send_tickets(queue, max(0, wanted - waiting[queue]))
