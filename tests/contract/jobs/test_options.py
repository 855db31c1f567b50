"""An option is written once: its model feeds the command line, the client and the specs, and they agree."""

from __future__ import annotations

import inspect
import types
from collections.abc import Sequence
from typing import Any, Required, Union, get_args, get_origin, get_type_hints

import pytest

from contract.errors import InvalidInput
from contract.jobs import options
from contract.jobs.options import COMMANDS, ClassifyOptions, JobOptions, parse_options
from contract.jobs.specs import Classify, Source
from producer import Client


def as_argument(annotation: Any) -> Any:
    """The type that a caller may pass: any sequence for a tuple."""
    if get_origin(annotation) is tuple:
        return Sequence[get_args(annotation)[0]]  # type: ignore[misc]
    if get_origin(annotation) in (Union, types.UnionType):
        return Union[tuple(as_argument(part) for part in get_args(annotation))]  # noqa: UP007
    return annotation


@pytest.mark.parametrize("command", COMMANDS)
def test_the_method_of_the_client_takes_what_the_model_has(command: str) -> None:
    model = COMMANDS[command]
    method = getattr(Client, command)
    keywords = getattr(options, model.__name__.replace("Options", "Keywords"))
    positional = set(inspect.signature(method).parameters) - {"self", "job", "progress", "options"}
    fields = model.model_fields

    assert positional | set(get_type_hints(keywords)) == set(fields)
    required = {n for n, told in get_type_hints(keywords, include_extras=True).items() if get_origin(told) is Required}
    assert required == {n for n, f in fields.items() if f.is_required()} - positional
    for name, told in get_type_hints(keywords).items():
        assert told == as_argument(fields[name].annotation), name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_help(command: str) -> None:
    for name, field in COMMANDS[command].model_fields.items():
        assert options.cli_of(field).argument or field.description, name


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_errors": "200%"}, "--max-errors: '200%' is neither a count such as 50 nor a share such as 1%."),
        ({"top_k": 0}, "--top-k 0: should be greater than or equal to 1."),
        ({"topk": 3}, "classify has no option 'topk'; did you mean 'top_k'?"),
        ({"colour": True}, "classify has no option 'colour'; `imagemill classify --help` lists the options."),
        ({"model": None}, "classify needs --model; `imagemill classify --help` lists the options."),
        ({"source": None}, "classify needs SOURCE;"),
    ],
)
def test_a_mistake_is_one_sentence_in_the_spelling_of_the_command_line(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_options(ClassifyOptions, {"source": "photos", "model": "cnn", **values})

    assert str(raised.value).startswith(said)


def test_what_is_left_out_is_not_given() -> None:
    found: JobOptions = parse_options(COMMANDS["generate"], {"model": "gan", "truncation": None, "classes": []})

    assert found.model_fields_set == {"model"}


def test_the_spec_checks_what_its_options_check() -> None:
    source = Source(kind="prefix", uri="s3://camera/", label="camera")
    with pytest.raises(ValueError, match="neither a count"):
        Classify(id="job", source=source, model="cnn@1", weights_sha256="", output="s3://mill/out/", max_errors="some")
