"""The outbox: every message to a webhook, written if absent, and what became of it.

A message is named after what happened and to whom it is told, so whoever makes it, and however often, makes one. It
waits until it is delivered or given up; `resend` has it wait again, with the same id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Literal, TypeVar

from pydantic import Field

from contract.backend.listing import Entry
from contract.backend.objects import ObjectStore
from contract.errors import ObjectNotFound, UnknownWebhook
from contract.jobs.commits import in_parallel
from contract.keys.webhooks import (
    WAITING_MESSAGES,
    WEBHOOK_MESSAGES,
    WEBHOOK_OUTCOMES,
    message_after,
    message_name,
    parse_webhook_message,
    webhook_message,
    webhook_outcome,
    webhook_record,
    webhook_waiting,
)
from contract.records import Record
from contract.times import iso

R = TypeVar("R", bound=Record)

KEEP_DAYS = 30
"""Days for which a message is kept, and can be sent again."""
_THREADS = 8
"""Messages that are read at once; each is three objects."""
_PREFIXES = (WAITING_MESSAGES, WEBHOOK_OUTCOMES, WEBHOOK_MESSAGES)
"""In the order of deletion: a deletion that is interrupted leaves no record without its message."""


class Attempt(Record):
    """One request, and what came of it."""

    at: str = Field(description="UTC, ISO 8601.")
    status: int | None = Field(None, description="Status of the answer; null without a complete answer.")
    seconds: float = Field(0.0, description="How long it took.")
    error: str | None = Field(None, description="Why it does not count, in a few words; null if it was delivered.")


class Message(Record):
    """`webhooks/messages/<endpoint>/<name>.json`."""

    id: str = Field(description="The header `webhook-id`: the same each time the message is sent.")
    endpoint: str
    type: str
    at: str = Field(description="When it happened, UTC, ISO 8601.")
    body: str = Field(description="The JSON that is sent, byte by byte.")


class Waiting(Record):
    """`webhooks/waiting/<endpoint>/<name>.json`."""

    round: int = Field(0, description="How often somebody asked to send it again.")
    attempts: int = Field(0, ge=0)
    due: float = Field(ge=0, le=1e11, description="When it is sent next, in seconds since the epoch.")
    last: Attempt | None = None


class Outcome(Record):
    """`webhooks/outcomes/<endpoint>/<name>.json`."""

    round: int = 0
    state: Literal["delivered", "failed"]
    attempts: int
    at: str
    last: Attempt | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened. `subject` names it among all that happened at the same millisecond."""

    type: str
    subject: str
    at_ms: int
    data: Mapping[str, Any]

    def name(self, endpoint: str) -> str:
        """Return the name of the message to a webhook about it."""
        digest = hashlib.sha256(f"{endpoint}\0{self.subject}\0{self.at_ms}".encode()).hexdigest()
        return message_name(self.at_ms, digest)

    def message(self, endpoint: str) -> Message:
        """Return the message to a webhook about it."""
        at = iso(self.at_ms / 1000) or ""
        body = json.dumps({"type": self.type, "timestamp": at, "data": self.data}, ensure_ascii=False)
        return Message(id=message_id(self.name(endpoint)), endpoint=endpoint, type=self.type, at=at, body=body)


def message_id(name: str) -> str:
    """Return the id of a message; ids hold no dots, which separate the parts that are signed."""
    return "msg_" + name.replace("-", "_")


def name_of(id: str) -> str:
    """Return the name of the message with an id."""
    return id.removeprefix("msg_").replace("_", "-")


class Told(Record):
    """A message and where it stands, as `imagemill webhooks show --json` prints it. Times are UTC, ISO 8601."""

    id: str = Field(description="The header `webhook-id`.")
    type: str = Field(description="What happened, as `job.succeeded`.")
    at: str = Field(description="When it happened.")
    state: Literal["waiting", "delivered", "failed"] = Field(description="`failed`: it is not sent again by itself.")
    attempts: int = Field(0, description="How often it was sent.")
    next_at: str | None = Field(None, description="When it is sent next; null if it does not wait.")
    last: Attempt | None = Field(None, description="The newest attempt.")
    body: str = Field(description="The JSON that is sent.")


