"""Labels the images of requests with the engine that jobs use."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import cast

from contract.errors import InferenceFailed
from contract.models.registry import Model
from contract.online.messages import MOST_IMAGES, Classify
from worker.engine import canary
from worker.engine.pipeline import Encoded, Failed, Result
from worker.engine.types import PromptRuntime
from worker.execution.model_cache import Loaded
from worker.process.serving.rows import rows_of, said
from worker.process.serving.work import Answer, Asked, Request

_GROUP = 32
"""Requests taken at once, at most; a device that runs more gets them from several groups."""
_LEAST = 4
"""On a CPU, where each lane has a core. With as many groups as cores each waits alone for decoder, Redis and clients:
16 clients on two cores left a tenth of both idle with groups of 8, and a thirtieth with groups of 4."""


class Labels:
    """A classifier that is served."""

    def __init__(self, model: Model, loaded: Loaded) -> None:
        self.model, self._loaded = model, loaded
        self.takes = min(loaded.runtime.batch_size, _GROUP)
        self.images = _GROUP * MOST_IMAGES
        self.least = min(self.takes, _LEAST) if loaded.runtime.device == "cpu" else self.takes
        self.lanes = loaded.runtime.lanes + 2
        """More than keep the device busy, but not many: a request waits in Redis, where any worker may take it."""

    def full(self, taken: Sequence[int]) -> bool:
        return len(taken) >= self.takes

    def warm_up(self) -> float:
        if isinstance(self._loaded.runtime, PromptRuntime):
            self._loaded.runtime.prepare()
        items = canary.items(self.model.frames) * (4 * self._loaded.runtime.lanes)
        self._loaded.engine.submit(items[:2], first=True).result()
        began = time.perf_counter()
        self._loaded.engine.submit(items, first=True).result()
        return len(items) / (time.perf_counter() - began)

    def refuse(self, request: Request) -> str:
        return "" if isinstance(request, Classify) else f"{self.model.ref} generates no images."

    def submit(self, asked: Sequence[Asked]) -> Future[Iterator[Answer]]:
        requests = [cast("Classify", one.request) for one in asked]
        items: list[Encoded] = [image for one in asked for image in one.images]
        labelled = self._loaded.engine.submit(
            items,
            top_k=max(request.top_k for request in requests),
            features=any(request.embed for request in requests),
            first=True,
        )
        answers: Future[Iterator[Answer]] = Future()

        def done(found: Future[list[Result]]) -> None:
            if (error := found.exception()) is not None:
                answers.set_exception(error)
            else:
                answers.set_result(self._answers(asked, found.result()))

        labelled.add_done_callback(done)
        return answers

    def _answers(self, asked: Sequence[Asked], results: Sequence[Result]) -> Iterator[Answer]:
        """Make the rows in the thread that replies, and not in the engine's."""
        left = iter(results)
        for one in asked:
            yield self._answer(one, [next(left) for _ in one.images])

    def check(self) -> None:
        canary.check(self._loaded.engine, frames=self.model.frames)

    def isolate(self, one: Asked, failures: int) -> Answer:
        results: list[Result] = []
        for image in one.images:
            try:
                results += self._alone(one, image)
            except Exception as raised:
                why = (
                    f"Alone, the image failed in {failures} processes that labelled a known good image "
                    f"({said(raised)}); look at the file."
                )
                results.append(Failed(InferenceFailed(why), None))
        return self._answer(one, results)

    def _alone(self, one: Asked, image: bytes) -> list[Result]:
        request = cast("Classify", one.request)
        return self._loaded.engine.submit([image], top_k=request.top_k, features=request.embed, first=True).result()

    def _answer(self, one: Asked, results: Sequence[Result]) -> Answer:
        return Answer(rows_of(self.model, cast("Classify", one.request), results))
