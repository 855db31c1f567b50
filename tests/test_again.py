"""CI lets a rare race pass, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import again

ALWAYS = "def test_it():\n    assert False\n"
NEVER = "def test_it():\n    pass\n"
# Fails in its second run.
SECOND = """
from pathlib import Path
def test_it():
    runs = Path(__file__).with_suffix(".runs")
    runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
    assert runs.read_text() != "xx"
"""


def run(folder: Path, tests: dict[str, str], *, whole: bool = True) -> int:
    """Run again what failed in a run of these files, by their content."""
    for name, content in tests.items():
        (folder / name).write_text(content)
    cache = folder / ".pytest_cache/v"
    (cache / "imagemill").mkdir(parents=True)
    failed = [f"{folder / name}::test_it" for name in tests]
    (cache / "imagemill/failed").write_text(json.dumps(failed if whole else None))
    return again.main(["-q", "--rootdir", str(folder), "-c", "/dev/null"], cache)


def test_what_passes_three_times_was_a_race(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, {"test_a.py": NEVER, "test_b.py": NEVER}) == 0
    said = capfd.readouterr().out
    assert said.count("2 passed") == 3
    assert said.rstrip().endswith("test_b.py::test_it") and "a rare race to mend" in said


@pytest.mark.parametrize("content", [ALWAYS, SECOND])
def test_what_fails_once_more_is_broken(tmp_path: Path, content: str) -> None:
    assert run(tmp_path, {"test_a.py": content}) == 1


def test_many_at_once_are_no_race(tmp_path: Path) -> None:
    assert run(tmp_path, {f"test_{n}.py": NEVER for n in range(3)}) == 1


def test_a_run_that_broke_off_is_none(tmp_path: Path) -> None:
    assert run(tmp_path, {"test_a.py": NEVER}, whole=False) == 1
    assert again.main([], tmp_path / "nothing") == 1
