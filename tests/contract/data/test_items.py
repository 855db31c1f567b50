"""Items and manifests."""

import json
from dataclasses import replace
from itertools import chain, repeat
from pathlib import PurePosixPath

import pytest

from contract.data.items import (
    IMAGE_SUFFIXES,
    Item,
    is_image_name,
    item_of,
    parse_s3,
    read_manifest,
    sharded,
    write_manifest,
)
from contract.errors import InvalidSource


def test_a_manifest_reads_back_as_it_was_written() -> None:
    items = [
        Item("ünï/日本 #1.jpg", "s3://photos/ünï/日本 #1.jpg", size=7),
        Item("a\nb.jpg", "file:///a%0Ab.jpg", size=3, tar="s3://b/x.tar", offset=512),
        Item("gone.jpg", "file:///gone.jpg"),
    ]
    data = write_manifest(items)
    assert read_manifest(data) == items
    assert data.count(b"\n") == 3, "a line an item"


def frames(*addresses: str, **fields: int | str) -> list[Item]:
    return [replace(item_of(address), **fields) for address in addresses]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "sequence",
    [
        Item.of_frames("in/a/", "s3://b/in/a/", frames("s3://b/in/a/1.png", "s3://b/in/a/2.png", size=7), length=9),
        Item.of_frames("m#1", "s3://b/m#1", frames("s3://b/x/1.png", "https://h/2.png?v=a/b"), length=2),
        Item.of_frames("m#2", "s3://b/m#2", frames("s3://b/x/1.png"), length=1),
        Item.of_frames(
            "m#3", "file:///m#3", frames("file:///a%20/1", tar="s3://b/t.tar", size=3, offset=512), length=1
        ),
        Item.of_frames("big/", "s3://b/big/", (), length=100_001),
    ],
)
def test_a_sequence_reads_back_with_its_frames(sequence: Item) -> None:
    assert read_manifest(write_manifest([sequence])) == [sequence]


def test_frames_say_once_what_they_have_in_common() -> None:
    names = [f"s3://bucket/a/long/prefix/of/folders/frame-{n}.png" for n in range(64)]
    sequence = Item.of_frames("of/folders/", "s3://bucket/of/folders/", frames(*names, size=1000), length=64)
    assert len(write_manifest([sequence])) < 64 * 27


def test_a_label_is_written_where_it_is_wanted() -> None:
    item = Item("a/1.png", "s3://b/a/1.png", label="a")
    assert read_manifest(write_manifest([item])) == [replace(item, label=None)]
    assert read_manifest(write_manifest([item], labels=True)) == [item]


def test_a_shard_of_long_sequences_is_closed_early() -> None:
    items = [Item.of_frames(str(n), "", frames("s3://b/1", "s3://b/2"), length=2) for n in range(5)]
    assert [len(shard) for shard in sharded(items, repeat(4), max_frames=5)] == [2, 2, 1]
    assert [len(shard) for shard in sharded(items, repeat(4), max_frames=1)] == [1] * 5, "one fits always"


def test_shards_hold_every_item_once() -> None:
    items = [Item(str(n), "") for n in range(200)]
    shards = list(sharded(items, chain([64], repeat(100))))
    assert [len(shard) for shard in shards] == [64, 100, 36]
    assert [item for shard in shards for item in shard] == items


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("a.jpg", True),
        ("a/b.JPEG", True),
        ("no-suffix", True),
        ("notes.txt", False),
        (".hidden.jpg", False),
        ("folder/", False),
    ],
)
def test_what_counts_as_an_image_by_its_name(name: str, taken: bool) -> None:
    assert is_image_name(name) is taken


def test_keys_are_taken_as_they_stand() -> None:
    assert parse_s3("s3://photos/100%25 #1?.jpg") == ("photos", "100%25 #1?.jpg")
    assert item_of("s3://photos/a b.jpg") == Item("a b.jpg", "s3://photos/a b.jpg")
    assert item_of("https://example.org/a%20b.jpg?v=1").key == "example.org/a b.jpg"
    with pytest.raises(InvalidSource, match=r"write it as s3://bucket/prefix"):
        parse_s3("s3:///key")


@pytest.mark.parametrize(
    "item",
    [
        Item("a.jpg", "s3://b/a.jpg", size=0),
        Item('q"\\uote\n\x00.jpg', 's3://b/q"\\uote', size=7, label="x"),
        Item("日本/ä\u2028.png", "s3://b/日本/ä", size=2**40),
    ],
)
def test_a_line_of_a_single_file_is_the_json_that_any_other_line_is(item: Item) -> None:
    fields = {"key": item.key, "uri": item.uri, "size": item.size}
    assert item.to_line() == json.dumps(fields, ensure_ascii=False)
    assert Item.from_line(item.to_line(label=True).encode()) == item


@pytest.mark.parametrize(
    "name", ["a/b.jpg", "b", "b.", ".b.jpg", "a/.jpg", "x/", "", "a.b/c", "a/b.JPG", "b.txt", "a.jpg/b.gz"]
)
def test_a_name_is_judged_as_that_of_a_path(name: str) -> None:
    path = PurePosixPath(name)
    hidden = path.name.startswith(".") or not path.name or name.endswith("/")
    assert is_image_name(name) == (not hidden and (path.suffix == "" or path.suffix.lower() in IMAGE_SUFFIXES))
