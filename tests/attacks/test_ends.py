"""Cancel, finalize, resume, retry, work and reconcile in random interleavings: what was answered is what stays.

Each process stops at each of its calls to the store and to the ledger, where a seed says who goes on, and who dies.
The ledger is a real Redis with the real script. Most seeds use a store in memory, some the real S3 server.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from contract.backend.glance import COMPARED, glance
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.errors import JobConflict, ObjectNotFound
from contract.jobs import index, lifecycle
from contract.jobs.commits import count_commits, read_commit, read_retries
from contract.jobs.ends import read_standing
from contract.jobs.lifecycle import Backend
from contract.jobs.specs import Classify, Source
from contract.jobs.status import ENDED, Plan, RunStart, ShardCommit, Status
from contract.keys.jobs import JobKeys, parse_run
from contract.keys.shards import shard_stem
from contract.settings import Settings
from producer.jobs import submission
from tests.interleaved import Actor, DictStore, KilledError, Mailbox, Recorded, Scheduler, Stepped, weighted
from tests.taking import take
from worker.control import reconcile
from worker.control.finalize import finalize

STORE_STEPS = frozenset({"get", "put", "put_if_absent", "delete", "list", "exists"})
LEDGER_STEPS = frozenset(
    {"create", "open", "planned", "complete", "commit", "end", "forget", "take", "state", "status", "run", "lock"}
)
SHARDS, ITEMS = 3, 4
CAST = {"cancel": (1, 2), "finalize": (1, 2), "resume": (0, 2), "retry": (0, 2), "work": (1, 2), "tick": (0, 1)}


class Play:
    """One interleaving: a planned job of three shards, and the processes that act on it."""

    def __init__(self, seed: int, store: Any, ledger: Ledger) -> None:
        self.id = f"play-{seed}"
        self.keys = JobKeys(self.id)
        self.store: Any = Recorded(store)
        self.plain = Backend(self.store, ledger, Mailbox())  # type: ignore[arg-type]
        self.scheduler = Scheduler(seed)
        self.random = self.scheduler.random
        self.failing = self.random.random() < 0.5
        """Whether one image of each shard is bad in its first run."""
        self.limit = "100%" if self.random.random() < 0.7 else "0"
        self.seen: list[Status] = []
        self.stepped = Backend(
            Stepped(self.store, self.scheduler, STORE_STEPS),  # type: ignore[arg-type]
            Stepped(ledger, self.scheduler, LEDGER_STEPS),  # type: ignore[arg-type]
            Mailbox(),  # type: ignore[arg-type]
        )

    def begin(self) -> None:
        """Submit and plan the job, run some of its shards, and perhaps end it."""
        self.submit()
        for _ in range(self.random.randint(0, SHARDS)):
            self.work(self.plain, 1)
        if self.random.random() < 0.3:  # the job has ended before it begins to be interesting
            self.settle()
        elif self.random.random() < 0.2:  # the ledger counts what the bucket has lost
            self.store.delete(self.keys.commit(0))

    def submit(self) -> None:
        """Submit and plan the job."""
        spec = Classify(
            id=self.id,
            source=Source(kind="prefix", uri=f"s3://{self.store.bucket}/in/", label="in"),
            model="parity@1",
            weights_sha256="0" * 64,
            shard_size=ITEMS,
            max_errors=self.limit,
            output=f"s3://{self.store.bucket}/{self.keys.root}out/",
        )
        lifecycle.submit(self.plain, spec)
        self.store.put(self.keys.plan, Plan(shards=SHARDS, items=SHARDS * ITEMS).to_json())
        for shard in range(SHARDS):
            self.plain.ledger.planned(self.id, shard, ITEMS)
        limit = spec.error_limit(SHARDS * ITEMS)
        self.plain.ledger.complete(self.id, shards=SHARDS, items=SHARDS * ITEMS, error_limit=limit, skipped=0)

    def work(self, backend: Backend, most: int = SHARDS) -> None:
        """Do what a worker does with a shard: lease, rows, commit, ledger."""
        for shard in range(SHARDS):
            if most and take(backend.ledger, self.id, shard, f"worker-{id(backend)}")[0] == "taken":
                most -= 1
                retry = read_retries(backend.store, self.id).required.get(shard, 0)
                errors = 1 if self.failing and not retry else 0
                output = f"{self.keys.root}out/{shard_stem(shard, retry)}.parquet"
                backend.store.put_if_absent(output, b"rows")
                made = ShardCommit(
                    shard=shard,
                    retry=retry,
                    items=ITEMS,
                    ok=ITEMS - errors,
                    errors=errors,
                    error_codes={"not_an_image": errors} if errors else {},
                    labels={"odd": ITEMS - errors},
                    output=f"s3://{self.store.bucket}/{output}",
                )
                backend.store.put_if_absent(self.keys.commit(shard, retry), made.to_json())
                try:
                    commit = read_commit(backend.store, self.id, shard, retry)
                except ObjectNotFound:  # superseded by a retry, and removed
                    continue
                backend.ledger.commit(self.id, shard, commit.ok, commit.errors, commit.split)

    def tick(self, backend: Backend, settings: Settings) -> None:
        """Reconcile, as if the last look at the bucket were long ago."""
        ledger = backend.ledger
        ledger.redis.delete(ledger.keys.lock(f"{COMPARED}:{self.id}"))
        seen = glance(ledger, [self.id])[self.id]
        reconcile._reconcile(backend, settings, self.id, seen, ledger.workers(), may_look=True, may_plan=True)

    def act(self, settings: Settings) -> list[Actor]:
        """Let the processes act, some of which die, and let one look on."""
        backend = self.stepped
        parts: dict[str, Callable[[], Any]] = {
            "cancel": lambda: lifecycle.cancel(backend, self.id),
            "finalize": lambda: finalize(backend, self.id),
            "resume": lambda: submission.resume(backend, backend, self.id, max_bytes=1, progress=None),
            "retry": lambda: submission.retry(backend, self.id),
            "work": lambda: self.work(backend),
            "tick": lambda: self.tick(backend, settings),
        }
        actors = [Actor(name, parts[name]) for name in weighted(self.random, CAST)]
        if self.random.random() < 0.3:
            self.random.choice(actors).dies_at = self.random.randint(2, 30)

        def look() -> None:
            for _ in range(3):
                self.seen.append(lifecycle.status(backend, self.id))

        self.scheduler.play([*actors, Actor("look", look)])
        return actors

    def settle(self) -> None:
        """What controllers and workers do afterwards, until the job has ended and nothing changes."""
        settings = Settings()
        for _ in range(12):
            ledger = self.plain.ledger
            ledger.redis.delete(ledger.keys.job(self.id)[2])  # the leases of the dead have lapsed
            self.tick(self.plain, settings)
            self.work(self.plain)
            finalize(self.plain, self.id)
            active = self.store.exists(self.keys.active)
            if ledger.state(self.id) in ENDED and not active:
                return
        raise AssertionError(f"{self.id} never came to rest: {read_standing(self.store, self.id)}")

    def listed(self) -> list[int]:
        """The runs of the job that are in the index of ends."""
        return [run for _, id, run, _ in index.ended(self.store) if id == self.id]

    def check_at_rest(self) -> None:
        """Check that processes of which none died left bucket and ledger in agreement, without help."""
        now, state = read_standing(self.store, self.id), self.plain.ledger.state(self.id)
        marks = [self.keys.success, f"{self.keys.root}out/_SUCCESS"]
        succeeded = now.end is not None and now.end.state == "succeeded"
        assert [self.store.exists(mark) for mark in marks] == [succeeded] * 2, now
        assert self.store.exists(self.keys.active) == (now.end is None), now
        assert self.listed() == ([] if now.end is None else [now.run]), now
        if now.end is None:
            assert state not in ENDED, f"the ledger says {state} of an open run"
        else:
            assert state == now.end.state

    def check(self, actors: list[Actor]) -> None:
        """Compare what was answered with what stands."""
        store, keys = self.store, self.keys
        now = read_standing(store, self.id)
        ends = {run: Status.model_validate_json(store.get(keys.run_end(run))) for run in range(now.run + 1)}

        # One end a run, and one opening, each written once.
        for key, versions in store.written.items():
            if key == keys.end or parse_run(key):
                assert len(versions) == 1, f"{key} was written {len(versions)} times"
        # A run is opened only after the one before has ended, and a success is only opened by a retry.
        starts = [RunStart.model_validate_json(store.get(keys.run_start(run))) for run in range(1, now.run + 1)]
        for start in starts:
            assert start.retry is not None or ends[start.run - 1].state != "succeeded"

        states = [end.state for end in ends.values()]
        for actor in actors:
            assert actor.error is None or isinstance(actor.error, JobConflict), (actor.name, actor.error)
            if actor.name == "cancel" and isinstance(actor.answer, Status):
                assert actor.answer in ends.values(), "what cancel answered is no end"
                assert actor.answer.state == "canceled"
            elif actor.name == "cancel" and actor.error is not None:
                assert any(f"has {state} already" in str(actor.error) for state in states)
        retried = sum(actor.name == "retry" and isinstance(actor.answer, Status) for actor in actors)
        opened = sum(start.retry is not None for start in starts)
        dead = sum(actor.dead for actor in actors)
        assert retried <= opened <= retried + dead, "each retry that was answered opened a run of its own"
        for status in self.seen:
            assert not status.ended or status in ends.values(), f"{status} was shown, and is no end"

        # Ledger, `_SUCCESS`, summary and list of active jobs follow the bucket.
        assert now.end is not None
        assert self.plain.ledger.state(self.id) == now.end.state
        assert lifecycle.status(self.plain, self.id) == now.end
        succeeded = now.end.state == "succeeded"
        out = f"{keys.root}out/"
        assert [store.exists(keys.success), store.exists(f"{out}_SUCCESS")] == [succeeded] * 2
        assert not store.exists(keys.active)
        assert self.listed() == [now.run]
        if now.end.labels is not None:
            summary = json.loads(store.get(f"{out}summary.json"))
            assert (summary["state"], summary["ok"]) == (now.end.state, now.end.ok)
        else:
            assert not store.exists(f"{out}summary.json")

        # Rows and counters hold.
        if succeeded:
            tally = count_commits(store, self.id, SHARDS, read_retries(store, self.id).required)
            assert tally.complete and tally.ok + tally.errors == SHARDS * ITEMS
            assert (now.end.ok, now.end.errors, now.end.done) == (tally.ok, tally.errors, SHARDS * ITEMS)
            outputs = [e.key for e in store.list(out) if e.key.endswith(".parquet")]
            assert len(outputs) == SHARDS, f"superseded rows are left: {outputs}"


def play(seed: int, store: Any, ledger: Ledger, settings: Settings) -> Play:
    one = Play(seed, store, ledger)
    one.begin()
    actors = one.act(settings)
    if not any(actor.dead for actor in actors):
        one.check_at_rest()
    one.settle()
    one.check(actors)
    ledger.drop(one.id)
    return one


def test_what_was_answered_is_what_stays(ledger: Ledger, settings: Settings) -> None:
    ends = {"succeeded": 0, "failed": 0, "canceled": 0}
    for seed in range(100):
        one = play(seed, DictStore(), ledger, settings)
        end = read_standing(one.store, one.id).end
        assert end is not None
        ends[end.state] += 1
    assert all(ends.values()), f"some end never came about: {ends}"


def test_the_same_on_the_real_store(store: ObjectStore, ledger: Ledger, settings: Settings) -> None:
    for seed in range(10_000, 10_005):
        play(seed, store, ledger, settings)


def test_a_cancel_that_comes_too_late_says_so(ledger: Ledger) -> None:
    # Given a job whose finalizer has written its end, and died before anybody else could know,
    one = Play(1, DictStore(), ledger)
    one.submit()
    one.work(one.plain)
    lifecycle.write_end(one.plain, one.id, "succeeded", labels={})

    # if somebody cancels it, I expect the answer that stands.
    with pytest.raises(JobConflict, match="has succeeded already; there is nothing to cancel"):
        lifecycle.cancel(one.plain, one.id)
    one.settle()
    assert one.plain.ledger.state(one.id) == "succeeded"


def test_a_finalizer_that_slept_through_a_cancel_and_a_resume_ends_nothing(ledger: Ledger) -> None:
    # Given a finalizer that is about to end the first run, when the job is canceled and resumed,
    one = Play(2, DictStore(), ledger)
    one.submit()
    lifecycle.cancel(one.plain, one.id)
    submission.resume(one.plain, one.plain, one.id, max_bytes=1, progress=None)

    # if it goes on, I expect the cancel to stand, the second run to be open, and no sign of a success.
    stands = lifecycle.close(one.plain, one.id, "succeeded", run=0, labels={})
    assert stands.state == "canceled"
    assert read_standing(one.store, one.id).end is None
    assert one.plain.ledger.state(one.id) not in ENDED
    assert not one.store.exists(f"{one.keys.root}out/_SUCCESS")


def test_a_process_that_is_killed_is_not_caught() -> None:
    assert not issubclass(KilledError, Exception)
