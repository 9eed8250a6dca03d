"""Waves: how many tokens of a prompt go through each layer together, so that its experts are read once for all of them.

A pass over a prompt visits nearly every expert of a layer once, however many tokens it has; those that memory lacks are
read from disk. The rows of more tokens need memory, which the slots of experts lend for the time: fewer experts stay,
but the others are read less often. Attention, routers and dense layers work on blocks of one size whatever the wave,
and the kernels of experts give a row the same bits in any company: so a wave's size never shows in the answer.
"""

from dataclasses import dataclass

import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.offload.budget import MemoryBudget

CHUNK_TOKENS = 2048
"""Prompt tokens of a block: attention scores and the activations of dense layers grow with it. Another size would
change the last digits of torch's products."""

_READING_SLOTS = 32
"""That must stay for experts on their way beside those being computed: twice as many as are read ahead of a prompt."""


@dataclass(frozen=True)
class Wave:
    """Tokens that go together, the slots whose memory their rows need, and how many experts the whole prompt reads."""

    tokens: int
    lent_slots: int = 0
    reads: int = 0


def row_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Return the memory of one more row of a wave, at its height: while a layer's experts are computed.

    Five rows in the compute dtype (embedding, residual stream before and after attention, the normed one, the experts'
    sum), two in float32 (what the experts' kernels read and write), both rotary tables, the routing and its sorting.
    """
    rotary = 4 * (config.global_attention.rotary_dim + config.sliding_attention.rotary_dim)
    return config.hidden_size * (5 * dtype.itemsize + 8) + rotary + 64 * config.num_experts_per_tok


def plan_wave(
    tokens: int, block_tokens: int, *, slots: int, experts: int, slot_bytes: int, row_bytes: int, least_slots: int
) -> Wave:
    """Return the wave with which reading `tokens` tokens reads fewest experts, of `experts` in all layers.

    slots: there are now, at least `least_slots` of them must stay. One block is always possible: it has memory of its
    own. Waves are whole blocks, the last one apart, and all about as long.
    """
    blocks = -(-tokens // block_tokens)
    best = Wave(min(tokens, block_tokens), 0, blocks * max(0, experts - slots))
    for passes in range(1, blocks if best.reads else 0):
        wave_blocks = -(-blocks // passes)
        rows = min(tokens, wave_blocks * block_tokens)
        lent = -(-(rows - block_tokens) * row_bytes // slot_bytes)
        if slots - lent < least_slots:
            continue
        reads = -(-blocks // wave_blocks) * (experts - slots + lent) + lent  # those that left are read again
        if reads < best.reads:
            best = Wave(wave_blocks * block_tokens, lent, reads)
    return best


def budget_wave(
    tokens: int, budget: MemoryBudget, config: ModelConfig, dtype: torch.dtype, *, slots: int | None = None
) -> Wave:
    """Return the wave of a run under a budget. slots: that there are now, if not those of the budget."""
    return plan_wave(
        tokens,
        CHUNK_TOKENS,
        slots=budget.slots if slots is None else slots,
        experts=budget.experts,
        slot_bytes=budget.slot_bytes,
        row_bytes=row_bytes(config, dtype),
        least_slots=budget.step_slots + _READING_SLOTS,
    )
