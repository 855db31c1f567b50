"""Lists the images of a dataset of the bucket at a version, oldest version first."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from contract.data.image_index import SUFFIX, tar_of
from contract.data.items import Item
from contract.datasets.contents import tables
from contract.datasets.versions import Datasets
from worker.sources.lister import Lister


class GrownDataset(Lister):
    """The accepted images of all versions, with at least `min_score`."""

    def items(self) -> Iterator[Item]:
        grown = Datasets(self.store).grown(self.source.uri)
        suffix = SUFFIX[grown.newest.image_format]
        for commit, table in tables(self.store, grown):
            tar = tar_of(str(commit.output))
            for row in table.to_pylist():
                if row["accepted"] and row["score"] >= self.min_score:
                    name = f"{row['key']}{suffix}"
                    yield Item(name, f"{tar}#{name}", row["size"], tar, row["offset"], label=row["label"])

    def class_order(self, found: Collection[str]) -> tuple[str, ...] | None:
        """Return the classes in the order of the generator."""
        labels = Datasets(self.store).grown(self.source.uri).newest.labels
        return tuple(label for label in labels if label in found)
