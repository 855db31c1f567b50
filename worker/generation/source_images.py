"""The images that a job encodes, as pixels of the size of its model: those of a shard, or some of them for its page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from contract.backend.objects import ObjectStore
from contract.data.items import item_of, read_manifest
from contract.errors import InvalidSource
from contract.jobs.lifecycle import read_plan
from contract.jobs.sources import source_kind
from contract.jobs.specs import EncodedSpec, Interpolate, Reconstruct
from contract.keys import JobKeys
from worker.datasets.reader import Block, DatasetReader, Wanted
from worker.execution.model_cache import Models
from worker.execution.resources import Resources


@dataclass(frozen=True)
class SourceImages:
    """Reads them again whenever they are asked for: they are the user's, and the tars hold no copy."""

    store: ObjectStore
    reader: DatasetReader
    models: Models

    def of_shard(
        self,
        spec: Reconstruct,
        shard: int,
        places: Sequence[int] | None = None,
        seen: Callable[[int], None] = lambda _: None,
    ) -> Block:
        """Those of a shard of a planned job, or the ones at these places in it, which `Block.places` count then.

        Raises InvalidSource for a class that the model does not know.
        """
        wanted = self._wanted(spec)
        if source_kind(spec.source.kind).arrays is not None:
            plan = read_plan(self.store, spec.id)
            assert plan is not None, "shards are queued when they are planned"
            start = shard * spec.shard_size
            rows = range(start, min(start + spec.shard_size, plan.items))
            return self.reader.array_block(
                spec.source, [rows[n] for n in places] if places is not None else rows, wanted
            )
        items = read_manifest(self.store.get(JobKeys(spec.id).manifest(shard)))
        chosen = [items[n] for n in places] if places is not None else items
        return self.reader.block(spec.source, chosen, wanted, seen)

    def ends(self, spec: Interpolate) -> NDArray[np.uint8]:
        """The two images of an interpolation, [2, size, size, c]; raises InvalidSource where one cannot be read."""
        wanted, found = self._wanted(spec), []
        for end in spec.ends:
            item = replace(item_of(end.uri), label=wanted.classes[spec.classes[0]])
            block = self.reader.block(spec.source, [item], wanted)
            if not len(block.images):
                (code,) = block.left_out
                raise InvalidSource(f"{end.label} cannot be read as an image ({code}); name another one.")
            found.append(block.images)
        return np.concatenate(found)

    def _wanted(self, spec: EncodedSpec) -> Wanted:
        model = self.models.model(spec.model)
        pre = model.preprocess
        # What was not learnt from is what a reconstruction is judged by.
        return Wanted(size=pre.size, channels=pre.channels, classes=model.labels, part="test")


def make_source_images(resources: Resources) -> SourceImages:
    """The one that every job of this process shares."""
    return SourceImages(resources.backend.store, resources.reader, resources.models)
