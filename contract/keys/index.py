"""Object keys of the index of jobs: empty objects that say in their names what a listing asks for."""

from __future__ import annotations

import re

from contract.keys.bucket import INDEX
from contract.keys.names import LATEST

INDEX_STATE = f"{INDEX}state.json"
"""How far the index of ended jobs is built, for jobs that ended before there was one."""
ENDED = f"{INDEX}ended/"
"""An empty object for each ended job. The names sort by the time of the end, newest first."""
EXPIRES = f"{INDEX}expires/"
"""An empty object for each ended job with a retention of its own. The names sort by when it is over."""
USES = f"{INDEX}uses/"
"""An empty object for each job whose images lie in another job: `uses/OTHER/JOB`."""
DELETING = f"{INDEX}deleting/"
"""A job that is being deleted: what is left to do for it. Written first, deleted last."""

_ENDED = re.compile(r"^index/ended/(\d{13})-([a-z0-9-]+)\.(\d+)(\.own)?$")
_EXPIRES = re.compile(r"^index/expires/(\d{13})-([a-z0-9-]+)$")


def ended_entry(ended_ms: int, id: str, run: int, *, own: bool = False) -> str:
    """The entry of a run that ended so many milliseconds after the epoch; `own` if it has a retention of its own."""
    return f"{ENDED}{LATEST - ended_ms:013d}-{id}.{run}{'.own' if own else ''}"


def ended_before(ended_ms: int) -> str:
    """A key behind the entries of all jobs that ended at that time or later."""
    return f"{ENDED}{LATEST - ended_ms:013d}-~"


def parse_ended(key: str) -> tuple[str, int, bool] | None:
    """Return the job and the run of an entry, and whether the job has a retention of its own."""
    match = _ENDED.match(key)
    return (match[2], int(match[3]), match[4] is not None) if match else None


def expires_entry(due_ms: int, id: str) -> str:
    """An empty object for an ended job with a retention of its own, named by when that is over, in milliseconds."""
    return f"{EXPIRES}{due_ms:013d}-{id}"


def parse_expires(key: str) -> tuple[int, str] | None:
    """Return when a job's retention is over, in milliseconds, and its id."""
    match = _EXPIRES.match(key)
    return (int(match[1]), match[2]) if match else None


def uses_prefix(id: str) -> str:
    return f"{USES}{id}/"


def version_entry(job: str, dataset: str, number: int) -> str:
    """An empty object for a job that makes a version of a dataset, which keeps it once the version is there."""
    return f"{uses_prefix(job)}{dataset}@{number}"


def uses_entry(of: str, by: str) -> str:
    """An empty object for a job whose images lie in another one, which is therefore kept."""
    return f"{uses_prefix(of)}{by}"


def deleting(id: str) -> str:
    """What is left to do for a job that is being deleted; written first, deleted last."""
    return f"{DELETING}{id}"
