"""The model registry: immutable versions as records in the bucket, their files beside them, aliases that move.

It knows where a model's files are and what they must hash to, not how to run them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version as installed
from typing import Literal, TypeAlias

from pydantic import Field, model_validator

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, JobConflict, ModelError, NotOwner, ObjectNotFound, UnknownModel
from contract.keys.bucket import MODELS
from contract.keys.models import model_alias, model_claim, model_file, model_record
from contract.keys.names import content_name
from contract.models.owners import BUILT_IN, Owners, check_free
from contract.records import ModelName, Record, Sha256
from contract.suggest import did_you_mean

Task: TypeAlias = Literal["classify", "classify-sequence", "generate"]
Scalar: TypeAlias = int | float | str | bool
PROGRAM = "program"
"""The family of models that bring their own graph, a `torch.export` program."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ALIAS = re.compile(r"[a-z][a-z0-9-]{0,62}")
_FRAMES = 64
_OURS = frozenset({"model.json", "draft.json", "check.json", "claim"})


class Preprocess(Record):
    """How pixels become input: centre crop of `crop` × the short side, resized to `size` × `size`.

    With `channels` 1 colours become luma (ITU-R BT.601) first. For a generator it is read backwards:
    what comes out is `size` × `size` × `channels`, and pixel = x · `std` + `mean`.
    """

    size: int = Field(ge=1, le=4096)
    crop: float = Field(default=1.0, gt=0, le=1)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: float = Field(description="Subtracted from pixel values of 0 to 255.")
    std: float = Field(description="What the difference is divided by.", gt=0)
    channels: Literal[1, 3] = 3


class File(Record):
    """A file of a model. Its name is that of a file after `pull`, and of an object beside the record unless told."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    sha256: Sha256
    bytes: int = Field(ge=0)
    # Left out where it says nothing, so that older versions read the record.
    object: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,150}$",
        exclude_if=lambda found: found is None,
        description="Name of the object, with a digest of the content, where attempts at one version may differ.",
    )


class Model(Record):
    """`models/<name>/<version>/model.json`, written after the files it names."""

    name: ModelName
    version: int = Field(ge=0)
    family: str
    config: dict[str, Scalar] = Field(default_factory=dict)
    task: Task = "classify"
    labels: tuple[str, ...] = Field(description="Class names by index; empty only for a generator without classes.")
    label_ids: tuple[str, ...] = Field(
        default=(), description="Stable ids of the labels, in their order, such as WordNet synsets; empty: none given."
    )
    preprocess: Preprocess
    weights: File
    files: tuple[File, ...] = Field(
        default=(), description="What lies beside the weights: metrics, curves, samples, a card."
    )
    metrics: dict[str, float] = Field(default_factory=dict, description="What was measured, by name.")
    recipe: dict[str, Scalar | None] = Field(default_factory=dict, description="How it was trained.")
    data: dict[str, Scalar | None] = Field(default_factory=dict, description="On what: source, fingerprint, images.")
    code: str = Field(default="", description="The version of Imagemill that published it.")
    card: str | None = Field(default=None, description="Which of `files` describes the model for people.")
    source: str = ""
    license: str = ""
    created_at: str = ""
    owner: str = Field(default="", description="Who published it; empty: a version of an older Imagemill.")

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def frames(self) -> int:
        """The largest number of frames per sequence that the model reads, as in training; 0 for a model of images."""
        return int(self.recipe.get("frames") or _FRAMES) if self.task == "classify-sequence" else 0

    def class_numbers(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return the indices of these classes in their order, or of all; raises InvalidInput for an unknown name."""
        for name in names:
            if name not in self.labels:
                hint = did_you_mean(name, self.labels, quoted=True)
                raise InvalidInput(f"{self.ref} has no class {name!r}; {hint}")
        wanted = set(names)
        return tuple(n for n, label in enumerate(self.labels) if not wanted or label in wanted)

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        if not self.labels and self.task != "generate":
            raise ValueError(f"a model of task {self.task} needs labels")
        if self.label_ids and len(self.label_ids) != len(self.labels):
            raise ValueError(f"{len(self.labels)} labels need as many ids, but there are {len(self.label_ids)}")
        if len(set(self.label_ids)) != len(self.label_ids):
            raise ValueError("each label needs its own id, but one id is given twice")
        names = [file.name for file in (self.weights, *self.files)]
        if len(set(names)) != len(names) or _OURS & set(names):
            raise ValueError(f"files need names of their own, and none of {', '.join(sorted(_OURS))}; here: {names}")
        if self.card is not None and self.card not in names[1:]:
            raise ValueError(f"the card {self.card!r} is not among the files")
        return self


