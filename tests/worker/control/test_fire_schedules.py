"""Every tick of a schedule is one job, whoever looks, however often, whatever was lost. The test is the clock."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from contract.backend.broker import make_app
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.backend.queues import Queues
from contract.datasets import extending
from contract.datasets.records import Extend
from contract.errors import InvalidInput, JobConflict, StoreUnavailable, UnknownModel
from contract.jobs.lifecycle import Backend, active_jobs, close, read_spec, submit
from contract.jobs.options import GenerateOptions, SynthesizeOptions, TrainOptions, parse_options
from contract.jobs.retention import check_removable
from contract.jobs.schedules import KEPT, Schedule, Schedules, Tick, stamp, to_iso
from contract.jobs.specs import Classify, Generate, Synthesize, Train
from contract.jobs.templates import Template
from contract.keys.bucket import JOBS
from contract.keys.jobs import JobKeys
from contract.models.registry import Model, Preprocess, Registry, make_file
from contract.settings import Settings
from contract.web.addresses import AddressPolicy
from contract.web.webhooks.endpoints import Endpoints
from contract.web.webhooks.outbox import Outbox
from producer.datasets import needed_by
from producer.jobs.requests import make_request, make_template
from producer.jobs.submission import make_spec
from tests.contract.datasets.test_balance import segment
from tests.contract.datasets.test_datasets import version_of
from tests.halves import half_written
from worker.control.fire_schedules import Due, due, fire, outage_seconds
from worker.control.reconcile import tick
from worker.control.webhooks.announce import Announcer

NIGHT = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
"""02:00 in Paris."""
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
OUTAGE = 120.0


@pytest.fixture
def registry(backend: Backend) -> Registry:
    """A registry with `flowers@1`."""
    made = Registry(backend.store)
    publish(made)
    return made


def publish(
    registry: Registry, name: str = "flowers", labels: tuple[str, ...] = ("rose", "tulip"), **fields: Any
) -> Model:
    """The next version of a model."""
    weights = b"weights"
    model = Model(
        name=name,
        version=registry.claim(name, f"{name}{labels}{fields}"),
        family=fields.pop("family", "cnn"),
        labels=labels,
        preprocess=Preprocess(size=8, mean=0.0, std=1.0),
        weights=make_file("weights.safetensors", weights),
        **fields,
    )
    registry.publish(model, {"weights.safetensors": weights})
    return model


def add(backend: Backend, name: str = "nightly", cron: str = "0 2 * * *", **fields: Any) -> Schedule:
    """A schedule that labels a prefix, made an hour before the night's tick."""
    source = {"kind": "prefix", "uri": f"s3://{backend.store.bucket}/camera/", "label": "s3://camera/"}
    spec = fields.pop("spec", {})
    if "kind" not in spec:
        spec = {"kind": "classify", "model": "flowers", **spec}
    if spec["kind"] not in ("generate", "synthesize"):
        spec = {"source": source, **spec}
    since = to_iso(fields.pop("since", NIGHT - HOUR))
    schedule = Schedule(
        name=name,
        cron=cron,
        timezone="Europe/Paris",
        created_at=since,
        since=since,
        template=Template(spec=spec, to=fields.pop("to", None)),
        **fields,
    )
    Schedules(backend.store).add(schedule)
    return schedule


def jobs(store: ObjectStore) -> list[str]:
    """The ids of the jobs in the bucket, in the order of their ticks."""
    return sorted(e.key.removeprefix(JOBS).rstrip("/") for e in store.list(JOBS, folders=True))


def states(backend: Backend, name: str = "nightly") -> list[tuple[str, str]]:
    """What became of each tick, oldest first."""
    return [(found.at[:16], found.state) for found in reversed(Schedules(backend.store).history(name, KEPT))]


def minutes(count: int, first: datetime = NIGHT) -> list[str]:
    """The ids of the jobs of a line of every minute."""
    return [f"nightly-{stamp(first + n * MINUTE)}" for n in range(count)]


@pytest.fixture
def another(settings: Settings) -> Iterator[Callable[[], Backend]]:
    """Makes the backend of another controller: the same servers over connections of its own."""
    with ExitStack() as opened:

        def make() -> Backend:
            store, ledger = opened.enter_context(closing(ObjectStore(settings))), closing(Ledger(settings))
            app = opened.enter_context(closing(make_app(settings)))
            return Backend(store, opened.enter_context(ledger), Queues(app))

        yield make


