"""Lists the objects under a prefix: images, still images that are a sequence together, or what a producer uploaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from contract.backend.objects import Entry
from contract.data.items import Item, folder_label, is_image_name, parse_s3, read_manifest
from contract.data.sequences import Folder, by_folder
from worker.sources.lister import Lister


class Prefix(Lister):
    """Every object whose name may be an image's; with `frames` the still images of a folder are one sequence."""

    def items(self) -> Iterator[Item]:
        bucket, prefix = parse_s3(self.source.uri)
        images = self._images(bucket, prefix)
        for found in by_folder(images, lambda entry: entry.key) if self.frames else images:
            path = found.path if isinstance(found, Folder) else found.key
            label = folder_label(path[len(prefix) :]) if self.labels else None
            if isinstance(found, Folder):
                frames = (_item(bucket, entry) for entry in found.frames(self.frames))
                uri = f"s3://{bucket}/{path}"
                yield Item.of_frames(path or "./", uri, frames, length=found.length, label=label)
            else:
                item = _item(bucket, found)
                yield item if label is None else dataclasses.replace(item, label=label)

    def _images(self, bucket: str, prefix: str) -> Iterator[Entry]:
        """Yield the objects under a prefix whose names are those of images."""
        for entry in self.store.list(prefix, bucket=bucket):
            if is_image_name(entry.key):
                yield entry
            elif not entry.key.endswith("/"):
                self.skipped += 1

    def rest(self, done: int, last: Item | None) -> Iterator[Item]:
        # By key: objects may have come or gone since.
        return (item for item in self.items() if last is None or item.order > last.order)


class Uploaded(Lister):
    """The images that a producer packed before the job began, from the manifests beside its tars."""

    def items(self) -> Iterator[Item]:
        bucket, prefix = parse_s3(self.source.uri)
        for entry in self.store.list(prefix, bucket=bucket):
            if entry.key.endswith(".jsonl"):
                yield from read_manifest(self.store.get(entry.key, bucket=bucket))


def _item(bucket: str, entry: Entry) -> Item:
    return Item(key=entry.key, uri=f"s3://{bucket}/{entry.key}", size=entry.size)
