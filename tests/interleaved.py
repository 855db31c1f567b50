"""Threads that take turns at the steps where processes meet: one call to the store or the ledger at a time.

A seed decides who goes next and who dies at which step, so that each interleaving can be run again.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from contract.backend.listing import Entry
from contract.errors import ObjectNotFound


class KilledError(BaseException):
    """What a process that is killed at a step raises; nothing in the product catches it."""


def killed_at(step: int) -> Callable[[], None]:
    """Return what a process calls before each of its steps, and what kills it before one of them, counted from 1."""
    steps = itertools.count(1)

    def check() -> None:
        if next(steps) == step:
            raise KilledError

    return check


@dataclass
class Actor:
    """One process: what it does, and what came of it."""

    name: str
    run: Callable[[], Any]
    dies_at: int | None = None
    answer: Any = None
    error: Exception | None = None
    steps: int = 0
    done: bool = False
    dead: bool = False
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class Scheduler:
    """Runs actors to their ends, one step of one of them at a time."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._current = threading.local()
        self._parked = threading.Semaphore(0)

    def step(self) -> None:
        """Let others go first; threads that are no actors pass."""
        actor: Actor | None = getattr(self._current, "actor", None)
        if actor is None:
            return
        self._parked.release()
        actor.go.acquire()
        actor.steps += 1
        if actor.steps == actor.dies_at:
            actor.dead = True
        if actor.dead:  # also in what a dying process would do on its way out
            raise KilledError

    def play(self, actors: list[Actor]) -> None:
        """Run all actors; each keeps its answer or its error."""
        threads = [threading.Thread(target=self._act, args=(actor,), daemon=True) for actor in actors]
        for thread in threads:
            thread.start()
            self._parked.acquire()
        waiting = list(actors)
        while waiting:
            actor = self.random.choice(waiting)
            # A few steps in a row now and then: processes that alternate at each step are not the only schedule.
            for _ in range(self.random.choice((1, 1, 2, 5, 20))):
                actor.go.release()
                self._parked.acquire()
                if actor.done:
                    waiting.remove(actor)
                    break
        for thread in threads:
            thread.join()

    def _act(self, actor: Actor) -> None:
        self._current.actor = actor
        try:
            self.step()
            actor.answer = actor.run()
        except KilledError:
            pass
        except Exception as error:
            actor.error = error
        actor.done = True
        self._parked.release()


class Stepped:
    """Another object whose methods named in `steps` wait for their turn before they run."""

    def __init__(self, inner: Any, scheduler: Scheduler, steps: frozenset[str]) -> None:
        self._inner, self._scheduler, self._steps = inner, scheduler, steps

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._steps:
            return found

        def stepped(*args: Any, **kwargs: Any) -> Any:
            self._scheduler.step()
            return found(*args, **kwargs)

        return stepped


class DictStore:
    """A store in memory that promises what S3 does: writes are atomic, and listings show what was written before."""

    bucket = "bucket"
    endpoint = "memory"

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def get(self, key: str, *, bucket: str = "", limit: int | None = None, **_: Any) -> bytes:
        try:
            return self._objects[key]
        except KeyError:
            raise ObjectNotFound(f"There is no object {key}.") from None

    def exists(self, key: str, **_: Any) -> bool:
        return key in self._objects

    def size(self, key: str, **_: Any) -> int:
        return len(self.get(key))

    def bucket_exists(self, _: str) -> bool:
        return True

    def put(self, key: str, data: bytes, **_: Any) -> None:
        with self._lock:
            self._objects[key] = data

    def put_if_absent(self, key: str, data: bytes, **_: Any) -> bool:
        with self._lock:
            fresh = key not in self._objects
            self._objects.setdefault(key, data)
            return fresh

    def delete(self, key: str, **_: Any) -> None:
        with self._lock, suppress(KeyError):
            del self._objects[key]

    def delete_all(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.delete(key)

    def list(self, prefix: str, **_: Any) -> Iterator[Entry]:
        with self._lock:
            found = sorted((key, len(data)) for key, data in self._objects.items() if key.startswith(prefix))
        return iter([Entry(key, size) for key, size in found])


class Recorded:
    """A store that keeps the history of what was written under each key."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.written: dict[str, list[bytes]] = {}

    def put(self, key: str, data: bytes, **options: Any) -> None:
        self.written.setdefault(key, []).append(data)
        self._inner.put(key, data, **options)

    def put_if_absent(self, key: str, data: bytes, **options: Any) -> bool:
        fresh: bool = self._inner.put_if_absent(key, data, **options)
        if fresh:
            self.written.setdefault(key, []).append(data)
        return fresh

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Mailbox:
    """Queues that keep what was sent, and deliver nothing by themselves."""

    def finalize(self, job: str) -> None:
        """The drill calls the finalizer itself."""

    plan = finish = finalize


def weighted(random: random.Random, wanted: Mapping[str, tuple[int, int]]) -> list[str]:
    """Return names, each as often as a number drawn between its bounds, in a random order."""
    found = [name for name, (least, most) in wanted.items() for _ in range(random.randint(least, most))]
    random.shuffle(found)
    return found
