"""Where the parts of a model will lie, from their sizes alone: what memory holds, what stays on disk.

    sizes + memory given + context -> MemoryBudget, VramBudget -> rows of part x place x bytes, or why there is no place

The rule is that of a run: the dense part, the KV cache and buffers come first, on the card where there is one; experts
take what is left there and in memory, and those that do not fit are read from disk when a token needs them. What a card
keeps may be in memory, too: memory serves what the card lacks, so the two drift apart while they run.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.engine.context import kv_bytes
from mimo_cli.engine.model_sizes import AUDIO, DENSE, EMBEDDING, EXPERTS, MTP, VISION, ModelSizes
from mimo_cli.engine.waves import CHUNK_TOKENS, row_bytes
from mimo_cli.offload.budget import MemoryBudget
from mimo_cli.offload.vram_budget import DRIVER_BYTES, VramBudget
from mimo_cli.quant.buffers import PAGE_BYTES, round_up
from mimo_cli.units import format_bytes

Place: TypeAlias = Literal["vram", "ram", "disk"]
"""Where a part lies: on a graphics card, in memory, on disk."""

CardDense: TypeAlias = Literal["bf16", "w8a8", "int8", "nf4"]
"""Dense matrices on a card: as the compute dtype, in FP8 with FP8 activations, or by bitsandbytes in 8 or 4 bits."""

_CARD_WEIGHT_BYTES: dict[CardDense, float] = {"w8a8": 1.0003, "int8": 1.001, "nf4": 0.5625}

CARD_WAVE_TOKENS = 8192
"""Prompt tokens that go through a layer together on a card: its experts are streamed once for all of them."""

_CARD_SCORES_BYTES = 3 * 4 * (1 << 26)
"""Scores of attention on a card, float32, and what is made of them (model/plain_attention.py)."""

PROCESS_BYTES = 450_000_000
"""Of interpreter and libraries before a model is there; measured 0.35 to 0.45 GB."""

KV, BUFFERS, PROCESS, TRANSFER = "KV cache", "buffers", "process", "transfer buffers"


@dataclass(frozen=True)
class PlacedPart:
    """A part, or a share of one: `count` experts of the experts, 0 where nothing is counted."""

    name: str
    place: Place
    size_bytes: int
    count: int = 0


@dataclass(frozen=True)
class Placement:
    """Where everything lies. `shortage` says what there is no room for, None where all have a place; `card` how the
    memory of a graphics card is divided, None without one."""

    sizes: ModelSizes
    budget: MemoryBudget
    context_tokens: int
    rows: tuple[PlacedPart, ...]
    shortage: str | None = None
    card: VramBudget | None = None

    @property
    def fits(self) -> bool:
        """Tell whether the model can run at all."""
        return self.shortage is None

    @property
    def resident_share(self) -> float:
        """Share of all routed experts that memory holds."""
        return self.budget.slots / self.sizes.num_experts if self.sizes.num_experts else 1.0

    def total_bytes(self, place: Place) -> int:
        """Return what a place holds."""
        return sum(row.size_bytes for row in self.rows if row.place == place)


def plan_placement(
    sizes: ModelSizes,
    ram_bytes: int,
    context_tokens: int,
    disk_bytes: int | None = None,
    *,
    has_towers: bool = True,
    vram_bytes: int | None = None,
    card_dense: CardDense = "bf16",
) -> Placement:
    """Place a model. `disk_bytes` is room for its files, None where they have it; towers may stay away.

    vram_bytes: what may be used of a graphics card, None without one.
    """
    card = None if vram_bytes is None else plan_card(sizes, vram_bytes, context_tokens, card_dense)
    budget = plan_budget(sizes, ram_bytes, context_tokens, has_towers=has_towers, has_card=card is not None)
    shortage = None
    if card is not None and card.total_bytes < card.least_bytes:
        shortage = (
            f"{format_bytes(card.least_bytes)} of graphics memory are needed at least, "
            f"{format_bytes(card.total_bytes)} given"
        )
    elif ram_bytes < budget.least_bytes:
        shortage = f"{format_bytes(budget.least_bytes)} of memory are needed at least, {format_bytes(ram_bytes)} given"
    elif disk_bytes is not None and disk_bytes < sizes.stored_bytes:
        shortage = f"the files take {format_bytes(sizes.stored_bytes)} of disk, {format_bytes(disk_bytes)} given"
    rows = [*_card_rows(card), *_rows(sizes, budget, has_towers, card)]
    return Placement(sizes, budget, context_tokens, tuple(row for row in rows if row.size_bytes), shortage, card)


def plan_budget(
    sizes: ModelSizes, ram_bytes: int, context_tokens: int, *, has_towers: bool = True, has_card: bool = False
) -> MemoryBudget:
    """Divide the memory as a run would; with a card the dense part and the KV cache are not in it."""
    names = [EMBEDDING, *([] if has_card else [DENSE]), *([VISION, AUDIO] if has_towers else [])]
    return MemoryBudget(
        total_bytes=ram_bytes,
        process_bytes=PROCESS_BYTES,
        dense_bytes=sum(sizes.part(name).memory_bytes for name in names),
        kv_bytes=0 if has_card else kv_bytes(sizes.config, sizes.dtype, context_tokens),
        buffer_bytes=buffer_bytes(sizes.config, min(context_tokens, CHUNK_TOKENS)),
        slot_bytes=sizes.record_bytes if sizes.num_experts else 0,
        experts=sizes.num_experts,
        step_slots=sizes.config.num_experts_per_tok,
        cycle_slots=sizes.experts_per_token,
    )


def plan_card(
    sizes: ModelSizes, vram_bytes: int, context_tokens: int, dense: CardDense = "bf16", driver_bytes: int = DRIVER_BYTES
) -> VramBudget:
    """Divide the memory of a graphics card as a run would. Towers and embeddings stay with the processor."""
    return VramBudget(
        total_bytes=vram_bytes,
        driver_bytes=driver_bytes,
        dense_bytes=int(sizes.part(DENSE).parameters * card_weight_bytes(dense, sizes.dtype)),
        kv_bytes=kv_bytes(sizes.config, sizes.dtype, context_tokens),
        buffer_bytes=card_buffer_bytes(sizes.config, context_tokens),
        slot_bytes=round_up(sizes.record_bytes, PAGE_BYTES) if sizes.num_experts else 0,
        experts=sizes.num_experts,
        layer_experts=sizes.config.n_routed_experts,
    )


def card_weight_bytes(dense: CardDense, dtype: torch.dtype) -> float:
    """Return the bytes of one weight of a dense matrix on a card."""
    return dtype.itemsize if dense == "bf16" else _CARD_WEIGHT_BYTES[dense]


def card_buffer_bytes(config: ModelConfig, context_tokens: int) -> int:
    """Return the activations of one pass on a card: a block of tokens in attention, a wave of rows beside it."""
    block, wave = min(context_tokens, CHUNK_TOKENS), min(context_tokens, CARD_WAVE_TOKENS)
    keys = min(context_tokens, 1 << 16)
    scores = min(_CARD_SCORES_BYTES, 3 * 4 * config.global_attention.num_heads * block * keys)
    return buffer_bytes(config, block) + (wave - block) * row_bytes(config, torch.bfloat16) + scores


def buffer_bytes(config: ModelConfig, chunk_tokens: int) -> int:
    """Return the activations alive at once in one pass over a chunk: float32 in the kernels, its widest layer.

    Attention holds the normed input, q, k and v, and as much again while heads are rearranged; experts hold a gate and
    an up row for each pair of token and expert; a dense layer two rows of its width.
    """
    attention = max(config.global_attention.qkv_rows, config.sliding_attention.qkv_rows)
    experts = 2 * config.num_experts_per_tok * config.moe_intermediate_size
    widest = max(2 * attention, experts, 2 * config.intermediate_size)
    return 4 * chunk_tokens * (4 * config.hidden_size + widest) + 4 * config.vocab_size + _SMALL_BYTES


_SMALL_BYTES = 128 * 2**20
"""Masks of attention, reading buffers, what allocators keep."""


def _card_rows(card: VramBudget | None) -> list[PlacedPart]:
    if card is None:
        return []
    return [
        PlacedPart(DENSE, "vram", card.dense_bytes),
        PlacedPart(EXPERTS, "vram", card.slots_bytes, card.slots),
        PlacedPart(KV, "vram", card.kv_bytes),
        PlacedPart(TRANSFER, "vram", card.transfer_bytes),
        PlacedPart(BUFFERS, "vram", card.buffer_bytes),
        PlacedPart(PROCESS, "vram", card.driver_bytes),
    ]


def _rows(sizes: ModelSizes, budget: MemoryBudget, has_towers: bool, card: VramBudget | None) -> list[PlacedPart]:
    names = [EMBEDDING] if card is not None else [DENSE, EMBEDDING]
    rows = [PlacedPart(name, "ram", sizes.part(name).memory_bytes) for name in names]
    rows.append(PlacedPart(EXPERTS, "ram", budget.slots_bytes, budget.slots))
    rows += [PlacedPart(name, "ram", sizes.part(name).memory_bytes) for name in (VISION, AUDIO) if has_towers]
    rows.append(PlacedPart(KV, "ram", budget.kv_bytes))
    rows += [PlacedPart(BUFFERS, "ram", budget.buffer_bytes), PlacedPart(PROCESS, "ram", budget.process_bytes)]
    on_disk = max(0, sizes.num_experts - budget.slots - (card.slots if card is not None else 0))
    rows.append(PlacedPart(EXPERTS, "disk", on_disk * sizes.expert_stored_bytes, on_disk))
    rows.append(PlacedPart(MTP, "disk", sizes.part(MTP).stored_bytes))
    return rows
