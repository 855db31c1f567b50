"""Finds the served model that a request means, for one event loop: what is served is read from the bucket now and then.

Nobody waits long for a bucket that does not answer where an older answer is known, and nobody beyond their deadline.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from contract.backend.objects import ObjectStore
from contract.errors import Expired, NotServed, ServiceUnavailable
from contract.models.registry import Model, Registry
from contract.online.served import Served, ServedModels, find

log = logging.getLogger(__name__)

T = TypeVar("T")

_FRESH_SECONDS, _ANEW_SECONDS = 5.0, 0.5
"""The list of served models is read again after so long; after the second if a model is not in it."""
_PATIENCE_SECONDS = 0.5
"""A request waits so long for the bucket before it takes the older answer."""
_MOST = 1000
_RECORDS = 100


class Resolver:
    """The served models of one bucket, by what requests call them. Close it with its event loop."""

    def __init__(self, store: ObjectStore) -> None:
        """`store` is asked in threads."""
        self._store = store
        self._served: list[Served] = []
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._found: dict[str, tuple[float, Served]] = {}
        self._looking: dict[str, asyncio.Task[Any]] = {}
        self._models: dict[str, Model] = {}

    async def aclose(self) -> None:
        """Give up what is being looked for."""
        for task in list(self._looking.values()):
            task.cancel()
        await asyncio.gather(*self._looking.values(), return_exceptions=True)

    async def served(self, ref: str, seconds: float) -> Served:
        """Return the served model that `name`, `name@version` or `name@alias` stands for, within `seconds`.

        Raises NotServed, ServiceUnavailable if the bucket does not answer and nothing older is known, and Expired if it
        takes too long to do so.
        """
        read_at, known = self._found.get(ref, (float("-inf"), None))
        if known is not None and time.monotonic() - read_at < _FRESH_SECONDS:
            return known
        try:
            found = await self._within(f"served {ref}", self._look(ref), known, seconds)
        except NotServed:
            self._found.pop(ref, None)
            raise
        self._keep(ref, found)
        return found

    async def model(self, served: Served, seconds: float) -> Model:
        """Return the record of a served model, within `seconds`; raises UnknownModel, and as `served` does."""
        if (known := self._models.get(served.ref)) is not None:
            return known
        read = asyncio.to_thread(Registry(self._store).get, served.ref)
        found = await self._within(f"model {served.ref}", read, None, seconds)
        if len(self._models) >= _RECORDS:
            self._models.clear()
        self._models[served.ref] = found
        return found

    async def _within(self, name: str, work: Coroutine[Any, Any, T], known: T | None, seconds: float) -> T:
        """Return what a look at the bucket finds; `known`, if there is one, where the bucket takes long or is away.

        All who look for the same share one look, which goes on when nobody waits for it any more.
        """
        task = self._looking.get(name)
        if task is None:
            task = self._looking[name] = asyncio.get_running_loop().create_task(work)
            task.add_done_callback(lambda done: self._done(name, done))
        else:
            work.close()
        await asyncio.wait([task], timeout=min(seconds, _PATIENCE_SECONDS) if known is not None else seconds)
        if not task.done():
            if known is not None:
                return known
            raise Expired(f"The object store did not say within {seconds:.3g} s what is served; try again.")
        try:
            found: T = task.result()
        except ServiceUnavailable as error:
            if known is None:
                raise
            log.info("An older answer has to do: %s", error)
            return known
        return found

    def _done(self, name: str, task: asyncio.Task[Any]) -> None:
        self._looking.pop(name, None)
        if not task.cancelled():
            task.exception()  # somebody may have seen it, and nobody must

    async def _look(self, ref: str) -> Served:
        try:
            found = await self._find(ref, _FRESH_SECONDS)
        except NotServed:
            found = await self._find(ref, _ANEW_SECONDS)
        self._keep(ref, found)  # whoever asked may have gone
        return found

    async def _find(self, ref: str, age: float) -> Served:
        async with self._reading:
            if time.monotonic() - self._read_at > age:
                try:
                    self._served = await asyncio.to_thread(ServedModels(self._store).all)
                except ServiceUnavailable as error:
                    if not self._served:
                        raise
                    log.info("Whether other models are served is not known now: %s", error)
                self._read_at = time.monotonic()
        return await asyncio.to_thread(find, ref, self._served, self._store)

    def _keep(self, ref: str, found: Served) -> None:
        if len(self._found) > _MOST:
            self._found.clear()
        self._found[ref] = time.monotonic(), found
