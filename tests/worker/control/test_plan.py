"""A source becomes shards, whoever dies over it."""

from __future__ import annotations

import pytest

from contract.data.items import read_manifest
from contract.errors import StoreUnavailable
from contract.jobs.ends import read_end
from contract.jobs.lifecycle import Backend, read_plan, submit
from contract.jobs.specs import Classify, Source
from contract.keys.jobs import JobKeys
from worker.control.plan import plan


def begin(backend: Backend, shard_size: int = 4, frames: int = 0) -> JobKeys:
    bucket = backend.store.bucket
    spec = Classify(
        id="job",
        source=Source(kind="prefix", uri=f"s3://{bucket}/in/", label="in"),
        model="m@1",
        weights_sha256="0" * 64,
        frames=frames,
        shard_size=shard_size,
        output=f"s3://{bucket}/out/",
    )
    submit(backend, spec)
    return JobKeys("job")


def planned(backend: Backend, keys: JobKeys) -> list[list[str]]:
    found = read_plan(backend.store, "job")
    assert found is not None
    manifests = [read_manifest(backend.store.get(keys.manifest(n))) for n in range(found.shards)]
    assert found.items == sum(map(len, manifests))
    return [[item.key.removeprefix("in/") for item in items] for items in manifests]


def die_over(backend: Backend, monkeypatch: pytest.MonkeyPatch, dead: str) -> None:
    """Have the store fail where this object would be written."""
    put = backend.store.put_if_absent

    def write(key: str, data: bytes) -> bool:
        if key == dead:
            raise StoreUnavailable("away")
        return put(key, data)

    monkeypatch.setattr(backend.store, "put_if_absent", write)


def test_a_prefix_is_cut_into_shards_and_other_files_are_counted(backend: Backend) -> None:
    for name in [*(f"{n}.jpg" for n in range(6)), "notes.txt", "no-suffix", ".hidden.jpg"]:
        backend.store.put(f"in/{name}", b"x")
    keys = begin(backend)

    plan(backend, "job")

    assert planned(backend, keys) == [["0.jpg", "1.jpg", "2.jpg", "3.jpg"], ["4.jpg", "5.jpg", "no-suffix"]]
    status = backend.ledger.status("job")
    assert status is not None
    assert (status.state, status.total, status.skipped) == ("running", 7, 2)


