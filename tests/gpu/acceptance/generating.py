"""Images of the shipped generators: how fast, the same bytes twice, and how far from those of a CPU."""

from __future__ import annotations

import time

import torch

from contract.models.registry import Model
from tests.gpu.acceptance import machine
from tests.gpu.acceptance.report import Report
from worker.engine.generators.generator import Generator
from worker.engine.generators.latents import DeviceLatents, latents
from worker.engine.types import ModelSpec
from worker.zoo.builtin import SHIPPED


def generators(report: Report, device: torch.device, count: int) -> None:
    """Generate with gan and vae in each precision."""
    stage = "generation"
    numbers = torch.arange(64 * 256)
    draw = DeviceLatents(7, 128, None, device)
    drawn = torch.cat([draw(part % 10, part // 10).cpu() for part in numbers.split(64)])
    differ = float((drawn != latents(7, numbers % 10, numbers // 10, 128)).float().mean())
    report.check("latents drawn on the device are those of the CPU", differ < 1e-6, f"{differ:.2g} of them differ")
    for name in ("fashion-gan", "fashion-vae"):
        folder = SHIPPED / name
        model = Model.model_validate_json((folder / "model.json").read_bytes())
        spec = ModelSpec.of(model, folder / model.weights.name)
        labels, numbers = torch.arange(count) % 10, torch.arange(count) // 10
        for precision in ("fp32", "bf16") if report.about["bf16"] else ("fp32",):
            generator = Generator(spec, device=str(device), precision=precision)
            sampler = generator.sampler(seed=7)
            first = sampler.images(labels[:640], numbers[:640])
            machine.wait(device)
            began = time.perf_counter()
            for _ in sampler.groups(labels, numbers):
                pass
            rate = count / (time.perf_counter() - began)
            report.figure(stage, f"{name}, {precision}, images/s", rate)
            _other_work(device)
            again = Generator(spec, device=str(device), precision=precision).sampler(seed=7)
            report.check(
                f"{name}, {precision}: the same bytes from a second generator, after other work",
                bool(torch.equal(first, again.images(labels[:640], numbers[:640]))),
            )
            host = Generator(spec, device="cpu", precision="fp32").sampler(seed=7).images(labels[:640], numbers[:640])
            apart = (first.int() - host.int()).abs()
            report.figure(
                stage, f"{name}, {precision}, largest difference from a CPU in fp32, levels", int(apart.max())
            )
            report.figure(stage, f"{name}, {precision}, pixels that differ from it", float((apart > 0).float().mean()))
            if precision == "fp32":
                report.check(f"{name}: within one level of a CPU in fp32", int(apart.max()) <= 1, f"{int(apart.max())}")


def _other_work(device: torch.device) -> None:
    """Convolve what no generator does, so that a choice made by the first batch of a process would be another."""
    with torch.inference_mode():
        for side in (7, 14, 28, 56):
            torch.nn.functional.conv2d(
                torch.randn(64, 32, side, side, device=device), torch.randn(64, 32, 3, 3, device=device), padding=1
            )
