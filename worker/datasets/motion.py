"""Makes image sequences whose class is a motion, of still images: what a model of sequences can be tried on.

A garment of Fashion-MNIST, or a digit of MNIST, moves left, right, up or down, turns, grows or shrinks. Place, angle
and size are random and spread alike in every class, and each motion has its reverse: a single frame says little.
"""

from __future__ import annotations

import io
import math
import tarfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from contract.errors import InvalidSource
from worker.datasets.idx import read_pair
from worker.engine.seeds import derived
from worker.sources import idx

MOTIONS = ("left", "right", "up", "down", "clockwise", "counter-clockwise", "growing", "shrinking")
FRAMES = 8
_PLACE, _STEP = 0.35, 0.4  # of half the canvas: how far off the middle, and how far a motion goes
_TURN = math.pi / 2
_SCALE, _GROWTH = (0.45, 0.75), 1.4  # of the canvas, and by what factor a motion grows
_A_TAR = 4096


def write(source: Path, target: Path, count: int, *, seed: int = 0) -> list[Path]:
    """Write `count` sequences of the training images under `source` and a fifth of it of the test images.

    `source` holds IDX files. They become WebDataset tars of animated GIFs with `.cls` files, in `target/train` and
    `target/test`; the same arguments give the same bytes. Raises InvalidSource where there are no such files.
    """
    written = []
    found = idx.pairs([str(path) for path in source.iterdir()])
    for part, stem, number in (("train", "train", count), ("test", "t10k", max(1, count // 5))):
        pair = found.get(str(source / stem))
        if pair is None:
            raise InvalidSource(f"{source} holds no {stem}-images-idx3-ubyte; name the folder of MNIST or the like.")
        with open(pair.images, "rb") as images, open(pair.labels, "rb") as labels:
            stills, _ = read_pair(images, labels, pair)
        written += _write_part(stills, target / part, number, f"{part} {seed}")
    return written


def sequences(stills: NDArray[np.uint8], labels: Tensor, purpose: str, first: int) -> NDArray[np.uint8]:
    """Return a sequence for each label int64 [n], uint8 [n, t, h, w], of stills [m, h, w, 1] drawn at random.

    The draw depends on `purpose` and `first`, the number of the first sequence.
    """
    n = len(labels)
    draws = torch.Generator().manual_seed(derived(0, f"motion {purpose}", first))
    chosen = torch.randint(len(stills), (n,), generator=draws)
    images = torch.from_numpy(stills[chosen.numpy()]).permute(0, 3, 1, 2).float()
    # Where each motion is half done. What moves goes from −half to +half of it.
    place = (torch.rand(n, 2, generator=draws) * 2 - 1) * _PLACE
    angle = torch.rand(n, generator=draws) * 2 * math.pi
    low, high = map(math.log, _SCALE)
    scale = low + torch.rand(n, generator=draws) * (high - low)
    way = torch.linspace(-0.5, 0.5, FRAMES)[None, :]
    one = functional.one_hot(labels, len(MOTIONS)).float()
    along = one[:, [1, 3, 4, 6]] - one[:, [0, 2, 5, 7]]  # right, down, clockwise, growing; −1 is the reverse
    x = place[:, :1] + along[:, 0:1] * way * _STEP
    y = place[:, 1:] + along[:, 1:2] * way * _STEP
    turn = angle[:, None] + along[:, 2:3] * way * _TURN
    size = torch.exp(scale[:, None] + along[:, 3:4] * way * math.log(_GROWTH))
    # From a place on the canvas back to one on the still: shift, turn back, enlarge.
    cos, sin = turn.cos() / size, turn.sin() / size
    rows = torch.stack(
        [torch.stack([cos, sin, -(cos * x + sin * y)], -1), torch.stack([-sin, cos, sin * x - cos * y], -1)], -2
    ).flatten(0, 1)
    grid = functional.affine_grid(rows, [n * FRAMES, 1, *images.shape[2:]], align_corners=False)
    moved = functional.grid_sample(images.repeat_interleave(FRAMES, 0), grid, align_corners=False)
    frames: NDArray[np.uint8] = moved.round().byte().view(n, FRAMES, *images.shape[2:]).numpy()
    return frames


def gif(frames: NDArray[np.uint8]) -> bytes:
    """Frames uint8 [t, h, w] as an animated GIF, gray, without loss."""
    pictures = [Image.fromarray(frame) for frame in frames]
    target = io.BytesIO()
    pictures[0].save(target, "GIF", save_all=True, append_images=pictures[1:], duration=100, loop=0, optimize=False)
    return target.getvalue()


def _write_part(stills: NDArray[np.uint8], folder: Path, count: int, purpose: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for first in range(0, count, _A_TAR):
        labels = torch.arange(first, min(first + _A_TAR, count)) % len(MOTIONS)
        path = folder / f"motion-{first // _A_TAR:04d}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, frames in enumerate(sequences(stills, labels, purpose, first), first):
                _add(tar, f"{number:06d}.gif", gif(frames))
                _add(tar, f"{number:06d}.cls", MOTIONS[number % len(MOTIONS)].encode())
        written.append(path)
    return written


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
