"""The sum over a token's experts, whoever holds their weights.

Letters: N tokens, H hidden size, A experts per token, I expert width.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

ExpertWeights = tuple[Tensor, Tensor, Tensor]
"""gate [I, H], up [I, H], down [H, I] of one expert."""


def swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Apply one expert: down(silu(gate(x)) * up(x)); x [n, H] -> [n, H]."""
    return functional.linear(functional.silu(functional.linear(x, gate)) * functional.linear(x, up), down)


def swiglu_experts(
    hidden_states: Tensor, expert_ids: Tensor, expert_weights: Tensor, fetch: Callable[[int], ExpertWeights]
) -> Tensor:
    """Return sum_a expert_weights[n, a] * expert_{expert_ids[n, a]}(hidden_states[n]) for every token.

    hidden_states [N, H]; expert_ids [N, A] int64; expert_weights [N, A] float32. Returns [N, H] in the dtype of
    hidden_states. `fetch(expert_id)` is called once per expert that occurs, in ascending order, and its weights
    are let go before the next call. Products are kept per slot and added in float32 in the order of the slots, so the
    sum is the same in whatever order, from wherever and beside whichever other tokens the experts are visited.
    Peak memory beside one expert: N * A * H elements. Differentiable in all inputs and in the fetched weights.
    """
    tokens, active = expert_ids.shape
    flat_ids = expert_ids.reshape(-1)  # [N*A]
    order = flat_ids.argsort(stable=True)
    experts, counts = flat_ids.unique(return_counts=True)  # ascending
    products = hidden_states.new_empty(tokens * active, hidden_states.shape[1])  # [N*A, H], a row per slot
    for expert_id, slots in zip(experts.tolist(), order.split(counts.tolist()), strict=True):
        rows = hidden_states[slots // active]  # [n, H]
        products[slots] = swiglu(rows, *fetch(expert_id))
    products = products.view(tokens, active, hidden_states.shape[1])
    total = torch.zeros_like(hidden_states, dtype=torch.float32)
    for slot in range(active):
        total = total + products[:, slot].float() * expert_weights[:, slot, None]
    return total.to(hidden_states.dtype)
