"""A watched prefix on the real servers, and as many controllers that keep it as a test likes; each may die."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest

from contract.data.items import Item, read_manifest
from contract.jobs.lifecycle import Backend
from contract.jobs.templates import Template
from contract.keys.jobs import JobKeys
from contract.keys.models import model_record
from contract.keys.shards import parse_shard
from contract.settings import Settings
from contract.watches.record import Overwrites, Start, Watch, Watches, source_of
from contract.watches.segments import read_segment, segment_numbers
from tests.parity import MODEL
from worker.control.watching.chain import Chain
from worker.control.watching.sweep import Outcome, Sweep


def template(source: str, shard_size: int = 64) -> Template:
    """What the jobs of a watch are made of."""
    return Template(
        spec={
            "kind": "classify",
            "model": "parity",
            "shard_size": shard_size,
            "source": {"kind": "watch", "uri": source, "label": source},
        }
    )


class Controller:
    """One controller's view of the watch, as it was at its start."""

    def __init__(self, backend: Backend, settings: Settings, watch: Watch, clock: Callable[[], float]) -> None:
        self.chain = Chain(backend, settings, watch)
        self.chain.load()
        self.sweep = Sweep(backend.store, watch, self.chain, full_seconds=settings.watch_sweep_seconds, clock=clock)

    def round(self, hints: Iterable[str] = ()) -> Outcome:
        return self.sweep.round(60.0, hints)


@dataclass
class Camera:
    """A watch of `cam/` in the own bucket, and a clock that a test moves."""

    backend: Backend
    settings: Settings
    watch: Watch
    now: float

    def put(self, *names: str, data: bytes = b"x") -> None:
        for name in names:
            self.backend.store.put(f"cam/{name}", data)

    def controller(self, **settings: object) -> Controller:
        return Controller(self.backend, self.settings.model_copy(update=settings), self.watch, lambda: self.now)

    def segments(self) -> list[str]:
        """The job of each segment."""
        store, root = self.backend.store, self.watch.root
        return [read_segment(store, root, number).job for number in segment_numbers(store, root)]

    def shards(self, job: str) -> list[list[Item]]:
        store = self.backend.store
        entries = [entry for entry in store.list(JobKeys(job).plan_prefix) if parse_shard(entry.key)]
        return [read_manifest(store.get(entry.key)) for entry in entries if entry.size]

    def planned(self) -> Counter[str]:
        """How often each object is planned, by its name and, if it is known, its version."""
        items = itertools.chain.from_iterable(shard for job in self.segments() if job for shard in self.shards(job))
        return Counter(item.key.removeprefix("cam/") + (f"#{item.etag}" if item.etag else "") for item in items)


@pytest.fixture
def make_camera(backend: Backend, settings: Settings) -> Callable[..., Camera]:
    """Add the watch; the arguments are fields of its record, and `shard_size`."""

    def make(
        *,
        shard_size: int = 64,
        overwrites: Overwrites = "ignore",
        start: Start = "beginning",
        every: float = 5.0,
        archive: str = "",
    ) -> Camera:
        store = backend.store
        store.put(model_record("parity", 1), MODEL.to_json())
        source = f"s3://{store.bucket}/cam/"
        watch = Watch(
            name="camera",
            source=source,
            every=every,
            start=start,
            overwrites=overwrites,
            created_at="2026-11-26T08:30:12.345Z",
            archive=archive,
            template=template(source_of(source, archive), shard_size),
        )
        Watches(store).add(watch)
        return Camera(backend, settings, watch, 1_795_000_000.0)

    return make


@pytest.fixture
def camera(make_camera: Callable[..., Camera]) -> Camera:
    return make_camera()
