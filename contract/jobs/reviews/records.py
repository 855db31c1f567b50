"""The records of reviews: a verdict on one image, its withdrawal, and how verdicts and images are named in keys."""

from __future__ import annotations

import hashlib
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from contract.data.items import MAX_LABEL
from contract.errors import InvalidInput
from contract.records import Record
from contract.times import iso

MANY = "many"
"""Stands for the image in the key of a batch."""
MOST_AT_ONCE = 10_000
"""The most images of a batch, which then has about 3 MB."""


class Verdict(Record):
    """`jobs/<id>/reviews/<image>/<name>.json`: the label that one person gave one image. Times are UTC, ISO 8601."""

    key: str = Field(description="Name of the image, as in its row.")
    uri: str = Field(description="Where the image is, as in its row.")
    sha256: str | None = Field(None, description="Hash of the image that the model saw.")
    label: str = Field(min_length=1, max_length=MAX_LABEL, description="What the image shows.")
    predicted: str | None = Field(None, description="What the model said.")
    score: float | None = Field(None, description="How sure the model was of it, 0 to 1.")
    model: str | None = Field(None, description="The model, as `name@version`.")
    by: str = Field(description="Who said so: the person of the token, or its owner.")
    at: str = Field(description="When.")
    annotation: str = Field("", description="The annotation of Label Studio that it was imported from.")
    imported_by: str = Field("", description="Who imported it.")

    @property
    def image(self) -> str:
        """What names the image in keys."""
        return image_id(self.key, self.uri)


class Seen(Record):
    """An image of a group, as in its row."""

    key: str
    uri: str
    sha256: str | None = None
    score: float | None = None


class Batch(Record):
    """`jobs/<id>/reviews/many/<name>.json`: one person accepted the model's label for a whole group of images."""

    label: str = Field(min_length=1, max_length=MAX_LABEL, description="What the images show, as the model said.")
    group: str = Field(description="What made them a group, for people.")
    model: str | None = Field(None, description="The model, as `name@version`.")
    by: str = Field(description="Who said so: the person of the token, or its owner.")
    at: str = Field(description="When.")
    images: tuple[Seen, ...] = Field(min_length=1, max_length=MOST_AT_ONCE)

    def verdicts(self) -> Iterator[Verdict]:
        """Yield what it says of each image."""
        said = {"label": self.label, "predicted": self.label, "model": self.model, "by": self.by, "at": self.at}
        for one in self.images:
            yield Verdict.model_validate({**one.model_dump(), **said})


_TYPICAL = (
    b'.jpg.png.webp","uri":"s3://https://","sha256":null,"sha256":"0123456789abcdef","label":"","predicted":null,'
    b'"predicted":"","score":0.99,"model":"@1","by":"","at":"2026-01-01T00:00:00.000Z","annotation":"",'
    b'"imported_by":""}{"key":"'
)
"""A dictionary for zlib: the text that most verdicts have in common."""


class Withdrawal(Record):
    """`jobs/<id>/reviews/<image>/<name>-undone.json`: the verdict beside it no longer stands."""

    by: str
    at: str


class Unlabelled(Record):
    """`jobs/<id>/reviews/unlabelled/<name>.json`: an annotation of Label Studio gives no label, up to the time in the
    name.

    It lost its single label then, or was deleted; versions from before may be told later.
    """

    annotation: str
    by: str = Field(description="Who imported it.")
    at: str = Field(description="When.")


@dataclass(frozen=True, order=True, slots=True)
class Named:
    """A verdict by its place in the bucket; later ones are greater."""

    name: str
    """Milliseconds since the epoch, 4,096ths of one, and 20 random bits; earlier versions had 32 random bits."""
    image: str

    @property
    def text(self) -> str:
        return f"{self.image}/{self.name}"


@dataclass(frozen=True, slots=True)
class Given:
    """A verdict that stands, where it is in the bucket, and what counts of it.

    A server holds those of whole jobs, so the rest is compressed: 1,870 bytes each were, this takes some 500.
    """

    named: Named
    image: str
    by: str
    label: str
    predicted: str | None
    packed: bytes

    @classmethod
    def of(cls, named: Named, verdict: Verdict) -> Given:
        """Return a verdict under its name in the bucket."""
        image = named.image if named.image != MANY else verdict.image
        predicted = None if verdict.predicted is None else sys.intern(verdict.predicted)
        pack = zlib.compressobj(level=1, wbits=-15, zdict=_TYPICAL)
        packed = pack.compress(verdict.to_json()) + pack.flush()
        return cls(named, image, sys.intern(verdict.by), sys.intern(verdict.label), predicted, packed)

    @property
    def verdict(self) -> Verdict:
        """Everything that was said, which takes some ten microseconds."""
        return Verdict.model_validate_json(zlib.decompressobj(wbits=-15, zdict=_TYPICAL).decompress(self.packed))


def image_id(key: str, uri: str) -> str:
    """Return what names an image of a job in keys: 96 bits of a hash."""
    return hashlib.sha256(f"{uri}\n{key}".encode("utf-8", "surrogatepass")).hexdigest()[:24]


def check_label(label: str) -> str:
    """Return a label without spaces around it; raises InvalidInput for what cannot be one."""
    found = label.strip()
    if not found or len(found) > MAX_LABEL:
        raise InvalidInput(f"A label has 1 to {MAX_LABEL:,} characters; this one has {len(found):,}.")
    return found


def verdict_of(row: dict[str, Any], label: str, *, by: str, now: float | None = None) -> Verdict:
    """Return a verdict on a row; raises InvalidInput for what cannot be a label."""
    said = {name: row.get(name) for name in ("key", "uri", "sha256", "score", "model")}
    at = iso(time.time() if now is None else now) or ""
    told = {"label": check_label(label), "predicted": row.get("label"), "by": by, "at": at}
    return Verdict.model_validate({**said, **told})
