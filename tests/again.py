"""Runs the files again whose tests failed in the last run: `python -m tests.again`, for CI.

Thousands of tests that kill, pause and race real processes find a rare race now and then, which has nothing to do with
the change that CI looks at. What is broken mostly fails again, so CI passes if the files of at most `MOST` failed tests
pass `TIMES` in a row, and names those tests at the end of its log. Each is a defect of the test or of what it tests;
one that is named in two runs is no race, but fails in the company of other files.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

MOST = 2
TIMES = 3
_CACHE = Path(".pytest_cache/v")
FAILED = "imagemill/failed"
"""What failed in the last run, null if it broke off; `tests/conftest.py` writes it to pytest's cache. The list that
pytest keeps also holds failures of earlier runs, and forgets a test that ended its process and passed in the next."""


def failed(cache: Path = _CACHE) -> list[str]:
    """Return the tests that failed in the last run; raises ValueError if it broke off, so that more may have."""
    try:
        found: list[str] | None = json.loads((cache / FAILED).read_text())
    except FileNotFoundError:
        found = None
    if not found:
        raise ValueError("The last run of pytest broke off, or no test failed in it.")
    return found


def main(options: Sequence[str] = (), cache: Path = _CACHE) -> int:
    """Run them again, and return the exit status of CI."""
    try:
        tests = failed(cache)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if len(tests) > MOST:
        print(f"{len(tests)} tests failed; that is no rare race.", file=sys.stderr)
        return 1
    files = sorted({test.partition("::")[0] for test in tests})
    for _ in range(TIMES):
        run = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, *files], check=False)
        if run.returncode:
            return 1
    (cache / FAILED).unlink()  # so that the next run has to be whole too
    print(f"\nPassed {TIMES} times in a row after a failure, so there is a rare race to mend:", *tests, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
