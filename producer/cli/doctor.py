"""`imagemill doctor`: check everything that a job needs."""

from __future__ import annotations

import dataclasses

import click

from producer.cli.common import echo, print_json, shared_options


@click.command()
@shared_options
def doctor(as_json: bool) -> None:
    """Check settings, Redis, the store, models and workers; each ✗ says what to do.

    The exit code is 0 if all checks pass, 3 if a service cannot be reached, and 1 otherwise.

    \b
    Example:
      imagemill doctor
    """
    from producer.doctor import exit_code, run_checks

    checks = []
    for check in run_checks():
        checks.append(check)
        if not as_json:
            echo(f"{'✓' if check.ok else '✗'} {check.name:<16} {check.detail}")
    code = exit_code(checks)
    if as_json:
        print_json({"ok": code == 0, "checks": [dataclasses.asdict(check) for check in checks]})
    raise click.exceptions.Exit(code)
