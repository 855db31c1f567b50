"""The command `imagemill-worker`: run a worker, or measure this machine."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from contract.errors import ImagemillError
from contract.keys.queues import QUEUE_CONTROL, WORKER_QUEUES


@click.group(
    help="Runs Imagemill jobs. `imagemill` submits and follows them.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def cli() -> None:
    pass


@cli.command()
@click.option(
    "--queues", default=",".join(WORKER_QUEUES), show_default=True, help="Queues to work on, with commas between."
)
@click.option("--device", help="auto, cpu, cuda or cuda:N; auto starts a process for each CUDA device.")
@click.option("--threads", type=int, help="Cores to use; 0: all that this process may.")
@click.option("--name", help="Name of the worker; must differ between workers of one host.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the embedded stack.")
@click.option("--loglevel", default="INFO", show_default=True, help="Least severe messages to log, as in Celery.")
def run(
    queues: str, device: str | None, threads: int | None, name: str | None, data: Path | None, loglevel: str
) -> None:
    """Work until SIGTERM, which lets running shards end.

    \b
    Example:
      imagemill-worker run --queues classify --device cuda:0
      imagemill-worker run --queues control
    """
    for variable, value in (("DEVICE", device), ("THREADS", threads), ("DATA", data)):
        if value is not None:
            os.environ[f"IMAGEMILL_{variable}"] = str(value)
    name = name or f"worker-{os.getpid()}@%h"
    if set(queues.split(",")) != {QUEUE_CONTROL}:
        _on_each_device(queues, name, loglevel)
    from worker.app import app, process

    arguments = ["worker", "--queues", queues, "--loglevel", loglevel, "--without-gossip", "--without-mingle"]
    arguments += ["--hostname", name]
    app.worker_main(arguments)
    sys.exit(process.leaving.exit_code)  # Celery keeps its own to itself when it is called


def _on_each_device(queues: str, name: str, loglevel: str) -> None:
    """Run a process for each CUDA device in place of this one, and exit; return if there are not several to use."""
    from contract.settings import load
    from worker.process import per_device

    settings = load()
    if settings.device != "auto" or settings.runtime == "openvino":
        return
    found = per_device.devices()
    if len(found) < 2 or not per_device.torch_has_cuda():
        return
    click.echo(f"Starting a worker for each of {len(found)} devices: {', '.join(found)}")
    command = [sys.executable, "-m", "worker.cli", "run", "--queues", queues, "--loglevel", loglevel, "--name"]
    commands = [[*command, per_device.named(name, number)] for number in range(len(found))]
    sys.exit(per_device.keep(commands, per_device.environments(found, settings, os.environ)))


@cli.command()
@click.option("--photos", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of JPEGs.")
@click.option(
    "--count",
    default=5000,
    show_default=True,
    help="Photos to label, made from the given ones; training and serving use at most 2,000.",
)
@click.option("--repeat", default=3, show_default=True, help="Runs; medians are printed.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="Arithmetic of the models.",
)
@click.option(
    "--only",
    type=click.Choice(["labelling", "training", "generation", "serving", "filtered"]),
    help="Measure this part alone. serving, single requests to a served model, and filtered, whether filtering "
    "generated images pays, run only when asked for.",
)
@click.option("--seconds", default=20.0, show_default=True, help="With --only serving: how long it is overloaded.")
@click.option(
    "--data-set",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="With --only filtered: folder with the IDX files of Fashion-MNIST.",
)
@click.option(
    "--peers",
    is_flag=True,
    help="Also label by a DataLoader, and by Ray Data if it is installed; serve by LitServe if it is installed.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def bench(
    photos: Path | None,
    count: int,
    repeat: int,
    precision: str,
    only: str | None,
    seconds: float,
    data_set: Path | None,
    peers: bool,
    as_json: bool,
) -> None:
    """Measure this machine, and the product against it.

    \b
    Example:
      imagemill-worker bench --only labelling
      imagemill-worker bench --only serving --seconds 60
    """
    from worker.bench import run as benchmark
    from worker.bench.report import report

    figures = benchmark.run(
        photos,
        count=count,
        repeat=repeat,
        precision=precision,  # type: ignore[arg-type]
        only=only,  # type: ignore[arg-type]
        data_set=data_set,
        with_peers=peers,
        seconds=seconds,
    )
    if as_json:
        print(json.dumps(figures))
    else:
        report(figures)


@cli.command()
@click.argument("traces", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--target", type=float, metavar="SECONDS", help="Time to be done in, instead of that of the traces.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="SVG file: workers over time.")
@click.option("--json", "as_json", is_flag=True, help="JSON: one object a trace and policy.")
def simulate(traces: tuple[Path, ...], target: float | None, plot: Path | None, as_json: bool) -> None:
    """Play traces of jobs against the autoscaler, and against queue length / 5.

    A trace is JSON: jobs by time and size, and how fast and how slow to start a worker is. Nothing is run.

    \b
    Example:
      imagemill-worker simulate docs/traces/million.json --target 600
    """
    from contract.fleet.chart import draw, table
    from contract.fleet.simulate import compare
    from contract.fleet.trace import read_trace

    rows = [compare(read_trace(path, target_seconds=target)) for path in traces]
    if plot is not None:
        plot.write_text(draw(rows))
    if as_json:
        for outcome in (outcome for row in rows for outcome in row):
            click.echo(json.dumps(outcome.figures()))
    else:
        click.echo(table(rows))


@cli.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder.")
@click.option("--count", default=20_000, show_default=True, type=click.IntRange(8), help="Sequences to train on.")
def motion(source: Path, output: Path, count: int) -> None:
    """Make sequences whose class is a motion, of the IDX files in SOURCE, to train an rnn on.

    \b
    Example:
      imagemill-worker motion fashion-mnist/ -o motion/
      imagemill train rnn --data motion/train --name motions
    """
    from worker.datasets.motion import write

    for path in write(source, output, count):
        click.echo(path)


def main() -> None:
    """Entry point; errors of ours are one line on stderr and an exit code."""
    try:
        cli()
    except ImagemillError as error:
        print(f"imagemill-worker: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
