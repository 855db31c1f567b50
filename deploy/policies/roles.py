"""What each role writes, by the keys of `contract.keys`; `document` makes an IAM policy of it.

Every role may list the bucket and read what its work needs. Prefixes of jobs hold a `*` for the id, because one policy
serves all jobs: roles are kept apart, producers are not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contract.data.items import parse_s3
from contract.jobs.ends import DERIVED
from contract.keys.bucket import (
    ACTIVE,
    DATASETS,
    FEEDS,
    INDEX,
    JOBS,
    MODELS,
    SCHEDULES,
    SERVED,
    TABLES,
    TOKENS,
    UPLOADS,
    WEBHOOKS,
    probe_object,
)
from contract.keys.datasets import dataset_claims, dataset_features, dataset_record, dataset_versions
from contract.keys.index import ENDED, EXPIRES, INDEX_STATE, USES, deleting
from contract.keys.jobs import JobKeys
from contract.keys.schedules import schedule_ticks
from contract.keys.uploads import UPLOADS_BEGUN, UPLOADS_CLAIMED
from contract.keys.watches import watch_prefix, watch_record
from contract.keys.webhooks import (
    WEBHOOK_NOTES,
    WEBHOOK_OF_ALL,
    webhook_disabled,
    webhook_message,
    webhook_outcome,
    webhook_record,
    webhook_secret,
    webhook_waiting,
)
from contract.models.owners import BUILT_IN

FOLDER = Path(__file__).parent
BUCKET = "imagemill"
ANY = "*"

_JOB = JobKeys(ANY)
_OUT = f"{_JOB.root}out/"
_DERIVED = [f"{_OUT}{name}" for name in (*DERIVED, "_SUCCESS")]
"""Whoever ends or reopens a job writes these."""
_INDEX = (f"{ENDED}{ANY}", f"{EXPIRES}{ANY}")
_ENDS = (_JOB.end, f"{_JOB.run_prefix}{ANY}", _JOB.success, _JOB.active, *_INDEX, *_DERIVED)


@dataclass(frozen=True)
class Role:
    """Patterns of keys, with `*` for any text, as IAM has them."""

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    deletes: tuple[str, ...]
    never: tuple[str, ...] = ()
    """Patterns that it may neither write nor delete, whatever else it may."""


_PRODUCER = Role(
    name="producer",
    reads=(ANY,),
    writes=(
        _JOB.spec,
        f"{_JOB.input_prefix}{ANY}",
        f"{_JOB.plan_prefix}{ANY}",  # of a local folder, which it packs
        _JOB.sizes,
        *_ENDS,
        f"{MODELS}{ANY}",
        f"{SCHEDULES}{ANY}",
        watch_record(ANY),
        f"{FEEDS}{ANY}",
        f"{SERVED}{ANY}",
        dataset_record(ANY),
        f"{dataset_claims(ANY)}{ANY}",
        probe_object(ANY),
        INDEX_STATE,
        f"{USES}{ANY}",
        f"{UPLOADS_CLAIMED}{ANY}",  # uses an upload
        _JOB.share,
        deleting(ANY),  # asks the controller to delete a job
        f"{_JOB.review_prefix}{ANY}",
        f"{_JOB.reviewed_prefix}{ANY}",
        f"{WEBHOOK_NOTES}{ANY}",  # of jobs that it cancels
        webhook_record(ANY),
        webhook_secret(ANY),
        webhook_waiting(ANY, ANY),  # has a message sent again
    ),
    deletes=(
        _JOB.success,
        _JOB.active,
        _JOB.report,
        *_DERIVED,
        *_INDEX,
        deleting(ANY),
        f"{MODELS}{ANY}",
        f"{SCHEDULES}{ANY}",
        watch_record(ANY),
        f"{SERVED}{ANY}",
        f"{DATASETS}{ANY}",
        probe_object(ANY),
        f"{INDEX}uploads/{ANY}",
        webhook_disabled(ANY),
        webhook_record(ANY),  # removes one, with its messages
        webhook_secret(ANY),
        webhook_waiting(ANY, ANY),
        webhook_outcome(ANY, ANY),
        webhook_message(ANY, ANY),
    ),
    never=tuple(f"{MODELS}{name}/{ANY}" for name in BUILT_IN),
)

ROLES = {
    role.name: role
    for role in (
        _PRODUCER,
        replace(  # the HTTP API: a producer that hands out addresses for uploads
            _PRODUCER,
            name="web",
            writes=(*_PRODUCER.writes, f"{UPLOADS}{ANY}", f"{UPLOADS_BEGUN}{ANY}"),
            deletes=(*_PRODUCER.deletes, f"{UPLOADS}{ANY}"),
        ),
        # Whoever runs `imagemill tokens`: the API itself may make no token.
        Role(
            name="operator",
            reads=(f"{TOKENS}{ANY}",),
            writes=(f"{TOKENS}{ANY}",),
            deletes=(f"{TOKENS}{ANY}",),
        ),
        Role(
            name="controller",
            reads=(ANY,),
            writes=(
                _JOB.spec,  # of a schedule's jobs
                f"{_JOB.plan_prefix}{ANY}",
                _JOB.planning,
                f"{_JOB.reviewed_prefix}{ANY}",  # of a schedule that learns from reviews
                f"{_JOB.lost_prefix}{ANY}",
                f"{_OUT}{ANY}",
                *_ENDS,
                f"{INDEX}{ANY}",
                f"{schedule_ticks(ANY)}{ANY}",
                f"{watch_prefix(ANY)}{ANY}",
                dataset_record(ANY),  # of a schedule's jobs, as the claims
                f"{dataset_claims(ANY)}{ANY}",
                f"{TABLES}{ANY}",
                f"{WEBHOOKS}{ANY}",
            ),
            deletes=(
                f"{JOBS}{ANY}",  # whose retention is over
                f"{UPLOADS}{ANY}",  # which nobody used
                f"{INDEX}{ANY}",
                _JOB.active,
                f"{schedule_ticks(ANY)}{ANY}",
                f"{watch_prefix(ANY)}{ANY}",
                f"{TABLES}{ANY}",
                f"{WEBHOOKS}{ANY}",
            ),
        ),
        Role(
            name="worker",
            reads=(
                f"{JOBS}{ANY}",
                f"{ACTIVE}{ANY}",
                f"{MODELS}{ANY}",
                f"{DATASETS}{ANY}",
                f"{SERVED}{ANY}",
                f"{UPLOADS}{ANY}",  # images that came over the HTTP API, or from the folder of a watch
                f"{FEEDS}{ANY}",
                WEBHOOK_OF_ALL,
                f"{UPLOADS_CLAIMED}{ANY}",
            ),
            writes=(
                _JOB.numerics,
                f"{_JOB.plan_prefix}{ANY}",  # halves of a shard, and plans that only a worker can make
                f"{_JOB.commit_prefix}{ANY}",
                f"{_JOB.attempt_prefix}{ANY}",
                f"{_JOB.candidate_prefix}{ANY}",
                f"{_JOB.selected_prefix}{ANY}",
                f"{_JOB.lost_prefix}{ANY}",
                f"{_JOB.training_prefix}{ANY}",
                _JOB.neighbours,
                f"{_OUT}{ANY}",
                *_ENDS,
                f"{MODELS}{ANY}",
                f"{dataset_versions(ANY)}{ANY}",
                dataset_features(ANY, ANY, ANY),
                f"{WEBHOOK_NOTES}{ANY}",  # empty; what is told is read from the end
                f"{UPLOADS_CLAIMED}{ANY}",  # uses an upload that the manifest of a training lists
            ),
            deletes=(
                f"{_JOB.commit_prefix}{ANY}",  # of generated images that are gone
                f"{_JOB.attempt_prefix}{ANY}",
                f"{_JOB.candidate_prefix}{ANY}",
                f"{_JOB.training_prefix}{ANY}",
                f"{_OUT}{ANY}",
                _JOB.success,
                _JOB.active,
                *_INDEX,
                f"{MODELS}{ANY}",
                f"{UPLOADS_BEGUN}{ANY}",
            ),
        ),
    )
}


def document(
    role: str,
    *,
    bucket: str = BUCKET,
    sources: Sequence[str] = (),
    results: Sequence[str] = (),
    moves: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Return the IAM policy of a role.

    `sources` are further buckets to read images from, `results` the `s3://` prefixes that jobs may write to. `moves`
    are prefixes that watches follow, each with its archive: the controller deletes from the first and writes to the
    second, and every role reads both.
    """
    found = ROLES[role]
    followed, archives = [_below(one) for one, _ in moves], [_below(other) for _, other in moves]
    taken, given = (followed, archives) if role == "controller" else ([], [])
    below = list(map(_below, results))
    listed = [bucket, *sources, *dict.fromkeys(place.partition("/")[0] for place in (*below, *followed, *archives))]
    statements: list[dict[str, Any]] = [
        {
            "Sid": "List",
            "Effect": "Allow",
            "Action": ["s3:ListBucket", "s3:GetBucketLocation"],
            "Resource": [_arn(name) for name in listed],
        },
        {
            "Sid": "Read",
            "Effect": "Allow",
            "Action": ["s3:GetObject"],
            "Resource": [
                *(_arn(f"{bucket}/{key}") for key in found.reads),
                *(_arn(f"{name}/{ANY}") for name in sources),
                *map(_arn, (*below, *followed, *archives)),
            ],
        },
        {
            "Sid": "Write",
            "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:AbortMultipartUpload"],
            "Resource": [*(_arn(f"{bucket}/{key}") for key in found.writes), *map(_arn, (*below, *given))],
        },
        {
            "Sid": "Delete",
            "Effect": "Allow",
            "Action": ["s3:DeleteObject"],
            "Resource": [*(_arn(f"{bucket}/{key}") for key in found.deletes), *map(_arn, (*below, *taken))],
        },
    ]
    if found.never:
        statements.append(
            {
                "Sid": "Reserved",
                "Effect": "Deny",
                "Action": ["s3:PutObject", "s3:DeleteObject"],
                "Resource": [_arn(f"{bucket}/{key}") for key in found.never],
            }
        )
    return {"Version": "2012-10-17", "Statement": statements}


def _below(address: str) -> str:
    """Return the pattern of everything below an `s3://` prefix, as `bucket/prefix/*`."""
    there, prefix = parse_s3(address.rstrip("/"))
    return f"{there}/{prefix}/{ANY}" if prefix else f"{there}/{ANY}"


def to_json(policy: dict[str, Any]) -> str:
    """Return a policy as the files beside this module hold it."""
    return json.dumps(policy, indent=2) + "\n"


def _arn(resource: str) -> str:
    return f"arn:aws:s3:::{resource}"
