"""Whose turn it is, on a real Redis."""

from __future__ import annotations

import itertools
from collections import Counter

from contract.backend.dispatch import Can, Grant, next_shard, ready, set_slots
from contract.backend.ledger import Ledger
from contract.jobs.kinds import KINDS
from tests.contract.backend.test_ledger import begin, spec_of

QUEUE = KINDS["classify"].queue
CPU = Can("cpu", ("fp32",))
_numbers = itertools.count(1)


def ask(ledger: Ledger, can: Can = CPU, *, token: str = "", process: str = "w", owner_slots: int = 0) -> Grant | None:
    """Ask for a shard as a worker with a ticket does."""
    token = token or f"w:{next(_numbers)}"
    return next_shard(ledger, QUEUE, token, can, process=process, lease_seconds=30.0, owner_slots=owner_slots)


def serve(ledger: Ledger, number: int, can: Can = CPU) -> Counter[str]:
    """Run so many shards, one after the other; return how many of each job came."""
    served: Counter[str] = Counter()
    for _ in range(number):
        grant = ask(ledger, can)
        assert grant is not None
        ledger.commit(grant.job, grant.shard, 10, 0)
        served[grant.job] += 1
    return served


def test_equal_jobs_are_served_in_turn_whenever_they_came(ledger: Ledger) -> None:
    # Given a large job under way, and another one,
    begin(ledger, "large", 100)
    serve(ledger, 20)
    begin(ledger, "second", 100)

    # if shards are handed out, I expect each to get half of them: nobody catches up what was before it came.
    assert serve(ledger, 20) == {"large": 10, "second": 10}


def test_a_new_job_is_next(ledger: Ledger) -> None:
    for name in ("a", "b", "c"):
        begin(ledger, name, 50)
    serve(ledger, 31)
    begin(ledger, "new", 1)
    assert "new" in serve(ledger, 4)


def test_a_shard_is_handed_out_once_and_the_same_token_gets_it_again(ledger: Ledger) -> None:
    begin(ledger, "a", 3)
    first = ask(ledger, token="w:first")
    assert first == ask(ledger, token="w:first"), "its answer may have been lost"
    assert {first.shard, *(grant.shard for grant in (ask(ledger), ask(ledger)) if grant)} == {0, 1, 2}  # type: ignore[union-attr]
    assert ask(ledger) is None
    assert ready(ledger, QUEUE) == {}


def test_a_worker_gets_only_what_it_can_run_and_what_it_cannot_keeps_nobody_waiting(ledger: Ledger) -> None:
    ledger.create(spec_of("gpu"), needs="device=cuda precision=bf16")
    ledger.planned("gpu", 0, 10)
    assert ask(ledger) is None
    begin(ledger, "plain", 1)
    assert (grant := ask(ledger)) is not None and grant.job == "plain"
    assert ask(ledger, Can("cuda", ("fp32",))) is None
    assert (grant := ask(ledger, Can("cuda", ("fp32", "bf16")))) is not None and grant.job == "gpu"


def test_a_shard_that_failed_in_a_process_goes_to_another(ledger: Ledger) -> None:
    begin(ledger, "a", 1)
    assert (grant := ask(ledger)) is not None
    assert ledger.avoid("a", grant.shard, grant.token, 60.0, process="w").tickets == 1
    assert ask(ledger, process="w") is None
    assert ask(ledger, process="other") is not None


def test_an_ended_job_and_one_that_is_forgotten_leave_nothing_behind(ledger: Ledger) -> None:
    for name in ("a", "b"):
        begin(ledger, name, 5)
        assert ask(ledger) is not None
    ledger.end("a", "canceled")
    ledger.forget("b")
    assert ask(ledger) is None
    prefix = ledger.keys.dispatch[1]
    left = {key.removeprefix(prefix) for key in ledger.redis.scan_iter(f"{prefix}*")}
    assert not {key for key in left if not key.startswith((f"{QUEUE}:tags", f"{QUEUE}:clock", "granted:"))}


def test_no_more_tickets_wait_than_twice_the_slots(ledger: Ledger) -> None:
    set_slots(ledger, {QUEUE: 3})
    begin(ledger, "a", 100)
    assert (grant := ask(ledger)) is not None
    assert ledger.commit("a", grant.shard, 10, 0).tickets == 1
    ledger.redis.lpush(f"{ledger.keys.broker_prefix}{QUEUE}", *range(6))
    assert (grant := ask(ledger)) is not None
    assert ledger.commit("a", grant.shard, 10, 0).tickets == 0, "six wait already"
