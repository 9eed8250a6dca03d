"""Several processes training one network: each draws its own batches, gradients are averaged, matrices shared out.

On few cores this beats threads: nearly everything runs side by side. Processes meet through a file; gloo carries
tensors through the loopback interface. A lone process goes through the same code and exchanges nothing.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed

RANK, SIZE = "MIMO_TRAINING_RANK", "MIMO_TRAINING_PROCESSES"


class Together:
    """The group of processes; `rank` 0 writes files and reports."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def join(cls, folder: Path) -> "Together":
        """The group that `start_others` made, or a group of one; `folder` holds the file where processes meet."""
        rank, size = int(os.environ.get(RANK, "0")), int(os.environ.get(SIZE, "1"))
        if size > 1 and not distributed.is_initialized():
            store = distributed.FileStore(str(folder / f"meeting-{os.environ['MIMO_TRAINING_MEETING']}"), size)
            distributed.init_process_group(
                "gloo", store=store, rank=rank, world_size=size, timeout=timedelta(minutes=15)
            )
        return cls(rank, size)

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Average gradients in place; one that is missing here counts as zero."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.flatten().bfloat16() for parameter in parameters])  # type: ignore[union-attr]
        distributed.all_reduce(flat)
        flat = flat.float() / self.size
        for parameter, mean in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = mean.view_as(parameter)

    def share_results(self, parameters: Sequence[Tensor], owners: Iterable[int]) -> None:
        """Give every process each parameter as its owner has it."""
        if self.size == 1:
            return
        owned = list(zip(parameters, owners, strict=True))
        for rank in range(self.size):
            mine = [parameter.data for parameter, owner in owned if owner == rank]
            flat = torch.cat([values.flatten() for values in mine])
            distributed.broadcast(flat, rank)
            if rank != self.rank:
                for values, new in zip(mine, flat.split([v.numel() for v in mine]), strict=True):
                    values.copy_(new.view_as(values))


def start_others(processes: int) -> None:
    """Start this command again in `processes - 1` more processes; this one is rank 0."""
    if processes == 1 or RANK in os.environ:
        return
    environment = {**os.environ, SIZE: str(processes), "MIMO_TRAINING_MEETING": str(os.getpid())}
    for rank in range(1, processes):
        subprocess.Popen([sys.executable, "-m", "training", *sys.argv[1:]], env={**environment, RANK: str(rank)})
    os.environ.update({**environment, RANK: "0"})
