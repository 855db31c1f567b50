"""Builds the commands that make a job from their option models: click's options, and the call of the client.

It adds what the command line has and the models have not: `--job`, `--detach`, `--json` and the stack's folder.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import click
from pydantic.fields import FieldInfo

from contract.jobs.options import Cli, JobOptions, cli_of, parse_options, spelling
from producer.cli.common import json_option, stack_option
from producer.cli.follow import run_job


def job_command(model: type[JobOptions], help: str) -> click.Command:
    """Return the command of an option model; it submits a job, and follows it to its end unless detached."""

    @click.pass_context
    def submit(ctx: click.Context, /, job: str | None, detach: bool, as_json: bool, **_: Any) -> None:
        from producer.client import Client
        from producer.jobs.submission import new_job_id

        client, id = Client(), job or new_job_id(model.command)
        options = parse_options(model, given(ctx, model))
        run_job(
            client,
            id,
            lambda progress: client.submit(options, job=id, progress=progress),
            detach=detach,
            as_json=as_json,
        )

    command = click.command(model.command, help=help)(submit)
    takes_data = any(spelling(model, name) == "--data" for name in model.model_fields)
    job_options = [
        click.option("--job", metavar="ID", help="Name the job; the same command again is the same job."),
        click.option("--detach", is_flag=True, help="Return when the job is queued."),
        stack_option("--stack" if takes_data else "--data"),
        json_option,
    ]
    for option in job_options:
        command = option(command)
    command.params = [*parameters(model), *command.params]
    return command


def given(ctx: click.Context, model: type[JobOptions]) -> dict[str, Any]:
    """Return the options that the user typed; the others keep the defaults of their fields."""
    default = click.core.ParameterSource.DEFAULT
    return {name: ctx.params[name] for name in model.model_fields if ctx.get_parameter_source(name) is not default}


def parameters(model: type[JobOptions]) -> list[click.Parameter]:
    """Arguments first, then required options, then the command's own, then those it shares with others."""
    depth = {name: n for n, cls in enumerate(reversed(model.__mro__)) for name in inspect.get_annotations(cls)}

    def rank(name: str) -> tuple[bool, int]:
        return not model.model_fields[name].is_required(), -depth[name]

    return [_parameter(model, name) for name in sorted(model.model_fields, key=rank)]


def _parameter(model: type[JobOptions], name: str) -> click.Parameter:
    field = model.model_fields[name]
    cli, flag = cli_of(field), spelling(model, name)
    if cli.argument:
        return click.Argument([name], metavar=cli.metavar or None)
    help = cli.help or field.description
    if field.annotation is bool:
        return click.Option([flag, name], is_flag=True, help=help)
    kind, count = _type(field, cli)
    default = None if field.is_required() or field.default == () else field.default
    if cli.env:
        help, default = f"{help}  [env: {cli.env}; default: {default}]", None
    # To newer versions of click, a default of None is a value, which a required option must not have.
    shown: dict[str, Any] = {} if default is None else {"default": f"{default}{cli.suffix}" if cli.suffix else default}
    return click.Option(
        [flag, name],
        type=kind,
        nargs=count or 1,
        multiple=count == 0,
        required=field.is_required(),
        show_default=True,
        metavar=cli.metavar or None,
        callback=_lines if cli.lines_of_file else partial(_number, cli.suffix) if cli.suffix else None,
        help=help,
        **shown,
    )


def _type(field: FieldInfo, cli: Cli) -> tuple[click.ParamType[Any], int]:
    """Return click's type, and how many values an option takes; 0: any number, each with the option before it."""
    if cli.lines_of_file:
        return click.Path(exists=True, dir_okay=False, path_type=Path), 1
    if cli.suffix:
        return click.STRING, 1
    kinds = [kind for kind in _members(field.annotation) if kind is not types.NoneType]
    first = kinds[0]
    if get_origin(first) is tuple:
        parts = get_args(first)
        return click.STRING, 0 if parts[-1] is Ellipsis else len(parts)
    if get_origin(first) is Literal:
        return click.Choice(get_args(first)), 1
    if first is int and len(kinds) > 1:
        return NumberOrWord([word for kind in kinds[1:] for word in get_args(kind)], cli.most), 1
    if first is int:
        low, high = _bound(field, "ge"), _bound(field, "le")
        return (click.INT if (low, high) == (None, None) else click.IntRange(low, high)), 1
    if first is float:
        above = _bound(field, "gt")
        low = _bound(field, "ge") if above is None else above
        return click.FloatRange(low, _bound(field, "le"), min_open=above is not None), 1
    return click.STRING, 1


class NumberOrWord(click.ParamType[Any]):
    """A whole number, or one of a few words: `--seed 7`, `--seed tick`."""

    name = "integer"

    def __init__(self, words: Sequence[str], most: int | None) -> None:
        self._words, self._numbers = words, click.IntRange(0, most)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "|".join(("INTEGER", *self._words))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number or the word; fails for anything else."""
        if isinstance(value, int) or value in self._words:
            return value
        if not value.removeprefix("-").isdecimal():
            self.fail(f"{value!r} is neither a whole number nor {' or '.join(self._words)}", param, ctx)
        return self._numbers.convert(value, param, ctx)


def _members(annotation: Any) -> Sequence[Any]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _bound(field: FieldInfo, name: str) -> Any:
    marks = (annotated_types.Ge, annotated_types.Gt, annotated_types.Le)
    found = (getattr(mark, name, None) for mark in field.metadata if isinstance(mark, marks))
    return next((bound for bound in found if bound is not None), None)


def _lines(_: click.Context, __: click.Parameter, path: Path | None) -> list[str]:
    """Return the lines of a text file, without blank ones."""
    lines = path.read_text("utf-8").splitlines() if path else []
    return [line.strip() for line in lines if line.strip()]


def _number(suffix: str, _: click.Context, __: click.Parameter, value: str) -> int:
    """Return a whole number, written with or without its suffix: `20x` or `20`."""
    number = value.removesuffix(suffix)
    if not number.isdecimal() or int(number) < 1:
        raise click.BadParameter(f"{value!r} is no multiple such as 20{suffix}")
    return int(number)
