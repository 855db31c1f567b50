"""What a client of the HTTP API may name as a source or a destination: objects, never files of the server.

The server has keys for the whole bucket, and perhaps for others. So an address is looked at before anybody reads it: it
lies outside what Imagemill keeps there, in the own bucket or in one that `IMAGEMILL_FETCH_BUCKETS` lists.
"""

from __future__ import annotations

import posixpath
import re
from itertools import islice
from typing import Any
from urllib.parse import unquote

from contract.data.items import Item, parse_s3
from contract.errors import InvalidSource, UnknownJob, UnknownUpload
from contract.jobs.reach import Reach
from contract.jobs.specs import Source
from contract.keys.bucket import JOBS, RESERVED
from contract.keys.uploads import upload_prefix, uploads_of
from contract.web.webhooks.endpoints import ID as WEBHOOK_ID
from producer.sources.manifests import SUFFIXES
from producer.web.owned import Owned

ADDRESS = r"^s3://[^/\x00-\x20]+/[^\x00-\x1f\x7f]*$"
LABELLED = (
    r"^(s3://[^/\x00-\x20]+/[^\x00-\x1f\x7f]*|upload:[0-9a-f]{16}|job:[a-z0-9][a-z0-9-]{0,62}"
    r"|review:[a-z0-9][a-z0-9-]{0,62}(@[0-9a-f]{16})?"
    r"|watch:[a-z0-9][a-z0-9-]{0,31}(@newest)?|dataset:[a-z0-9][a-z0-9-]{0,62}(@[0-9A-Za-z:.+-]{1,40})?)$"
)
IMAGES = r"^(s3://[^/\x00-\x20]+/[^\x00-\x1f\x7f]*|upload:[0-9a-f]{16})$"
LONGEST = 2048
_NAMES = ("source", "reconstruct", "away_from")


def checked(values: dict[str, Any], owned: Owned) -> dict[str, Any]:
    """Return the options of a command with every source as an address that this owner may read.

    Raises InvalidSource, and UnknownJob and the like for what belongs to another owner.
    """
    found = dict(values)
    for name in _NAMES:
        if isinstance(found.get(name), str):
            found[name] = source_of(found[name], owned)
        elif isinstance(found.get(name), list | tuple):
            found[name] = [source_of(text, owned) for text in found[name]]
    if found.get("interpolate"):
        found["interpolate"] = [address_of(text, owned) for text in found["interpolate"]]
    for name in ("to", "archive"):
        if found.get(name):
            _check_bucket(parse_s3(found[name])[0], found[name], owned)
    if found.get("then"):
        owned.schedule(str(found["then"]))
    if found.get("balance"):
        owned.watch(str(found["balance"]).removeprefix("watch:"))
    if re.fullmatch(WEBHOOK_ID, str(found.get("webhook"))):
        owned.webhook(str(found["webhook"]))
    if found.get("made"):
        made = str(found["made"])
        if made.startswith("dataset:"):
            owned.dataset(made.removeprefix("dataset:"))
        else:
            owned.job(made)
    return found


def source_of(text: str, owned: Owned) -> str:
    """Return the address of one source, or `job:`, `review:`, `watch:` or `dataset:` and a name that this owner has."""
    kind, _, name = text.partition(":")
    if not re.fullmatch(LABELLED, text) or len(text) > LONGEST:
        raise InvalidSource(
            f"{text[:200]!r} is no source for the HTTP API, which reads no files of its server; name "
            "s3://bucket/prefix, or upload files and name upload:ID."
        )
    if kind == "upload":
        return _uploaded(name, owned)
    if kind == "s3":
        return address_of(text, owned)
    if kind == "review":
        owned.job(name.partition("@")[0])
        return text
    {"job": owned.job, "watch": owned.watch, "dataset": owned.dataset}[kind](name.removesuffix("@newest"))
    return text


def _uploaded(id: str, owned: Owned) -> str:
    """Return the address of an upload: its prefix, or its one file if that is a manifest."""
    store, prefix = owned.client.backend.store, upload_prefix(owned.token.owner, id)
    files = [entry.key for entry in islice(store.list(prefix), 2)]
    if not files:
        raise UnknownUpload(f"No file was uploaded as {id!r}; POST /v1/uploads says where to put them.")
    only = files[0] if len(files) == 1 and files[0].endswith(tuple(SUFFIXES)) else ""
    return f"s3://{store.bucket}/{only or prefix}"


def address_of(text: str, owned: Owned) -> str:
    """Return an `s3://` address that this owner may read; raises InvalidSource."""
    bucket, key = plain(text, owned)
    if bucket == owned.client.backend.store.bucket and not owned.token.sees_all:
        _check_private(text, key, owned)
    return text


def plain(text: str, owned: Owned) -> tuple[str, str]:
    """Return the bucket and the key of an address in a bucket that the HTTP API opens; raises InvalidSource."""
    if not re.fullmatch(ADDRESS, text):
        raise InvalidSource(f"{text[:200]!r} is no s3:// address; name an object or a prefix of a bucket.")
    bucket, key = parse_s3(text)
    _check_bucket(bucket, text, owned)
    # Some stores and proxies fold these spellings, so two keys could meet.
    if key.startswith("/") or unquote(key) != key or "//" in key or "\\" in key or {".", ".."} & set(key.split("/")):
        raise InvalidSource(f"{text!r} is oddly spelled; write s3://bucket/prefix without //, ./ or %.")
    return bucket, key


def check_item(item: Item, source: Source, owned: Owned) -> None:
    """Refuse the object of an item as a worker would, and what is another owner's; a tar is named by Imagemill alone.

    Raises AddressRefused and InvalidSource.
    """
    store = owned.client.backend.store
    Reach.of(store, source).check(item, _listed(owned))
    if item.tar is None and item.uri.startswith("s3://") and not owned.token.sees_all:
        bucket, key = parse_s3(item.uri)
        if bucket == store.bucket:
            _check_private(item.uri, posixpath.normpath(unquote(key)).lstrip("/"), owned)


def _listed(owned: Owned) -> set[str]:
    """Return the buckets beside the own one that the HTTP API opens."""
    return {name.strip() for name in owned.client.settings.fetch_buckets.split(",")}


def _check_bucket(bucket: str, text: str, owned: Owned) -> None:
    if bucket != owned.client.settings.bucket and bucket not in _listed(owned):
        raise InvalidSource(
            f"{text} is in a bucket that the HTTP API does not open; its operator lists those in "
            "IMAGEMILL_FETCH_BUCKETS."
        )


def _check_private(text: str, key: str, owned: Owned) -> None:
    """Refuse what Imagemill keeps in its bucket, but for the owner's own jobs and uploads."""
    if key.startswith(uploads_of(owned.token.owner)):
        return
    if key.startswith(JOBS) and key.count("/") >= 2:
        try:
            owned.job(key.split("/")[1])
        except UnknownJob:
            pass
        else:
            return
    if any(key.startswith(one) or one.startswith(key) for one in RESERVED):
        raise InvalidSource(
            f"{text} holds what Imagemill itself keeps; name a prefix of your own, such as "
            f"s3://{owned.client.settings.bucket}/photos/."
        )
