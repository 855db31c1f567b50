"""What a planner's process runs in place of the planner: it dies, hangs, takes long, or does not listen.

Each child imports this module, so it imports next to nothing: a child has seconds to say what it reads.
"""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection

from contract.settings import Settings
from worker.control import plan_child


def hang(settings: Settings, job: str, pipe: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pipe.send_bytes(plan_child.STEP + b"in/hangs.tar")
    while True:
        time.sleep(60)


def kill(settings: Settings, job: str, pipe: Connection) -> None:
    pipe.send_bytes(plan_child.STEP + b"in/kills.tar")
    os.kill(os.getpid(), signal.SIGKILL)


def plan_slowly(settings: Settings, job: str, pipe: Connection) -> None:
    """Answer like a planner of a large source, which stops when it is asked to."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    while not stopped:
        pipe.send_bytes(plan_child.STEP + b"in/")
        time.sleep(0.05)
    pipe.send_bytes(plan_child.LATER)


def start_slowly(settings: Settings, job: str, pipe: Connection) -> None:
    """Take so long to begin that SIGTERM comes before anything handles it, and ends the process."""
    while True:
        time.sleep(60)


def slow_or_plan(settings: Settings, job: str, pipe: Connection) -> None:
    (plan_slowly if job.startswith("slow") else plan_child.serve)(settings, job, pipe)


def deaf_or_plan(settings: Settings, job: str, pipe: Connection) -> None:
    (start_slowly if job.startswith("slow") else plan_child.serve)(settings, job, pipe)
