"""Filters the system calls of this process by seccomp, in classic BPF: denies some to it, or allows it only a few.

Written here because the bindings on PyPI need libseccomp on each machine, and have had no release for years. A refused
call fails with EPERM, so that a library which only tries goes on. The filters know x86-64 and 64-bit ARM; where the
kernel or the processor has none, they change nothing and return False. The caller has set no_new_privs.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Mapping

from worker.confinement.syscalls import ALLOWED, DENIED

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000  # calls of the x32 interface, which would pass for others
_CLONE, _CLONE3, _KILL, _TGKILL, _PRCTL = (56, 220), (435, 435), (62, 129), (234, 131), (157, 167)

# <linux/filter.h> and <linux/seccomp.h>
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_CLONE_THREAD, _PDEATHSIG = 0x00010000, 1
_SET_SECCOMP, _FILTER = 22, 2

_Line = tuple[int, int, int, int]
"""An instruction: code, skip if true, skip if false, constant."""
_ALLOWED: _Line = (_RETURN, 0, 0, _ALLOW)
_REFUSED: _Line = (_RETURN, 0, 0, _ERRNO | errno.EPERM)


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("then", ctypes.c_uint8),
        ("otherwise", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


def deny(libc: ctypes.CDLL) -> bool:
    """Refuse `DENIED` to this thread and all that it starts, for good; return whether the kernel does.

    Threads may be started, processes may not; signals go to this process only.
    """
    return _install(libc, lambda column: _denying(column, os.getpid()))


def allow_only(libc: ctypes.CDLL) -> bool:
    """Refuse all but `ALLOWED` to this thread, for good; return whether the kernel does.

    No file can be opened then, no thread or process started, no signal sent. Call it when all is imported.
    """
    return _install(libc, lambda column: [*_each(ALLOWED, column, _ALLOWED), _REFUSED])


def _install(libc: ctypes.CDLL, rules: Callable[[int], list[_Line]]) -> bool:
    machine = os.uname().machine
    if machine not in _AUDIT_ARCH:
        return False
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
        *([(_AT_LEAST, 0, 1, _X32), _REFUSED] if machine == "x86_64" else []),
        *rules(list(_AUDIT_ARCH).index(machine)),
    ]
    program = _Program(len(lines), (_Instruction * len(lines))(*(_Instruction(*line) for line in lines)))
    return bool(libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0)


def _each(calls: Mapping[str, tuple[int, int]], column: int, then: _Line) -> list[_Line]:
    """Return the instructions that answer `then` to each of some calls."""
    return [line for pair in calls.values() if pair[column] >= 0 for line in ((_EQUAL, 0, 1, pair[column]), then)]


def _denying(column: int, pid: int) -> list[_Line]:
    argument = (_LOAD, 0, 0, _FIRST_ARGUMENT)
    lines = _each(DENIED, column, _REFUSED)
    # glibc falls back to clone, whose flags a filter can read.
    lines += [(_EQUAL, 0, 1, _CLONE3[column]), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    lines += [(_EQUAL, 0, 4, _CLONE[column]), argument, (_ANY_BIT, 0, 1, _CLONE_THREAD), _ALLOWED, _REFUSED]
    for call in (_KILL, _TGKILL):
        lines += [(_EQUAL, 0, 4, call[column]), argument, (_EQUAL, 0, 1, pid), _ALLOWED, _REFUSED]
    # It may name its threads, and not outlive its parent.
    lines += [(_EQUAL, 0, 4, _PRCTL[column]), argument, (_EQUAL, 0, 1, _PDEATHSIG), _REFUSED, _ALLOWED]
    return [*lines, _ALLOWED]
