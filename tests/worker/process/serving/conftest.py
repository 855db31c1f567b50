"""Requests as an asker sends them, for one model, to workers that a test plays."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from contract.keys.online import OnlineKeys
from contract.online import messages
from contract.online.connection import GROUP, connect, need_address, script
from contract.online.messages import Classify, Reply, RequestId
from contract.online.state import WorkerSays
from contract.settings import Settings
from worker.process.serving.inbox import Inbox

REF = "parity@1"
ASKER = "0" * 32
LONG_MS = 600_000
"""Who says something so much later than now goes on to say it for longer than any test takes."""


class Asker:
    """Asks, and reads replies."""

    def __init__(self, settings: Settings) -> None:
        self.redis = connect(need_address(settings))
        self.keys = OnlineKeys(settings.namespace)
        self._ask = self.redis.register_script(script("ask"))

    def now_ms(self) -> int:
        seconds, micros = self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def ask(self, *images: bytes, budget_ms: int = 60_000) -> RequestId:
        """Send one request, admitted for the sake of a worker of whom no other knows."""
        heralds = f"{self.keys.workers(REF)}:heralds"
        self.redis.hset(heralds, "herald", WorkerSays(at_ms=self.now_ms() + LONG_MS, rate=1000.0).field())
        keys = tuple(str(n) for n in range(len(images)))
        payload = messages.write_request(Classify(reply_to=ASKER, keys=keys, top_k=1), images)
        id = RequestId(uuid.uuid4().hex, len(images), len(payload), REF)
        names = self.keys
        found: Any = self._ask(
            [names.open, names.load, names.requests(REF), heralds, names.payload(str(id))],
            [2**30, 1000, 2000, str(id), payload, id.images, id.size, id.model, budget_ms],
        )
        assert found == [[b"taken"]]
        return id

    def reply(self, seconds: float = 80.0) -> Reply:
        """Return the next reply."""
        found: Any = self.redis.blpop([self.keys.replies(ASKER)], timeout=min(seconds, 4.0))
        while found is None and (seconds := seconds - 4.0) > 0:
            found = self.redis.blpop([self.keys.replies(ASKER)], timeout=4.0)
        assert found is not None, "no reply"
        return messages.read_reply(found[1])[0]

    def pending(self) -> dict[str, tuple[str, int]]:
        """The consumer that holds each entry, and how often it was delivered."""
        found: Any = self.redis.xpending_range(self.keys.requests(REF), GROUP, "-", "+", 1000)
        return {one["message_id"].decode(): (one["consumer"].decode(), one["times_delivered"]) for one in found}

    def idle_ms(self) -> int:
        """For how long the entry that is pending has been so."""
        found: Any = self.redis.xpending_range(self.keys.requests(REF), GROUP, "-", "+", 1)
        return int(found[0]["time_since_delivered"])

    def left(self) -> int:
        """Entries in the stream."""
        return int(self.redis.xlen(self.keys.requests(REF)))


MakeInbox = Callable[[str], Inbox]


@pytest.fixture
def asker(settings: Settings) -> Iterator[Asker]:
    made = Asker(settings)
    with closing(made.redis):
        yield made


@pytest.fixture
def inbox_of(asker: Asker) -> MakeInbox:
    """Makes the inbox of a process."""
    return lambda process: Inbox(asker.redis, asker.keys, REF, process)
