"""Names fields of a request where a sentence names options of the command line, as errors of `contract` do.

The names are read off the option models, where some are spelled otherwise than their fields, such as `--class` for
`classes`. Whole commands, such as `imagemill retry ID`, and what is in quotes, such as keys, stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from contract.jobs.options import COMMANDS, WatchOptions, cli_of
from contract.records import Record

_OTHERS = ("all_of", "config", "job", "since", "timeout")
"""Fields and parameters of requests that no option model has."""
_OPTION = re.compile(
    r"""`(?!--)[^`]*` | (?<!\w)'[^']*'(?!\w) | (?<!\w)"[^"]*"(?!\w)
    | (?<![^\s(`]) (`?) (--[a-z][a-z0-9-]*) (?=[\s,;:)`]|\.?(?:\s|$)) (`?)""",
    re.VERBOSE,
)


def named(text: str) -> str:
    """Return a sentence with the names of fields, in backticks, in place of those of options."""
    return _OPTION.sub(_field, text) if "--" in text else text


@cache
def fields() -> Mapping[str, str]:
    """Return the field of each option."""
    models: list[type[Record]] = [*COMMANDS.values(), WatchOptions]
    of_models = [(name, cli_of(field).flag) for model in models for name, field in model.model_fields.items()]
    others = [(name, "") for name in _OTHERS]
    return {flag or f"--{name.replace('_', '-')}": name for name, flag in (*others, *of_models)}


def _field(found: re.Match[str]) -> str:
    field = fields().get(found[2] or "")
    if field is None:
        return found[0]
    before, after = (found[1], found[3]) if found[1] and not found[3] else ("`", "`")
    return f"{before}{field}{after}"
