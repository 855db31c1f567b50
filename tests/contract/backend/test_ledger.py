"""Leases, attempts and counters, on a real Redis."""

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from contract.backend.ledger import Held, Ledger, Mode
from contract.backend.trouble import Trouble
from contract.jobs.specs import Classify, Source
from contract.settings import Settings
from tests.taking import take
from tests.waiting import wait_until


def spec_of(id: str, shard_size: int = 10, **fields: object) -> Classify:
    return Classify.model_validate(
        {
            "id": id,
            "source": Source(kind="prefix", uri="s3://photos/", label="s3://photos/"),
            "model": "m@1",
            "weights_sha256": "0" * 64,
            "shard_size": shard_size,
            "output": f"s3://bucket/jobs/{id}/out/",
            **fields,
        }
    )


def begin(ledger: Ledger, id: str, shards: int) -> None:
    """A running job of `shards` shards of ten items."""
    ledger.create(spec_of(id))
    for shard in range(shards):
        ledger.planned(id, shard, 10)
    ledger.complete(id, shards=shards, items=10 * shards, error_limit=10 * shards, skipped=0)


def test_a_job_is_begun_once(ledger: Ledger) -> None:
    assert ledger.create(spec_of("a"))
    assert not ledger.create(spec_of("a"))
    assert ledger.active() == {"a"}


def test_a_planned_shard_asks_for_one_ticket(ledger: Ledger) -> None:
    ledger.create(spec_of("a"))
    assert ledger.planned("a", 0, 10).tickets == 1
    assert ledger.planned("a", 0, 10).tickets == 0
    assert ledger.complete("a", shards=1, items=10, error_limit=10, skipped=0).state == "running"


def test_a_plan_is_extended_once_and_only_when_all_of_it_is_done(ledger: Ledger) -> None:
    begin(ledger, "a", 1)
    more = {"shards": 3, "items": 30, "error_limit": 30}
    assert ledger.extend("a", **more).tickets == 0, "its shard is not done"

    # Given a job whose shards are done, if its plan grows, I expect tickets for the new shards.
    take(ledger, "a", 0, "w:1")
    assert ledger.commit("a", 0, 10, 0).state == "finalizing"
    step = ledger.extend("a", **more)
    assert (step.state, step.tickets, step.kind) == ("running", 2, "classify")

    # The same again changes nothing, even after the new shards are done.
    assert ledger.extend("a", **more).tickets == 0
    for shard in (1, 2):
        take(ledger, "a", shard, "w:1")
        ledger.commit("a", shard, 10, 0)
    assert ledger.extend("a", **more).state == "finalizing"
    status = ledger.status("a")
    assert status is not None
    assert (status.total, status.done, status.shards.done) == (30, 30, 3)

    # A job that ended stays ended.
    ledger.end("a", "canceled")
    assert ledger.extend("a", shards=9, items=90, error_limit=90).state == "canceled"
    assert ledger.extend("unknown", **more).state == "unknown"


def test_a_leased_shard_is_left_alone(ledger: Ledger) -> None:
    begin(ledger, "a", 1)
    assert take(ledger, "a", 0, "one:1")[0] == "taken"
    assert take(ledger, "a", 0, "two:2")[0] == "leased"


def test_only_the_holder_of_a_lease_begins_and_gives_back(ledger: Ledger) -> None:
    begin(ledger, "a", 1)
    take(ledger, "a", 0, "one:1")
    assert not ledger.begin("a", 0, "two:2"), "it holds no lease"
    assert ledger.begin("a", 0, "one:1")
    assert ledger.begin("a", 0, "one:1"), "sent again"
    ledger.fault("a", 0, "other:4", 0, process="other")
    ledger.release("a", 0, "one:1")
    assert take(ledger, "a", 0, "two:2") == ("taken", Trouble()), "who gives back has not died"


def test_only_one_of_many_gets_the_lease(ledger: Ledger) -> None:
    begin(ledger, "a", 1)
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(take(ledger, "a", 0, f"w:{n}")[0])) for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["leased"] * 15 + ["taken"]


def test_a_commit_counts_once(ledger: Ledger) -> None:
    begin(ledger, "a", 2)
    for _ in range(3):
        ledger.commit("a", 0, 8, 2)
    status = ledger.status("a")
    assert status is not None
    assert (status.done, status.ok, status.errors, status.shards.done) == (10, 8, 2, 1)


def test_the_last_commit_finalizes(ledger: Ledger) -> None:
    begin(ledger, "a", 2)
    assert ledger.commit("a", 1, 10, 0).state == "running"
    assert ledger.commit("a", 0, 10, 0).state == "finalizing"


