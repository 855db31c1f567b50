"""Resolve what the user typed to a source that can be trained on, and check it before a job is queued.

Adds IDX files and the labels of an earlier job to the sources that can be labelled (`producer.sources.images`).
Writes nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.datasets.versions import Datasets, name_of
from contract.errors import InvalidSource
from contract.jobs import lifecycle
from contract.jobs.kinds import kind_of
from contract.jobs.reviews import sets
from contract.jobs.sources import source_kind
from contract.watches.record import Watches
from producer.sources import images
from producer.sources.images import LOOK, Packed, Remote, Resolved, Upload

JOB = "job:"
WATCH, NEWEST = "watch:", "@newest"
_IDX = re.compile(r"[-.](images|labels)[-.]idx[13]-ubyte(\.gz)?$")


def resolve(text: str, store: ObjectStore, frames: int = 0, *, known: Sequence[str] = ()) -> Resolved:
    """Resolve `text`: `job:ID`, `watch:NAME`, IDX files in a folder or under a prefix, or what else can be labelled.

    `frames` is the most frames that a model of sequences reads of each, 0 for a model of images. `known` are the
    classes of a model that is evaluated rather than trained: a folder may then hold any number of them and of their
    images. Raises InvalidSource if the source does not exist or cannot be learnt from, UnknownJob for an unknown job.
    """
    found = images.resolve(text, store, frames, labelled=True)
    folder = Path(text).expanduser()
    if isinstance(found, Packed) and folder.is_dir():
        if known:
            _check_known(found, text, known)
        else:
            _check_classes(found, folder, text, "sequence" if frames else "image")
    return found


def resolve_all(texts: Sequence[str], store: ObjectStore, frames: int = 0) -> Resolved:
    """Resolve several texts to one source, their images one behind the other; raises what `resolve` raises.

    Several must all be in the store: a folder of this machine, and IDX files, are taken alone.
    """
    if len(texts) == 1:
        return resolve(texts[0], store, frames)
    parts: list[Remote] = []
    for text in texts:
        found = resolve(text, store, frames)
        if not isinstance(found, Remote):
            raise InvalidSource(
                f"{text} is on this machine, and several sources are read from the store; copy it there, and name it "
                "as s3://bucket/prefix."
            )
        if source_kind(found.kind).arrays is not None:
            raise InvalidSource(f"{text} holds IDX files, which are read as a whole; name it alone.")
        if found in parts:
            raise InvalidSource(f"{text} is named twice; name it once.")
        parts.append(found)
    return Remote("several", "", " + ".join(part.label for part in parts), tuple(parts))


def resolve_job(text: str, store: ObjectStore, frames: int) -> Remote | None:
    """Return the source `job:ID`; raises InvalidSource for a job that has no labelled images, and UnknownJob."""
    if not text.startswith(JOB):
        return None
    id = text.removeprefix(JOB)
    kind = kind_of(lifecycle.read_spec(store, id))
    if kind.makes not in ("labels", "images"):
        raise InvalidSource(
            f"The job {id} is of the kind {kind.name}, without labelled images; name a job that has some."
        )
    return Remote("job", id, text)


def resolve_review(text: str, store: ObjectStore, frames: int) -> Remote | None:
    """Return the source `review:JOB[@SET]`; raises UnknownJob, and InvalidSource for a job that labels nothing."""
    if not text.startswith(sets.PREFIX):
        return None
    ref = sets.parse_ref(text.removeprefix(sets.PREFIX))
    if ref is None:
        raise InvalidSource(f"{text!r} is no job whose reviews could be read; write {sets.PREFIX}JOB.")
    kind = kind_of(lifecycle.read_spec(store, ref.job))
    if kind.makes != "labels":
        raise InvalidSource(
            f"The job {ref.job} is of the kind {kind.name}, and only labels are reviewed; name another."
        )
    # The set is pinned with the spec: a schedule takes the reviews of each tick.
    return Remote("review", ref.text, text)


def resolve_dataset(text: str, store: ObjectStore, frames: int) -> Remote | None:
    """Return the source `dataset:NAME[@V]`; raises UnknownDataset, and InvalidSource for a model of sequences."""
    ref = name_of(text)
    if ref is None:
        return None
    if frames:
        raise InvalidSource(f"{text} holds single images; a model of sequences needs sequences.")
    Datasets(store).resolve(ref)
    # The version is pinned with the spec: a schedule that names none takes the newest at each tick.
    return Remote("dataset", ref, text)


def resolve_watch(text: str, store: ObjectStore, frames: int) -> Remote | None:
    """Return the source `watch:NAME[@newest]`; raises InvalidWatch, and InvalidSource for a model of sequences."""
    if not text.startswith(WATCH):
        return None
    if frames:
        raise InvalidSource(f"{text} holds single images; a model of sequences needs sequences.")
    # The segments are pinned with the spec, and the watch may be added later: it may start the schedule that names it.
    ref = text.removeprefix(WATCH)
    name = Watches.check_name(ref.removesuffix(NEWEST))
    return Remote("segment", f"{name}{NEWEST}" if ref.endswith(NEWEST) else name, text)


def resolve_idx(text: str, store: ObjectStore, frames: int) -> Remote | Upload | None:
    """Return the IDX files directly in a folder or under a prefix; None if there are none."""
    if text.startswith("s3://"):
        bucket, prefix = parse_s3(text)
        return Remote("idx", text, text) if store.bucket_exists(bucket) and _has_idx(store, bucket, prefix) else None
    folder = Path(text).expanduser()
    files = sorted(path.resolve() for path in folder.iterdir() if _IDX.search(path.name)) if folder.is_dir() else []
    return Upload("idx", text, tuple(files)) if files else None


def _has_idx(store: ObjectStore, bucket: str, prefix: str) -> bool:
    """Return whether IDX files are among the first `LOOK` objects under a prefix; other folders are not listed."""
    folder = f"{prefix}/"
    for entry in islice(store.list(prefix, bucket=bucket, folders=True), LOOK):
        # A prefix may be the name of a folder without its slash.
        if _IDX.search(entry.key) or (entry.key == folder and _has_idx(store, bucket, folder)):
            return True
    return False


def _check_known(source: Packed, label: str, known: Sequence[str]) -> None:
    """Check that every image is in the folder of a known class; raises InvalidSource."""
    for file in source.files():
        if file.label not in known:
            where = f"of the class {file.label!r}" if file.label else "in no class folder"
            raise InvalidSource(
                f"{file.key} of {label} is {where}, and the model knows {len(known)} classes ({', '.join(known[:5])}"
                f"{' …' if len(known) > 5 else ''}); move it into the folder of its class."
            )


def _check_classes(source: Packed, folder: Path, label: str, what: str) -> None:
    """Check that there are two classes or more, each with two images or sequences; raises InvalidSource."""
    images: Counter[str] = Counter()
    for file in source.files():
        if not file.label:
            raise InvalidSource(f"{file.key} of {label} is in no class folder; move it into the folder of its class.")
        images[file.label] += 1
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith(".") and not _holds(images, path):
            raise InvalidSource(f"The class folder {path.name!r} of {label} holds no {what}s; fill it or remove it.")
    if len(images) < 2:
        raise InvalidSource(f"{label} has a single class, {next(iter(images))!r}; add a folder for a second class.")
    for name, count in sorted(images.items()):
        if count < 2:
            raise InvalidSource(
                f"The class {name!r} of {label} has one {what}; add another, so that one can be held out."
            )


def _holds(images: Counter[str], path: Path) -> bool:
    """Return whether a folder, or one inside it, is a class with images."""
    return path.name in images or any(child.name in images for child in path.rglob("*") if child.is_dir())
