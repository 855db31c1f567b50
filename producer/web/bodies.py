"""The bodies of requests that make jobs, schedules and watches, made from the option models of the commands.

A body has the fields of its command's options and a field `command` that says which. Only what a client may name as a
source is narrower than on the command line (`producer.web.sources`).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from functools import reduce
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_origin

from pydantic import BaseModel, Field, StringConstraints, create_model

from contract.jobs.options import COMMANDS, SCHEDULABLE, JobOptions, Options, WatchOptions, parse_options
from contract.jobs.specs import JobId
from contract.records import Priority, Record
from producer.web.owned import Owned
from producer.web.sources import ADDRESS, IMAGES, LABELLED, LONGEST, checked

_Text: TypeAlias = Annotated[str, StringConstraints(max_length=LONGEST)]
_SOURCES = {
    "source": "`s3://bucket/prefix`, a manifest or tar there, `upload:ID`, and where labels are needed `job:ID`, "
    "`review:ID`, `watch:NAME` or `dataset:NAME`.",
    "reconstruct": "Labelled images, to be encoded and decoded again.",
    "away_from": "Labelled images that no accepted image may copy.",
}


_MOST_SOURCES = 16
_COMMAND = Field(alias="command", description="The command.")
_PREFIX: TypeAlias = Annotated[str, StringConstraints(pattern=ADDRESS, max_length=LONGEST)]


def _body(name: str, model: type[JobOptions], **more: Any) -> type[JobOptions]:
    fields: dict[str, Any] = {}
    for field, description in _SOURCES.items():
        if field in model.model_fields:
            pattern = IMAGES if model.command == "classify" else LABELLED
            kind: Any = Annotated[str, StringConstraints(pattern=pattern, max_length=LONGEST)]
            needed = model.model_fields[field].is_required()
            if _takes_several(model, field):
                several: Any = Annotated[list[kind], Field(min_length=1, max_length=_MOST_SOURCES)]
                kind = several | kind
            fields[field] = (kind if needed else kind | None, Field(... if needed else None, description=description))
    if "interpolate" in model.model_fields:
        end = Annotated[str, StringConstraints(pattern=ADDRESS, max_length=LONGEST)]
        fields["interpolate"] = (tuple[end, end] | None, Field(None, description="Two images of one class."))
    made: type[JobOptions] = create_model(name, __base__=model, __doc__=None, **{**fields, **more})
    return made


def _takes_several(model: type[JobOptions], field: str) -> bool:
    return get_origin(model.model_fields[field].annotation) is tuple


def _commands(suffix: str, names: Iterable[str], **more: Any) -> dict[str, type[JobOptions]]:
    """Return the bodies of these commands."""
    made = ((name, f"{name.capitalize()}{suffix}", COMMANDS[name]) for name in names)
    return {name: _body(title, model, of=(Literal[name], _COMMAND), **more) for name, title, model in made}


def _union(bodies: Mapping[str, type[JobOptions]]) -> Any:
    """Return the union of bodies, told apart by their field `command`."""
    return Annotated[reduce(operator.or_, bodies.values()), Field(discriminator="of")]


_JOB = (JobId | None, Field(None, description="Name of the job: the same request again is the same job."))

JOB_BODIES = _commands("Job", COMMANDS, job=_JOB)
"""The body that submits the job of each command."""

if TYPE_CHECKING:
    JobBody: TypeAlias = JobOptions
    Command: TypeAlias = JobOptions
    WatchBody: TypeAlias = WatchOptions
else:
    JobBody = _union(JOB_BODIES)
    Command = _union(_commands("Command", SCHEDULABLE))
    WatchBody = _body(
        "Watch",
        WatchOptions,
        source=(_PREFIX, Field(description="The `s3://` prefix that it follows.")),
    )


class ScheduleBody(Record):
    """A schedule and the command whose job it submits."""

    name: _Text = Field(description="Name of the schedule, up to 32 characters.")
    job: Command = Field(description="The command and its options.")
    cron: _Text = Field(description="Cron line: minute, hour, day of month, month, day of week.")
    timezone: _Text = Field("UTC", description="Time zone of the cron line, as Europe/Paris.")
    missed: Literal["run", "skip"] = Field("run", description="After an outage: run missed ticks once, or skip them.")


class ShareBody(Record):
    """Which part of the slots a job gets from now on; what is left out stays."""

    priority: Priority | None = None
    weight: float | None = Field(None, ge=0.01, le=100)
    max_slots: int | None = Field(None, ge=0, le=2**31)


def values_of(body: BaseModel) -> dict[str, Any]:
    """Return the options that a client gave."""
    return body.model_dump(exclude_unset=True, exclude={"of", "job"})


def options_of(model: type[Options], body: BaseModel, owned: Owned) -> Options:
    """Return the options of a command, every source checked; raises InvalidSource, InvalidInput and Unknown…."""
    return parse_options(model, checked(values_of(body), owned))
