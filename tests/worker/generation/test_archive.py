"""The tar of a shard is what tarfile would write, and its index leads to every file in it."""

from __future__ import annotations

import io
import tarfile

import pyarrow.parquet as pq
import pytest

from contract.data.image_index import sample_key, sha256
from worker.generation import tar_writer
from worker.generation.archive import Archive, Row, index

SIZES = (0, 1, 511, 512, 513, 5_000)


def by_tarfile(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


def by_ustar(files: dict[str, bytes]) -> bytes:
    members = b"".join(tar_writer.member(name, data) for name, data in files.items())
    return members + tar_writer.end(len(members))


@pytest.mark.parametrize("count", [0, 1, 9, 10, 60])
def test_an_archive_is_byte_for_byte_what_tarfile_writes(count: int) -> None:
    # Given files of all kinds of sizes, and so many that the archive ends anywhere in its last record,
    files = {f"{sample_key(n, 7 * n)}.png": b"\xa7" * SIZES[n % len(SIZES)] for n in range(count)}
    assert by_ustar(files) == by_tarfile(files)


def test_a_name_may_have_a_hundred_bytes() -> None:
    assert by_ustar({"ü" * 50: b"1"}) == by_tarfile({"ü" * 50: b"1"})
    with pytest.raises(ValueError, match="too long"):
        tar_writer.member("ü" * 50 + "n", b"1")


def row(number: int) -> Row:
    return {"key": sample_key(3, number), "label": "größe", "accepted": True, "sha256": None, "offset": None}


def test_the_index_leads_to_each_file_of_the_tar() -> None:
    # Given an archive with images, and a candidate that was rejected between them,
    archive = Archive("webp")
    images = [bytes([n]) * size for n, size in enumerate(SIZES)]
    for n, image in enumerate(images):
        archive.add(row(n), image, {"label": "größe", "index": n})
    archive.reject(row(99) | {"accepted": False})
    data = archive.close()

    # I expect tarfile to read image and facts of each,
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
        assert names == [f"{sample_key(3, n)}{suffix}" for n in range(len(SIZES)) for suffix in (".webp", ".json")]
        facts = tar.extractfile(names[3])
        assert facts is not None and facts.read().decode() == '{"label": "größe", "index": 1}'

    # and the index to tell where the bytes of each are, and of the rejected one nothing.
    *kept, rejected = pq.read_table(io.BytesIO(index(archive.rows, "generate"))).to_pylist()
    for found, image in zip(kept, images, strict=True):
        assert data[found["offset"] : found["offset"] + found["size"]] == image
        assert found["sha256"] == sha256(image)
    assert (rejected["offset"], rejected["size"], rejected["sha256"]) == (None, None, None)
