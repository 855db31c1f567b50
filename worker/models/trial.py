"""Runs a model for the first time, in a process of its own: what it does to that process happens to no shard.

It knows neither registry nor queue, and leaves what is asked of the model to `worker.models.examine`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from contract.errors import ModelError
from contract.models.registry import Model

REFUSED = 10
"""Exit code of a process that says on stdout, in one sentence, what is wrong with the model."""


def try_out(model: Model, weights: Path, *, seconds: float = 300.0) -> None:
    """Run a model once on noise, its weights being a file on this machine.

    Raises ModelError where it cannot be loaded, does not answer within `seconds`, ends its process, or answers
    something else than its record promises. The sentence begins with "It".
    """
    # Nothing of ours is in its environment: not the keys of the store either.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("IMAGEMILL_")}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "worker.models.examine", str(weights)],
            input=model.to_json(),
            capture_output=True,
            timeout=seconds,
            env={**environment, "PYTHONUTF8": "1"},
            start_new_session=True,  # a Ctrl-C for the worker is no fault of the model
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"It does not answer within {seconds:.0f} s; take a smaller model.") from error
    if done.returncode == REFUSED:
        raise ModelError(done.stdout.decode().strip())
    if done.returncode < 0:
        raise ModelError(f"It ends the process that runs it (signal {-done.returncode}); does it need more memory?")
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ModelError(f"It fails where no model should ({said[:200]}).")
