"""Generates the images that requests ask for: the bytes that a job with the same options would write.

The images of requests that wait at the same time share groups, where the device makes each image the same at any place
of a group. That is tried out as the model is loaded; elsewhere each request has groups of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import torch
from torch import Tensor

from contract.data.image_index import sha256
from contract.errors import InvalidInput
from contract.jobs import specs
from contract.models.registry import Model
from contract.online.messages import Generate, bytes_of_images
from contract.records import Precision
from worker.engine.generators.drawn import Draw
from worker.engine.generators.generator import Generator
from worker.engine.generators.sampler import GROUP
from worker.engine.runtimes.out_of_memory import out_of_memory
from worker.execution.device_slots import DeviceSlots
from worker.generation.archive import new_row
from worker.generation.candidate_plan import whole_plan
from worker.generation.shard import encode_images
from worker.process.serving.work import Answer, Asked, Request

_ALONE = 8
"""Requests that are taken at once where they do not share groups."""


class Images:
    """A generator that is served."""

    lanes = 2
    """One group is encoded while the next one is computed."""

    def __init__(self, model: Model, generator: Generator, precision: Precision, slots: DeviceSlots) -> None:
        self.model, self._generator, self._precision, self._slots = model, generator, precision, slots
        self._sampler = generator.drawn()
        self._known = b""
        self.shares = False
        """Whether requests share groups."""
        self._device = ThreadPoolExecutor(1, f"generate-{model.ref}")

    def close(self) -> None:
        """End the thread that computes."""
        self._device.shutdown(cancel_futures=True)

    @property
    def takes(self) -> int:
        return GROUP if self.shares else _ALONE

    @property
    def images(self) -> int:
        return GROUP if self.shares else 1

    @property
    def least(self) -> int:
        return self.takes

    def full(self, taken: Sequence[int]) -> bool:
        return len(taken) >= self.takes or (self.shares and sum(taken) >= GROUP)

    def warm_up(self) -> float:
        return self._device.submit(self._warm_up).result()

    def refuse(self, request: Request) -> str:
        if not isinstance(request, Generate):
            return f"{self.model.ref} labels no images."
        try:
            self._spec(request)
        except InvalidInput as error:
            return str(error)
        return ""

    def submit(self, asked: Sequence[Asked]) -> Future[Iterator[Answer]]:
        return self._device.submit(self._generate, asked)

    def check(self) -> None:
        if self._device.submit(self._pixels, self._good()).result() != self._known:
            raise ArithmeticError("the same latents make other images than when the model was loaded")

    def isolate(self, one: Asked, failures: int) -> None:
        """Leave out nothing: all images of a request come from one model."""

    # What the device does, in its own thread

    def _warm_up(self) -> float:
        good = self._good()
        self._pixels(good)
        began = time.perf_counter()
        self._known = self._pixels(good)
        seconds = time.perf_counter() - began
        if self._pixels(good) != self._known:
            raise ArithmeticError("the same latents make other images from one time to the next")
        side = len(self._known) // GROUP
        apart = [self._known[at : at + side] for at in range(0, len(self._known), side)]
        self.shares = all(
            self._pixels(_at(good, places)) == b"".join(apart[place] for place in places)
            for places in (list(range(GROUP))[::-1], [*range(1, GROUP), 0], [*range(17, GROUP), *range(17)])
        )
        return GROUP / seconds

    def _good(self) -> Draw:
        """Return known good input: a group with many classes."""
        places = torch.arange(GROUP)
        return Draw(0, places % max(1, len(self.model.labels)), places)

    def _pixels(self, draw: Draw) -> bytes:
        return self._images([draw]).numpy().tobytes()

    def _images(self, draws: Sequence[Draw]) -> Tensor:
        with self._slots.first(), out_of_memory():
            return self._sampler.images(draws)

    def _generate(self, asked: Sequence[Asked]) -> Iterator[Answer]:
        requests = [self._spec(cast("Generate", one.request)) for one in asked]
        keys = [[key for block in whole_plan(spec) for key in block.images()] for spec in requests]
        draws = []
        for spec, wanted in zip(requests, keys, strict=True):
            labels, numbers = torch.tensor(wanted).T
            draws.append(Draw(spec.seed, labels, numbers, spec.truncation))
        images = self._images(draws) if self.shares else torch.cat([self._images([draw]) for draw in draws])
        return self._answers(requests, keys, images)

    # Files

    def _answers(
        self, requests: Sequence[specs.Generate], keys: Sequence[list[tuple[int, int]]], images: Tensor
    ) -> Iterator[Answer]:
        """Encode in the thread that replies, and not in the device's."""
        parts = images.movedim(1, -1).split([len(wanted) for wanted in keys])
        for spec, wanted, part in zip(requests, keys, parts, strict=True):
            files = encode_images(spec, part.contiguous().numpy())
            side = spec.size or part.shape[1]
            rows = [self._row(spec, *key, side, file) for key, file in zip(wanted, files, strict=True)]
            yield Answer(tuple(rows), tuple(files))

    def _row(self, spec: specs.Generate, label: int, number: int, side: int, file: bytes) -> dict[str, Any]:
        row = new_row(spec, self.model, label, number, side)
        row |= {"sha256": sha256(file), "size": len(file)}
        # What only a job has is left out.
        row = {name: value for name, value in row.items() if value is not None and name != "accepted"}
        return row | {"precision": self._generator.precision, "device": self._generator.device}

    def _spec(self, request: Generate) -> specs.Generate:
        """Return the job that would make the images; raises InvalidInput."""
        shape = self.model.preprocess
        bytes_of_images(request.count, request.size or shape.size, shape.channels)
        classes = self.model.class_numbers(request.classes)
        if not classes:
            raise InvalidInput(f"{self.model.ref} has no classes to generate.")
        return specs.Generate(
            id="online",
            model=self.model.ref,
            weights_sha256=self.model.weights.sha256,
            output="s3://-/",
            precision=self._precision,
            classes=classes,
            **request.model_dump(include={"seed", "count", "size", "truncation", "image_format"}),
        )


def _at(draw: Draw, places: Sequence[int]) -> Draw:
    """Return the images of a draw in another order."""
    order = torch.tensor(places)
    return Draw(draw.seed, draw.labels[order], draw.index[order], draw.truncation)
