"""One bad image is one bad row, with a code that stays the same. It never fails its neighbours or its job."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import IMAGE_ERRORS
from producer import Client
from tests.fundamentals.conftest import MAX_BYTES, Label, Rows


def png(width: int, height: int, pixels: bytes) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.fixture(scope="module")
def hostile(photos: dict[str, Path]) -> dict[str, tuple[bytes, str]]:
    """Name → bytes, and the code that they must get."""
    koala = photos["koala"].read_bytes()
    small = png(8, 8, bytes(8 * 25))
    return {
        "empty.jpg": (b"", "empty_file"),
        "truncated.jpg": (koala[: len(koala) // 2], "truncated"),
        "truncated-in-its-header.jpg": (koala[:20], "truncated"),
        "text.jpg": (b"I am not an image, whatever my name says.\n" * 50, "not_an_image"),
        "page.png": (b"<!doctype html><title>404 Not Found</title>", "not_an_image"),
        "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
        "bomb.png": (png(60_000, 60_000, b"\0" * 1000), "too_many_pixels"),
        "too-long.jpg": (koala + bytes(MAX_BYTES), "too_many_bytes"),
        "bad-pixels.png": (small[:45] + bytes([small[45] ^ 255]) + small[46:], "decode_failed"),
    }


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_each_gets_its_code_and_the_others_their_labels(
    where: str,
    label: Label,
    rows: Rows,
    client: Client,
    camera: ObjectStore,
    folder: Path,
    hostile: dict[str, tuple[bytes, str]],
) -> None:
    # Given four good photos and every kind of bad file among them,
    for name, (data, _) in hostile.items():
        (folder / name).write_bytes(data)
    if where == "bucket":
        for path in folder.iterdir():
            camera.put(f"hostile/{path.name}", path.read_bytes())

    # if I label them,
    job = label(folder if where == "folder" else "s3://camera/hostile/")

    # I expect the job to succeed,
    assert (job.state, job.ok, job.errors) == ("succeeded", 4, len(hostile))
    found = {key.rpartition("/")[2]: row for key, row in rows(job).items()}

    # each bad file to be an error row with its code, a sentence, and no label,
    assert {name: found[name]["error_code"] for name in hostile} == {n: code for n, (_, code) in hostile.items()}
    for name in hostile:
        assert (found[name]["label"], found[name]["score"], found[name]["top_k"]) == (None, None, None)
        assert found[name]["error_message"].endswith(".")
        assert found[name]["error_code"] in IMAGE_ERRORS

    # and the good ones to have their labels.
    good = [found[f"{name}.jpg"]["label"] for name in ("espresso", "giant-panda", "koala", "polar-bear")]
    assert good == ["espresso", "giant panda", "koala", "ice bear"]

    # The failures alone are one call away, and their codes are counted.
    assert {row["key"].rpartition("/")[2] for row in client.errors(job.id)} == set(hostile)
    assert job.error_codes is not None
    assert job.error_codes["truncated"] == 2


def test_a_file_that_is_gone_when_the_folder_is_read(label: Label, rows: Rows, folder: Path) -> None:
    # A link that leads nowhere is what a file that vanished looks like.
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")

    job = label(folder)

    assert (job.ok, rows(job)["gone.jpg"]["error_code"]) == (4, "not_found")


def test_an_object_that_vanished_after_it_was_listed(
    label: Label, rows: Rows, camera: ObjectStore, photos: dict[str, Path], tmp_path: Path
) -> None:
    camera.put("vanishing/koala.jpg", photos["koala"].read_bytes())
    manifest = tmp_path / "list.csv"
    manifest.write_text(
        "uri\ns3://camera/vanishing/koala.jpg\ns3://camera/vanishing/gone.jpg\ns3://no-such-bucket/gone.jpg\n"
    )

    job = label(manifest)

    assert {key: row["error_code"] for key, row in rows(job).items()} == {
        "vanishing/koala.jpg": None,
        "vanishing/gone.jpg": "not_found",
        "gone.jpg": "address_refused",  # a bucket that nobody listed is not asked
    }


def test_nothing_but_broken_files(label: Label, rows: Rows, tmp_path: Path) -> None:
    for n in range(5):
        (tmp_path / f"{n}.jpg").write_bytes(b"no image")

    job = label(tmp_path, shard_size=2)

    assert (job.state, job.ok, job.errors) == ("succeeded", 0, 5)
    assert {row["error_code"] for row in rows(job).values()} == {"not_an_image"}
