"""Sequences whose class is a motion: each does what its name says, and the same arguments give the same bytes."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from contract.errors import InvalidSource
from worker.datasets import motion

STILLS = np.full((1, 28, 28, 1), 255, np.uint8)
STILLS[0, :, 14:] = 128  # lopsided, so that a turn shows


def centres(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The centre of mass of each frame [t, h, w]: (x, y) in pixels."""
    mass = frames.astype(np.float64)
    total = mass.sum(axis=(1, 2))
    places = np.arange(28)
    return np.stack([(mass.sum(1) * places).sum(1) / total, (mass.sum(2) * places).sum(1) / total], 1)


def of(name: str, count: int = 16) -> NDArray[np.uint8]:
    label = motion.MOTIONS.index(name)
    return motion.sequences(STILLS, torch.full((count,), label), f"test {name}", 0)


@pytest.mark.parametrize(("name", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)])
def test_what_moves_moves_that_way(name: str, axis: int, sign: int) -> None:
    for frames in of(name):
        path = centres(frames)
        assert sign * (path[-1] - path[0])[axis] > 2
        assert abs((path[-1] - path[0])[1 - axis]) < 2


@pytest.mark.parametrize(("name", "grows"), [("growing", True), ("shrinking", False)])
def test_what_grows_covers_more_and_more(name: str, grows: bool) -> None:
    for frames in of(name):
        covered = (frames > 0).sum(axis=(1, 2))
        assert (covered[-1] > covered[0]) == grows


def test_a_turn_one_way_is_no_turn_the_other_way() -> None:
    """The heavy half goes round the middle: with the hands of a clock, or against them."""
    for name, sign in (("clockwise", 1), ("counter-clockwise", -1)):
        for frames in of(name):
            whole, heavy = centres((frames > 0).astype(np.uint8)), centres(frames)
            angles = np.unwrap(np.arctan2(*(heavy - whole).T[::-1]))
            assert sign * (angles[-1] - angles[0]) > 0.5


def test_gifs_lose_nothing_and_come_the_same_each_time(tmp_path: Path) -> None:
    source = tmp_path / "idx"
    source.mkdir()
    for stem in ("train", "t10k"):
        (source / f"{stem}-images-idx3-ubyte").write_bytes(
            bytes((0, 0, 8, 3)) + b"".join(n.to_bytes(4, "big") for n in STILLS.shape[:3]) + STILLS.tobytes()
        )
        (source / f"{stem}-labels-idx1-ubyte").write_bytes(bytes((0, 0, 8, 1, 0, 0, 0, 1, 0)))

    first, again = (motion.write(source, tmp_path / name, 16) for name in ("first", "again"))

    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert [path.parent.name for path in first] == ["train", "test"]
    with tarfile.open(first[0]) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert len(members) == 32
    assert members["000001.cls"] == b"right"
    with Image.open(io.BytesIO(members["000000.gif"])) as image:
        assert getattr(image, "n_frames", 1) == motion.FRAMES
        image.seek(3)
        frame = np.asarray(image.convert("L"))
    wanted = motion.sequences(STILLS, torch.arange(16) % 8, "train 0", 0)[0, 3]
    assert np.array_equal(frame, wanted)


def test_a_folder_without_idx_files_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidSource, match="holds no train-images-idx3-ubyte"):
        motion.write(tmp_path, tmp_path / "out", 8)
