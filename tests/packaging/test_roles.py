"""Each role's extra gives all that its modules import, and a light role gets nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.packaging.conftest import Venv
from tests.test_architecture import FETCHING, HEAVY, ROLES, modules

EXTRAS = {"producer": "", "web": "web,http", "controller": "control", "worker": "worker,local", "local": "worker,local"}
ROOTS = {**ROLES, "web": ROLES["producer"], "worker": ["contract", "worker"], "local": ["contract", "deploy"]}
OVER_HTTP = ("producer.web", "producer.http_", "producer.uploads.through_api")
"""What a producer has with the extras of the role `web` alone."""
OPTIONAL = ("contract.telemetry.spans", "worker.bench.litserve_server", "worker.engine.runtimes.resize_kernel")
"""What no role's extra gives: `otel` may be added to any role, LitServe is installed to be compared with alone, and
Triton comes with a torch for CUDA."""
SERVERS = {"IMAGEMILL_REDIS_URL": "redis://127.0.0.1:1/0", "IMAGEMILL_S3_ENDPOINT": "127.0.0.1:1"}
IMPORT = """
import importlib, importlib.util, json, sys
for module in json.loads(sys.argv[1]):
    importlib.import_module(module)
import contract
heavy = [name for name in json.loads(sys.argv[2]) if importlib.util.find_spec(name)]
print(json.dumps({"from": contract.__path__[0], "heavy": heavy}))
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("role", ROOTS)
def test_every_module_of_a_role_imports_from_the_wheel(role: str, venv: Callable[[str], Venv]) -> None:
    # Given the wheel with a role's extra in an environment of its own,
    installed = venv(EXTRAS[role])
    wanted = [name for name in sorted(modules()) if name.startswith(tuple(ROOTS[role])) and "__main__" not in name]
    wanted = [name for name in wanted if not name.startswith("producer.face") and name not in OPTIONAL]
    if role == "producer":
        wanted = [name for name in wanted if not name.startswith(OVER_HTTP)]
    if role == "controller":
        wanted = [name for name in wanted if name not in FETCHING]

    # if I import every module of the role, I expect them from the wheel,
    found = json.loads(installed.run("python", "-c", IMPORT, json.dumps(wanted), json.dumps(sorted(HEAVY)), **SERVERS))
    assert found["from"].startswith(str(installed.bin.parent))

    # and a light role to do without what is heavy.
    assert role not in (*ROLES, "web") or found["heavy"] == []
