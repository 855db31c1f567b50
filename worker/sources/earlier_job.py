"""Lists the images of an earlier job with the labels that it gave them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import cast

from contract.data import image_index
from contract.data.items import Item
from contract.data.label_rows import OK
from contract.data.provenance import provenance
from contract.errors import InvalidSource
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import read_spec
from contract.jobs.results import with_items
from contract.jobs.specs import ImagesSpec
from contract.models.registry import Registry
from worker.sources.lister import Lister


class EarlierJob(Lister):
    """The images that an earlier job labelled, or generated and accepted, with at least `min_score`."""

    def items(self) -> Iterator[Item]:
        generated = self._generated()
        return self._labelled() if generated is None else self._images(generated)

    def class_order(self, found: Collection[str]) -> tuple[str, ...] | None:
        """Return the classes of what was generated in the order of its generator."""
        generated = self._generated()
        if generated is None:
            return None
        return provenance(generated).class_names(Registry(self.store).get(generated.model).labels, found)

    def _generated(self) -> ImagesSpec | None:
        """Return the spec of a job that generated, None of one that labelled."""
        spec = read_spec(self.store, self.source.uri)
        return cast("ImagesSpec", spec) if kind_of(spec).makes == "images" else None

    def _labelled(self) -> Iterator[Item]:
        for shard in with_items(self.store, self.source.uri):
            for row, item in shard:
                if item.length is not None and not self.frames:
                    raise InvalidSource(f"{self.source.label} labelled sequences; a model of images needs images.")
                if row["status"] == OK and row["score"] >= self.min_score:
                    yield replace(item.thinned(self.frames), label=row["label"])

    def _images(self, spec: ImagesSpec) -> Iterator[Item]:
        for commit, table in image_index.shards(self.store, spec):
            tar = image_index.tar_of(str(commit.output))
            for row in table.to_pylist():
                sure = row["score"] is None or row["score"] >= self.min_score
                if row["accepted"] and sure:
                    name = f"{row['key']}{image_index.SUFFIX[spec.image_format]}"
                    yield Item(name, f"{tar}#{name}", row["size"], tar, row["offset"], label=row["label"])
