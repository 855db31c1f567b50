"""Exported programs on the device, large enough that it is what limits the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn

from contract.models.registry import Preprocess
from tests.gpu.acceptance import labelling
from tests.gpu.acceptance.architectures import ConvNext, Vit
from tests.gpu.acceptance.report import Report
from tests.programs import export
from worker.engine import select
from worker.engine.programs import layout
from worker.engine.programs.graph import Graph, build
from worker.engine.programs.program import Program
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
        forward = _layouts(report, stage, name, spec, device, precision, 256 if not small else 4)
        _confined(report, name, spec, device, precision, folder, files[:16])
        how = Preprocess(size=224, crop=0.875, interpolation="bicubic", mean=127.5, std=127.5)
        with closing(labelling.load(spec, device, precision, folder, threads=cores)) as runtime:
            rate, busy, events = labelling.end_to_end(runtime, files, count, how)
        report.figure(stage, f"{name}, end to end, images/s", rate)
        report.figure(stage, f"{name}, end to end, share of forward", rate / forward)
        report.figure(stage, f"{name}, device busy, by events", events)
        report.figure(stage, f"{name}, device busy, by NVML", busy)
        if device.type == "cuda":
            report.check(f"{name}: device busy ≥ 0.90", events >= 0.9, f"by events {events:.2f}, by NVML {busy:.2f}")


def _confined(
    report: Report,
    name: str,
    spec: ModelSpec,
    device: torch.device,
    precision: str,
    folder: Path,
    files: Sequence[bytes],
) -> None:
    """Compare a program in a confined process, as pushed ones run, with the same in this one."""
    pixels = labelling.decoded(files, 2)
    options = {"device": str(device), "runtime": "torch", "precision": precision, "threads": 2, "batch_size": 16}
    with closing(select.load(spec, **options, cache_dir=folder / "cache")) as here:  # type: ignore[arg-type]
        wanted = here.submit(pixels).result(300).logits
    with closing(
        select.load(spec, **options, cache_dir=folder / "cache", confined_seconds=100)  # type: ignore[arg-type]
    ) as there:
        found = there.submit(pixels).result(300).logits
        where = there.device
    apart = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    report.check(
        f"{name}: the same answers from a confined process",
        apart <= 1e-3 and where.partition(":")[0] == device.type,
        f"on {where}, {apart:.2g} of the largest",
    )


def _layouts(
    report: Report, stage: str, name: str, spec: ModelSpec, device: torch.device, precision: str, size: int
) -> float:
    """Measure both layouts and compare their answers; return the images/s of the one that a worker takes."""
    pixels = torch.randint(0, 256, (min(size, 16), 224, 224, 3), dtype=torch.uint8, device=device)
    rates, logits = {}, {}
    for lay_out in (False, True):
        graph = _laid_out(spec, device, precision, lay_out=lay_out)
        if graph is None:
            report.skip(f"{name}, channels-last", "its answers depend on the layout")
            continue
        with torch.inference_mode():
            logits[lay_out] = graph(pixels)[0]
        rates[lay_out] = labelling.forward_rate(graph, device, size, 224)
        told = "channels-last" if lay_out else "contiguous"
        report.figure(stage, f"{name}, forward, {precision}, {told}, images/s", rates[lay_out])
    if len(logits) == 2:
        apart = float((logits[True] - logits[False]).abs().max() / logits[False].abs().max())
        most = 0.05 if precision == "bf16" else 1e-3
        report.check(f"{name}: the same answers in both layouts", apart <= most, f"{apart:.2g} of the largest")
    taken = build(spec).on(device, precision)  # type: ignore[arg-type]
    assert isinstance(taken.model, Program)
    chosen = taken.model.layout is torch.channels_last
    report.figure(stage, f"{name}, layout that a worker takes", "channels-last" if chosen else "contiguous")
    if device.type == "cuda" and len(rates) == 2:
        share = rates[chosen] / max(rates.values())
        report.check(f"{name}: the layout is the faster one, or nearly", share >= 0.97, f"{share:.2f} of the faster")
    return rates[chosen]


def _laid_out(spec: ModelSpec, device: torch.device, precision: str, *, lay_out: bool) -> Graph | None:
    with mock.patch.object(layout, "pays", return_value=False):
        graph = build(spec).on(device, precision)  # type: ignore[arg-type]
    assert isinstance(graph.model, Program)
    return None if lay_out and not graph.model.lay_out() else graph
