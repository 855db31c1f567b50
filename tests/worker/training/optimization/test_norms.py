"""The statistics of batch norms, measured anew."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from worker.training.optimization.norms import measuring


def test_statistics_are_the_mean_over_the_passes() -> None:
    # Given a norm behind weights that it has never seen, and batches,
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=0.2), nn.Dropout(0.9)).eval()
    module[1].running_mean.fill_(100.0)
    batches = [torch.randn(16, 3) for _ in range(5)]

    # if they pass while it is measured,
    with torch.no_grad(), measuring(module) as there_are_some:
        assert there_are_some
        assert not module[2].training, "dropout stays off"
        for batch in batches:
            module(batch)

    # I expect the mean of their statistics, and a module that is as it was.
    seen = torch.stack([module[0](batch) for batch in batches])
    torch.testing.assert_close(module[1].running_mean, seen.mean((0, 1)))
    torch.testing.assert_close(module[1].running_var, seen.var(1).mean(0))
    assert module[1].momentum == 0.2
    assert not any(part.training for part in module.modules())


def test_a_module_without_batch_norms_says_so() -> None:
    with measuring(
        nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.BatchNorm1d(2, track_running_stats=False))
    ) as some:
        assert not some


def test_a_fault_leaves_the_module_as_it_was() -> None:
    module = nn.Sequential(nn.BatchNorm1d(2)).eval()
    with pytest.raises(ValueError, match="more than 1 value"), measuring(module):
        module(torch.zeros(1, 2))
    assert module[0].momentum == 0.1 and not module[0].training
