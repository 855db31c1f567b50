"""Finds out which layers of confinement this machine has, by a child that has nothing to do."""

from __future__ import annotations

import json
import subprocess

from worker.confinement import layers, run
from worker.confinement.confine import LAYERS, Limits

_SECONDS = 60.0


def probe() -> tuple[str, ...]:
    """Return the layers that confine a child of this process; none if it does not say within a minute."""
    try:
        done = subprocess.run(
            run.command(Limits(), "worker.confinement.probe"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=_SECONDS,
            env=run.environment(),
            start_new_session=True,
            check=True,
        )
        enforced = tuple(str(layer) for layer in json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError):
        enforced = ()
    layers.note("worker.confinement.probe", LAYERS, enforced)
    return enforced


if __name__ == "__main__":
    print(json.dumps(run.ENFORCED))
