"""Confines itself, then runs a module as a program: `python -m worker.confinement.run PARENT LIMITS MODULE ARGUMENT…`.

It imports nothing heavy: no thread may exist before the process is confined.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile

from worker.confinement.confine import Limits, confine

ENFORCED: list[str] = []
"""The layers that confine this process, for a module that reports them."""


def command(limits: Limits, module: str, *arguments: str) -> list[str]:
    """Return the arguments of the interpreter that run `module` in a confined child of this process."""
    return ["-s", "-m", "worker.confinement.run", str(os.getpid()), limits.to_json(), module, *arguments]


def main() -> None:
    parent, limits, module = sys.argv[1:4]
    allowed = Limits.from_json(limits)
    ENFORCED.extend(confine(allowed, parent=int(parent)))
    sys.modules["worker.confinement.run"] = sys.modules[__name__]  # one ENFORCED for all
    # Otherwise it looks for a folder that is writable, and fails where there is none.
    tempfile.tempdir = next(iter(allowed.writable), "/nonexistent")
    del sys.argv[0:3]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
