"""Measured latency."""

import time

import torch
from torch import nn

from raysearch.architecture import SearchSpace
from raysearch.models import load_teacher, trace
from raysearch.models.latency import LatencyMeter, measure_latency


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


def test_measurements_are_kept_in_a_file_and_those_of_elsewhere_are_left_alone(tmp_path):
    teacher = trace(load_teacher("resnet14", num_classes=10, input_shape=(1, 8, 8)), (1, 8, 8))
    smallest = SearchSpace(teacher).apply(SearchSpace(teacher).smallest())
    file = tmp_path / "run" / "latency.jsonl"
    meter = LatencyMeter()
    first = meter(teacher)
    assert first > meter(smallest) > 0
    meter.keep_in(file)
    other = '{"architecture_id": "' + teacher.id + '", "ms": 9.0, "where": "elsewhere"}\n{"torn'
    file.write_text(file.read_text() + other)
    again = LatencyMeter(path=file)
    assert again.known == {teacher.id: first, smallest.id: meter(smallest)}
    assert "elsewhere" in file.read_text()


def test_a_space_measures_on_the_cpu_where_nothing_else_is_given():
    teacher = trace(load_teacher("resnet14", num_classes=10, input_shape=(1, 8, 8)), (1, 8, 8))
    free = SearchSpace(teacher)
    limit = 0.6 * free.latency_ms(free.largest())[0]
    space = SearchSpace(teacher, budget={"latency_ms": limit})
    batch = space.sample(3, seed=0)
    assert space.within_budget(batch).all()
    assert list(space.repair(batch)) == list(batch)
