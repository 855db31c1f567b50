"""Programs that call what writes or reads memory that is not theirs: each is refused before a kernel runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contract.errors import ModelError
from tests.programs import MODEL, WEIGHTS, Redness, changed, export
from worker.engine.programs.operators import function
from worker.engine.programs.program import load_program

Forward = Callable[..., Tensor]


class Calls(nn.Module):
    """Pools what a function makes of the images."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 3, 8, 8))
        self.register_buffer("places", torch.tensor([0, 2, 1]))
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self._forward(x, self) if self._forward.__code__.co_argcount == 2 else self._forward(x)
        return found.float().mean((2, 3))[:, :2]


def load(path: Path) -> Tensor:
    found: Tensor = load_program(path, channels=3, size=8)(torch.rand(5, 3, 8, 8))[0]
    return found


def writes_anywhere(x: Tensor) -> Tensor:
    """Its indices are where the kernel writes, and nothing checks them."""
    places = torch.full_like(x, 2**40, dtype=torch.int64)
    return torch.ops.aten.max_pool2d_with_indices_backward(x, x, [1, 1], [1, 1], [0, 0], [1, 1], False, places)


def test_a_program_that_writes_memory_is_refused(tmp_path: Path) -> None:
    path = export(Calls(writes_anywhere).eval(), tmp_path / "writes.pt2")
    with pytest.raises(ModelError, match="max_pool2d_with_indices_backward"):
        load_program(path, channels=3, size=8)


@pytest.mark.parametrize(
    "target",
    [
        "empty.memory_format",  # what a process had in memory before
        "new_empty.default",
        "empty_strided.default",
        "resize_.default",
        "set_.source_Storage",
        "from_file.default",
        "max_unpool2d.default",
        "_embedding_bag.default",
        "_cudnn_rnn.default",
        "record_stream.default",
        "randn.default",
        "bernoulli.default",
        "put_.default",
        "scatter_.src",
        "add.out",
        "convolution_backward.default",
        "_make_dual.default",
        "data.default",
        "nonzero.default",
    ],
)
def test_operators_that_no_classifier_needs_are_refused(target: str) -> None:
    with pytest.raises(ModelError, match="none of the operators"):
        function(f"torch.ops.aten.{target}")


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "os.system",
        "torch.ops.aten.add",
        "torch.ops.profiler._record_function_enter.default",
        "_operator.pow",
    ],
)
def test_other_functions_are_refused(target: str) -> None:
    with pytest.raises(ModelError, match="none of the operators"):
        function(target)


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x[:, (x[0, :, 0, 0] * 1e9).long()],
        lambda x: torch.gather(x, 1, (x * 1e9).long()),
        lambda x: nn.functional.embedding((x[:, 0] * 1e9).long(), torch.ones(4, 3)).permute(0, 3, 1, 2),
        lambda x: x.index_select(1, (x[0, :, 0, 0] * 1e9).long()),
        lambda x: torch.index_put(x, ((x[:, 0, 0, 0] * 1e9).long(),), torch.ones(())),
    ],
    ids=["index", "gather", "embedding", "index_select", "index_put"],
)
def test_indices_that_come_from_an_image_are_refused(forward: Forward, tmp_path: Path) -> None:
    """A CPU checks them, at the price of an error; CUDA ends the process."""
    path = export(Calls(forward).eval(), tmp_path / "m.pt2")
    with pytest.raises(ModelError, match="indices that depend on the image"):
        load(path)


def test_indices_that_are_constants_may_be_used(tmp_path: Path) -> None:
    path = export(Calls(lambda x, self: x[:, self.places]).eval(), tmp_path / "m.pt2")
    x = torch.rand(5, 3, 8, 8)
    logits = load_program(path, channels=3, size=8)(x)[0]
    torch.testing.assert_close(logits, x[:, [0, 2, 1]].mean((2, 3))[:, :2])


def test_an_image_hidden_in_a_constant_is_refused(tmp_path: Path) -> None:
    """The indices look like a constant, and hold what was written into it."""

    def hides(x: Tensor) -> Tensor:
        places = torch.zeros(3, dtype=torch.int64)
        places.copy_((x[0, :, 0, 0] * 1e9).long())
        return x[:, places]

    path = export(Calls(hides).eval(), tmp_path / "m.pt2")
    with pytest.raises(ModelError, match="into a constant"):
        load(path)


def test_weights_that_change_through_a_view_are_refused(tmp_path: Path) -> None:
    path = export(Calls(lambda x, self: x + self.weight.detach()[:, :1].add_(1)).eval(), tmp_path / "m.pt2")
    with pytest.raises(ModelError, match="changes its own weights"):
        load(path)


def test_what_would_fill_the_memory_is_refused_by_its_shape(tmp_path: Path) -> None:
    def grows(x: Tensor) -> Tensor:
        return x.repeat(1, 1, 8192, 8192)

    path = export(Calls(grows).eval(), tmp_path / "m.pt2")
    with pytest.raises(ModelError, match=r"tensor of [\d,]+ bytes for an image"):
        load(path)


def test_a_graph_whose_shapes_do_not_fit_is_refused_before_it_runs(tmp_path: Path) -> None:
    redness = export(Redness().eval(), tmp_path / "redness.pt2")

    def edit(program: Any) -> None:
        text = json.dumps(program)
        assert '"as_ints": [2, 3]' in text
        program.clear()
        program.update(json.loads(text.replace('"as_ints": [2, 3]', '"as_ints": [2, 7]')))

    with pytest.raises(ModelError, match="does not fit its inputs"):
        load(changed(redness, tmp_path / "changed.pt2", {MODEL: edit}))


@pytest.mark.parametrize("sizes", [[10**6, 10**6], [2**62, 8]])
def test_a_weight_without_bytes_takes_no_memory(sizes: list[int], tmp_path: Path) -> None:
    redness = export(Redness().eval(), tmp_path / "redness.pt2")

    def edit(config: Any) -> None:
        meta = config["config"]["conv.weight"]
        meta["path_name"] = "weight_99"
        meta["tensor_meta"]["sizes"] = [{"as_int": size} for size in sizes]

    bad = changed(redness, tmp_path / "changed.pt2", {WEIGHTS: edit, "data/weights/weight_99": b""})
    with pytest.raises(ModelError, match="has no bytes"):
        load(bad)
