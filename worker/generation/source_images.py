"""Reads the images that a job encodes, as pixels of the size that its model takes."""

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
from contract.keys.jobs import JobKeys
from worker.datasets.reader import Block, DatasetReader, Wanted
from worker.execution.model_cache import Models
from worker.execution.resources import Resources


@dataclass(frozen=True)
class SourceImages:
    """Reads source images on every call: they belong to the user, and the tars of a job hold no copy."""

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
        """Return the source images of one shard, or only those at `places`, to which `Block.places` then refers.

        `seen` gets the number of images read so far. Raises InvalidSource for a class that the model does not know.
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
        """Return the ends of an interpolation, uint8 [2, size, size, c]; raises InvalidSource if one is unreadable."""
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
        # The test part: a reconstruction is judged by images that the model did not learn from.
        return Wanted(size=pre.size, channels=pre.channels, classes=model.labels, part="test")


def make_source_images(resources: Resources) -> SourceImages:
    """Return the reader that all jobs of this process share."""
    return SourceImages(resources.backend.store, resources.reader, resources.models)
