"""The step that chooses a job, on a real Redis, against a model of it in Python that keeps no index."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.backend.dispatch import Can, Grant, next_shard
from contract.backend.ledger import Ledger
from contract.jobs.kinds import KINDS
from contract.jobs.options import Share
from tests.contract.backend.test_ledger import spec_of

QUEUE = KINDS["classify"].queue
CLASSES = {"high": 400, "normal": 20, "low": 1}
SECONDS = 20.0  # of a shard of which nothing is measured
NEEDS = ("", "precision=bf16")


@dataclass
class Job:
    name: str
    owner: str
    priority: str
    weight: float
    max_slots: int
    needs: str
    shards: int
    held: set[int] = field(default_factory=set)
    back: list[int] = field(default_factory=list)
    """Shards that came back, in the order in which they did."""
    fresh: int = 0
    """The first shard that was never handed out."""

    def may_run(self, can: Can) -> bool:
        """Whether a worker could take a shard of it, as far as only this job is concerned."""
        waits = self.fresh < self.shards or bool(self.back)
        room = not self.max_slots or len(self.held) < self.max_slots
        return waits and room and (not self.needs or "bf16" in can.precisions)


@dataclass
class Model:
    """Start-time fair queueing at three levels, by a look at every job."""

    cap: int
    jobs: list[Job] = field(default_factory=list)
    tags: dict[tuple[str, str], float] = field(default_factory=dict)
    clocks: dict[str, float] = field(default_factory=dict)

    def tag(self, parent: str, child: str) -> float:
        clock = self.clocks.get(parent, 0.0)
        return max(self.tags.get((parent, child), 0.0), clock)

    def first(self, parent: str, children: set[str]) -> str:
        return min(children, key=lambda child: (self.tag(parent, child), -CLASSES.get(child, 0), child))

    def charge(self, parent: str, child: str, seconds: float) -> None:
        start = self.tag(parent, child)
        self.clocks[parent], self.tags[parent, child] = round(start, 6), round(start + seconds, 6)

    def take(self, can: Can) -> Job | None:
        """Return the job whose turn it is, with its shard taken."""
        slots = Counter({job.owner: 0 for job in self.jobs})
        for job in self.jobs:
            slots[job.owner] += len(job.held)
        able = [job for job in self.jobs if job.may_run(can) and not (self.cap and slots[job.owner] >= self.cap)]
        if not able:
            return None
        priority = self.first("", {job.priority for job in able})
        owner = self.first(priority, {job.owner for job in able if job.priority == priority})
        path = f"{priority}|{owner}"
        name = self.first(path, {job.name for job in able if (job.priority, job.owner) == (priority, owner)})
        job = next(job for job in able if job.name == name)
        self.charge(path, name, SECONDS / job.weight)
        self.charge(priority, owner, SECONDS)
        self.charge("", priority, SECONDS / CLASSES[priority])
        return job


Act = tuple[str, int, int, int]
JOBS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob"]),
        st.sampled_from(sorted(CLASSES)),
        st.sampled_from([0.5, 1.0, 3.0]),
        st.sampled_from([0, 0, 1, 2]),
        st.sampled_from(NEEDS),
        st.integers(1, 8),
    ),
    min_size=1,
    max_size=6,
)
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "commit", "release", "weigh", "submit"]), *[st.integers(0, 99)] * 3
    ),
    min_size=10,
    max_size=60,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(planned=JOBS, acts=ACTS, cap=st.sampled_from([0, 0, 2, 3]))
def test_the_step_chooses_as_the_model_does(
    ledger: Ledger, planned: list[tuple[str, str, float, int, str, int]], acts: list[Act], cap: int
) -> None:
    """Whatever is asked, done, given back, changed and submitted: the same job, and no shard to two."""
    ledger.redis.flushdb()
    model, grants = Model(cap), list[Grant]()

    def submit(number: int) -> None:
        owner, priority, weight, max_slots, needs, shards = planned[number % len(planned)]
        job = Job(f"job-{len(model.jobs)}", owner, priority, weight, max_slots, needs, shards)
        spec = spec_of(job.name, priority=priority, weight=weight, max_slots=max_slots)
        ledger.create(spec, owner=owner, needs=needs)
        ledger.complete(job.name, shards=shards, items=10 * shards, error_limit=10 * shards, skipped=0)
        model.jobs.append(job)

    def held(number: int) -> tuple[Grant, Job]:
        grant = grants.pop(number % len(grants))
        return grant, next(job for job in model.jobs if job.name == grant.job)

    for number in range(len(planned)):
        submit(number)
    for turn, (act, a, b, _) in enumerate(acts):
        if act == "ask":
            can = Can("cpu", ("fp32", "bf16") if a % 2 else ("fp32",))
            job = model.take(can)
            grant = next_shard(ledger, QUEUE, f"w:{turn}", can, process="w", lease_seconds=60.0, owner_slots=cap)
            assert (grant.job if grant else None) == (job.name if job else None)
            if grant and job:
                assert grant.shard not in job.held
                if grant.shard in job.back:
                    job.back.remove(grant.shard)
                else:
                    assert (grant.shard, job.back) == (job.fresh, []), "those that came back go first"
                    job.fresh += 1
                job.held.add(grant.shard)
                grants.append(grant)
        elif act == "submit":
            submit(a)
        elif act == "weigh":
            job = model.jobs[a % len(model.jobs)]
            job.weight = [0.25, 1.0, 4.0][b % 3]
            share = {"priority": job.priority, "weight": job.weight, "max_slots": job.max_slots}
            ledger.share(job.name, Share.model_validate(share))
        elif grants and act == "commit":
            grant, job = held(a)
            ledger.commit(grant.job, grant.shard, 10, 0)
            job.held.discard(grant.shard)
        elif grants:
            grant, job = held(a)
            ledger.release(grant.job, grant.shard, grant.token)
            job.held.discard(grant.shard)
            job.back.append(grant.shard)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0, 5.0]), min_size=2, max_size=5),
    late=st.integers(0, 30),
    paces=st.lists(st.sampled_from([0.1, 0.5, 2.0]), min_size=5, max_size=5),
)
def test_what_jobs_are_given_differs_by_no_more_than_a_shard_each(
    ledger: Ledger, weights: list[float], late: int, paces: list[float]
) -> None:
    """The bound of start-time fair queueing: |Wi/wi - Wj/wj| <= li/wi + lj/wj while both want something."""
    ledger.redis.flushdb()
    # Given jobs of one owner whose shards take their own time, and of which the last is submitted later,
    items, shards = 10, 1200  # more than are handed out here

    def begin(number: int) -> None:
        ledger.create(spec_of(f"job-{number}", weight=weights[number]))
        ledger.complete(f"job-{number}", shards=shards, items=items * shards, error_limit=0, skipped=0)

    def serve(count: int) -> Counter[str]:
        given: Counter[str] = Counter()
        for _ in range(count):
            grant = next_shard(ledger, QUEUE, f"w:{next(tokens)}", Can("cpu", ("fp32",)), process="w", lease_seconds=60)
            assert grant is not None
            number = int(grant.job.removeprefix("job-"))
            ledger.commit(grant.job, grant.shard, items, 0, seconds=items * paces[number])
            given[grant.job] += 1
        return given

    tokens = iter(range(10**6))
    for number in range(len(weights) - 1):
        begin(number)
    serve(late)
    begin(len(weights) - 1)
    # once each has been measured, which its first shard does,
    serve(int(20 * sum(weights) / min(weights)))
    # I expect none to get ahead of another, weighed, by more than a shard of each.
    given = serve(120)
    served = [given[f"job-{n}"] * items * paces[n] / weights[n] for n in range(len(weights))]
    longest = [items * paces[n] / weights[n] for n in range(len(weights))]
    for i in range(len(weights)):
        for j in range(i):
            assert abs(served[i] - served[j]) <= longest[i] + longest[j] + 1e-3
