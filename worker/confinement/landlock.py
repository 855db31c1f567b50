"""Restricts which files a process may open, by Landlock (https://docs.kernel.org/userspace-api/landlock.html).

Written here because PyPI has only a pre-release for it, which cannot skip what an older kernel lacks.
"""

from __future__ import annotations

import ctypes
import glob
import os
import site
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on every architecture
_VERSION = 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL_DEV = 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_OF_FILES = 1 | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_FS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""The rights to files that a version of the interface knows."""

_SYSTEM = ("/usr", "/lib", "/lib64", "/opt/intel", "/etc/ld.so.cache", "/etc/localtime")
_KERNEL = ("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system", "/sys/fs/cgroup")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_GPUS = ("/dev/nvidia*", "/dev/nvidia-caps/*")
_GPU_FACTS = ("/proc/driver/nvidia", "/sys/bus/pci", "/sys/devices", "/sys/module")


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def restrict(libc: ctypes.CDLL, readable: Iterable[str], writable: Iterable[str], *, devices: bool) -> bool:
    """Deny this process every file but the interpreter's, its libraries', ours, and those given; also TCP and signals.

    Return False, and change nothing, if the kernel has no Landlock. Nothing may be executed afterwards.
    """
    version = libc.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:
        return False
    handled = _FS[max(known for known in _FS if known <= version)]
    ruleset = _Ruleset(handled, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = libc.syscall(_CREATE, ctypes.byref(ruleset), ctypes.c_size_t(size), 0)
    if rules < 0:
        return False
    try:
        read = _READ_FILE | _READ_DIR
        write = handled & ~1  # all but execution
        for path in (*_SYSTEM, *_KERNEL, *_python(), *readable):
            _allow(libc, rules, path, read & handled)
        for path in (entry for entry in sys.path if entry):
            _allow(libc, rules, path, _READ_DIR)  # the importer lists it; what else lies there stays closed
        for path in _DEVICES:
            _allow(libc, rules, path, (read | _WRITE_FILE) & handled)
        for path in writable:
            _allow(libc, rules, path, write)
        if devices:
            for path in (found for pattern in _GPUS for found in glob.glob(pattern)):
                _allow(libc, rules, path, (read | _WRITE_FILE | _IOCTL_DEV) & handled)
            for path in _GPU_FACTS:
                _allow(libc, rules, path, read)
        return bool(libc.syscall(_RESTRICT, rules, 0) == 0)
    finally:
        os.close(rules)


def _python() -> Iterable[str]:
    """Yield the folders of the interpreter, of installed packages, and of the code of Imagemill."""
    yield from (sys.prefix, sys.base_prefix, *site.getsitepackages(), site.getusersitepackages())
    home = Path(__file__).resolve().parent.parent.parent
    yield from (str(home / room) for room in ("contract", "worker"))


def _allow(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    with suppress(OSError):  # what is not there needs no rule
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not os.path.isdir(path):
                rights &= _OF_FILES
            beneath = _Beneath(rights, handle)
            libc.syscall(_ADD, rules, 1, ctypes.byref(beneath), 0)
        finally:
            os.close(handle)
