"""The acceptance program itself, tried on a CPU, where its figures mean nothing: a mistake in it would cost a lease."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.gpu.acceptance.__main__ import main

ON_CPU = ("--device", "cpu", "--seconds", "1e9")


def test_it_leaves_a_report(tmp_path: Path) -> None:
    assert main([*ON_CPU, "--images", "16", "--only", "generation", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["checks"] and all(check["passed"] for check in found["checks"])
    assert set(found["figures"]) == {"ceilings", "generation"}
    assert "| fashion-gan" in (tmp_path / "gpu.md").read_text()


def test_it_compares_resizing_with_pillow(tmp_path: Path) -> None:
    assert main([*ON_CPU, "--images", "16", "--only", "resize", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert "photos have the pixels of Pillow" in {check["name"] for check in found["checks"]}


def test_it_compares_decoding_with_pillow_or_says_that_it_does_not(tmp_path: Path) -> None:
    assert main([*ON_CPU, "--images", "16", "--only", "jpeg", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    if find_spec("nvidia") is None or find_spec("nvidia.nvimgcodec") is None:
        assert "JPEG on the device" in found["skipped"]
        assert "| JPEG on the device |" in (tmp_path / "gpu.md").read_text()
    else:
        assert "photos are within a few levels of Pillow's" in {check["name"] for check in found["checks"]}


def test_it_compares_sequences_with_those_of_a_cpu(tmp_path: Path) -> None:
    assert main([*ON_CPU, "--only", "sequences", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert "sequences, fp32: as on a CPU" in {check["name"] for check in found["checks"]}
    assert set(found["figures"]) == {"ceilings", "sequences"}


def test_it_labels_from_files_to_answers(tmp_path: Path) -> None:
    assert main([*ON_CPU, "--images", "16", "--only", "labelling", "--out", str(tmp_path)]) == 0
    # What could not be measured is null: JSON has no word for what is not a number.
    found = json.loads((tmp_path / "gpu.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert found["figures"]["labelling"]["decode in process: device busy, by events"] is None


def test_a_stage_that_comes_too_late_is_no_success(tmp_path: Path) -> None:
    assert main(["--device", "cpu", "--seconds", "0", "--only", "sequences", "--out", str(tmp_path)]) == 1
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert "sequences begins in time" in {check["name"] for check in found["checks"] if not check["passed"]}
    assert "sequences" not in found["figures"]


def test_without_a_device_it_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cuda:99", "--out", str(tmp_path)]) == 2
    assert "cuda:99" in capsys.readouterr().err
    assert not (tmp_path / "gpu.json").exists(), "nothing that could be taken for a result"
