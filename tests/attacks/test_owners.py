"""Names have owners: nobody publishes under another's name, or what every job takes for the model that ships."""

from __future__ import annotations

import hashlib
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from contract.backend.objects import ObjectStore
from contract.datasets.records import DatasetRecord
from contract.datasets.versions import Datasets
from contract.errors import InvalidInput, NotOwner, UnknownModel
from contract.jobs.lifecycle import Backend
from contract.jobs.schedules import Schedules
from contract.jobs.templates import Template
from contract.keys.models import model_file, model_record
from contract.models.owners import BUILT_IN
from contract.models.registry import Model, Preprocess, Registry, make_file
from contract.models.review import Review
from contract.settings import Settings
from contract.watches.record import Watch, Watches
from producer.client import Client
from producer.jobs import schedules as changes
from worker.models.check import admit
from worker.zoo import builtin

WEIGHTS = b"weights"


def record(name: str, version: int, owner: str = "") -> Model:
    return Model(
        name=name,
        version=version,
        family="cnn",
        labels=("a", "b"),
        preprocess=Preprocess(size=8, mean=0, std=1),
        weights=make_file("weights.safetensors", WEIGHTS),
        owner=owner,
    )


def publish(registry: Registry, name: str, owner: str) -> Model:
    version = registry.claim(name, f"{owner}-{hashlib.sha256(name.encode()).hexdigest()}", owner)
    model = record(name, version, owner)
    registry.publish(model, {"weights.safetensors": WEIGHTS})
    return model


def plant(store: ObjectStore, model: Model) -> None:
    """Put a record past the registry, as whoever may write the bucket can."""
    store.put(model_file(model.name, model.version, "weights.safetensors"), WEIGHTS)
    store.put(model_record(model.name, model.version), model.to_json())


def test_the_reserved_names_are_those_that_ship() -> None:
    assert set(BUILT_IN.items()) == set(builtin.models())


@pytest.mark.parametrize("name", BUILT_IN)
def test_nobody_publishes_under_a_name_that_ships(backend: Backend, name: str, tmp_path: Path) -> None:
    registry = Registry(backend.store)
    # A push and a training both begin with a claim.
    with pytest.raises(NotOwner, match="reserved"):
        registry.claim(name, "token", "mallory")
    # A producer of his own making may skip it, and put a draft for a worker to publish;
    review = Review(backend.store, name, 2)
    backend.store.put(model_file(name, 2, "weights.safetensors"), WEIGHTS)
    review.submit(record(name, 2, "mallory"))
    admit(backend, name, 2, tmp_path)
    # the worker refuses it in one sentence.
    verdict = review.verdict()
    assert verdict is not None and not verdict.ok and "reserved" in verdict.reason
    assert not registry.exists(name, 2)
    for version in (1, 2):
        with pytest.raises(NotOwner):
            registry.publish(record(name, version), {"weights.safetensors": WEIGHTS})
    with pytest.raises(NotOwner):
        registry.own(name, "mallory") if registry.versions() else registry.owners.take_over(name, "mallory", 1)


def test_a_job_never_takes_an_imposter_for_the_model_that_ships(store: ObjectStore) -> None:
    # Given the model that ships, and a newer version that somebody put into the bucket,
    name, version = builtin.NAME, builtin.VERSION
    registry = Registry(store)
    registry.publish(record(name, version), {"weights.safetensors": WEIGHTS}, ships=True)
    plant(store, record(name, 2, "mallory"))
    # I expect that the bare name is what ships, that the other one is used by its number alone and can be removed,
    assert registry.resolve(name) == (name, version)
    assert registry.get(f"{name}@2").owner == "mallory"
    registry.remove(f"{name}@2", "alice")
    # and that what ships cannot be.
    with pytest.raises(NotOwner):
        registry.remove(f"{name}@{version}", "alice")


def test_an_unpinned_job_takes_only_what_the_owner_published(store: ObjectStore) -> None:
    # Given a model of alice, and a record that mallory put above it,
    registry = Registry(store)
    publish(registry, "birds", "alice")
    plant(store, record("birds", 7, "mallory"))
    # I expect that `birds` is alice's.
    assert registry.resolve("birds") == ("birds", 1)
    with pytest.raises(NotOwner, match="belongs to alice"):
        registry.claim("birds", "token", "mallory")
    with pytest.raises(NotOwner):
        registry.enter(record("birds", 8, "mallory"))
    # Given that mallory takes the name over, which he says,
    assert registry.own("birds", "mallory") == "alice"
    # I expect that it is his from then on, with everything below it.
    assert registry.resolve("birds") == ("birds", 7)
    with pytest.raises(NotOwner, match="belongs to mallory"):
        registry.claim("birds", "alice-2", "alice")


