"""Small models as files of `torch.export.save`, and such files changed by hand."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


class Redness(nn.Module):
    """Tells images that are rather red (label 0) from those that are rather green or blue; no training needed."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2, 1)
        self.norm = nn.BatchNorm2d(2)
        self.act = nn.ReLU(inplace=True)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[0, 0] = self.conv.weight[1, channels - 1] = 1.0
            self.conv.bias.fill_(1.0)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[n, channels, s, s] to logits [n, 2] and features [n, 2 · s · s]."""
        seen = self.act(self.norm(self.conv(x)))
        return seen.mean((2, 3)), seen.view(seen.shape[0], -1)


def export(
    model: nn.Module,
    path: Path,
    *,
    size: int = 8,
    channels: int = 3,
    batch: object = None,
    decomposed: Path | None = None,
) -> Path:
    """Write a model as its author would, with a batch of any size unless `batch` says otherwise.

    `decomposed` is where it goes a second time, in torch's core operators.
    """
    batch = torch.export.Dim("batch") if batch is None else batch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its own pickles
        program = torch.export.export(
            model, (torch.zeros(2, channels, size, size),), dynamic_shapes=({0: batch},) if batch else None
        )
        torch.export.save(program, path)
        if decomposed is not None:
            torch.export.save(program.run_decompositions(), decomposed)
    return path


def changed(path: Path, into: Path, edits: Mapping[str, Callable[[Any], Any] | bytes]) -> Path:
    """A copy of an archive in which some members are others: new bytes, or JSON that a function has edited."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(into, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        left = dict(edits)
        for name in old.namelist():
            data, edit = old.read(name), left.pop(name.removeprefix(f"{root}/"), None)
            if isinstance(edit, bytes):
                data = edit
            elif edit is not None:
                value = json.loads(data)
                data = json.dumps(edit(value) or value).encode()
            new.writestr(name, data)
        for name, edit in left.items():
            assert isinstance(edit, bytes), f"{name} is not in the archive"
            new.writestr(f"{root}/{name}", edit)
    return into
