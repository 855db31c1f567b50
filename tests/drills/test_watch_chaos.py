"""A watch to which everything happens that may: in the end each version of an object that must have a row has one.

What must have one: every object as it stands in the end, and every version that was labelled before it was
overwritten. A version that was overwritten before anybody looked may have a row, and never two.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

import pyarrow.parquet as pq
import pytest

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.jobs.commits import in_parallel
from contract.jobs.templates import output
from contract.keys.jobs import JobKeys
from contract.watches.record import Watch, Watches
from contract.watches.segments import segment_numbers
from contract.watches.state import read_states
from contract.watches.tables import table_of
from deploy.local.ports import LOOPBACK, choose
from deploy.local.supervisor import Service
from tests import proxy
from tests.drills.cheap import MODEL, image, train_cheap
from tests.mill import Mill
from tests.waiting import wait_until
from worker.control.watching.table import read_manifest
from worker.control.watching.tables import Tables

Version = tuple[str, str]
"""Key and ETag of an object."""
NAME, BUCKET, PREFIX = "chaos", "camera", "in/"
TOKEN = "a-token-of-a-drill"
BEFORE = 1100
"""Objects that are there before: more than a page, so that not every sweep lists all of them."""
PER_SECOND = 40


class ChaosMill(Mill):
    """Two controllers that take events at `ports`, a clock and a worker; segments are short, full listings frequent."""

    def __init__(self, data: Path, s3_through: str, segment_images: int) -> None:
        first, second = choose([None, None])
        self.ports = {"controller": first, "controller-1": second}
        super().__init__(
            data,
            workers=1,
            controllers=2,
            s3_through=s3_through,
            events_token=TOKEN,
            watch_segment_images=segment_images,
            watch_segment_seconds=15.0,
            watch_sweep_seconds=5.0,
        )

    def _service(self, name: str, command: list[str], told: Mapping[str, str] = MappingProxyType({})) -> Service:
        own = {"IMAGEMILL_METRICS_PORT": str(self.ports[name])} if name in self.ports else {}
        return super()._service(name, command, {**told, **own})


class Events:
    """What a store announces, as badly as can be: a third is lost, the rest comes three times and in any order."""

    def __init__(self, ports: list[int]) -> None:
        self._ports, self._random = ports, random.Random(1)
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run)
        self.answers: Counter[int] = Counter()
        """How often each status was answered; 0 where nobody listened."""
        self.lost = 0

    def announce(self, key: str) -> None:
        if self._random.random() < 1 / 3:
            self.lost += 1
        else:
            self._queue.put(key)

    @contextmanager
    def posted(self) -> Iterator[None]:
        """Post what is announced in the body."""
        self._thread.start()
        try:
            yield
        finally:
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        waiting: list[str] = []
        while (key := self._queue.get()) is not None:
            waiting += [key] * 3
            self._random.shuffle(waiting)
            if len(waiting) >= 60:
                self._post([waiting.pop() for _ in range(20)])
        self._post(waiting)

    def _post(self, keys: list[str]) -> None:
        records = [{"s3": {"bucket": {"name": BUCKET}, "object": {"key": key}}} for key in keys]
        with closing(http.client.HTTPConnection(LOOPBACK, self._random.choice(self._ports), timeout=30)) as connection:
            try:
                body = json.dumps({"Records": records})
                connection.request("POST", "/v1/events", body, {"Authorization": f"Bearer {TOKEN}"})
                self.answers[connection.getresponse().status] += 1
            except (OSError, http.client.HTTPException):
                self.answers[0] += 1


class Camera:
    """Puts images in an order that is not that of their names, and overwrites some of them."""

    def __init__(self, store: ObjectStore, events: Events, number: int) -> None:
        self._store, self._events, self._random = store, events, random.Random(2)
        self._number = number
        self._thread = threading.Thread(target=self._run)
        self.put: dict[str, list[str]] = {}
        """The ETags that each object had, in their order."""
        self.puts = 0

    def before(self) -> None:
        """Put the objects that are there before the watch."""
        for key, etag in in_parallel(lambda n: self._write(n, 0), range(BEFORE), threads=8):
            self.put[key] = [etag]

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Put during the body, and end with all of them put."""
        self._thread.start()
        try:
            yield
        finally:
            self._thread.join()

    def reached(self, puts: int) -> None:
        """Wait until so many were put."""
        wait_until(lambda: self.puts >= puts or not self._thread.is_alive(), 60 + puts / PER_SECOND, f"{puts} PUTs")

    def _run(self) -> None:
        began, numbers = time.monotonic(), iter(range(BEFORE, BEFORE + self._number))
        taken: list[int] = []
        while self.puts < self._number:
            time.sleep(max(0.0, began + self.puts / PER_SECOND - time.monotonic()))
            kind = self._random.random()
            if kind < 0.1:
                # One that was labelled before,
                self._put(self._random.randrange(BEFORE), 1)
            elif kind < 0.3 and taken:
                # or one of the last few, with new content, the same as it has, or the first again.
                self._put(self._random.choice(taken[-50:]), self._random.randrange(3))
            else:
                taken.append(next(numbers))
                self._put(taken[-1], 0)

    def _put(self, number: int, version: int) -> None:
        key, etag = self._write(number, version)
        self.put.setdefault(key, []).append(etag)
        self.puts += 1
        self._events.announce(key)

    def _write(self, number: int, version: int) -> Version:
        key, data = f"{PREFIX}{number * 7919 % 65_521:05d}.png", image(number, version)
        self._store.put(key, data)
        return key, hashlib.md5(data).hexdigest()


