"""The model registry: immutable versions as records in the bucket, weights beside them.

It knows where a model's files are and what they must hash to, not how to run them.
"""

from __future__ import annotations

import difflib
from typing import Literal

from pydantic import Field

from contract import keys
from contract.errors import ObjectNotFound, UnknownModel
from contract.jobs import Record
from contract.objects import ObjectStore


class Preprocess(Record):
    """How pixels become input: centre crop of `crop` × the short side, resized to `size` × `size`."""

    size: int
    crop: float = 1.0
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: float = Field(description="Subtracted from pixel values of 0 to 255.")
    std: float = Field(description="What the difference is divided by.")


class File(Record):
    """A file of a model."""

    name: str
    sha256: str
    bytes: int


class Model(Record):
    """`models/<name>/<version>/model.json`, written after the files it names."""

    name: str
    version: int
    family: str
    config: dict[str, int | float | str | bool] = Field(default_factory=dict)
    task: Literal["classify"] = "classify"
    labels: tuple[str, ...]
    preprocess: Preprocess
    weights: File
    source: str = ""
    license: str = ""
    created_at: str = ""

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"


class Registry:
    """The records under `models/` of one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def versions(self) -> list[tuple[str, int]]:
        """Every (name, version), sorted by name, newest version first."""
        found = []
        for entry in self._store.list(keys.MODELS):
            parts = entry.key.split("/")
            if len(parts) == 4 and parts[3] == "model.json" and parts[2].isdigit():
                found.append((parts[1], int(parts[2])))
        return sorted(found, key=lambda nv: (nv[0], -nv[1]))

    def models(self) -> list[Model]:
        return [self._read(name, version) for name, version in self.versions()]

    def get(self, ref: str) -> Model:
        """The model `name` (its newest version) or `name@version`.

        Raises UnknownModel with the nearest names.
        """
        name, _, version = ref.partition("@")
        if version.isdigit():
            try:
                return self._read(name, int(version))
            except ObjectNotFound:
                pass
        found = self.versions()
        of_name = [v for n, v in found if n == name]
        if of_name and not version:
            return self._read(name, of_name[0])
        raise UnknownModel(_unknown(ref, found))

    def publish(self, model: Model, weights: bytes) -> bool:
        """Put the weights, then the record; False where the version was there before."""
        self._store.put(keys.model_file(model.name, model.version, model.weights.name), weights)
        return self._store.put_if_absent(keys.model_record(model.name, model.version), model.to_json())

    def exists(self, name: str, version: int) -> bool:
        return self._store.exists(keys.model_record(name, version))

    def _read(self, name: str, version: int) -> Model:
        return Model.model_validate_json(self._store.get(keys.model_record(name, version)))


def _unknown(ref: str, found: list[tuple[str, int]]) -> str:
    if not found:
        return f"There is no model {ref!r}: the registry is empty; start a worker, which publishes the built-in ones."
    known = sorted({n for n, _ in found} | {f"{n}@{v}" for n, v in found})
    near = difflib.get_close_matches(ref, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known[:5])}."
    return f"There is no model {ref!r}; {hint} `imagemill models list` shows all."
