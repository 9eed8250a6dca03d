"""Dividing the memory of a load: what the user allows, what this machine has, what the model takes.

    --ram and free memory -> total;  process + dense + KV cache + buffers -> what is left is slots for experts

Everything is counted before anything is read, and refused with the numbers where it cannot fit.
"""

from collections.abc import Iterable

import torch
from torch import nn

from mimo_cli.checkpoint import early_read
from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.engine.bind import module_bytes
from mimo_cli.engine.context import DEFAULT_CONTEXT_TOKENS, kv_bytes
from mimo_cli.engine.memory import available_bytes, machine_bytes, rss_bytes
from mimo_cli.engine.placement import buffer_bytes
from mimo_cli.engine.waves import CHUNK_TOKENS
from mimo_cli.offload.budget import MemoryBudget, RamSetting


def divide_memory(
    setting: RamSetting,
    config: ModelConfig,
    modules: Iterable[nn.Module],
    *,
    dtype: torch.dtype,
    slot_bytes: int,
    reading_bytes: int,
    context_tokens: int | None = None,
    has_card: bool = False,
) -> MemoryBudget:
    """Return the budget of a model whose modules are built but empty.

    slot_bytes: of one expert; reading_bytes: what reading needs beside the slots. The context counts as far as it is
    asked for, by default like that of a sequence; with a card it is kept there. Raises CapacityError where the budget
    is more than is free, or less than the model needs.
    """
    taken_bytes = rss_bytes()
    # What this process has already is part of the budget, and no longer free.
    usable_bytes = available_bytes() + taken_bytes
    limit = config.max_position_embeddings
    context = min(limit, context_tokens or DEFAULT_CONTEXT_TOKENS)
    experts = config.n_routed_experts * len(config.moe_layers)
    budget = MemoryBudget(
        total_bytes=setting.total_bytes(usable_bytes, machine_bytes()),
        process_bytes=max(0, taken_bytes - early_read.held_bytes()),  # which the dense part counts
        dense_bytes=module_bytes(modules),
        kv_bytes=0 if has_card else kv_bytes(config, dtype, context),
        buffer_bytes=buffer_bytes(config, min(context, CHUNK_TOKENS)) + reading_bytes,
        slot_bytes=slot_bytes if experts else 0,
        experts=experts,
        step_slots=config.num_experts_per_tok,
        cycle_slots=config.num_experts_per_tok * len(config.moe_layers),
    )
    budget.require(usable_bytes)
    return budget
