"""The commands `serve`, `unserve` and `served`: models that answer single requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import click

from contract.records import Precision
from producer.cli.common import echo, print_json, print_table, say, shared_options

if TYPE_CHECKING:
    from contract.online.state import ServedState


@click.command()
@click.argument("model")
@click.option(
    "--precision", type=click.Choice(get_args(Precision)), default="auto", show_default=True, help="As for jobs."
)
@shared_options
def serve(model: str, precision: Precision, as_json: bool) -> None:
    """Have every worker that may run MODEL keep it loaded, and answer single requests with it, ahead of jobs.

    It stays so until `unserve`, whatever restarts. A `name` or `name@alias` is the version that it stands for now.

    \b
    Example:
      imagemill serve efficientnet-lite0
      imagemill served
    """
    from producer.client import Client

    state = Client().serve(model, precision=precision)
    if as_json:
        print_json(state.model_dump())
    elif state.ready:
        say(f"{state.model} is served by {state.ready} worker{'s' if state.ready != 1 else ''}.")
    else:
        say(f"{state.model} is served as soon as a worker has loaded it; `imagemill served` shows when.")


@click.command()
@click.argument("model")
@shared_options
def unserve(model: str, as_json: bool) -> None:
    """Answer no more requests with MODEL: `name@version`, or every version of `name`.

    \b
    Example:
      imagemill unserve efficientnet-lite0@1
    """
    from producer.client import Client

    gone = Client().unserve(model)
    if as_json:
        print_json({"unserved": gone})
    else:
        say(f"{', '.join(gone)} answers no more requests.")


@click.command()
@shared_options
def served(as_json: bool) -> None:
    """List the served models: ready workers, images that wait, what the workers can do, and how fast they answer.

    \b
    Example:
      imagemill served --json | jq .ready
    """
    from producer.client import Client

    found = Client().served()
    if as_json:
        for state in found:
            print_json(state.model_dump())
    elif found:
        columns = ("MODEL", "READY", "WAITING", "CAPACITY", "RATE", "P50", "P99", "PRECISION", "OWNER")
        print_table(columns, (_row(state) for state in found), right=columns[1:7])
    else:
        echo("No model is served; `imagemill serve MODEL` serves one.", err=True)


def _row(state: ServedState) -> tuple[str, ...]:
    return (
        state.model,
        str(state.ready),
        f"{state.waiting:,}",
        f"{state.capacity:,.1f} images/s",
        f"{state.images_per_second:,.1f} images/s",
        _ms(state.p50_ms),
        _ms(state.p99_ms),
        state.precision,
        state.owner,
    )


def _ms(found: float | None) -> str:
    return "-" if found is None else f"{found:,.1f} ms"
