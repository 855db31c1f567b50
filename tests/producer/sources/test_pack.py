"""Local images are packed into one tar a shard; a manifest says where each one's bytes are."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest

from contract.data.items import Item, read_manifest
from contract.errors import JobConflict
from contract.jobs.status import Plan
from contract.keys.jobs import JobKeys
from producer.sources import images
from producer.sources.folders import Local, LocalFile, LocalSequence
from producer.sources.images import Packed
from producer.sources.pack import Progress, cut, difference, pack
from producer.sources.tar_writer import write_tar
from tests.producer.fakes import MemoryLedger, MemoryStore, as_store, backend, spec

KEYS = JobKeys("job")


def folder_of(path: Path, **files: bytes) -> Packed:
    path.mkdir(exist_ok=True)
    for name, data in files.items():
        (path / f"{name}.jpg").write_bytes(data)
    found = images.resolve(str(path), as_store(MemoryStore()))
    assert isinstance(found, Packed)
    return found


def local(path: Path, key: str) -> LocalFile:
    return LocalFile(key, str(path), path.stat().st_size)


def tar_of(tmp_path: Path, *files: Local, max_bytes: int = 1000) -> tuple[list[Item], bytes]:
    target = tmp_path / "out.tar"
    items = write_tar(files, target, "s3://mill/out.tar", max_bytes=max_bytes, done=lambda: None)
    return items, target.read_bytes()


# One tar


def test_offsets_point_to_the_bytes_and_any_tar_program_reads_the_archive(tmp_path: Path) -> None:
    contents = {"a.jpg": b"first", "ü " * 100 + ".jpg": b"x" * 700, "in/empty.jpg": b""}
    files = []
    for number, (key, data) in enumerate(contents.items()):
        (tmp_path / str(number)).write_bytes(data)
        files.append(local(tmp_path / str(number), key))

    items, tar = tar_of(tmp_path, *files)

    for item, (key, data) in zip(items, contents.items(), strict=True):
        assert (item.key, item.size, item.tar) == (key, len(data), "s3://mill/out.tar")
        assert item.offset is not None
        assert tar[item.offset : item.offset + len(data)] == data
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        read = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert read == contents


def test_a_file_that_vanished_is_an_item_without_tar_and_size(tmp_path: Path) -> None:
    gone = LocalFile("gone.jpg", str(tmp_path / "gone.jpg"), 5)

    items, _ = tar_of(tmp_path, gone)

    assert items == [Item(key="gone.jpg", uri=gone.uri)]


def test_a_file_over_the_limit_is_an_item_with_its_size_alone(tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(b"x" * 11)

    items, tar = tar_of(tmp_path, local(tmp_path / "large.jpg", "large.jpg"), max_bytes=10)

    assert items == [Item(key="large.jpg", uri=(tmp_path / "large.jpg").as_uri(), size=11)]
    assert not tar.strip(b"\0")


def test_a_file_that_breaks_off_leaves_no_half_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    breaks = iter([True, False])
    monkeypatch.setattr(
        "producer.sources.tar_writer._copy", lambda source, target, size: not next(breaks) and target.write(b"b")
    )

    items, tar = tar_of(tmp_path, local(tmp_path / "a", "a.jpg"), local(tmp_path / "b", "b.jpg"))

    assert items[0] == Item(key="a.jpg", uri=(tmp_path / "a").as_uri())
    assert items[1].offset == tarfile.BLOCKSIZE
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert archive.getnames() == ["b.jpg"]


def test_the_frames_of_a_sequence_are_packed_and_a_bad_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"one")
    frames = (local(tmp_path / "1.png", "walk/1.png"), LocalFile("walk/2.png", str(tmp_path / "2.png"), None))
    sequence = LocalSequence("walk/", f"{tmp_path.as_uri()}/", frames, length=9, label="left")

    (item,), tar = tar_of(tmp_path, sequence)

    first, second = item.frames
    assert (item.key, item.uri, item.length, item.label) == ("walk/", f"{tmp_path.as_uri()}/", 9, "left")
    assert first.offset is not None and tar[first.offset :].startswith(b"one")
    assert (item.tar, first.tar, second.tar, second.size) == ("s3://mill/out.tar", "s3://mill/out.tar", None, None)


def test_a_sequence_over_ten_times_the_limit_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"12345")
    frames = (local(tmp_path / "1.png", "1.png"),) * 3

    (item,), tar = tar_of(tmp_path, LocalSequence("./", "file:///x/", frames, length=3), max_bytes=1)

    assert item == Item("./", "file:///x/", size=15, length=3)
    assert not tar.strip(b"\0")


# Shards


def test_shards_are_cut_by_count_and_by_bytes() -> None:
    files = [LocalFile(str(n), f"/{n}", size) for n, size in enumerate([1, 1, 1, 50, 50, 500, None])]

    shards = [[file.key for file in shard] for shard in cut(files, repeat(2), 99)]

    assert shards == [["0", "1"], ["2", "3"], ["4"], ["5"], ["6"]]


def test_a_shard_is_tar_then_manifest_then_ledger_and_the_plan_comes_last(tmp_path: Path) -> None:
    store, ledger = MemoryStore(), MemoryLedger()
    seen: list[Progress] = []

    pack(
        backend(store, ledger),
        spec(shard_size=2),
        folder_of(tmp_path / "photos", a=b"1", b=b"22", c=b"333"),
        max_bytes=100,
        progress=seen.append,
    )

    assert store.writes == [KEYS.tar(0), KEYS.manifest(0), KEYS.tar(1), KEYS.manifest(1), KEYS.plan]
    assert ledger.told == [("planned", 0, 2), ("planned", 1, 1), ("complete", 2, 3)]
    assert ledger.sent == 2
    assert Plan.model_validate_json(store.objects[KEYS.plan]) == Plan(shards=2, items=3, skipped=0)
    assert seen[-1] == Progress(packed=3, uploaded=3, total=3)
    (item,) = read_manifest(store.objects[KEYS.manifest(1)])
    assert item.tar == f"s3://mill/{KEYS.tar(1)}"
    assert store.get(KEYS.tar(1), offset=item.offset or 0, length=item.size) == b"333"


def test_a_second_call_goes_on_behind_the_shards_that_are_there(tmp_path: Path) -> None:
    store, photos = MemoryStore(), folder_of(tmp_path / "photos", a=b"1", b=b"22", c=b"333")
    pack(backend(store, MemoryLedger()), spec(), photos, max_bytes=100)
    for key in (KEYS.plan, KEYS.manifest(1)):
        del store.objects[key]
    store.writes.clear()

    ledger = MemoryLedger()
    pack(backend(store, ledger), spec(), photos, max_bytes=100)

    assert store.writes == [KEYS.tar(1), KEYS.manifest(1), KEYS.plan]
    assert ledger.told == [("planned", 0, 2), ("planned", 1, 1), ("complete", 2, 3)]


def test_packing_sequences_goes_on_too_and_a_frame_more_is_a_change(tmp_path: Path) -> None:
    # Given three sequences in shards of two, whose packing ended before the second,
    store = MemoryStore()
    for name in ("a/1", "a/2", "b/1", "c/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    found = images.resolve(str(tmp_path), as_store(MemoryStore()), 8)
    assert isinstance(found, Packed)
    pack(backend(store, MemoryLedger()), spec(), found, max_bytes=100)
    for key in (KEYS.plan, KEYS.manifest(1)):
        del store.objects[key]
    store.writes.clear()

    # I expect the second shard alone to be packed,
    pack(backend(store, MemoryLedger()), spec(), found, max_bytes=100)
    assert store.writes == [KEYS.tar(1), KEYS.manifest(1), KEYS.plan]
    first, _ = read_manifest(store.objects[KEYS.manifest(0)])
    offsets = [(frame.offset or 0, frame.size) for frame in first.frames]
    assert [store.get(KEYS.tar(0), offset=offset, length=size) for offset, size in offsets] == [b"a/1", b"a/2"]

    # and to be told when a sequence of the first is another by now.
    del store.objects[KEYS.plan]
    (tmp_path / "a" / "3.png").write_bytes(b"")
    with pytest.raises(JobConflict, match="'a/' in shard 0 is not what was packed"):
        pack(backend(store, MemoryLedger()), spec(), found, max_bytes=100)


def test_a_folder_that_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    photos = folder_of(tmp_path / "photos", a=b"1", b=b"22", c=b"333")
    pack(backend(store, MemoryLedger()), spec(), photos, max_bytes=100)
    del store.objects[KEYS.plan]
    (tmp_path / "photos" / "a.jpg").write_bytes(b"another")

    with pytest.raises(JobConflict, match=r"'a\.jpg' in shard 0 is not what was packed"):
        pack(backend(store, MemoryLedger()), spec(), photos, max_bytes=100)


def test_a_job_that_is_canceled_meanwhile_is_not_planned_to_its_end(tmp_path: Path) -> None:
    store = MemoryStore()

    pack(
        backend(store, MemoryLedger(state="canceled")),
        spec(shard_size=1),
        folder_of(tmp_path / "photos", a=b"1", b=b"2", c=b"3"),
        max_bytes=100,
    )

    assert KEYS.plan not in store.objects


def test_a_file_that_could_not_be_read_may_have_any_size() -> None:
    files = [LocalFile("a", "/a", 5), LocalFile("b", "/b", None)]

    assert difference(files, [Item("a", "file:///a"), Item("b", "file:///b", size=3)]) is None
    assert difference(files, [Item("a", "file:///a", size=6), Item("b", "file:///b")]) == "a"
    assert difference(files, [Item("a", "file:///a")]) == "b"


def test_a_sequence_with_more_frames_than_before_has_changed() -> None:
    frame = LocalFile("a/1", "/a/1", 5)
    files: list[Local] = [LocalSequence("a/", "file:///a/", (frame,), length=3)]
    there = Item.of_frames("a/", "file:///a/", [Item("a/1", "file:///a/1", size=5)], length=3)

    assert difference(files, [there]) is None
    assert difference(files, [replace(there, length=4)]) == "a/"
