"""What a watch has labelled is moved to its archive: nothing is lost or read in vain, whoever dies or overwrites."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from contract.backend.objects import ObjectStore
from contract.data.image_bytes import ImageBytes
from contract.data.items import Item, parse_s3
from contract.data.label_rows import OK, schema
from contract.errors import ObjectChanged, ObjectDamaged, ObjectNotFound, StoreUnavailable
from contract.jobs import lifecycle
from contract.jobs.results import with_items
from contract.keys.bucket import probe_object
from contract.settings import Settings
from contract.watches.archive import archived_segments, forget_archived
from contract.web.client import WebClient
from tests.worker.control.watching.conftest import Camera
from tests.worker.control.watching.test_table import commit
from worker.control.watching.archives import Archives
from worker.control.watching.move import move

MakeCamera = Callable[..., Camera]
NAMES = ("2026/a.jpg", "b.jpg", "c d+é.png", "bad.jpg")


@pytest.fixture
def cold(settings: Settings) -> ObjectStore:
    """The bucket of the archive."""
    store = ObjectStore(settings.model_copy(update={"bucket": f"{settings.bucket}-cold"}))
    store.ensure_bucket()
    return store


@pytest.fixture
def camera(make_camera: MakeCamera, cold: ObjectStore) -> Camera:
    """A watch with an archive, whose first segment has labelled three images, and failed with one."""
    camera = make_camera(overwrites="again", archive=f"s3://{cold.bucket}/done/")
    for name in NAMES:
        camera.put(name, data=name.encode())
    controller = camera.controller(watch_segment_seconds=60)
    controller.round()
    label(camera, camera.watch.job(0))
    camera.now += 100
    controller.round()
    return camera


def label(camera: Camera, job: str) -> None:
    """Commit the rows of a segment with one shard."""
    (items,) = camera.shards(job)
    store, rows = camera.backend.store, []
    for item in items:
        data = store.get(parse_s3(item.uri)[1])
        bad = item.key.endswith("bad.jpg")
        rows.append(
            {
                "key": item.key,
                "uri": item.uri,
                "sha256": hashlib.sha256(data).hexdigest(),
                "status": "error" if bad else OK,
                "error_code": "not_an_image" if bad else None,
                "archive": item.archive,
            }
        )
    commit(store, job, 0, rows, columns=schema(watched=True, archived=True))


def items(camera: Camera, segment: int = 0) -> dict[str, Item]:
    shards = camera.shards(camera.watch.job(segment))
    return {item.key.removeprefix("cam/"): item for shard in shards for item in shard}


def read(camera: Camera, item: Item) -> bytes:
    """What a worker, an exporter and a training read."""
    return ImageBytes(camera.backend.store, 2**20, WebClient()).read_item(item)


def listed(store: ObjectStore, prefix: str) -> list[str]:
    return [entry.key.removeprefix(prefix) for entry in store.list(prefix)]


def moved(camera: Camera, run: int = 0) -> tuple[int, int]:
    made = move(camera.backend.store, camera.watch.root, 0, camera.watch.job(0), run)
    return made.moved, made.kept


def check(camera: Camera, cold: ObjectStore) -> None:
    """All but the image that failed are in the archive alone, and each can be read."""
    assert listed(camera.backend.store, "cam/") == ["bad.jpg"]
    found = items(camera)
    assert sorted(listed(cold, "")) == sorted(parse_s3(str(found[name].archive))[1] for name in NAMES[:3])
    assert {name: read(camera, item) for name, item in found.items()} == {name: name.encode() for name in NAMES}


def test_what_has_a_label_is_moved_and_can_be_read(camera: Camera, cold: ObjectStore) -> None:
    assert moved(camera) == (3, 1)
    check(camera, cold)
    # The folders below the prefix and the suffix stay.
    assert str(items(camera)["2026/a.jpg"].archive).startswith(f"s3://{cold.bucket}/done/2026/a-")
    assert str(items(camera)["c d+é.png"].archive).endswith(".png")
    # Rows and manifests agree, for those who read rows.
    for row, item in next(with_items(camera.backend.store, camera.watch.job(0))):
        assert row["archive"] == item.archive
    # and once more it is the same
    assert moved(camera) == (3, 1)
    check(camera, cold)


@pytest.mark.parametrize("step", ["copy", "stat", "delete", "put"])
@pytest.mark.parametrize("done", [False, True])
def test_killed_at_any_step(
    camera: Camera, cold: ObjectStore, step: str, done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given one that dies before or after it has done its second copy, check, deletion or its record
    store = camera.backend.store
    act, calls = getattr(store, step), []

    def dies(*args: Any, **more: Any) -> Any:
        calls.append(args)
        if len(calls) == (1 if step == "put" else 2):
            if done:
                act(*args, **more)
            raise StoreUnavailable("it died here")
        return act(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(store, step, dies)
        with pytest.raises(StoreUnavailable):
            moved(camera)
    # I expect each image to be readable at any time, and the next one to complete it.
    assert {name: read(camera, item) for name, item in items(camera).items()} == {n: n.encode() for n in NAMES}
    assert moved(camera) == (3, 1)
    check(camera, cold)


def test_what_was_overwritten_before_it_is_moved_stays(camera: Camera, cold: ObjectStore) -> None:
    camera.put("b.jpg", data=b"new")
    assert moved(camera) == (2, 2)
    assert camera.backend.store.get("cam/b.jpg") == b"new"
    assert not [key for key in listed(cold, "done/") if key.startswith("b-")]
    with pytest.raises(ObjectChanged):  # nobody takes the new one for the one that has the label
        read(camera, items(camera)["b.jpg"])


def test_what_is_overwritten_while_it_is_moved_is_labelled_too(
    camera: Camera, cold: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a camera that overwrites an object between its copy and its deletion
    store = camera.backend.store
    copy = store.copy

    def slow(key: str, *args: Any, **more: Any) -> None:
        copy(key, *args, **more)
        if key == "cam/b.jpg":
            camera.put("b.jpg", data=b"new")

    with monkeypatch.context() as patch:
        patch.setattr(store, "copy", slow)
        assert moved(camera) == (3, 1)
    # I expect both versions to be there, and the new one to be planned, with an address of its own.
    old = items(camera)["b.jpg"]
    assert read(camera, old) == b"b.jpg" and store.get("cam/b.jpg") == b"new"
    camera.controller().round()
    new = items(camera, 1)["b.jpg"]
    assert list(items(camera, 1)) == ["b.jpg"] and new.archive != old.archive and new.etag != old.etag
    # One that goes on late does not overwrite what is in the archive.
    assert moved(camera) == (3, 1)
    assert read(camera, old) == b"b.jpg" and read(camera, new) == b"new"


def test_the_same_bytes_again_are_not_labelled_twice(camera: Camera, cold: ObjectStore) -> None:
    moved(camera)
    camera.put("b.jpg", data=b"b.jpg")
    camera.controller().round()
    assert set(camera.planned().values()) == {1} and len(camera.segments()) == 1
    assert moved(camera) == (3, 1)  # if it is done again, the object is moved again
    check(camera, cold)


def test_what_was_deleted_by_somebody_is_no_error(camera: Camera, cold: ObjectStore) -> None:
    camera.backend.store.delete("cam/b.jpg")
    assert moved(camera) == (2, 2)
    with pytest.raises(ObjectNotFound):
        read(camera, items(camera)["b.jpg"])


def test_a_copy_that_is_not_what_was_labelled_costs_no_image(
    camera: Camera, cold: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = camera.backend.store
    copy = store.copy

    def spoiled(key: str, to: str, **more: Any) -> None:
        copy(key, to, **more)
        if key == "cam/b.jpg":
            cold.put(to, b"other")

    with monkeypatch.context() as patch:
        patch.setattr(store, "copy", spoiled)
        with pytest.raises(ObjectDamaged, match="is not what was labelled"):
            moved(camera)
    assert store.get("cam/b.jpg") == b"b.jpg"
    assert archived_segments(store, camera.watch.root) == set()
    assert moved(camera) == (3, 1)
    check(camera, cold)


def test_an_etag_that_a_copy_changes_is_no_damage(
    camera: Camera, cold: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = camera.backend.store
    stat = store.stat
    monkeypatch.setattr(store, "stat", lambda key, **more: (stat(key, **more)[0], "encrypted-otherwise"))
    assert moved(camera) == (3, 1)
    check(camera, cold)


def test_a_segment_is_moved_once_its_job_has_ended(camera: Camera, cold: ObjectStore, settings: Settings) -> None:
    store, job = camera.backend.store, camera.watch.job(0)
    archives = Archives(store, settings)
    archives.look(camera.watch)
    assert listed(cold, "") == []
    lifecycle.close(camera.backend, job, "succeeded")
    archives.look(camera.watch)
    check(camera, cold)
    assert archived_segments(store, camera.watch.root) == {0}
    assert archives.figures(camera.watch) == {"archived": 3, "archive_waiting": 0}
    # After a retry, what has a label now is moved too.
    forget_archived(store, job)
    assert archived_segments(store, camera.watch.root) == set()
    archives.look(camera.watch)
    assert archived_segments(store, camera.watch.root) == {0}
    # A watch without an archive moves nothing.
    assert archives.of(camera.watch.model_copy(update={"archive": ""})) == ""


def test_the_store_of_the_tests_heeds_etags(store: ObjectStore) -> None:
    assert store.heeds_etags(probe_object("x"))
    assert listed(store, "probes/") == []


@pytest.mark.parametrize("step", ["copy", "delete"])
def test_a_store_that_does_not_is_found_out(store: ObjectStore, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    act = getattr(store, step)
    unheeding: dict[str, Callable[..., None]] = {
        "copy": lambda key, to, **_: store.put(to, store.get(key)),
        "delete": lambda key, **_: act(key),
    }
    monkeypatch.setattr(store, step, unheeding[step])
    assert not store.heeds_etags(probe_object("x"))
