"""A program runs channels-last where that pays, and gives the answers that it gave before."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.gpu.acceptance.architectures import ConvNext, Vit
from tests.programs import export
from worker.engine.programs import layout
from worker.engine.programs.program import Program, load_program

SIZE = 32


class Residual(nn.Module):
    """Convolutions, in-place activations, and the views that authors write."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.norm, self.act = nn.BatchNorm2d(16), nn.ReLU(inplace=True)
        self.head = nn.Linear(16 * (SIZE // 2) ** 2, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.act(self.first(x))
        n, c, high, wide = x.shape
        shuffled = x.view(n, 4, c // 4, high, wide).transpose(1, 2).reshape(n, c, high, wide)
        x = self.act(self.norm(self.second(shuffled)) + x)
        features = x.view(n, -1)
        return self.head(features), features


class Strided(nn.Module):
    """Looks at memory where a contiguous tensor would have its first channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x))
        return x.as_strided((x.shape[0], SIZE), (4 * SIZE * SIZE, 1))


class Written(nn.Module):
    """Writes through a view of what it reads again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x))
        x.view(x.shape[0], -1).mul_(2.0)
        return functional.adaptive_avg_pool2d(x, 1).flatten(1)


def loaded(model: nn.Module, folder: Path) -> Program:
    torch.manual_seed(3)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return load_program(export(model.eval(), folder / "model.pt2", size=SIZE), channels=3, size=SIZE)


def convolved(program: Program) -> list[Tensor]:
    """The weights of its convolutions."""
    return [weight for weight in program.parameters() if weight.dim() == 4]


@pytest.mark.parametrize("make", [Residual, lambda: ConvNext(classes=7, widths=(16, 32), depths=(1, 1))])
@pytest.mark.parametrize("n", [1, 3])
def test_answers_are_the_same_channels_last(make: type[nn.Module], n: int, tmp_path: Path) -> None:
    # Given a program with several convolutions and its answers,
    program = loaded(make(), tmp_path)
    pixels = torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(n))
    logits, features = (found.clone() for found in program(pixels))
    # if it is laid out anew, I expect weights in that layout, and the same answers up to the order of sums.
    assert layout.pays(program.body)
    assert program.lay_out()
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in convolved(program))
    found = program(pixels)
    torch.testing.assert_close(found[0], logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], features, rtol=1e-4, atol=1e-4)


def test_its_convolutions_really_run_in_that_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = loaded(Residual(), tmp_path)
    assert program.lay_out()
    seen = []

    class Watched(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            found = super().run_node(n)
            if n.op == "call_function" and "conv2d" in str(n.target):
                seen.append(cast(Tensor, found).is_contiguous(memory_format=torch.channels_last))
            return found

    Watched(program.body).run(torch.randn(2, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last))
    assert seen == [True, True]


@pytest.mark.parametrize("model", [Strided(), Written()])
def test_a_program_that_depends_on_the_layout_keeps_it(model: nn.Module, tmp_path: Path) -> None:
    program = loaded(model, tmp_path)
    pixels = torch.randn(2, 3, SIZE, SIZE)
    wanted = program(pixels)[0].clone()
    assert not program.lay_out()
    torch.testing.assert_close(program(pixels)[0], wanted, rtol=0, atol=0)
    assert all(weight.is_contiguous() for weight in convolved(program))


def test_it_pays_for_convolutions_and_not_for_a_transformer(tmp_path: Path) -> None:
    program = loaded(Vit(classes=3, width=64, depth=1, size=SIZE), tmp_path)
    assert not layout.pays(program.body)


def test_a_cpu_keeps_the_layout_of_the_export(tmp_path: Path) -> None:
    program = loaded(Residual(), tmp_path).on(torch.device("cpu"), "fp32")
    assert program.layout is torch.contiguous_format


@pytest.mark.parametrize("device", ["cuda"])
def test_a_gpu_takes_the_other_one_by_itself(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a device that calls itself CUDA, and weights that stay where they are,
    monkeypatch.setattr(Program, "to", lambda self, _: self)
    program = loaded(Residual(), tmp_path).on(torch.device(device), "fp32")
    assert program.layout is torch.channels_last
    # I expect the export's layout where the answers would be others.
    other = loaded(Strided(), tmp_path).on(torch.device(device), "fp32")
    assert other.layout is torch.contiguous_format
