"""The asking side: asks served models for one event loop, in requests for which it waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, OnlineFailed, RequestTooLarge
from contract.jobs.results import Row
from contract.online import messages
from contract.online.exchange import Exchange
from contract.online.messages import Classify, Generate, RequestId
from contract.online.resolving import Resolver
from contract.online.served import Served, check_task
from contract.records import ImageFormat
from contract.settings import Settings


class Online:
    """Asks served models; use it as an async context manager, in one event loop, for as many requests as there are.

    Methods raise NotServed, InvalidInput and RequestTooLarge for what the caller must change; Overloaded, with
    `retry_after` seconds, if an answer would come too late; Expired if none came in time; OnlineFailed if the request
    failed on a worker; RedisUnavailable if Redis does not answer for three seconds.
    """

    def __init__(self, settings: Settings, store: ObjectStore) -> None:
        """`store` is asked, in threads, what is served. Raises InvalidSettings if no Redis carries requests."""
        self._exchange = Exchange(settings)
        self._served = Resolver(store)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the connections; requests that still wait fail with OnlineFailed."""
        await self._exchange.aclose()
        await self._served.aclose()

    async def classify(
        self,
        model: str,
        images: Sequence[bytes],
        *,
        keys: Sequence[str] | None = None,
        top_k: int = 5,
        embed: bool = False,
        deadline: float = messages.DEADLINE_SECONDS,
    ) -> list[Row]:
        """Return a row for each image, in order, with the columns of a job's rows; a bad image is a row with its error.

        `model` is `name`, `name@version` or `name@alias`; `images` are files, at most 64 with 16 MiB together; `keys`
        are their names in the rows, their positions unless given; `deadline` is in seconds from now.
        """
        until = _until(deadline)
        if not 1 <= len(images) <= messages.MOST_IMAGES:
            raise RequestTooLarge(f"A request has 1 to {messages.MOST_IMAGES} images; this one has {len(images)}.")
        if not 1 <= top_k <= messages.MOST_TOP_K:
            raise InvalidInput(f"top_k is 1 to {messages.MOST_TOP_K}, not {top_k}.")
        names = tuple(str(n) for n in range(len(images))) if keys is None else tuple(key[:1024] for key in keys)
        if len(names) != len(images):
            raise InvalidInput(f"There are {len(names)} names for {len(images)} images; name each.")
        served = await self.resolve(model, deadline)
        check_task(served, ("classify", "classify-sequence"))
        self._exchange.check(served.ref, len(images), until)
        request = Classify(reply_to=self._exchange.asker, keys=names, top_k=top_k, embed=embed)
        payload = messages.write_request(request, images)
        reply, _ = await self._exchange.send(
            RequestId.new(len(images), len(payload), served.ref), payload, until, deadline
        )
        if len(reply.rows) != len(images):
            raise OnlineFailed(f"A worker answered with {len(reply.rows)} rows for {len(images)} images; try again.")
        return [dict(row) for row in reply.rows]

    async def generate(
        self,
        model: str,
        *,
        classes: Sequence[str] = (),
        seed: int = 0,
        count: int = 1,
        size: int = 0,
        truncation: float | None = None,
        image_format: ImageFormat = "png",
        deadline: float = messages.DEADLINE_SECONDS,
        room: Callable[[int], None] = lambda size: None,
    ) -> list[Row]:
        """Return a row for each of `count` images, at most 64, with its file in `image`.

        They are those that a job with these options would make, in its order: spread evenly over `classes`, or over all
        that the model has. A row has columns of the job's index, and `precision` and `device`, on which bytes depend.
        `room` is called before the request is sent, with the bytes that the answer may have; what it raises ends it.
        """
        until = _until(deadline)
        if not 1 <= count <= messages.MOST_IMAGES:
            raise RequestTooLarge(
                f"A request makes 1 to {messages.MOST_IMAGES} images, not {count}; `imagemill generate` makes more."
            )
        options = {"classes": tuple(dict.fromkeys(classes)), "seed": seed, "count": count, "size": size}
        try:
            request = Generate(
                reply_to=self._exchange.asker, **options, truncation=truncation, image_format=image_format
            )
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise InvalidInput(f"{first['loc'][0]}: {first['msg'].lower()}; correct it.") from None
        served = await self.resolve(model, deadline)
        check_task(served, ("generate",))
        record = await self._served.model(served, until - time.monotonic())
        record.class_numbers(request.classes)
        # The reply is what weighs, so this is what Redis counts.
        weight = messages.bytes_of_images(count, size or record.preprocess.size, record.preprocess.channels)
        room(weight)
        self._exchange.check(served.ref, count, until)
        payload = messages.write_request(request)
        id = RequestId.new(count, max(weight, len(payload)), served.ref)
        reply, files = await self._exchange.send(id, payload, until, deadline)
        if not len(reply.rows) == len(files) == count:
            raise OnlineFailed(f"A worker answered with {len(files)} images in place of {count}; try again.")
        return [{**row, "image": file} for row, file in zip(reply.rows, files, strict=True)]

    async def resolve(self, model: str, deadline: float = messages.DEADLINE_SECONDS) -> Served:
        """Return the served model that `name`, `name@version` or `name@alias` stands for; raises NotServed.

        What is served is read from the bucket every few seconds, and stays as it was while the bucket does not answer.
        Raises Expired if nothing is known within `deadline` seconds.
        """
        return await self._served.served(model, deadline)


def _until(deadline: float) -> float:
    """Return when a request must have its answer, by the monotonic clock; raises InvalidInput."""
    if not 0 < deadline <= messages.LONGEST_SECONDS:
        raise InvalidInput(f"A deadline is more than 0 and at most {messages.LONGEST_SECONDS:g} s, not {deadline:g}.")
    return time.monotonic() + deadline
