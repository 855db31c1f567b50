"""Messages through a pipe: what is not whole yet is kept, and what is no message closes the conversation."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from contract.data.children.messages import Closed, Receiver, prepare, send

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe whose both ends know deadlines."""
    ends = os.pipe()
    for end in ends:
        prepare(end)
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


def test_messages_come_one_by_one_with_their_bytes(pipe: Pipe) -> None:
    send(pipe[1], {"n": 1}, [b"one", memoryview(b"two")])
    send(pipe[1], {"n": 2})
    receiver = Receiver(pipe[0])
    assert receiver.receive(6, seconds=10) == ({"n": 1}, b"onetwo")
    assert receiver.receive(seconds=10) == ({"n": 2}, b"")


def test_more_than_a_pipe_holds_goes_through(pipe: Pipe) -> None:
    data = os.urandom(5 * 2**20)
    threading.Thread(target=send, args=(pipe[1], {}, [data]), kwargs={"seconds": 60}).start()
    assert Receiver(pipe[0]).receive(len(data), seconds=60)[1] == data


def test_half_a_message_is_kept_when_the_time_is_over(pipe: Pipe) -> None:
    # Given a side that writes a message in pieces,
    inner = os.pipe()
    send(inner[1], {"n": 1}, [b"bytes"])
    whole = os.read(inner[0], 1000)
    for end in inner:
        os.close(end)
    receiver = Receiver(pipe[0])
    for piece in (whole[:5], whole[5:14], whole[14:-1]):
        os.write(pipe[1], piece)
        # if the time is over before the last, I expect to be told,
        with pytest.raises(TimeoutError):
            receiver.receive(5, seconds=0)
    os.write(pipe[1], whole[-1:])
    # and nothing to be lost.
    assert receiver.receive(5, seconds=10) == ({"n": 1}, b"bytes")


def test_a_side_that_does_not_read_meets_a_deadline(pipe: Pipe) -> None:
    with pytest.raises(TimeoutError):
        send(pipe[1], {}, [bytes(2**22)], seconds=0.05)


@pytest.mark.parametrize(
    "written",
    [
        b"\xff" * 64,
        b"\0" * 12,
        b"\1\0\0\0" + bytes(8) + b"7",
        b"\2\0\0\0" + bytes(8) + b"{]",
        b"\2\0\0\0\7" + bytes(7) + b"{}seven b",
        b"\x20\x4e\0\0" + bytes(8) + b"[" * 20_000,
        b"\2\0\0\0",
    ],
    ids=["sizes", "empty", "number", "no JSON", "too long", "deep", "cut"],
)
def test_what_is_no_message_closes_the_conversation(pipe: Pipe, written: bytes) -> None:
    os.write(pipe[1], written)
    os.close(pipe[1])
    with pytest.raises(Closed):
        Receiver(pipe[0]).receive(6, seconds=10)


def test_a_side_that_is_gone_is_told_to_who_writes(pipe: Pipe) -> None:
    os.close(pipe[0])
    with pytest.raises(Closed):
        send(pipe[1], {})
