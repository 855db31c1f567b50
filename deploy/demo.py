"""`make demo`: labels the photos of this project on a stack of its own, and shows what came out.

It uses the commands that a user would, and stops what it started, however it ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

PHOTOS = Path(__file__).with_name("photos")
DATA = Path(".imagemill-demo")
MODEL = "efficientnet-lite0"
IMAGEMILL = os.path.relpath(Path(sys.executable).with_name("imagemill"))


def main() -> int:
    """Returns the exit code: 0 where every photo has a label, else that of the command that failed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    try:
        call("up", "--detach")
        # One object on stdout; the progress bar is on stderr and stays in the terminal.
        job = json.loads(call("classify", str(PHOTOS), "--model", MODEL, "--json"))
        rows = [json.loads(line) for line in call("results", job["id"], "--format", "jsonl").splitlines()]
        console.print(table(rows))
        console.print(f"{job['ok']} photos labelled, {job['errors']} errors, job {job['id']}")
        console.print(f"Results: {job['output']}, kept in {DATA}. To look again:", soft_wrap=True)
        console.print(f"  {IMAGEMILL} up --data {DATA} --detach", soft_wrap=True)
        console.print(f"  {IMAGEMILL} results {job['id']} --format csv --data {DATA}", soft_wrap=True)
        return 0
    except KeyboardInterrupt:
        return 130
    except subprocess.CalledProcessError as error:
        print(f"`imagemill {error.cmd[1]}` failed; the logs are in {DATA / 'logs'}.", file=sys.stderr)
        return int(error.returncode)
    finally:
        # A second Ctrl-C must not keep it from stopping.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        call("down")


def call(*arguments: str) -> str:
    """Return the stdout of an `imagemill` command; its stderr goes to ours."""
    # The demo is about its own stack, whatever servers the user has told Imagemill of.
    env = {name: value for name, value in os.environ.items() if not name.startswith("IMAGEMILL_")}
    env["IMAGEMILL_DATA"] = str(DATA)
    done = subprocess.run([IMAGEMILL, *arguments], env=env, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def table(rows: Sequence[dict[str, object]]) -> Table:
    """Return one line per photo: file, label and score, or its error code."""
    drawn = Table("file", "label", "score")
    drawn.columns[2].justify = "right"
    for row in sorted(rows, key=lambda row: str(row["key"])):
        good = row["status"] == "ok"
        score = f"{row['score']:.2f}" if good else ""
        drawn.add_row(Path(str(row["key"])).name, str(row["label"] if good else row["error_code"]), score)
    return drawn


if __name__ == "__main__":
    sys.exit(main())