class Breaker:
    """Breaks one thing after the other while images come."""

    def __init__(self, mill: Mill, between: proxy.Proxy, camera: Camera, events: Events) -> None:
        self._mill, self._between, self._camera, self._events = mill, between, camera, events
        self.steps: list[Callable[[], None]] = [
            self._kill_the_consumer,
            self._kill_the_worker,
            self._wipe_redis,
            self._refuse_requests,
            self._stop_redis,
            self._kill_the_other_controller,
        ]

    def _keeper(self) -> str:
        ledger = self._mill.client.backend.ledger
        wait_until(lambda: NAME in read_states(ledger), 60, "a consumer")
        return read_states(ledger)[NAME].controller.partition("@")[0]

    def _kill_the_consumer(self) -> None:
        self._mill.kill(self._keeper())

    def _kill_the_other_controller(self) -> None:
        keeper = self._keeper()
        self._mill.kill(next(name for name in self._mill.controllers if name != keeper))

    def _kill_the_worker(self) -> None:
        self._mill.kill("worker-0")

    def _wipe_redis(self) -> None:
        self._mill.client.backend.ledger.redis.flushall()

    def _refuse_requests(self) -> None:
        """Have the store refuse workers and controllers for two seconds of photos."""
        self._between.refuses = lambda method, path: (503, "SlowDown")
        self._camera.reached(self._camera.puts + 2 * PER_SECOND)
        self._between.refuses = lambda method, path: None

    def _stop_redis(self) -> None:
        """Have Redis away until events are answered with 503."""
        refused = self._events.answers[503]
        self._mill.supervisor.stop_service("redis")
        try:
            wait_until(lambda: self._events.answers[503] > refused, 30, "an event to be refused")
        finally:
            self._mill.supervisor.start("redis")


def in_tables(mill: Mill, watch: Watch) -> Counter[Version]:
    """How often each version is in the table of the watch, as its manifests say."""
    store, first = mill.client.backend.store, watch.job(0)
    found = table_of(store, first, output(JobKeys(first), store.bucket, watch.template.to))
    assert found is not None
    bucket, prefix = parse_s3(found[0])
    versions: Counter[Version] = Counter()
    for number in segment_numbers(store, watch.root):
        manifest = read_manifest(store, found[0], number)
        assert manifest is not None, f"segment {number} is not in the table"
        for file in manifest.files:
            rows = pq.read_table(BytesIO(store.get(prefix + file.key, bucket=bucket)), columns=["key", "etag"])
            versions.update((row["key"], row["etag"]) for row in rows.to_pylist())
    return versions