class Outbox:
    """The messages of one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def add(self, event: Event, endpoint: str, now: float, *, disabled: str = "") -> bool:
        """Write the message to a webhook about an event, and have it wait; return False if it was there already.

        A webhook that is disabled for a reason gets a message that has failed, and can be sent again.
        """
        name = event.name(endpoint)
        fresh = self._store.put_if_absent(webhook_message(endpoint, name), event.message(endpoint).to_json())
        if self.outcome(endpoint, name) is None:
            if disabled:
                last = Attempt(at=iso(now) or "", error=disabled)
                told = Outcome(state="failed", attempts=0, at=last.at, last=last)
                self._store.put_if_absent(webhook_outcome(endpoint, name), told.to_json())
            else:
                self._store.put_if_absent(webhook_waiting(endpoint, name), Waiting(due=now).to_json())
        return fresh

    def message(self, endpoint: str, name: str) -> Message | None:
        """Return a message, None if there is none."""
        return self._read(Message, webhook_message(endpoint, name))

    def waiting(self, endpoint: str, name: str) -> Waiting | None:
        """Return how a message waits, None if it does not. A record that cannot be one is due, and so written anew.

        Producers may write it, and one of them must not hold the others' messages up.
        """
        try:
            found = self._read(Waiting, webhook_waiting(endpoint, name))
            if found is not None and found.last is not None:
                datetime.fromisoformat(found.last.at).timestamp()
        except (ValueError, OverflowError):
            return Waiting(due=0.0)
        return found

    def outcome(self, endpoint: str, name: str) -> Outcome | None:
        """Return what became of a message, None if it has never been delivered nor given up."""
        return self._read(Outcome, webhook_outcome(endpoint, name))

    def postpone(self, endpoint: str, name: str, waiting: Waiting) -> None:
        """Write how a message waits from now on."""
        self._store.put(webhook_waiting(endpoint, name), waiting.to_json())

    def finish(self, endpoint: str, name: str, outcome: Outcome) -> None:
        """Write what became of a message, and have it wait no more."""
        self._store.put(webhook_outcome(endpoint, name), outcome.to_json())
        there = self.waiting(endpoint, name)
        if there is not None and there.round <= outcome.round:  # nobody asked to send it again meanwhile
            self._store.delete(webhook_waiting(endpoint, name))

    def resend(self, endpoint: str, id: str, now: float) -> Told:
        """Have a message wait again, from its first attempt on; raises UnknownWebhook."""
        name = self._named(endpoint, id)
        if self.message(endpoint, name) is None:
            raise _no_message(endpoint, id)
        there, done = self.waiting(endpoint, name), self.outcome(endpoint, name)
        round = max(there.round if there else 0, done.round if done else -1) + 1
        self.postpone(endpoint, name, Waiting(round=round, due=now))
        return self.told(endpoint, name)

    def told(self, endpoint: str, name: str) -> Told:
        """Return where a message stands; raises ObjectNotFound."""
        message = Message.model_validate_json(self._store.get(webhook_message(endpoint, name)))
        waiting, done = self.waiting(endpoint, name), self.outcome(endpoint, name)
        said = {"id": message.id, "type": message.type, "at": message.at, "body": message.body}
        if waiting is not None and (done is None or done.round < waiting.round):
            at = {"next_at": iso(waiting.due), "attempts": waiting.attempts, "last": waiting.last}
            return Told.model_validate({**said, **at, "state": "waiting"})
        if done is None:  # a controller is writing it
            return Told.model_validate({**said, "state": "waiting"})
        return Told.model_validate({**said, "state": done.state, "attempts": done.attempts, "last": done.last})

    def messages(self, endpoint: str, *, limit: int, before: str = "") -> list[Told]:
        """Return messages to a webhook, newest first, those behind the id `before`; raises UnknownWebhook for no id."""
        after = webhook_message(endpoint, self._named(endpoint, before)) if before else ""
        entries = self._store.list(f"{WEBHOOK_MESSAGES}{endpoint}/", after=after, at_once=min(limit + 1, 1000))
        names = (parsed for entry in entries if (parsed := parse_webhook_message(entry.key)) is not None)
        found: list[Told] = []
        while some := list(islice(names, limit - len(found))):
            told = in_parallel(self._told_if_kept, some, threads=min(len(some), _THREADS))
            found += [one for one in told if one is not None]
        return found

    def _told_if_kept(self, named: tuple[str, str]) -> Told | None:
        try:
            return self.told(*named)
        except ObjectNotFound:
            return None  # its time is over

    def count_waiting(self, endpoint: str) -> int:
        """Return how many messages to a webhook wait."""
        return sum(1 for _ in self._store.list(f"{WAITING_MESSAGES}{endpoint}/"))

    def forget(self, endpoint: str) -> int:
        """Delete every message to a webhook, also those that wait; return how many objects that were."""
        found = [entry.key for entry in self._of(endpoint)]
        self._store.delete_all(found)
        return len(found)

    def drop(self, endpoint: str, name: str) -> None:
        """Delete a message, also if it waits."""
        kinds = (webhook_waiting, webhook_outcome, webhook_message)
        self._store.delete_all(kind(endpoint, name) for kind in kinds)

    def old(self, now: float) -> Iterator[tuple[str, list[str], int]]:
        """Yield, for each webhook that has some, the keys and the bytes of what is kept no longer.

        That is what happened 30 days ago, and everything to a webhook that was removed: an attempt that ran then, or
        a controller that had just looked for the webhook, may have written more.
        """
        before = message_after(int((now - KEEP_DAYS * 86_400) * 1000))
        folders = {
            entry.key.removeprefix(prefix).rstrip("/")
            for prefix in _PREFIXES
            for entry in self._store.list(prefix, folders=True)
            if entry.key.endswith("/")
        }
        for endpoint in sorted(folders):
            kept = self._store.exists(webhook_record(endpoint))
            gone = list(self._of(endpoint, after=before if kept else ""))
            # One that was added again meanwhile may have new messages among these.
            if gone and kept == self._store.exists(webhook_record(endpoint)):
                yield endpoint, [entry.key for entry in gone], sum(entry.size for entry in gone)

    def _of(self, endpoint: str, *, after: str = "") -> Iterator[Entry]:
        """Yield the objects of the messages to a webhook, those behind a name."""
        for prefix in _PREFIXES:
            folder = f"{prefix}{endpoint}/"
            yield from self._store.list(folder, after=f"{folder}{after}" if after else "")

    def _named(self, endpoint: str, id: str) -> str:
        """Return the name of the message with an id; raises UnknownWebhook for what is no id."""
        name = name_of(id)
        if parse_webhook_message(webhook_message(endpoint, name)) is None:
            raise _no_message(endpoint, id)
        return name

    def _read(self, kind: type[R], key: str) -> R | None:
        try:
            return kind.model_validate_json(self._store.get(key))
        except ObjectNotFound:
            return None


def _no_message(endpoint: str, id: str) -> UnknownWebhook:
    return UnknownWebhook(f"The webhook {endpoint} has no message {id!r}; messages are kept for {KEEP_DAYS} days.")
