"""Headers that lie: each archive comes to an end, in little memory, with what could be read before the lie."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.data.tars import MAX_HEADER_BYTES, Tar
from tests.poisons import header, tar_of


def names(data: bytes) -> tuple[list[str], bool]:
    tar = Tar(io.BytesIO(data), len(data))
    found: list[str] = []
    with suppress(tarfile.ReadError):
        found.extend(member.name for member in tar)
    return found, tar.whole


def test_what_is_whole_is_read_whole() -> None:
    long = "folder/" * 40 + "é.png"
    assert names(tar_of(("a.png", b"x" * 700), (long, b""), ("b.png", b"1"))) == (["a.png", long, "b.png"], True)


def test_a_member_is_read_up_to_a_limit() -> None:
    data = tar_of(("a.cls", b"cat"), ("b.json", b" " * 100))
    tar = Tar(io.BytesIO(data), len(data))
    assert [tar.read(member, 50) for member in tar] == [b"cat", None]


GOOD = tar_of(("good.png", b"x"))[: 2 * 512]
LIES: dict[str, Callable[[], bytes]] = {
    "a negative size": lambda: header("bad.png", tarfile.REGTYPE, -1024),
    "a negative size in a pax header": lambda: tar_of(("bad.png", b"x"), pax_headers={"size": "-4096"}),
    "a name of four gigabytes": lambda: header("././@LongLink", tarfile.GNUTYPE_LONGNAME, 2**32),
    "a name of a hundred megabytes": lambda: header("././@LongLink", tarfile.GNUTYPE_LONGNAME, 10**8) + bytes(10**8),
    "pax headers of a hundred megabytes": lambda: header("pax", tarfile.XHDTYPE, 10**8) + b"9" * 10**8,
    "a thousand pax headers of one member": lambda: header("pax", tarfile.XHDTYPE, 0) * 5000,
    "a member beyond all numbers": lambda: header("bad.png", tarfile.REGTYPE, 2**80),
    "a sparse file without an end": lambda: (
        tar_of(("s", b"x"), pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})[:1536]
        + b"9" * 20
        + b"\n"
        + b"1\n" * 2_000_000
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_ends_the_archive_and_takes_no_memory(lie: str) -> None:
    data = GOOD + LIES[lie]() + bytes(1024)
    tracemalloc.start()
    found, whole = names(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[0] == "good.png"
    assert found == ["good.png"] or not whole
    # What it copied of the archive, a header at most, and what `tarfile` makes of it.
    assert peak < 30 * MAX_HEADER_BYTES


def test_a_million_members_are_not_kept() -> None:
    one = tar_of(("a.png", b""))[:512]
    data = one * 20_000 + bytes(1024)
    tracemalloc.start()
    tar = Tar(io.BytesIO(data), len(data))
    assert sum(1 for _ in tar) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), max_size=12),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.integers(0, 6000),
)
def test_any_bytes_are_a_tar_or_a_read_error(changes: list[tuple[int, int]], form: int, length: int) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as tar:
        for name in ("a.png", "é" * 120 + ".png", "b.cls"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    data = bytearray(made.getvalue())
    for place, value in changes:
        data[place * 16 % len(data)] = value
    names(bytes(data[:length]))