def test_others_move_no_alias_and_remove_no_version(settings: Settings, store: ObjectStore) -> None:
    registry = Registry(store)
    publish(registry, "birds", "alice")
    with closing(Client(settings.model_copy(update={"owner": "mallory"}))) as client:
        for act in (
            lambda: client.set_alias("birds@1", "live"),
            lambda: client.remove_model("birds@1"),
        ):
            with pytest.raises(NotOwner, match="imagemill models own birds"):
                act()
        client.own_model("birds")
        client.set_alias("birds@1", "live")
        with pytest.raises(UnknownModel):
            client.own_model("no-such-model")
    with closing(Client(settings.model_copy(update={"owner": "alice"}))) as client, pytest.raises(NotOwner):
        client.remove_alias("birds@live")


def test_versions_from_before_owners_stay_what_they_were(store: ObjectStore) -> None:
    # Given versions of an older Imagemill, which have no owner,
    registry = Registry(store)
    for version in (1, 2):
        plant(store, record("birds", version))
    assert registry.resolve("birds") == ("birds", 2)
    # if somebody publishes the next, I expect that the name is his, and that it stands for an old one until then.
    version = registry.claim("birds", "token", "alice")
    assert registry.resolve("birds") == ("birds", 2)
    registry.publish(record("birds", version, "alice"), {"weights.safetensors": WEIGHTS})
    assert registry.resolve("birds") == ("birds", 3)
    with pytest.raises(NotOwner):
        registry.claim("birds", "other", "mallory")


def test_two_who_claim_a_new_name_at_once_get_one_owner(store: ObjectStore) -> None:
    registry = Registry(store)
    outcomes = []
    for owner in ("alice", "mallory"):
        try:
            outcomes.append(registry.claim("fresh", owner, owner))
        except NotOwner:
            outcomes.append(0)
    assert outcomes == [1, 0]


def test_others_change_no_schedule(settings: Settings, backend: Backend) -> None:
    # Given a schedule of alice, one that trains,
    spec = {"kind": "train", "name": "birds", "owner": "alice"}
    made = changes.new_schedule(
        "nightly", Template(spec=spec, to=None), cron="0 2 * * *", timezone="UTC", missed="run", owner="alice"
    )
    schedules = Schedules(backend.store)
    schedules.add(made)
    # if mallory pauses, unpauses or removes it, I expect a refusal that says how to take it over,
    for change in (changes.pause, changes.unpause, changes.remove):
        with pytest.raises(NotOwner, match="imagemill schedule own nightly"):
            change(backend, "nightly", "mallory")
    assert schedules.get("nightly") == made
    # and that it is his once he has, with the models that it trains.
    taken = schedules.own("nightly", "mallory")
    assert taken.template.spec["owner"] == "mallory"
    changes.pause(backend, "nightly", "mallory")
    with pytest.raises(NotOwner):
        changes.remove(backend, "nightly", "alice")
    changes.remove(backend, "nightly", "mallory")


def test_others_change_no_watch_and_no_dataset_before_they_own_it(settings: Settings, store: ObjectStore) -> None:
    # Given a watch and a dataset of alice,
    at = "2026-11-26T08:30:12.345Z"
    template = Template(spec={"kind": "classify", "model": "lite0"})
    watch = Watch(name="faces", source="s3://photos/in/", every=5.0, created_at=at, template=template, owner="alice")
    Watches(store).add(watch)
    Datasets(store).add(DatasetRecord(name="faces", owner="alice", created_at=at))
    with closing(Client(settings.model_copy(update={"owner": "mallory"}))) as client:
        # if mallory pauses, unpauses or removes them, I expect a refusal that says how to take them over,
        for change in (client.pause_watch, client.unpause_watch, client.remove_watch, client.remove_dataset):
            with pytest.raises(NotOwner, match=r"imagemill (watch|datasets) own faces"):
                change("faces")
        assert Watches(store).get("faces") == watch
        # and that they are his once he has.
        assert client.own_watch("faces").owner == client.own_dataset("faces").owner == "mallory"
        assert client.pause_watch("faces").state == "paused"
        client.remove_watch("faces")
        assert client.remove_dataset("faces") == 0
        for own in (client.own_watch, client.own_dataset, client.own_schedule):
            with pytest.raises(InvalidInput, match="There is no"):
                own("faces")


def test_a_schedule_from_before_owners_is_anybodys(backend: Backend) -> None:
    made = changes.new_schedule(
        "old",
        Template(spec={"kind": "classify"}, to=None),
        cron="0 2 * * *",
        timezone="UTC",
        missed="run",
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )
    Schedules(backend.store).add(made)
    assert changes.pause(backend, "old", "anybody").paused


def test_a_training_under_another_name_is_refused_before_it_begins(settings: Settings, store: ObjectStore) -> None:
    publish(Registry(store), "birds", "alice")
    with closing(Client(settings.model_copy(update={"owner": "mallory"}))) as client:
        for name in ("birds", "fashion-gan"):
            with pytest.raises(NotOwner):
                client.train("cnn", f"s3://{settings.bucket}/nothing/", name=name)


def test_an_owner_has_a_name() -> None:
    assert "@" in Settings().owns_as
    assert Settings(owner="team-a").owns_as == "team-a"
    with pytest.raises(ValueError, match="owner"):
        Settings(owner="a\nb")
    assert issubclass(NotOwner, InvalidInput)
