"""`imagemill generate`, `synthesize` and `verify`: images as they come, those that pass, and the same again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import click

from producer.cli.common import shared_options
from producer.cli.follow import run_job

F = TypeVar("F", bound=Callable[..., Any])


def _image_options(function: F) -> F:
    """What both commands ask of images and of the job; named as the arguments of the client are, which check them."""
    options = [
        click.option("--model", required=True, metavar="GENERATOR", help="Generator, as name, name@version or alias."),
        click.option(
            "--class", "classes", multiple=True, metavar="NAME", help="A class; more than once. Default: all."
        ),
        click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the latents."),
        click.option(
            "--truncation",
            type=click.FloatRange(0, min_open=True),
            metavar="X",
            help="No number of a latent beyond X: better images, less variety. Default: none.",
        ),
        click.option(
            "--size", type=click.IntRange(0, 4096), default=0, show_default=True, help="Side in pixels; 0: the model's."
        ),
        click.option(
            "--image-format",
            type=click.Choice(["png", "webp", "jpeg"]),
            default="png",
            show_default=True,
            help="Of files.",
        ),
        click.option(
            "--precision",
            type=click.Choice(["auto", "fp32", "bf16"]),
            default="auto",
            show_default=True,
            help="Arithmetic of the generator.",
        ),
        click.option(
            "--shard-size",
            type=click.IntRange(1, 16384),
            default=1024,
            show_default=True,
            help="Images a shard, about.",
        ),
        click.option("--to", metavar="s3://…", help="Prefix for the images; default: the job's own."),
        click.option("--job", metavar="ID", help="Name the job; the same command again is the same job."),
        click.option("--detach", is_flag=True, help="Return when the job is queued."),
    ]
    function = shared_options(function)
    for option in reversed(options):
        function = option(function)
    return function


@click.command()
@click.option(
    "--count", type=click.IntRange(1), help="Images in all, as many of each class; of --reconstruct, the first."
)
@click.option("--reconstruct", metavar="SOURCE", help="Encode labelled images and decode them again, as a VAE can.")
@click.option(
    "--interpolate", nargs=2, metavar="A B", help="Images on the way between two of one --class, as a VAE can."
)
@click.option("--steps", type=click.IntRange(2, 10_000), help="Images of --interpolate, ends included. Default: 10.")
@_image_options
def generate(
    reconstruct: str | None,
    interpolate: tuple[str, str] | None,
    job: str | None,
    detach: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Generate images, as they come. Image I of a class is the same in every job of this model and seed.

    \b
    Examples:
      imagemill generate --model fashion-gan --count 10000
      imagemill generate --model fashion-gan --count 64 --class Sneaker --truncation 0.8 --size 112
      imagemill generate --model fashion-vae --reconstruct fashion/ --count 256
      imagemill generate --model fashion-vae --interpolate a.png b.png --steps 10 --class Sneaker
      imagemill export JOB --format imagefolder -o sneakers
    """
    from producer.client import Client, new_job_id

    client = Client()
    id = job or new_job_id("generate")
    submit = partial(client.generate, reconstruct=reconstruct, interpolate=interpolate, job=id, **asked)
    source = reconstruct or " and ".join(interpolate or ()) or asked["model"]
    run_job(client, id, source, lambda progress: submit(progress=progress), detach=detach, as_json=as_json)


def _times(_: click.Context, __: click.Parameter, value: str) -> int:
    number = value.removesuffix("x")
    if not number.isdecimal() or int(number) < 1:
        raise click.BadParameter(f"{value!r} is no multiple such as 20x")
    return int(number)


@click.command()
@click.option("--gate", required=True, metavar="CLASSIFIER", help="Classifier of the same classes, which judges.")
@click.option("--per-class", type=click.IntRange(1), required=True, help="Images of each class that are to pass.")
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    default=0.9,
    show_default=True,
    help="For the class asked for, by the gate.",
)
@click.option(
    "--dedup",
    type=click.FloatRange(0, min_open=True),
    metavar="D",
    help="Reject what is nearer than this to an accepted image, such as 0.0005. Default: nothing.",
)
@click.option("--away-from", metavar="SOURCE", help="Reject copies of these images, such as those of the training.")
@click.option(
    "--copy-distance",
    type=click.FloatRange(0, min_open=True),
    default=0.0002,
    show_default=True,
    help="Nearer than this to one of them is a copy.",
)
@click.option(
    "--max-attempts",
    default="20x",
    show_default=True,
    callback=_times,
    help="Candidates for each image that is wanted, at most.",
)
@_image_options
def synthesize(away_from: str | None, job: str | None, detach: bool, as_json: bool, **asked: Any) -> None:
    """Generate a dataset: as many images of each class as are asked for, each of which has passed every test.

    Candidates are made until enough pass: the gate takes an image for its class, surely enough, and it is no
    near-duplicate and no copy. Distances are cosine distances of the gate's features. Which are accepted does not
    depend on the number of workers. Exit code 1 where a class falls short after --max-attempts.

    \b
    Examples:
      imagemill synthesize --model fashion-gan --gate fashion-cnn --per-class 1000 --dedup 0.0005
      imagemill synthesize --model fashion-gan --gate fashion-cnn --per-class 1000 --away-from fashion/
      imagemill report JOB -o synthesis.html
    """
    from producer.client import Client, new_job_id

    client = Client()
    id = job or new_job_id("synthesize")
    submit = partial(client.synthesize, away_from=away_from, job=id, **asked)
    source = away_from or asked["model"]
    run_job(client, id, source, lambda progress: submit(progress=progress), detach=detach, as_json=as_json)


@click.command()
@click.argument("made", metavar="JOB")
@click.option("--sample", type=click.IntRange(1), default=64, show_default=True, help="Images to make again.")
@click.option("--job", metavar="ID", help="Name the job of the verification.")
@click.option("--detach", is_flag=True, help="Return when the job is queued.")
@shared_options
def verify(made: str, sample: int, job: str | None, detach: bool, as_json: bool) -> None:
    """Generate images of JOB again from their records, and compare. Exit code 1 where one differs by more than a level.

    \b
    Example:
      imagemill verify generate-20261124-093215-7f3a --sample 256
    """
    from producer.client import Client, new_job_id

    client = Client()
    id = job or new_job_id("verify")
    run_job(client, id, made, lambda _: client.verify(made, sample=sample, job=id), detach=detach, as_json=as_json)
