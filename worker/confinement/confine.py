"""Confines the calling process for good: call `confine` before a second thread starts and before hostile input is read.

Every layer is optional, because kernels and containers differ; what was enforced is returned, to be logged.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from contract.data.children.limits import die_with_parent, no_core_dump
from worker.confinement import landlock, seccomp

# <linux/prctl.h>, <linux/sched.h> and <linux/capability.h>
_CAPBSET_DROP, _NO_NEW_PRIVS = 24, 38
_NEWUSER, _NEWNET = 0x10000000, 0x40000000
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITIES_V3 = 0x20080522

LAYERS = ("rlimits", "no_new_privs", "capabilities", "network", "landlock", "seccomp")
"""Every layer that `confine` tries, in its order."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a confined process may use; 0 is no limit of its own, and no CPU time may pass a deadline of the parent.

    `memory` counts private writable bytes (RLIMIT_DATA), which leaves mapped files and CUDA's reserved addresses out.
    `readable` and `writable` are paths below which files may be read, and also written. `devices` opens GPUs.
    """

    memory: int = 0
    cpu_seconds: int = 0
    file_bytes: int = 0
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    devices: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Limits:
        found = json.loads(text)
        return cls(**{**found, "readable": tuple(found["readable"]), "writable": tuple(found["writable"])})


def confine(limits: Limits, *, parent: int = 0) -> tuple[str, ...]:
    """Confine this process and all that it starts, and return the names of the layers that the machine enforces.

    With `parent`, the process also ends as soon as the thread that started it does. Raises nothing: what the kernel
    cannot do is missing from the answer.
    """
    _limit(limits)
    if not sys.platform.startswith("linux"):  # macOS takes a limit of memory, and does not keep it
        return ()
    enforced = ["rlimits"]
    libc = ctypes.CDLL(None, use_errno=True)
    if parent:
        die_with_parent()
        if os.getppid() != parent:
            os._exit(1)
    if libc.unshare(_NEWNET) == 0 or libc.unshare(_NEWUSER | _NEWNET) == 0:
        enforced.append("network")
    if _drop_capabilities(libc):
        enforced.append("capabilities")
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        enforced.append("no_new_privs")
        if landlock.restrict(libc, limits.readable, limits.writable, devices=limits.devices):
            enforced.append("landlock")
        if seccomp.deny(libc):
            enforced.append("seccomp")
    return tuple(layer for layer in LAYERS if layer in enforced)


def only_pipes(enforced: Sequence[str]) -> tuple[str, ...]:
    """Give up what a process does not need that computes, talks through its pipes, and has imported everything.

    Return the layers of `confine` that are in force; "seccomp" is one of them only if this was done too. Call it in a
    process of one thread.
    """
    done = sys.platform.startswith("linux") and seccomp.allow_only(ctypes.CDLL(None, use_errno=True))
    return tuple(layer for layer in enforced if done or layer != "seccomp")


def _limit(limits: Limits) -> None:
    no_core_dump()
    wanted = [(resource.RLIMIT_FSIZE, limits.file_bytes)]
    wanted += [(resource.RLIMIT_CPU, limits.cpu_seconds)] if limits.cpu_seconds else []
    wanted += [(resource.RLIMIT_DATA, limits.memory)] if limits.memory else []
    for kind, most in wanted:
        hard = resource.getrlimit(kind)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with suppress(OSError, ValueError):  # not every platform has every limit
            resource.setrlimit(kind, (value, value))
    with suppress(OSError):  # where memory ends, this process is the one to end
        Path("/proc/self/oom_score_adj").write_text("1000")


def _drop_capabilities(libc: ctypes.CDLL) -> bool:
    """Drop every capability, so that root in here is a user like any other."""
    number = _CAPSET.get(os.uname().machine)
    if number is None:
        return False
    for capability in range(64):
        libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    return bool(libc.syscall(number, header, (ctypes.c_uint32 * 6)()) == 0)
