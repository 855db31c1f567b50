"""The parts of a generation that `bench` times do their work to the last image."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from worker.bench import generation as measure
from worker.engine.generators.sampler import Sampler

CPU = torch.device("cpu")


class Painter:
    """A generator of images of one row that counts what it makes."""

    def __init__(self) -> None:
        self.made = 0

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        self.made += len(z)
        return torch.tanh(z)[:, None, None, :]


def test_the_ideal_loop_makes_every_image_once() -> None:
    # Given a count that neither shards nor batches divide,
    painter = Painter()
    assert measure.ideal_loop(painter.decode, 4, CPU, "fp32", count=1_300, classes=3, shard=600, threads=1) > 0
    assert painter.made == 1_300


def test_the_forward_pass_is_that_of_the_engine() -> None:
    painter = Painter()
    assert measure.forward_only(Sampler(painter.decode, 4, 0, CPU, "fp32"), 100, 3) > 0
    assert painter.made == 128, "whole groups"


def test_what_is_encoded_are_images_of_the_model() -> None:
    images = measure.some_images(Sampler(Painter().decode, 4, 0, CPU, "fp32"), 3)
    assert images.shape[1:] == (1, 4, 1) and images.dtype == np.uint8
    assert measure.encode_only(images, threads=2) > 0


def test_the_tar_of_the_ideal_loop_holds_images() -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        measure.write_shard(tar, 7, torch.full((2, 1, 3, 3), 9, dtype=torch.uint8))
    with tarfile.open(fileobj=io.BytesIO(target.getvalue())) as tar:
        assert tar.getnames() == ["000000007.png", "000000008.png"]
        file = tar.extractfile("000000008.png")
        assert file is not None
        assert np.asarray(Image.open(file)).tolist() == [[9] * 3] * 3
