"""GpuStep: the pairs of token and expert of one call, sorted on the host, and how they are cut and added up.

Letters: N tokens, A experts per token, P = N A pairs, H hidden size.
"""

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor


class GpuStep:
    """One call: the pairs of token and expert sorted on the host. What has no `host` in its name is on the device."""

    def __init__(self, layer: int, hidden: Tensor, ids: Tensor, weights: Tensor) -> None:
        self.layer, self.hidden, self.ids, self.weights = layer, hidden, ids, weights
        self.tokens, self.active = ids.shape
        self.host_ids, self.host_weights = ids.cpu(), weights.cpu()
        flat = self.host_ids.reshape(-1)
        experts, counts = flat.unique(return_counts=True)  # ascending
        self.experts: list[int] = experts.tolist()
        self.rows: dict[int, int] = dict(zip(self.experts, counts.tolist(), strict=True))
        self._pairs = dict(zip(self.experts, flat.argsort(stable=True).split(counts.tolist()), strict=True))

    def pairs_of(self, experts: Sequence[int]) -> Tensor:
        """Return the numbers of the pairs that go to some experts, int64 [P] on the host."""
        return torch.cat([self._pairs[expert] for expert in experts])

    def inputs_of(self, experts: Sequence[int]) -> Tensor:
        """Return the hidden states [P, H] of these pairs on the host; stands still until the device has them."""
        if not experts:
            return self.hidden[:0].cpu()
        tokens = self.pairs_of(experts) // self.active
        return self.hidden[tokens.to(self.hidden.device)].cpu()


def blocks(step: GpuStep, tokens: int) -> Iterator[tuple[GpuStep, slice]]:
    """Yield a step in parts of at most so many tokens, and where they stand."""
    if step.tokens <= tokens:
        yield step, slice(0, step.tokens)
        return
    for first in range(0, step.tokens, tokens):
        of = slice(first, first + tokens)
        yield GpuStep(step.layer, step.hidden[of], step.ids[of], step.weights[of]), of


def groups(experts: Sequence[int], missing: Collection[int], most: int) -> list[list[int]]:
    """Cut ascending experts into groups, each with at most so many of the missing ones."""
    found: list[list[int]] = [[]]
    landing = 0
    for expert in experts:
        if expert in missing and landing == most:
            found.append([])
            landing = 0
        found[-1].append(expert)
        landing += expert in missing
    return found


def put_rows(rows: Tensor, places: Tensor, own: Tensor) -> None:
    """Write own [P, H] into rows at their places [P]."""
    rows.index_copy_(0, places, own)


def add_in_order(total: Tensor, rows: Tensor, order: Tensor) -> None:
    """Add rows [N, A, H] to total [N, H], for each token in the order [N, A] of its row numbers."""
    tokens = torch.arange(len(rows), device=rows.device)
    for column in order.unbind(dim=1):
        total += rows[tokens, column]
