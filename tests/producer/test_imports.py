"""The producer is light and stands alone: it imports the contract, neither worker nor deploy nor torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import producer

FORBIDDEN = {"worker", "deploy", "torch", "PIL", "numpy", "openvino"}
READS_PIXELS = "exports/images/idx.py"
"""The one module that may import Pillow, when it is called."""
MODULES = sorted(Path(producer.__file__).parent.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_nothing_that_is_not_the_producers(path: Path) -> None:
    allowed = {"PIL"} if path.as_posix().endswith(READS_PIXELS) else set()
    assert not FORBIDDEN & set(imported(path)) - allowed


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_says_what_it_does(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_the_client_is_what_the_package_offers() -> None:
    from producer.client import Client

    assert producer.Client is Client
    assert producer.__all__ == ["Client"]
