"""What a served model does with the requests that a worker has taken; one class each for labels and for images.

It knows neither Redis nor replies: `worker.process.serving.counter` takes and answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from contract.models.registry import Model
from contract.online.messages import Classify, Generate
from worker.process.serving.inbox import Taken

Request = Classify | Generate


@dataclass(frozen=True)
class Asked:
    """A request that runs."""

    taken: Taken
    request: Request
    images: list[bytes]
    """The files of a `Classify`."""
    waited_ms: float
    """From its admission until now, at `since`."""
    since: float


@dataclass(frozen=True)
class Answer:
    """What one request is answered with."""

    rows: tuple[dict[str, Any], ...]
    files: tuple[bytes, ...] = ()
    """The images of a `Generate`."""


class Work(Protocol):
    """One served model that is loaded; `submit` may be called from several threads."""

    model: Model
    lanes: int
    """Groups of requests that may be under way at once."""

    @property
    def takes(self) -> int:
        """Requests that are taken at once, at most."""
        ...

    @property
    def images(self) -> int:
        """Images of the requests that run together, at most, unless one request alone has more."""
        ...

    @property
    def least(self) -> int:
        """Requests that stay together. Where more are taken than that, they are spread over the lanes that are free."""
        ...

    def full(self, taken: Sequence[int]) -> bool:
        """Return whether requests of so many images each keep the device busy."""
        ...

    def warm_up(self) -> float:
        """Make ready for the first request, on known good input; return images per second. Raises what fails."""
        ...

    def refuse(self, request: Request) -> str:
        """Return why the model has no answer to a request, in a sentence; empty if it has one."""
        ...

    def submit(self, asked: Sequence[Asked]) -> Future[Iterator[Answer]]:
        """Have requests run together, ahead of jobs; the answers are in their order, and made as they are iterated."""
        ...

    def check(self) -> None:
        """Run known good input; raise what fails, which is then no fault of a request."""
        ...

    def isolate(self, one: Asked, failures: int) -> Answer | None:
        """Return an answer that leaves out what is at fault in a request that failed in so many processes, or None."""
        ...
