"""A classifier of image sequences: a small convolutional encoder a frame, a GRU or an LSTM over time.

It knows no files. GRU: Cho et al. 2014 (arXiv:1406.1078). LSTM: Hochreiter & Schmidhuber 1997, its
forget gates open at first (Jozefowicz et al. 2015).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from contract.errors import ModelError
from worker.zoo import initial

_CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}
_WIDTHS = (32, 64)  # of the first halving, and of all that follow
_GRID = 7  # frames are halved until they are no larger than this, and then flattened: where a thing is stays readable
_GROUPS = 8
_CODE = 128


class _FrameEncoder(nn.Sequential):
    """Float [m, c, size, size] to [m, 128]: 3×3 convolutions of stride 2 to a grid of at most 7×7, flattened.

    No averaging over the grid, so the code tells where in the frame a thing is. Norms are over one
    frame alone (GroupNorm, Wu & He 2018; LayerNorm, Ba et al. 2016): batch norm would mix the padding in.
    """

    def __init__(self, channels: int, size: int) -> None:
        sides = [size]
        while sides[-1] > _GRID:
            sides.append((sides[-1] + 1) // 2)
        widths = [channels, *_WIDTHS[:1], *_WIDTHS[1:] * len(sides)][: len(sides)]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(_GROUPS, outputs),
                nn.ReLU(inplace=True),
            ]
        layers += [
            nn.Flatten(),
            nn.Linear(widths[-1] * sides[-1] ** 2, _CODE, bias=False),
            nn.LayerNorm(_CODE),
            nn.ReLU(inplace=True),
        ]
        super().__init__(*layers)


class Rnn(nn.Module):
    """At 28×28×1 with a GRU of 128: 0.52 million parameters, 1.5 million multiply-adds a frame.

    Any `size` from 8. Weights begin after He et al. 2015 in the encoder; in the cell input weights are
    Glorot's (2010), recurrent ones orthogonal a gate (Saxe et al. 2014), biases 0 but 1 at an LSTM's
    forget gate.
    """

    def __init__(
        self,
        classes: int,
        channels: int = 1,
        size: int = 28,
        cell: str = "gru",
        hidden: int = 128,
        dropout: float = 0.1,
    ) -> None:
        if cell not in _CELLS:
            raise ModelError(f"The family 'rnn' has no cell {cell!r}; there are {' and '.join(_CELLS)}.")
        if size < 8:
            raise ModelError(f"The family 'rnn' reads frames of 8×8 pixels and more, not {size}×{size}.")
        super().__init__()
        self.encoder = _FrameEncoder(channels, size)
        self.cell = _CELLS[cell](_CODE, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, classes)
        initial.he(self.encoder)
        initial.lecun(self.head)
        _begin_cell(self.cell)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Float [n, t, c, size, size] and int64 [n] from 1 to t, to logits [n, classes] and features [n, hidden].

        Features are the hidden state at the last real frame. Time runs forward only, so what lies behind
        that frame is computed and never read.
        """
        n, t = x.shape[:2]
        codes = self.encoder(x.flatten(0, 1)).unflatten(0, (n, t))
        states, _ = self.cell(codes)
        features = states[torch.arange(n, device=x.device), lengths - 1]
        return self.head(self.dropout(features)), features


def _begin_cell(cell: nn.GRU | nn.LSTM) -> None:
    for name, parameter in cell.named_parameters():
        gates = parameter.split(cell.hidden_size)
        if name.startswith("weight"):
            begin = nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_
            for gate in gates:
                begin(gate)
        else:
            nn.init.zeros_(parameter)
            if isinstance(cell, nn.LSTM) and name.startswith("bias_ih"):
                nn.init.ones_(gates[1])  # they come in the order input, forget, cell, output
