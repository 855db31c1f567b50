"""The figures of a watch: how soon a row can be read, what a backfill costs, what watches cost while nothing comes.

Counts are asserted; times are printed, since they depend on the machine.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import median, quantiles

import pytest

from contract.backend.broker import make_app
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.backend.queues import Queues
from contract.jobs.commits import in_parallel
from contract.jobs.lifecycle import Backend
from contract.keys.jobs import JobKeys
from contract.keys.watches import watch_seen
from contract.settings import Settings
from contract.watches.hints import Hints
from contract.watches.record import Watch, Watches
from contract.watches.seen import SeenSet
from contract.watches.segments import Segment, decide_segment
from tests.drills.cheap import train_cheap
from tests.mill import Mill
from tests.waiting import wait_until
from worker.control.watching.keeper import Keeper
from worker.control.watching.sweep import Outcome, Sweep

Figures = Callable[..., None]
PER_SECOND = 50


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory, crops: Path) -> Iterator[Mill]:
    """One controller and one worker, with a model so cheap that the watch is what takes time."""
    with Mill(tmp_path_factory.mktemp("mill"), workers=1).running() as made:
        train_cheap(made, crops)
        yield made


@pytest.fixture
def camera(mill: Mill) -> ObjectStore:
    return mill.bucket("camera")


@pytest.fixture(scope="session")
def photo(crops: Path) -> bytes:
    return next(crops.glob("koala/*.png")).read_bytes()


def cpu_seconds(pid: int | None) -> float:
    """The CPU time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def resident_mb(pid: int | None) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 // 2**20


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("every", ["5s", "500ms"])
def test_from_put_to_readable_row(
    mill: Mill, camera: ObjectStore, photo: bytes, every: str, long: bool, figures: Figures
) -> None:
    # Given a camera that takes 50 photos a second, for 10 minutes or for 8 s
    number = PER_SECOND * (600 if long else 8)
    client, prefix, name = mill.client, f"rate-{every}/", f"rate-{every}"
    put: dict[str, float] = {}
    took: dict[str, float] = {}
    rows: Counter[str] = Counter()
    stop = threading.Event()
    client.add_watch(name, f"s3://camera/{prefix}", model="cheap", every=every)
    wait_until(lambda: client.watch(name).swept_at, 60, "the first sweep")

    def follow() -> None:
        for row in client.watched_rows(name, follow=True, stop=stop):
            took.setdefault(row["key"], time.monotonic() - put[row["key"]])
            rows[row["key"]] += 1

    follower = threading.Thread(target=follow)
    follower.start()
    began = time.monotonic()
    for n in range(number):
        time.sleep(max(0.0, began + n / PER_SECOND - time.monotonic()))
        key = f"{prefix}{n:08d}.png"
        put[key] = time.monotonic()
        camera.put(key, photo)
    rate = number / (time.monotonic() - began)
    try:
        wait_until(lambda: len(rows) >= number, 60, "the last row")
    finally:
        stop.set()
        follower.join()
    cuts = quantiles(took.values(), n=100)
    figures(images=number, put_per_second=f"{rate:.1f}", p50=f"{median(took.values()):.2f} s", p99=f"{cuts[98]:.2f} s")
    assert rows == dict.fromkeys(put, 1)
    client.remove_watch(name)


@pytest.mark.timeout(3600)
def test_a_backfill_takes_about_as_long_as_a_job(
    mill: Mill, camera: ObjectStore, photo: bytes, long: bool, figures: Figures
) -> None:
    number = 5000 if long else 1500
    client = mill.client
    for _ in in_parallel(lambda n: camera.put(f"fill/{n:06d}.png", photo), range(number), threads=8):
        pass

    def batch() -> float:
        began = time.monotonic()
        job = client.classify("s3://camera/fill/", model="cheap")
        assert mill.finished(job.id).done == number
        return time.monotonic() - began

    def watched(name: str) -> float:
        began = time.monotonic()
        client.add_watch(name, "s3://camera/fill/", model="cheap")

        job = Watches(client.backend.store).get(name).job(0)

        def done() -> int:
            found = client.backend.ledger.status(job)
            return found.done if found else 0

        wait_until(lambda: done() >= number, 120, "the backfill")
        seconds = time.monotonic() - began
        found = Counter(row["key"] for row in client.watched_rows(name))
        assert found == {f"fill/{n:06d}.png": 1 for n in range(number)}
        client.remove_watch(name)
        return seconds

    batch()  # warms up
    jobs, watches = [], []
    for n in range(3):
        jobs.append(batch())
        watches.append(watched(f"fill-{n}"))
    ratio = min(jobs) / min(watches)
    figures(images=number, job=f"{min(jobs):.1f} s", watch=f"{min(watches):.1f} s", ratio=f"{ratio:.2f}")


