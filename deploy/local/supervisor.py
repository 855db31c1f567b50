"""Keeps child processes running: starts them, starts one again that died, and stops them in order.

It knows commands, logs and time, and nothing of what the processes do. Each child has a session of its
own, so that Ctrl-C in the terminal reaches the supervisor alone, and is tied to the supervisor's life
(see `exec_with_parent`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from contract.errors import ServiceUnavailable
from deploy.local import exec_with_parent, orphans
from deploy.local.private import open_private, private_folder

log = logging.getLogger("imagemill.supervisor")

BACK_OFF = (0.2, 5.0)
"""Seconds before the first restart, doubled for each further one up to the second figure."""
STEADY_SECONDS = 30.0
"""After so long up, a death counts as the first again."""
GIVE_UP_AFTER = 3
"""Deaths before it was ever ready that end the wait for a service; it would only die again."""
LOG_BYTES = 10 * 2**20
"""A log that is larger when its process starts is moved to NAME.log.1."""
_POLL = 0.05
_KILLED_SECONDS = 10.0
"""How long a killed process is waited for: one in an uninterruptible wait of the kernel may never end."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One process to keep running."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: Path | None = None
    ready: Callable[[], bool] | None = None
    """Return whether it answers. Called from the thread that starts it; must return within seconds."""
    ready_seconds: float = 30.0
    stop_seconds: float = 10.0
    """Time between SIGTERM and SIGKILL."""
    ends: bool = False
    """Whether it stays down, until it is started again, once it has ended with exit status 0."""
    stop_order: int = 0
    """Lower ones stop first, equal ones together."""
    clean_up: Callable[[], None] | None = None
    """Called after it was stopped; removes what the process leaves behind."""


@dataclass
class _Child:
    service: Service
    wanted: bool = False
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    not_before: float = 0.0
    back_off: float = 0.0
    deaths: int = 0
    """Since it was last asked for."""
    last_status: int | None = None


