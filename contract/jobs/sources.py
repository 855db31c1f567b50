"""The registry of source kinds: where images may come from, and who reads each kind.

To add a kind, write a record here, a function that finds it in what the user typed (`producer.sources`), and a class
that lists it (`worker.sources`). Both are import paths, because producer and worker never import each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from contract.errors import InvalidInput
from contract.import_paths import ImportPath

SourceName: TypeAlias = Literal[
    "job",
    "review",
    "dataset",
    "idx",
    "prefix",
    "tars",
    "manifest",
    "packed",
    "uploaded",
    "seed",
    "pair",
    "watch",
    "replay",
    "segment",
    "several",
]


@dataclass(frozen=True, kw_only=True)
class SourceKind:
    """Everything that the product needs to know about one kind of source."""

    name: SourceName
    means: str
    """What the images are and what its `uri` is, as a phrase."""
    resolve: ImportPath | None = None
    """`(text, store, frames) -> Resolved | None`, on the producer: find what the user typed, or None if it is no such
    source. Records are asked in their order. None: nobody types it, or another record's function finds it too."""
    labelled_only: bool = False
    """Whether it is only for jobs that need labels: classify cannot take it."""
    lister: ImportPath | None = None
    """A `Lister`, on the controller and the workers. None: there is nothing to list."""
    arrays: ImportPath | None = None
    """`(store, source, part) -> (images, labels)`, on a worker, for a source that is read as a whole."""
    packed_by_producer: bool = False
    """Whether the producer cuts it into shards while it uploads them, in place of the controller."""
    open_plan: bool = False
    """Whether a watch appends shards to the plan until it closes it, in place of a planner."""
    watched: bool = False
    """Whether a watch found its items, so that they say when they were modified and planned."""

    @property
    def has_planner(self) -> bool:
        """Whether a planner of the controller cuts it into shards."""
        return not self.packed_by_producer and not self.open_plan


_KINDS = (
    SourceKind(
        name="job",
        means="the images of an earlier job with the labels that it gave them; the job's id",
        resolve="producer.sources.labelled:resolve_job",
        labelled_only=True,
        lister="worker.sources.earlier_job:EarlierJob",
    ),
    SourceKind(
        name="review",
        means="the images of an earlier job with the labels that people gave them; `job@set` (`reviews.sets`)",
        resolve="producer.sources.labelled:resolve_review",
        labelled_only=True,
        lister="worker.sources.reviewed:ReviewedJob",
    ),
    SourceKind(
        name="dataset",
        means="the images of a dataset of the bucket at a version; `name@number`",
        resolve="producer.sources.labelled:resolve_dataset",
        labelled_only=True,
        lister="worker.sources.grown_dataset:GrownDataset",
    ),
    SourceKind(
        name="segment",
        means="the labelled segments of a watch, which a job pins as sources `job`; its name, with `@newest` the last",
        resolve="producer.sources.labelled:resolve_watch",
        labelled_only=True,
    ),
    SourceKind(
        name="idx",
        means="images and labels in the MNIST format; the prefix that they are under",
        resolve="producer.sources.labelled:resolve_idx",
        labelled_only=True,
        lister="worker.sources.idx:Idx",
        arrays="worker.datasets.idx:read_source",
    ),
    SourceKind(
        name="prefix",
        means="every object under an `s3://` address",
        resolve="producer.sources.images:resolve_remote",
        lister="worker.sources.prefix:Prefix",
    ),
    SourceKind(
        name="tars",
        means="the members of the tars under an `s3://` address",
        lister="worker.sources.tars:Tars",
    ),
    SourceKind(
        name="manifest",
        means="the rows of a file in the store",
        lister="worker.sources.manifest:Manifest",
    ),
    SourceKind(
        name="packed",
        means="a local folder that the producer packs into one tar a shard; its `file://` address",
        resolve="producer.sources.images:resolve_local",
        packed_by_producer=True,
    ),
    SourceKind(
        name="uploaded",
        means="a local folder that was packed before the job began, with a manifest beside each tar; their prefix",
        lister="worker.sources.prefix:Uploaded",
    ),
    SourceKind(
        name="watch",
        means="what a watch finds under an `s3://` address while its segment is open",
        open_plan=True,
        watched=True,
    ),
    SourceKind(
        name="replay",
        means="what a watch planned in a span of time (`contract.watches.replays`)",
        lister="worker.sources.replayed:Replayed",
        watched=True,
    ),
    SourceKind(
        name="several",
        means="the images of several labelled sources, one behind the other; nothing, its `parts` are the sources",
        labelled_only=True,
        lister="worker.sources.several:Several",
    ),
    SourceKind(name="seed", means="nothing: the images are drawn from a seed"),
    SourceKind(name="pair", means="two images, the ends of an interpolation; both addresses"),
)

SOURCES: dict[str, SourceKind] = {kind.name: kind for kind in _KINDS}
"""Every kind by its name."""


def source_kind(name: str) -> SourceKind:
    """Return the record of a kind of source; raises InvalidInput for an unknown one."""
    try:
        return SOURCES[name]
    except KeyError:
        raise InvalidInput(
            f"There is no source kind {name!r} in this version of Imagemill; the kinds are {', '.join(SOURCES)}."
        ) from None
