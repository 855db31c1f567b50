"""A page of a listing: what stores answer, odd names, folders, and what is no listing."""

from __future__ import annotations

import pytest

from contract.backend.listing import Entry, parse_page
from contract.backend.objects import ObjectStore

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
AMAZON = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
STAMP = (
    '<LastModified>2026-11-26T02:00:00.000Z</LastModified><ETag>"0"</ETag><Size>7</Size><StorageClass>S</StorageClass>'
)
AT = 1795658400.0


def page(
    *names: str, more: bool = False, space: str = AMAZON, url: bool = True, prefixes: tuple[str, ...] = ()
) -> bytes:
    contents = "".join(f"<Contents><Key>{name}</Key>{STAMP}</Contents>" for name in names)
    folders = "".join(f"<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>" for prefix in prefixes)
    encoding = "<EncodingType>url</EncodingType>" if url else ""
    truncated = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
    return f"{HEAD}<ListBucketResult{space}>{encoding}{truncated}{contents}{folders}</ListBucketResult>".encode()


@pytest.mark.parametrize("space", [AMAZON, ""])
def test_a_page_names_keys_sizes_and_times(space: str) -> None:
    found = parse_page(page("a/1.jpg", "a/2.jpg", space=space), folders=False)
    assert found.entries == [Entry("a/1.jpg", 7, AT, "0"), Entry("a/2.jpg", 7, AT, "0")]
    assert found.after == "", "it is the last page"


def test_names_are_decoded_only_if_the_store_says_that_they_are_encoded() -> None:
    assert parse_page(page("a%2Fb+c%C3%A4"), folders=False).entries[0].key == "a/b cä"
    assert parse_page(page("a%2Fb+c", url=False), folders=False).entries[0].key == "a%2Fb+c"
    assert parse_page(page("a&amp;b", url=False), folders=False).entries[0].key == "a&b"


def test_an_empty_folder_is_no_object_and_the_listing_goes_on_behind_it() -> None:
    # Given a full page whose last key marks a folder, I expect it to be left out and the next page to begin behind it.
    found = parse_page(page("a/1.jpg", "b/", more=True), folders=False)
    assert ([entry.key for entry in found.entries], found.after) == (["a/1.jpg"], "b/")
    nothing = parse_page(page("b/", more=True), folders=False)
    assert (nothing.entries, nothing.after) == ([], "b/")


def test_folders_come_in_the_order_of_the_keys_and_are_passed_as_a_whole() -> None:
    found = parse_page(page("b.jpg", "z.jpg", prefixes=("a/", "c/"), more=True), folders=True)
    assert [entry.key for entry in found.entries] == ["a/", "b.jpg", "c/", "z.jpg"]
    assert found.after == "z.jpg", "not behind the last folder, which would list z.jpg again"
    found = parse_page(page("b.jpg", prefixes=("c/",), more=True), folders=True)
    assert found.after == "c/" + chr(0x10FFFF)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no XML"),
        (page("a")[:-30], "no XML"),
        (b"<Error><Code>X</Code></Error>", "'Error'"),
        (b"<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>", "without a name"),
        (b"<ListBucketResult><Contents><Key>a</Key><Size>big</Size></Contents></ListBucketResult>", "big"),
    ],
)
def test_what_is_no_listing_is_said(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_page(data, folders=False)


def test_a_listing_is_the_sdks(store: ObjectStore) -> None:
    # Given keys with all that a URL or XML would change,
    wanted = sorted(("odd/a b+c%20.jpg", "odd/<&>'\".jpg", "odd/ä/日.png", "odd/plain.jpg"), key=str.encode)
    for key in wanted:
        store.put(key, b"123")
    # I expect the same objects as the SDK lists.
    found = list(store.list("odd/"))
    sdk = list(store._minio.list_objects(bucket_name=store.bucket, prefix="odd/", recursive=True))
    assert [(one.key, one.size) for one in found] == [(one.object_name, one.size) for one in sdk]
    assert [one.key for one in found] == wanted
