"""What every record is: a frozen JSON object that refuses fields it does not know."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

Precision = Literal["auto", "fp32", "bf16"]
Computed = Literal["fp32", "bf16"]
"""What `auto` can come to."""
MOST_IMAGES = 4096
"""The most images of a shard of a labelling job."""
USUAL_IMAGES = 512
"""Images of a shard where nobody asked for a number and no rate counts."""
ShardSize = int | Literal["auto"]
"""Images of a shard; auto: as many as take seconds (`contract.fleet.sizes`)."""
Numerics = Literal["one", "any"]
Priority = Literal["low", "normal", "high"]
ImageFormat = Literal["png", "webp", "jpeg"]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A hash, which is also the name of a file on a worker."""
ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
S3Prefix = Annotated[str, StringConstraints(pattern=r"^s3://[^/\x00-\x1f]+/[^\x00-\x1f]*$", max_length=2048)]
"""An address under which a job writes."""


class Record(BaseModel):
    """A frozen JSON object; unknown fields are refused, so that a typo is not a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> bytes:
        return self.model_dump_json(indent=1).encode()
