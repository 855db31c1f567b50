"""Makes a version in the registry of what a training came to: weights, figures, curves, a picture and a card.

It knows neither how it was trained nor where the job stands.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from safetensors.torch import save
from torch import Tensor

from contract.jobs.specs import Train
from contract.models.families import make_recipe
from contract.models.registry import File, Model, Registry, imagemill_version, make_file
from contract.times import iso
from worker.datasets.reader import Prepared, training_preprocess
from worker.pictures import plots
from worker.training.loop import EpochRecord, Outcome

WEIGHTS, METRICS, PICTURE, CARD = "weights.safetensors", "metrics.json", "picture.png", "card.md"


@dataclass(frozen=True)
class Trained:
    """A finished training: its spec, its data, how much was trained on and held out, and its outcome."""

    spec: Train
    prepared: Prepared
    learnt: int
    held_out: int
    outcome: Outcome
    picture: bytes | None


def publish(registry: Registry, trained: Trained) -> Model:
    """Publish it as the next version of its name; the same job again gives the same version.

    Objects are named by their content, so an attempt that lost its lease never changes what another has published.
    """
    spec = trained.spec
    version = registry.claim(spec.name, spec.id, spec.owner or None)
    model, files = record(trained, version)
    registry.publish(model, files)
    return registry.get(model.ref)


def record(trained: Trained, version: int) -> tuple[Model, dict[str, bytes]]:
    """Return the record of this version, and its files by name."""
    spec, data, outcome = trained.spec, trained.prepared.data, trained.outcome
    weights = save({name: _stored(tensor, spec.half) for name, tensor in outcome.weights.items()})
    history = [epoch.model_dump() for epoch in outcome.history]
    figures = {"epoch": outcome.best.epoch, **training_losses(outcome.best.losses), **outcome.best.metrics}
    files = {
        METRICS: json.dumps({"best": outcome.best.model_dump(), "history": history}, indent=1).encode(),
        **curves(outcome.history, outcome.best.epoch),
    }
    if trained.picture is not None:
        files[PICTURE] = trained.picture
    facts: dict[str, int | float | str | bool | None] = {
        "source": spec.source.label,
        "fingerprint": data.fingerprint,
        "images": trained.learnt,
        "held_out": trained.held_out,
        "left_out": trained.prepared.left_out.total(),
    }
    model = Model(
        name=spec.name,
        version=version,
        family=spec.recipe.family,
        config=outcome.config,
        task=spec.recipe.task,
        labels=data.classes,
        preprocess=training_preprocess(data.size, data.channels),
        weights=make_file(WEIGHTS, weights, fenced=True),
        metrics=figures,
        recipe=spec.recipe.model_dump(),
        data=facts,
        code=imagemill_version(),
        source=f"trained by the job {spec.id}",
        created_at=iso(time.time()) or "",
        owner=spec.owner,
    )
    files[CARD] = card(model, command(spec)).encode()
    entries: tuple[File, ...] = tuple(make_file(name, content, fenced=True) for name, content in files.items())
    return model.model_copy(update={"files": entries, "card": CARD}), {WEIGHTS: weights, **files}


def curves(history: Sequence[EpochRecord], best: int) -> dict[str, bytes]:
    """Return a plot of each figure over the epochs, as PNG by file name; `loss.png` shows both parts."""
    first = history[0]
    drawn = {}
    for name in dict.fromkeys((*first.metrics, *first.losses)):
        series = {}
        if name in first.losses:
            series["training"] = [epoch.losses[name] for epoch in history]
        if name in first.metrics:
            series["held out"] = [epoch.metrics[name] for epoch in history]
        title = name.replace("_", " ")
        drawn[f"{name}.png"] = plots.curves(title.capitalize(), title, series, best=best)
    return drawn


def training_losses(losses: Mapping[str, float]) -> dict[str, float]:
    """Losses by names that tell them from those of the held-out part."""
    return {f"train_{name}": value for name, value in losses.items()}


def command(spec: Train) -> str:
    """Return the command that trains this model again."""
    recipe = spec.recipe
    defaults = make_recipe(recipe.family, ())
    changed = {
        name: value
        for name, value in recipe.model_dump().items()
        if value != getattr(defaults, name) and name not in ("family", "epochs")
    }
    data = [f"--data {source.label}" for source in spec.source.each]
    words = ["imagemill train", recipe.family, *data, f"--name {spec.name}"]
    words.append(f"--epochs {recipe.epochs}")
    if spec.start:
        words.append(f"--from {spec.start}")
    if spec.labels:
        words.append("--labels labels.txt")
    if spec.half:
        words.append("--half")
    if spec.min_score:
        words.append(f"--min-score {spec.min_score:g}")
    words += [f"--set {name}={_plain(value)}" for name, value in changed.items()]
    return " ".join(words)


def _stored(tensor: Tensor, half: bool) -> Tensor:
    return tensor.half() if half and tensor.is_floating_point() else tensor


def card(model: Model, made_by: str) -> str:
    """Return the model card, Markdown: what it is, how to train it again, what was measured."""
    pre = model.preprocess
    return f"""# {model.ref}

A model of the family `{model.family}`, task `{model.task}`, trained with Imagemill {model.code}.

```sh
{made_by}
```

## Measured

On the held-out part of the training data, in the epoch that was published.

{_table(("figure", "value"), {name: f"{value:.6g}" for name, value in model.metrics.items()})}

## Data

{_table(("what", "value"), {name: str(value) for name, value in model.data.items()})}

Classes, in the order of `labels.txt`: {", ".join(model.labels) or "none"}.

Input: {pre.size} × {pre.size} pixels, {"gray" if pre.channels == 1 else "RGB"}, (x − {pre.mean:g}) / {pre.std:g}.

## Recipe

{_table(("setting", "value"), {name: _plain(value) for name, value in model.recipe.items()})}
"""


def _table(heading: tuple[str, str], rows: Mapping[str, str]) -> str:
    return "\n".join(
        [f"| {heading[0]} | {heading[1]} |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    )


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