# A tick


def test_a_tick_is_a_job_when_it_is_due_and_not_before(
    backend: Backend, settings: Settings, registry: Registry
) -> None:
    add(backend, spec={"top_k": 5}, to="s3://labels/nightly")

    fire(backend, settings, NIGHT - timedelta(seconds=1))
    assert jobs(backend.store) == []

    # If the clock comes to 02:00 in Paris, and a little further,
    fire(backend, settings, NIGHT)
    fire(backend, settings, NIGHT + timedelta(seconds=10))

    # I expect one job, named by the tick, with what follows from its id and from the model of now.
    assert jobs(backend.store) == ["nightly-20261124t0100"]
    spec = read_spec(backend.store, "nightly-20261124t0100")
    assert isinstance(spec, Classify)
    assert (spec.model, spec.weights_sha256) == ("flowers@1", registry.get("flowers").weights.sha256)
    assert (spec.top_k, spec.output) == (2, "s3://labels/nightly/nightly-20261124t0100/")
    assert active_jobs(backend.store) == [spec.id]
    status = backend.ledger.status(spec.id)
    assert status is not None and status.state == "queued"
    assert states(backend) == [("2026-11-24T01:00", "submitted")]

    fire(backend, settings, NIGHT + DAY)
    assert jobs(backend.store) == ["nightly-20261124t0100", "nightly-20261125t0100"]


def test_a_model_is_the_version_of_the_tick_unless_it_is_pinned(
    backend: Backend, settings: Settings, registry: Registry
) -> None:
    registry.set_alias("flowers", "stable", 1)
    for name, model in (("newest", "flowers"), ("alias", "flowers@stable"), ("pinned", "flowers@1")):
        add(backend, name, spec={"model": model})
    add(backend, "training", spec={"kind": "train", "name": "roses", "recipe": {"family": "cnn"}, "start": "flowers"})
    fire(backend, settings, NIGHT)

    publish(registry, labels=("rose", "tulip", "lily"))
    fire(backend, settings, NIGHT + DAY)
    registry.set_alias("flowers", "stable", 2)
    fire(backend, settings, NIGHT + 2 * DAY)

    def used(name: str) -> list[str | None]:
        specs = [read_spec(backend.store, f"{name}-2026112{night}t0100") for night in (4, 5, 6)]
        return [spec.start if isinstance(spec, Train) else spec.model for spec in specs]

    assert used("newest") == ["flowers@1", "flowers@2", "flowers@2"]
    assert used("alias") == ["flowers@1", "flowers@1", "flowers@2"]
    assert used("pinned") == ["flowers@1"] * 3
    assert used("training") == ["flowers@1", "flowers@2", "flowers@2"]


# Whoever looks, however often


def let_another_tick_in(backend: Backend) -> None:
    """As if half of the interval between two ticks had passed."""
    backend.ledger.redis.delete(backend.ledger.keys.lock("tick"))


def test_a_tick_that_is_delivered_again(backend: Backend, settings: Settings, registry: Registry) -> None:
    add(backend, "nightly", "* * * * *")

    def clock() -> datetime:
        return NIGHT

    tick(backend, settings, clock)

    # If the message comes again at once, and again when the lock of the first round is gone, late,
    tick(backend, settings, clock)
    let_another_tick_in(backend)
    tick(backend, settings, clock)
    let_another_tick_in(backend)
    tick(backend, settings, lambda: NIGHT - MINUTE)

    # I expect one job.
    assert jobs(backend.store) == minutes(1)


class Killed(BaseException):
    """Ends whoever raises it at once, as SIGKILL does: nobody catches it."""


def killed_at(backend: Backend, step: int) -> Backend:
    """The backend of a controller that dies before its n-th change of the bucket, of Redis or of the queue."""
    left = [step]

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return call(*args, **kwargs)

        return change

    for part, names in (
        (backend.store, ("put", "put_if_absent", "delete")),
        (backend.ledger, ("create", "set_last_tick")),
        (backend.queues, ("plan",)),
    ):
        for name in names:
            setattr(part, name, deadly(getattr(part, name)))
    return backend


