"""State of jobs and shards in Redis: leases, deaths and faults, counters. The atomic steps are in `ledger.lua`.

The ledger is disposable: `contract.jobs.lifecycle` rebuilds it from the bucket.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, cast

from contract.backend import messages
from contract.backend.entry import status_of
from contract.backend.heartbeats import Heartbeats
from contract.jobs.kinds import kind_of
from contract.jobs.options import Share
from contract.jobs.specs import Spec
from contract.jobs.status import State, Status
from contract.settings import Settings

JOBS_LUA = "".join(Path(__file__).with_name(name).read_text() for name in ("entry.lua", "index.lua"))
"""What the scripts about jobs begin with: the entry of a job, and the index of those that have a shard to hand out."""
_SCRIPT = JOBS_LUA + Path(__file__).with_name("ledger.lua").read_text()
_RENEW = Path(__file__).with_name("renew.lua").read_text()
_SENT_AT_ONCE = 500
"""Messages in one command, of some 900 bytes each."""
Mode = Literal["waits", "shared", "alone", "notice"]
"""How a leased shard runs: it waits for its turn, runs beside others, runs alone, or its worker is about to leave."""
Renewed = Literal["renewed", "stopped", "done", "lost", "unknown"]
"""What becomes of a renewal: `done` if another worker committed the shard, `lost` if one holds it."""


@dataclass(frozen=True)
class Step:
    """Outcome of a step: the job's state, and how many tickets the caller must now send for its kind."""

    state: str
    kind: str = ""
    tickets: int = 0


@dataclass(frozen=True)
class Look:
    """What the reconciler finds: shards whose leases had expired, and what the job waits for."""

    step: Step
    shards: tuple[int, ...] = ()
    needs: str = ""
    """What a worker must have (`contract.jobs.numerics.Needs`)."""
    running: int = 0
    """Shards that are leased."""
    ready: int = 0
    """Shards that may run now."""


@dataclass(frozen=True)
class Held:
    """A lease as its holder sees it: the work done so far, figures for people, and how the shard runs."""

    job: str
    shard: int
    token: str
    ok: int = 0
    errors: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    mode: Mode = "shared"


