"""Lists the images of an earlier job that people reviewed, with the labels that they gave them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from contract.data.items import Item, read_manifest
from contract.errors import InvalidSource
from contract.jobs.commits import in_parallel, iter_listed
from contract.jobs.reviews.records import image_id
from contract.jobs.reviews.sets import parse_ref, read_set
from contract.keys.jobs import JobKeys
from worker.sources.lister import Lister


class ReviewedJob(Lister):
    """The images of a set of reviews, from where the job read them, in the order of its shards."""

    def items(self) -> Iterator[Item]:
        ref = parse_ref(self.source.uri)
        assert ref is not None, "whoever made the spec looked"
        wanted = {one.image: one for one in read_set(self.store, ref)}
        keys = JobKeys(ref.job)
        shards = (found.shard for found in iter_listed(self.store, ref.job))
        # A bisected shard and its halves list the same items: each is taken once.
        for data in in_parallel(lambda shard: self.store.get(keys.manifest(shard)), shards, threads=8):
            for item in read_manifest(data):
                one = wanted.pop(image_id(item.key, item.uri), None)
                if one is None:
                    continue
                if item.length is not None and not self.frames:
                    raise InvalidSource(f"{self.source.label} reviewed sequences; a model of images needs images.")
                # The hash of a sequence covers the frames that another model saw.
                sha256 = one.sha256 if item.length is None else None
                yield replace(item.thinned(self.frames), label=one.label, sha256=sha256)
            if not wanted:
                return
        first = next(iter(wanted.values()))
        raise InvalidSource(
            f"{first.key}, which was reviewed, is no longer among the images of {ref.job}; run that job anew, and "
            "review it."
        )
