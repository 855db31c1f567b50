"""The pages that people read, and the generator of the reference, as the tests of this folder take them."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
README = ROOT / "README.md"

WRITTEN = [README, *sorted(path for path in DOCS.rglob("*.md") if REFERENCE not in path.parents)]
"""Every page that is written by hand; those of the reference are generated."""


def load_generator() -> ModuleType:
    """`docs/generate_reference.py`, which is a script and no package."""
    spec = importlib.util.spec_from_file_location("generate_reference", DOCS / "generate_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^[ ]*```{language}\n(.*?)^[ ]*```$", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^[ ]*```.*?^[ ]*```$", "", text, flags=re.MULTILINE | re.DOTALL)


def command_lines(text: str) -> Iterator[list[str]]:
    """Every command line of ours on a page: in sessions, in shell blocks, and in code spans with a space."""
    sessions = "".join(blocks(text, "console")).replace("\\\n>", "")
    found = re.findall(r"^\$ (.*)$", sessions, re.MULTILINE)
    found += "".join(blocks(text, "sh")).replace("\\\n", "").splitlines()
    found += re.findall(r"`(imagemill(?:-worker)? [^`]*)`", prose(text))
    for line in found:
        words = shlex.split(line.strip(), comments=True)
        if words and words[0] in ("imagemill", "imagemill-worker"):
            yield words


def check_command(programs: dict[str, click.Command], words: list[str]) -> None:
    """Raise click.UsageError where a command, or an option that is given to it, does not exist."""
    command, ctx = programs[words[0]], click.Context(programs[words[0]], info_name=words[0])
    rest = words[1:]
    while isinstance(command, click.Group) and rest:
        name, *rest = rest
        child = command.get_command(ctx, name)
        if child is None:
            raise click.UsageError(f"{' '.join(words)}: there is no command {name!r}")
        command, ctx = child, click.Context(child, parent=ctx, info_name=name)
    if "--" in rest:
        check_command(programs, [words[0], *rest[rest.index("--") + 1 :]])
        rest = rest[: rest.index("--")]
    try:
        command.make_parser(ctx).parse_args(list(rest))
    except click.UsageError as error:
        raise click.UsageError(f"{' '.join(words)}: {error.message}") from None


def anchors(text: str) -> set[str]:
    """The anchors of the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
        found.add(re.sub(r"\s+", "-", plain))
    return found


def links(text: str) -> list[str]:
    """The targets of all links of a page that lead to files or anchors of ours."""
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)) if "://" not in link]
