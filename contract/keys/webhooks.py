"""Object keys of webhooks and of the messages to them."""

from __future__ import annotations

import re

from contract.keys.bucket import WEBHOOKS
from contract.keys.names import LATEST

WEBHOOK_OF_ALL = f"{WEBHOOKS}all"
"""The id of the webhook that is told of all jobs, `IMAGEMILL_WEBHOOK_URL`; absent without one."""
WEBHOOK_RECORDS = f"{WEBHOOKS}endpoints/"
WEBHOOK_NOTES = f"{WEBHOOKS}due/"
"""Empty objects: an end of a job or a tick of a schedule that webhooks are not told of yet."""
WEBHOOK_MESSAGES = f"{WEBHOOKS}messages/"
WAITING_MESSAGES = f"{WEBHOOKS}waiting/"
WEBHOOK_OUTCOMES = f"{WEBHOOKS}outcomes/"

_WEBHOOK = re.compile(r"^webhooks/endpoints/(wh_[0-9a-f]{20})\.json$")
_WEBHOOK_MESSAGE = re.compile(r"^webhooks/[a-z]+/(wh_[0-9a-f]{20})/(\d{13}-[0-9a-f]{24})\.json$")
_WEBHOOK_NOTE = re.compile(r"^webhooks/due/(job|tick)/([a-z0-9-]{1,63})/([a-z0-9-]+)$")


def webhook_record(id: str) -> str:
    """A webhook: its URL and its owner; never changed."""
    return f"{WEBHOOK_RECORDS}{id}.json"


def parse_webhook(key: str) -> str | None:
    """The webhook whose record this is, or None."""
    match = _WEBHOOK.match(key)
    return match[1] if match else None


def webhook_secret(id: str) -> str:
    """The secrets that messages to a webhook are signed with: the current one, and earlier ones for a while."""
    return f"{WEBHOOKS}secrets/{id}.json"


def webhook_disabled(id: str) -> str:
    """Says that a webhook answered 410 and is told nothing until `imagemill webhooks enable`."""
    return f"{WEBHOOKS}disabled/{id}.json"


def webhook_end_note(id: str, run: int) -> str:
    """An empty object: a run of a job has ended, and webhooks are to be told."""
    return f"{WEBHOOK_NOTES}job/{id}/{run:04d}"


def webhook_tick_note(name: str, stamp: str) -> str:
    """An empty object: a tick of a schedule was decided, and webhooks are to be told."""
    return f"{WEBHOOK_NOTES}tick/{name}/{stamp}"


def parse_webhook_note(key: str) -> tuple[str, str, str] | None:
    """What a note is about, `job` or `tick`, with the job and its run, or the schedule and the stamp; or None."""
    match = _WEBHOOK_NOTE.match(key)
    return (match[1], match[2], match[3]) if match else None


def webhook_message(endpoint: str, message: str) -> str:
    """A message to a webhook, with its body; written if absent, never changed. Names sort newest first."""
    return f"{WEBHOOK_MESSAGES}{endpoint}/{message}.json"


def webhook_waiting(endpoint: str, message: str) -> str:
    """A message that is not delivered: the attempts so far, and when the next one is due."""
    return f"{WAITING_MESSAGES}{endpoint}/{message}.json"


def webhook_outcome(endpoint: str, message: str) -> str:
    """What became of a message: delivered, or given up."""
    return f"{WEBHOOK_OUTCOMES}{endpoint}/{message}.json"


def parse_webhook_message(key: str) -> tuple[str, str] | None:
    """The webhook and the name of the message that an object is about, or None."""
    match = _WEBHOOK_MESSAGE.match(key)
    return (match[1], match[2]) if match else None


def message_name(at_ms: int, digest: str) -> str:
    """The name of a message about what happened so many milliseconds after the epoch."""
    return f"{LATEST - at_ms:013d}-{digest[:24]}"


def message_ms(name: str) -> int:
    """Return when the event of a message happened, in milliseconds since the epoch."""
    return LATEST - int(name[:13])


def message_after(at_ms: int) -> str:
    """A name that sorts before those of the messages about what happened before that time, and behind all others."""
    return f"{LATEST - at_ms:013d}-~"
