"""`imagemill models list` and `imagemill models show`."""

from __future__ import annotations

import click

from producer.cli.common import print_fields, print_json, print_table, say, shared_options

_FIRST = 5


@click.group()
def models() -> None:
    """List and show the models of the registry."""


@models.command("list")
@shared_options
def list_models(as_json: bool) -> None:
    """List every model, by name, newest version first.

    \b
    Example:
      imagemill models list
    """
    from producer.client import Client

    found = Client().models()
    if as_json:
        for model in found:
            print_json({"ref": model.ref, **model.model_dump(exclude={"labels"}), "labels": len(model.labels)})
    elif found:
        print_table(
            ("MODEL", "TASK", "FAMILY", "LABELS", "INPUT", "WEIGHTS", "LICENSE"),
            (
                (
                    model.ref,
                    model.task,
                    model.family,
                    f"{len(model.labels):,}",
                    f"{model.preprocess.size} px",
                    f"{model.weights.bytes / 1e6:,.1f} MB",
                    model.license,
                )
                for model in found
            ),
            right=("LABELS", "INPUT", "WEIGHTS"),
        )
    else:
        say("The registry is empty; a worker publishes the built-in models when it starts.")


@models.command()
@click.argument("name")
@shared_options
def show(name: str, as_json: bool) -> None:
    """Show the record of a model, `name` or `name@version`.

    \b
    Example:
      imagemill models show efficientnet-lite0 --json
    """
    from producer.client import Client

    model = Client().model(name)
    if as_json:
        print_json({"ref": model.ref, **model.model_dump()})
        return
    pre = model.preprocess
    more = " …" if len(model.labels) > _FIRST else ""
    print_fields(
        {
            "model": model.ref,
            "task": model.task,
            "family": model.family,
            "labels": f"{len(model.labels):,}: {'; '.join(model.labels[:_FIRST])}{more}",
            "input": f"{pre.size} × {pre.size}, centre crop {pre.crop}, {pre.interpolation}, "
            f"(x − {pre.mean:g})/{pre.std:g}",
            "weights": f"{model.weights.name}, {model.weights.bytes:,} bytes",
            "sha256": model.weights.sha256,
            "source": model.source,
            "license": model.license,
            "created": model.created_at,
        }
    )
