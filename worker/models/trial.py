"""Runs a model for the first time, in a confined process of its own: what it does to that process happens to no shard.

It knows neither registry nor queue, and leaves what is asked of the model to `worker.models.examine`.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from contract.errors import ModelError
from contract.models.registry import Model
from worker.confinement.confine import Limits
from worker.confinement.run import command, environment

REFUSED = 10
"""Exit code of a process that says on stdout, in one sentence, what is wrong with the model."""


_MEMORY, _MEMORY_A_WEIGHT = 4 * 2**30, 8
"""Bytes that a trial may have, and for each byte of weights."""
_SCRATCH = 2**24  # bytes of a file that it may write, into a folder that is removed


def try_out(model: Model, weights: Path, *, seconds: float = 300.0) -> None:
    """Run a model once on noise, its weights being a file on this machine.

    Raises ModelError where it cannot be loaded, does not answer within `seconds`, ends its process, or answers
    something else than its record promises. The sentence begins with "It".
    """
    size = weights.stat().st_size
    with tempfile.TemporaryDirectory(prefix="imagemill-trial-") as scratch:
        limits = Limits(
            memory=_MEMORY + _MEMORY_A_WEIGHT * size,
            file_bytes=_SCRATCH,
            readable=(str(weights.absolute()),),
            writable=(scratch,),
        )
        try:
            done = subprocess.run(
                command(limits, "worker.models.examine", str(weights.absolute())),
                input=model.to_json(),
                capture_output=True,
                timeout=seconds,
                env=environment(),  # nothing of ours: not the keys of the store either
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
