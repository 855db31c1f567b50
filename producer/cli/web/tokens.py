"""`imagemill tokens`: who may use the HTTP API. Create, list, revoke."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from producer.cli.common import echo, print_json, print_table, say, shared_options

if TYPE_CHECKING:
    from contract.web.tokens import Token, Tokens

SCOPES = ("infer", "jobs", "review", "admin")


@click.group()
def tokens() -> None:
    """Say who may use the HTTP API: create, list, revoke."""


@tokens.command()
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    required=True,
    help="What it may do; repeatable. infer: single images; jobs: jobs, schedules, watches, models, datasets; review: "
    "read jobs and results, review labels; admin: everything, of all owners.",
)
@click.option("--owner", help="Who owns what is made with it.  [env: IMAGEMILL_OWNER; default: user@host]")
@click.option("--person", default="", metavar="NAME", help="Who holds it, for reviews. Default: the owner.")
@click.option("--rate", metavar="N/s", help="Requests that it may make, as 10/s, 100/m or 5000/h. Default: any number.")
@click.option("--expires", metavar="TIME", help="How long it lives, as 12h or 90d. Default: until it is revoked.")
@shared_options
def create(
    scopes: tuple[str, ...], owner: str | None, person: str, rate: str | None, expires: str | None, as_json: bool
) -> None:
    """Make a token and print it, this once: only its hash is kept.

    \b
    Examples:
      imagemill tokens create --scope jobs --owner ann
      imagemill tokens create --scope review --owner ann --person bob
      imagemill tokens create --scope infer --owner shop --rate 20/s --expires 90d
    """
    from contract.settings import of_the_store
    from contract.web import tokens as made

    text = made.new_token()
    token = made.describe(
        text,
        owner=of_the_store().owns_as if owner is None else owner,
        scopes=scopes,
        person=person,
        rate=made.parse_rate(rate) if rate else 0.0,
        lives=made.parse_life(expires) if expires else None,
    )
    _tokens().put(token)
    if as_json:
        print_json({**_shown(token), "token": text})
        return
    echo(text)
    say(f"It is not shown again. `imagemill tokens revoke {token.id}` shuts it out.")


@tokens.command("list")
@shared_options
def list_tokens(as_json: bool) -> None:
    """List every token by its id, without the tokens themselves.

    \b
    Example:
      imagemill tokens list
    """
    found = list(_tokens().all())
    if as_json:
        for token in found:
            print_json(_shown(token))
    elif found:
        print_table(
            ("TOKEN", "OWNER", "PERSON", "SCOPES", "RATE", "CREATED", "EXPIRES"),
            (
                (
                    token.id,
                    token.owner,
                    token.person or "-",
                    ",".join(token.scopes),
                    f"{token.rate:g}/s" if token.rate else "-",
                    _time(token.created_at),
                    _time(token.expires_at or "-"),
                )
                for token in found
            ),
            right=("RATE",),
        )
    else:
        say("There are no tokens yet; `imagemill tokens create --help` shows how to make one.")


@tokens.command()
@click.argument("token", nargs=-1, required=True)
@shared_options
def revoke(token: tuple[str, ...], as_json: bool) -> None:
    """Shut each TOKEN out, an id as `imagemill tokens list` shows it. It is refused within seconds.

    \b
    Example:
      imagemill tokens revoke 3f9a61c0de42
    """
    from contract.web.tokens import id_of

    there = _tokens()
    for one in token:
        there.revoke(one)
        id = id_of(one) or one
        if as_json:
            print_json({"revoked": id})
        else:
            say(f"Revoked {id}; servers refuse it within seconds.")


def _tokens() -> Tokens:
    from contract.backend.objects import ObjectStore
    from contract.settings import of_the_store
    from contract.web.tokens import Tokens

    return Tokens(ObjectStore(of_the_store()))


def _shown(token: Token) -> dict[str, object]:
    return token.model_dump(exclude={"sha256"})


def _time(text: str) -> str:
    return text[:16].replace("T", " ")
