"""Process-wide settings that keep torch on a CPU from wasting its time: the allocator and OpenMP.

It knows nothing of models. Call it before torch is imported and before the first big allocation.
"""

from __future__ import annotations

import ctypes
import os

# <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def tune_allocator() -> bool:
    """Tell glibc to keep freed memory; False, and nothing done, on another C library.

    As it comes, glibc gives each layer's activations back to the kernel and pays a page fault for each
    page again. Kept, eager fp32 at batch 8 goes from 34 to 90 images/s on two cores, bf16 from 129 to
    198 (jemalloc preloaded does as well; huge pages give half). OpenVINO has buffers of its own and
    gains nothing. Memory once used stays with the process.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 (only glibc has it, and only glibc takes these numbers)
        mallopt = libc.mallopt
    except (AttributeError, OSError, TypeError):
        return False
    options = (
        (_M_MMAP_MAX, 0),  # big blocks from the heap, which keeps them, not from mmap, which cannot
        (_M_TRIM_THRESHOLD, -1),
        (_M_TOP_PAD, 64 * 2**20),
        (_M_ARENA_MAX, 1),  # the heaps of other threads are trimmed whatever the threshold says
    )
    return sum(int(mallopt(option, value)) for option, value in options) == len(options)


def calm_openmp() -> None:
    """Let idle OpenMP threads sleep instead of spin, unless the environment says otherwise.

    A safety net: several threads that each use torch with two OpenMP threads on two cores collapse to 9
    images/s; with sleeping ones they do 172.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
