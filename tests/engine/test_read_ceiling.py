"""The read ceiling: one thread and all of them, the better of the two."""

import time

import pytest
import torch
from torch import Tensor

from mimo_cli.engine.read_ceiling import ReadCeiling, as_bytes
from tests.support.kernels import kernels, needs_kernels


class SleepingKernels:
    """Reads at a speed of its own for each number of threads."""

    threads = 2

    def __init__(self, seconds: dict[int, list[float]]) -> None:
        self.seconds = seconds

    def read_probe(self, data: Tensor, threads: int) -> None:
        time.sleep(self.seconds[threads].pop(0))


def test_the_ceiling_is_the_faster_of_one_thread_and_all() -> None:
    data = torch.zeros(10_000_000, dtype=torch.uint8)
    ceiling = ReadCeiling(SleepingKernels({1: [0.02, 0.02], 2: [0.1, 0.1]}), data)
    # Sleeping takes at least its time and, on a busy machine, longer: rates are bounded from above.
    assert 0.1 < ceiling.probe() <= 0.5
    ceiling.probe()
    assert 0.1 < ceiling.gbps <= 0.5


def test_one_lucky_probe_is_not_the_ceiling() -> None:
    data = torch.zeros(1_000_000, dtype=torch.uint8)
    ceiling = ReadCeiling(SleepingKernels({1: [0.2, 0.001, 0.2], 2: [0.2, 0.2, 0.2]}), data)
    for _ in range(3):
        ceiling.probe()
    assert ceiling.gbps <= 0.005


def test_before_the_first_probe_there_is_none() -> None:
    assert ReadCeiling(SleepingKernels({}), torch.zeros(1, dtype=torch.uint8)).gbps == 0


@needs_kernels
def test_probed_memory_has_been_written() -> None:
    ceiling = ReadCeiling.over(kernels(), 4 << 20)
    assert ceiling.nbytes == 4 << 20 and ceiling.probe() > 0


def test_a_table_is_seen_as_its_bytes() -> None:
    table = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16)
    found = as_bytes(table)
    assert found.tolist() == [0x80, 0x3F, 0x00, 0x40]
    assert found.data_ptr() == table.data_ptr()
    with pytest.raises(RuntimeError):
        as_bytes(torch.zeros(4, 4)[:, ::2])
