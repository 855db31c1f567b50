"""Where a job may write its results: anywhere but where the own bucket holds jobs, models and schedules."""

from __future__ import annotations

import re
from urllib.parse import unquote

from contract.data.items import parse_s3
from contract.errors import InvalidInput
from contract.keys.bucket import RESERVED
from contract.keys.jobs import JobKeys


def check_output(to: str, bucket: str, *, id: str | None = None) -> None:
    """Raise InvalidInput unless a job may write below `to`; `bucket` is the own one.

    With `id`, `to` is the output of that job, which may be in its own folder.
    """
    there, prefix = parse_s3(to)
    if id is not None and there == bucket and prefix == f"{JobKeys(id).root}out/":
        return
    # Some stores and proxies fold these spellings, so two keys could meet.
    plain = unquote(prefix)
    parts = plain.strip("/").split("/") if plain.strip("/") else []
    if plain != prefix or "\\" in plain or prefix.startswith("/") or re.search(r"//|[\x00-\x1f\x7f]", plain):
        odd = True
    else:
        odd = any(part in (".", "..") for part in parts)
    if odd:
        raise InvalidInput(f"{to!r} is oddly spelled; write results to s3://bucket/prefix/, without //, ./ or %.")
    first = parts[0].lower() if parts else ""
    if there == bucket and f"{first}/" in RESERVED:
        raise InvalidInput(
            f"{to} is reserved: s3://{bucket}/{first}/ holds what Imagemill itself needs; choose another prefix."
        )