@pytest.mark.parametrize("wiped", [False, True], ids=["restarted", "redis wiped"])
def test_a_controller_that_is_killed_anywhere_loses_no_tick_and_doubles_none(
    backend: Backend, settings: Settings, registry: Registry, another: Callable[[], Backend], wiped: bool
) -> None:
    # Given a controller that dies, at each tick a step later than at the tick before,
    add(backend, "nightly", "* * * * *")
    died = 0
    for step in range(12):
        now = NIGHT + step * MINUTE
        try:
            fire(killed_at(another(), step), settings, now)
        except Killed:
            died += 1
        if wiped:
            backend.ledger.redis.flushdb()

        # if another one looks after it, and once more,
        fire(backend, settings, now + timedelta(seconds=10))
        fire(backend, settings, now + timedelta(seconds=20))

        # I expect one job a tick, which is begun: the bucket and the ledger have it, and somebody is to plan it.
        expected = minutes(step + 1)
        assert jobs(backend.store) == expected
        assert active_jobs(backend.store) == expected
        assert backend.ledger.state(expected[-1]) == "queued"
        assert (expected[-1],) in backend.ledger.messages(["control"], 0)
    assert 5 <= died < 12, "it was killed at every step, and at last it lived"
    assert [state for _, state in states(backend)] == ["submitted"] * 12


@pytest.mark.parametrize("wiped", [False, True], ids=["restarted", "redis wiped"])
@pytest.mark.parametrize("key", ["schedules/nightly/ticks/20261124t0101.json", "jobs/nightly-20261124t0101/spec.json"])
def test_a_controller_that_is_killed_in_the_middle_of_a_request(
    backend: Backend, settings: Settings, registry: Registry, key: str, wiped: bool
) -> None:
    # Given a tick that ran, and a controller that dies between the head and the body of what it writes of the next,
    add(backend, "nightly", "* * * * *", since=NIGHT - MINUTE)
    fire(backend, settings, NIGHT)
    with half_written(key) as halves:
        fire(backend, settings, NIGHT + MINUTE)
    assert halves
    if wiped:
        backend.ledger.redis.flushdb()

    # if another looks after it, I expect the tick to run.
    fire(backend, settings, NIGHT + MINUTE)
    assert active_jobs(backend.store) == minutes(2)
    assert [state for _, state in states(backend)] == ["submitted"] * 2


def test_two_controllers_at_the_same_instant(
    backend: Backend, settings: Settings, registry: Registry, another: Callable[[], Backend]
) -> None:
    add(backend, "nightly", "* * * * *")
    backends = [another(), another()]
    together = threading.Barrier(2)

    def run(own: Backend, n: int) -> None:
        together.wait()
        # Their clocks differ by some seconds.
        fire(own, settings, NIGHT + n * MINUTE + timedelta(seconds=5 * backends.index(own)))

    with ThreadPoolExecutor(2) as pool:
        for n in range(10):
            # A new version comes between their looks: they would not make the same spec.
            publish(registry, labels=("rose", f"tulip {n}"))
            for done in [pool.submit(run, own, n) for own in backends]:
                done.result()

    assert jobs(backend.store) == minutes(10)
    assert states(backend) == [(to_iso(NIGHT + n * MINUTE)[:16], "submitted") for n in range(10)]


def test_redis_is_flushed_between_ticks(backend: Backend, settings: Settings, registry: Registry) -> None:
    add(backend, "nightly", "* * * * *")
    for n in range(4):
        backend.ledger.redis.flushdb()
        fire(backend, settings, NIGHT + n * MINUTE)
        backend.ledger.redis.flushdb()
        fire(backend, settings, NIGHT + n * MINUTE + timedelta(seconds=30))

    assert jobs(backend.store) == minutes(4)
    assert backend.ledger.last_tick("nightly") == (NIGHT + 3 * MINUTE).timestamp()


