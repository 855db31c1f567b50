"""What every record is: a frozen JSON object that refuses fields it does not know."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Precision = Literal["auto", "fp32", "bf16"]
Computed = Literal["fp32", "bf16"]
"""What `auto` can come to."""
Numerics = Literal["one", "any"]
ImageFormat = Literal["png", "webp", "jpeg"]


class Record(BaseModel):
    """A frozen JSON object; unknown fields are refused, so that a typo is not a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> bytes:
        return self.model_dump_json(indent=1).encode()
