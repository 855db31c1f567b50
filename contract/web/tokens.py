"""Tokens of the HTTP API: made here, kept in the bucket as hashes, and checked against them.

A token is `imk_`, its public id and 256 random bits in hex. The bucket holds SHA-256 of the whole text, so nobody who
reads the bucket can use the API, and a salt or a slow hash would add nothing to so many random bits.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal, get_args

from pydantic import Field, ValidationError

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, ObjectNotFound, UnknownToken
from contract.keys.bucket import TOKENS
from contract.keys.tokens import parse_token, token_record
from contract.records import Record, Sha256
from contract.times import iso

Scope = Literal["infer", "jobs", "review", "admin"]
SCOPES: dict[Scope, str] = {
    "infer": "label single images at once",
    "jobs": "submit, read and steer jobs, schedules, watches, models and datasets",
    "review": "read jobs and their results, and say in the console what images show",
    "admin": "everything, of all owners, and workers",
}
"""What each scope allows; `admin` holds the others, and `jobs` holds `review`."""
_HOLDS: dict[Scope, tuple[Scope, ...]] = {"admin": ("infer", "jobs", "review"), "jobs": ("review",)}
PATTERN = r"imk_([0-9a-f]{12})_[0-9a-f]{64}"
"""What a token looks like, for scanners of leaked secrets too."""

_RATE = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)/([smh])")
_LIFE = re.compile(r"(\d{1,5})([smhd])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_OWNER = re.compile(r"[ -~]{1,128}")


class Token(Record):
    """`tokens/<id>.json`: all that is known of a token but the token."""

    id: str
    sha256: Sha256
    owner: str = Field(description="Who owns what is made with it.")
    person: str = Field("", description="Who holds it, if not the owner: reviews are kept under this name.")
    scopes: tuple[Scope, ...] = Field(min_length=1)
    rate: float = Field(0.0, ge=0, description="Requests a second; 0: any number.")
    created_at: str
    expires_at: str | None = None

    def allows(self, scope: Scope) -> bool:
        """Return whether it has a scope, or one that holds it."""
        return any(scope == one or scope in _HOLDS.get(one, ()) for one in self.scopes)

    @property
    def reviewer(self) -> str:
        """The name under which its reviews are kept."""
        return self.person or self.owner

    @property
    def sees_all(self) -> bool:
        """Whether it reaches what belongs to other owners."""
        return "admin" in self.scopes

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and datetime.fromisoformat(self.expires_at).timestamp() <= now

    def matches(self, text: str) -> bool:
        """Return whether `text` is this token, in a time that does not depend on how it differs."""
        return hmac.compare_digest(_hash(text), self.sha256)


def new_token() -> str:
    """Return a token that nobody knows yet."""
    return f"imk_{secrets.token_hex(6)}_{secrets.token_hex(32)}"


def id_of(text: str) -> str | None:
    """Return the public id in a token, or None for what is no token."""
    match = re.fullmatch(PATTERN, text, re.ASCII)
    return match[1] if match else None


def parse_rate(text: str) -> float:
    """Return requests a second of `10/s`, `100/m` or `5000/h`; raises InvalidInput."""
    match = _RATE.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise InvalidInput(f"{text!r} is no rate; write requests in a time, as 10/s, 100/m or 5000/h.")
    return float(match[1]) / _SECONDS[match[2]]


def parse_life(text: str) -> float:
    """Return the seconds of `30m`, `12h` or `90d`; raises InvalidInput."""
    match = _LIFE.fullmatch(text.strip())
    if match is None or not int(match[1]):
        raise InvalidInput(f"{text!r} is no time to live; write it as 30m, 12h or 90d.")
    return int(match[1]) * _SECONDS[match[2]]


def describe(
    text: str,
    *,
    owner: str,
    scopes: Sequence[str],
    person: str = "",
    rate: float = 0.0,
    lives: float | None = None,
    now: float | None = None,
) -> Token:
    """Return the record of a token; `lives` is for how many seconds. Raises InvalidInput for what cannot be one."""
    id, begins = id_of(text), time.time() if now is None else now
    if id is None:
        raise InvalidInput("This is no token; `imagemill tokens create` makes one.")
    if not _OWNER.fullmatch(owner):
        raise InvalidInput(f"{owner!r} can own nothing; name the owner with 1 to 128 printable ASCII characters.")
    if person and not _OWNER.fullmatch(person):
        raise InvalidInput(f"{person!r} names nobody; name the person with 1 to 128 printable ASCII characters.")
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not (wanted := tuple(scope for scope in get_args(Scope) if scope in set(scopes))):
        raise InvalidInput(f"A token needs scopes, and {', '.join(unknown) or 'none'} is none of {', '.join(SCOPES)}.")
    return Token(
        id=id,
        sha256=_hash(text),
        owner=owner,
        person=person,
        scopes=wanted,
        rate=rate,
        created_at=iso(begins) or "",
        expires_at=None if lives is None else iso(begins + lives),
    )


class Tokens:
    """The tokens of one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put(self, token: Token) -> None:
        """Let a token in, from now on."""
        self._store.put(token_record(token.id), token.to_json())

    def find(self, text: str, now: float | None = None) -> Token | None:
        """Return the record of a token; None if it is unknown, revoked, expired or damaged."""
        id = id_of(text)
        found = self._read(id) if id is not None else None
        return _unexpired(found, now) if found is not None and found.matches(text) else None

    def again(self, token: Token, now: float | None = None) -> Token | None:
        """Read the record of a token anew; return None if it was revoked or replaced, or has expired."""
        found = self._read(token.id)
        return _unexpired(found, now) if found is not None and found.sha256 == token.sha256 else None

    def all(self) -> Iterator[Token]:
        """Yield every token by its id, expired ones too."""
        for entry in self._store.list(TOKENS):
            id = parse_token(entry.key)
            if id is not None and (found := self._read(id)) is not None:
                yield found

    def revoke(self, id: str) -> None:
        """Shut a token out; raises UnknownToken. A whole token may be given too, if that is what somebody found."""
        id = id_of(id) or id
        key = token_record(id)
        if parse_token(key) is None or not self._store.exists(key):
            raise UnknownToken(f"There is no token {id!r}; `imagemill tokens list` shows them.")
        self._store.delete(key)

    def _read(self, id: str) -> Token | None:
        try:
            found = Token.model_validate_json(self._store.get(token_record(id)))
        except (ObjectNotFound, ValidationError):
            return None
        return found if found.id == id else None


def _unexpired(token: Token, now: float | None) -> Token | None:
    return None if token.expired(time.time() if now is None else now) else token


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