def test_a_commit_before_the_plan_is_complete_does_not_finalize(ledger: Ledger) -> None:
    ledger.create(spec_of("a"))
    ledger.planned("a", 0, 10)
    assert ledger.commit("a", 0, 10, 0).state == "planning"
    step = ledger.complete("a", shards=1, items=10, error_limit=10, skipped=0)
    assert step.state == "finalizing", "the plan was the last thing missing"


@pytest.fixture
def hasty(settings: Settings) -> Iterator[Ledger]:
    """A ledger whose leases lapse at once."""
    with closing(Ledger(settings.model_copy(update={"lease_seconds": 0.05}))) as made:
        yield made


def lapse(ledger: Ledger) -> None:
    wait_until(lambda: 0 in ledger.lapsed("a").shards, 5, "the lease to lapse")


@pytest.mark.parametrize(
    ("mode", "found"),
    [
        (None, Trouble()),
        ("shared", Trouble(suspect=True, deaths=1)),
        ("alone", Trouble(suspect=True, deaths=1, kills=1)),
        ("notice", Trouble()),
    ],
)
def test_a_death_counts_only_while_a_shard_was_computed_and_is_a_kill_only_if_it_was_alone(
    hasty: Ledger, mode: Mode | None, found: Trouble
) -> None:
    begin(hasty, "a", 1)
    take(hasty, "a", 0, "dead:1")
    if mode == "notice":
        hasty.begin("a", 0, "dead:1", "alone")
        hasty.notice("a", 0, "dead:1")
    elif mode is not None:
        hasty.begin("a", 0, "dead:1", mode)
    lapse(hasty)
    assert take(hasty, "a", 0, "alive:2") == ("taken", found)


@pytest.mark.parametrize("taken_over", [False, True])
def test_a_worker_that_was_only_frozen_has_killed_nothing(hasty: Ledger, ledger: Ledger, taken_over: bool) -> None:
    # Given a lease that lapsed while its worker was stopped,
    begin(hasty, "a", 1)
    take(hasty, "a", 0, "frozen:1")
    hasty.begin("a", 0, "frozen:1", "alone")
    lapse(hasty)
    if taken_over:
        assert take(ledger, "a", 0, "next:2")[1].kills == 1

    # if it renews the lease after all, I expect the death to be forgotten, whoever has the shard now.
    assert ledger.renew("a", 0, "frozen:1", 1, 0, mode="alone") == ("lost" if taken_over else "renewed")
    ledger.release("a", 0, "next:2" if taken_over else "frozen:1")
    assert take(ledger, "a", 0, "third:3") == ("taken", Trouble())


def test_a_fault_is_no_death_and_waits_its_pause_and_names_who_failed(ledger: Ledger) -> None:
    begin(ledger, "a", 1)
    take(ledger, "a", 0, "one:1")
    ledger.begin("a", 0, "one:1", "alone")

    # Given a shard that raised, if it must wait, I expect no worker to get it, nor a ticket for it,
    ledger.fault("a", 0, "one:1", 60, process="one", images=[4])
    assert take(ledger, "a", 0, "two:2")[0] == "later"
    assert ledger.lapsed("a").ready == 0

    # and after its pause, which ends 0.3 s from now, to be ready again, with what is known of it.
    ledger.redis.zincrby(ledger.keys.job("a")[4], -59.7, "0")
    wait_until(lambda: ledger.lapsed("a").ready == 1, 5, "the pause to end")
    answer, trouble = take(ledger, "a", 0, "two:2")
    assert (answer, trouble.kills, trouble.suspect, trouble.faults) == ("taken", 0, False, 1)
    assert (trouble.processes, trouble.images) == ({"one"}, {4: {"one"}})
    assert trouble.failing_seconds >= 0.3

    # A second process adds to it, and a commit forgets it all.
    ledger.fault("a", 0, "two:2", 0, process="two", images=[4, 7])
    _, trouble = take(ledger, "a", 0, "three:3")
    assert (trouble.faults, trouble.images) == (2, {4: {"one", "two"}, 7: {"two"}})
    ledger.commit("a", 0, 10, 0)
    assert not ledger.redis.exists(ledger.keys.job("a")[3])


def test_pauses_double_up_to_a_minute() -> None:
    assert 0.75 <= Trouble().pause() <= 1.25
    assert 6 <= Trouble(faults=2, waits=1).pause() <= 10
    assert 45 <= Trouble(faults=99).pause() <= 75


@pytest.mark.parametrize(
    ("trouble", "divisible", "needed"),
    [(Trouble(), True, 2), (Trouble(half=True), True, 1), (Trouble(half=True), False, 2), (Trouble(), False, 2)],
)
def test_kills_that_condemn(trouble: Trouble, divisible: bool, needed: int) -> None:
    assert trouble.kills_needed(divisible, max_attempts=3) == needed


