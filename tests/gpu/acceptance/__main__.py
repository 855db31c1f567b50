"""Run the acceptance; see the package."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import torch

from tests.gpu.acceptance import (
    generating,
    jpeg,
    labelling,
    machine,
    programs,
    recording,
    resizing,
    sequences,
    training,
)
from tests.gpu.acceptance.report import Report
from tests.lite0 import lite0
from worker.bench.crops import crops
from worker.engine.arithmetic import settle
from worker.engine.select import torch_device

_STAGES = ("correctness", "generation", "training", "labelling", "resize", "jpeg", "programs", "sequences")
_PHOTOS = Path(__file__).parents[3] / "deploy" / "photos"


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if every check passed, 1 if one failed, 2 if there is no such device."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.acceptance", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.md")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try the program itself")
    parser.add_argument("--images", type=int, default=50_000, help="crops to label end to end")
    parser.add_argument("--only", nargs="*", choices=_STAGES, help="stages to run, in place of all")
    parser.add_argument("--seconds", type=float, default=540, help="no stage begins later; one left out is a failure")
    told = parser.parse_args(arguments)
    try:
        device = torch.device(torch_device(told.device))
    except Exception as error:
        print(error, file=sys.stderr)
        return 2
    settle(device)  # before cuBLAS has a workspace
    cores, cuda = len(os.sched_getaffinity(0)), device.type == "cuda"
    report = Report(told.out, limit=told.seconds)
    wanted = set(told.only or _STAGES)

    def wants(stage: str) -> bool:
        return stage in wanted and report.in_time(stage)

    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        with report.stage("ceilings"):
            machine.describe(report, device)
        files: list[bytes] = []
        if wanted & {"correctness", "labelling", "resize", "jpeg", "programs"}:
            with report.stage("crops"):
                (base / "photos").mkdir()
                files = [path.read_bytes() for path in crops(_PHOTOS, min(told.images, 2000), base / "photos")]
                spec = lite0(base)
        if wants("correctness"):
            with report.stage("correctness"):
                pixels = labelling.decoded(files[: 512 if cuda else 16], cores)
                labelling.correctness(report, device, spec, pixels, base / "cache")
                if cuda:
                    recording.check(report, device)
        if wants("generation"):
            with report.stage("generation"):
                generating.generators(report, device, 50_000 if cuda else 640)
        if wants("training"):
            with report.stage("training"):
                training.trainings(report, device, 4.0 if cuda else 0.5)
        if wants("labelling"):
            with report.stage("labelling"):
                labelling.throughput(report, device, spec, files, told.images, base / "cache", cores)
        if wants("resize"):
            with report.stage("resize"):
                resizing.throughput(report, device, spec, files, told.images, base / "cache", cores)
        if wants("jpeg"):
            with report.stage("jpeg"):
                jpeg.throughput(report, device, spec, files, told.images, base / "cache", cores)
        if wants("programs"):
            with report.stage("programs"):
                count = min(told.images, 20_000)
                programs.throughput(report, device, files, count, base, cores, small=not cuda)
        if wants("sequences"):
            with report.stage("sequences"):
                sequences.throughput(report, device, base, 8_000 if cuda else 8)
    labelling.decode_in("thread")  # no processes stay
    failed = [check.name for check in report.checks if not check.passed]
    for what, why in report.skipped.items():
        print(f"skipped: {what}, because {why}")
    print(f"{len(report.checks) - len(failed)} of {len(report.checks)} checks passed; see {told.out / 'gpu.md'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
