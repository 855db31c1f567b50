"""Thumbnails of labelled images, read again from their source: what was labelled, or a gray tile that says why not."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from PIL import Image

from contract.data.items import Item, read_manifest
from contract.errors import ImageError
from contract.jobs.lifecycle import Backend, read_spec
from contract.jobs.reach import Reach
from contract.keys.jobs import JobKeys
from worker.classify.summary import Doubt
from worker.engine.images import decoders
from worker.engine.pipeline import Encoded, sha256_of
from worker.pages.page import Tile
from worker.sources.fetch import Fetcher

_THUMBNAIL = 224  # pixels, twice the width of a tile on a page


def tiles(backend: Backend, fetcher: Fetcher, job: str, doubts: Sequence[Doubt], max_pixels: int) -> list[Tile]:
    """Return a tile for each doubt: its image as a thumbnail, or why there is none.

    An image that is gone, or has changed since it was labelled, becomes a gray tile. Images with more than
    `max_pixels` are not decoded.
    """
    wanted = {(doubt.key, doubt.uri): doubt for doubt in doubts}
    made: dict[tuple[str, str], Tile] = {}
    reach = Reach.of(backend.store, read_spec(backend.store, job).source)
    for item, encoded in fetcher.read(_items(backend, job, doubts), reach):
        place = item.key, item.uri
        made[place] = _tile(wanted[place], encoded, max_pixels)
    return [made[doubt.key, doubt.uri] for doubt in doubts]


def _items(backend: Backend, job: str, doubts: Iterable[Doubt]) -> list[Item]:
    """Return the manifest items of these rows in the order of their tars, where neighbours are read together."""
    shards: dict[int, set[tuple[str, str]]] = {}
    for doubt in doubts:
        shards.setdefault(doubt.shard, set()).add((doubt.key, doubt.uri))
    found = {
        (item.key, item.uri): item
        for shard, places in shards.items()
        for item in read_manifest(backend.store.get(JobKeys(job).manifest(shard)))
        if (item.key, item.uri) in places
    }
    return sorted(found.values(), key=lambda item: (item.tar or "", item.offset or 0, item.uri))


def _tile(doubt: Doubt, encoded: Encoded, max_pixels: int) -> Tile:
    second = () if doubt.second is None else (f"or {doubt.second[0]}, {_score(doubt.second[1])}",)
    lines = (f"{doubt.label}, {_score(doubt.score)}", *second, doubt.key)
    if isinstance(encoded, ImageError):
        return Tile(None, lines, encoded.code)
    if sha256_of(encoded) != doubt.sha256:
        return Tile(None, lines, "changed")
    first = (
        encoded[0].data if isinstance(encoded, tuple) else encoded
    )  # the decoder takes the first frame of an animation
    try:
        found = decoders.decode_image(first, _THUMBNAIL, crop=1.0, interpolation="bicubic", max_pixels=max_pixels)
    except ImageError as error:
        return Tile(None, lines, error.code)
    sink = io.BytesIO()
    # As PNG two dozen photos would be 2 MB.
    Image.fromarray(found.pixels).save(sink, "JPEG", quality=85)
    return Tile(sink.getvalue(), lines)


def _score(score: float) -> str:
    return f"{100 * score:.1f}\N{NO-BREAK SPACE}%"
