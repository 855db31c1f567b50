"""Prints the figures of a bench as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from worker.bench.serving_report import serving_table


def report(figures: dict[str, Any]) -> None:
    """Print the figures as a table."""
    if "accuracy" in figures:
        for name, share in figures["accuracy"].items():
            print(f"{share:7.2%}  learnt from {name} images")
        return
    title = f"{figures['cores']} cores"
    if "runtime" in figures:
        title += f", photos on {figures['device']} by {figures['runtime']} in {figures['precision']}"
    table = Table(title=title)
    table.add_column("what")
    table.add_column("images/s", justify="right")
    table.add_column("of the ideal", justify="right")
    rates, ratios = figures["images_per_second"], figures["ratio_to_ideal"]
    for part, images in figures["images"].items():
        table.add_section()
        table.add_row(f"[bold]{part}[/], {_IMAGES[part].format(images)}")
        for name, meaning in _ROWS[part].items():
            if name in rates:
                table.add_row(f"  {meaning}", f"{rates[name]:,.0f}", f"{ratios[name]:.2f}")
    Console().print(table)
    if "labelling" in figures["images"]:
        Console().print(_about_labelling(figures["images"]["labelling"], rates), highlight=False)
    if "serving" in figures:
        Console().print(serving_table(figures["serving"]))
    if spent := figures.get("cpu_seconds"):
        photos = figures["images"].get("labelling")
        Console().print(_cpu_table(spent, "CPU seconds" + (f", {photos:,} photos" if photos else ", each step")))
    if figures.get("compiles_each_time"):
        print(
            "No .pyc files could be written beside the sources, so every process that a step starts compiled them: "
            "let whoever runs it write there, or install the product."
        )


def _about_labelling(photos: int, rates: Mapping[str, float]) -> str:
    """Say what a ratio of labelling is of: photos and seconds, what is in, what is not."""
    seconds = sorted(photos / rate for name, rate in rates.items() if name in _JOBS)
    return (
        f"A job took {seconds[0]:.1f} to {seconds[-1]:.1f} s, from its record in the bucket to its end: planning, "
        "queue, results and report are in, with the folder also packing and upload; the start of the command is not."
    )


def _cpu_table(spent: Mapping[str, Mapping[str, float]], title: str) -> Table:
    """Return a table of CPU seconds: a row a process, a column a step."""
    table = Table(title=title)
    table.add_column("process")
    for name in spent:
        table.add_column(_SHORT[name], justify="right")
    for role in dict.fromkeys(role for seconds in spent.values() for role in seconds):
        table.add_row(role, *(f"{seconds.get(role, 0.0):.1f}" for seconds in spent.values()))
    table.add_section()
    table.add_row("all", *(f"{sum(seconds.values()):.1f}" for seconds in spent.values()))
    return table


_JOBS = ("product_tars", "product_objects", "product_folder", "product_workers")
_SHORT = {
    "ideal": "ideal loop",
    "product_tars": "tars",
    "product_objects": "objects",
    "product_folder": "folder",
    "product_workers": "worker a core",
    "clients": "16 clients",
    "http": "over HTTP",
    "overload": "overload",
}
_IMAGES = {
    "labelling": "{:,} photos of 500×375",
    "serving": "{:,} photos of 500×375, one a request",
    "training": "{:,} images of 28×28, gray",
    "generation": "{:,} images of 28×28, gray",
}
_ROWS = {
    "labelling": {
        "decode": "decode only, all cores",
        "forward": "forward only",
        "ideal": "ideal loop: file, decode, forward, JSON line",
        "product_tars": "whole product, tars in the bucket",
        "product_objects": "whole product, one object a photo",
        "product_folder": "whole product, a local folder",
        "product_workers": "whole product, tars, a worker a core",
        "peer_dataloader": "DataLoader of PyTorch, a process a core",
        "peer_ray": "Ray Data, with the start of its actor",
    },
    "serving": {
        "serve_ideal": "ideal loop: file, decode, forward, JSON line",
        "serve_clients": "16 clients",
        "serve_http": "16 clients over HTTP",
        "peer_litserve": "16 clients of LitServe, over HTTP",
    },
    "training": {
        "train_steps": "steps alone, its ideal",
        "train": "with batches, validation, checkpoints",
    },
    "generation": {
        "generate_forward": "latents and forward only",
        "generate_encode": "PNG only, all cores",
        "generate_ideal": "ideal loop: latents, forward, PNG, tar",
        "product_generate": "whole product: files, index, upload, page",
    },
}
