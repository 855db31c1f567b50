"""Decides which buckets the items of a job may name. The author of a manifest is trusted with nobody's keys."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from contract.backend.objects import ObjectStore
from contract.data.items import Item, parse_s3
from contract.errors import AddressRefused, ImagemillError
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import read_spec
from contract.jobs.specs import Source
from contract.web.addresses import shown

_BUCKET = re.compile(r"(?:^| )s3://([^/ ]+)")  # the two ends of an interpolation have a space between
_NESTED = 8
"""Jobs whose labels another job learns from, one behind the other."""


@dataclass(frozen=True)
class Reach:
    """The buckets that items may lie in, and whether local files were packed for the job."""

    buckets: frozenset[str] = frozenset()
    packed: bool = False

    @staticmethod
    def of(store: ObjectStore, source: Source) -> Reach:
        """Return the buckets of items, besides those that the settings list: the own one and those of the source."""
        if source.parts:
            parts = [Reach.of(store, part) for part in source.parts]
            return Reach(frozenset().union(*(part.buckets for part in parts)), any(part.packed for part in parts))
        buckets = {store.bucket}
        for _ in range(_NESTED):
            buckets.update(_BUCKET.findall(source.uri))
            if source.kind not in ("job", "review"):
                break
            try:
                spec = read_spec(store, source.uri.partition("@")[0])
            except ImagemillError:
                break  # whoever lists the source says so
            if kind_of(spec).makes == "images":
                buckets.add(parse_s3(spec.output)[0])
                break
            source = spec.source
        return Reach(frozenset(buckets), source.kind in ("packed", "uploaded"))

    def check(self, item: Item, listed: Collection[str]) -> None:
        """Raise AddressRefused for an item in a bucket that is neither the source's nor `listed`."""
        for address in (item.tar or item.uri, item.archive or ""):
            self._check(address, listed)

    def _check(self, address: str, listed: Collection[str]) -> None:
        if address.startswith("s3://"):
            bucket, _ = parse_s3(address)
            if bucket not in self.buckets and bucket not in listed:
                raise AddressRefused(
                    f"{shown(address)} is refused: the job's source is not in the bucket {bucket!r}; "
                    "IMAGEMILL_FETCH_BUCKETS opens buckets."
                )
