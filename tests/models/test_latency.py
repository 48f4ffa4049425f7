"""Measured latency."""

import time

import torch
from torch import nn

from raysearch.models.latency import measure_latency


class Sleeper(nn.Module):
    """Takes a known time, or far longer on every fifth call."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.dropout = nn.Dropout()
        self.seen: list[tuple[bool, bool, int, torch.Size]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(
            (self.training, torch.is_inference_mode_enabled(), torch.get_num_threads(), x.shape)
        )
        time.sleep(self.seconds * (20 if len(self.seen) % 5 == 0 else 1))
        return x

    def __deepcopy__(self, memo: dict) -> "Sleeper":
        twin = Sleeper(self.seconds)
        twin.seen = self.seen
        return twin


def test_slow_outliers_do_not_move_the_measurement():
    sleeper = Sleeper(0.002)
    assert 2.0 <= measure_latency(sleeper, (1, 2)) < 20.0


def test_passes_are_evaluation_without_gradients_on_one_thread():
    sleeper = Sleeper(0.0).train()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        measure_latency(sleeper, (3, 4), batch=2, warmup=2, repeats=6)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert sleeper.training
    assert set(sleeper.seen) == {(False, True, 1, (2, 3, 4))}
    assert len(sleeper.seen) == 8


def test_a_larger_network_takes_longer():
    small, large = nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(3, 256, 3), nn.Conv2d(256, 256, 3))
    assert measure_latency(small, (3, 32, 32)) < measure_latency(large, (3, 32, 32))
