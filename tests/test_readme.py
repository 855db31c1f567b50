"""The README says what the code does: each table is held to its source, in both directions."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest
from pydantic import SecretStr

from contract import errors, keys
from contract.data import label_rows
from contract.jobs.status import State, Status
from contract.settings import Settings
from deploy.demo import MODEL
from producer import cli as producer_cli
from producer.client import Client
from producer.jobs.schedules import Run, Scheduled
from worker import cli as worker_cli
from worker.execution.runner import EXIT_DEVICE
from worker.process import EXIT_STALLED, EXIT_UNFIT

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
ROOMS = ("contract", "producer", "worker", "deploy")
PROGRAMS: dict[str, click.Command] = {"imagemill": producer_cli.cli, "imagemill-worker": worker_cli.cli}

Row = list[str]
Options = dict[tuple[str, ...], object]
"""The spellings of each option of a command, with its default, None where it has none."""


# Reading the page


def section(heading: str) -> str:
    """The text under a heading, down to the next of its own rank or above."""
    mark = heading.split()[0]
    _, found, rest = f"\n{README}".partition(f"\n{heading}\n")
    assert found, f"the README has no {heading!r}"
    return re.split(rf"^#{{1,{len(mark)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def tables(text: str) -> list[list[Row]]:
    """The rows of each table, without headings; a cell that is one code span without its backticks."""
    found: list[list[Row]] = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in block.splitlines()]
        found.append([[re.sub(r"^`([^`]*)`$", r"\1", cell) for cell in line] for line in lines[2:]])
    return found


def first_column(heading: str) -> list[str]:
    return [row[0] for row in tables(section(heading))[0]]


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def same(documented: list[str], actual: list[str]) -> None:
    """Everything once, and nothing else; what differs is in the message."""
    assert sorted(documented) == sorted(actual)


# Reading the commands


def leaves(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its full name."""
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for part in command.list_commands(context):
            child = command.get_command(context, part)
            assert child is not None
            yield from leaves(f"{name} {part}", child)
    else:
        yield name, command


COMMANDS = {name: command for program in PROGRAMS.items() for name, command in leaves(*program)}


def context(name: str) -> click.Context:
    """A command as its program calls it: how `--help` is spelled is the program's own setting."""
    program = PROGRAMS[name.split()[0]]
    names = program.context_settings.get("help_option_names")
    return click.Context(COMMANDS[name], click.Context(program, help_option_names=names), info_name=name)


def usage(name: str) -> str:
    """A command and its arguments, as its help says them."""
    pieces = COMMANDS[name].collect_usage_pieces(context(name))
    return " ".join([name, *(piece for piece in pieces if piece != "[OPTIONS]")])


def options(name: str, *, help: bool = False) -> Options:
    """The options of a command, `--help` among them when asked for."""
    found: Options = {}
    for param in COMMANDS[name].get_params(context(name)):
        if isinstance(param, click.Option) and (help or "--help" not in param.opts):
            told = isinstance(param.default, str | int | float) and not param.is_flag
            found[tuple(sorted(param.opts))] = param.default if told else None
    return found


def spellings(cell: str) -> tuple[str, ...]:
    """The options in a cell: `-o`, `--output`."""
    return tuple(sorted(cell.replace("`", "").split(", ")))


def shared() -> set[tuple[str, ...]]:
    """What the README says that every `imagemill` command takes."""
    return {spellings(row[0]) for row in tables(section("## Commands"))[0]}


# Tests


def test_it_opens_with_purpose_commands_picture_and_session() -> None:
    marks = ["# Imagemill\n", "make demo", "make test", "```text\n", "## A session", "## Commands", "## Settings"]
    places = [README.find(mark) for mark in marks]
    assert places[0] == 0
    assert -1 not in places and places == sorted(places)
    assert len(README.splitlines()[2]) <= 110, "the purpose is one line"


def test_the_picture_is_drawn_straight() -> None:
    """Upright lines stand under each other, whatever was edited last."""
    for above, below in itertools.pairwise(blocks("text")[0].splitlines()):
        for column, sign in enumerate(above):
            under = below[column] if column < len(below) else " "
            assert sign not in "┌┐┬" or under in "│└┘▼", f"column {column} under {above!r}"


def test_every_command_is_listed() -> None:
    same([row[0] for row in tables(section("## Commands"))[1]], [usage(name) for name in COMMANDS])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_listed_with_its_default(name: str) -> None:
    actual = options(name)
    if name.startswith("imagemill "):
        assert shared() <= set(options(name, help=True))
        actual = {opts: default for opts, default in actual.items() if opts not in shared()}
    documented = {spellings(opts): default for of, opts, default, _ in tables(section("## Commands"))[2] if of == name}
    assert documented == {opts: "" if value is None else str(value) for opts, value in actual.items()}


def test_no_option_is_listed_of_a_command_that_does_not_exist() -> None:
    assert {row[0] for row in tables(section("## Commands"))[2]} <= set(COMMANDS)


@pytest.mark.parametrize("name", ["imagemill results", "imagemill export"])
def test_every_format_is_listed(name: str) -> None:
    (param,) = (p for p in COMMANDS[name].params if "--format" in p.opts)
    assert isinstance(param.type, click.Choice)
    (meaning,) = (row[3] for row in tables(section("## Commands"))[2] if row[:2] == [name, "--format"])
    same(re.findall(r"`(\w+)`", meaning), list(param.type.choices))


def test_every_setting_is_listed_with_its_default() -> None:
    documented = {variable: default for variable, default, _ in tables(section("## Settings"))[0]}
    actual = {}
    for name, field in Settings.model_fields.items():
        value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        actual[f"IMAGEMILL_{name.upper()}"] = f"{value:.12g}" if isinstance(value, float) else str(value)
    assert documented == actual


