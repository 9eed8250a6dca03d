"""Two processes that train together take the step that one would take with the mean of their gradients."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.support.source_tree import ROOT
from training.optimizer import Optimizer
from training.together import RANK, SIZE, Together

STEP = """
import sys
from pathlib import Path
import torch
from tests.training.test_together import start, gradients
from training.together import Together
folder = Path(sys.argv[1])
together = Together.join(folder)
optimizer, parameters = start()
gradients(parameters, together.rank)
optimizer.step(1.0, together)
total = together.add_up(torch.ones(3))
torch.save({"parameters": parameters, "total": total}, folder / f"result-{together.rank}.pt")
"""


def start() -> tuple[Optimizer, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    parameters = [torch.randn(shape, generator=generator) for shape in ((8, 4), (4, 8), (6, 6), (5,))]
    return Optimizer(parameters[:3], parameters[3:], muon_rate=0.1, adam_rate=0.1), parameters


def gradients(parameters: list[torch.Tensor], rank: int) -> None:
    """Gradients of a rank; bfloat16 holds them and their means exactly."""
    for number, parameter in enumerate(parameters):
        values = torch.arange(parameter.numel(), dtype=torch.float32) % 7 - 3 + number
        parameter.grad = (values + (2 if rank else -2)).view_as(parameter)
    if rank:
        parameters[3].grad = None  # this one has seen nothing of it


def test_two_processes_step_as_one_with_their_mean(tmp_path: Path) -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", STEP, str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, RANK: str(rank), SIZE: "2", "MIMO_TRAINING_MEETING": "1", "PYTHONPATH": str(ROOT)},
        )
        for rank in range(2)
    ]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    results = [torch.load(tmp_path / f"result-{rank}.pt") for rank in range(2)]
    optimizer, parameters = start()
    for number, parameter in enumerate(parameters):
        parameter.grad = (torch.arange(parameter.numel(), dtype=torch.float32) % 7 - 3 + number).view_as(parameter)
    parameters[3].grad = (parameters[3].grad - 2) / 2  # type: ignore[operator]
    optimizer.step()
    for result in results:
        assert result["total"].tolist() == [2, 2, 2]
        for mine, alone in zip(result["parameters"], parameters, strict=True):
            assert torch.equal(mine, alone)


def test_a_lone_process_exchanges_nothing(tmp_path: Path) -> None:
    together = Together.join(tmp_path)
    values = torch.arange(3.0)
    assert (together.rank, together.size) == (0, 1) and together.add_up(values) is values
    assert not list(tmp_path.iterdir())


def test_matrices_are_shared_out_evenly() -> None:
    optimizer = Optimizer([torch.zeros(size, 4) for size in (8, 1, 1, 6)], [torch.zeros(1)])
    owners = optimizer._owners(2)
    assert owners[0] != owners[3] and owners.count(0) and owners.count(1)
