"""The rooms and the doors between them: imports run one way.

A newcomer finds the order of the worker's packages in `FLOORS`: a package imports from the floors below its own, never
from beside or above it.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {
    "contract": {"contract"},
    "producer": {"producer", "contract"},
    "worker": {"worker", "contract"},
    "deploy": {"deploy", "contract"},
}
"""Each room, and the rooms that it may import."""

FLOORS = [
    {"app", "cli", "tasks"},
    {"process"},
    {"bench"},
    {"control", "models"},
    {"classify", "generation"},
    {"evaluation"},
    {"training"},
    {"execution"},
    {"datasets"},
    {"pages", "sources"},
    {"engine", "pictures"},
    {"confinement", "metrics", "observe", "zoo"},
]
"""The packages and modules of `worker`, from the top floor down."""

HEAVY = {"torch", "openvino", "PIL", "numpy"}
SERVERS = {"celery", "redis", "kombu", "minio", "obstore"}
READS_PIXELS = "producer/exports/images/idx.py"
"""The one light module that may import Pillow, when it is called: a producer can do without all else that is heavy."""


def files(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"{folder} has no files"
    return found


def name_of(path: Path) -> str:
    """The module that a file is: `worker.engine.select`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> frozenset[str]:
    return frozenset(name_of(path) for room in ROOMS for path in files(room))


def imports(path: Path, *, lazy: bool = True) -> Iterator[str]:
    """The modules that a file imports, as full names; without `lazy` only those of its top level, types left out."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if lazy else iter(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in modules() else node.module


def rooms(path: Path) -> set[str]:
    """The top-level names that a file imports."""
    return {found.partition(".")[0] for found in imports(path)}


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_they_may(room: str) -> None:
    for path in files(room):
        others = (rooms(path) & set(ROOMS)) - ROOMS[room]
        assert not others, f"{path.relative_to(ROOT)} imports {others}"


def test_no_module_imports_itself_through_others() -> None:
    graph = {name_of(path): set(imports(path, lazy=False)) & modules() for room in ROOMS for path in files(room)}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def test_every_package_of_the_worker_has_its_floor() -> None:
    there = {name.split(".")[1] for name in modules() if name.startswith("worker.")}
    assert there == set().union(*FLOORS)
    for above, below in pairwise(FLOORS):
        assert not above & below


@pytest.mark.parametrize("package", sorted(set().union(*FLOORS)))
def test_a_package_of_the_worker_imports_from_the_floors_below(package: str) -> None:
    floor = next(n for n, names in enumerate(FLOORS) if package in names)
    below = {package}.union(*FLOORS[floor + 1 :])
    if floor == 0:
        below |= FLOORS[0]  # the program and its tasks know each other
    place = ROOT / "worker" / package
    for path in files(f"worker/{package}") if place.is_dir() else [place.with_suffix(".py")]:
        for found in imports(path):
            if found.startswith("worker."):
                other = found.split(".")[1]
                assert other in below, f"{path.relative_to(ROOT)} imports {found}, which lies above {package}"


@pytest.mark.parametrize("package", ["confinement", "engine", "metrics", "pages", "pictures", "zoo"])
def test_what_computes_knows_no_server(package: str) -> None:
    for path in files(f"worker/{package}"):
        assert not rooms(path) & SERVERS, path
        assert not any(found.startswith("contract.backend") for found in imports(path)), path


def test_a_learner_knows_no_server() -> None:
    speaks = {"job.py", "publish.py"}
    for path in files("worker/training"):
        if path.name not in speaks:
            assert not any(found.startswith("contract.backend") for found in imports(path)), path


@pytest.mark.parametrize("folder", ["contract", "producer", "worker/control", "worker/observe"])
def test_what_is_light_imports_nothing_heavy(folder: str) -> None:
    for path in files(folder):
        allowed = {"PIL"} if path.relative_to(ROOT).as_posix() == READS_PIXELS else set()
        assert not (rooms(path) & HEAVY) - allowed, path


def test_pillow_is_imported_when_pixels_are_read_and_not_before() -> None:
    assert "PIL" not in {found.partition(".")[0] for found in imports(ROOT / READS_PIXELS, lazy=False)}


def test_only_settings_reads_the_environment() -> None:
    for room in ("contract", "producer"):
        for path in files(room):
            if path.name != "settings.py":
                assert "os.environ" not in path.read_text(), path


@pytest.mark.parametrize("room", ROOMS)
def test_every_package_says_what_lives_there(room: str) -> None:
    for path in files(room):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(ROOT)} has no docstring"


@pytest.mark.parametrize("room", ROOMS)
def test_a_folder_fits_on_a_screen(room: str) -> None:
    for folder in {path.parent for path in files(room)}:
        # A cache is no entry: it is there only where something was imported before.
        found = [path for path in folder.iterdir() if path.name != "__pycache__"]
        entries = [path for path in found if path.is_dir() or path.suffix == ".py"]
        assert len(entries) <= 22, f"{folder.relative_to(ROOT)} has {len(entries)} entries"


BLOCK = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {heavy}:
            raise ImportError(name + " is not installed for this role")

sys.meta_path.insert(0, Absent())
for module in {modules}:
    importlib.import_module(module)
"""

ROLES = {
    "producer": ["contract", "producer"],
    "controller": [
        "contract",
        "worker.app",
        "worker.cli",
        "worker.control",
        "worker.observe",
        "worker.tasks",
        "worker.sources",
    ],
}
"""What a role imports that is installed without the worker's libraries."""
FETCHING = {"worker.sources.fetch", "worker.sources.obstore_reader"}
"""The modules of `worker.sources` that read images; the others list them."""


@pytest.mark.parametrize("role", ROLES)
def test_a_light_role_imports_where_nothing_heavy_is_installed(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("IMAGEMILL_S3_ENDPOINT", "127.0.0.1:1")
    # Given all modules of a role; the controller and the clock load every task,
    roots = tuple(ROLES[role])
    wanted = [name for name in sorted(modules()) if name.startswith(roots) and not name.endswith("__main__")]

    # if I import them where numpy, torch, OpenVINO and Pillow are absent, I expect no error.
    code = BLOCK.format(heavy=sorted(HEAVY), modules=[name for name in wanted if name not in FETCHING])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_controller_starts_without_arrow() -> None:
    # Given an environment in which Arrow is installed, if a controller loads its tasks, I expect it not to load Arrow,
    # which takes 0.2 s of CPU at each start.
    code = "import sys, worker.app, worker.tasks.control, worker.tasks.work; print('pyarrow' in sys.modules)"
    addresses = {"IMAGEMILL_REDIS_URL": "redis://127.0.0.1:1/0", "IMAGEMILL_S3_ENDPOINT": "127.0.0.1:1"}
    keys = {"IMAGEMILL_S3_ACCESS_KEY": "key", "IMAGEMILL_S3_SECRET_KEY": "secret"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **addresses, **keys},
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.stdout.strip() == "False", done.stderr[-2000:]


def test_the_client_is_what_the_producer_offers() -> None:
    import producer
    from producer.client import Client
    from producer.http_client import HttpClient

    assert producer.Client is Client
    assert producer.HttpClient is HttpClient
    assert producer.__all__ == ["Client", "HttpClient"]
