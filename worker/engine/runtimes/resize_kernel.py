"""The two passes of a resize as kernels of Triton: a program adds up a row of one result. Imports torch and Triton.

`TRITON_INTERPRET=1`, set before Triton is imported, runs them on a CPU, one program after the other.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from worker.engine.images.resample import PRECISION_BITS
from worker.engine.runtimes.resize import Moved

_BLOCK = 1024
"""Bytes of a row that a program adds up; one of 224 pixels has 672."""


def resize(moved: Moved, out: Tensor) -> None:
    """Queue both passes on the current stream; see `worker.engine.runtimes.resize.Resize`."""
    n, size = len(moved.places), moved.size
    narrow = out.new_empty((moved.rows, size, 3))
    blocks, taps = triton.cdiv(3 * size, _BLOCK), moved.table.shape[2]
    shared: tuple[Any, ...] = (moved.first, moved.table, moved.places)
    fixed = {"FACTS": moved.places.shape[1], "BITS": PRECISION_BITS, "HALF": 1 << (PRECISION_BITS - 1), "BLOCK": _BLOCK}
    _across[(moved.highest, n, blocks)](moved.pixels, *shared, narrow, size, taps, **fixed)
    _down[(size, n, blocks)](narrow, *shared, moved.turns, out, size, taps, **fixed)


@triton.jit  # type: ignore[untyped-decorator]
def _across(  # type: ignore[no-untyped-def]
    pixels,
    first,
    table,
    places,
    narrow,
    size,
    most,
    FACTS: tl.constexpr,  # noqa: N803
    BITS: tl.constexpr,  # noqa: N803
    HALF: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    row, image = tl.program_id(0), tl.program_id(1)
    facts = places + image * FACTS
    height = tl.load(facts + 2)
    if row < height:
        start, width, above = tl.load(facts), tl.load(facts + 1), tl.load(facts + 3)
        byte = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
        inside = byte < 3 * size
        x, channel = byte // 3, byte % 3
        look = tl.load(first + image * 2 * size + x, mask=inside, other=0)
        weights = table + image * 2 * most * size + x
        line = pixels + start + row * width * 3 + channel
        sums = tl.full([BLOCK], HALF, tl.int32)
        for tap in range(tl.load(facts + 4).to(tl.int32)):
            place = tl.minimum(look + tap, width - 1)
            pixel = tl.load(line + 3 * place, mask=inside, other=0).to(tl.int32)
            sums += pixel * tl.load(weights + tap * size, mask=inside, other=0)
        found = tl.minimum(tl.maximum(sums >> BITS, 0), 255).to(tl.uint8)
        tl.store(narrow + (above + row) * size * 3 + byte, found, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _down(  # type: ignore[no-untyped-def]
    narrow,
    first,
    table,
    places,
    turns,
    out,
    size,
    most,
    FACTS: tl.constexpr,  # noqa: N803
    BITS: tl.constexpr,  # noqa: N803
    HALF: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    y, image = tl.program_id(0), tl.program_id(1)
    facts = places + image * FACTS
    height, above = tl.load(facts + 2), tl.load(facts + 3)
    byte = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    inside = byte < 3 * size
    x, channel = byte // 3, byte % 3
    look = tl.load(first + (image * 2 + 1) * size + y)
    weights = table + (image * 2 + 1) * most * size + y
    lines = narrow + above * size * 3 + byte
    sums = tl.full([BLOCK], HALF, tl.int32)
    for tap in range(tl.load(facts + 5).to(tl.int32)):
        place = tl.minimum(look + tap, height - 1)
        pixel = tl.load(lines + place * size * 3, mask=inside, other=0).to(tl.int32)
        sums += pixel * tl.load(weights + tap * size)
    found = tl.minimum(tl.maximum(sums >> BITS, 0), 255).to(tl.uint8)
    base, down, right = tl.load(turns + image * 3), tl.load(turns + image * 3 + 1), tl.load(turns + image * 3 + 2)
    upright = base + y * down + x * right
    tl.store(out + image * size * size * 3 + upright * 3 + channel, found, mask=inside)
