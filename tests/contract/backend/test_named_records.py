"""Named records: what holds of watches, schedules and datasets alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from contract.backend.named_records import NamedRecords
from contract.backend.objects import ObjectStore
from contract.datasets.records import DatasetRecord
from contract.datasets.versions import Datasets
from contract.errors import InvalidInput, NotOwner
from contract.jobs.schedules import Schedule, Schedules
from contract.jobs.templates import Template
from contract.watches.record import Watch, Watches

AT = "2026-11-26T08:30:12.345Z"
TEMPLATE = Template(spec={"kind": "classify", "model": "lite0"})


def watch(name: str, owner: str) -> Watch:
    return Watch(name=name, source="s3://photos/in/", every=5.0, created_at=AT, template=TEMPLATE, owner=owner)


def schedule(name: str, owner: str) -> Schedule:
    return Schedule(
        name=name, cron="0 2 * * *", timezone="UTC", created_at=AT, since=AT, template=TEMPLATE, owner=owner
    )


def dataset(name: str, owner: str) -> DatasetRecord:
    return DatasetRecord(name=name, owner=owner, created_at=AT)


@dataclass(frozen=True)
class Kind:
    """One kind of named records: where they are kept, what makes one, and a change of a field."""

    records: type[NamedRecords[Any]]
    make: Callable[[str, str], Any]
    change: dict[str, object]
    key: str
    beside: str

    def __str__(self) -> str:
        return self.records.noun


KINDS = [
    Kind(Watches, watch, {"paused": True}, "watches/camera.json", "watches/camera/20261126t083012000/a.json"),
    Kind(Schedules, schedule, {"paused": True}, "schedules/camera.json", "schedules/camera/ticks/a.json"),
    Kind(Datasets, dataset, {"created_at": "later"}, "datasets/camera/dataset.json", "datasets/camera/versions/a.json"),
]
of_each_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


@of_each_kind
def test_a_record_is_one_object_that_is_found_by_its_name(store: ObjectStore, kind: Kind) -> None:
    records = kind.records(store)
    assert records.names() == [] and records.find("camera") is None
    made = kind.make("camera", "ann")
    records.add(made)
    # Its key and its form in the bucket are those of every version so far.
    assert store.get(kind.key) == made.to_json()
    # What lies beside it is no record.
    store.put(kind.beside, b"{}")
    records.add(kind.make("a", ""))
    assert records.names() == ["a", "camera"]
    assert records.get("camera") == records.find("camera") == made


@of_each_kind
def test_a_name_is_taken_once(store: ObjectStore, kind: Kind) -> None:
    records = kind.records(store)
    records.add(kind.make("camera", "ann"))
    records.add(kind.make("camera", "ann"))  # the answer to the first write was lost
    with pytest.raises(kind.records.invalid, match=f"There is a {kind} 'camera' already"):
        records.add(kind.make("camera", "bob"))
    assert records.get("camera").owner == "ann"


@of_each_kind
@pytest.mark.parametrize("name", ["", "-a", "Camera", "a/b", "a.b", "..", "a b", "ü", "a\n", "x" * 64])
def test_a_name_that_no_key_may_have_is_refused_and_unknown(store: ObjectStore, kind: Kind, name: str) -> None:
    records = kind.records(store)
    longest = kind.records.longest
    with pytest.raises(kind.records.invalid, match=f"cannot be the name of a {kind}; use up to {longest} of a-z"):
        records.check_name(name)
    with pytest.raises(kind.records.invalid):
        records.find(name)
    for ask in (records.get, lambda name: records.own(name, "ann"), lambda name: records.remove(name, "ann")):
        with pytest.raises(kind.records.unknown):
            ask(name)
    assert records.check_name("x" * longest)


@of_each_kind
def test_an_unknown_name_gets_the_nearest(store: ObjectStore, kind: Kind) -> None:
    records = kind.records(store)
    with pytest.raises(kind.records.unknown, match=f"There is no {kind} 'camra', nor any other; `imagemill "):
        records.get("camra")
    records.add(kind.make("camera", ""))
    with pytest.raises(
        kind.records.unknown, match=rf"There is no {kind} 'camra'; did you mean camera\? `imagemill {kind}s? list`"
    ):
        records.get("camra")


@of_each_kind
def test_only_its_owner_changes_a_record_and_anybody_takes_it_over(store: ObjectStore, kind: Kind) -> None:
    records = kind.records(store)
    records.add(kind.make("camera", "ann"))
    # Given a record of ann, if bob changes or removes it, I expect a refusal that says how to take it over,
    refused = rf"The {kind} camera belongs to ann, and you are bob; .*`imagemill {kind}s? own camera`"
    for ask in (records.owned, records.remove):
        with pytest.raises(NotOwner, match=refused):
            ask("camera", "bob")
    changed = records.change(records.owned("camera", "ann"), **kind.change)
    assert records.get("camera") == changed == kind.make("camera", "ann").model_copy(update=kind.change)

    # and if he does, that nothing but the owner is another.
    assert records.own("camera", "bob") == records.get("camera") == changed.model_copy(update={"owner": "bob"})
    with pytest.raises(NotOwner, match="belongs to bob, and you are ann"):
        records.remove("camera", "ann")
    records.remove("camera", "bob")
    assert records.find("camera") is None
    with pytest.raises(kind.records.unknown, match=f"There is no {kind} 'camera', nor any other"):
        records.remove("camera", "bob")


@of_each_kind
def test_a_record_from_before_owners_is_anybodys(store: ObjectStore, kind: Kind) -> None:
    records = kind.records(store)
    records.add(kind.make("camera", ""))
    assert records.owned("camera", "anybody").name == "camera"
    records.remove("camera", "anybody")


@of_each_kind
def test_a_record_that_cannot_be_read_says_what_to_do(store: ObjectStore, kind: Kind) -> None:
    records = kind.records(store)
    # Given a record of a later version, and one that was copied by hand and would be changed in another's place,
    for data in (b'{"name": "camera", "from": "the future"}', kind.make("other", "").to_json()):
        store.put(kind.key, data)
        # I expect a sentence that says what helps.
        with pytest.raises(
            InvalidInput, match=f"The {kind} camera cannot be read by this .*; {kind.records.remedy}"
        ) as said:
            records.get("camera")
        assert type(said.value) is kind.records.invalid


@pytest.mark.parametrize("records", [Watches, Schedules])
def test_what_nobody_can_read_has_no_owner_who_could_object(
    store: ObjectStore, records: type[NamedRecords[Any]]
) -> None:
    there = records(store)
    store.put(there.key("camera"), b'{"owner": "ann", "from": "the future"}')
    there.remove("camera", "bob")
    assert there.names() == []


def test_a_schedule_takes_its_models_along(store: ObjectStore) -> None:
    schedules = Schedules(store)
    training = Template(spec={"kind": "train", "name": "birds", "owner": "ann"})
    schedules.add(schedule("nightly", "ann").model_copy(update={"template": training}))
    assert schedules.own("nightly", "bob").template.spec == {"kind": "train", "name": "birds", "owner": "bob"}


@pytest.mark.parametrize("kind", KINDS[:2], ids=str)
def test_what_is_taken_over_tells_no_webhook_of_its_earlier_owner(store: ObjectStore, kind: Kind) -> None:
    # Given a record of ann that tells her webhook,
    there, made = kind.records(store), kind.make("camera", "ann")
    told = made.template.model_copy(update={"spec": {**made.template.spec, "webhook": "wh_0123456789abcdef0123"}})
    there.add(made.model_copy(update={"template": told}))
    # if she says again that it is hers, I expect it to stay as it is;
    assert there.own("camera", "ann").template == told
    # if bob takes it over, I expect her to learn nothing more of it.
    assert there.own("camera", "bob") == made.model_copy(update={"owner": "bob"})


def test_a_dataset_is_removed_with_its_versions_and_only_then_its_name_is_free(store: ObjectStore) -> None:
    datasets = Datasets(store)
    datasets.add(dataset("faces", "ann"))
    datasets.add(dataset("faces-b", "ann"))
    for key in ("datasets/faces/versions/000001.json", "datasets/faces/claims/000001.json"):
        store.put(key, b"{}")
    # Given a removal that ended before its last step, I expect nobody to read the dataset,
    datasets.change(datasets.get("faces"), removing=True)
    for ask in (datasets.get, lambda name: datasets.own(name, "bob")):
        with pytest.raises(datasets.unknown, match="is being removed; `imagemill datasets rm faces` completes"):
            ask("faces")
    # and its owner to complete it.
    with pytest.raises(NotOwner):
        datasets.remove("faces", "bob")
    datasets.remove("faces", "ann")
    assert [entry.key for entry in store.list("datasets/")] == ["datasets/faces-b/dataset.json"]
