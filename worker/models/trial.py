"""Runs a model for the first time, in a confined process of its own: what it does to that process happens to no shard.

It knows neither registry nor queue, and leaves what is asked of the model to `worker.models.examine`.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from contract.data.children.process import ending
from contract.errors import ModelError
from contract.models.registry import Model
from worker.confinement.child import run
from worker.confinement.confine import Limits
from worker.engine.runtimes.confined import memory

REFUSED = 10
"""Exit code of a process that says on stdout, in one sentence, what is wrong with the model."""

_SCRATCH = 2**24  # bytes of a file that it may write, into a folder that is removed


def try_out(model: Model, weights: Path, *, seconds: float = 300.0) -> None:
    """Run a model once on noise, its weights being a file on this machine.

    Raises ModelError where it cannot be loaded, does not answer within `seconds`, ends its process, or answers
    something else than its record promises. The sentence begins with "It".
    """
    size = weights.stat().st_size
    with tempfile.TemporaryDirectory(prefix="imagemill-trial-") as scratch:
        limits = Limits(
            memory=memory(size),
            file_bytes=_SCRATCH,
            readable=(str(weights.absolute()),),
            writable=(scratch,),
        )
        try:
            module, path = "worker.models.examine", str(weights.absolute())
            status, said, errors = run(limits, module, path, data=model.to_json(), seconds=seconds)
        except subprocess.TimeoutExpired as error:
            raise ModelError(f"It does not answer within {seconds:.0f} s; take a smaller model.") from error
    if status == REFUSED:
        raise ModelError(said.decode().strip())
    if status < 0:
        raise ModelError(f"It ends the process that runs it ({ending(status)}); does it need more memory?")
    if status:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise ModelError(f"It fails where no model should ({last[:200]}).")
