"""What a message on a queue of ours may look like, checked before anything acts on it.

Whoever can write to Redis can put any bytes into a queue. kombu and Celery trust what they find: bytes that are no
JSON, a missing header or an unfit priority end the process that reads them. So the transport asks here first.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from contract.keys.queues import QUEUES, TASK_CHECK, TASK_FINALIZE, TASK_FINISH, TASK_PLAN, TASK_RUN, TASK_TICK

MESSAGE_BYTES = 64 * 1024
"""The largest message; ours have about 1 kB."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")  # of a job, `contract.jobs.specs.JOB_ID`, and of a model
_ENVELOPE = frozenset({"body", "content-encoding", "content-type", "headers", "properties"})
_TEXT_AT_MOST = 4096


class MalformedMessageError(Exception):
    """A message that no Imagemill has sent; `kind` is a stable name for counting."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def _name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _number(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**31


TASKS: dict[str, tuple[tuple[Callable[[object], bool], ...], ...]] = {
    TASK_PLAN: ((_name,),),
    TASK_FINALIZE: ((_name,),),
    TASK_TICK: ((),),
    TASK_RUN: ((), (_name, _number)),  # earlier versions named a shard, which is a ticket all the same
    TASK_FINISH: ((_name,),),
    TASK_CHECK: ((_name, _number),),
}
"""The tasks, and what their arguments must be; any of several."""


def check(queue: str, raw: bytes) -> tuple[Any, ...]:
    """Return the arguments of a message as it lies in a queue; raises MalformedMessageError.

    Other queues than ours hold answers of Celery's remote control, of which only the envelope is checked.
    """
    message = _envelope(raw)
    if queue not in QUEUES:
        return ()
    if message.get("content-type") != "application/json" or message.get("content-encoding") != "utf-8":
        raise MalformedMessageError("content type")
    task = _headers(message["headers"])
    _properties(message["properties"], queue)
    return _arguments(task, message.get("body"))


_NOTHING = base64.b64encode(
    json.dumps([[], {}, dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))]).encode()
).decode()
"""The body of a task without arguments."""


def tickets(queue: str, number: int) -> Iterator[str]:
    """Yield `number` messages that each have a slot of a queue's workers ask for a shard.

    They are written as Celery (protocol 2) and kombu write them, which takes those half a millisecond and connections
    of their own; every shard that ends sends one.
    """
    headers: dict[str, Any] = {
        "lang": "py",
        "task": TASK_RUN,
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": "imagemill",
        "ignore_result": True,
        "retries": 0,
        "replaced_task_nesting": 0,
        "timelimit": [None, None],
        "stamps": {},
        **dict.fromkeys(("shadow", "eta", "expires", "group", "group_index", "parent_id", "stamped_headers")),
    }
    properties: dict[str, Any] = {
        "reply_to": "",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": 0,
        "body_encoding": "base64",
    }
    rest = {"body": _NOTHING, "content-encoding": "utf-8", "content-type": "application/json"}
    for _ in range(number):
        id = str(uuid.uuid4())
        own = {"headers": {**headers, "id": id, "root_id": id}}
        yield json.dumps({**rest, **own, "properties": {**properties, "correlation_id": id, "delivery_tag": id}})


def arguments(raw: bytes | str) -> tuple[Any, ...] | None:
    """Return the arguments of a message in a queue or among those taken by workers; None for a malformed one."""
    try:
        message = _envelope(raw.encode(errors="replace") if isinstance(raw, str) else raw)
        return _arguments(_headers(message["headers"]), message.get("body"))
    except MalformedMessageError:
        return None


def taken(raw: bytes | str) -> tuple[Any, ...] | None:
    """Return the arguments of an entry of kombu's hash of taken messages, a list that begins with the message."""
    try:
        entry = json.loads(raw)
        return arguments(json.dumps(entry[0])) if isinstance(entry, list) and entry else None
    except (ValueError, RecursionError):
        return None


def _envelope(raw: bytes) -> dict[str, Any]:
    if len(raw) > MESSAGE_BYTES:
        raise MalformedMessageError("too large")
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        raise MalformedMessageError("not JSON") from None
    if not isinstance(message, dict) or not message.keys() <= _ENVELOPE:
        raise MalformedMessageError("envelope")
    headers, properties = message.get("headers"), message.get("properties")
    if not isinstance(headers, dict):
        raise MalformedMessageError("headers")
    if not isinstance(properties, dict) or not _text(properties.get("delivery_tag")):
        raise MalformedMessageError("properties")
    return message


def _headers(headers: Mapping[str, Any]) -> str:
    """Return the task that the headers name; raises MalformedMessageError for what Celery could trip over."""
    task = headers.get("task")
    if not isinstance(task, str) or task not in TASKS:
        raise MalformedMessageError("unknown task")
    # Nothing of ours is compressed, delayed, chained or stamped.
    unwanted = ("compression", "eta", "group", "group_index", "shadow")
    unstamped = headers.get("stamps") in (None, {}) and headers.get("stamped_headers") in (None, [])
    nothing = unstamped and all(headers.get(name) is None for name in unwanted)
    plain = all(_plain(name, value) for name, value in headers.items())
    if not (nothing and plain and _text(headers.get("id")) and _number(headers.get("retries", 0))):
        raise MalformedMessageError("headers")
    if not (_untimed(headers.get("timelimit")) and _moment(headers.get("expires"))):
        raise MalformedMessageError("headers")
    return task


def _properties(properties: Mapping[str, Any], queue: str) -> None:
    info, priority = properties.get("delivery_info"), properties.get("priority")
    if not isinstance(info, dict) or properties.get("body_encoding") != "base64":
        raise MalformedMessageError("properties")
    if priority is not None and not (_number(priority) and priority < 256):
        raise MalformedMessageError("priority")
    rest = {name: value for name, value in properties.items() if name != "delivery_info"}
    if not all(_plain(name, value) for found in (rest, info) for name, value in found.items()):
        raise MalformedMessageError("properties")
    if info.get("exchange") not in ("", queue) or info.get("routing_key") != queue:
        raise MalformedMessageError("delivery")


def _arguments(task: str, body: object) -> tuple[Any, ...]:
    if not isinstance(body, str):
        raise MalformedMessageError("body")
    try:
        args, kwargs, embed = json.loads(base64.b64decode(body, validate=True))
    except (ValueError, TypeError, RecursionError, binascii.Error):
        raise MalformedMessageError("body") from None
    if not isinstance(args, list) or kwargs != {}:
        raise MalformedMessageError("arguments")
    if not isinstance(embed, dict) or any(value is not None for value in embed.values()):
        raise MalformedMessageError("body")
    if not any(_fit(wanted, args) for wanted in TASKS[task]):
        raise MalformedMessageError("arguments")
    return tuple(args)


def _fit(wanted: tuple[Callable[[object], bool], ...], args: list[object]) -> bool:
    return len(args) == len(wanted) and all(fits(value) for fits, value in zip(wanted, args, strict=True))


def _plain(name: str, value: object) -> bool:
    """Return whether a field holds text, a number or nothing; `__` begins what kombu turns into objects."""
    if name.startswith("__"):
        return False
    if isinstance(value, str):
        return len(value) <= _TEXT_AT_MOST
    if type(value) is int:
        return abs(value) < 2**63
    return value is None or isinstance(value, bool) or value in ([], {}) or _untimed(value)


def _text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 255


def _untimed(value: object) -> bool:
    return value is None or value == [None, None]


def _moment(value: object) -> bool:
    """Return whether this is a time at which Celery may drop the message, or None."""
    if value is None:
        return True
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False
