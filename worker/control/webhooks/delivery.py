"""One attempt to deliver a message: what the bucket says of it, the request, and what is written afterwards.

It may be ended at any step. What was sent and not recorded is sent again, with the same id; what was recorded is not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from contract.backend.objects import ObjectStore
from contract.errors import UnknownWebhook
from contract.instruments import WEBHOOK_ATTEMPTS, WEBHOOK_GIVEN_UP
from contract.times import iso
from contract.web.webhooks import signing
from contract.web.webhooks.endpoints import Endpoint, Endpoints
from contract.web.webhooks.outbox import Attempt, Message, Outbox, Outcome, Waiting
from worker.control.webhooks.post import Answer, Poster
from worker.control.webhooks.retries import DELAYS, next_delay

log = logging.getLogger(__name__)

GONE = 410
_DISABLED = f"it answered {GONE} and is told nothing more; `imagemill webhooks enable` changes that"


@dataclass(frozen=True)
class Delivery:
    """How messages of one bucket are delivered."""

    store: ObjectStore
    poster: Poster
    delays: tuple[float, ...] = DELAYS
    clock: Callable[[], float] = time.time

    def attempt(self, id: str, name: str, *, early: bool = False) -> tuple[Answer | None, Waiting | None]:
        """Send a message if it waits and is due; return the answer, None if nothing was sent, and how it waits now.

        `early` sends it before it is due, because the webhook answers again; a failure then changes nothing.
        """
        outbox, endpoints = Outbox(self.store), Endpoints(self.store)
        waiting, done = outbox.waiting(id, name), outbox.outcome(id, name)
        if waiting is None or (waiting.due > self.clock() and not early):
            return None, waiting
        if done is not None and done.round >= waiting.round:  # its controller ended before the last step
            outbox.finish(id, name, done)
            return None, None
        message, endpoint = outbox.message(id, name), endpoints.find(id)
        if endpoint is None and not endpoints.exists(id):  # it was removed
            outbox.drop(id, name)
            return None, None
        if message is None or endpoint is None:
            self._give_up(outbox, id, name, waiting, Attempt(at=self._now, error="its record is gone"))
            return None, None
        if (disabled := endpoints.disabled(id)) is not None:
            self._give_up(outbox, id, name, waiting, Attempt(at=self._now, error=disabled.reason))
            return None, None
        answer = self._send(endpoints, endpoint, message)
        if answer is None or (self.poster.closed and not answer.delivered):
            return None, waiting  # this process ends, and the request with it
        tried = Attempt(at=self._now, status=answer.status, seconds=round(answer.seconds, 3), error=answer.error)
        if answer.delivered:
            WEBHOOK_ATTEMPTS.add(1, "delivered")
            told = Outcome(
                round=waiting.round, state="delivered", attempts=waiting.attempts + 1, at=self._now, last=tried
            )
            outbox.finish(id, name, told)
            return answer, None
        if answer.status == GONE:
            WEBHOOK_ATTEMPTS.add(1, "gone")
            log.warning("The webhook %s at %s answered %d and is disabled", id, endpoint.host, GONE)
            endpoints.disable(id, _DISABLED)
            self._give_up(outbox, id, name, waiting, tried, attempts=waiting.attempts + 1)
            return answer, None
        WEBHOOK_ATTEMPTS.add(1, "refused" if answer.refused else "failed")
        return answer, self._postpone(outbox, endpoint, name, waiting, tried, answer, early=early)

    def _send(self, endpoints: Endpoints, endpoint: Endpoint, message: Message) -> Answer | None:
        body, at = message.body.encode(), int(self.clock())
        try:
            headers = signing.headers(endpoints.secrets(endpoint.id), message.id, at, body)
        except UnknownWebhook as error:
            return Answer(0.0, error=str(error))
        except ValueError:
            return Answer(0.0, error="its secret is damaged; `imagemill webhooks rotate` makes another")
        return self.poster.post(endpoint.url, headers, body)

    def _postpone(
        self,
        outbox: Outbox,
        endpoint: Endpoint,
        name: str,
        waiting: Waiting,
        tried: Attempt,
        answer: Answer,
        *,
        early: bool,
    ) -> Waiting | None:
        attempts = waiting.attempts + (not early)
        delay = next_delay(attempts, answer.asked, self.delays)
        if early:
            later = waiting.model_copy(update={"last": tried})
        elif delay is None:
            log.warning("The webhook %s at %s is not told of %s: %s", endpoint.id, endpoint.host, name, tried.error)
            self._give_up(outbox, endpoint.id, name, waiting, tried, attempts=attempts)
            return None
        else:
            later = Waiting(round=waiting.round, attempts=attempts, due=self.clock() + delay, last=tried)
        outbox.postpone(endpoint.id, name, later)
        return later

    def _give_up(
        self, outbox: Outbox, id: str, name: str, waiting: Waiting, tried: Attempt, attempts: int | None = None
    ) -> None:
        WEBHOOK_GIVEN_UP.add(1)
        many = waiting.attempts if attempts is None else attempts
        told = Outcome(round=waiting.round, state="failed", attempts=many, at=self._now, last=tried)
        outbox.finish(id, name, told)

    @property
    def _now(self) -> str:
        return iso(self.clock()) or ""
