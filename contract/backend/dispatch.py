"""Who is next: hands the shards of all jobs of a queue to the workers that ask, each under a lease.

A message in a worker queue is a ticket, which names no shard. The step that chooses is `dispatch.lua`. It knows no kind
of job, and of a worker only what it can do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.backend.ledger import ENTRY_LUA, Ledger
from contract.backend.trouble import Trouble

_SCRIPT = ENTRY_LUA + Path(__file__).with_name("dispatch.lua").read_text()


@dataclass(frozen=True)
class Can:
    """What a worker can do now."""

    device: str
    precisions: tuple[str, ...]
    long: bool = True
    """Whether it may take what lasts for hours."""
    trains: bool = True
    """Whether it may take a training."""


@dataclass(frozen=True)
class Grant:
    """A shard that was leased to the holder of `token`, and what has gone wrong with it so far."""

    job: str
    kind: str
    shard: int
    token: str
    needs: str = ""
    trouble: Trouble = Trouble()  # noqa: RUF009  # frozen
    copy: bool = False
    """Whether another worker runs the shard too, and is late."""


def next_shard(
    ledger: Ledger,
    queue: str,
    token: str,
    can: Can,
    *,
    process: str,
    lease_seconds: float,
    owner_slots: int = 0,
    speculative: bool = False,
) -> Grant | None:
    """Lease the next shard of a queue to the holder of `token`; return None if there is none for this worker now.

    The same token again gets the same shard. No owner gets more than `owner_slots` slots of the queue, 0: any number.
    If nothing is left but shards of other workers that take too long, a `speculative` worker gets a second copy of one.
    """
    args = (queue, token, lease_seconds, process, owner_slots, can.device, ",".join(can.precisions))
    keys = (*ledger.keys.dispatch, ledger.keys.rates)
    answer = ledger.script(_SCRIPT, keys, (*args, int(can.long), int(can.trains), int(speculative)))
    if not answer:
        return None
    job, shard, kind, needs, trouble, now, copy = answer
    return Grant(job, kind, int(shard), token, needs, Trouble.parse(trouble, float(now)), bool(copy))


def ready(ledger: Ledger, queue: str) -> dict[str, int]:
    """Return the number of shards that may run now, by what a worker must have to run them."""
    return {needs: int(shards) for needs, shards in ledger.hash(f"{ledger.keys.dispatch[1]}{queue}:ready").items()}


def waiting(ledger: Ledger, queues: Sequence[str]) -> dict[str, int]:
    """Return the number of messages that wait in each queue."""
    with ledger.pipeline() as pipe:
        for queue in queues:
            pipe.llen(f"{ledger.keys.broker_prefix}{queue}")
        return dict(zip(queues, map(int, pipe.execute()), strict=True))


def set_slots(ledger: Ledger, slots: Mapping[str, int]) -> None:
    """Record how many slots the live workers of each queue have."""
    with ledger.pipeline() as pipe:
        pipe.delete(ledger.keys.slots)
        if slots:
            pipe.hset(ledger.keys.slots, mapping={queue: str(number) for queue, number in slots.items()})
        pipe.execute()
