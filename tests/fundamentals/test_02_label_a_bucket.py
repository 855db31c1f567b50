"""A prefix of a bucket goes in, whatever its keys look like."""

from __future__ import annotations

from pathlib import Path

from contract.backend.objects import ObjectStore
from tests.fundamentals.conftest import Label, Rows

HARD_TO_SPELL = [
    "with spaces in it.jpg",
    "größe/日本/Ωmega-🐨.jpg",
    "one+one.jpg",
    "100%.jpg",
    "50%25%2F.jpg",
    "#1.jpg",
    "what?is=this&that.jpg",
    """it's "quoted".jpg""",
    "a,b;c:d@e=f$g!h~(i)[j]{k}.jpg",
    "no-suffix",
    "UPPER.JPEG",
]


def test_every_key_is_read_as_it_is_written(
    label: Label, rows: Rows, camera: ObjectStore, photos: dict[str, Path]
) -> None:
    # Given objects with keys that are hard to spell in a web address,
    for key in HARD_TO_SPELL:
        camera.put(f"hard/{key}", photos["koala"].read_bytes())

    # if I label the prefix, I expect each to be found and labelled.
    job = label("s3://camera/hard/")
    found = rows(job)
    assert set(found) == {f"hard/{key}" for key in HARD_TO_SPELL}
    assert {row["label"] for row in found.values()} == {"koala"}
    assert {row["uri"] for row in found.values()} == {f"s3://camera/hard/{key}" for key in HARD_TO_SPELL}


def test_a_prefix_is_a_prefix(label: Label, rows: Rows, camera: ObjectStore, photos: dict[str, Path]) -> None:
    for key in ("2025/koala.jpg", "2026/koala.jpg", "2026/deep/down/koala.jpg", "2026-copy.jpg"):
        camera.put(f"years/{key}", photos["koala"].read_bytes())
    camera.put("years/2026/readme.md", b"# No image")

    # With a slash at its end it is a folder; without, whatever begins so.
    inside, beginning = label("s3://camera/years/2026/"), label("s3://camera/years/2026")

    assert set(rows(inside)) == {"years/2026/koala.jpg", "years/2026/deep/down/koala.jpg"}
    assert inside.skipped == 1
    assert set(rows(beginning)) == {*rows(inside), "years/2026-copy.jpg"}
