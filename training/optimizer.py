"""The optimizer: Muon for the matrices inside the network, AdamW for tables, norms, biases and heads.

Muon orthogonalises the momentum of a matrix by Newton-Schulz iteration (Jordan 2024), which learns more from a sample
than AdamW; stacks of expert matrices [E, O, I] are taken matrix by matrix. Stacks are most of the work, so half of them
are stepped at a time, further: their momentum remembers twenty gradients, and nothing is lost by waiting for one.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from training.precision import dtype_for
from training.together import Together

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STACK_STRIDE = 1.5  # of a step that comes every other time


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Bring the singular values of [..., O, I] near one."""
    a, b, c = _COEFFICIENTS
    x = matrices.to(dtype_for(matrices))
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


class Optimizer:
    """Both rules behind one `step`; rates are multiplied by the schedule's factor given to it."""

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: Iterable[Tensor],
        *,
        muon_rate: float = 0.02,
        adam_rate: float = 2e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        parts: dict[int, int] | None = None,
        tables: Iterable[Tensor] = (),
        table_rate: float = 0.0,
    ) -> None:
        """`weight_decay` pulls the matrices back: without it they grow until attention saturates and learning ends.

        `parts` says of a matrix, by its id(), that it is so many matrices one above the other.

        `tables` are large embeddings with an AdamW rate of their own.
        """
        self.matrices = list(matrices)
        self.parts = [(parts or {}).get(id(matrix), 1) for matrix in self.matrices]
        self.muon_rate, self.adam_rate, self.momentum, self.weight_decay = muon_rate, adam_rate, momentum, weight_decay
        self.steps = 0
        self.buffers = [torch.zeros_like(matrix) for matrix in self.matrices]
        groups = [{"params": list(others), "rate": adam_rate}, {"params": list(tables), "rate": table_rate}]
        self.adam = torch.optim.AdamW(
            [group for group in groups if group["params"]], betas=(0.9, 0.98), weight_decay=0.0, fused=True
        )

    @torch.no_grad()
    def step(self, factor: float = 1.0, together: Together | None = None) -> None:
        """Apply and clear all gradients; processes average them and share out the matrices' work."""
        together = together or Together()
        tables = [parameter for group in self.adam.param_groups for parameter in group["params"]]
        together.average_gradients([*self.matrices, *tables])
        owners = self._owners(together.size)
        self.steps += 1
        for group in self.adam.param_groups:
            group["lr"] = group["rate"] * factor
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        for number, (matrix, buffer, parts) in enumerate(zip(self.matrices, self.buffers, self.parts, strict=True)):
            if matrix.grad is None:
                continue
            buffer.lerp_(matrix.grad, 1 - self.momentum)
            is_stack = matrix.dim() > 2
            if owners[number] != together.rank or (is_stack and (self.steps + number) % 2):
                matrix.grad = None
                continue
            rate = self.muon_rate * factor * (_STACK_STRIDE if is_stack else 1.0)
            split = matrix.grad.lerp(buffer, self.momentum).unflatten(-2, (parts, -1))
            update = orthogonalise(split).flatten(-3, -2)
            scale = max(1.0, split.shape[-2] / split.shape[-1]) ** 0.5
            if self.weight_decay:
                matrix.mul_(1 - rate * self.weight_decay)
            matrix.add_(update.to(matrix.dtype), alpha=-rate * scale)
            matrix.grad = None
        together.share_results(self.matrices, owners)

    def _owners(self, processes: int) -> list[int]:
        """Which process steps which matrix: the largest first, each to who has least so far."""
        work, owners = [0] * processes, [0] * len(self.matrices)
        for number in sorted(range(len(owners)), key=lambda i: -self.matrices[i].numel()):
            owners[number] = work.index(min(work))
            work[owners[number]] += self.matrices[number].numel()
        return owners

    def state_dict(self) -> dict[str, Any]:
        """Momentum and moments."""
        return {"steps": self.steps, "buffers": self.buffers, "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.steps = state.get("steps", 0)
        for buffer, saved in zip(self.buffers, state["buffers"], strict=True):
            buffer.copy_(saved)
        rates = [group["rate"] for group in self.adam.param_groups]
        self.adam.load_state_dict(state["adam"])
        for group, rate in zip(self.adam.param_groups, rates, strict=True):
            group["rate"] = rate  # those of the settings, not of the checkpoint
