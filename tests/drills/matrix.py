"""Random faults: who fails, how, when, and for how long. A seed makes the same series again."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from contract.errors import ServiceUnavailable
from contract.keys.queues import QUEUES
from tests.mill import TIMES, Mill

WORKERS = ("worker-0", "worker-1")
CONTROLLERS = ("controller", "controller-1")
CLOCKS = ("clock", "clock-1")
SERVERS = ("redis", "s3")

WAYS: dict[str, tuple[str, ...]] = {
    "kill": (*WORKERS, *CONTROLLERS, *CLOCKS, *SERVERS),
    "terminate": (*WORKERS, *CONTROLLERS, *CLOCKS),
    "pause": (*WORKERS, *CONTROLLERS, *CLOCKS, *SERVERS),
    "take away": SERVERS,
    "cut off": ("redis",),
    "wipe": ("redis",),
    "lose messages": ("redis",),
}
"""What can happen, and to whom."""
MOMENTS = ("planning", "begun", "half", "nearly done", "finalizing")


@dataclass(frozen=True)
class Fault:
    """One fault of the matrix."""

    what: str
    who: str
    when: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.what} {self.who} when {self.when} for {self.seconds:.1f} s"

    def strike(self, mill: Mill) -> None:
        """Do it, and undo it after its time."""
        redis = mill.client.backend.ledger.redis
        if self.what == "kill":
            mill.kill(self.who)
        elif self.what == "terminate":
            mill.kill(self.who, signal.SIGTERM)
        elif self.what == "pause":
            mill.pause(self.who)
            wait(self.seconds)
            mill.go_on(self.who)
        elif self.what == "take away":
            mill.supervisor.stop_service(self.who)
            wait(self.seconds)
            mill.supervisor.start_service(self.who)
        elif self.what == "cut off":
            redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        elif self.what == "wipe":
            redis.flushall()
        else:
            prefix = mill.client.backend.ledger.keys.broker_prefix
            redis.delete(*(f"{prefix}{queue}" for queue in QUEUES))


def series(seed: int) -> Callable[[], Fault]:
    """Return what draws one fault after the other: each way to fail equally often, over all who can."""
    rng = random.Random(seed)

    def draw() -> Fault:
        what = rng.choice(list(WAYS))
        # Half of the pauses outlast a lease.
        return Fault(what, rng.choice(WAYS[what]), rng.choice(MOMENTS), rng.uniform(0.2, 2 * TIMES["lease_seconds"]))

    return draw


def reached(mill: Mill, job: str, when: str, items: int) -> bool:
    """Return whether a job has come to a moment, or is past it."""
    with suppress(ServiceUnavailable):
        status = mill.client.status(job)
        wanted = {"planning": 0, "begun": 1, "half": items // 2, "nearly done": items * 9 // 10, "finalizing": items}
        return status.ended or status.state == "finalizing" or status.done >= wanted[when]
    return False


def wait(seconds: float) -> None:
    """Let a fault last; it is its length that is drawn."""
    threading.Event().wait(seconds)
