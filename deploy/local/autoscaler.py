"""Starts and drains the workers of an embedded stack as the work asks for (`contract.fleet.wanted`).

It knows services by name and workers by heartbeat. A worker that leaves gets SIGTERM, as in any cluster: it takes
nothing new, and hands back what it cannot finish.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import replace

from contract.backend.ledger import Ledger
from contract.errors import InvalidInput, ServiceUnavailable
from contract.fleet.pools import Pool, read_pools
from contract.fleet.snapshot import Fleet, WorkerState, read_fleet
from contract.fleet.wanted import Policy, Wanted, wanted
from contract.keys.queues import WORKER_QUEUES
from contract.settings import Settings
from deploy.local.supervisor import Supervisor

log = logging.getLogger("imagemill.autoscaler")

LOOK_SECONDS = 2.0
_TARGET, _COLD_START, _COOL_DOWN = 60.0, 15.0, 30.0
"""In place of a cluster's: on one machine a worker starts in seconds, and costs memory alone."""


def parse_count(text: str) -> tuple[int, int]:
    """Return least and most of `3` or `1..8`; raises InvalidInput."""
    first, dots, last = text.strip().partition("..")
    try:
        least, most = int(first), int(last if dots else first)
    except ValueError:
        least, most = 0, -1
    if not 0 <= least <= most:
        raise InvalidInput(f"--workers {text}: write a number, such as 2, or a range, such as 1..8.")
    return least, most


def policy_of(settings: Settings, least: int, most: int) -> Policy:
    """Return the policy of this stack's workers; `IMAGEMILL_POOLS` may give its pool other times."""
    if settings.pools and (named := read_pools(settings).get(settings.pool)) is not None:
        return replace(named, queues=WORKER_QUEUES, least=least, most=most)
    return Policy(
        pool=settings.pool,
        least=least,
        most=most,
        target_seconds=_TARGET,
        cold_start_seconds=_COLD_START,
        cool_down_seconds=_COOL_DOWN,
    )


def environment(settings: Settings, least: int, most: int) -> dict[str, str]:
    """Return the settings with which a controller says of this stack's workers what its autoscaler does.

    They are none for a stack without workers, and if the user describes pools, who may have workers elsewhere.
    """
    if settings.pools or not most:
        return {}
    policy = policy_of(settings, least, most)
    pool = Pool(
        min=policy.least,
        max=policy.most,
        target_seconds=policy.target_seconds,
        cold_start_seconds=policy.cold_start_seconds,
        cool_down_seconds=policy.cool_down_seconds,
    )
    return {"IMAGEMILL_POOLS": json.dumps({policy.pool: pool.model_dump(mode="json")})}


class Autoscaler:
    """Scales the services in `nodes`, whose values are the names of their workers, until `stop`."""

    def __init__(self, ledger: Ledger, supervisor: Supervisor, nodes: Mapping[str, str], policy: Policy) -> None:
        self._ledger, self._supervisor, self._nodes, self._policy = ledger, supervisor, dict(nodes), policy
        self._previous: Wanted | None = None
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name="autoscaler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Change nothing any more; a worker that is being drained is left to whoever stops all of them."""
        with self._lock:
            self._stop.set()

    def look(self) -> None:
        """Read the fleet, and start or drain workers; raises ServiceUnavailable if Redis does not answer."""
        fleet = read_fleet(self._ledger)
        known = set(self._nodes.values())
        # Other machines may work on the same Redis, and have a scaler of their own.
        ours = replace(fleet, workers=tuple(worker for worker in fleet.workers if worker.name in known))
        before, self._previous = self._previous, wanted(ours, self._policy, self._previous)
        running = [name for name in self._nodes if self._supervisor.wants(name)]
        more = self._previous.workers - len(running)
        if before is None or before.workers != self._previous.workers:
            log.info("%d workers are wanted: %s", self._previous.workers, self._previous.why)
        if more > 0:
            idle = [name for name in self._nodes if name not in running]
            with self._lock:
                if not self._stop.is_set():  # else they would outlive the stack
                    self._supervisor.start(*idle[:more], wait=False)
        elif more < 0:
            self._supervisor.stop_service(*self._idlest(ours, running)[:-more])

    def _idlest(self, fleet: Fleet, running: list[str]) -> list[str]:
        """Return services, those that start or have least to do first, and of equals the last one first."""
        states = {worker.name: worker for worker in fleet.workers}

        def place(name: str) -> tuple[int, int]:
            worker: WorkerState | None = states.get(self._nodes[name])
            return (worker.busy if worker else -1, -list(self._nodes).index(name))

        return sorted(running, key=place)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self.look()
            except ServiceUnavailable as error:
                log.info("The number of workers stays: %s", error)
            except Exception:
                log.exception("The number of workers stays")
