"""A form for each command that makes a job, with the fields, defaults and help of its option model."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import anyio.to_thread
from fastapi import APIRouter, Path, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from starlette.responses import RedirectResponse, Response

from contract.errors import ImagemillError
from producer.jobs.submission import new_job_id
from producer.web.bodies import JOB_BODIES
from producer.web.console.rendering import page
from producer.web.fields import named
from producer.web.owned import Jobs, Owned
from producer.web.problems import Problem, of_error, of_validation
from producer.web.v1.jobs import submitted

_REFS = frozenset({"model", "gate", "features", "start"})
"""Fields that name a model."""
_MOST_FIELDS = 100

Command = Annotated[str, Path(max_length=20)]
Kind = Literal["text", "lines", "number", "choice", "flag"]


@dataclass(frozen=True)
class Input:
    """A field of a form."""

    name: str
    title: str
    help: str
    kind: Kind
    needed: bool
    choices: tuple[str, ...] = ()
    default: str = ""
    names_model: bool = False


def router() -> APIRouter:
    """Return the routes of forms."""
    routes = APIRouter(prefix="/console/new", include_in_schema=False)

    @routes.get("/{command}")
    def show_form(request: Request, owned: Jobs, command: Command) -> Response:
        return _form(request, owned, command, {}, "")

    @routes.post("/{command}")
    async def submit(request: Request, owned: Jobs, command: Command) -> Response:
        """Submit the job and show it; or show the form again with what is wrong."""
        async with request.form(max_files=0, max_fields=_MOST_FIELDS) as sent:
            given = {name: value for name, value in sent.items() if isinstance(value, str)}
        return await anyio.to_thread.run_sync(_submitted, request, owned, command, given)

    return routes


@cache
def inputs_of(command: str) -> tuple[Input, ...]:
    """Return the fields of a command's form, those it needs first; raises Problem 404 for no command."""
    if command not in JOB_BODIES:
        raise Problem(404, f"There is no such job; there are {', '.join(JOB_BODIES)}.")
    fields = JOB_BODIES[command].model_fields.items()
    found = [_input(name, field) for name, field in fields if name != "of"]
    return tuple(sorted(found, key=lambda one: not one.needed))


def values_of_form(command: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Return what a form says as a request would say it; a field that was left empty is left out."""
    values: dict[str, Any] = {"command": command}
    for one in inputs_of(command):
        text = given.get(one.name, "").strip()
        if one.kind == "flag":
            values |= {one.name: True} if text else {}
        elif text and not (one.kind == "choice" and text == one.default):
            values[one.name] = (
                [line.strip() for line in text.splitlines() if line.strip()] if one.kind == "lines" else text
            )
    return values


def _submitted(request: Request, owned: Owned, command: str, given: Mapping[str, str]) -> Response:
    values = values_of_form(command, given)
    # A form that is sent twice is one job: it brings the name that the job has unless the person gives one.
    values.setdefault("job", given.get("id", ""))
    try:
        body = JOB_BODIES[command].model_validate(values)
        status = submitted(owned, body)
    except ValidationError as error:
        errors = [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_url=False, include_input=False)]
        why = " ".join(
            f"{fault.pointer.strip('/')}: {fault.detail}."
            for fault in of_validation(RequestValidationError(errors)).faults
        )
        return _form(request, owned, command, given, why, 422)
    except Problem as problem:
        return _form(request, owned, command, given, str(problem.detail), problem.status_code)
    except ImagemillError as error:
        told = of_error(error)
        return _form(request, owned, command, given, str(told.detail), told.status_code)
    return RedirectResponse(f"/console/jobs/{status.id}", 303)


def _form(
    request: Request, owned: Owned, command: str, given: Mapping[str, str], why: str, status: int = 200
) -> Response:
    return page(
        request,
        "jobs/new.html",
        status,
        command=command,
        commands=list(JOB_BODIES),
        inputs=inputs_of(command),
        given=given,
        why=why,
        id=new_job_id(command),
        models=sorted({ref for model in owned.client.models() for ref in (model.name, model.ref)}),
    )


def _input(name: str, field: FieldInfo) -> Input:
    kinds = _members(field.annotation)
    choices = next((get_args(kind) for kind in kinds if get_origin(kind) is Literal and len(kinds) == 1), ())
    kind: Kind = "text"
    if choices:
        kind = "choice"
    elif kinds == [bool]:
        kind = "flag"
    elif any(get_origin(one) in (tuple, list, Sequence) for one in kinds):
        kind = "lines"
    elif kinds and all(one in (int, float) for one in kinds):
        kind = "number"
    given = None if field.is_required() else field.default
    default = "" if given is None or given is False or given == () else str(given)
    return Input(
        name=name,
        title=name.replace("_", " ").capitalize(),
        help=named(field.description or ""),
        kind=kind,
        needed=field.is_required(),
        choices=tuple(map(str, choices)),
        default=default,
        names_model=name in _REFS,
    )


def _members(annotation: Any) -> list[Any]:
    """Return the types that a field may have, without None and without what `Annotated` adds."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for one in get_args(annotation) for member in _members(one)]
    return [] if annotation is type(None) else [annotation]
