"""The commands of a bench find its own stack, and compile nothing that is compiled already."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from contract import settings
from worker.bench.stack import Commands, compiles_each_time


def test_commands_know_no_other_stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Given an environment that names other servers and forbids .pyc files,
    for name in ("REDIS_URL", "ONLINE_REDIS_URL", "S3_ENDPOINT", "API_URL", "API_TOKEN"):
        monkeypatch.setenv(f"IMAGEMILL_{name}", "elsewhere")
    monkeypatch.setenv("IMAGEMILL_THREADS", "1")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    # I expect commands to keep the other settings, and to write .pyc files.
    given = Commands(tmp_path).environment
    ours = {name: value for name, value in given.items() if name.startswith("IMAGEMILL_")}
    assert ours.pop("IMAGEMILL_DATA") == str(tmp_path)
    assert ours.pop("IMAGEMILL_THREADS") == "1"
    assert "elsewhere" not in ours.values()
    assert "PYTHONDONTWRITEBYTECODE" not in given


def test_a_bench_knows_whether_sources_are_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "settings.py"
    source.touch()
    monkeypatch.setattr(settings, "__file__", str(source))
    assert compiles_each_time()

    cached = Path(importlib.util.cache_from_source(str(source)))
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.touch()
    assert not compiles_each_time()