class Ledger(Heartbeats):
    """The ledger in one Redis. Its calls retry and raise as those of `RedisClient`."""

    def __init__(self, settings: Settings, *, patience: float = 3.0, interactive: bool = False) -> None:
        super().__init__(settings, patience=patience, interactive=interactive)
        self._script = self.redis.register_script(_SCRIPT)

    # Jobs

    def create(
        self,
        spec: Spec,
        created_at: float | None = None,
        *,
        rebuild: bool = False,
        retry: int = 0,
        run: int = 0,
        needs: str = "",
        rules: str = "",
        ruled: str = "",
        owner: str = "",
        share: Share | None = None,
    ) -> bool:
        """Create the ledger entry of a run; return False if it, or a later one, exists. An earlier one is replaced.

        In a rebuild no shard is handed out until `open`. Without a `share` it has the one that the spec asks for.
        """
        created = time.time() if created_at is None else created_at
        fields: dict[str, Any] = {
            "id": spec.id,
            "kind": spec.kind,
            "state": "queued",
            "model": spec.model,
            "source": spec.source.label,
            "source_kind": spec.source.kind,
            "output": spec.output,
            "created_at": f"{created:.3f}",
            "opened": 0 if rebuild else 1,
            "retry": retry,
            "queue": kind_of(spec).queue,
            "needs": needs,
            "rules": rules,
            "ruled": ruled,
            "owner": owner,
            **_share(share or spec),
            "speculative": int(kind_of(spec).speculative),
        }
        flat = [str(x) for pair in fields.items() for x in pair]
        answer = self._run(spec.id, "create", run, *flat)
        with self._mapped():
            self.redis.sadd(self.keys.active, spec.id)
        return bool(answer[0] == "created")

    def open(self, id: str) -> Step:
        """End a rebuild, and let shards be handed out again."""
        return _step(self._run(id, "open"))

    def need(self, id: str, needs: str) -> Step:
        """Say what a worker must have to run the job."""
        return _step(self._run(id, "set", "needs", needs))

    def need_runtime(self, id: str, runtime: str) -> Step:
        """Say that only this runtime can run the job, as a worker found; a wiped Redis finds it again."""
        return _step(self._run(id, "set", "runtime", runtime))

    def admit(self, id: str, rules: str, ruled: str) -> Step:
        """Say which of the workers' rules `ruled` admit the models of the job; ids with commas between."""
        return _step(self._run(id, "set", "rules", rules, "ruled", ruled))

    def share(self, id: str, share: Share) -> Step:
        """Give a job another share of the slots, from now on."""
        return _step(self._run(id, "set", *(part for pair in _share(share).items() for part in pair)))

    def kind(self, id: str) -> str | None:
        """Return the kind of a job, or None if the ledger does not know the job."""
        with self._mapped():
            return cast("str | None", self.redis.hget(self.keys.job(id)[0], "kind"))

    def unmet(self, id: str) -> float:
        """Return the seconds since it was first found that no live worker can run the job; 0 the first time."""
        answer = self._run(id, "unmet")
        return 0.0 if answer[0] == "unknown" else float(answer[0])

    def met(self, id: str) -> None:
        """Forget what `unmet` counts from, and what the job waits for: there is a worker that can run it."""
        with self._mapped():
            self.redis.hdel(self.keys.job(id)[0], "unmet_since", "waiting_for")

    def waits_for(self, id: str, what: str) -> None:
        """Say which worker a job waits for, until one takes a shard of it."""
        self._run(id, "set", "waiting_for", what)

    def retry_number(self, id: str) -> int:
        """Return how often the job was retried."""
        with self._mapped():
            return int(cast("str | None", self.redis.hget(self.keys.job(id)[0], "retry")) or 0)

    def planned(self, id: str, shard: int, items: int) -> Step:
        """Record that a shard's manifest is written."""
        return _step(self._run(id, "planned", shard, items))

    def complete(self, id: str, *, shards: int, items: int, error_limit: int, skipped: int) -> Step:
        """Record that every shard's manifest is written."""
        return _step(self._run(id, "complete", shards, items, error_limit, skipped))

    def extend(self, id: str, *, shards: int, items: int, error_limit: int) -> Step:
        """Plan more shards for a job whose shards are all done: it runs again, with `shards` and `items` in all.

        It does nothing if the job is not finalizing or has that many shards already, so it may be called twice.
        """
        return _step(self._run(id, "extend", shards, items, error_limit))

    def end(self, id: str, state: State, reason: str = "", *, run: int | None = None) -> None:
        """End a job, unless the entry is of a later run than `run`; it stays readable for `ledger_days`."""
        keep = int(self._settings.ledger_days * 86400)
        answer = self._run(id, "end", state, reason, keep, -1 if run is None else run)
        if answer[0] != "stale":
            with self._mapped():
                self.redis.srem(self.keys.active, id)

    def run(self, id: str) -> int:
        """Return which run of the job the entry is of; 0 for a job that the ledger does not know."""
        with self._mapped():
            return int(cast("str | None", self.redis.hget(self.keys.job(id)[0], "run")) or 0)

    def forget(self, id: str) -> None:
        """Delete the entry of a job, to be rebuilt from the bucket."""
        self._run(id, "forget")

    def drop(self, id: str) -> None:
        """Delete every trace of a job."""
        self.forget(id)
        with self._mapped():
            self.redis.srem(self.keys.active, id)

    def exists(self, id: str) -> bool:
        with self._mapped():
            return bool(self.redis.exists(self.keys.job(id)[0]))

    def state(self, id: str) -> str | None:
        """Return the state of a job, or None if the ledger does not know the job."""
        with self._mapped():
            return cast("str | None", self.redis.hget(self.keys.job(id)[0], "state"))

    def active(self) -> set[str]:
        """Return the ids of the jobs that have not ended."""
        with self._mapped():
            return cast("set[str]", self.redis.smembers(self.keys.active))

    def status(self, id: str, *, committed: bool = False) -> Status | None:
        """Return the status of a job, or None if the ledger does not know the job.

        It counts the progress of running shards too, unless only what is `committed` is asked for.
        """
        job, _, leases, *_ = self.keys.job(id)
        with self._mapped():
            pipe = self.redis.pipeline(transaction=True)
            pipe.hgetall(job)
            pipe.hvals(leases)
            pipe.time()
            fields, held, (seconds, micros) = pipe.execute()
        return status_of(fields, [] if committed else held, seconds + micros / 1e6) if fields else None

    # Shards

    def begin(self, id: str, shard: int, token: str, mode: Mode = "shared") -> bool:
        """Say that the work begins, beside others or alone; return False if the lease is lost.

        From now on a lease that lapses is a death. Separate from `take`, so that a shard which only waits in a process
        is not blamed when the process dies.
        """
        return bool(self._run(id, "mode", shard, token, mode, 0)[0] == "set")

    def notice(self, id: str, shard: int, token: str) -> None:
        """Say that the worker was told to leave: if it dies from now on, that counts against nothing."""
        self._run(id, "mode", shard, token, "notice", 0)

    def absolve(self, id: str, shard: int, token: str, mode: Mode) -> None:
        """Forget what went wrong with a shard before it made progress that lasts; it runs on in `mode`."""
        self._run(id, "mode", shard, token, mode, 1)

    def renew(
        self,
        id: str,
        shard: int,
        token: str,
        ok: int,
        errors: int,
        metrics: Mapping[str, float] | None = None,
        mode: Mode = "shared",
    ) -> Renewed:
        """Renew the lease, and publish progress inside the shard and, if given, metrics for people."""
        lease = self._settings.lease_seconds
        figures = json.dumps(metrics) if metrics else ""
        return cast("Renewed", self._run(id, "renew", shard, token, lease, ok, errors, figures, mode)[0])

    def renew_all(self, held: Sequence[Held]) -> list[Renewed]:
        """Renew the leases of a process in one step, whatever their jobs; return an answer for each, as `renew` does.

        It publishes progress too, and tells which jobs were stopped.
        """
        order = sorted(range(len(held)), key=lambda n: held[n].job)
        keys: list[str] = []
        args: list[Any] = [self._settings.lease_seconds]
        for job, group in groupby(order, key=lambda n: held[n].job):
            leases = [held[n] for n in group]
            figures = next((lease.metrics for lease in reversed(leases) if lease.metrics), None)
            keys += [self.keys.job(job)[0], self.keys.job(job)[2]]
            args += [len(leases), json.dumps(figures) if figures else ""]
            for one in leases:
                args += [one.shard, one.token, one.ok, one.errors, one.mode]
        if not keys:
            return []
        answers = cast("list[str]", self.script(_RENEW, keys, args))
        found = dict(zip(order, answers, strict=True))
        return [self._renew_one(one) if found[n] == "ask" else cast("Renewed", found[n]) for n, one in enumerate(held)]

    def _renew_one(self, lease: Held) -> Renewed:
        return self.renew(lease.job, lease.shard, lease.token, lease.ok, lease.errors, lease.metrics, lease.mode)

    def commit(
        self, id: str, shard: int, ok: int, errors: int, split: tuple[int, int] | None = None, *, seconds: float = 0.0
    ) -> Step:
        """Count a committed shard, once however often it is reported; it took a slot so many `seconds`, 0: unknown."""
        return _step(self._run(id, "commit", shard, ok, errors, *(split or (-1, -1)), f"{seconds:.3f}"))

    def release(self, id: str, shard: int, token: str) -> Step:
        """Give a shard back; nothing counts against it."""
        return _step(self._run(id, "release", shard, token, 0, "", "", ""))

    def avoid(self, id: str, shard: int, token: str, seconds: float, *, process: str) -> Step:
        """Give a shard back that `process` shall not get for `seconds`; nothing counts against it."""
        return _step(self._run(id, "release", shard, token, f"{seconds:.3f}", "avoid", process, ""))

    def postpone(self, id: str, shard: int, token: str, seconds: float) -> Step:
        """Give a shard back that must wait for a service; it may run again after `seconds`."""
        return _step(self._run(id, "release", shard, token, f"{seconds:.3f}", "wait", "", ""))

    def fault(
        self, id: str, shard: int, token: str, seconds: float, *, process: str, images: Iterable[int] = ()
    ) -> Step:
        """Give a shard back that raised in a process; it may run again after `seconds`, best in another process.

        `images` are the positions of those that failed alone there while a known good image passed.
        """
        failed = ",".join(map(str, images))
        return _step(self._run(id, "release", shard, token, f"{seconds:.3f}", "fault", process, failed))

    def lapsed(self, id: str) -> Look:
        """Free the shards whose leases have expired, and return what the job waits for; ask for second copies."""
        speculative = int(self._settings.speculation == "on")
        answer = self._run(id, "lapsed", self._settings.lease_seconds, speculative)
        if len(answer) == 1:
            return Look(_step(answer))
        shards, needs, running, ready = answer[3:]
        return Look(_step(answer[:3]), tuple(map(int, shards)), str(needs), int(running), int(ready))

    # Messages in the queues

    def send_tickets(self, queue: str, number: int = 1) -> None:
        """Have so many slots of a queue's workers ask for a shard."""
        with self._mapped():
            for start in range(0, number, _SENT_AT_ONCE):
                sent = messages.tickets(queue, min(_SENT_AT_ONCE, number - start))
                self.redis.lpush(f"{self.keys.broker_prefix}{queue}", *sent)

    def messages(self, queues: Sequence[str], young: float) -> set[tuple[Any, ...]]:
        """Return the arguments of every task in these queues, or taken by a worker less than `young` seconds ago."""
        prefix = self.keys.broker_prefix
        with self._mapped():
            pipe = self.redis.pipeline()
            for queue in queues:
                pipe.lrange(f"{prefix}{queue}", 0, -1)
            pipe.hgetall(f"{prefix}unacked")
            pipe.zrange(f"{prefix}unacked_index", 0, -1, withscores=True)
            *waiting, taken, times = pipe.execute()
        at = dict(times)
        found = {messages.arguments(raw) for queue in waiting for raw in queue}
        since = time.time() - young
        found |= {messages.taken(raw) for tag, raw in taken.items() if at.get(tag, 0) > since}
        return {one for one in found if one is not None}

    def rejected(self) -> dict[str, int]:
        """Return the number of malformed messages that were rejected in the last weeks, by kind."""
        with self._mapped():
            return {str(kind): int(number) for kind, number in sorted(self.redis.hgetall(self.keys.rejected).items())}

    def _run(self, id: str, op: str, *args: Any) -> list[Any]:
        with self._mapped():
            return cast("list[Any]", self._script(keys=[*self.keys.dispatch, id], args=[op, *args]))


def _step(answer: list[Any]) -> Step:
    if len(answer) == 1:
        return Step(str(answer[0]))
    state, kind, tickets = answer
    return Step(str(state), str(kind), int(tickets))


def _share(share: Share) -> dict[str, str]:
    return {name: str(getattr(share, name)) for name in Share.model_fields}
