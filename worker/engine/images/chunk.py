"""The memory in which a decoder finds the files of a request and leaves their pixels: its slots, and what fits there.

Both sides copy what they take, so that neither sees it change.
"""

from __future__ import annotations

from collections.abc import Sequence

FILES, PIXELS, PLACE = range(3)
"""Slots: the files of a request in their order, the pixels of those that were decoded, and which file it is at."""
SLOTS = 3
ROOM = 8 * 2**20
"""Bytes of a slot: 80 photos of 100 kB, or 55 results of 224 × 224 pixels. Pages that nobody writes take no memory."""
PLACE_BYTES = 4


def pixel_bytes(size: int) -> int:
    """Return the bytes of a decoded image, uint8 [size, size, 3]."""
    return 3 * size * size


def fitting(lengths: Sequence[int], size: int) -> int:
    """Return how many of the first files one request may have, by their lengths; 0 if the first one does not fit."""
    held = count = 0
    for length in lengths:
        held += length
        if held > ROOM or (count + 1) * pixel_bytes(size) > ROOM:
            break
        count += 1
    return count
