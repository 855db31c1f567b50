"""Runs a model that generates images, on torch: channels-last, bf16 where the device has it. It knows no jobs.

Imports torch, which is faster here than OpenVINO: the zoo's generator makes 3,812 images/s of 28 × 28 on two cores,
and 2,243 on OpenVINO, which computes transposed convolutions in fp32.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor, nn

from contract.errors import ModelError
from worker.engine.arithmetic import settle
from worker.engine.cores import cores
from worker.engine.generators.autoencoder import Autoencoder
from worker.engine.generators.drawn import DrawnSampler
from worker.engine.generators.sampler import Sampler
from worker.engine.memory import calm_openmp, tune_allocator
from worker.engine.precision import precision_on
from worker.engine.programs.graph import load_family
from worker.engine.runtimes.out_of_memory import out_of_memory
from worker.engine.select import torch_device
from worker.engine.types import ModelSpec, Precision

_ROUNDED = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
"""The layers that autocast computes in bf16; norms and embeddings stay in fp32."""


class _Decodes(Protocol):
    latent: int

    def decode(self, z: Tensor, y: Tensor) -> Tensor: ...


class _Encodes(_Decodes, Protocol):
    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]: ...


class Generator:
    """A model of the task `generate` with its weights, on a device.

    Raises ModelError if the weights do not fit the family, and InvalidSettings if the device or the precision is
    unavailable.
    """

    name = "torch"

    def __init__(self, spec: ModelSpec, *, device: str = "auto", precision: str = "auto", threads: int = 0) -> None:
        self.device = torch_device(device)
        place = torch.device(self.device)
        if place.type == "cpu":
            tune_allocator()
            calm_openmp()
            torch.set_num_threads(threads or cores())
        settle(place)
        self.precision: Precision = precision_on(place, precision)
        self._place = place
        with out_of_memory():
            self._module = load_family(spec).eval().requires_grad_(False).to(place)
        for weight in self._module.parameters():
            if weight.dim() == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        if self.precision == "bf16":
            # Autocast would cast the same weights again for each group. The images are identical, and 6 % faster in
            # groups of 64 at 28 × 28.
            for layer in self._module.modules():
                if isinstance(layer, _ROUNDED):
                    layer.to(torch.bfloat16)

    def sampler(self, seed: int, truncation: float | None = None) -> Sampler:
        """Return a sampler of images by class and number under a seed."""
        module = cast(_Decodes, self._module)
        return Sampler(module.decode, module.latent, seed, self._place, self.precision, truncation)

    def drawn(self) -> DrawnSampler:
        """Return a sampler of images under several seeds at a time."""
        module = cast(_Decodes, self._module)
        return DrawnSampler(module.decode, module.latent, self._place, self.precision)

    def autoencoder(self) -> Autoencoder:
        """Return the encoder and decoder; raise ModelError if the family has no encoder."""
        if not hasattr(self._module, "encode"):
            raise ModelError("The family of the model has no encoder; use one that has, such as a vae.")
        module = cast(_Encodes, self._module)
        return Autoencoder(module.encode, module.decode, self._place, self.precision)
