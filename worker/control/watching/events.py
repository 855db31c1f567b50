"""Takes what object stores post to `/v1/events`: checked, sorted by watch, written to Redis, and only then answered.

An event that cannot be understood is kept in the bucket, where somebody can look at it; the newest hundred are.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from contract.backend.objects import ObjectStore
from contract.errors import ImagemillError, InvalidEvent, ServiceUnavailable
from contract.instruments import EVENTS
from contract.keys.watches import REJECTED_EVENTS, rejected_event
from contract.records import Record
from contract.settings import Settings
from contract.telemetry.routes import Answer, Inbox, as_json
from contract.watches.events import Event, parse_events
from contract.watches.hints import Hints
from contract.watches.record import Watch

log = logging.getLogger(__name__)

PATH = "/v1/events"
LIMIT = 2**20
_KEPT = 100
_SHOWN = 2**14
_PAUSE_SECONDS = 1.0
"""Between two rejected events that are kept: a store is not filled by who sends many."""


class RejectedEvent(Record):
    """`watches/rejected/<time>-<digest>.json`: what came, its first 16 kB, and why it was rejected."""

    at: str
    reason: str
    bytes: int
    body: str


class EventsInbox:
    """The inbox for events of one controller; `watches` returns the watches of the bucket, as they were last read."""

    def __init__(
        self, settings: Settings, store: ObjectStore, hints: Hints, watches: Callable[[], Iterable[Watch]]
    ) -> None:
        self._token = settings.events_token.get_secret_value()
        self._store, self._hints, self._watches = store, hints, watches
        self._lock = threading.Lock()
        self._kept_at = -_PAUSE_SECONDS

    @property
    def inbox(self) -> Inbox:
        """What the server of this process serves at `PATH`."""
        return Inbox(refuse=self.refuse, take=self.take, limit=LIMIT)

    def refuse(self, authorization: str) -> Answer | None:
        """Return an answer to whoever does not send the token, as `Authorization: Bearer TOKEN`."""
        scheme, _, given = authorization.partition(" ")
        if not self._token:
            EVENTS.add(1, "refused")
            return _error(403, "No events are taken here; set IMAGEMILL_EVENTS_TOKEN for the controller.")
        # The time it takes says nothing of where two tokens differ.
        if not hmac.compare_digest(given.strip().encode(), self._token.encode()) or scheme.lower() != "bearer":
            EVENTS.add(1, "refused")
            return _error(401, "Send the value of IMAGEMILL_EVENTS_TOKEN as `Authorization: Bearer TOKEN`.")
        return None

    def take(self, body: bytes) -> Answer:
        """Answer 204 once Redis has what a body announces, and 400 if it cannot be understood.

        Answer 503 if Redis is away, or if the watches were not read yet.
        """
        try:
            events = parse_events(body)
        except InvalidEvent as error:
            EVENTS.add(1, "rejected")
            self._keep(body, str(error))
            return _error(400, str(error))
        try:
            found, unwatched = self._sorted(events)
            self._hints.tell(found)
        except ServiceUnavailable as error:
            EVENTS.add(1, "unavailable")
            return _error(503, f"{error} The next full sweep finds what was announced.")
        EVENTS.add(unwatched, "unwatched")
        EVENTS.add(len(events) - unwatched, "taken")
        return Answer(204, b"")

    def _sorted(self, events: Iterable[Event]) -> tuple[dict[str, list[str]], int]:
        """Return the keys for each watch, by its name, and how many events are of no watch's prefix."""
        watches = [(watch.name, watch.bucket, watch.prefix) for watch in self._watches() if not watch.paused]
        found: dict[str, list[str]] = {}
        unwatched = 0
        for event in events:
            names = [
                name for name, bucket, prefix in watches if event.bucket == bucket and event.key.startswith(prefix)
            ]
            unwatched += not names
            for name in names:
                found.setdefault(name, []).append(event.key)
        return found, unwatched

    def _keep(self, body: bytes, reason: str) -> None:
        """Keep an event that was rejected, one a second at most."""
        with self._lock:
            if time.monotonic() - self._kept_at < _PAUSE_SECONDS:
                return
            self._kept_at = time.monotonic()
        now = datetime.now(UTC)
        record = RejectedEvent(
            at=now.isoformat(timespec="milliseconds"),
            reason=reason,
            bytes=len(body),
            body=body[:_SHOWN].decode(errors="backslashreplace"),
        )
        stamp, digest = now.strftime("%Y%m%dt%H%M%S%f"), hashlib.sha256(body).hexdigest()
        log.warning("An event was rejected: %s", reason)
        try:
            self._store.put(rejected_event(stamp, digest), record.to_json())
            there = [entry.key for entry in self._store.list(REJECTED_EVENTS)]
            self._store.delete_all(there[:-_KEPT])
        except ImagemillError as error:
            log.warning("A rejected event is not kept: %s", error)


def _error(status: int, sentence: str) -> Answer:
    return as_json({"error": sentence}, status)
