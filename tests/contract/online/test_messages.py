"""Requests and replies: what is written is read, and nothing else is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import RequestTooLarge
from contract.online import messages
from contract.online.frames import MalformedFrameError, pack, unpack
from contract.online.messages import Classify, Generate, Reply, RequestId, read_reply, read_request, write_request

ASKER = "0" * 32
CLASSIFY = Classify(reply_to=ASKER, keys=("a.jpg", "b"), top_k=3)


def head(frame: bytes, **changes: Any) -> bytes:
    """The same frame with another head."""
    length = int.from_bytes(frame[:4], "big")
    text = json.dumps(json.loads(frame[4 : 4 + length]) | changes).encode()
    return len(text).to_bytes(4, "big") + text + frame[4 + length :]


def test_what_is_written_is_read() -> None:
    assert read_request(write_request(CLASSIFY, [b"\xff\xd8", b""])) == (CLASSIFY, [b"\xff\xd8", b""])
    generate = Generate(reply_to=ASKER, classes=("7",), seed=2**32 - 1, count=64, truncation=0.5)
    assert read_request(write_request(generate)) == (generate, [])
    reply = Reply(id="x", outcome="done", rows=({"key": "a", "score": 0.5},))
    assert read_reply(messages.write_reply(reply, [b"png"])) == (reply, [b"png"])


@given(pieces=st.lists(st.binary(max_size=50), max_size=5), text=st.text(max_size=20))
def test_any_pieces_come_back(pieces: list[bytes], text: str) -> None:
    assert unpack(pack({"a": text}, pieces), head_bytes=1000, pieces=5) == ({"a": text}, pieces)


@given(st.binary(max_size=200))
def test_random_bytes_are_no_request(data: bytes) -> None:
    with pytest.raises(MalformedFrameError):
        read_request(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "train"},
        {"kind": None},
        {"reply_to": "../../imagemill:jobs"},
        {"keys": []},
        {"keys": ["a"]},
        {"keys": ["a"] * 65},
        {"keys": ["x" * 2000, "b"]},
        {"top_k": 0},
        {"top_k": 10**9},
        {"top_k": "many"},
        {"extra": 1},
        {"sizes": [2, -2]},
        {"sizes": [2, 1.0]},
        {"sizes": [True, 2]},
        {"sizes": [10**12, 1]},
        {"sizes": None},
        {"sizes": [0] * 1000},
    ],
    ids=str,
)
def test_a_head_that_nobody_of_ours_writes_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedFrameError):
        read_request(head(write_request(CLASSIFY, [b"ab", b"c"]), **changes))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff{}",
        b"\x00\x00\x00\x02[]",
        b"\x00\x00\x00\x02{]",
        (2 * 30_000).to_bytes(4, "big") + b"[" * 30_000 + b"]" * 30_000,
        write_request(CLASSIFY, [b"ab", b"c"]) + b"more",
        write_request(CLASSIFY, [b"ab", b"c"])[:-1],
    ],
    ids=lambda frame: repr(frame[:12]),
)
def test_bytes_that_are_no_frame_are_refused(frame: bytes) -> None:
    with pytest.raises(MalformedFrameError):
        read_request(frame)


def test_a_request_is_bounded_when_it_is_written_and_when_it_is_read() -> None:
    large = bytes(messages.MOST_BYTES)
    with pytest.raises(RequestTooLarge, match=r"16\.0 MiB.*`imagemill classify`"):
        write_request(Classify(reply_to=ASKER, keys=("a",)), [large])
    with pytest.raises(MalformedFrameError):
        read_request(pack(Classify(reply_to=ASKER, keys=("a",)).model_dump(), [large]))


def test_an_answer_of_images_is_bounded_by_their_pixels() -> None:
    assert messages.bytes_of_images(64, 256, 3) < messages.MOST_BYTES
    with pytest.raises(RequestTooLarge, match=r"64 images of 512 × 512 pixels have 48\.1 MiB.*`imagemill generate`"):
        messages.bytes_of_images(64, 512, 3)


def test_the_longest_names_in_the_longest_spelling_are_read() -> None:
    request = Classify(reply_to=ASKER, keys=("🙂" * 1024,) * messages.MOST_IMAGES)
    assert read_request(write_request(request, [b""] * messages.MOST_IMAGES))[0] == request


def test_an_id_says_what_a_request_weighs() -> None:
    id = RequestId.new(3, 1234, "efficientnet-lite0@1")
    assert RequestId.parse(str(id)) == id


@pytest.mark.parametrize("text", ["", "x", f"{ASKER}-1-1-../../x@1", f"{ASKER}-1-1-a@1\n", f"{ASKER}--1-1-a@1"])
def test_another_text_is_no_id(text: str) -> None:
    assert RequestId.parse(text) is None