@pytest.mark.usefixtures("camera")
def test_an_idle_watch_costs_little(mill: Mill, long: bool, figures: Figures) -> None:
    # Given a controller, if it keeps no watch, then one, then fifty, all of empty prefixes,
    client, seconds = mill.client, 60 if long else 5
    pid = mill.supervisor.pid("controller")
    names = [f"idle-{n}" for n in range(50)]

    def cost() -> float:
        before, began = cpu_seconds(pid), time.monotonic()
        time.sleep(seconds)  # what is measured takes that long
        return (cpu_seconds(pid) - before) / (time.monotonic() - began)

    def swept() -> bool:
        return all(one.swept_at for one in client.watches())

    costs = {0: cost()}
    for number in (1, len(names)):
        for name in names[len(client.watches()) : number]:
            client.add_watch(name, f"s3://camera/nothing-comes-here/{name}/", model="cheap")
        wait_until(swept, 60, "the first sweeps")
        costs[number] = cost()
    slope = (costs[len(names)] - costs[0]) / len(names)
    figures(seconds=seconds, cores={number: f"{part:.2%}" for number, part in costs.items()}, each=f"{slope:.3%}")
    # I expect none of them to have planned anything.
    assert not any(one.planned for one in client.watches())
    for name in names:
        client.remove_watch(name)


def test_a_controller_that_starts_with_many_seen_keys(
    mill: Mill, camera: ObjectStore, photo: bytes, long: bool, figures: Figures
) -> None:
    # Given a watch that has seen 1,000,000 objects, or 100,000
    number = 1_000_000 if long else 100_000
    client = mill.client
    client.add_watch("much", "s3://camera/much/", model="cheap", every="500ms")
    watch = Watches(client.backend.store).get("much")
    wait_until(lambda: client.watch("much").swept_at, 60, "the first sweep")
    hashes = (hashlib.sha256(str(n).encode()).digest()[:16] for n in itertools.count())
    seen = SeenSet(client.backend.store, watch_seen(watch.root))
    seen.close_segment(0, list(itertools.islice(hashes, number)))
    decide_segment(client.backend.store, watch.root, Segment(number=0, job="", opened_at=watch.created_at, before=0))
    # Only a controller that starts afterwards knows of them.
    before = mill.supervisor.pid("controller")
    mill.kill("controller")
    camera.put("much/0.png", photo)
    wait_until(lambda: mill.supervisor.pid("controller") not in (None, before), 60, "the controller to start")
    began, pid = time.monotonic(), mill.supervisor.pid("controller")
    plan = JobKeys(watch.job(1)).plan_prefix
    wait_until(lambda: any(client.backend.store.list(plan)), 60, "the first shard")
    seconds, cpu = time.monotonic() - began, cpu_seconds(pid)

    memory = resident_mb(mill.supervisor.pid("controller"))
    used = int(client.backend.ledger.info()["used_memory"]) / 2**20
    figures(
        seen=number,
        start_to_first_shard=f"{seconds:.1f} s",
        cpu=f"{cpu:.1f} s",
        controller=f"{memory} MB",
        redis=f"{used:.1f} MB",
    )
    wait_until(lambda: len(list(client.watched_rows("much"))) == 1, 60, "the row")
    client.remove_watch("much")


def test_many_idle_watches_are_kept_in_time(
    settings: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, long: bool, figures: Figures
) -> None:
    # Given 200 watches of empty prefixes, every 5 s
    number, every, seconds = 200, 5.0, 60 if long else 16
    from tests.worker.control.watching.conftest import template

    for n in range(number):
        made = Watch(
            name=f"w{n:03d}",
            source=f"s3://{store.bucket}/in-{n:03d}/",
            every=every,
            created_at="2026-11-26T08:30:12.345Z",
            template=template(f"s3://{store.bucket}/in-{n:03d}/"),
        )
        Watches(store).add(made)
    rounds: dict[str, list[float]] = defaultdict(list)
    once = Sweep.round

    def noted(self: Sweep, *args: object, **more: object) -> Outcome:
        rounds[self._watch.name].append(time.monotonic())
        return once(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Sweep, "round", noted)
    with closing(make_app(settings)) as app, closing(Ledger(settings)) as ledger:
        keeper = Keeper(Backend(store, ledger, Queues(app)), settings, Hints(ledger))
        before = time.process_time()
        keeper.begin("drill")
        wait_until(lambda: len(rounds) == number, 60, "a first round of each")
        began, cpu = time.monotonic(), time.process_time()
        time.sleep(seconds)  # what is measured takes that long
        spent = (time.process_time() - cpu) / (time.monotonic() - began)
        started = cpu - before
        keeper.close()
    gaps = [b - a for times in rounds.values() for a, b in itertools.pairwise(times)]
    figures(
        watches=number,
        longest_gap=f"{max(gaps):.2f} s",
        median_gap=f"{median(gaps):.2f} s",
        cpu=f"{spent:.1%} of a core",
        start=f"{started:.1f} s of CPU",
    )
    assert len(rounds) == number and all(len(times) > 1 for times in rounds.values())
