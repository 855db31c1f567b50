"""`imagemill webhooks`: who is told how jobs ended. Add, list, show, secret, rotate, resend, enable, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from producer.cli.common import echo, print_fields, print_json, print_table, say, shared_options

if TYPE_CHECKING:
    from contract.web.webhooks.outbox import Told
    from producer.jobs.webhooks import Webhook


@click.group()
def webhooks() -> None:
    """Post the ends of jobs to URLs, and see what was delivered.

    A job, a schedule or a watch with --webhook URL posts how it went to that URL, signed as Standard Webhooks has it.
    WEBHOOK is an id as `imagemill webhooks list` shows it, or the URL.
    """


@webhooks.command()
@click.argument("url")
@shared_options
def add(url: str, as_json: bool) -> None:
    """Make a webhook of URL before the first job names it, and print its id.

    \b
    Example:
      imagemill webhooks add https://example.com/hooks/imagemill
    """
    from producer.client import Client

    found = Client().add_webhook(url)
    if as_json:
        print_json(found.model_dump())
        return
    echo(found.id)
    say(f"`imagemill webhooks secret {found.id}` prints what its receiver checks signatures with.")


@webhooks.command("list")
@shared_options
def list_webhooks(as_json: bool) -> None:
    """List every webhook and how it stands. Paths of URLs are not shown: they may be passwords.

    \b
    Example:
      imagemill webhooks list
    """
    from producer.client import Client

    found = Client().webhooks()
    if as_json:
        for one in found:
            print_json(one.model_dump())
    elif found:
        print_table(
            ("WEBHOOK", "URL", "STATE", "WAITING", "OWNER", "CREATED"),
            (
                (one.id, one.url, one.state, f"{one.waiting:,}", one.owner or "-", _time(one.created_at))
                for one in found
            ),
            right=("WAITING",),
        )
    else:
        say("There are no webhooks yet; give a job --webhook URL, or add one with `imagemill webhooks add`.")


@webhooks.command()
@click.argument("webhook")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Newest messages to list.")
@shared_options
def show(webhook: str, limit: int, as_json: bool) -> None:
    """Show WEBHOOK and its newest messages. With --json, the webhook and then a message a line.

    \b
    Example:
      imagemill webhooks show wh_5f3a61c0de421b7790aa
    """
    from producer.client import Client

    client = Client()
    found, messages = client.webhook(webhook), client.webhook_messages(webhook, limit=limit)
    if as_json:
        print_json(found.model_dump())
        for one in messages:
            print_json(one.model_dump())
        return
    _print(found)
    if messages:
        echo()
        print_table(
            ("MESSAGE", "EVENT", "TIME", "STATE", "SENT", "NOTE"),
            ((one.id, one.type, _time(one.at), one.state, f"{one.attempts:,}", _note(one)) for one in messages),
            right=("SENT",),
        )


@webhooks.command()
@click.argument("webhook")
@shared_options
def secret(webhook: str, as_json: bool) -> None:
    """Print the secret with which messages to WEBHOOK are signed, for its receiver alone.

    \b
    Example:
      imagemill webhooks secret https://example.com/hooks/imagemill
    """
    from producer.client import Client

    _secret(Client().webhook_secret(webhook), as_json)


@webhooks.command()
@click.argument("webhook")
@click.option(
    "--keep",
    metavar="TIME",
    default="24h",
    show_default=True,
    help="How long messages are signed with the earlier secret too.",
)
@shared_options
def rotate(webhook: str, keep: str, as_json: bool) -> None:
    """Make a new secret for WEBHOOK and print it. Until --keep is over, messages carry a signature of each.

    \b
    Example:
      imagemill webhooks rotate wh_5f3a61c0de421b7790aa --keep 7d
    """
    from contract.web.tokens import parse_life
    from producer.client import Client

    _secret(Client().rotate_webhook(webhook, keep=parse_life(keep)), as_json)


@webhooks.command()
@click.argument("webhook")
@click.argument("message", nargs=-1)
@shared_options
def resend(webhook: str, message: tuple[str, ...], as_json: bool) -> None:
    """Send each MESSAGE again, or those of the newest 1,000 that were given up, with the same id and body.

    \b
    Examples:
      imagemill webhooks resend wh_5f3a61c0de421b7790aa
      imagemill webhooks resend wh_5f3a61c0de421b7790aa msg_8204292345678_0e9f2c4b6a8d1f3507c9e2b4
    """
    from producer.client import Client

    found = Client().resend_webhook(webhook, message)
    if as_json:
        for one in found:
            print_json(one.model_dump())
    else:
        say(f"{len(found):,} {'message is' if len(found) == 1 else 'messages are'} sent again.")


@webhooks.command()
@click.argument("webhook")
@shared_options
def enable(webhook: str, as_json: bool) -> None:
    """Send messages to WEBHOOK again after it answered 410. `resend` sends what it missed.

    \b
    Example:
      imagemill webhooks enable wh_5f3a61c0de421b7790aa
    """
    from producer.client import Client

    found = Client().enable_webhook(webhook)
    if as_json:
        print_json(found.model_dump())
    else:
        _print(found)


@webhooks.command()
@click.argument("webhook")
@shared_options
def remove(webhook: str, as_json: bool) -> None:
    """Remove WEBHOOK with its secret and its messages; those that wait are not sent.

    Jobs, schedules and watches that name it go on, and nobody is told of them. The same URL, added again, has the
    same id and another secret.

    \b
    Example:
      imagemill webhooks remove wh_5f3a61c0de421b7790aa
    """
    from producer.client import Client

    client = Client()
    found = client.webhook(webhook)
    client.remove_webhook(found.id)
    if as_json:
        print_json({"removed": found.id})
    else:
        verb = "is" if found.waiting == 1 else "are"
        waited = f"; {found.waiting:,} that waited {verb} not sent" if found.waiting else ""
        say(f"Removed the webhook {found.id} with its messages{waited}.")


def _print(found: Webhook) -> None:
    print_fields(
        {
            "webhook": found.id,
            "url": found.url,
            "state": found.state,
            "reason": found.reason or "",
            "waiting": f"{found.waiting:,}",
            "owner": found.owner,
            "created": _time(found.created_at),
        }
    )


def _secret(text: str, as_json: bool) -> None:
    if as_json:
        print_json({"secret": text})
    else:
        echo(text)


def _note(one: Told) -> str:
    said = (one.last.error or "") if one.last is not None else ""
    later = f"next at {_time(one.next_at)}" if one.next_at and one.attempts else ""
    return "; ".join(part for part in (said, later) if part)


def _time(text: str) -> str:
    return text[:19].replace("T", " ")
