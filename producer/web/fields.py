"""Names fields of a request where a sentence names options of the command line, as errors of `contract` do.

Most options are spelled as their fields are. What is spelled otherwise, such as `--class` for `classes`, is read off
the option models. Whole commands, such as `imagemill retry ID`, stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from contract.jobs.options import COMMANDS, WatchOptions, cli_of
from contract.records import Record

_OPTION = re.compile(r"`(?!--)[^`]*`|(?<![^\s(`])(`?)--([a-z][a-z0-9-]*)\b(`?)")


def named(text: str) -> str:
    """Return a sentence with the names of fields, in backticks, in place of those of options."""
    return _OPTION.sub(_field, text) if "--" in text else text


@cache
def flags() -> Mapping[str, str]:
    """Return the field of each option that is not spelled as its field is."""
    models: list[type[Record]] = [*COMMANDS.values(), WatchOptions]
    fields = ((name, cli_of(field)) for model in models for name, field in model.model_fields.items())
    return {cli.flag: name for name, cli in fields if cli.flag}


def _field(found: re.Match[str]) -> str:
    option = found[2]
    if option is None:
        return found[0]
    before, after = (found[1], found[3]) if found[1] and not found[3] else ("`", "`")
    return f"{before}{flags().get(f'--{option}', option.replace('-', '_'))}{after}"