def test_a_renewed_lease_does_not_lapse_and_shows_progress(ledger: Ledger) -> None:
    begin(ledger, "a", 1)
    take(ledger, "a", 0, "w:1")
    assert ledger.renew("a", 0, "w:1", 3, 1) == "renewed"
    assert ledger.renew("a", 0, "other:2", 9, 9) == "lost"
    status = ledger.status("a")
    assert status is not None
    assert (status.ok, status.errors, status.shards.running) == (3, 1, 1)


def test_the_leases_of_a_process_are_renewed_together(ledger: Ledger) -> None:
    # Given a process with leases of four jobs: one was canceled, and of another a shard was taken over,
    for job in ("a", "b", "c", "d"):
        begin(ledger, job, 2)
        take(ledger, job, 0, "w:1")
        take(ledger, job, 1, "w:2")
    ledger.end("b", "canceled")
    ledger.release("c", 0, "w:1")
    take(ledger, "c", 0, "other:1")
    ledger.commit("d", 1, 10, 0)
    held = [
        Held("c", 0, "w:1"),
        Held("a", 1, "w:2", ok=4, errors=1, mode="alone"),
        Held("b", 0, "w:1"),
        Held("a", 0, "w:1", ok=2, metrics={"loss": 0.5}),
        Held("c", 1, "w:2", ok=7),
        Held("d", 1, "w:2"),
        Held("unheard-of", 0, "w:1"),
    ]
    # if it renews them in one call, I expect an answer for each, in its order,
    answers = ["lost", "renewed", "stopped", "renewed", "renewed", "done", "unknown"]
    assert ledger.renew_all(held) == answers
    # and progress and figures where the lease holds.
    a, c = ledger.status("a"), ledger.status("c")
    assert a is not None and c is not None
    assert (a.ok, a.errors, a.metrics) == (6, 1, {"loss": 0.5})
    assert c.ok == 7, "what is not the process's own stays as it is"
    assert ledger.renew_all([]) == []


@pytest.mark.parametrize("how", ["together", "alone"])
def test_a_lease_renewed_with_others_is_as_one_renewed_alone(hasty: Ledger, how: str) -> None:
    # Given a worker that was cut off past its lease, so that its shard is free and it counts as dead,
    begin(hasty, "a", 1)
    take(hasty, "a", 0, "w:1")
    hasty.begin("a", 0, "w:1", "alone")
    lapse(hasty)
    # if it renews before another takes the shard, I expect the lease to be its own, and nothing against the shard.
    if how == "alone":
        assert hasty.renew("a", 0, "w:1", 1, 0, mode="alone") == "renewed"
    else:
        assert hasty.renew_all([Held("a", 0, "w:1", ok=1, mode="alone")]) == ["renewed"]
    hasty.release("a", 0, "w:1")
    assert take(hasty, "a", 0, "w:2")[1].kills == 0


def test_progress_that_lasts_clears_a_shard(hasty: Ledger, ledger: Ledger) -> None:
    begin(hasty, "a", 1)
    take(hasty, "a", 0, "w:1")
    hasty.begin("a", 0, "w:1", "alone")
    lapse(hasty)
    assert take(ledger, "a", 0, "w:2")[1].kills == 1
    ledger.absolve("a", 0, "w:2", "shared")
    ledger.release("a", 0, "w:2")
    assert take(ledger, "a", 0, "w:3") == ("taken", Trouble())


def test_a_bisected_shard_hands_over_to_its_halves(ledger: Ledger) -> None:
    begin(ledger, "a", 1)
    take(ledger, "a", 0, "w:1")
    for _ in range(2):
        assert ledger.commit("a", 0, 0, 0, (1, 2)).state == "running"
        assert ledger.lapsed("a").ready == 2, "once only"
    assert take(ledger, "a", 1, "w:2")[1] == Trouble(suspect=True, half=True)
    assert ledger.commit("a", 1, 5, 0).state == "running"
    assert ledger.commit("a", 2, 5, 0).state == "finalizing"


def test_a_canceled_job_hands_out_no_shards(ledger: Ledger) -> None:
    begin(ledger, "a", 2)
    take(ledger, "a", 0, "w:1")
    ledger.end("a", "canceled")
    assert take(ledger, "a", 1, "w:2")[0] == "stopped"
    assert ledger.renew("a", 0, "w:1", 1, 0) == "stopped"
    assert ledger.active() == set()


def test_a_job_over_its_error_budget_stops_early(ledger: Ledger) -> None:
    ledger.create(spec_of("a"))
    for shard in range(3):
        ledger.planned("a", shard, 10)
    ledger.complete("a", shards=3, items=30, error_limit=2, skipped=0)
    assert ledger.commit("a", 0, 7, 3).state == "finalizing"
    assert take(ledger, "a", 1, "w:1")[0] == "stopped"


