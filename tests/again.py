"""Runs the files again whose tests failed in the last run: `python -m tests.again`, for CI.

Thousands of tests that kill, pause and race real processes find a rare race now and then, which has nothing to do with
the change that CI looks at. What is broken fails again; so CI passes if the files of at most `MOST` failed tests pass
`TIMES` in a row, and names those tests at the end of its log. Each is a defect of the test or of what it tests.
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
WHOLE = "imagemill/whole"
"""Whether the last run came to its end; `tests/conftest.py` writes it to pytest's cache."""


def failed(cache: Path = _CACHE) -> list[str]:
    """Return the tests that failed in the last run; raises ValueError if it broke off, so that more may have."""
    try:
        whole = json.loads((cache / WHOLE).read_text())
        found = json.loads((cache / "cache/lastfailed").read_text())
    except FileNotFoundError:
        whole, found = False, {}
    if not whole or not found:
        raise ValueError("The last run of pytest broke off, or no test failed in it.")
    return sorted(found)


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
    (cache / WHOLE).unlink()  # so that the next run has to be whole too
    (cache / "cache/lastfailed").unlink()
    print(f"\nPassed {TIMES} times in a row after a failure, so there is a rare race to mend:", *tests, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
