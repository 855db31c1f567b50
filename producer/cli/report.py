"""`imagemill report`: the page of a job."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from contract.printable import printable
from producer.cli.common import print_json, say, shared_options


@click.command()
@click.argument("job")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File. Default: stdout.")
@shared_options
def report(job: str, output: Path | None, as_json: bool) -> None:
    """Write the page of JOB, one self-contained HTML file.

    An evaluate job has figures and plots of the model; a generate or synthesize job, its images and their quality; a
    classify job that has ended, labels, scores, the least certain images and the failures. A worker makes the page of
    a classify job on the first call.

    \b
    Examples:
      imagemill report flowers-test -o flowers.html
      imagemill report animals -o animals.html
    """
    from producer.client import Client

    html = Client().report(job)
    if output is not None:
        output.write_text(html, "utf-8")
        if as_json:
            print_json({"output": str(output), "bytes": len(html.encode())})
        else:
            say(f"Wrote {output}.")
    elif as_json:
        print_json({"html": html})
    else:
        click.echo(printable(html, keep="\n\t") if sys.stdout.isatty() else html)
