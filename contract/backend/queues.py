"""What is sent over the queues. Celery is loaded with the first message: most commands send none.

It knows neither transport nor routes; `contract.backend.broker` does.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from contract.backend.circuit import INTERACTIVE_SECONDS, Circuit
from contract.keys.queues import TASK_CHECK, TASK_FINALIZE, TASK_FINISH, TASK_PLAN
from contract.settings import Settings

if TYPE_CHECKING:
    from celery import Celery


class Queues:
    """Sends tasks. A message carries a job id, or a model's name and version; tickets are sent by the ledger.

    Every method raises RedisUnavailable if Redis does not take the message. Given settings, it makes its app with the
    first message, for a process in which somebody waits: no message is sent while `circuit` is open.
    """

    def __init__(self, app: Celery | Settings, circuit: Circuit | None = None) -> None:
        self._circuit = circuit
        self._app: Celery | None = None
        self._settings: Settings | None = None
        if isinstance(app, Settings):
            self._settings = app
        else:
            self._app = app
        self._lock = threading.Lock()

    def plan(self, job: str) -> None:
        self._send(TASK_PLAN, job)

    def finalize(self, job: str) -> None:
        self._send(TASK_FINALIZE, job)

    def finish(self, job: str) -> None:
        """Have a worker finish a job: select images and end it, or write its page."""
        self._send(TASK_FINISH, job)

    def check(self, name: str, version: int) -> None:
        """Have a worker check a pushed model, and publish it."""
        self._send(TASK_CHECK, name, version)

    def prepare(self) -> None:
        """Load Celery now, so that the first message of what somebody waits for does not."""
        self._opened()

    def close(self) -> None:
        """Close the connections of an app that was made here; a later message opens them again."""
        if self._settings is not None and self._app is not None:
            self._app.close()

    def _send(self, task: str, *args: str | int) -> None:
        from contract.backend import broker

        if self._circuit is not None:
            self._circuit.check()
        broker.send(self._opened(), task, args)

    def _opened(self) -> Celery:
        from contract.backend import broker  # it loads Celery

        with self._lock:
            if self._app is None:
                assert self._settings is not None
                self._app = broker.make_app(self._settings, silent_seconds=INTERACTIVE_SECONDS)
            return self._app
