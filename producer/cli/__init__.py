"""The `imagemill` command. Starting it imports click and nothing else; a command imports what it needs.

Exit codes: 0 done, 1 the job failed, was canceled or exceeded its error budget, 2 usage,
3 a service cannot be reached, 130 interrupted. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from typing import Any

import click

from contract.errors import ImagemillError
from contract.printable import printable

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
"""Interrupted by Ctrl-C; the job itself goes on."""

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("deploy.cli:up", "Start the embedded stack: Redis, an S3 store, a controller, workers."),
    "down": ("deploy.cli:down", "Stop the embedded stack, and keep its data."),
    "doctor": ("producer.cli.doctor:doctor", "Check every part, and say how to fix it."),
    "models": ("producer.cli.models:models", "List, show, push, pull, alias and remove models."),
    "classify": ("producer.cli.submit:classify", "Label every image of a folder, bucket or manifest."),
    "train": ("producer.cli.submit:train", "Train a model on labelled images, and publish it."),
    "evaluate": ("producer.cli.submit:evaluate", "Evaluate a model on labelled images."),
    "generate": ("producer.cli.submit:generate", "Generate images without a quality gate."),
    "synthesize": (
        "producer.cli.submit:synthesize",
        "Generate a dataset of images that pass a quality gate.",
    ),
    "verify": ("producer.cli.submit:verify", "Generate images of a job again, and compare."),
    "schedule": ("producer.cli.schedule:schedule", "Submit jobs on a schedule, and see how they went."),
    "watch": ("producer.cli.watch:watch", "Label a bucket as it fills, and see how far behind that is."),
    "serve": ("producer.cli.serve:serve", "Have workers answer single requests with a model."),
    "unserve": ("producer.cli.serve:unserve", "Have workers answer no more requests with a model."),
    "served": ("producer.cli.serve:served", "List the served models, and how each stands."),
    "datasets": ("producer.cli.datasets:datasets", "List, show, own and remove datasets that grow."),
    "jobs": ("producer.cli.jobs:jobs", "List jobs, and remove them."),
    "show": ("producer.cli.jobs:show", "Show one job."),
    "follow": ("producer.cli.follow:follow", "Follow a job to its end."),
    "cancel": ("producer.cli.jobs:cancel", "Stop a job, and keep what it has done."),
    "resume": ("producer.cli.jobs:resume", "Continue a job that stopped."),
    "retry": ("producer.cli.jobs:retry", "Run the failed images of a job again."),
    "errors": ("producer.cli.results.rows:errors", "List the failed images of a job, and why they failed."),
    "results": ("producer.cli.results.rows:results", "Write the labels of a job as JSONL, CSV, Parquet, …"),
    "reviews": ("producer.cli.results.reviews:reviews", "Show and import what people said of a job's labels."),
    "export": ("producer.cli.export:export", "Write the generated images of a job as a dataset."),
    "report": ("producer.cli.report:report", "Write the HTML page of a job."),
    "top": ("producer.cli.top:top", "Watch queues, jobs and workers."),
    "workers": ("producer.cli.workers:workers", "List the workers, and drain one."),
    "web": ("producer.cli.web.server:web", "Serve the HTTP API and the console."),
    "tokens": ("producer.cli.web.tokens:tokens", "Say who may use the HTTP API."),
    "webhooks": ("producer.cli.web.webhooks:webhooks", "Post the ends of jobs to URLs, and see what was delivered."),
    "gc": ("producer.cli.clean:gc", "Delete what nobody needs."),
    "rebuild": ("producer.cli.jobs:rebuild", "Rewrite the ledger from the bucket."),
}
"""Each command in the order of `--help`: where it is defined, and its line of help."""


class LazyGroup(click.Group):
    """A group that imports a command when it is called, and turns an error into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except ImagemillError as error:
            click.echo(printable(f"imagemill: {error}"), err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            # The reader of the pipe has gone. The interpreter flushes stdout once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except OSError as error:
            if error.filename is None:
                raise
            click.echo(printable(f"imagemill: {error.filename}: {error.strerror}."), err=True)
            ctx.exit(EXIT_FAILED)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`imagemill COMMAND --help` shows examples of a command.",
)
def cli() -> None:
    """Label and generate images in bulk.

    \b
    Example:
      imagemill up --detach
      imagemill classify photos --model efficientnet-lite0
      imagemill results JOB --format csv -o labels.csv
    """


def main() -> None:
    """The entry point of the `imagemill` script."""
    try:
        cli(prog_name="imagemill")
    finally:
        # The interpreter looks through all objects several times on its way out, for cycles that end with the process.
        gc.freeze()