@pytest.mark.parametrize("model", ["flowers", "gone"])
def test_a_webhook_is_told_of_each_tick_once_whatever_is_wiped(
    backend: Backend, settings: Settings, registry: Registry, model: str
) -> None:
    # Given a schedule with a webhook, whose model is there or gone, and a Redis that forgets,
    policy = AddressPolicy("127.0.0.1", "1-65535")
    hook = Endpoints(backend.store).register("http://127.0.0.1:9/", "ann", policy)
    add(backend, "nightly", "* * * * *", spec={"model": model, "webhook": hook.id})
    for n in range(3):
        at = NIGHT + n * MINUTE
        for _ in range(2):
            backend.ledger.redis.flushdb()
            fire(backend, settings, at)
            Announcer(backend.store, at.timestamp).round()

    # I expect one message a tick, as the jobs hold the webhook's id and no URL.
    told = [json.loads(one.body) for one in Outbox(backend.store).messages(hook.id, limit=99)]
    ids = [f"nightly-{stamp(NIGHT + n * MINUTE)}" for n in (2, 1, 0)]
    if model == "flowers":
        assert [(one["type"], one["data"]["job"]) for one in told] == [("schedule.started", id) for id in ids]
        assert {read_spec(backend.store, id).webhook for id in ids} == {hook.id}
    else:
        assert [one["type"] for one in told] == ["schedule.failed"] * 3
        assert "gone" in told[0]["data"]["reason"]


def test_who_comes_late_does_not_turn_the_clock_back(backend: Backend, settings: Settings, registry: Registry) -> None:
    backend.ledger.set_last_tick("nightly", NIGHT.timestamp())
    backend.ledger.set_last_tick("nightly", (NIGHT - HOUR).timestamp())

    assert backend.ledger.last_tick("nightly") == NIGHT.timestamp()


# Missed ticks


@pytest.mark.parametrize("wiped", [False, True], ids=["redis kept", "redis wiped"])
@pytest.mark.parametrize(("missed", "ran"), [("run", True), ("skip", False)])
def test_what_was_missed_in_hours_runs_once_or_not_at_all(
    backend: Backend, settings: Settings, registry: Registry, missed: str, ran: bool, wiped: bool
) -> None:
    # Given a schedule of every hour that ran once, and nobody there for three hours and a half,
    add(backend, "nightly", "0 * * * *", missed=missed)
    fire(backend, settings, NIGHT)
    if wiped:
        backend.ledger.redis.flushdb()

    back = NIGHT + 3.5 * HOUR
    for n in range(3):
        fire(backend, settings, back + n * timedelta(seconds=10))

    # I expect the newest of the three to stand for all, the history to say so, and the next tick to be as ever.
    caught_up = ["nightly-20261124t0400"] if ran else []
    assert jobs(backend.store) == ["nightly-20261124t0100", *caught_up]
    newest = Schedules(backend.store).history("nightly", 1)[0]
    assert (newest.at[:16], newest.state, newest.missed) == ("2026-11-24T04:00", "submitted" if ran else "skipped", 2)
    if not ran:
        assert (
            newest.reason
            == "It came due during an outage and was noticed 30 min late; the schedule skips missed ticks."
        )
    fire(backend, settings, NIGHT + 4 * HOUR)
    assert jobs(backend.store) == ["nightly-20261124t0100", *caught_up, "nightly-20261124t0500"]


def test_a_single_tick_that_was_missed(backend: Backend, settings: Settings, registry: Registry) -> None:
    add(backend, "one", missed="run")
    add(backend, "two", missed="skip")

    fire(backend, settings, NIGHT + 5 * HOUR)

    assert jobs(backend.store) == ["one-20261124t0100"]
    assert states(backend, "two") == [("2026-11-24T01:00", "skipped")]


def test_an_outage_is_longer_than_a_restart() -> None:
    schedule = add_nowhere("* * * * *")
    at = [NIGHT + n * MINUTE for n in range(10)]

    # A round that comes late by less than that has each tick by itself.
    assert due(schedule, NIGHT - MINUTE, at[1] + MINUTE, OUTAGE) == [Due(at[0]), Due(at[1]), Due(at[2])]
    # After an outage one stands for all; it is skipped only if it is late itself.
    now = at[9] + timedelta(seconds=5)
    assert due(schedule, NIGHT - MINUTE, now, OUTAGE) == [Due(at[9], missed=9)]
    skipping = schedule.model_copy(update={"missed": "skip"})
    assert due(skipping, NIGHT - MINUTE, now, OUTAGE) == [Due(at[9], missed=9)]
    hourly = skipping.model_copy(update={"cron": "0 * * * *"})
    assert due(hourly, NIGHT - MINUTE, NIGHT + 1.5 * HOUR, OUTAGE) == [Due(NIGHT + HOUR, missed=1, run=False)]
    assert due(schedule, at[9], now, OUTAGE) == []


