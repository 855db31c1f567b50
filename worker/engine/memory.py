"""Process-wide settings of the allocator and OpenMP that make torch faster on a CPU.

It knows no models. Call its functions before torch is imported and before the first big allocation.
"""

from __future__ import annotations

import ctypes
import os

from worker.engine.cores import cores

# <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -3, -4, -8


def bound_heaps() -> bool:
    """Make glibc return each big block when it is freed; return False, and change nothing, on another C library.

    By default glibc raises the size of what it returns at once to that of the largest block so far, up to 32 MiB. Every
    thread that fetched or decoded a large image then keeps as much in a heap of its own: 500 MB beyond what was
    reserved. A batch of 32 images of 224 pixels has 5 MB and must reuse its pages: returned each time, stacking it took
    2.1 ms of CPU in place of 0.34. Pillow keeps two of its blocks of 16 MiB a core, so that photos reuse theirs.
    """
    os.environ.setdefault("PILLOW_BLOCKS_MAX", str(2 * cores()))
    return _set((_M_MMAP_THRESHOLD, 8 * 2**20), (_M_TRIM_THRESHOLD, 16 * 2**20))


def tune_allocator() -> bool:
    """Make glibc keep freed memory; return False, and change nothing, on another C library.

    By default glibc returns each layer's activations to the kernel, and the next layer pays a page fault for every
    page. Keeping them takes eager fp32 at batch 8 from 34 to 90 images/s on two cores, and bf16 from 129 to 198
    (preloading jemalloc does the same; huge pages give half). OpenVINO manages its own buffers and gains nothing. The
    process never returns memory that it has used.
    """
    return _set(
        (_M_MMAP_MAX, 0),  # take big blocks from the heap, which can keep them; mmap cannot
        (_M_TRIM_THRESHOLD, -1),
        (_M_TOP_PAD, 64 * 2**20),
        (_M_ARENA_MAX, 1),  # other arenas are trimmed regardless of the threshold
    )


def _set(*options: tuple[int, int]) -> bool:
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 (only glibc has it, and only glibc takes these numbers)
        mallopt = libc.mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return sum(int(mallopt(option, value)) for option, value in options) == len(options)


def calm_openmp() -> None:
    """Let idle OpenMP threads sleep instead of spin, unless the environment says otherwise.

    This is a safety net: on two cores, several threads that each run torch with two spinning OpenMP threads collapse
    to 9 images/s; with sleeping ones they reach 172.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
