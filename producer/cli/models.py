"""`imagemill models`: list, show, push, pull, alias and remove the models of the registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from producer.cli.common import print_fields, print_json, print_table, say, shared_options, takes_name

if TYPE_CHECKING:
    from contract.models.registry import Model
    from producer.client import Client

_FIRST = 5


@click.group()
def models() -> None:
    """List, show, push, pull, alias and remove the models of the registry."""


@models.command("list")
@shared_options
def list_models(as_json: bool) -> None:
    """List every model, by name, newest version first.

    \b
    Example:
      imagemill models list
    """
    from producer.client import Client

    client = Client()
    found = client.models()
    names = dict.fromkeys(model.name for model in found)
    aliases = {name: client.aliases(name) for name in names}
    if as_json:
        for model in found:
            fields = _fields(model.model_copy(update={"label_ids": ()}), aliases[model.name])
            print_json(fields | {"labels": len(model.labels)})
    elif found:
        print_table(
            ("MODEL", "ALIASES", "TASK", "FAMILY", "LABELS", "INPUT", "WEIGHTS", "LICENSE"),
            (
                (
                    model.ref,
                    ", ".join(_pointing(model, aliases[model.name])),
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
        say("The registry is empty; start a worker, which publishes the built-in models.")


@takes_name(models)
def show(client: Client, name: str, as_json: bool) -> None:
    """Show the record of a model: `name`, `name@version` or `name@alias`.

    \b
    Example:
      imagemill models show efficientnet-lite0 --json
    """
    model = client.model(name)
    _print(model, client.aliases(model.name), as_json)


@models.command()
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Text file with one label per line, in the order of the model's outputs. Optional for a generator.",
)
@click.option("--size", type=click.IntRange(1, 4096), required=True, help="Side of the input in pixels.")
@click.option(
    "--mean", type=float, default=127.5, show_default=True, help="Subtracted from the pixel values, which are 0 to 255."
)
@click.option("--std", type=float, default=127.5, show_default=True, help="Divisor after the mean is subtracted.")
@click.option(
    "--crop", type=float, default=1.0, show_default=True, help="Centre crop, as a fraction of the short side."
)
@click.option(
    "--interpolation",
    type=click.Choice(["bicubic", "bilinear"]),
    default="bicubic",
    show_default=True,
    help="How images are resized.",
)
@click.option(
    "--channels",
    type=click.Choice(["1", "3"]),
    default="3",
    show_default=True,
    help="3: RGB; 1: luma.",
)
@click.option("--family", help="With .safetensors: the architecture.")
@click.option(
    "--config",
    multiple=True,
    metavar="KEY=VALUE",
    help="With .safetensors: an argument of the architecture; repeatable.",
)
@click.option("--license", default="", help="Licence of the weights.")
@click.option("--source", default="", help="Where the weights come from.")
@click.option(
    "--timeout",
    type=float,
    default=600.0,
    show_default=True,
    help="Seconds to wait until a worker has tried the model.",
)
@shared_options
def push(
    name: str,
    file: Path,
    labels: Path | None,
    size: int,
    mean: float,
    std: float,
    crop: float,
    interpolation: Literal["bicubic", "bilinear"],
    channels: str,
    family: str | None,
    config: tuple[str, ...],
    license: str,
    source: str,
    timeout: float,
    as_json: bool,
) -> None:
    """Publish FILE as the next version of NAME. A worker must run it on noise first.

    A .pt2, written by torch.export.save, needs no code on the worker. The program takes a batch of any size, normalised
    float32 [n, channels, size, size], and returns logits or a tuple of logits and features. A .safetensors holds the
    weights of a --family.

    \b
    Examples:
      imagemill models push birds birds.pt2 --labels birds.txt --size 224
      imagemill models push digits digits.safetensors --labels digits.txt --size 28 --channels 1 \\
        --family cnn --config classes=10 --config channels=1 --config size=28
    """
    from producer.client import Client
    from producer.models import read_config, read_labels

    client = Client()
    say(f"Uploading {file}; it is published once a worker has run it successfully.")
    model = client.push_model(
        name,
        file,
        labels=read_labels(labels) if labels else (),
        size=size,
        mean=mean,
        std=std,
        crop=crop,
        interpolation=interpolation,
        channels=1 if channels == "1" else 3,
        family=family,
        config=read_config(config),
        license=license,
        source=source,
        timeout=timeout,
    )
    _print(model, {}, as_json)
    if model.task == "classify":
        say(f"Label with it: `imagemill classify SOURCE --model {model.ref}`.")


@models.command()
@click.argument("ref")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the record and the files; created if missing.",
)
@shared_options
def pull(ref: str, output: Path, as_json: bool) -> None:
    """Write the record and files of REF into a folder. Each file is verified by its sha256.

    \b
    Example:
      imagemill models pull efficientnet-lite0@1 -o efficientnet-lite0/
    """
    from producer.client import Client

    written = Client().pull_model(ref, output)
    if as_json:
        print_json({"output": str(output), "files": [path.name for path in written]})
    else:
        say(f"Wrote {len(written):,} files to {output}.")


@models.command()
@click.argument("ref")
@click.argument("alias", required=False)
@click.option("--remove", is_flag=True, help="Remove the alias; REF is `name@alias`.")
@shared_options
def alias(ref: str, alias: str | None, remove: bool, as_json: bool) -> None:
    """Point `name@ALIAS` to the version REF. Prints the aliases of the model.

    A job pins the version when it is submitted; moving the alias later does not change it.

    \b
    Examples:
      imagemill models alias birds@3 best
      imagemill models alias --remove birds@best
    """
    from producer.client import Client

    if remove == (alias is not None):
        raise click.UsageError("Write `REF ALIAS`, or `--remove NAME@ALIAS`.")
    client = Client()
    if alias is None:
        client.remove_alias(ref)
    else:
        client.set_alias(ref, alias)
    name = ref.partition("@")[0]
    found = client.aliases(name)
    if as_json:
        print_json({"name": name, "aliases": found})
    else:
        print_fields({f"{name}@{other}": f"{name}@{version}" for other, version in found.items()})


@takes_name(models)
def own(client: Client, name: str, as_json: bool) -> None:
    """Take the model NAME over, with its versions so far.

    A model belongs to whoever published it first. Only its owner, IMAGEMILL_OWNER, publishes the next version, moves
    aliases and removes versions.

    \b
    Example:
      imagemill models own birds
    """
    before, owner = client.own_model(name), client.settings.owns_as
    if as_json:
        print_json({"name": name, "owner": owner, "before": before})
    else:
        say(f"{name} belongs to {owner}" + (f", and belonged to {before}." if before not in (None, owner) else "."))


@models.command("rm")
@click.argument("ref")
@shared_options
def remove(ref: str, as_json: bool) -> None:
    """Remove the version REF, `name@version`, and its files. Its number is never used again.

    \b
    Example:
      imagemill models rm birds@2
    """
    from producer.client import Client

    model = Client().remove_model(ref)
    if as_json:
        print_json({"removed": model.ref})
    else:
        say(f"Removed {model.ref}.")


def _print(model: Model, aliases: dict[str, int], as_json: bool) -> None:
    if as_json:
        print_json(_fields(model, aliases))
        return
    how = model.preprocess
    more = " …" if len(model.labels) > _FIRST else ""
    print_fields(
        {
            "model": model.ref,
            "aliases": ", ".join(_pointing(model, aliases)),
            "task": model.task,
            "family": " ".join([model.family, *(f"{key}={value}" for key, value in model.config.items())]),
            "labels": f"{len(model.labels):,}: {'; '.join(model.labels[:_FIRST])}{more}" if model.labels else "",
            "label ids": f"{'; '.join(model.label_ids[:_FIRST])}{more}" if model.label_ids else "",
            "input": f"{how.size} × {how.size} × {how.channels}, centre crop {how.crop}, {how.interpolation}, "
            f"(x − {how.mean:g})/{how.std:g}",
            "weights": f"{model.weights.name}, {model.weights.bytes:,} bytes",
            "sha256": model.weights.sha256,
            "files": ", ".join(file.name for file in model.files),
            "metrics": ", ".join(f"{name} {value:.4g}" for name, value in model.metrics.items()),
            "recipe": " ".join(f"{name}={value}" for name, value in model.recipe.items()),
            "data": ", ".join(f"{name} {value}" for name, value in model.data.items()),
            "source": model.source,
            "license": model.license,
            "imagemill": model.code,
            "created": model.created_at,
            "owner": model.owner,
        }
    )


def _fields(model: Model, aliases: dict[str, int]) -> dict[str, Any]:
    """Return the record of a model for `--json`; `label_ids` only if there are some."""
    hidden = set() if model.label_ids else {"label_ids"}
    return {"ref": model.ref, "aliases": _pointing(model, aliases), **model.model_dump(exclude=hidden)}


def _pointing(model: Model, aliases: dict[str, int]) -> list[str]:
    """Return the aliases that point to this version."""
    return [alias for alias, version in aliases.items() if version == model.version]
