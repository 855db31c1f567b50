"""Two lengths of each drill, and a line of figures at its end."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the drill runs at the length of the promise: `pytest --long`, or `make drill-long`."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def figures(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Print figures of the drill to the terminal, passed or not: `figures(items=10_000, false_verdicts=0)`."""

    def show(**counts: object) -> None:
        with capsys.disabled():
            print(f"\n{request.node.name}: " + ", ".join(f"{name} {value}" for name, value in counts.items()))

    return show
