"""Dispatch chooses the next job and leases its next shard, on a real Redis."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from contract.backend.dispatch import Can, Grant, next_shard, ready, set_slots
from contract.backend.ledger import Ledger
from contract.fleet.snapshot import read_fleet
from contract.jobs.kinds import KINDS
from contract.jobs.options import Share
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


@pytest.mark.parametrize(
    ("needs", "too_little", "enough"),
    [
        ("memory=12", replace(CPU, memory=8), replace(CPU, memory=12)),
        ("memory=12", replace(CPU, memory=11), replace(CPU, memory=None)),
        ("", replace(CPU, rule="abc"), CPU),
    ],
)
def test_a_worker_gets_no_model_that_its_device_or_its_rule_has_no_room_for(
    ledger: Ledger, needs: str, too_little: Can, enough: Can
) -> None:
    ledger.create(spec_of("a"), needs=needs)
    ledger.planned("a", 0, 10)
    assert ask(ledger, too_little) is None
    assert ask(ledger, enough) is not None


def test_a_job_goes_to_workers_whose_rule_admits_it_and_moves_when_rules_do(ledger: Ledger) -> None:
    # Given a job that two rules admit, I expect workers with either, or with none, to get it,
    ledger.create(spec_of("a"), needs="device=cpu", rules="one,two", ruled="one,three,two")
    for shard in range(5):
        ledger.planned("a", shard, 10)
    for rule in ("one", "two", ""):
        assert (grant := ask(ledger, replace(CPU, rule=rule))) is not None
        assert grant.needs == "device=cpu", "a worker compares what the spec asks for"
    assert ask(ledger, replace(CPU, rule="three")) is None
    assert ready(ledger, QUEUE) == {"device=cpu rules=one,two": 2}

    # and if the rules become others, those.
    ledger.admit("a", "three", "three")
    assert ready(ledger, QUEUE) == {"device=cpu rules=three": 2}
    assert ask(ledger, replace(CPU, rule="one")) is None
    assert ask(ledger, replace(CPU, rule="three")) is not None
    assert ledger.lapsed("a").needs == "device=cpu rules=three"


def test_a_job_that_one_runtime_cannot_run_waits_for_another(ledger: Ledger) -> None:
    begin(ledger, "a", 2)
    grant = ask(ledger, replace(CPU, runtimes=("openvino",)))
    assert grant is not None
    ledger.need_runtime("a", "torch")
    # What its spec asks for may be told again: that forgets nothing.
    ledger.need("a", "precision=fp32")
    ledger.release("a", grant.shard, grant.token)
    assert ask(ledger, replace(CPU, runtimes=("openvino",))) is None
    assert ask(ledger, replace(CPU, runtimes=("openvino", "torch"))) is not None


def test_a_shard_that_failed_in_a_process_goes_to_another(ledger: Ledger) -> None:
    begin(ledger, "a", 1)
    assert (grant := ask(ledger)) is not None
    assert ledger.avoid("a", grant.shard, grant.token, 60.0, process="w").tickets == 1
    assert ask(ledger, process="w") is None
    assert ask(ledger, process="other") is not None


def test_a_clock_that_is_set_back_keeps_no_process_from_a_shard(ledger: Ledger) -> None:
    # Given a shard that a process was to leave to others for a minute, before the clock was set back an hour,
    begin(ledger, "a", 1)
    grant = ask(ledger)
    assert grant is not None
    ledger.avoid("a", grant.shard, grant.token, 3660.0, process="w")

    # I expect the process to get it.
    assert ask(ledger, process="w") is not None


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


# Shares


def share(ledger: Ledger, job: str, **fields: object) -> None:
    ledger.share(job, Share.model_validate(fields))


def begin_for(ledger: Ledger, owner: str, job: str, shards: int = 200, **fields: Any) -> None:
    ledger.create(spec_of(job, **fields), owner=owner)
    ledger.complete(job, shards=shards, items=10 * shards, error_limit=10 * shards, skipped=0)


def test_weight_counts_among_the_jobs_of_an_owner(ledger: Ledger) -> None:
    begin_for(ledger, "ann", "one")
    begin_for(ledger, "ann", "three", weight=3)
    assert serve(ledger, 40) == {"one": 10, "three": 30}


def test_owners_share_alike_however_many_jobs_they_have(ledger: Ledger) -> None:
    for number in range(4):
        begin_for(ledger, "many", f"many-{number}", weight=5)
    begin_for(ledger, "few", "few")
    assert serve(ledger, 40) == {"few": 20, **{f"many-{number}": 5 for number in range(4)}}


def test_a_higher_class_gets_twenty_times_as_much_and_the_lowest_does_not_starve(ledger: Ledger) -> None:
    for priority in ("low", "normal", "high"):
        begin_for(ledger, "ann", priority, shards=1000, priority=priority)
    served = serve(ledger, 421)
    assert served == {"high": 400, "normal": 20, "low": 1}


def test_a_job_gets_no_more_slots_than_it_may_have(ledger: Ledger) -> None:
    begin_for(ledger, "ann", "capped", max_slots=2)
    held = [ask(ledger) for _ in range(3)]
    assert [grant is None for grant in held] == [False, False, True]
    assert ready(ledger, QUEUE) == {}

    # A slot that becomes free is its own again, and so is one that it may have from now on.
    ledger.commit("capped", 0, 10, 0)
    assert ask(ledger) is not None
    assert ask(ledger) is None
    share(ledger, "capped", max_slots=3)
    assert ask(ledger) is not None
    assert ask(ledger) is None


def test_an_owner_gets_no_more_slots_than_one_may_have_and_keeps_nobody_waiting(ledger: Ledger) -> None:
    begin_for(ledger, "ann", "a", priority="high")
    begin_for(ledger, "ann", "b")
    begin_for(ledger, "bob", "c", priority="low")

    def jobs(number: int) -> list[str]:
        grants = [ask(ledger, owner_slots=2) for _ in range(number)]
        return [grant.job if grant else "" for grant in grants]

    assert jobs(5) == ["a", "b", "c", "c", ""]
    ledger.end("a", "canceled")
    assert jobs(2) == ["b", ""]


def test_what_an_owner_may_not_have_now_is_not_ready_and_brings_no_tickets(ledger: Ledger) -> None:
    # Given an owner that holds as many slots as it may, I expect its other shards to be ready for nobody,
    begin_for(ledger, "ann", "a", shards=50)
    grants = [ask(ledger, owner_slots=2) for _ in range(2)]
    begin_for(ledger, "ann", "b", shards=50)
    assert ask(ledger, owner_slots=2) is None
    assert ready(ledger, QUEUE) == {}
    assert ledger.release("b", 7, "nobody").tickets == 0
    assert read_fleet(ledger).queue(QUEUE).runnable_shards == 0

    # whatever happens to its jobs meanwhile,
    ledger.end("b", "canceled")
    begin_for(ledger, "ann", "c", shards=10)
    begin_for(ledger, "bob", "d", shards=10)
    assert ready(ledger, QUEUE) == {"": 10}

    # and again once it gives one back.
    first = grants[0]
    assert first is not None
    assert first.job == "a"
    ledger.commit("a", first.shard, 10, 0)
    assert ready(ledger, QUEUE) == {"": 48 + 10 + 10}
    for job in ("a", "c", "d"):
        ledger.end(job, "canceled")
    prefix = ledger.keys.dispatch[1]
    assert not [key for key in ledger.redis.scan_iter(f"{prefix}*") if ":held" in key or ":of|" in key]


def test_a_share_that_is_changed_counts_from_then_on(ledger: Ledger) -> None:
    for job in ("a", "b"):
        begin_for(ledger, "ann", job)
    assert serve(ledger, 20) == {"a": 10, "b": 10}
    share(ledger, "a", weight=4)
    assert serve(ledger, 20) == {"a": 16, "b": 4}
    share(ledger, "b", priority="high")
    served = serve(ledger, 63)
    assert 2 <= served["a"] <= 3, "a class lower than b now"


def test_a_guess_that_was_wrong_costs_a_job_no_turns(ledger: Ledger) -> None:
    # Given a job whose shards are known to take a second, and two new ones, of which nothing is known,
    def serve_in(seconds: dict[str, float], number: int) -> Counter[str]:
        served: Counter[str] = Counter()
        for _ in range(number):
            grant = ask(ledger)
            assert grant is not None
            ledger.commit(grant.job, grant.shard, 10, 0, seconds=seconds[grant.job])
            served[grant.job] += 1
        return served

    takes = {"known": 1.0, "quick": 1.0, "slow": 60.0}
    begin(ledger, "known", 500)
    serve_in(takes, 10)
    begin(ledger, "quick", 500)
    # if the first shard of one takes a second too, which counted as twenty, I expect it to get every other slot,
    served = serve_in(takes, 40)
    assert abs(served["known"] - served["quick"]) <= 1
    # and one that takes a minute, to wait until the others have had a minute each.
    begin(ledger, "slow", 500)
    served = serve_in(takes, 122)
    assert 1 <= served["slow"] <= 2
