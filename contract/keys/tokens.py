"""Object keys of the tokens of the HTTP API."""

from __future__ import annotations

import re

from contract.keys.bucket import TOKENS

_TOKEN = re.compile(r"^tokens/([0-9a-f]{12})\.json$")


def token_record(id: str) -> str:
    """A token of the HTTP API: its hash, owner, scopes and rate; never the token itself."""
    return f"{TOKENS}{id}.json"


def parse_token(key: str) -> str | None:
    """The id of the token whose record this is, or None."""
    match = _TOKEN.match(key)
    return match[1] if match else None
