"""What `imagemill up` prints."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploy.cli import _console
from deploy.local.stackfile import StackInfo


@pytest.mark.parametrize(("terminal", "expected"), [(True, "/console/sign-in#imk_x"), (False, "/console")])
def test_the_token_is_printed_to_a_terminal_and_to_no_log(
    terminal: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    info = StackInfo(
        state="running", data=Path("/data"), pid=1, workers=1, bucket="b", api_url="http://h:1", api_token="imk_x"
    )
    assert _console(info) == f"http://h:1{expected}"
