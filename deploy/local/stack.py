"""The embedded stack: Redis, an S3 server, controller, clock and workers in one data folder.

It puts the parts together and writes their addresses where `contract.settings` looks for them. How a
process is kept running is the supervisor's business, how a server is configured that of `servers`.

    DATA/lock            held by the supervisor
    DATA/stack.json      addresses and credentials while the stack runs (0600)
    DATA/servers.json    ports and credentials that the next start uses again (0600)
    DATA/api-token       a token of the HTTP API for the owner (0600)
    DATA/metrics.json    where Prometheus finds the processes, if they show metrics
    DATA/redis, DATA/s3  the data
    DATA/redis-online    nothing but the configuration of the Redis for the online path
    DATA/logs            one log a process
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.errors import ImagemillError, InvalidSettings, ServiceUnavailable
from contract.keys.queues import QUEUE_CONTROL, WORKER_QUEUES
from contract.online.connection import ping
from contract.settings import Settings, load, stack_file
from deploy.local import autoscaler, metrics, orphans, web
from deploy.local.autoscaler import Autoscaler, policy_of
from deploy.local.cores import usable_cores
from deploy.local.events import hook_of
from deploy.local.lock import DataLock
from deploy.local.private import private_folder
from deploy.local.servers import SERVERS_FILE, Servers, online_service, probe, redis_service, s3_service
from deploy.local.stackfile import StackInfo
from deploy.local.supervisor import Service, Supervisor

CONTROLLER, CLOCK = "controller", "clock"
START_SECONDS = 180.0
"""A cold worker compiles its model and, at the very first start, Python its modules."""

HOME = Path(__file__).resolve().parents[2]
"""The folder that holds these packages. Children start in it, because `python -m` and `celery -A` look
into the current folder first, where the user may well have a `worker` or `deploy` of another kind."""


class Stack:
    """A stack whose supervisor is this process.

    `control=False` leaves controller, clock and HTTP API out, `workers=0` the workers. With `most`, the number of
    workers follows the work, from `workers` to that. With `metrics`, each process shows its own, on a port of loopback.
    """

    def __init__(
        self, data: Path, workers: int = 1, most: int | None = None, *, control: bool = True, metrics: bool = False
    ) -> None:
        self.data = data.expanduser().resolve()
        self.workers = workers
        self.most = workers if most is None else most
        self.autoscaler: Autoscaler | None = None
        self.control = control
        self.metrics = metrics
        self.supervisor = Supervisor([], self.data / "logs")
        self._lock = DataLock(self.data)

    def start(self) -> StackInfo:
        """Start all parts and wait until servers answer and workers are ready.

        Raises InvalidInput where another stack runs on the folder, InvalidSettings where a server's
        binary is missing, ServiceUnavailable where a part does not come up.
        """
        make_folder(self.data)
        self._lock.acquire()
        stack_file(self.data).unlink(missing_ok=True)
        orphans.end(self.supervisor.mark)
        try:
            return self._start()
        except BaseException:
            self.stop(patience=1.0)
            raise

    def stop(self, patience: float | None = None) -> None:
        """Workers first, servers last; keeps the data. `patience` bounds each wait, in seconds."""
        if not self._lock.held:  # what runs on the folder is not ours
            return
        if self.autoscaler is not None:
            self.autoscaler.stop()
        self.supervisor.stop(patience)
        stack_file(self.data).unlink(missing_ok=True)
        self._lock.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> StackInfo:
        given = load(data=self.data)
        own_redis, own_s3 = not given.redis_url, not given.s3_endpoint
        own_online = own_redis and not given.online_redis_url
        serves = self.control and web.can_serve()
        shown = self._metrics(given, serves)
        servers = Servers.of(self.data)
        info = StackInfo(
            state="starting",
            data=self.data,
            pid=os.getpid(),
            workers=self.workers,
            most_workers=self.most,
            bucket=given.bucket,
            redis_url=servers.redis_url if own_redis else None,
            online_redis_url=servers.online_redis_url if own_online else None,
            s3_endpoint=servers.s3_endpoint if own_s3 else None,
            s3_access_key=servers.s3_access_key if own_s3 else None,
            s3_secret_key=servers.s3_secret_key if own_s3 else None,
            api_url=web.url_of(servers.web_port) if serves else None,
            api_token=servers.web_token if serves else None,
            ports={name: port for name, port in servers if name.endswith("_port")},
            metrics=shown,
        )
        info.write()

        settings = load(data=self.data)
        store = ObjectStore(settings, patience=0.0)
        ledger = Ledger(settings, patience=0.0)
        services = []
        if own_redis:
            services.append(redis_service(servers, self.data, _quiet(ledger.info)))
        if own_online:
            services.append(online_service(servers, self.data, _quiet(partial(ping, settings))))
        hook = None
        if self.control:
            address = shown.get(CONTROLLER, servers.events_address)
            hook = hook_of(settings, address, servers.events_token)
        if own_s3:
            services.append(s3_service(servers, self.data, _quiet(partial(probe, store)), hook))
        # Several machines may work on one Redis; only on our own is `local` a name for one worker.
        host = "local" if own_redis else socket.gethostname()
        controls = dict(hook.environment() if hook else {})
        if own_redis:  # machines may bring workers of their own to another one
            controls |= autoscaler.environment(settings, self.workers, self.most)
        programs = self._programs(settings, ledger, host, shown, controls)
        if serves:
            env = {**os.environ, "IMAGEMILL_DATA": str(self.data), **metrics.environment(shown.get(web.WEB))}
            programs.append(web.service(servers.web_port, env, HOME))
        self.supervisor = Supervisor([*services, *programs], self.data / "logs")
        if services:
            self.supervisor.start(*(service.name for service in services))
        if serves:
            web.let_in(store, self.data, servers.web_token, settings)
        nodes = {_worker(number): f"{_worker(number)}@{host}" for number in range(1, self.most + 1)}
        later = list(nodes)[self.workers :]
        if at_once := [program.name for program in programs if program.name not in later]:
            self.supervisor.start(*at_once)
        self.supervisor.check()
        if later:
            policy = policy_of(settings, self.workers, self.most)
            self.autoscaler = Autoscaler(Ledger(settings), self.supervisor, nodes, policy)
            self.autoscaler.start()
        info = info.model_copy(update={"state": "running"})
        info.write()
        return info

    def _metrics(self, settings: Settings, serves: bool) -> dict[str, str]:
        """Return where controller, HTTP API and workers show their metrics, which they do if that is asked for."""
        if not self.metrics:
            return {}
        workers = [_worker(number) for number in range(1, self.most + 1)]
        ours = [*([CONTROLLER] if self.control else []), *([web.WEB] if serves else [])]
        return metrics.choose(self.data, settings, [*ours, *workers])

    def _programs(
        self, settings: Settings, ledger: Ledger, host: str, shown: Mapping[str, str], controls: Mapping[str, str]
    ) -> list[Service]:
        """Controller, clock and workers, as Celery commands; `controls` are settings of the controller alone."""
        celery = [sys.executable, "-m", "celery", "-A", "worker.app"]
        worker = [sys.executable, "-m", "worker.cli", "run", "--queues", ",".join(WORKER_QUEUES)]
        env = {**os.environ, "IMAGEMILL_DATA": str(self.data)}
        programs = []
        if self.control:
            node = f"{CONTROLLER}@{host}"
            programs += [
                Service(
                    name=CONTROLLER,
                    command=[
                        *celery,
                        *("worker", "--pool", "threads", "--concurrency", "2"),
                        *("-Q", QUEUE_CONTROL, "-n", node),
                        *("--without-gossip", "--without-mingle", "--loglevel", "INFO"),
                    ],
                    env={**env, **controls},
                    cwd=HOME,
                    ready=_beats(ledger, node),
                    ready_seconds=START_SECONDS,
                    stop_order=1,
                ),
                Service(
                    name=CLOCK,
                    command=[*celery, "beat", "-s", str(self.data / "beat-schedule"), "--pidfile="],
                    env=env,
                    cwd=HOME,
                    stop_order=1,
                ),
            ]
        if self.most > 1:
            # Each would take all cores; `setdefault`, since what the user says wins.
            env.setdefault("IMAGEMILL_THREADS", str(max(1, usable_cores() // self.most)))
        for number in range(1, self.most + 1):
            name, node = _worker(number), f"{_worker(number)}@{host}"
            programs.append(
                Service(
                    name=name,
                    command=[*worker, "--name", node],
                    env={**env, **metrics.environment(shown.get(name))},
                    cwd=HOME,
                    ready=_beats(ledger, node),
                    ready_seconds=START_SECONDS,
                    stop_seconds=settings.grace_seconds,
                    ends=True,  # a worker that was drained
                    stop_order=0,
                )
            )
        return programs


def _worker(number: int) -> str:
    return f"worker-{number}"


def make_folder(data: Path) -> None:
    """Raises InvalidSettings where it cannot be made."""
    try:
        # A folder that is shared with other things keeps its mode; what lies in it is private either way.
        if not data.exists() or (data / SERVERS_FILE).exists():
            private_folder(data)
        private_folder(data / "logs")
        # It holds credentials and often lies in somebody's repository.
        (data / ".gitignore").write_text("*\n")
    except OSError as error:
        raise InvalidSettings(
            f"The data folder {data} cannot be made ({error.strerror}); choose another with --data."
        ) from error


def _quiet(call: Callable[[], object]) -> Callable[[], bool]:
    """Return whether the call succeeds; an ImagemillError means not yet."""

    def succeeds() -> bool:
        try:
            call()
        except ImagemillError:
            return False
        return True

    return succeeds


def _beats(ledger: Ledger, node: str) -> Callable[[], bool]:
    """Return whether a worker has sent a heartbeat since now."""
    forgotten = False

    def beats() -> bool:
        nonlocal forgotten
        try:
            if not forgotten:
                # What the last stack left has a TTL, and would look like a worker that is ready.
                ledger.leave(node)
                forgotten = True
                return False
            return any(worker.name == node for worker in ledger.workers())
        except ServiceUnavailable:
            return False

    return beats