def test_a_planner_that_died_is_continued_behind_its_last_shard(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(10, 21):
        backend.store.put(f"in/{n}.jpg", b"x")
    keys = begin(backend)
    die_over(backend, monkeypatch, keys.manifest(2))
    with pytest.raises(StoreUnavailable):
        plan(backend, "job")
    monkeypatch.undo()
    backend.store.put("in/00-new.jpg", b"x")  # before what is planned: it comes too late
    backend.store.put("in/99-new.jpg", b"x")  # behind it: it is still seen

    plan(backend, "job")

    names = [name for shard in planned(backend, keys) for name in shard]
    assert names == [*(f"{n}.jpg" for n in range(10, 21)), "99-new.jpg"]


@pytest.mark.parametrize("at", ["a manifest", "the plan"])
def test_a_planner_that_wakes_behind_its_successor_replaces_nothing(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    # Given a planner that stands still as it writes an object, until its source has changed and its successor
    # is done,
    for n in range(10, 21):
        backend.store.put(f"in/{n}.jpg", b"x")
    keys = begin(backend)
    put = backend.store.put_if_absent

    def stand_still(key: str, data: bytes) -> bool:
        if key == (keys.manifest(1) if at == "a manifest" else keys.plan):
            monkeypatch.undo()
            for n in range(10, 21):
                backend.store.put(f"in/{n}-new.jpg", b"x")
            plan(backend, "job")
        return put(key, data)

    monkeypatch.setattr(backend.store, "put_if_absent", stand_still)
    plan(backend, "job")

    # I expect what the successor planned, whole, and each image once.
    names = [name for shard in planned(backend, keys) for name in shard]
    done = read_plan(backend.store, "job")
    assert len(names) == len(set(names))
    assert done is not None and (done.items, done.shards) == (len(names), len(planned(backend, keys)))


def test_a_source_that_is_empty_by_now_ends_the_job(backend: Backend) -> None:
    backend.store.put("in/readme.txt", b"x")
    begin(backend)

    plan(backend, "job")

    end = read_end(backend.store, "job")
    assert end is not None
    assert end.state == "failed"
    assert end.reason == "in holds no images (other files: 1); check the address."


def test_two_planners_make_one_plan(backend: Backend) -> None:
    backend.store.put("in/0.jpg", b"x")
    keys = begin(backend)

    plan(backend, "job")
    plan(backend, "job")

    assert planned(backend, keys) == [["0.jpg"]]
    status = backend.ledger.status("job")
    assert status is not None and status.total == 1


def test_stills_of_a_folder_are_one_sequence_and_an_animation_is_another(backend: Backend) -> None:
    # Given stills on three levels, animations between them, and a model that looks at two frames,
    stills = [f"a/{name}.png" for name in ("frame-2", "frame-10", "frame-1", "1/x", "1/y", "9/z")]
    for name in [*stills, "a/5.gif", "b/one.jpg", "b/walk.webp", "notes.txt", "top.png"]:
        backend.store.put(f"in/{name}", b"x")
    keys = begin(backend, shard_size=100, frames=2)

    plan(backend, "job")

    # I expect an item a folder, behind what is in it, with the first and the last frame by number.
    items = read_manifest(backend.store.get(keys.manifest(0)))
    assert planned(backend, keys) == [["a/1/", "a/5.gif", "a/9/", "a/", "b/walk.webp", "b/", ""]]
    by_key = {item.key: item for item in items}
    assert [frame.key for frame in by_key["in/a/"].frames] == ["in/a/frame-1.png", "in/a/frame-10.png"]
    assert (by_key["in/a/"].length, by_key["in/a/"].uri) == (3, f"s3://{backend.store.bucket}/in/a/")
    assert (by_key["in/b/"].length, len(by_key["in/b/"].frames)) == (1, 1)
    assert by_key["in/a/5.gif"].length is None


@pytest.mark.parametrize("dead", [1, 2, 3])
def test_a_planner_of_sequences_that_died_is_continued(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, dead: int
) -> None:
    # Given folders inside folders, whose planner dies over one of its shards,
    for path in ("a/1", "a/2/1", "a/2/5/1", "a/3", "b/1", "c/1", "c/a/1", "z"):
        backend.store.put(f"in/{path}.png", b"x")
    keys = begin(backend, shard_size=2, frames=8)
    die_over(backend, monkeypatch, keys.manifest(dead))
    with pytest.raises(StoreUnavailable):
        plan(backend, "job")
    monkeypatch.undo()

    # if another goes on, I expect every sequence once, as if nothing had been.
    plan(backend, "job")
    assert [name for shard in planned(backend, keys) for name in shard] == [
        "a/2/5/",
        "a/2/",
        "a/",
        "b/",
        "c/a/",
        "c/",
        "",
    ]


def test_of_too_many_frames_none_is_planned(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contract.data.sequences.MAX_FRAMES", 5)
    for n in range(6):
        backend.store.put(f"in/big/{n}.png", b"x")
        backend.store.put(f"in/fine/{n % 5}.png", b"x")
    keys = begin(backend, frames=3)

    plan(backend, "job")

    big, fine = read_manifest(backend.store.get(keys.manifest(0)))
    assert (big.length, big.frames) == (6, ())
    assert (fine.length, len(fine.frames)) == (5, 3)


@pytest.mark.parametrize("stopped_over", [0, 1, 2, 3])
def test_a_planner_that_wakes_up_late_leaves_one_plan(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, stopped_over: int
) -> None:
    # Given a planner that is stopped with a shard, or the end of the plan, in its hand,
    for n in range(10, 21):
        backend.store.put(f"in/{n}.jpg", b"x")
    keys = begin(backend)
    put = backend.store.put_if_absent
    stopped: list[str] = []

    def write(key: str, data: bytes) -> bool:
        if key == keys.manifest(stopped_over) and not stopped:
            stopped.append(key)
            # whose successor finds another source, plans all of it,
            backend.store.put("in/05-new.jpg", b"x")
            backend.store.put("in/99-new.jpg", b"x")
            plan(backend, "job")
        return put(key, data)

    monkeypatch.setattr(backend.store, "put_if_absent", write)

    # if it wakes and goes on, I expect one plan, in which no image is lost and none is doubled.
    plan(backend, "job")
    names = [name for shard in planned(backend, keys) for name in shard]
    assert stopped
    assert len(names) == len(set(names))
    assert set(names) >= {*(f"{n}.jpg" for n in range(10, 21)), "99-new.jpg"}
    status = backend.ledger.status("job")
    assert status is not None and status.total == len(names)


def test_two_planners_that_take_turns_make_one_plan(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given two planners of which each stops wherever the other may write, as SIGSTOP would have it,
    for n in range(10, 21):
        backend.store.put(f"in/{n}.jpg", b"x")
    keys = begin(backend)
    put = backend.store.put_if_absent
    depth = 0

    def write(key: str, data: bytes) -> bool:
        nonlocal depth
        if depth < 3 and key.startswith(keys.plan_prefix):
            depth += 1
            plan(backend, "job")
        return put(key, data)

    monkeypatch.setattr(backend.store, "put_if_absent", write)
    plan(backend, "job")
    names = [name for shard in planned(backend, keys) for name in shard]
    assert names == [f"{n}.jpg" for n in range(10, 21)]