def test_rounds_that_are_rare_are_no_outage(settings: Settings) -> None:
    assert outage_seconds(settings) == 120
    assert outage_seconds(settings.model_copy(update={"reconcile_seconds": 300.0})) == 900


def add_nowhere(cron: str) -> Schedule:
    since = to_iso(NIGHT - HOUR)
    template = Template(spec={"kind": "classify"})
    return Schedule(name="nightly", cron=cron, timezone="UTC", created_at=since, since=since, template=template)


@pytest.mark.parametrize(
    ("evening", "hours", "expected"),
    [
        (datetime(2026, 3, 28, 20, tzinfo=UTC), 12, ["20260329t0100"]),
        (datetime(2026, 10, 24, 20, tzinfo=UTC), 12, ["20261025t0030"]),
    ],
    ids=["spring", "autumn"],
)
def test_nights_on_which_clocks_are_changed(
    backend: Backend, settings: Settings, registry: Registry, evening: datetime, hours: int, expected: list[str]
) -> None:
    """02:30 in Paris is left out on one of them and comes twice on the other: either is one job."""
    add(backend, "nightly", "30 2 * * *", since=evening)
    for n in range(hours * 60):
        if n % 5 == 0:
            fire(backend, settings, evening + n * MINUTE)

    assert jobs(backend.store) == [f"nightly-{found}" for found in expected]


# Paused, removed, broken


def test_ticks_pass_while_it_is_paused_and_are_not_caught_up(
    backend: Backend, settings: Settings, registry: Registry
) -> None:
    schedule = add(backend, "nightly", "0 * * * *")
    schedules = Schedules(backend.store)
    fire(backend, settings, NIGHT)
    schedules.put(schedule.model_copy(update={"paused": True}))
    fire(backend, settings, NIGHT + HOUR)
    fire(backend, settings, NIGHT + 2 * HOUR)

    # If it is unpaused at half past, and Redis forgets besides,
    schedules.put(schedule.model_copy(update={"since": to_iso(NIGHT + 2.5 * HOUR)}))
    backend.ledger.redis.flushdb()
    fire(backend, settings, NIGHT + 2.6 * HOUR)
    assert jobs(backend.store) == ["nightly-20261124t0100"]

    # I expect it to go on with the next tick.
    fire(backend, settings, NIGHT + 3 * HOUR)
    assert jobs(backend.store) == ["nightly-20261124t0100", "nightly-20261124t0400"]


def test_a_schedule_that_is_removed_leaves_its_jobs(backend: Backend, settings: Settings, registry: Registry) -> None:
    add(backend, "nightly", "0 * * * *")
    fire(backend, settings, NIGHT)

    Schedules(backend.store).remove("nightly", "")
    fire(backend, settings, NIGHT + HOUR)

    assert jobs(backend.store) == ["nightly-20261124t0100"]
    assert list(backend.store.list("schedules/")) == []

    # One that is made anew under its name has ticks of its own only.
    add(backend, "nightly", "0 * * * *", since=NIGHT + 2.5 * HOUR)
    fire(backend, settings, NIGHT + 3 * HOUR)
    assert jobs(backend.store) == ["nightly-20261124t0100", "nightly-20261124t0400"]


