"""The `imagemill` command. Starting it imports click and nothing else; a command imports what it needs.

Exit codes: 0 done, 1 the job failed, was canceled or passed its error budget, 2 usage,
3 a service cannot be reached, 130 interrupted. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from contract.errors import ImagemillError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
"""Interrupted by Ctrl-C; the job itself goes on."""

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("deploy.cli:up", "Start the embedded stack: Redis, an S3 store, a controller, workers."),
    "down": ("deploy.cli:down", "Stop the embedded stack; the data stays."),
    "doctor": ("producer.cli.doctor:doctor", "Check every part, and say what to do."),
    "models": ("producer.cli.models:models", "List, show, push, pull, alias and remove models."),
    "classify": ("producer.cli.submit:classify", "Label every image of a folder, bucket or manifest."),
    "train": ("producer.cli.submit:train", "Train a model on labelled images, and publish it."),
    "evaluate": ("producer.cli.submit:evaluate", "Judge a model by labelled images."),
    "generate": ("producer.cli.submit:generate", "Generate images, as they come."),
    "synthesize": (
        "producer.cli.submit:synthesize",
        "Generate a dataset: images of each class that pass every test.",
    ),
    "verify": ("producer.cli.submit:verify", "Generate images of a job again, and compare."),
    "schedule": ("producer.cli.schedule:schedule", "Have jobs made by the clock, and see what came of them."),
    "jobs": ("producer.cli.jobs:jobs", "List jobs, newest first."),
    "show": ("producer.cli.jobs:show", "Show one job."),
    "follow": ("producer.cli.follow:follow", "Follow a job to its end."),
    "cancel": ("producer.cli.jobs:cancel", "Stop a job; what is labelled stays."),
    "resume": ("producer.cli.jobs:resume", "Go on with a job that stopped."),
    "retry": ("producer.cli.jobs:retry", "Run the failed images of a job again."),
    "errors": ("producer.cli.results:errors", "List the images of a job that failed, and why."),
    "results": ("producer.cli.results:results", "Write the labels of a job, in a format of your choice."),
    "export": ("producer.cli.export:export", "Write the images of a job that generated some, as a data set."),
    "report": ("producer.cli.report:report", "Write the page of a job."),
    "rebuild": ("producer.cli.jobs:rebuild", "Write the ledger anew from the bucket."),
}
"""Each command, in the order of `--help`: where it is, and its line there."""


class LazyGroup(click.Group):
    """A group that imports a command when it is called, and ends errors as one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands, from their lines above: nothing is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except ImagemillError as error:
            click.echo(f"imagemill: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            # Whoever read us has enough. The interpreter flushes stdout once more when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except OSError as error:
            if error.filename is None:
                raise
            click.echo(f"imagemill: {error.filename}: {error.strerror}.", err=True)
            ctx.exit(EXIT_FAILED)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Run `imagemill COMMAND --help` for an example of each.",
)
def cli() -> None:
    """Label images in bulk, and generate them in bulk.

    \b
    Example:
      imagemill up --detach
      imagemill classify photos --model efficientnet-lite0
      imagemill results JOB --format csv -o labels.csv
    """


def main() -> None:
    """The entry point of the `imagemill` script."""
    cli(prog_name="imagemill")
