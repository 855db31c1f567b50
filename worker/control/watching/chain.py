"""The chain of segments of a watch: one log in the bucket, in which each object is planned once.

    segment 0: shard 0, shard 1, …, end     segment 1: shard 0, …     …

Each place in the log is written only if absent, and whoever loses a place reads what is there and goes on behind it.
So an object that is not in the log so far, and is appended, is in it once, whoever else appends: no lock is needed for
that. Redis is told afterwards and knows nothing that the log does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from contract.data.items import Item
from contract.errors import UnknownWatch
from contract.fleet.sizes import Sizes
from contract.jobs.lifecycle import Backend, read_plan, submit
from contract.jobs.specs import Classify, parse_spec
from contract.jobs.status import ENDED
from contract.jobs.templates import fill
from contract.keys.jobs import JobKeys
from contract.keys.shards import MAX_OPEN_SHARDS
from contract.keys.watches import watch_seen
from contract.records import USUAL_IMAGES
from contract.settings import Settings
from contract.times import iso
from contract.watches.record import Watch, Watches
from contract.watches.seen import SeenSet
from contract.watches.segments import Segment, decide_segment, read_segment, segment_numbers
from worker.control.plan_log import PlanLog

_UNFINISHED = 2
"""Closed segments that may be unfinished when another one is opened: a bound for Redis under a long backlog."""


class Chain:
    """The segments of one watch, as one controller knows them; call `load` first. Not safe for threads."""

    def __init__(self, backend: Backend, settings: Settings, watch: Watch) -> None:
        self.watch = watch
        self._backend, self._store, self._settings = backend, backend.store, settings
        self._seen = SeenSet(self._store, watch_seen(watch.root))
        self._next = 0
        self._segment: Segment | None = None
        self._log: PlanLog | None = None
        self._sizes: list[int] = []
        self._announced = 0
        self._spec: Classify | None = None
        self._unfinished: list[str] = []
        self.before = 0
        """Objects in closed segments."""

    @property
    def planned(self) -> int:
        """Objects planned in all segments."""
        return self.before + (self._log.items if self._log else 0)

    @property
    def jobs(self) -> list[str]:
        """The jobs that are not known to have ended, oldest first."""
        return [*self._unfinished, *([self._segment.job] if self._segment else [])]

    @property
    def begun(self) -> bool:
        """Whether a first segment was opened, or what was there before the watch is known."""
        return self._next > 0

    def load(self) -> None:
        """Read from the bucket what was planned so far, and complete what a dead controller left half done."""
        numbers = segment_numbers(self._store, self.watch.root)
        missing = set(self._seen.load(len(numbers)))
        if not numbers:
            return
        newest = read_segment(self._store, self.watch.root, numbers[-1])
        for number in sorted(missing - {newest.number}):
            segment = read_segment(self._store, self.watch.root, number)
            self._seen.close_segment(number, self._hashes_of(segment))
        for number in numbers[-1 - _UNFINISHED : -1]:
            self._unfinished.append(read_segment(self._store, self.watch.root, number).job)
        if newest.number in missing or self._under_way(newest.job):
            self._go_on(newest)
        else:
            plan = read_plan(self._store, newest.job) if newest.job else None
            self._next, self.before = newest.number + 1, newest.before + (plan.items if plan else 0)

    # What is planned

    def unseen(self, items: Sequence[Item]) -> list[Item]:
        """Return the items that are not planned yet; of several with one identity, the last."""
        named = {self._hash(item): item for item in items}
        return [named[hash] for hash in self._seen.unseen(named)]

    def room(self) -> bool:
        """Return whether items may be appended now; else earlier segments must end first."""
        if self._segment is not None:
            return True
        self._unfinished = [job for job in self._unfinished if self._under_way(job)]
        return len(self._unfinished) < _UNFINISHED

    @property
    def shard_size(self) -> int:
        """The most images of the next shard: few at first, as in a batch job, so that workers begin at once."""
        asked = self.watch.template.spec.get("shard_size") or self._settings.shard_size
        # What arrives decides how large shards are: they are closed by their age, and only a burst fills one.
        sizes = Sizes(images=USUAL_IMAGES if asked == "auto" else int(asked))
        return sizes.next(*(self._log.shards, self._log.items) if self._log else (0, 0))

    def append(self, items: Sequence[Item], now: float) -> int:
        """Plan one shard of those items that are in none yet; return how many there were."""
        while True:
            left = [replace(item, planned_at=round(now, 3)) for item in self.unseen(items)]
            if not left:
                return 0
            plan = self._log
            if plan is None:
                self._open(now)  # another controller may have: what it planned is read now
                continue
            if self._stopped():
                self._end()
                continue
            ours = plan.append(left)
            if ours:
                self._follow(left)
            self.announce()
            if ours:
                return len(left)
            if plan.ended:  # another controller closed the segment
                self._close()

    def announce(self) -> None:
        """Have the shards run that Redis has not heard of, because it was away or a controller died.

        What a Redis that was wiped does not hear is read back from the bucket.
        """
        while self._segment is not None and self._log is not None and self._announced < self._log.shards:
            job, shard = self._segment.job, self._announced
            self._backend.follow_up(job, self._backend.ledger.planned(job, shard, self._sizes[shard]))
            self._announced += 1

    def record_before(self, hashes: Sequence[bytes]) -> None:
        """Record objects that are not to be labelled, before the first segment."""
        self._seen.close_segment(0, hashes)

    def begin_after(self, now: float) -> None:
        """Open the chain behind what `record_before` recorded."""
        decide_segment(self._store, self.watch.root, Segment(number=0, job="", opened_at=iso(now) or "", before=0))
        self._next = max(self._next, 1)

    def hash(self, item: Item) -> bytes:
        """Return the identity of an item."""
        return self._hash(item)

    # Segments

    def close_if_due(self, now: float) -> None:
        """Close the open segment if it is old or large enough, or if its job was ended by somebody."""
        if self._segment is None or self._log is None or not self._log.items:
            return
        age = now - datetime.fromisoformat(self._segment.opened_at).timestamp()
        full = self._log.items >= self._settings.watch_segment_images or self._log.shards >= MAX_OPEN_SHARDS
        if full or age >= self._settings.watch_segment_seconds or self._stopped():
            self._end()

    def _open(self, now: float) -> None:
        """Open the next segment, or the one that another controller opened."""
        if Watches(self._store).get(self.watch.name).stamp != self.watch.stamp:
            raise UnknownWatch(f"The watch {self.watch.name} was removed.")
        spec = fill(self.watch.template, id=self.watch.job(self._next), store=self._store)
        made = Segment(
            number=self._next,
            job=spec.id,
            opened_at=iso(now) or "",
            before=self.before,
            spec=spec.model_dump(mode="json"),
        )
        self._go_on(decide_segment(self._store, self.watch.root, made))

    def _go_on(self, segment: Segment) -> None:
        """Go on behind what a segment holds. Nothing is taken over before all of it was read, so that this can fail."""
        if not segment.job:
            self._next, self.before = segment.number + 1, segment.before
            return
        spec = parse_spec(segment.spec)
        assert isinstance(spec, Classify), "a watch labels"
        known = self._backend.ledger.hash(self._backend.ledger.keys.job(segment.job)[0])
        # One that the bucket calls active and Redis has forgotten is for the reconciler, which also counts its commits.
        if not known and not self._under_way(segment.job):
            submit(self._backend, spec, self.watch.owner)
        self._sizes = []
        # In this order: a log that was read before another controller completed the plan lacks what that one planned.
        complete = read_plan(self._store, segment.job) is not None
        plan = PlanLog(self._store, segment.job, found=self._follow)
        closed = plan.ended or complete
        self._next, self.before = segment.number + 1, segment.before
        self._segment, self._spec, self._log = segment, spec, plan
        self._announced = int(known.get("planned", "0"))
        if closed:
            self._close()
        else:
            self.announce()

    def _follow(self, items: Sequence[Item]) -> None:
        """Remember the items of a shard that is in the log."""
        self._sizes.append(len(items))
        self._seen.add(map(self._hash, items))

    def _stopped(self) -> bool:
        """Whether the open segment's job was canceled, has failed or was deleted."""
        assert self._segment is not None
        state = self._backend.ledger.state(self._segment.job)
        return state in ENDED or (state is None and not self._under_way(self._segment.job))

    def _end(self) -> None:
        assert self._log is not None
        while not self._log.ended and not self._log.end():
            pass
        self._close()

    def _close(self) -> None:
        """Complete the plan of a segment whose log has ended. The run of hashes comes first: the job cannot end, and
        its manifests cannot be deleted, before it is there."""
        assert self._segment is not None and self._log is not None and self._spec is not None
        job = self._segment.job
        self._seen.close_segment(self._segment.number)
        if self._store.exists(JobKeys(job).spec):  # else somebody deleted it
            plan = self._log.complete(0)
            limit = self._spec.error_limit(plan.items)
            step = self._backend.ledger.complete(
                job, shards=plan.shards, items=plan.items, error_limit=limit, skipped=0
            )
            self._backend.follow_up(job, step)
            self._unfinished.append(job)
        self.before += self._log.items
        self._segment = self._log = self._spec = None
        self._seen.compact()

    def _under_way(self, job: str) -> bool:
        """Whether the bucket says that a job has not ended."""
        return bool(job) and self._store.exists(JobKeys(job).active)

    def _hashes_of(self, segment: Segment) -> list[bytes]:
        found: list[bytes] = []
        if segment.job:
            PlanLog(self._store, segment.job, found=lambda items: found.extend(map(self._hash, items)))
        return found

    def _hash(self, item: Item) -> bytes:
        return self.watch.identity(item.key, item.etag or "")