def test_it_is_removed_while_a_round_goes_on(
    backend: Backend, settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(backend)
    monkeypatch.setattr(Schedules, "names", lambda _: ["gone", "nightly"])

    fire(backend, settings, NIGHT)

    assert jobs(backend.store) == ["nightly-20261124t0100"]


def test_a_model_that_is_gone_is_told_in_the_history_and_stops_nobody(
    backend: Backend, settings: Settings, registry: Registry
) -> None:
    # Given three schedules, one whose model is gone, one whose model does something else by now, and one that is well,
    publish(registry, "painter", task="generate")
    add(backend, "a-gone", spec={"model": "roses@7"})
    add(backend, "b-other", spec={"model": "painter"})
    add(backend, "c-well")
    fire(backend, settings, NIGHT)

    # I expect a reason in the history of each that is not,
    history = Schedules(backend.store).history
    gone, other = history("a-gone", 1)[0], history("b-other", 1)[0]
    with pytest.raises(UnknownModel) as unknown:
        registry.get("roses@7")
    assert (gone.state, gone.job, gone.reason) == ("failed", None, str(unknown.value))
    assert other.state == "failed" and other.reason is not None
    assert "painter@1 does generate, and this takes a model that does classify" in other.reason

    # and the next tick to run when there is a model again.
    assert jobs(backend.store) == ["c-well-20261124t0100"]
    for n in range(7):
        publish(registry, "roses", labels=("rose", f"tulip {n}"))
    fire(backend, settings, NIGHT + DAY)
    assert "a-gone-20261125t0100" in jobs(backend.store)


def test_an_id_that_is_somebody_elses(backend: Backend, settings: Settings, registry: Registry) -> None:
    add(backend)
    other = Classify(
        id="nightly-20261124t0100",
        source={"kind": "prefix", "uri": "s3://other/", "label": "other"},
        model="flowers@1",
        weights_sha256="0" * 64,
        output="s3://other/out/",
    )
    submit(backend, other)

    fire(backend, settings, NIGHT)
    fire(backend, settings, NIGHT + MINUTE)

    assert read_spec(backend.store, other.id) == other
    found = Schedules(backend.store).history("nightly", 2)
    assert [tick.state for tick in found] == ["failed"]
    assert found[0].reason == (
        "The id nightly-20261124t0100 belongs to another job; `imagemill show nightly-20261124t0100` shows it."
    )


def test_a_record_that_cannot_be_read_stops_nobody(
    backend: Backend, settings: Settings, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    add(backend)
    backend.store.put("schedules/broken.json", b'{"name": "broken", "colour": "red"}')
    backend.store.put("schedules/notes.txt", b"none")

    tick(backend, settings, lambda: NIGHT)

    assert jobs(backend.store) == ["nightly-20261124t0100"]
    assert "The schedule broken cannot be read by this version of Imagemill" in caplog.text
    assert backend.ledger.ticking()


def test_a_store_that_is_away_for_a_moment_loses_no_tick(
    backend: Backend, settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(backend)
    get = backend.store.get

    def away(key: str, **options: Any) -> bytes:
        if key == JobKeys("nightly-20261124t0100").end:
            raise StoreUnavailable("away")
        return get(key, **options)

    monkeypatch.setattr(backend.store, "get", away)
    fire(backend, settings, NIGHT)
    assert active_jobs(backend.store) == []
    monkeypatch.undo()

    # The model moves on meanwhile; the decision does not.
    publish(registry, labels=("rose", "lily"))
    fire(backend, settings, NIGHT + MINUTE)

    assert active_jobs(backend.store) == ["nightly-20261124t0100"]
    assert read_spec(backend.store, "nightly-20261124t0100").model == "flowers@1"
    assert states(backend) == [("2026-11-24T01:00", "submitted")]


def test_a_reconciler_that_fails_keeps_no_schedule_from_its_tick(
    backend: Backend, settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(backend)
    monkeypatch.setattr("worker.control.reconcile.active_jobs", lambda _: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        tick(backend, settings, lambda: NIGHT)

    assert jobs(backend.store) == ["nightly-20261124t0100"]


# History


def test_old_records_go_and_the_last_is_found_again(
    backend: Backend, settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contract.jobs.schedules.KEPT", 5)
    add(backend, "nightly", "* * * * *")
    schedules = Schedules(backend.store)
    for n in range(8):
        fire(backend, settings, NIGHT + n * MINUTE)
    hand = NIGHT + 7.5 * MINUTE
    schedules.by_hand("nightly", "nightly-manual-20261124t010730-7f3a", hand, Tick(at=to_iso(hand), state="failed"))

    assert len(states(backend)) == 6
    assert states(backend)[-1] == ("2026-11-24T01:07", "failed")
    newest = schedules.last("nightly")
    assert newest is not None and newest[0] == NIGHT + 7 * MINUTE
    backend.ledger.redis.flushdb()
    fire(backend, settings, NIGHT + 8 * MINUTE)
    assert len(jobs(backend.store)) == 9


def test_a_record_says_what_was_decided(backend: Backend, settings: Settings, registry: Registry) -> None:
    add(backend)
    fire(backend, settings, NIGHT + timedelta(seconds=3))

    record = json.loads(backend.store.get("schedules/nightly/ticks/20261124t0100.json"))

    assert record["at"] == "2026-11-24T01:00:00.000Z"
    assert (record["state"], record["job"]) == ("submitted", "nightly-20261124t0100")
    assert record["spec"]["model"] == "flowers@1"


# Seeds


@pytest.mark.parametrize("seed", ["tick", 7, None])
def test_a_seed_of_the_tick_is_another_each_night_and_a_number_stays(
    backend: Backend, settings: Settings, registry: Registry, seed: int | str | None
) -> None:
    # Given a schedule that generates, with a seed that is `tick`, a number, or left out,
    publish(registry, "digits-gan", family="gan", task="generate")
    options = parse_options(GenerateOptions, {"model": "digits-gan", "count": 10, "seed": seed})
    made = make_template(make_request(options, backend.store, settings))
    add(backend, spec=made.spec)

    # if two nights pass,
    for night in (NIGHT, NIGHT + DAY):
        fire(backend, settings, night)

    # I expect the number, or seeds that anybody can compute from the ids of the jobs.
    found = [cast("Generate", read_spec(backend.store, job)).seed for job in jobs(backend.store)]
    ids = [f"nightly-{stamp(night)}" for night in (NIGHT, NIGHT + DAY)]
    digests = [int(hashlib.sha256(id.encode()).hexdigest()[:8], 16) for id in ids]
    assert found == ([7, 7] if seed == 7 else digests)
    assert digests[0] != digests[1]


def test_a_record_without_a_seed_draws_from_0(backend: Backend, settings: Settings, registry: Registry) -> None:
    publish(registry, "digits-gan", family="gan", task="generate")
    add(backend, spec={"kind": "generate", "model": "digits-gan", "count": 10, "classes": ()})

    fire(backend, settings, NIGHT)

    (job,) = jobs(backend.store)
    assert cast("Generate", read_spec(backend.store, job)).seed == 0


def test_a_job_without_a_schedule_has_no_tick(backend: Backend, settings: Settings, registry: Registry) -> None:
    publish(registry, "digits-gan", family="gan", task="generate")
    options = parse_options(GenerateOptions, {"model": "digits-gan", "count": 10, "seed": "tick"})
    with pytest.raises(InvalidInput, match="--seed tick is another seed at each tick of a schedule"):
        make_spec(make_request(options, backend.store, settings), JobKeys("sheet"), backend.store)


def test_a_tick_that_extends_a_dataset_waits_for_the_job_before_it(
    backend: Backend, settings: Settings, registry: Registry, another: Callable[[], Backend]
) -> None:
    # Given a schedule that extends a dataset, and a job of its first tick that has not ended,
    publish(registry, "flowers-gan", family="gan", task="generate")
    asked = {"model": "flowers-gan", "gate": "flowers", "per_class": 5, "extend": "garden"}
    made = make_template(make_request(parse_options(SynthesizeOptions, asked), backend.store, settings))
    add(backend, cron="*/10 * * * *", spec=made.spec, since=NIGHT - MINUTE)
    fire(backend, settings, NIGHT)

    # if two controllers see the next tick, I expect no job and no decision,
    first, second = (f"nightly-{stamp(at)}" for at in (NIGHT, NIGHT + 10 * MINUTE))
    for one in (backend, another()):
        fire(one, settings, NIGHT + 10 * MINUTE)
    assert jobs(backend.store) == [first]
    assert len(states(backend)) == 1

    # until the first has ended: then one that makes the version that is next now.
    close(backend, first, "canceled")
    for one in (backend, another()):
        fire(one, settings, NIGHT + 11 * MINUTE)
    assert jobs(backend.store) == [first, second]
    extend = cast("Synthesize", read_spec(backend.store, second)).extend
    assert extend is not None and (extend.number, extend.at[:16]) == (1, "2026-11-24T01:10")


def test_a_tick_fills_what_a_watch_sees_rarely(
    backend: Backend, settings: Settings, registry: Registry, another: Callable[[], Backend]
) -> None:
    # Given a schedule that balances what a watch sees, and two segments of it,
    publish(registry, "flowers-gan", family="gan", task="generate")
    asked = {"model": "flowers-gan", "gate": "flowers", "balance": "watch:camera", "extend": "garden"}
    made = make_template(make_request(parse_options(SynthesizeOptions, asked), backend.store, settings))
    add(backend, spec=made.spec)
    segment(backend, 0, {"rose": 40, "tulip": 1})
    segment(backend, 1, {"tulip": 1})

    # if two controllers fire a tick, and the watch sees more before the job begins,
    fire(backend, settings, NIGHT)
    (job,) = jobs(backend.store)[-1:]
    segment(backend, 2, {"rose": 5})
    fire(another(), settings, NIGHT + MINUTE)

    # I expect one job that fills the rare class by the counts of the first look,
    spec = cast("Synthesize", read_spec(backend.store, job))
    assert (spec.classes, spec.counts, spec.per_class) == ((1,), (38,), 38)
    assert spec.balance is not None
    assert spec.balance.model_dump() == {
        "watch": "camera",
        "segments": 2,
        "seen": {"rose": 40, "tulip": 2},
        "made": {},
        "aim": 40,
        "per_class": None,
        "among": ("rose", "tulip"),
    }

    # the next tick to count what was made, and one that finds nothing missing to say so and make no job.
    submit_version(backend, spec)
    fire(backend, settings, NIGHT + DAY)
    spec = cast("Synthesize", read_spec(backend.store, jobs(backend.store)[-1]))
    assert (spec.classes, spec.counts) == ((1,), (5,))
    submit_version(backend, spec)
    fire(backend, settings, NIGHT + 2 * DAY)
    (newest,) = Schedules(backend.store).history("nightly", 1)
    assert (newest.state, newest.job) == ("skipped", None)
    assert newest.reason is not None and newest.reason.startswith("Every class has 45 images or more")


def submit_version(backend: Backend, spec: Synthesize) -> None:
    """What a worker does at the end of a job that extends a dataset."""
    accepted = {("rose", "tulip")[label]: spec.wanted(label) for label in spec.classes}
    made = version_of(spec, labels=("rose", "tulip"), channels=3, accepted=accepted)
    extending.publish(backend.store, made)
    close(backend, spec.id, "succeeded")


def test_a_job_that_balances_is_the_same_job_though_the_watch_sees_more(
    backend: Backend, settings: Settings, registry: Registry
) -> None:
    publish(registry, "flowers-gan", family="gan", task="generate")
    asked = {"model": "flowers-gan", "gate": "flowers", "balance": "watch:camera"}
    segment(backend, 0, {"rose": 40, "tulip": 1})

    def spec(**more: Any) -> Synthesize:
        request = make_request(parse_options(SynthesizeOptions, {**asked, **more}), backend.store, settings)
        return cast("Synthesize", make_spec(request, JobKeys("fill"), backend.store))

    first = spec()
    submit(backend, first)
    segment(backend, 1, {"rose": 40})
    assert spec() == first
    assert spec(per_class=100).counts == (20, 99)
    with pytest.raises(InvalidInput, match="--per-class is missing"):
        spec(balance=None)
    with pytest.raises(InvalidInput, match="--balance: 'camera' names no watch; write it as watch:NAME"):
        spec(balance="camera")


def test_a_training_on_what_was_seen_and_what_was_made_pins_and_keeps_both(
    backend: Backend, settings: Settings, registry: Registry
) -> None:
    # Given a nightly training on a watch and a dataset, which has a version,
    publish(registry, "flowers-gan", family="gan", task="generate")
    asked = {"family": "cnn", "name": "garden", "source": ["watch:camera", "dataset:garden"]}
    night = parse_options(SynthesizeOptions, {"model": "flowers-gan", "gate": "flowers", "per_class": 1})
    made = make_spec(make_request(night, backend.store, settings), JobKeys("made"), backend.store)
    made = made.model_copy(update={"extend": Extend(dataset="garden", number=1, at="2026-11-24T00:00:00.000Z")})
    submit(backend, made, "ann")
    submit_version(backend, made)
    seen = segment(backend, 0, {"rose": 1})
    options = parse_options(TrainOptions, asked)
    add(backend, spec=make_template(make_request(options, backend.store, settings)).spec)

    # if a tick comes, I expect both to be pinned,
    fire(backend, settings, NIGHT)
    job = f"nightly-{stamp(NIGHT)}"
    source = cast("Train", read_spec(backend.store, job)).source
    assert [(part.kind, part.uri) for part in source.parts] == [("job", seen), ("dataset", "garden@1")]
    assert source.label == "watch:camera + dataset:garden"
    # and neither to be removed while it needs them.
    with pytest.raises(JobConflict, match=f"{job} needs the images of {seen}"):
        check_removable(backend.store, seen)
    assert sorted(needed_by(backend.store, "garden")) == [f"The job {job}", "The schedule nightly"]
