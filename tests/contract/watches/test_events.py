"""What object stores send about what was written is read the same, whoever sends it; all else is one sentence."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InvalidEvent
from contract.watches.events import MAX_EVENTS, Event, parse_events


def record(key: str, name: str = "ObjectCreated:Put", **object: Any) -> dict[str, Any]:
    """One record, as AWS sends it."""
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventTime": "2026-11-26T08:00:00.500Z",
        "eventName": name,
        "s3": {"bucket": {"name": "photos"}, "object": {"key": key, **object}},
    }


def filed(type: str = "create", name: str = "x.jpg", folder: str = "/buckets/photos/in", **more: Any) -> dict[str, Any]:
    """What the filer of SeaweedFS 4.48 sends."""
    etag = base64.b64encode(b"5d41402abc4b2a76b9719d911017c592").decode()
    entry = {
        "name": name,
        "attributes": {"file_size": 5, "mtime": 1795682770},
        "extended": {"Seaweed-X-Amz-ETag": etag},
        **more,
    }
    message = {"new_entry": entry, "new_parent_path": folder}
    return {"event_type": type, "key": f"{folder}/{name}", "message": message}


def cloud(data: Any, type: str = "com.amazonaws.s3.ObjectCreated:Put") -> dict[str, Any]:
    return {"specversion": "1.0", "id": "1", "source": "urn:here", "type": type, "data": data}


def parsed(value: Any) -> list[Event]:
    return parse_events(json.dumps(value).encode())


# What is read


def test_keys_of_s3_records_are_decoded() -> None:
    # Given a key with a space, a plus, a percent sign and an umlaut, as AWS encodes it
    found = parsed({"Records": [record("in/a+b%2Bc%25%C3%A9.jpg", eTag='"0123abc"', size=7)]})
    assert found == [Event("photos", "in/a b+c%é.jpg", "0123abc", 7, 1795680000.5)]


def test_paths_of_seaweedfs_are_taken_as_they_are() -> None:
    found = parsed(filed(name="a+b%41 é.jpg"))
    assert found == [Event("photos", "in/a+b%41 é.jpg", "5d41402abc4b2a76b9719d911017c592", 5, 1795682770.0)]


def test_a_renamed_object_is_where_it_is_now() -> None:
    event = filed("rename", name="new.jpg")
    event["key"] = "/buckets/photos/old/old.jpg"
    assert [found.key for found in parsed(event)] == ["in/new.jpg"]


@pytest.mark.parametrize(
    "event",
    [
        {"Records": [record("x.jpg", "ObjectRemoved:Delete"), record("x.jpg", "s3:ObjectTagging:Put")]},
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "photos"},
        {"Records": []},
        filed("delete"),
        filed(is_directory=True),
        filed(folder="/etc/iam"),
        filed(folder="/buckets", is_directory=False),
        filed(folder="/buckets/photos/.uploads/1f"),
        cloud({"bucket": "photos", "name": "x.jpg"}, "google.cloud.storage.object.v1.deleted"),
    ],
)
def test_what_writes_no_object_is_left_out(event: dict[str, Any]) -> None:
    assert parsed(event) == []


@pytest.mark.parametrize(
    "data",
    [
        {"Records": [record("in/x.jpg")]},
        record("in/x.jpg"),
        filed(),
        {"bucket": {"name": "photos"}, "object": {"key": "in/x.jpg"}},
        {"bucket": "photos", "key": "in/x.jpg"},
        {"bucket": "photos", "name": "in/x.jpg", "updated": "2026-11-26T08:00:00Z", "size": "5"},
    ],
)
def test_a_cloud_event_holds_any_of_them(data: Any) -> None:
    for body in (cloud(data), [cloud(data)]):
        assert [(event.bucket, event.key) for event in parsed(body)] == [("photos", "in/x.jpg")]


def test_a_batch_holds_many() -> None:
    batch = [cloud({"bucket": "photos", "key": f"in/{number}.jpg"}) for number in range(3)]
    assert [event.key for event in parsed(batch)] == ["in/0.jpg", "in/1.jpg", "in/2.jpg"]


@pytest.mark.parametrize("size", [-1, "x", True, None, [], 1e300, "9" * 30])
def test_a_figure_that_makes_no_sense_is_left_out(size: Any) -> None:
    (event,) = parsed({"Records": [record("x.jpg", size=size, eTag=size)]})
    assert event.size is None


# What is refused


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"<xml/>", "no JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"Records": [' + b"9" * 5000 + b"]}", "no JSON"),
        (b"{}", "none of S3 records"),
        (b"[]", ""),
        (b"[1]", "batch of CloudEvents"),
        (b"null", "none of S3 records"),
        (b'{"Records": {}}', "none of S3 records"),
        (b'{"Records": [null]}', "names no bucket and key"),
        (b'{"Records": [{"s3": {"bucket": {"name": 1}, "object": {"key": "x"}}}]}', "names no bucket and key"),
        (b'{"specversion": "0.3", "type": "x"}', "version 1.0"),
        (b'{"specversion": "1.0"}', "no `type`"),
        (b'{"specversion": "1.0", "type": "x", "data": "text"}', "names no bucket and key"),
        (json.dumps({"Records": [record("%FF.jpg")]}).encode(), "no URL-encoded key"),
        (json.dumps({"Records": [record("x.jpg")] * (MAX_EVENTS + 1)}).encode(), "more than 10,000 events"),
    ],
)
def test_what_cannot_be_understood_is_one_sentence(body: bytes, says: str) -> None:
    if not says:
        assert parse_events(body) == []
        return
    with pytest.raises(InvalidEvent, match=says) as caught:
        parse_events(body)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "key",
    [
        *("", "a\nb", "a\x00b", "a\x1b[2J", "\ud800", "x" * 1025, "é" * 513),
        *("../secret", "in/../../etc/passwd", "in/./x", ".."),
    ],
)
def test_a_key_that_no_object_should_have_is_refused(key: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        parsed(cloud({"bucket": "photos", "key": key}))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("bucket", ["", "a/b", "..", "a\nb", "x" * 300, "é" * 5])
def test_a_bucket_that_cannot_be_is_refused(bucket: str) -> None:
    with pytest.raises(InvalidEvent, match="no name of a bucket"):
        parsed(cloud({"bucket": bucket, "key": "x"}))


_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("Records", "s3", "bucket", "object", "key", "name", "event_type", "message", "new_entry"),
                    *("specversion", "type", "data", "extended", "attributes", "Seaweed-X-Amz-ETag", "mtime"),
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


@given(_json | st.builds(lambda data: cloud(data), _json) | st.builds(lambda entry: filed(extended=entry), _json))
def test_no_json_makes_it_fail_in_another_way(value: Any) -> None:
    try:
        found = parsed(value)
    except InvalidEvent:
        return
    assert all(event.bucket and event.key for event in found)
