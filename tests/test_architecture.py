"""The rooms and the doors between them: imports run one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "contract": {"contract"},
    "producer": {"producer", "contract"},
    "worker": {"worker", "contract"},
    "deploy": {"deploy", "contract"},
}
HEAVY = {"torch", "openvino", "PIL", "numpy"}
READS_PIXELS = "producer/exports/images/idx.py"
"""The one light module that may import Pillow, when it is called: a producer can do without all else that is heavy."""


def imports(path: Path) -> set[str]:
    """Top-level names that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def files(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    assert found, f"{room} has no files"
    return found


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_only_what_they_may(room: str) -> None:
    for path in files(room):
        others = (imports(path) & set(ALLOWED)) - ALLOWED[room]
        assert not others, f"{path.relative_to(ROOT)} imports {others}"


@pytest.mark.parametrize("room", ["contract", "producer"])
def test_the_light_rooms_never_import_what_is_heavy(room: str) -> None:
    for path in files(room):
        allowed = {"PIL"} if path.relative_to(ROOT).as_posix() == READS_PIXELS else set()
        assert not (imports(path) & HEAVY) - allowed, path


def test_pillow_is_imported_when_pixels_are_read_and_not_before() -> None:
    top = ast.parse((ROOT / READS_PIXELS).read_text()).body
    assert not any("PIL" in ast.unparse(node) for node in top if isinstance(node, ast.Import | ast.ImportFrom))


def test_the_engine_knows_no_queue_and_no_ledger() -> None:
    for path in files("worker/engine"):
        assert not imports(path) & {"celery", "redis", "kombu", "minio"}, path


def test_only_settings_reads_the_environment() -> None:
    for room in ("contract", "producer"):
        for path in files(room):
            if path.name != "settings.py":
                assert "os.environ" not in path.read_text(), path


@pytest.mark.parametrize("module", ["producer", "producer.cli", "worker.control.reconcile", "worker.tasks.control"])
def test_neither_producer_nor_controller_loads_torch(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("IMAGEMILL_S3_ENDPOINT", "127.0.0.1:1")
    code = f"import sys, {module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() in ("[]", "['numpy']"), "pyarrow may bring numpy, nothing may bring torch"
