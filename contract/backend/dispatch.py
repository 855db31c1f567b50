"""Who is next: hands the shards of all jobs of a queue to the workers that ask, each under a lease.

A message in a worker queue is a ticket, which names no shard. The step that chooses is `dispatch.lua`. It knows no kind
of job, and of a worker only what it can do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.backend.ledger import JOBS_LUA, Ledger
from contract.backend.trouble import Trouble

_SCRIPT = JOBS_LUA + Path(__file__).with_name("dispatch.lua").read_text()


@dataclass(frozen=True)
class Can:
    """What a worker can do now."""

    device: str
    precisions: tuple[str, ...]
    long: bool = True
    """Whether it may take what lasts for hours."""
    trains: bool = True
    """Whether it may take a training."""
    memory: int | None = None
    """GiB of its device; None: unknown, and no job is refused for its size."""
    runtimes: tuple[str, ...] = ("openvino", "torch")
    rule: str = ""
    """Id of the rule by which it loads models; empty: it loads any."""


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
    run: int = 0
    """The run of the job that the shard belongs to."""


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
    memory = "" if can.memory is None else can.memory
    more = (int(can.long), int(can.trains), int(speculative), memory, ",".join(can.runtimes), can.rule)
    answer = ledger.script(_SCRIPT, keys, (*args, *more))
    if not answer:
        return None
    job, shard, kind, needs, trouble, now, copy, run = answer
    return Grant(job, kind, int(shard), token, needs, Trouble.parse(trouble, float(now)), bool(copy), int(run))


def ready(ledger: Ledger, queue: str) -> dict[str, int]:
    """Return the number of shards that may run now, by what a worker must have to run them.

    Shards of owners that hold as many slots as they may are not counted.
    """
    root = f"{ledger.keys.dispatch[1]}{queue}"
    held = ledger.hash(f"{root}:held")
    found = {needs: int(n) - int(held.get(needs, 0)) for needs, n in ledger.hash(f"{root}:ready").items()}
    return {needs: number for needs, number in found.items() if number > 0}


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


def set_rules(ledger: Ledger, rules: dict[str, str]) -> None:
    """Record by which rules the live workers load models: JSON by id."""
    with ledger.pipeline() as pipe:
        pipe.delete(ledger.keys.rules)
        if rules:
            pipe.hset(ledger.keys.rules, mapping={id: str(rule) for id, rule in rules.items()})
        pipe.execute()


def rules(ledger: Ledger) -> dict[str, str]:
    """Return the rules that `set_rules` recorded last: JSON by id."""
    return ledger.hash(ledger.keys.rules)
