"""Brings the image of a row to a browser: through this server, as bytes that are an image and nothing else."""

from __future__ import annotations

import anyio.from_thread
from starlette.requests import Request
from starlette.responses import Response

from contract.data.image_index import tar_of
from contract.data.items import Item, parse_s3, read_manifest
from contract.errors import ImageError, InvalidInput, InvalidSource, ObjectNotFound
from contract.jobs import lifecycle
from contract.jobs.commits import read_commit
from contract.jobs.status import ShardCommit
from contract.keys.jobs import JobKeys
from contract.web.client import WebClient
from producer.sources.read import Images
from producer.web.console.drawing.image_kinds import kind_of, pixels_of
from producer.web.online.held import holding_of
from producer.web.owned import Owned
from producer.web.problems import Problem
from producer.web.sources import check_item

_MOST_BYTES = 32 * 2**20
_MOST_PIXELS = 64_000_000
"""A browser takes four bytes for each; a page shows two dozen images."""
_CSP = "sandbox; default-src 'none'; frame-ancestors 'none'"


def read(owned: Owned, web: WebClient, id: str, shard: int, place: int) -> bytes:
    """Return the image at a place in a shard's manifest; the first frame of a sequence. Raises Problem 404 or 415."""
    store = owned.client.backend.store
    try:
        manifest = read_manifest(store.get(JobKeys(id).manifest(shard)))
    except ObjectNotFound:
        manifest = []
    if place >= len(manifest):
        raise Problem(404, f"The job {id} has no image {place} in shard {shard}.")
    item = _first(manifest[place])
    if item.tar is None and item.uri.startswith("file:"):
        raise Problem(404, "The image is on another machine; this server reads no files of its own.")
    most = min(_MOST_BYTES, owned.client.settings.max_image_bytes)
    if (item.size or 0) > most:
        raise Problem(415, f"The image has more than {most:,} bytes, which is too much for a page.")
    try:
        check_item(item, lifecycle.read_spec(store, id).source, owned)
        return Images(store, most, web).read(item)
    except (ImageError, InvalidSource, ObjectNotFound) as error:
        raise Problem(404, str(error)) from error


def read_made(owned: Owned, id: str, shard: int, offset: int, size: int) -> bytes:
    """Return a range of the tar that holds a shard's generated images; raises Problem 404 or 415."""
    store = owned.client.backend.store
    if size > _MOST_BYTES:
        raise Problem(415, f"The image has more than {_MOST_BYTES:,} bytes, which is too much for a page.")
    try:
        try:
            commit = ShardCommit.model_validate_json(store.get(JobKeys(id).selected(shard)))
        except ObjectNotFound:
            commit = read_commit(store, id, shard)
        bucket, key = parse_s3(tar_of(commit.output or ""))
        return store.get(key, bucket=bucket, offset=offset, length=size)
    except (InvalidInput, ObjectNotFound) as error:
        raise Problem(404, f"The job {id} has no such image.") from error


def response(request: Request, data: bytes, *, max_pixels: int = _MOST_PIXELS) -> Response:
    """Return an image as an answer; raises Problem 415 for what no browser shows as one, or runs as a page.

    It counts as held until it is sent; raises Problem 503 if too much is. Call it in a thread, as routes are.
    This server decodes nothing: the browser does, in a process that holds no keys, unless the header claims more than
    `max_pixels`.
    """
    kind = kind_of(data)
    if not kind:
        raise Problem(415, "This is no image of a kind that browsers show.")
    if (pixels := pixels_of(data)) > max_pixels:
        raise Problem(415, f"The image claims {pixels:,} pixels, more than a page may open.")
    anyio.from_thread.run_sync(holding_of(request).take, len(data))
    return Response(
        data, media_type=kind, headers={"Content-Security-Policy": _CSP, "Cache-Control": "private, max-age=3600"}
    )


def _first(item: Item) -> Item:
    if item.length is None:
        return item
    if not item.frames:
        raise Problem(404, "The sequence has no frames to show.")
    return item.frames[0]
