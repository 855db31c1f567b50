"""`make lock`: writes what each kind of installation needs, with the hash of every file of every release.

Versions come from `constraints.txt`, which is given those of new packages, so that both say the same. Each file holds
what the ones before it do not. Torch is left out, but not what it needs: which build fits depends on the machine, and
each index has files of its own.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAGES = {
    "control": ["control"],
    # Before `web`, since FastAPI needs a part of it: images have traces without a web server, but not the reverse.
    "otel": ["otel"],
    "web": ["web"],
    "local": ["local"],
    "worker": ["worker"],
    "test": ["test"],
    "dev": ["dev", "docs"],
    "supply": ["supply"],
}
"""The extras that each file adds. `control.txt` holds what every installation needs."""
ALWAYS = {
    # The backend that builds this project, which is then not fetched unseen.
    "control": ["setuptools>=77"],
    # What the web server and workers alike render pages with: each image has this lock, and but one of the two others.
    "otel": ["jinja2"],
    # What torch needs beside its own libraries.
    "worker": ["filelock", "fsspec", "jinja2", "networkx", "sympy", "typing-extensions"],
}
OLDEST = "3.11"
"""The oldest Python that every stage can be installed on; Debian 12 has 3.11.2."""
HEAD = "# Written by `make lock` from pyproject.toml and constraints.txt; do not edit. For the extra{s} {extras}.\n"


def main() -> None:
    extras: list[str] = []
    more: list[str] = []
    known: set[str] = set()
    for stage, added in STAGES.items():
        extras += added
        more += ALWAYS.get(stage, [])
        blocks = {name: block for name, block in resolve(extras, more).items() if name not in known}
        known |= set(blocks)
        head = HEAD.format(s="" if len(added) == 1 else "s", extras=" and ".join(added))
        (ROOT / "locks" / f"{stage}.txt").write_text(head + "".join(blocks.values()))
        pin(blocks.values())
        print(f"locks/{stage}.txt: {len(blocks)} packages")


def pin(blocks: Iterable[str]) -> None:
    """Add the packages that `constraints.txt` does not know yet, each at its place in the alphabet."""
    path = ROOT / "constraints.txt"
    head, *pins = path.read_text().splitlines()
    known = {normal(line) for line in pins}
    pins += [block.split(";")[0].split("\\")[0].strip() for block in blocks if normal(block) not in known]
    path.write_text("\n".join([head, *sorted(pins, key=normal)]) + "\n")


def normal(pinned: str) -> str:
    """Return the name before `==`, as PyPI compares names."""
    return re.sub(r"[-_.]+", "-", pinned.partition("==")[0]).lower()


def resolve(extras: list[str], more: list[str]) -> dict[str, str]:
    """Return the lines of each package, by name, for Linux and macOS and every Python from `OLDEST` on."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, without = Path(folder, "more.in"), Path(folder, "without.txt")
        wanted.write_text("\n".join(more))
        without.write_text('torch ; sys_platform == "never"\n')
        command = [
            str(Path(sys.executable).with_name("uv")),
            *("pip", "compile", "--quiet", "--universal", "--python-version", OLDEST, "--generate-hashes"),
            *("--no-header", "--no-annotate", "--no-emit-package", "torch"),
            *("--constraints", "constraints.txt", "--overrides", str(without)),
            *(word for extra in extras for word in ("--extra", extra)),
            *("pyproject.toml", str(wanted)),
        ]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    blocks: dict[str, str] = {}
    name = ""
    for line in done.stdout.splitlines(keepends=True):
        if not line.startswith((" ", "#")):
            name = line.partition("==")[0]
        if not line.startswith("#"):
            blocks[name] = blocks.get(name, "") + line
    # Whatever only torch brought is not for any machine.
    return {name: block for name, block in blocks.items() if "'never'" not in block}


if __name__ == "__main__":
    main()
