"""Which experts a token goes to, on the device: scores of all experts, then the best A of them.

Two launches: one program makes the scores of a few experts, with the norm before the router if that is asked for; one
program per token chooses. Nothing waits for the host. All in float32, as the network's router computes; sums may be
taken in another order, which can turn a near-tie. Groups of experts are not implemented: no released model has them.
Untested on a card. Letters: N tokens, H hidden size, E experts, A active experts.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mimo_cli.quant.triton.dense import RowNorm, inverse_rms

EXPERTS_PER_PROGRAM = 4


class Choice(NamedTuple):
    """expert_ids int64 [N, A], best first; expert_weights float32 [N, A]; normed [N, H], what the router saw."""

    expert_ids: Tensor
    expert_weights: Tensor
    normed: Tensor


@triton.jit
def score_kernel(
    x: tl.tensor,
    norm: tl.tensor,
    weight: tl.tensor,
    normed_out: tl.tensor,
    scores: tl.tensor,
    eps: tl.constexpr,
    experts: tl.constexpr,
    hidden: tl.constexpr,
    lanes: tl.constexpr,
    per_program: tl.constexpr,
    normed: tl.constexpr,
) -> None:
    """Write sigmoid(weight @ x) of `per_program` experts for one token; the first program also writes the norm of x."""
    part, token = tl.program_id(0), tl.program_id(1)
    at = tl.arange(0, lanes)
    is_real = at < hidden
    value = tl.load(x + token * hidden + at, mask=is_real, other=0.0)
    if normed:
        rms = inverse_rms(x + token * hidden, hidden, lanes, eps)
        scale = tl.load(norm + at, mask=is_real, other=0.0).to(tl.float32)
        value = (value.to(tl.float32) * rms).to(x.dtype.element_ty).to(tl.float32) * scale
        value = value.to(x.dtype.element_ty)
        if part == 0:
            tl.store(normed_out + token * hidden + at, value, mask=is_real)
    expert = part * per_program + tl.arange(0, per_program)
    rows = weight + expert[:, None] * hidden + at[None, :]
    weights = tl.load(rows, mask=(expert < experts)[:, None] & is_real[None, :], other=0.0).to(tl.float32)
    logits = tl.sum(weights * value.to(tl.float32)[None, :], axis=1)
    tl.store(scores + token * experts + expert, tl.sigmoid(logits), mask=expert < experts)


@triton.jit
def choose_kernel(
    scores: tl.tensor,
    bias: tl.tensor,
    expert_ids: tl.tensor,
    expert_weights: tl.tensor,
    experts: tl.constexpr,
    active: tl.constexpr,
    lanes: tl.constexpr,
    active_lanes: tl.constexpr,
    normalizes: tl.constexpr,
    factor: tl.constexpr,
) -> None:
    """Write the `active` experts of one token with the largest score + bias (ties: the lower id) and their weights."""
    token = tl.program_id(0)
    at = tl.arange(0, lanes)
    score = tl.load(scores + token * experts + at, mask=at < experts, other=0.0)
    choice = score + tl.load(bias + at, mask=at < experts, other=0.0)
    choice = tl.where(at < experts, choice, float("-inf"))
    place = tl.arange(0, active_lanes)
    ids = tl.zeros((active_lanes,), tl.int32)
    for rank in tl.static_range(active):
        _, best = tl.max(choice, axis=0, return_indices=True, return_indices_tie_break_left=True)
        ids = tl.where(place == rank, best, ids)
        choice = tl.where(at == best, float("-inf"), choice)
    weights = tl.load(scores + token * experts + ids, mask=place < active, other=0.0)
    if normalizes:
        weights = weights / (tl.sum(weights) + 1e-20)
    pairs = token * active + place
    tl.store(expert_ids + pairs, ids.to(tl.int64), mask=place < active)
    tl.store(expert_weights + pairs, weights * factor, mask=place < active)


def route(
    hidden_states: Tensor,
    weight: Tensor,
    bias: Tensor,
    active: int,
    *,
    norm: RowNorm | None = None,
    normalizes: bool = True,
    factor: float = 1.0,
) -> Choice:
    """Choose `active` experts for each token of hidden_states [N, H], after `norm` if it is given.

    weight [E, H] float32 or bfloat16, bias [E] float32 (it decides, it is not in the weights). With `normalizes` the
    weights of a token sum to one; they are multiplied by `factor`.
    """
    x, (experts, hidden) = hidden_states.contiguous(), weight.shape
    tokens = len(x)
    normed = x if norm is None else torch.empty_like(x)
    scores = torch.empty(tokens, experts, dtype=torch.float32, device=x.device)
    ids = torch.empty(tokens, active, dtype=torch.int64, device=x.device)
    weights = torch.empty(tokens, active, dtype=torch.float32, device=x.device)
    if tokens:
        score_kernel[(triton.cdiv(experts, EXPERTS_PER_PROGRAM), tokens)](
            x, x if norm is None else norm.weight, weight, normed, scores, 0.0 if norm is None else norm.eps, experts,
            hidden, triton.next_power_of_2(hidden), EXPERTS_PER_PROGRAM, norm is not None, num_warps=8,
        )  # fmt: skip
        choose_kernel[(tokens,)](
            scores, bias, ids, weights, experts, active, triton.next_power_of_2(experts),
            triton.next_power_of_2(active), normalizes, factor,
            num_warps=1,
        )  # fmt: skip
    return Choice(ids, weights, normed)
