"""How many images a shard of a labelling job holds: a number that was asked for, or as many as take seconds.

A shard of seconds costs little beside its images, and little of it is lost with a worker. Sizes are only proposed here:
a shard is what its manifest in the bucket lists, however it came to that size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from contract.backend.heartbeats import Worker
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.errors import ObjectNotFound, RedisUnavailable
from contract.fleet.rates import Rates, prior, read_rates
from contract.fleet.snapshot import worker_state
from contract.jobs.kinds import kind_of
from contract.jobs.loads import models_of
from contract.jobs.numerics import Needs, advertised, needs_of
from contract.jobs.specs import Classify
from contract.keys.jobs import JobKeys
from contract.models.registry import Model
from contract.records import MOST_IMAGES, Record

SECONDS = 10.0
"""What a shard should take on the slowest live worker: the geometric mean of 5 s, below which a worker's requests tell
beside its work, and 20 s, which is a while to wait for a slot. Rounded to a power of two that is 7 to 14 s, so a rate
may be wrong by √2 either way."""
LEAST = 256
_FIRST = 64
"""Images of the first shard; the next ones are twice as large each. Labelling starts with the first: 64 images take
30 ms to list or pack, 512 take 250 ms, 3 % of a job of 2,000 photos."""
_PART = 2
"""A shard is at most 1/2 of what each slot has of the images before it, so that the last one prolongs no job by more
than a quarter."""
_SLOTS = 8
"""Assumed slots while no worker is alive."""
_LOOK_SECONDS = 5.0

Next = Callable[[int, int], int]
"""Returns the images of the next shard, by the shards and the images planned so far."""


class Sizes(Record):
    """`jobs/<id>/sizes.json`: how the shards of a job grow."""

    images: int
    """Images of a shard, at most."""
    slots: int = 0
    """Slots that share the job; 0: as large as asked for, however many share it."""

    def next(self, shards: int, images: int) -> int:
        """Return the images of the next shard, after so many shards with so many images."""
        ramp = _FIRST << min(shards, 16)
        if not self.slots:
            return min(self.images, ramp)
        return min(self.images, max(min(ramp, LEAST), images // (_PART * self.slots)))


def sizes_for(workers: Sequence[Worker], rates: Rates, spec: Classify, needs: Needs, models: Sequence[Model]) -> Sizes:
    """Return sizes for the live workers that can run a job.

    Where none is alive, the slowest device that ever ran the model counts, or else a CPU.
    """
    kind, slots, devices = kind_of(spec), 0, set[str]()
    for worker in workers:
        state, can = worker_state(worker.name, worker.fields), advertised(worker.fields)
        if can is None or kind.queue not in state.queues or not state.serves:
            continue
        if can.computes(needs) and can.rule.admits(models):
            slots += state.slots
            devices.add(can.device)
    if devices:
        slowest = min(rates.of(kind.name, spec.model, device).images_per_second for device in devices)
    else:
        slowest = min(rates.of_any(kind.name, spec.model), default=prior(kind.name, "cpu"))
    nearest = 2 ** round(math.log2(max(1.0, slowest * SECONDS)))
    return Sizes(images=min(MOST_IMAGES, max(LEAST, nearest)), slots=slots or _SLOTS)


def follow(store: ObjectStore, ledger: Ledger, spec: Classify, *, every: float = _LOOK_SECONDS) -> Next:
    """Return the sizes of a job's shards, by the workers and rates of that moment; looked up again `every` seconds.

    For a planner that goes on behind what the bucket holds, whoever planned it. It raises RedisUnavailable.
    """
    if spec.shard_size != "auto":
        return Sizes(images=spec.shard_size).next
    needs, models = needs_of(store, spec), models_of(store, spec)
    sizes, looked = Sizes(images=LEAST), -math.inf

    def next(shards: int, images: int) -> int:
        nonlocal sizes, looked
        if time.monotonic() - looked >= every:
            sizes, looked = sizes_for(ledger.workers(), read_rates(ledger), spec, needs, models), time.monotonic()
        return sizes.next(shards, images)

    return next


def pin(store: ObjectStore, ledger: Ledger, spec: Classify) -> Next:
    """Return the sizes of a job's shards, decided once for the whole job.

    For a producer that packs: two of them write the same tars only if they cut alike.
    """
    if spec.shard_size != "auto":
        return Sizes(images=spec.shard_size).next
    key = JobKeys(spec.id).sizes
    try:
        return Sizes.model_validate_json(store.get(key)).next
    except ObjectNotFound:
        pass
    try:
        workers, rates = ledger.workers(), read_rates(ledger)
    except RedisUnavailable:  # packing needs no Redis
        workers, rates = [], Rates()
    decided = sizes_for(workers, rates, spec, needs_of(store, spec), models_of(store, spec))
    if store.put_if_absent(key, decided.to_json()):
        return decided.next
    return Sizes.model_validate_json(store.get(key)).next
