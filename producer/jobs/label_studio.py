"""Reads what Label Studio writes of image classification: exports as JSON and JSON_MIN, and events of its webhooks.

The formats: https://labelstud.io/guide/export and https://labelstud.io/guide/webhook_reference. Nothing in them is
trusted: an annotation that is not what it should be is told by a reason in its place. It knows no job and no store.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contract.data.text import parse_json
from contract.errors import InvalidInput

MOST_BYTES = 64 * 2**20
MOST_ANNOTATIONS = 200_000
_MOST_NAME = 200
_HALVES = re.compile("[\ud800-\udfff]")
_DATA = ("image", "key", "uri")
"""The fields of a task that `imagemill results --format labelstudio` writes."""
_GIVEN = frozenset({"ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED"})
_DELETED = frozenset({"ANNOTATION_DELETED", "ANNOTATIONS_DELETED"})


@dataclass(frozen=True)
class Annotation:
    """What one person said of one task, in its newest version."""

    id: str
    key: str = ""
    """Name of the image, as the task has it; empty if it has none."""
    uri: str = ""
    """Its address, empty if the task has none."""
    by: str = ""
    at: float = 0.0
    """Seconds since the epoch."""
    label: str = ""
    """Empty if there is none, for which `why` is the reason."""
    why: str = ""


@dataclass(frozen=True)
class Event:
    """What a webhook tells: annotations that were made or changed, or the ids of some that were deleted."""

    given: tuple[Annotation, ...] = ()
    deleted: tuple[str, ...] = ()


def read_file(file: Path) -> bytes:
    """Return an export; raises InvalidInput if there is none, or it is too large."""
    if not file.is_file():
        raise InvalidInput(f"There is no file {str(file)!r} here; name an export of Label Studio.")
    _check_size(file.stat().st_size)
    return file.read_bytes()


def parse_export(data: bytes | str) -> list[Annotation]:
    """Return the annotations of an export, JSON or JSON_MIN; raises InvalidInput for what is none."""
    return annotations_of(tasks_of(data))


def tasks_of(data: bytes | str) -> list[dict[str, Any]]:
    """Return the tasks of an export; raises InvalidInput for what is none."""
    _check_size(len(data))
    try:
        tasks = parse_json(data)
    except ValueError as error:
        raise InvalidInput(f"This is no JSON ({error}); export the project as JSON or JSON-MIN.") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise InvalidInput("This is no export of Label Studio, which is a list of tasks; export JSON or JSON-MIN.")
    return tasks


def annotations_of(tasks: Sequence[Mapping[str, Any]]) -> list[Annotation]:
    """Return the annotations of the tasks of an export; raises InvalidInput for too many."""
    found: list[Annotation] = []
    for task in tasks:
        found.extend(_full(task) if "data" in task or "annotations" in task else _minimal(task))
        if len(found) > MOST_ANNOTATIONS:
            raise InvalidInput(f"The export has more than {MOST_ANNOTATIONS:,} annotations; export parts of it.")
    return found


def parse_event(event: Mapping[str, Any]) -> Event:
    """Return what a webhook tells; nothing for events of other things. Raises InvalidInput for what is no event."""
    action = event.get("action")
    if not isinstance(action, str):
        raise InvalidInput("This is no event of a Label Studio webhook, which names its `action`.")
    made = [one for one in (*_many(event.get("annotation")), *_many(event.get("annotations"))) if isinstance(one, dict)]
    if action in _DELETED:
        return Event(deleted=tuple(_text(one.get("id")) for one in made if _text(one.get("id"))))
    if action not in _GIVEN:
        return Event()
    tasks = [task for task in (*_many(event.get("task")), *_many(event.get("tasks"))) if isinstance(task, dict)]
    if not made or not tasks:
        raise InvalidInput(f"The event {action} has no annotation or no task; let the webhook send its payload.")
    by_id = {_text(task.get("id")): task for task in tasks}
    only = tasks[0] if len(tasks) == 1 else {}
    return Event(given=tuple(_annotation(by_id.get(_text(one.get("task")), only), one) for one in made))


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise InvalidInput(f"The export has {size:,} bytes, more than the {MOST_BYTES:,} allowed; export parts of it.")


def _full(task: Mapping[str, Any]) -> Iterator[Annotation]:
    """Yield the annotations of a task of the format JSON."""
    for one in _many(task.get("annotations")):
        if isinstance(one, dict):
            yield _annotation(task, one)


def _annotation(task: Mapping[str, Any], one: Mapping[str, Any]) -> Annotation:
    label, why = _choice(one.get("result"))
    return _made(
        task.get("data"),
        id=one.get("id"),
        by=one.get("completed_by"),
        at=one.get("updated_at") or one.get("created_at"),
        label=label,
        why=why,
        cancelled=one.get("was_cancelled") is True,
    )


def _minimal(line: Mapping[str, Any]) -> Iterator[Annotation]:
    """Yield the annotation of a line of the format JSON_MIN, unless its task has none.

    A single choice is a text, in the field with the name of its `Choices`. Fields of the task's data stand beside it,
    so only the name that our tasks give it tells it from them.
    """
    if line.get("annotation_id") is None and line.get("annotator") is None:
        return
    label = line.get("label")
    label = label if isinstance(label, str) and label.strip() else ""
    yield _made(
        line,
        id=line.get("annotation_id"),
        by=line.get("annotator"),
        at=line.get("updated_at") or line.get("created_at"),
        label=label,
        why="" if label else "it has no single choice in the field `label`",
    )


def _made(
    data: object, *, id: object, by: object, at: object, label: str, why: str, cancelled: bool = False
) -> Annotation:
    where = data if isinstance(data, dict) else {}
    image, key, uri = (_written(where.get(name)) for name in _DATA)
    time, who, number = _time(at), _who(by), _text(id)
    if cancelled:
        label, why = "", "it was skipped"
    elif not number or not who or time is None:
        label, why = "", "it does not say which it is, whose it is, or when it was made"
    return Annotation(number, key, uri or image, who, time or 0.0, label, why)


def _choice(result: object) -> tuple[str, str]:
    """Return the one label that an annotation gives the image, or why there is none."""
    results = [one for one in _many(result) if isinstance(one, dict) and one.get("type") == "choices"]
    if not results:
        return "", "it has no choice"
    values = [one.get("value") for one in results]
    chosen = [name for value in values if isinstance(value, dict) for name in _many(value.get("choices"))]
    if len(chosen) != 1 or not isinstance(chosen[0], str) or not chosen[0].strip():
        return "", "it has several choices, or none"
    return chosen[0], ""


def _who(person: object) -> str:
    """Return the name of a person: the account number, which is all that webhooks carry, or else the e-mail address."""
    if isinstance(person, dict):
        person = person.get("id") or person.get("email")
    name = _text(person)
    return f"label-studio:{name}" if name and len(name) <= _MOST_NAME else ""


def _time(text: object) -> float | None:
    """Return seconds since the epoch; a time without a zone is UTC. None for what is no time."""
    if not isinstance(text, str) or len(text) > 40:
        return None
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _text(value: object) -> str:
    """Return an id as text; empty for what cannot be one."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return _written(text) if len(text) <= _MOST_NAME else ""


def _written(value: object) -> str:
    """Return text; empty for anything else, such as half of a surrogate pair, which no encoding writes."""
    return value if isinstance(value, str) and not _HALVES.search(value) else ""


def _many(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
