"""A tar's headers are found by few requests where members are small, and without reading members that are large."""

from __future__ import annotations

import io
import tarfile
from typing import BinaryIO, cast

import pytest

from contract.backend.objects import ObjectStore
from contract.data.tars import Tar
from worker.sources.window import Window

MIB = 2**20


class Store:
    """Holds one object, and remembers what was read of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.read: list[tuple[int, int]] = []

    def get(self, _: str, *, bucket: str, offset: int, length: int) -> bytes:
        self.read.append((offset, length))
        return self.data[offset : offset + length]


def window(store: Store, size: int | None = None) -> Window:
    return Window(cast(ObjectStore, store), "b", "k", len(store.data) if size is None else size)


def tar_of(sizes: list[int]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for n, size in enumerate(sizes):
            member = tarfile.TarInfo(f"{n}.jpg")
            member.size = size
            tar.addfile(member, io.BytesIO(bytes(size)))
    return sink.getvalue()


def walked(sizes: list[int]) -> Store:
    """Return the store after the headers of a tar with members of these sizes were read."""
    store = Store(tar_of(sizes))
    assert [member.size for member in Tar(cast(BinaryIO, window(store)), len(store.data))] == sizes
    return store


def test_small_members_are_read_over_by_few_requests() -> None:
    store = walked([60_000] * 500)  # 30 MB
    assert len(store.read) <= 8
    assert sum(length for _, length in store.read) <= len(store.data)


def test_large_members_are_jumped() -> None:
    store = walked([3 * MIB] * 10)
    assert sum(length for _, length in store.read) < len(store.data) / 10


def test_members_that_become_small_again_are_read_over() -> None:
    store = walked([3 * MIB] * 4 + [60_000] * 500)
    assert len(store.read) <= 4 + 12


def test_it_reads_as_a_file_does() -> None:
    data = bytes(range(256)) * 1000
    ours, theirs = window(Store(data)), io.BytesIO(data)
    for place, whence, size in [(0, 0, 10), (5, 1, 7), (-9, 2, 100), (300, 0, -1), (10**9, 0, 5), (3, 0, 0), (2, 0, 9)]:
        assert ours.seek(place, whence) == theirs.seek(place, whence)
        assert ours.read(size) == theirs.read(size)
        assert ours.tell() == theirs.tell()
    with pytest.raises(ValueError, match="before the start"):
        ours.seek(-1)


def test_an_object_that_became_shorter_ends_early() -> None:
    assert window(Store(b"abc"), size=10).read(10) == b"abc"
