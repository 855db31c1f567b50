"""Object keys of what clients of the HTTP API upload."""

from __future__ import annotations

import hashlib

from contract.keys.bucket import INDEX, UPLOADS

UPLOADS_BEGUN = f"{INDEX}uploads/begun/"
UPLOADS_CLAIMED = f"{INDEX}uploads/claimed/"


def uploads_of(owner: str) -> str:
    """Prefix of the uploads of one owner, who is named by a digest: an owner's name may hold anything."""
    return f"{UPLOADS}{hashlib.sha256(owner.encode()).hexdigest()[:16]}/"


def upload_prefix(owner: str, id: str) -> str:
    """Prefix of the files of one upload."""
    return f"{uploads_of(owner)}{id}/"


def upload_begun(place: str) -> str:
    """An empty object: addresses for files of an upload were handed out, and nobody has used it yet."""
    return f"{UPLOADS_BEGUN}{place}"


def upload_claim(place: str) -> str:
    """`used`, or `deleting` and by whom: what is to become of an upload; written if absent, so one of them wins."""
    return f"{UPLOADS_CLAIMED}{place}"
