"""Exported programs on the device, large enough that it is what limits the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import nn

from contract.models.registry import Preprocess
from tests.gpu.acceptance import labelling
from tests.gpu.acceptance.architectures import ConvNext, Vit
from tests.gpu.acceptance.report import Report
from tests.programs import export
from worker.engine.programs.graph import build
from worker.engine.types import ModelSpec


def throughput(
    report: Report, device: torch.device, files: Sequence[bytes], count: int, folder: Path, cores: int, *, small: bool
) -> None:
    """Export, check, load and feed each; `small` takes miniatures of them."""
    stage = "programs"
    makers: dict[str, nn.Module] = {
        "ViT-B/16": Vit(width=128, depth=2) if small else Vit(),
        "ConvNeXt-B": ConvNext(widths=(16, 32), depths=(1, 1)) if small else ConvNext(),
    }
    labelling.decode_in("process")
    precision = "bf16" if report.about["bf16"] else "fp32"
    for name, model in makers.items():
        path = export(model.eval(), folder / f"{name.partition('/')[0]}.pt2", size=224)
        spec = ModelSpec(
            family="program",
            weights=path,
            weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            size=224,
            mean=127.5,
            std=127.5,
            classes=1000,
        )
        graph = build(spec).on(device, precision)  # type: ignore[arg-type]
        forward = labelling.forward_rate(graph, device, 256 if not small else 4, 224)
        report.figure(stage, f"{name}, forward, {precision}, images/s", forward)
        how = Preprocess(size=224, crop=0.875, interpolation="bicubic", mean=127.5, std=127.5)
        with closing(labelling.load(spec, device, precision, folder, threads=cores)) as runtime:
            rate, busy, events = labelling.end_to_end(runtime, files, count, how)
        report.figure(stage, f"{name}, end to end, images/s", rate)
        report.figure(stage, f"{name}, end to end, share of forward", rate / forward)
        report.figure(stage, f"{name}, device busy, by events", events)
        report.figure(stage, f"{name}, device busy, by NVML", busy)
        if device.type == "cuda":
            report.check(f"{name}: device busy ≥ 0.90", events >= 0.9, f"by events {events:.2f}, by NVML {busy:.2f}")
