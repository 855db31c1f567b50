"""Items and manifests."""

from itertools import islice

import pytest

from contract.errors import InvalidSource
from contract.items import Item, is_image_name, item_of, parse_s3, read_manifest, shard_sizes, sharded, write_manifest


def test_a_manifest_reads_back_as_it_was_written() -> None:
    items = [
        Item("ünï/日本 #1.jpg", "s3://photos/ünï/日本 #1.jpg", size=7),
        Item("a\nb.jpg", "file:///a%0Ab.jpg", size=3, tar="s3://b/x.tar", offset=512),
        Item("gone.jpg", "file:///gone.jpg"),
    ]
    data = write_manifest(items)
    assert read_manifest(data) == items
    assert data.count(b"\n") == 3, "a line an item"


def test_the_first_shards_are_small() -> None:
    assert list(islice(shard_sizes(512), 6)) == [64, 128, 256, 512, 512, 512]
    assert list(islice(shard_sizes(100), 3)) == [64, 100, 100]
    assert list(islice(shard_sizes(16), 3)) == [16, 16, 16]


def test_shards_hold_every_item_once() -> None:
    items = [Item(str(n), "") for n in range(200)]
    shards = list(sharded(items, shard_sizes(100)))
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
