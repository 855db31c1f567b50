"""A frame: a JSON object and a few pieces of bytes in one string, the form of every payload and reply.

    4 bytes, big-endian: length of the head | the head, JSON | the pieces, one after the other

A frame that Redis hands out may come from anybody, so reading checks every length before it uses it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

_LENGTH = 4
_SIZES = "sizes"


class MalformedFrameError(ValueError):
    """Bytes that are no frame; `str` of it says in a few words why."""


def pack(head: dict[str, Any], pieces: Sequence[bytes] = ()) -> bytes:
    """Return the frame of a head, which has no key `sizes`, and its pieces."""
    text = json.dumps({**head, _SIZES: [len(piece) for piece in pieces]}, separators=(",", ":")).encode()
    return b"".join((len(text).to_bytes(_LENGTH, "big"), text, *pieces))


def unpack(frame: bytes, *, head_bytes: int, pieces: int) -> tuple[dict[str, Any], list[bytes]]:
    """Return head and pieces of a frame; raises MalformedFrameError.

    `head_bytes` and `pieces` are the most that it may have.
    """
    length = int.from_bytes(frame[:_LENGTH], "big")
    start = _LENGTH + length
    if len(frame) < _LENGTH or not 0 < length <= head_bytes or start > len(frame):
        raise MalformedFrameError("the head has a wrong length")
    try:
        head = json.loads(frame[_LENGTH:start])
    except (ValueError, RecursionError):
        raise MalformedFrameError("the head is no JSON") from None
    sizes = head.pop(_SIZES, None) if isinstance(head, dict) else None
    if not isinstance(sizes, list) or len(sizes) > pieces or not all(type(n) is int and n >= 0 for n in sizes):
        raise MalformedFrameError("the head has no sizes, or too many")
    if start + sum(sizes) != len(frame):
        raise MalformedFrameError("the pieces do not fill the frame")
    found = []
    for size in sizes:
        found.append(frame[start : start + size])
        start += size
    return head, found
