"""Finds out what is at fault when a model raises on requests: the device, or one of them.

Each request is run alone beside known good input. One that raises there too goes to another process, and only what
raises in two processes is blamed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from contract.errors import DeviceOutOfMemory, WorkerUnfit
from contract.instruments import ONLINE_REQUESTS
from worker.execution.resources import Resources
from worker.process.serving.inbox import Inbox
from worker.process.serving.rows import said
from worker.process.serving.work import Answer, Asked, Work

log = logging.getLogger(__name__)


class Verdict:
    """Judges the requests for one model; `answer` and `fail` reply to one."""

    def __init__(
        self,
        resources: Resources,
        inbox: Inbox,
        work: Work,
        *,
        answer: Callable[[Asked, Answer], None],
        fail: Callable[[Asked, str], None],
    ) -> None:
        self._resources, self._inbox, self._work = resources, inbox, work
        self._answer, self._fail = answer, fail

    def of(self, asked: Sequence[Asked], error: BaseException) -> None:
        """Reply to requests that raised together, or leave them to other processes."""
        ref = self._work.model.ref
        log.error("Requests for %s raised; each is tried alone", ref, exc_info=error)
        for place, one in enumerate(asked):
            try:
                (answer,) = self._work.submit([one]).result()
            except Exception as again:
                if self._sick():
                    for left in asked[place:]:
                        self._inbox.hand_over(left.taken)
                    return
                self._fault(one, again)
                continue
            self._answer(one, answer)

    def _sick(self) -> bool:
        """Return whether known good input fails here too; a process that is unfit leaves."""
        health = self._resources.health
        try:
            self._work.check()
            health.check()
        except Exception as error:
            log.critical("%s fails on known good input here: %s", self._work.model.ref, error)
            if not isinstance(error, WorkerUnfit):
                with suppress(WorkerUnfit):
                    health.check()
            if health.unfit:
                health.leave(health.unfit)
            return True
        return False

    def _fault(self, one: Asked, error: Exception) -> None:
        """Pass a request on that raised alone beside good input; two processes are proof against it."""
        if isinstance(error, DeviceOutOfMemory):
            self._fail(one, str(error))
            return
        others = self._inbox.faults(one.taken)
        if not others:
            _, living = self._inbox.living()
            if any(says.rate > 0 and says.worker != self._resources.name for says in living.values()):
                self._inbox.pass_on(one.taken)
                ONLINE_REQUESTS.add(1, "passed_on")
            else:
                self._fail(
                    one,
                    f"The model raised on it ({said(error)}), and no other worker is there to try; try again later.",
                )
            return
        answer = self._work.isolate(one, others + 1)
        if answer is None:
            self._fail(
                one, f"The model raised on it in {others + 1} processes that pass their own test ({said(error)})."
            )
        else:
            self._answer(one, answer)
