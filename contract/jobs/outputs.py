"""The objects that commits name: written by attempts, checked before a job ends, and told from what others left.

An attempt writes under a key that holds a digest of the content, and its commit names that key. So a second attempt
with other bytes writes beside the first, and one with the same bytes changes nothing. Readers follow the commit.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from pydantic import Field

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.errors import ObjectDamaged, ObjectNotFound
from contract.jobs.commits import Committed, in_parallel, iter_listed, read_commit
from contract.jobs.kinds import kind_of
from contract.jobs.specs import Spec
from contract.jobs.status import Output, ShardCommit
from contract.keys.jobs import JobKeys
from contract.keys.names import content_name, named_by_content
from contract.records import Record

log = logging.getLogger(__name__)


class Lost(Record):
    """A commit whose outputs were missing when the job was finalized."""

    missing: str
    commit: ShardCommit
    deleted: bool = Field(default=False, description="Whether the commit was deleted, so that its shard runs again.")


def write(
    store: ObjectStore, prefix: str, stem: str, files: dict[str, bytes], public: dict[str, str] | None = None
) -> tuple[Output, ...]:
    """Write the objects of one attempt below the s3:// `prefix`, with a digest over all of them in their names.

    `files` maps suffixes to contents. `public` maps suffixes to the addresses that `publish` copies them to.
    """
    hashes = {suffix: hashlib.sha256(data).hexdigest() for suffix, data in files.items()}
    digest = hashlib.sha256("".join(f"{suffix} {found}\n" for suffix, found in hashes.items()).encode()).hexdigest()
    written = []
    for suffix, data in files.items():
        address = f"{prefix}{content_name(stem, digest, suffix)}"
        bucket, key = parse_s3(address)
        store.put(key, data, bucket=bucket)
        public_address = (public or {}).get(suffix)
        written.append(Output(address=address, size=len(data), sha256=hashes[suffix], public=public_address))
    return tuple(written)


def discard(store: ObjectStore, made: ShardCommit, stands: ShardCommit) -> None:
    """Delete what an attempt wrote whose commit came second, apart from objects that the commit that stands names."""
    named = {output.address for output in stands.outputs}
    for output in made.outputs:
        bucket, key = parse_s3(output.address)
        if output.address not in named and named_by_content(key):
            store.delete(key, bucket=bucket)


def publish(store: ObjectStore, commit: ShardCommit) -> None:
    """Copy what a commit names to where people look for it; every finalizer copies the same bytes."""
    for output in commit.outputs:
        if output.public is not None:
            bucket, key = parse_s3(output.address)
            data = store.get(key, bucket=bucket)
            if hashlib.sha256(data).hexdigest() != output.sha256:
                raise ObjectDamaged(
                    f"{output.address} is not what was committed (its sha256 differs); start a new job."
                )
            bucket, key = parse_s3(output.public)
            store.put(key, data, bucket=bucket)


def checked(store: ObjectStore, spec: Spec) -> Iterator[tuple[ShardCommit, str]]:
    """Yield what `iter_commits` yields, each with what is missing of its outputs.

    That is a phrase about an object that is gone or has another size, empty if there is none. What only the finalizer
    of images may judge, candidates that are deleted at the end, is not looked for.
    """
    looks = kind_of(spec).makes != "images"

    def check(found: Committed) -> tuple[ShardCommit, str]:
        commit = read_commit(store, spec.id, found.shard, found.retry)
        return commit, _missing(store, spec, commit) if looks else ""

    return in_parallel(check, iter_listed(store, spec.id))


def missing(store: ObjectStore, spec: Spec, commits: Iterable[ShardCommit]) -> Iterator[tuple[ShardCommit, str]]:
    """Yield each commit that names an object which is gone or has another size, and a phrase about that object."""
    for commit, told in in_parallel(lambda commit: (commit, _missing(store, spec, commit)), commits):
        if told:
            yield commit, told


def _missing(store: ObjectStore, spec: Spec, commit: ShardCommit) -> str:
    for address, size in _named(spec, commit):
        bucket, key = parse_s3(address)
        try:
            found = store.size(key, bucket=bucket)
        except ObjectNotFound:
            return f"{address} is gone"
        if size is not None and found != size:
            return f"{address} has {found:,} bytes in place of {size:,}"
    return ""


def _named(spec: Spec, commit: ShardCommit) -> list[tuple[str, int | None]]:
    """Return the address and the size of each object of a commit; older commits know no size."""
    if commit.outputs:
        return [(output.address, output.size) for output in commit.outputs]
    if commit.output is None:
        return []
    tar = [commit.output.removesuffix(".parquet") + ".tar"] if kind_of(spec).makes == "images" else []
    return [(address, None) for address in (commit.output, *tar)]


def run_again(store: ObjectStore, spec: Spec, commit: ShardCommit, told: str) -> None:
    """Delete a commit whose outputs are missing, so that its shard runs again; the second time raises ObjectDamaged.

    The mark is written before the commit is deleted, and again after: the next finalizer completes one that died
    between the two. To compare commits would not do, because the same work commits the same bytes.
    """
    keys = JobKeys(spec.id)
    mark, lost = keys.lost(commit.shard, commit.retry), Lost(missing=told, commit=commit)
    if not store.put_if_absent(mark, lost.to_json()) and Lost.model_validate_json(store.get(mark)).deleted:
        raise ObjectDamaged(
            f"{told}, and was missing before, when shard {commit.shard} of {spec.id} ran again; find out who deletes "
            f"it, remove s3://{store.bucket}/{mark}, then `imagemill resume {spec.id}`."
        )
    log.warning("%s, so shard %d of %s runs again", told, commit.shard, spec.id)
    store.delete(keys.commit(commit.shard, commit.retry))
    store.put(mark, lost.model_copy(update={"deleted": True}).to_json())


def leftovers(store: ObjectStore, spec: Spec, commits: Iterable[ShardCommit]) -> Iterator[tuple[str, str]]:
    """Yield bucket and key of each object that an attempt at this job left and no commit names.

    `commits` are those that count. A prefix that is not the job's alone yields nothing.
    """
    named = {output.address for commit in commits for output in commit.outputs}
    own = JobKeys(spec.id)
    prefixes = [f"s3://{store.bucket}/{own.attempt_prefix}"]
    if PurePosixPath(spec.output).name == spec.id or spec.output == f"s3://{store.bucket}/{own.root}out/":
        prefixes.append(spec.output)
    for prefix in prefixes:
        bucket, start = parse_s3(prefix)
        for entry in store.list(start, bucket=bucket):
            below = entry.key.removeprefix(start)
            if "/" not in below and named_by_content(below) and f"s3://{bucket}/{entry.key}" not in named:
                yield bucket, entry.key
