"""CPU seconds and memory by process, so that one sees where time goes that the ideal loop does not need.

It reads `/proc`; where there is none (macOS), it measures nothing.
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK")
"""Ticks a second of the times in `/proc/PID/stat`."""
_ROLES = {
    "redis": re.compile(r"redis-server"),
    "store": re.compile(r"/weed\b"),
    "controller": re.compile(r"celery .*(-Q|--queues) control\b"),
    "clock": re.compile(r"celery .* beat\b"),
    "worker": re.compile(r"worker\.cli run\b"),
    "web": re.compile(r"producer web\b"),
}
"""What the command line of each process of a stack holds; everything that it starts counts with it."""


class CpuSeconds:
    """Measures what steps cost the processes of a stack, those of its commands and this one.

    `supervisor` is the pid whose children are Redis, store, controller, clock and workers.
    """

    def __init__(self, supervisor: int) -> None:
        self._supervisor = supervisor
        self._runs: dict[str, list[dict[str, float]]] = {}

    def of(self, name: str, step: Callable[[], float]) -> Callable[[], float]:
        """Return `step`, which is measured under this name whenever it runs."""

        def measured() -> float:
            before = self._now()
            result = step()
            after = self._now()
            self._runs.setdefault(name, []).append({role: after[role] - before.get(role, 0.0) for role in after})
            return result

        return measured

    def medians(self, last: int) -> dict[str, dict[str, float]]:
        """Return CPU seconds by step and role, medians of the last runs of each step."""
        return {
            name: {role: round(statistics.median(run.get(role, 0.0) for run in runs[-last:]), 2) for role in runs[-1]}
            for name, runs in self._runs.items()
        }

    def _now(self) -> dict[str, float]:
        """Return the CPU seconds since each role began; `client` is what this process has waited for."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"bench": time.process_time(), "client": ended.ru_utime + ended.ru_stime} | by_role(self._supervisor)


def by_role(supervisor: int) -> dict[str, float]:
    """Return the CPU seconds of the supervisor's children and their descendants, the ended ones among them, by role."""
    return _added(supervisor, lambda pid, seconds: seconds)


def resident(supervisor: int) -> dict[str, float]:
    """Return the resident bytes of the supervisor's children and their descendants, by role."""
    page = os.sysconf("SC_PAGE_SIZE")
    return _added(supervisor, lambda pid, _: page * _resident_pages(pid))


def _added(supervisor: int, value: Callable[[int, float], float]) -> dict[str, float]:
    """Return by role the sum of a value that each process has, given its pid and its CPU seconds."""
    processes = _processes()
    roles = {pid: role for pid, (parent, _) in processes.items() if parent == supervisor and (role := _role(pid))}
    found = dict.fromkeys(roles.values(), 0.0)
    for pid, (_, seconds) in processes.items():
        if ancestor := _first(pid, processes, roles):
            found[roles[ancestor]] += value(pid, seconds)
    return found


def _resident_pages(pid: int) -> int:
    try:
        return int((_PROC / str(pid) / "statm").read_text().split()[1])
    except OSError:  # it has ended meanwhile
        return 0


def _first(pid: int, processes: Mapping[int, tuple[int, float]], roles: Mapping[int, str]) -> int | None:
    """Return the process with a role that this one is or descends from, or None."""
    seen: set[int] = set()
    while pid in processes and pid not in roles and pid not in seen:
        seen.add(pid)
        pid = processes[pid][0]
    return pid if pid in roles else None


def _processes() -> dict[int, tuple[int, float]]:
    """Return the parent and the CPU seconds of every process, with those of its children that ended."""
    found = {}
    for entry in _PROC.glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        # proc_pid_stat(5): ppid is the second field behind the name, utime, stime, cutime and cstime the 12th to 15th.
        found[int(entry.parent.name)] = int(fields[1]), sum(map(int, fields[11:15])) / _TICK
    return found


def _role(pid: int) -> str | None:
    try:
        command = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    return next((role for role, pattern in _ROLES.items() if pattern.search(command)), None)