def lasting(etags: list[str]) -> bool:
    """Whether the last version stands since it first came. One that was overwritten and put back may have been read
    in between; its row says `not_found`, and a retry mends it."""
    return set(etags[etags.index(etags[-1]) :]) == {etags[-1]}


@pytest.mark.timeout(3600)
def test_everything_happens_to_a_watch(tmp_path: Path, crops: Path, long: bool, figures: Callable[..., None]) -> None:
    number, rounds = (10_000, 5) if long else (600, 1)
    with proxy.before("") as between:
        mill = ChaosMill(tmp_path, between.address, 2000 if long else 400)
        between.upstream = mill.settings.s3_endpoint
        with mill.running():
            train_cheap(mill, crops)
            client = mill.client
            store = mill.bucket(BUCKET)
            events = Events(list(mill.ports.values()))
            camera = Camera(store, events, number)
            breaker = Breaker(mill, between, camera, events)
            # Given a watch that has labelled what was there,
            camera.before()
            client.add_watch(NAME, f"s3://{BUCKET}/{PREFIX}", model=MODEL, every="500ms", overwrites="again")
            watch = Watches(client.backend.store).get(NAME)
            followed: Counter[Version] = Counter()
            stop = threading.Event()

            def follow() -> None:
                for row in client.watched_rows(NAME, follow=True, stop=stop):
                    followed[row["key"], row["etag"]] += 1

            def ended() -> bool:
                now = client.watch(NAME)
                return now.planned == len(followed) and not now.jobs

            follower = threading.Thread(target=follow)
            follower.start()
            try:
                wait_until(lambda: len(followed) == BEFORE, 60, "the backfill")
                must = set(followed)
                # if images come and are overwritten, and one thing after the other breaks meanwhile,
                with events.posted(), camera.under_way():
                    steps = breaker.steps * rounds
                    for place, step in enumerate(steps):
                        camera.reached((place + 1) * number // (len(steps) + 1))
                        step()
                last_put = time.monotonic()
                must |= {(key, etags[-1]) for key, etags in camera.put.items()}
                may = {(key, etag) for key, etags in camera.put.items() for etag in etags}
                wait_until(lambda: must <= set(followed), 300, "a row for each object")
                settled = time.monotonic() - last_put
                wait_until(ended, 60, "the last segment to end")
            finally:
                stop.set()
                follower.join()
            rows = list(client.watched_rows(NAME))
            Tables(client.backend.store, mill.settings).look(watch)
            tables = in_tables(mill, watch)
            jobs = [mill.finished(watch.job(n)) for n in segment_numbers(client.backend.store, watch.root)]
    counted = Counter((row["key"], row["etag"]) for row in rows)
    figures(
        puts=camera.puts,
        versions=len(may),
        required=len(must),
        rows=len(rows),
        overwritten_first=sum(row["error_code"] == "not_found" for row in rows),
        segments=len(jobs),
        events_lost=events.lost,
        answers=dict(events.answers),
        refused_requests=len(between.refused),
        settled_seconds=f"{settled:.1f}",
    )
    # I expect one row for each version that must have one, none for what never was, and none twice,
    assert not (doubled := {version: n for version, n in counted.items() if n > 1}), f"doubled: {doubled}"
    assert not (lost := must - set(counted)), f"lost: {sorted(lost)[:5]}"
    assert set(counted) <= may
    # no row in error but what was overwritten before it was read,
    wrong = {(row["key"], row["etag"]): row["error_code"] for row in rows if row["status"] != "ok"}
    assert not set(wrong) & {(key, etags[-1]) for key, etags in camera.put.items() if lasting(etags)}
    assert set(wrong.values()) <= {"not_found"}
    # and the same from who followed them, in the table, and in the counters of the segments.
    assert followed == tables == counted
    assert all(job.state == "succeeded" for job in jobs)
    assert sum(job.done or 0 for job in jobs) == len(rows)