class Supervisor:
    """Runs services until `stop`; every method may be called from any thread.

    One thread of its own starts all children, because the kernel ties a child to the life of the
    thread that started it, and that thread must outlive every caller.
    """

    def __init__(self, services: Sequence[Service], logs: Path) -> None:
        self._children = {service.name: _Child(service) for service in services}
        self._logs = logs.resolve()
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def mark(self) -> str:
        """The value of `orphans.MARK` in the environment of every child."""
        return mark_of(self._logs)

    def start(self, *names: str, wait: bool = True) -> None:
        """Start these services, or all, and wait until each is ready, unless told not to.

        Raises ServiceUnavailable, naming the log, where one does not come up; the others keep running.
        """
        children = [self._children[name] for name in names or self._children]
        private_folder(self._logs)
        with self._changed:
            if self._thread is None:
                self._closing = False
                self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
                self._thread.start()
            for child in children:
                if not child.wanted:
                    child.wanted, child.deaths, child.not_before, child.back_off = True, 0, 0.0, 0.0
            self._changed.notify_all()
        for child in children if wait else ():
            self._wait_ready(child)

    def start_service(self, name: str) -> None:
        """`start` for one service."""
        self.start(name)

    def stop_service(self, *names: str, patience: float | None = None) -> None:
        """SIGTERM these services together, SIGKILL what remains of each after its `stop_seconds`.

        `patience` is an upper bound on the wait in seconds, for somebody in a hurry.
        """
        children = [self._children[name] for name in names]
        asked_at = time.monotonic()
        with self._changed:
            for child in children:
                child.wanted = False
                if child.process is not None:
                    child.process.terminate()
        for child in children:
            seconds = child.service.stop_seconds
            deadline = asked_at + (seconds if patience is None else min(seconds, patience))
            while not self._gone(child) and time.monotonic() < deadline:
                time.sleep(_POLL)
            if not self._gone(child):
                log.warning("%s did not stop in time and is killed", child.service.name)
                self._kill_group(child)
                deadline = time.monotonic() + _KILLED_SECONDS
                while not self._gone(child) and time.monotonic() < deadline:
                    time.sleep(_POLL)
                if not self._gone(child):
                    log.error("%s was killed and is still there: the system holds it", child.service.name)
            if child.service.clean_up is not None:
                child.service.clean_up()

    def stop(self, patience: float | None = None) -> None:
        """Stop all services in their order; afterwards no process that came from them is left."""
        for order in sorted({child.service.stop_order for child in self._children.values()}):
            names = [n for n, child in self._children.items() if child.service.stop_order == order]
            self.stop_service(*names, patience=patience)
        with self._changed:
            thread, self._thread, self._closing = self._thread, None, True
            self._changed.notify_all()
        if thread is not None:
            thread.join()
        if left := orphans.end(self.mark):
            log.warning("ended %d processes that services left behind", len(left))

    def wants(self, name: str) -> bool:
        """Return whether a service should run: it was started, and not stopped since."""
        with self._changed:
            return self._children[name].wanted

    def pid(self, name: str) -> int | None:
        """Return the pid of a service, or None while it is down."""
        with self._changed:
            process = self._children[name].process
            return process.pid if process is not None and process.poll() is None else None

    def exit_status(self, name: str) -> int | None:
        """Return how the last process of a service ended, or None; negative: by a signal."""
        with self._changed:
            return self._children[name].last_status

    def kill(self, name: str, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a service; it is started again if it dies of it."""
        with self._changed:
            process = self._children[name].process
            if process is not None:
                process.send_signal(sig)

    def log_file(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def check(self) -> None:
        """Raises ServiceUnavailable for a service that has died since it was asked for."""
        with self._changed:
            dying = [child for child in self._children.values() if child.wanted and child.deaths]
        for child in dying:
            raise self._failure(child, "keeps dying")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _watch(self) -> None:
        with self._changed:
            while not self._closing:
                for child in self._children.values():
                    self._tend(child)
                self._changed.wait(_POLL)

    def _tend(self, child: _Child) -> None:
        if self._gone(child) and child.wanted and (now := time.monotonic()) >= child.not_before:
            child.process, child.started_at = self._spawn(child.service), now

    def _spawn(self, service: Service) -> subprocess.Popen[bytes]:
        path = self.log_file(service.name)
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        with open(path, "ab", opener=open_private) as output:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", exec_with_parent.__file__, str(os.getpid()), *service.command],
                env={**service.env, orphans.MARK: self.mark},
                cwd=service.cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_ready(self, child: _Child) -> None:
        ready = child.service.ready or (lambda: True)
        deadline = time.monotonic() + child.service.ready_seconds
        while True:
            with self._changed:
                running, deaths = child.process is not None, child.deaths
            if running and ready():
                return
            if deaths >= GIVE_UP_AFTER:
                raise self._failure(child, "dies as soon as it is started")
            if time.monotonic() > deadline:
                raise self._failure(child, f"did not answer within {child.service.ready_seconds:.0f} s")
            time.sleep(_POLL)

    def _failure(self, child: _Child, what: str) -> ServiceUnavailable:
        path = self.log_file(child.service.name)
        status = "" if child.last_status is None else f", {_said(child.last_status)}"
        return ServiceUnavailable(
            f"{child.service.name} {what}{status}; its last words were {last_line(path)!r}, see {path}."
        )

    def _gone(self, child: _Child) -> bool:
        """Whether a child is down; the first to notice buries it and, where it should run, counts its death."""
        with self._changed:
            if child.process is not None and (status := child.process.poll()) is not None:
                # Its group can live on without it: what a worker forked must not work beside the next one.
                self._kill_group(child)
                child.process, child.last_status = None, status
                if child.wanted and status == 0 and child.service.ends:
                    child.wanted = False
                    log.warning("%s has ended, as it was told, and stays down", child.service.name)
                elif child.wanted:
                    child.deaths += 1
                    now = time.monotonic()
                    first, longest = BACK_OFF
                    steady = now - child.started_at > STEADY_SECONDS
                    child.back_off = first if steady else min(max(first, child.back_off * 2), longest)
                    child.not_before = now + child.back_off
                    again = f"starting it again in {child.back_off:.1f} s"
                    log.warning("%s died (%s), %s", child.service.name, _said(status), again)
            return child.process is None

    def _kill_group(self, child: _Child) -> None:
        with self._changed:
            if child.process is not None:
                # The child leads a session, so its pid is the number of its group.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.process.pid, signal.SIGKILL)


def mark_of(logs: Path) -> str:
    """Return the mark of the supervisor whose logs are in this folder."""
    return str(logs.resolve())


def last_line(path: Path) -> str:
    """Return the last non-empty line of a log, or an empty string."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""
    return ""


def _said(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal {-status}"
