"""The asking side for programs without an event loop: the methods of `Online`, from any thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from contract.backend.objects import ObjectStore
from contract.jobs.results import Row
from contract.online.ask import Online
from contract.online.messages import DEADLINE_SECONDS
from contract.records import ImageFormat
from contract.settings import Settings

T = TypeVar("T")


class BlockingOnline:
    """Runs an `Online` on a thread of its own until `close`. Its methods block, and raise what those of `Online` do."""

    def __init__(self, settings: Settings, store: ObjectStore) -> None:
        self._loop = asyncio.new_event_loop()
        self._online = Online(settings, store)
        self._thread = threading.Thread(target=self._loop.run_forever, name="online", daemon=True)
        self._thread.start()

    def classify(
        self,
        model: str,
        images: Sequence[bytes],
        *,
        keys: Sequence[str] | None = None,
        top_k: int = 5,
        embed: bool = False,
        deadline: float = DEADLINE_SECONDS,
    ) -> list[Row]:
        """Return a row for each image, as `Online.classify` does."""
        return self._run(self._online.classify(model, images, keys=keys, top_k=top_k, embed=embed, deadline=deadline))

    def generate(
        self,
        model: str,
        *,
        classes: Sequence[str] = (),
        seed: int = 0,
        count: int = 1,
        size: int = 0,
        truncation: float | None = None,
        image_format: ImageFormat = "png",
        deadline: float = DEADLINE_SECONDS,
    ) -> list[Row]:
        """Return a row for each image with its file, as `Online.generate` does."""
        return self._run(
            self._online.generate(
                model,
                classes=classes,
                seed=seed,
                count=count,
                size=size,
                truncation=truncation,
                image_format=image_format,
                deadline=deadline,
            )
        )

    def close(self) -> None:
        """End the connections and the thread."""
        self._run(self._online.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
