"""A whole Imagemill of real processes, made to be broken: controller, clock and workers that can be killed.

It has servers of its own, so that a test may stop, kill or wipe them.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from pydantic import SecretStr

from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.errors import ServiceUnavailable
from contract.jobs.status import Status
from contract.keys.queues import WORKER_QUEUES
from contract.online.connection import ping
from contract.settings import Settings, load
from deploy.local import servers as local
from deploy.local.supervisor import Service, Supervisor
from producer import Client
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent
# Short, so that a test sees a lease lapse; the ratio to the defaults is what production waits.
TIMES = {"lease_seconds": 2.0, "reconcile_seconds": 1.0, "store_patience_seconds": 60.0}
# The web sites of tests are on loopback, which is closed to fetches elsewhere.
OPEN = {"fetch_allow": "127.0.0.1", "fetch_ports": "1-65535"}


@cache
def compiled_models() -> Path:
    """The cache that all stacks of a test process share: converting a model takes half of a worker's start."""
    made = Path(tempfile.mkdtemp(prefix="imagemill-cache-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def own_cache(folder: Path) -> Path:
    """Make `folder` the cache of one stack, and copy the models that are compiled already into it."""
    folder.mkdir()
    if (found := compiled_models() / "openvino").is_dir():
        shutil.copytree(found, folder / "openvino", ignore=shutil.ignore_patterns("tmp*"))
    return folder


def make_servers(data: Path, **settings: Any) -> tuple[list[Service], Settings]:
    """A Redis and an S3 server in a folder, to be started, and the settings that lead to them."""
    made = local.Servers.of(data)
    addresses = {
        "redis_url": made.redis_url,
        "online_redis_url": made.online_redis_url,
        "s3_endpoint": made.s3_endpoint,
    }
    keys = {"s3_access_key": made.s3_access_key, "s3_secret_key": made.s3_secret_key}
    given = {**addresses, **keys, **OPEN, "cache_dir": compiled_models(), "state_dir": data / "state", **settings}
    found = load(data=data, **given)

    def redis_answers() -> bool:
        with suppress(ServiceUnavailable), closing(Ledger(found, patience=0)) as ledger:
            return bool(ledger.info())
        return False

    def s3_answers() -> bool:
        with suppress(ServiceUnavailable), closing(ObjectStore(found, patience=0)) as store:
            local.probe(store)
            return True
        return False

    def online_answers() -> bool:
        with suppress(ServiceUnavailable):
            return ping(found)
        return False

    services = [
        local.redis_service(made, data, redis_answers),
        local.s3_service(made, data, s3_answers),
        local.online_service(made, data, online_answers),
    ]
    # Nobody reads the data afterwards, and SeaweedFS would wait for idle connections.
    services = [replace(service, stop_seconds=0.5) for service in services]
    return services, found


class Mill:
    """Start with `running`; `client` is a producer's client of it."""

    def __init__(
        self,
        data: Path,
        workers: int,
        app: str = "worker.app",
        *,
        clocks: int = 1,
        controllers: int = 1,
        native_bf16: Sequence[str] = (),
        s3_options: Sequence[str] = (),
        s3_through: str = "",
        identities: Mapping[str, tuple[str, str]] = MappingProxyType({}),
        altered: Callable[[Service], Service] = lambda service: service,
        **settings: Any,
    ) -> None:
        """`native_bf16` is on or off for each worker; else it is what this machine has. `identities` are the keys of
        the store for `producer`, `controller` and `worker`, in place of the administrator's; `s3_options` are those of
        the server that knows them; through `s3_through`, the address of a proxy, all but `client` reach it. `altered`
        may change the command or the environment of a worker."""
        servers, self.settings = make_servers(data, **{**TIMES, **settings})
        threads = {"IMAGEMILL_THREADS": str(settings.get("threads", 1))}
        through = {"IMAGEMILL_S3_ENDPOINT": s3_through} if s3_through else {}
        self.environment = {**os.environ, **variables(self.settings), **threads, **through}
        servers = [replace(one, command=[*one.command, *s3_options]) if one.name == "s3" else one for one in servers]
        keys = {
            role: {"IMAGEMILL_S3_ACCESS_KEY": access, "IMAGEMILL_S3_SECRET_KEY": secret}
            for role, (access, secret) in identities.items()
        }
        program = [sys.executable, "-m", "celery", "-A", app]
        quiet = ["--without-gossip", "--without-mingle", "--loglevel", "INFO"]
        controller = [
            *program,
            "worker",
            "-Q",
            "control",
            "--concurrency",
            "2",
            *quiet,
        ]
        self.controllers = ["controller", *(f"controller-{n}" for n in range(1, controllers))]
        self.clocks = ["clock", *(f"clock-{n}" for n in range(1, clocks))]
        services = [
            *servers,
            *(
                self._service(name, [*controller, "-n", f"{name}@%h"], keys.get("controller", {}))
                for name in self.controllers
            ),
            *(
                self._service(
                    name,
                    [*program, "beat", "-s", str(data / name), "--pidfile=", "--loglevel", "INFO"],
                    keys.get("controller", {}),
                )
                for name in self.clocks
            ),
            *(
                altered(
                    self._service(
                        f"worker-{n}",
                        [*program, "worker", "-Q", ",".join(WORKER_QUEUES), "-n", f"worker-{n}@%h", *quiet],
                        {
                            **keys.get("worker", {}),
                            **({"IMAGEMILL_NATIVE_BF16": native_bf16[n]} if native_bf16 else {}),
                        },
                    )
                )
                for n in range(workers)
            ),
        ]
        self.workers = [f"worker-{n}" for n in range(workers)]
        self.supervisor = Supervisor(services, data / "logs")
        self.client = Client(identified(self.settings, *identities["producer"]) if identities else self.settings)

    def _service(self, name: str, command: list[str], told: Mapping[str, str] = MappingProxyType({})) -> Service:
        return Service(name=name, command=command, env={**self.environment, **told}, cwd=ROOT, stop_seconds=20)

    @contextmanager
    def running(self) -> Iterator[Self]:
        with self.supervisor, closing(self.client):
            self.supervisor.start("redis", "redis-online", "s3")
            with closing(ObjectStore(self.settings)) as store:
                store.ensure_bucket()
            self.supervisor.start(*self.controllers, *self.clocks, *self.workers)
            wait_until(self.ready, 60, "all workers to be ready")
            yield self

    def ready(self) -> bool:
        """Return whether all workers have loaded their models; the heartbeat of one that was killed outlives it."""
        beating = {worker.fields["pid"] for worker in self.client.workers() if "models" in worker.fields}
        return all(str(self.supervisor.pid(name)) in beating for name in self.workers)

    def kill(self, name: str, sig: signal.Signals = signal.SIGKILL) -> None:
        self.supervisor.kill(name, sig)

    def pause(self, *names: str) -> None:
        """SIGSTOP these processes and their children, as a virtual machine that stands still."""
        self._signal(names, signal.SIGSTOP)

    def go_on(self, *names: str) -> None:
        """SIGCONT what was paused."""
        self._signal(names, signal.SIGCONT)

    @contextmanager
    def paused(self, *names: str) -> Iterator[None]:
        """Have these processes stand still for the block, so that no job is over before it is canceled."""
        self.pause(*names)
        try:
            yield
        finally:
            self.go_on(*names)

    def _signal(self, names: Sequence[str], sig: signal.Signals) -> None:
        for name in names:
            # Each child of the supervisor leads a group of its own.
            if (pid := self.supervisor.pid(name)) is not None:
                with suppress(ProcessLookupError):
                    os.killpg(pid, sig)

    def begun(self, job: str, done: int) -> None:
        """Wait until some of the job's images are labelled, and not all of them."""
        wait_until(lambda: (self.client.status(job).done or 0) >= done, 60, f"{done} images of {job}")
        assert not self.client.status(job).ended, "the job was over before it could be disturbed"

    def finished(self, job: str, timeout: float = 120) -> Status:
        wait_until(lambda: self.client.status(job).ended, timeout, f"{job} to end")
        return self.client.status(job)

    def bucket(self, name: str) -> ObjectStore:
        """Return a bucket of the user's own, made if need be; Imagemill keeps its jobs in another."""
        store = ObjectStore(self.settings.model_copy(update={"bucket": name}))
        store.ensure_bucket()
        return store

    def imagemill(self, *words: str | Path) -> tuple[int, str, str]:
        """Run the command as a user has it; return its exit code, stdout and stderr."""
        done = subprocess.run(
            [sys.executable, "-m", "producer", *map(str, words)],
            env={**os.environ, **variables(self.settings)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def log(self, name: str) -> str:
        return self.supervisor.log_file(name).read_text()


def identified(settings: Settings, access_key: str, secret_key: str) -> Settings:
    """The same servers, by another identity of the store."""
    return settings.model_copy(update={"s3_access_key": access_key, "s3_secret_key": SecretStr(secret_key)})


def variables(settings: Settings) -> dict[str, str]:
    """The environment that gives a process these settings."""
    plain = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in settings.model_dump().items()
    }
    return {f"IMAGEMILL_{name.upper()}": str(value) for name, value in plain.items() if value is not None}


def check_complete(client: Client, job: str, keys: list[str]) -> Status:
    """Every item exactly one row, and counters that agree with the rows. The promise, counted."""
    status = client.status(job)
    rows = list(client.results(job))
    counted = Counter(row["key"] for row in rows)
    doubled = {key: n for key, n in counted.items() if n > 1}
    assert not doubled, f"doubled: {doubled}"
    assert set(counted) == set(keys), f"lost: {sorted(set(keys) - set(counted))[:5]}"
    by_status = Counter(row["status"] for row in rows)
    assert (status.total, status.done) == (len(keys), len(keys))
    assert (status.ok, status.errors) == (by_status["ok"], by_status["error"])
    return status
