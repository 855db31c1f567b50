"""A child in place of a pushed program that has taken its process over: the first pixel says what it does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

import numpy as np

from contract.data.children.messages import Head
from worker.confinement.serve import serve

FINE, CRASH, HANG, NO_MEMORY, KILLED, NONSENSE, FAIL, STICKS = range(8)
state = {"sick": False}
"""Whether everything fails from now on, as after some errors of CUDA."""


def handle(request: Head, blobs: list[bytes]) -> tuple[Head, Sequence[bytes]]:
    n, does = request["shape"][0], blobs[0][0]
    if does == CRASH:
        os.abort()
    elif does == HANG:
        time.sleep(600)
    elif does == NO_MEMORY:
        raise MemoryError("no room")
    elif does == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    elif does == STICKS:
        state["sick"] = True
    elif does == FAIL or state["sick"]:
        raise RuntimeError("a kernel failed")
    rows = np.zeros((n, 2), np.float32).tobytes()
    return {"shapes": [[n, 10**9 if does == NONSENSE else 2]] * 2}, [rows, rows]


if __name__ == "__main__":
    facts = {"name": "torch", "device": "cpu", "precision": "fp32", "batch_size": 8, "lanes": 1}
    serve(lambda _: (facts, handle))
