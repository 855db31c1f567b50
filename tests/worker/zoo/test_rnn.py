"""The sequence classifier: what its frame encoder sees, and how its cells begin."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contract.errors import ModelError
from worker import zoo


def dot(row: int, column: int, size: int = 28) -> Tensor:
    """A frame with a bright square of 6×6 pixels at that place."""
    frame = torch.full((1, size, size), -1.0)
    frame[:, row : row + 6, column : column + 6] = 1
    return frame


def test_the_frame_encoder_learns_to_tell_where_a_thing_is() -> None:
    # Given a square at every place of the frame,
    torch.manual_seed(1)
    encoder: Any = zoo.create("rnn", classes=2).encoder
    places = torch.tensor([(row, column) for row in range(23) for column in range(23)])
    frames = torch.stack([dot(row, column) for row, column in places.tolist()])
    fit, held_out = torch.randperm(len(places)).chunk(2)
    # if I train the encoder and a linear layer to read half of the places
    reader = nn.Sequential(encoder, nn.Linear(128, 2))
    optimizer = torch.optim.Adam(reader.parameters(), lr=2e-3)
    for _ in range(100):
        some = fit[torch.randperm(len(fit))[:64]]
        error = (reader(frames[some]) - (places[some] / 11 - 1)).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    # I expect it to tell the others to within a pixel. With the mean over the grid in place of its cells it is 5.
    with torch.inference_mode():
        read = (reader(frames[held_out]) + 1) * 11
    assert (read - places[held_out]).abs().mean() < 1


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 45), (1, 64)])
def test_frames_may_have_any_size(cell: str, channels: int, size: int) -> None:
    model = zoo.create("rnn", classes=4, channels=channels, size=size, cell=cell, hidden=20).eval()
    logits, features = model(torch.zeros(2, 3, channels, size, size), torch.tensor([3, 1]))
    assert logits.shape == (2, 4)
    assert features.shape == (2, 20)


def test_no_norm_spans_several_frames() -> None:
    assert not any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) for module in zoo.create("rnn", classes=2).modules()
    )


def test_recurrent_weights_begin_orthogonal_and_forget_gates_open() -> None:
    cell = zoo.create("rnn", classes=2, cell="lstm", hidden=16).cell
    for gate in cell.weight_hh_l0.split(16):
        torch.testing.assert_close(gate @ gate.T, torch.eye(16), rtol=0, atol=1e-5)
    into, forget, new, out = (cell.bias_ih_l0 + cell.bias_hh_l0).split(16)
    assert forget.eq(1).all()
    assert not torch.cat([into, new, out]).any()


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"cell": "tanh"}, "no cell 'tanh'; there are gru and lstm"),
        ({"size": 7}, "not 7×7"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, object], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        zoo.create("rnn", classes=2, **config)
