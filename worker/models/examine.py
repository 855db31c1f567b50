"""Asks a model of any task whether it is what its record says: `python -m worker.models.examine WEIGHTS < record`.

It knows neither registry nor queue. Imports torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from contract.errors import ModelError
from contract.models.registry import PROGRAM, Model
from worker import zoo
from worker.engine.programs.graph import build, load_family
from worker.engine.programs.program import HOW_TO_EXPORT
from worker.engine.types import ModelSpec
from worker.models.trial import REFUSED

_BATCH, _FRAMES = 8, 3
T = TypeVar("T")


def examine(model: Model, weights: Path) -> None:
    """Load a model and run it on noise, alone and in a batch; raises ModelError where it is not what its record says.

    A classifier must give finite logits [n, labels] and features [n, d], the same for an image whatever it
    shares a batch with: what was exported in training mode does not. A generator gives images in −1..1.
    """
    task = "classify" if model.family == PROGRAM else zoo.task(model.family)
    if task != model.task:
        raise ModelError(f"It is of the family {model.family}, which does {task}, and its record says {model.task}.")
    check = {"classify": _classifier, "classify-sequence": _sequences, "generate": _generator}[task]
    with torch.inference_mode():
        check(model, ModelSpec.of(model, weights))


def _classifier(model: Model, spec: ModelSpec) -> None:
    graph = _answer(1, lambda: build(spec))
    noise = torch.randint(0, 256, (_BATCH, spec.size, spec.size, 3), dtype=torch.uint8, generator=_seeded())
    alone, again = (_answer(1, lambda: graph(noise[:1])) for _ in range(2))
    try:
        together = _answer(_BATCH, lambda: graph(noise))
    except ModelError as error:
        if model.family != PROGRAM:
            raise
        how = HOW_TO_EXPORT.format(channels=spec.channels, size=spec.size)
        raise ModelError(f"{error} Its batch must be of any size: {how}.") from error
    _check_logits(model, together, _BATCH)
    if not _close(again[0], alone[0]):
        raise ModelError("It answers the same image differently each time, as in training; export model.eval().")
    if not _close(together[0][:1], alone[0]):
        raise ModelError(
            "Its answer to an image depends on the others in its batch, as in training; export model.eval()."
        )


def _sequences(model: Model, spec: ModelSpec) -> None:
    net = load_family(spec).eval()
    frames = torch.randn(2, _FRAMES, spec.channels, spec.size, spec.size, generator=_seeded())
    lengths = torch.tensor([_FRAMES, 1])
    together = _answer(2, lambda: net(frames, lengths))
    alone = _answer(1, lambda: net(frames[1:, :1], lengths[1:]))
    _check_logits(model, together, 2)
    if not _close(together[0][1:], alone[0]):
        raise ModelError("Its answer to a sequence depends on the others in its batch, or on padding.")


def _generator(model: Model, spec: ModelSpec) -> None:
    net: Any = load_family(spec).eval()
    classes = max(spec.classes, 1)
    if model.config.get("classes", classes) != classes:
        raise ModelError(f"It knows {model.config['classes']} classes, its record names {spec.classes} labels.")
    latent = torch.randn(_BATCH, net.latent, generator=_seeded())
    made: Tensor = _answer(_BATCH, lambda: net.decode(latent, torch.arange(_BATCH) % classes))
    wanted = (_BATCH, spec.channels, spec.size, spec.size)
    if made.shape != wanted:
        raise ModelError(f"It makes images of {_shape(made.shape)}, its record says {_shape(wanted)}.")
    if not bool(torch.isfinite(made).all()) or float(made.abs().max()) > 1.001:
        raise ModelError("It makes images that hold numbers outside −1 to 1.")


def _check_logits(model: Model, answer: tuple[Tensor, Tensor], n: int) -> None:
    logits, features = answer
    if logits.shape != (n, len(model.labels)):
        raise ModelError(
            f"Its logits are {_shape(logits.shape)} for {n} inputs, and must be {n} × {len(model.labels)}, "
            "one for each label."
        )
    if features.ndim != 2 or len(features) != n:
        raise ModelError(f"Its features are {_shape(features.shape)} for {n} inputs, and must be {n} × d.")
    if not bool(torch.isfinite(logits).all() and torch.isfinite(features).all()):
        raise ModelError("It answers noise with numbers that are not finite.")


def _answer(n: int, run: Callable[[], T]) -> T:
    """Return the outputs of a model for n inputs; an error of torch becomes a sentence."""
    try:
        return run()
    except (RuntimeError, LookupError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:200].rstrip(".")
        raise ModelError(f"It fails on {'one input' if n == 1 else f'a batch of {n}'} ({said}).") from error


def _close(one: Tensor, other: Tensor) -> bool:
    """Return whether two outputs differ by no more than the order of additions explains."""
    return bool(torch.allclose(one, other, rtol=1e-3, atol=1e-3 * max(float(other.abs().max()), 1e-3)))


def _shape(sides: tuple[int, ...]) -> str:
    return " × ".join(map(str, sides))


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def main() -> None:
    """Exits with REFUSED, and the sentence on stdout, where the model is not what the record on stdin says."""
    with suppress(OSError):  # where memory ends, this process is the one to end
        Path("/proc/self/oom_score_adj").write_text("1000")
    torch.set_num_threads(1)  # shards run beside it
    try:
        examine(Model.model_validate_json(sys.stdin.buffer.read()), Path(sys.argv[1]))
    except ModelError as error:
        print(error)
        sys.exit(REFUSED)


if __name__ == "__main__":
    main()