class Pointer(Record):
    """`models/<name>/aliases/<alias>`: the version that an alias stands for now."""

    version: int


def make_file(name: str, data: bytes, *, fenced: bool = False) -> File:
    """Return the entry of a file for the record of a model; `fenced`, its object is named by its content."""
    digest = hashlib.sha256(data).hexdigest()
    stem, dot, suffix = name.rpartition(".")
    stored = content_name(stem, digest, dot + suffix) if fenced else None
    return File(name=name, sha256=digest, bytes=len(data), object=stored)


def imagemill_version() -> str:
    """Return the installed version of Imagemill, for `Model.code`."""
    return installed("imagemill")


def check_name(name: str) -> str:
    """Return `name` if it is a valid model name; raises InvalidInput if not."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is not a model name; use up to 63 of a-z, 0-9 and -, a letter or digit first.")
    return name


@dataclass
class _Listing:
    """What a listing of the registry names: published versions, and aliases, by model name."""

    versions: dict[str, list[int]] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)

    def refs(self) -> list[str]:
        """Return every reference that `get` accepts, sorted."""
        found = set(self.versions)
        found |= {f"{name}@{version}" for name, versions in self.versions.items() for version in versions}
        found |= {f"{name}@{alias}" for name, aliases in self.aliases.items() for alias in aliases}
        return sorted(found)


class Registry:
    """The records under `models/` of one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.owners = Owners(store)

    # Finding

    def versions(self, name: str = "") -> list[tuple[str, int]]:
        """Return every published (name, version), sorted by name, newest version first; of one model if it is named."""
        found = self._list(name).versions
        return [(name, version) for name in sorted(found) for version in sorted(found[name], reverse=True)]

    def models(self, name: str = "") -> list[Model]:
        """Return every record, in the order of `versions`."""
        return [model for model in (self._find(*version) for version in self.versions(name)) if model]

    def resolve(self, ref: str) -> tuple[str, int]:
        """Return the (name, version) that `name` (the newest of its owner), `name@version` or `name@alias` stands for.

        Raises UnknownModel with the nearest names.
        """
        model = self.get(ref)
        return model.name, model.version

    def get(self, ref: str, *, tasks: Sequence[Task] = ()) -> Model:
        """Return the model `name` (the newest version of its owner), `name@version` or `name@alias`.

        The bare name of a model that ships is the version that ships, whatever else lies there.
        Raises UnknownModel with the nearest names; with `tasks`, InvalidInput for a model that does something else.
        """
        name, at, tag = ref.partition("@")
        if _NAME.fullmatch(name):
            version = self._version(name, tag) if at else None
            model = self._newest(name) if not at else None if version is None else self._find(name, version)
            if model is not None:
                if tasks and model.task not in tasks:
                    raise InvalidInput(
                        f"{model.ref} does {model.task}, and this takes a model that does {' or '.join(tasks)}; "
                        "`imagemill models list` shows what each does."
                    )
                return model
        raise UnknownModel(_unknown(ref, self._list().refs()))

    def exists(self, name: str, version: int) -> bool:
        """Return whether this version is published."""
        return self._store.exists(model_record(name, version))

    def read(self, model: Model, file: File) -> bytes:
        """Return the bytes of a file of a model; raises ModelError if it is missing or differs from the record."""
        try:
            data = self._store.get(model_file(model.name, model.version, file.object or file.name))
        except ObjectNotFound as error:
            raise ModelError(f"{file.name} of {model.ref} is not in the bucket; publish the model again.") from error
        _check(file, data, model.ref)
        return data

    def verify(self, model: Model) -> None:
        """Read every file of a model; raises ModelError for the first that is missing or not what it should be."""
        for file in (model.weights, *model.files):
            self.read(model, file)

    # Aliases

    def aliases(self, name: str) -> dict[str, int]:
        """Return the versions of a model by alias, sorted by alias."""
        found = ((alias, self._pointer(name, alias)) for alias in sorted(self._list(name).aliases.get(name, ())))
        return {alias: version for alias, version in found if version is not None}

    def set_alias(self, name: str, alias: str, version: int, owner: str | None = None) -> None:
        """Let `name@alias` stand for a version from now on, whatever it stood for.

        Raises InvalidInput for what cannot be an alias, UnknownModel where the version is not published, and NotOwner
        if the model is not `owner`'s.
        """
        if not _ALIAS.fullmatch(alias):
            raise InvalidInput(f"{alias!r} is not an alias; use up to 63 of a-z, 0-9 and -, a letter first.")
        self.get(f"{name}@{version}")
        self._check(name, owner)
        self._store.put(model_alias(name, alias), Pointer(version=version).to_json())

    def may_change(self, name: str, owner: str) -> bool:
        """Return whether an owner may move the aliases of a model."""
        try:
            self._check(name, owner)
        except NotOwner:
            return False
        return True

    def remove_alias(self, name: str, alias: str, owner: str | None = None) -> None:
        """Forget an alias; the version stays. Raises UnknownModel where there is no such alias, and NotOwner."""
        if not (_NAME.fullmatch(name) and _ALIAS.fullmatch(alias)) or self._pointer(name, alias) is None:
            raise UnknownModel(_unknown(f"{name}@{alias}", self._list().refs()))
        self._check(name, owner)
        self._store.delete(model_alias(name, alias))

    # Publishing

    def claim(self, name: str, token: str, owner: str | None = None) -> int:
        """Reserve a version of `name`: the one that `token` holds, else the next, which nobody else will get.

        A name without an owner becomes `owner`'s. Raises InvalidInput for an invalid name, and NotOwner for one that
        is reserved or another's.
        """
        listing = self._list(check_name(name))
        check_free(name)
        if owner is not None:
            self.owners.claim(name, owner, max(listing.versions.get(name, ()), default=0))
        newest = listing.taken.get(name, 0)
        mine = token.encode()
        for version in range(newest, 0, -1):
            if self._claimed_by(name, version) == mine:
                return version
        while True:
            newest += 1
            fresh = self._store.put_if_absent(model_claim(name, newest), mine)
            # A write whose answer was lost is ours all the same.
            if fresh or self._claimed_by(name, newest) == mine:
                return newest

    def own(self, name: str, owner: str) -> str | None:
        """Make `owner` the owner of a model with its versions so far; return who was before, None for nobody.

        Raises UnknownModel, and NotOwner for a model that ships.
        """
        versions = self._list(check_name(name)).versions.get(name, ())
        if not versions:
            raise UnknownModel(_unknown(name, self._list().refs()))
        return self.owners.take_over(name, owner, max(versions))

    def publish(self, model: Model, files: Mapping[str, bytes], *, ships: bool = False) -> bool:
        """Put the files of a model, then its record; False where the version was published before.

        `files` holds the bytes of the weights and of each of `model.files`, by name. Raises ModelError
        where they are not what the record says, and NotOwner as `enter` does, before anything is written.
        """
        entries = {file.name: file for file in (model.weights, *model.files)}
        if entries.keys() != files.keys():
            differing = ", ".join(sorted(entries.keys() ^ files.keys()))
            raise ModelError(f"The record of {model.ref} and the files given for it differ in {differing}.")
        for name, entry in entries.items():
            _check(entry, files[name], model.ref)
        check_name(model.name)
        self._admit(model, ships)
        if self.exists(model.name, model.version):
            return False
        # A built-in model has no claim yet; from now on nobody else gets its number.
        self._store.put_if_absent(model_claim(model.name, model.version), b"")
        for name, data in files.items():
            self._store.put(model_file(model.name, model.version, entries[name].object or name), data)
        return self.enter(model, ships=ships)

    def enter(self, model: Model, *, ships: bool = False) -> bool:
        """Put the record of a model whose files are there: from now on it is published.

        False where the version has another record already. Raises NotOwner for a version of another owner, and for a
        reserved name, unless it `ships`: the caller has made the model of the code's own weights.
        """
        self._admit(model, ships)
        record = model.to_json()
        key = model_record(model.name, model.version)
        return self._store.put_if_absent(key, record) or self._store.get(key) == record

    def remove(self, ref: str, owner: str | None = None) -> Model:
        """Remove the version `name@version`: its record first, then its files; the number never comes back.

        Raises UnknownModel, InvalidInput for a ref without a version, JobConflict while an alias stands for it, and
        NotOwner for a version that ships or, given an `owner`, for another's.
        """
        if "@" not in ref:
            raise InvalidInput(f"{ref} names no version; write {ref}@VERSION.")
        model = self.get(ref)
        if BUILT_IN.get(model.name) == model.version:
            check_free(model.name)
        self._check(model.name, owner)
        pointing = [alias for alias, version in self.aliases(model.name).items() if version == model.version]
        if pointing:
            raise JobConflict(
                f"{model.ref} is {model.name}@{pointing[0]}; "
                f"use `imagemill models alias --remove {model.name}@{pointing[0]}` first."
            )
        claim = model_claim(model.name, model.version)
        self._store.put_if_absent(claim, b"")  # versions of older Imagemills have none
        self._store.delete(model_record(model.name, model.version))
        for entry in list(self._store.list(model_file(model.name, model.version, ""))):
            if entry.key != claim:
                self._store.delete(entry.key)
        return model

    # Steps

    def _list(self, name: str = "") -> _Listing:
        """List the versions and aliases of one model, or of all."""
        found = _Listing()
        for entry in self._store.list(f"{MODELS}{name}/" if name else MODELS):
            parts = entry.key.split("/")
            if len(parts) != 4:
                continue
            _, owner, folder, file = parts
            if folder == "aliases":
                found.aliases.setdefault(owner, []).append(file)
            elif folder.isdigit():
                found.taken[owner] = max(found.taken.get(owner, 0), int(folder))
                if file == "model.json":
                    found.versions.setdefault(owner, []).append(int(folder))
        return found

    def _newest(self, name: str) -> Model | None:
        """Return the newest version that the bare name may stand for."""
        for version in sorted(self._list(name).versions.get(name, ()), reverse=True):
            model = self._find(name, version)
            if model is not None and self.owners.admits(name, version, model.owner):
                return model
        return None

    def _admit(self, model: Model, ships: bool) -> None:
        if model.name in BUILT_IN and not ships:
            check_free(model.name)
        if not self.owners.admits(model.name, model.version, model.owner):
            raise NotOwner(
                f"{model.ref} is not published: {model.owner or 'nobody'} made it, and the name belongs to another "
                "owner; choose another name."
            )

    def _check(self, name: str, owner: str | None) -> None:
        """Raise NotOwner unless a name is `owner`'s. Aliases and imposters of a reserved name are anybody's."""
        if owner is not None and name not in BUILT_IN:
            self.owners.check(name, owner)

    def _version(self, name: str, tag: str) -> int | None:
        if re.fullmatch("[0-9]{1,9}", tag):
            return int(tag)
        return self._pointer(name, tag) if _ALIAS.fullmatch(tag) else None

    def _find(self, name: str, version: int) -> Model | None:
        try:
            return Model.model_validate_json(self._store.get(model_record(name, version)))
        except ObjectNotFound:
            return None

    def _pointer(self, name: str, alias: str) -> int | None:
        try:
            return Pointer.model_validate_json(self._store.get(model_alias(name, alias))).version
        except ObjectNotFound:
            return None

    def _claimed_by(self, name: str, version: int) -> bytes | None:
        try:
            return self._store.get(model_claim(name, version))
        except ObjectNotFound:
            return None


def _check(file: File, data: bytes, ref: str) -> None:
    """Raise ModelError if these are not the bytes that `file` of the model `ref` records."""
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256 or len(data) != file.bytes:
        raise ModelError(
            f"{file.name} of {ref} hashes to {found[:12]}…, not {file.sha256[:12]}… as its record says; "
            "publish the model again."
        )


def _unknown(ref: str, known: list[str]) -> str:
    if not known:
        return f"There is no model {ref!r}: the registry is empty; start a worker, which publishes the built-in ones."
    return f"There is no model {ref!r}; {did_you_mean(ref, known)} `imagemill models list` shows all."