def test_every_variable_that_is_mentioned_exists() -> None:
    same(
        sorted(set(re.findall(r"IMAGEMILL_[A-Z0-9_]+", README))),
        [f"IMAGEMILL_{name.upper()}" for name in Settings.model_fields],
    )


def test_every_error_code_is_listed() -> None:
    same(first_column("### Error codes"), list(errors.IMAGE_ERRORS))


def test_every_job_state_is_listed() -> None:
    same(first_column("### Job states"), list(get_args(State)))


def test_every_field_of_a_status_is_listed() -> None:
    same(first_column("### `show --json`"), list(Status.model_fields))


def test_every_field_of_a_schedule_and_of_its_ticks_is_listed() -> None:
    _, schedule, run = tables(section("### Schedules"))
    same([row[0] for row in schedule], list(Scheduled.model_fields))
    same([row[0] for row in run], list(Run.model_fields))


def test_every_column_of_a_row_is_listed() -> None:
    same(first_column("### The columns of a row"), label_rows.schema(embedding=True).names)


def test_every_exit_code_is_listed() -> None:
    raised = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.ImagemillError)
    }
    codes = {0, producer_cli.EXIT_FAILED, producer_cli.EXIT_INTERRUPTED, EXIT_STALLED, EXIT_DEVICE, EXIT_UNFIT} | raised
    same(first_column("### Exit codes"), [str(code) for code in codes])


def test_every_object_key_is_listed() -> None:
    job = keys.JobKeys("<id>")
    of_model = [
        *(keys.model_file("<name>", 1, f"weights.{suffix}") for suffix in ("safetensors", "pt2")),
        *(of("<name>", 1) for of in (keys.model_record, keys.model_claim, keys.model_draft, keys.model_verdict)),
    ]
    actual = {
        *(job.spec, job.tar(42), job.tar_manifest(42), job.source(".jsonl"), job.manifest(42), job.plan),
        *(job.commit(42), job.commit(42, 1)),
        *(job.portions, job.candidates(42), job.reference),
        *(job.checkpoint(42000), job.history, job.picture(1)),
        *(job.retry(1), job.end, job.success, job.active),
        *(key.replace("/1/", "/<version>/") for key in of_model),
        keys.model_alias("<name>", "<alias>"),
        *(keys.schedule_record("<name>"), keys.schedule_tick("<name>", "<tick>")),
        keys.probe("<name>"),
    }
    output = f"{job.root}out/"
    same([key for key in first_column("## In the bucket") if not key.startswith(output)], list(actual))
    assert f"{output}{keys.shard_stem(42)}.parquet" in first_column("## In the bucket")


def test_every_queue_is_named() -> None:
    named = {queue for queues in re.findall(r"--queues ([\w,]+)", README) for queue in queues.split(",")}
    assert named == set(keys.QUEUES)


def test_the_file_tree_lists_every_python_file_and_no_other() -> None:
    actual = [path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    same([path for path in tree() if path.endswith(".py")], actual)
    for path in tree():
        assert (ROOT / path).exists(), path


def tree() -> Iterator[str]:
    """The files of the tree, and the folders that it does not open."""
    (block,) = re.findall(r"```text\n(.*?)```", section("## Files"), re.DOTALL)
    folders: list[str] = []
    for line in block.splitlines():
        name, _, meaning = line.strip().partition(" ")
        depth = (len(line) - len(line.lstrip())) // 2
        del folders[depth:]
        if name.endswith("/"):
            folders.append(name)
        else:
            assert meaning.strip(), f"{name} has no line of its own"
        yield "".join(folders) + ("" if name.endswith("/") else name)


@pytest.mark.parametrize("example", blocks("python"))
def test_the_python_example_uses_what_exists(example: str) -> None:
    """Imports resolve, methods exist and take these arguments, fields are fields."""
    types: dict[str, type] = {"client": Client, "job": Status, "status": Status, "nightly": Scheduled}
    columns = set(label_rows.schema().names)
    for node in ast.walk(ast.parse(example)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = types[node.value.id]
            known = set(dir(owner)) | set(getattr(owner, "model_fields", ()))
            assert node.attr in known, ast.unparse(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            method = getattr(Client, node.func.attr)
            inspect.signature(method).bind(None, *node.args, **{str(k.arg): k.value for k in node.keywords})
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            assert node.slice.value in columns, ast.unparse(node)


def test_the_python_example_is_there() -> None:
    assert "client.classify(" in "".join(blocks("python"))


def shell_lines() -> list[list[str]]:
    """Every `imagemill` command line of the page: in sessions, and in code spans with an option.

    What stands behind `--` is a command line of its own.
    """
    sessions = "".join(blocks("console")).replace("\\\n>", "")
    lines = re.findall(r"^\$ (imagemill.*)$", sessions, re.MULTILINE)
    lines += re.findall(r"`(imagemill[^`|]* --?[^`|]*)`", README)
    return [shlex.split(part) for line in lines for part in line.replace(" -- ", "\nimagemill ").splitlines()]


def test_command_lines_of_the_page_use_what_exists() -> None:
    assert len(shell_lines()) >= 10
    for words in shell_lines():
        name = max((name for name in COMMANDS if words[: len(name.split())] == name.split()), key=len, default="")
        assert name, words
        known = {opt for opts in options(name, help=True) for opt in opts}
        assert {word for word in words if word.startswith("-")} <= known, words


def test_the_model_of_the_session_is_the_built_in_one() -> None:
    assert f"--model {MODEL}" in README


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    mentioned = re.findall(r"(?:`|^)make (?:PYTHON=\S+ )?([a-z]+)", README, re.MULTILINE)
    assert mentioned and set(mentioned) <= targets


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    for link in links:
        assert "://" in link or (ROOT / link).exists(), link
