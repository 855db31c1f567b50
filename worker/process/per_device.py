"""One worker process for each CUDA device of this machine: finds them, starts a process for each, and keeps it running.

Each process is shown one device alone, by CUDA_VISIBLE_DEVICES, so that nothing in it can open a context on another. It
knows no jobs, and imports no torch.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from contract.errors import InvalidSettings
from contract.settings import Settings
from worker.engine.budget import default_total
from worker.engine.cores import cores

log = logging.getLogger(__name__)

_GPU = re.compile(r"GPU \d+: .*\(UUID: (GPU-[^)]+)\)")
_SLICE = re.compile(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)")
_LISTING_SECONDS = 60.0
"""For `nvidia-smi`, which wakes GPUs that sleep."""
_BACK_OFF = (1.0, 60.0)
"""Seconds before a process is started again, doubled each time up to the second figure."""
_STEADY_SECONDS = 60.0
"""After so long up, an end counts as the first again."""
_LOOK_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1


def devices(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the ids of the CUDA devices here, as CUDA_VISIBLE_DEVICES takes them, or nothing.

    They are those that the variable names already, or all that `nvidia-smi` lists: GPUs, and in place of a GPU that is
    divided by MIG its parts.
    """
    shown = environment.get("CUDA_VISIBLE_DEVICES")
    if shown is not None:
        named = [one.strip() for one in shown.split(",")]
        invalid = next((n for n, one in enumerate(named) if not one or one.startswith("-")), len(named))
        return tuple(named[:invalid])  # CUDA sees none from the first invalid id on
    try:
        command = ["nvidia-smi", "-L"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=_LISTING_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return listed_devices(listed.stdout)


def listed_devices(listing: str) -> tuple[str, ...]:
    """Return the ids in what `nvidia-smi -L` prints."""
    found: list[str] = []
    whole = ""  # the GPU whose parts may follow
    for line in listing.splitlines():
        if gpu := _GPU.match(line):
            whole = gpu[1]
            found.append(whole)
        elif part := _SLICE.match(line):
            if found and found[-1] == whole:
                found.pop()
            found.append(part[1])
    return tuple(found)


def torch_has_cuda() -> bool:
    """Return whether the torch that is installed was built for CUDA, without importing it."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    with suppress(OSError):
        text = (Path(spec.origin).parent / "version.py").read_text()
        return re.search(r"^cuda\b[^=\n]*=\s*['\"]", text, re.MULTILINE) is not None
    return False


def environments(ids: Sequence[str], settings: Settings, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the environment of each process: its device, and its share of cores and memory unless those are set."""
    shares = {
        "IMAGEMILL_DEVICE": "cuda",
        "IMAGEMILL_THREADS": str(settings.threads or max(1, cores() // len(ids))),
        "IMAGEMILL_MEMORY": str(int(settings.memory) or default_total() // len(ids)),
    }
    return [{**environment, **shares, "CUDA_VISIBLE_DEVICES": one} for one in ids]


def named(name: str, number: int) -> str:
    """Return the name of one of several workers, `NAME-0@HOST` of `NAME@HOST`."""
    own, at, host = name.partition("@")
    return f"{own}-{number}{at}{host}"


@dataclass
class _Process:
    command: Sequence[str]
    environment: Mapping[str, str]
    running: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    not_before: float = 0.0
    back_off: float = 0.0
    ended: int | None = None
    """The exit code, once it is not to be started again."""


def keep(commands: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]]) -> int:
    """Run a command in each environment until SIGTERM, SIGINT or SIGQUIT, which are passed on; return an exit code.

    A process that ends by itself is started again, after a pause that grows, unless it ended with 0, as one does that
    was drained, or because of its settings. The code is the largest of the last ones. Call it in the main thread.
    """
    processes = [_Process(*both) for both in zip(commands, environments, strict=True)]
    signals: list[int] = []
    passed = 0

    def note(number: int, _: object) -> None:
        signals.append(number)  # passed on below, when no process is just being started

    before = {one: signal.signal(one, note) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)}
    try:
        while any(process.ended is None for process in processes):
            for process in processes:
                _tend(process, leaving=bool(signals))
            while passed < len(signals):
                for process in processes:
                    if process.running is not None:
                        process.running.send_signal(signals[passed])  # none if it has just ended
                passed += 1
            time.sleep(_LOOK_SECONDS)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    return max(process.ended or 0 for process in processes)


def _tend(process: _Process, *, leaving: bool) -> None:
    now = time.monotonic()
    if process.ended is not None:
        return
    if process.running is None:
        if leaving:
            process.ended = 0
        elif now >= process.not_before:
            try:
                process.running, process.started_at = _started(process), now
            except OSError as error:  # no memory for a fork, for instance; the others must go on
                process.not_before = now + _BACK_OFF[1]
                device = process.environment["CUDA_VISIBLE_DEVICES"]
                log.error("No worker can be started on %s now: %s", device, error)
        return
    code = process.running.poll()
    if code is None:
        return
    device, process.running = process.environment["CUDA_VISIBLE_DEVICES"], None
    if leaving or code in (0, InvalidSettings.exit_code):
        process.ended = max(code, 0)
        log.warning("The worker on %s has ended with %d and stays down", device, code)
        return
    first, longest = _BACK_OFF
    steady = now - process.started_at > _STEADY_SECONDS
    process.back_off = first if steady else min(max(first, 2 * process.back_off), longest)
    process.not_before = now + process.back_off
    log.warning("The worker on %s ended with %d; it is started again in %.0f s", device, code, process.back_off)


def _started(process: _Process) -> subprocess.Popen[bytes]:
    # In a session of its own: what a terminal sends to all would otherwise come twice.
    return subprocess.Popen(
        process.command, env=process.environment, start_new_session=True, preexec_fn=_end_with_parent
    )


def _end_with_parent() -> None:
    """Have the kernel end this process with the one that started it; this process has one thread, so it may."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