def test_what_redis_forgot_is_unknown_not_wrong(ledger: Ledger) -> None:
    begin(ledger, "a", 1)
    take(ledger, "a", 0, "w:1")
    ledger.redis.flushall()
    assert take(ledger, "a", 0, "w:2")[0] == "unknown"
    assert ledger.renew("a", 0, "w:1", 1, 0) == "unknown"
    assert ledger.commit("a", 0, 10, 0).state == "unknown"
    assert not ledger.exists("a"), "a late commit must not begin books of its own"


def test_an_ended_job_leaves_redis_by_itself(ledger: Ledger) -> None:
    begin(ledger, "a", 1)
    ledger.commit("a", 0, 10, 0)
    ledger.end("a", "succeeded")
    left = [str(key) for key in ledger.redis.scan_iter(f"{ledger.keys.namespace}:*")]
    assert left
    assert all(ledger.redis.ttl(key) > 0 for key in left), "nothing of a job stays, or Redis would fill up"


def test_a_commit_that_comes_after_the_end_leaves_nothing_in_redis_for_ever(ledger: Ledger) -> None:
    # Given a job that is canceled while its first shard is being committed, cut in two,
    begin(ledger, "a", 1)
    take(ledger, "a", 0, "w:1")
    ledger.end("a", "canceled")

    # if the commit comes, I expect no key of the job without an end.
    assert ledger.commit("a", 0, 0, 0, split=(1, 2)).state == "canceled"
    left = [key for key in ledger.keys.job("a") if ledger.redis.exists(key)]
    assert left
    assert all(ledger.redis.ttl(key) > 0 for key in left)


def test_a_clock_that_is_set_back_keeps_no_shard_waiting(ledger: Ledger) -> None:
    # Given a job with a shard that came back, and one whose worker died, both before the clock was set back an hour,
    begin(ledger, "a", 2)
    _, _, leases, _, queued, _ = ledger.keys.job("a")
    for shard in (0, 1):
        take(ledger, "a", shard, f"w:{shard}")
    ledger.release("a", 0, "w:0")
    later = float(ledger.redis.zscore(queued, "0") or 0) + 3600
    ledger.redis.zadd(queued, {"0": later})
    ledger.redis.hset(leases, "1", f"w:1 {later:.3f} 0 0 shared {later:.3f}")
    assert take(ledger, "a", 0, "w:2")[0] == "later"

    # I expect a tick to let the one run now, and the lease to last as long as leases do, from now.
    ledger.lapsed("a")
    assert take(ledger, "a", 0, "w:2")[0] == "taken"
    _, deadline, *_, since = str(ledger.redis.hget(leases, "1")).split()
    assert float(deadline) < later - 3600 + 10 * ledger._settings.lease_seconds
    assert float(since) < later - 3600 + 60

    # A pause that is meant is kept.
    ledger.postpone("a", 0, "w:2", 60.0)
    ledger.lapsed("a")
    assert take(ledger, "a", 0, "w:3")[0] == "later"


def test_redis_holds_bits_not_images(ledger: Ledger) -> None:
    """Under 20 bytes an image: 200 shards of 512 images, half of them done."""
    ledger.create(spec_of("a", shard_size=512))
    before = ledger.redis.info("memory")["used_memory"]
    for shard in range(200):
        ledger.planned("a", shard, 512)
    for shard in range(100):
        take(ledger, "a", shard, "w:1")
        ledger.commit("a", shard, 512, 0)
    grown = ledger.redis.info("memory")["used_memory"] - before
    assert grown < 20 * 200 * 512


def test_the_wait_for_an_able_worker_begins_anew_when_one_took_a_shard(ledger: Ledger) -> None:
    # Given a job that no live worker could run for a moment,
    begin(ledger, "a", 2)
    assert ledger.unmet("a") == 0
    wait_until(lambda: ledger.unmet("a") > 0, 5, "the wait to be counted")

    # if a worker takes a shard of it, I expect a later wait to begin at nothing.
    assert take(ledger, "a", 0, "able")[0] == "taken"
    assert ledger.unmet("a") == 0


@pytest.mark.parametrize("commands", [1, 4])
def test_what_is_noted_of_a_job_that_is_dropped_meanwhile_leaves_nothing(
    ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch, commands: int
) -> None:
    # Given a job that is dropped after one of the commands with which a controller notes what it waits for,
    begin(ledger, "a", 1)
    left = [commands]
    execute = ledger.redis.execute_command

    with closing(Ledger(settings)) as other:

        def dropped(*args: Any, **options: Any) -> Any:
            answer = execute(*args, **options)
            left[0] -= 1
            if left[0] == 0:
                other.drop("a")
            return answer

        with monkeypatch.context() as patched:
            patched.setattr(ledger.redis, "execute_command", dropped)
            ledger.waits_for("a", "a worker with a GPU")
            ledger.unmet("a")
        # I expect nothing that a drop does not delete.
        other.drop("a")
    assert not ledger.exists("a")
