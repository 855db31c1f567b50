"""The wheel holds what a checkout holds, and a newcomer's first hour runs from it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mill import ROOT
from tests.packaging.conftest import ROOMS, Venv


def test_it_holds_every_module_and_every_file_that_they_read(wheel: Path) -> None:
    # Given the files of the packages in the checkout, but what is deployed from the checkout,
    files = [path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file()]
    deployed = {("deploy", room) for room in ("docker", "helm", "observability")}
    files = [path for path in files if "__pycache__" not in path.parts and path.parts[:2] not in deployed]
    wanted = {path.as_posix().removeprefix("producer/face/") for path in files}

    # I expect all of them in the wheel,
    held = set(zipfile.ZipFile(wheel).namelist())
    assert wanted - held == set()

    # among them one of each sort that is no module, and the licence, and no test.
    assert {"contract/backend/ledger.lua", "deploy/photos/koala.jpg", "deploy/labels/fashion-mnist.txt"} <= held
    assert {"contract/py.typed", "producer/py.typed", "worker/py.typed", "imagemill/py.typed"} <= held
    assert any(name.startswith("worker/zoo/shipped/fashion-gan") for name in held)
    assert any(name.endswith("/licenses/LICENSE") for name in held)
    tops = {name.partition("/")[0] for name in held}
    assert {name for name in tops if not name.endswith(".dist-info")} == {*ROOMS, "imagemill"}


@pytest.mark.timeout(900)
def test_a_newcomer_labels_photos_from_it(venv: Callable[[str], Venv]) -> None:
    # Given Imagemill installed from the wheel, in a folder that is no checkout,
    installed = venv("worker,local")
    photos = installed.run("python", "-c", "import deploy; print(deploy.__path__[0])").strip() + "/photos"
    assert str(ROOT) not in photos

    # if I start a stack and label the photos,
    installed.run("imagemill", "up", "--detach")
    try:
        job = json.loads(installed.run("imagemill", "classify", photos, "--model", "efficientnet-lite0", "--json"))
        rows = [json.loads(row) for row in installed.run("imagemill", "results", job["id"]).splitlines()]
    finally:
        installed.run("imagemill", "down")

    # I expect a label for each of them, and the same from the public face.
    assert (job["ok"], job["errors"], len(rows)) == (37, 0, 37)
    assert {row["label"] for row in rows if row["key"] == "koala.jpg"} == {"koala"}
    assert (
        installed.run("python", "-c", "from imagemill import Client; print(Client.__module__)") == "producer.client\n"
    )
