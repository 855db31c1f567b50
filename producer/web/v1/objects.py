"""Objects of the bucket over HTTP: listed here, and read from the store itself at addresses that this server signs.

They are what Imagemill keeps of an owner's jobs, watches and datasets and of models and, with the scope `jobs`, what
the owner may name as a source. Tokens, webhooks and what belongs to others are not among them, whatever the scope.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, StringConstraints

from contract.errors import InvalidSource
from contract.keys.bucket import ACTIVE, DATASETS, JOBS, MODELS, RESERVED, TABLES, UPLOADS, WATCHES
from contract.keys.watches import parse_watch_table
from contract.records import Record
from contract.watches.record import Watches
from producer.web.owned import Owned, Review
from producer.web.problems import Problem
from producer.web.sources import LONGEST, address_of, plain

if TYPE_CHECKING:
    from producer.web.app import Api

_MOST = 1000
_READER_HOURS = 1.0
"""For how long links of a token that only reads are good: nobody can revoke one."""
_LONGEST_HOURS = 168.0
Address = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST)]


class LinksBody(Record):
    """Objects that are to be read."""

    addresses: tuple[Address, ...] = Field(
        min_length=1, max_length=_MOST, description="Each `s3://bucket/key`, or a key of Imagemill's own bucket."
    )
    hours: float = Field(
        1.0, ge=0.001, le=_LONGEST_HOURS, description="For how long the links are good; more than one takes `jobs`."
    )


class Link(BaseModel):
    """Where an object can be read."""

    address: str = Field(description="As it was given.")
    url: str = Field(description="GET it, without a token; `Range` gives a part. 404 if there is no such object.")


class ObjectShown(BaseModel):
    """An object."""

    key: str
    size: int = Field(description="Bytes.")
    etag: str


class ObjectPage(BaseModel):
    """Objects in the order of their keys."""

    bucket: str
    objects: list[ObjectShown]
    after: str = Field(description="`after` of the next page; empty on the last.")


def router() -> APIRouter:
    """Return the routes of objects."""
    routes = APIRouter(prefix="/v1/objects", tags=["objects"])

    @routes.get("")
    def list_objects(
        owned: Review,
        prefix: Annotated[str, Query(min_length=1, max_length=LONGEST, description="`jobs/ID/`, or `s3://bucket/…`.")],
        after: Annotated[str, Query(max_length=LONGEST, description="The last key of the page before.")] = "",
        limit: Annotated[int, Query(ge=1, le=_MOST)] = _MOST,
    ) -> ObjectPage:
        """List the objects whose keys begin so."""
        bucket, key = _readable(prefix, owned)
        listed = owned.client.backend.store.list(key, bucket=bucket, after=after, at_once=min(limit + 1, _MOST))
        if key.startswith(ACTIVE):  # one job's, whose id another's may begin with, and which comes first
            listed = (one for one in islice(listed, 1) if one.key == key)
        found = list(islice(listed, limit + 1))
        shown = [ObjectShown(key=one.key, size=one.size, etag=one.etag) for one in found[:limit]]
        return ObjectPage(bucket=bucket, objects=shown, after=shown[-1].key if len(found) > limit else "")

    @routes.post("/links")
    def link_objects(request: Request, owned: Review, body: LinksBody) -> list[Link]:
        """Return an address for each object, where it can be read straight from the store."""
        api: Api = request.app
        if body.hours > _READER_HOURS and not owned.token.allows("jobs"):
            raise Problem(403, "This token may have links for an hour; longer ones need the scope jobs.")
        links = []
        for address in body.addresses:
            bucket, key = _readable(address, owned)
            if not key:
                raise InvalidSource(f"{address} names no object; name one.")
            links.append(Link(address=address, url=api.uploads.presign(key, bucket=bucket, hours=body.hours)))
        return links

    return routes


def _readable(text: str, owned: Owned) -> tuple[str, str]:
    """Return the bucket and the key, or the beginning of keys, that this owner may read; raises InvalidSource."""
    own = owned.client.backend.store.bucket
    address = text if text.startswith("s3://") else f"s3://{own}/{text}"
    bucket, key = plain(address, owned)
    if bucket != own or not any(key.startswith(one) or one.startswith(key) for one in RESERVED):
        if not owned.token.allows("jobs"):
            raise Problem(403, "To read sources takes a token with the scope jobs.")
        return bucket, key
    root, _, rest = key.partition("/")
    name, below, _ = rest.partition("/")
    kind = f"{root}/"
    if kind == MODELS:
        return bucket, key
    if kind == ACTIVE and name and not below:
        owned.job(name)
    elif kind == DATASETS and below:
        owned.dataset(name)
    elif kind == TABLES and below and (table := parse_watch_table(name)):
        store = owned.watch(table[0]).backend.store
        if not owned.token.sees_all and Watches(store).get(table[0]).stamp != table[1]:
            raise _kept(address)  # an earlier watch of this name may have been another's
    elif kind == WATCHES and (below or name.endswith(".json")):
        owned.watch(name if below else name.removesuffix(".json"))
    elif kind == JOBS and below:
        owned.job(name)
    elif kind == UPLOADS and below:
        address_of(address, owned)
    else:
        raise _kept(address)
    return bucket, key


def _kept(address: str) -> InvalidSource:
    return InvalidSource(
        f"{address} holds what Imagemill keeps; name jobs/ID/, datasets/NAME/, watches/NAME/, tables/NAME-STAMP/ "
        "or models/."
    )
