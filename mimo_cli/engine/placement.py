"""Where the parts of a model will lie, from their sizes alone: what memory holds, what stays on disk.

    sizes + memory given + context -> MemoryBudget -> rows of part x place x bytes, or why there is no place

The rule is that of a run: the dense part, the KV cache and buffers come first, experts take what is left, and those
that do not fit are read from disk when a token needs them.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.engine.context import kv_bytes
from mimo_cli.engine.model_sizes import AUDIO, DENSE, EMBEDDING, EXPERTS, MTP, VISION, ModelSizes
from mimo_cli.engine.waves import CHUNK_TOKENS
from mimo_cli.offload.budget import MemoryBudget
from mimo_cli.units import format_bytes

Place: TypeAlias = Literal["ram", "disk"]
"""Where a part lies. (Graphics memory will be a third.)"""

PROCESS_BYTES = 450_000_000
"""Of interpreter and libraries before a model is there; measured 0.35 to 0.45 GB."""

KV, BUFFERS, PROCESS = "KV cache", "buffers", "process"


@dataclass(frozen=True)
class PlacedPart:
    """A part, or a share of one: `count` experts of the experts, 0 where nothing is counted."""

    name: str
    place: Place
    size_bytes: int
    count: int = 0


@dataclass(frozen=True)
class Placement:
    """Where everything lies. `shortage` says what there is no room for, None where all have a place."""

    sizes: ModelSizes
    budget: MemoryBudget
    context_tokens: int
    rows: tuple[PlacedPart, ...]
    shortage: str | None = None

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
    sizes: ModelSizes, ram_bytes: int, context_tokens: int, disk_bytes: int | None = None, *, has_towers: bool = True
) -> Placement:
    """Place a model. `disk_bytes` is room for its files, None where they have it; towers may stay away."""
    budget = plan_budget(sizes, ram_bytes, context_tokens, has_towers=has_towers)
    shortage = None
    if ram_bytes < budget.least_bytes:
        shortage = f"{format_bytes(budget.least_bytes)} of memory are needed at least, {format_bytes(ram_bytes)} given"
    elif disk_bytes is not None and disk_bytes < sizes.stored_bytes:
        shortage = f"the files take {format_bytes(sizes.stored_bytes)} of disk, {format_bytes(disk_bytes)} given"
    return Placement(sizes, budget, context_tokens, tuple(_rows(sizes, budget, has_towers)), shortage)


def plan_budget(sizes: ModelSizes, ram_bytes: int, context_tokens: int, *, has_towers: bool = True) -> MemoryBudget:
    """Divide the memory as a run would."""
    names = [DENSE, EMBEDDING, *([VISION, AUDIO] if has_towers else [])]
    return MemoryBudget(
        total_bytes=ram_bytes,
        process_bytes=PROCESS_BYTES,
        dense_bytes=sum(sizes.part(name).memory_bytes for name in names),
        kv_bytes=kv_bytes(sizes.config, sizes.dtype, context_tokens),
        buffer_bytes=buffer_bytes(sizes.config, min(context_tokens, CHUNK_TOKENS)),
        slot_bytes=sizes.record_bytes if sizes.num_experts else 0,
        experts=sizes.num_experts,
        step_slots=sizes.config.num_experts_per_tok,
        cycle_slots=sizes.experts_per_token,
    )


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


def _rows(sizes: ModelSizes, budget: MemoryBudget, has_towers: bool) -> list[PlacedPart]:
    rows = [PlacedPart(name, "ram", sizes.part(name).memory_bytes) for name in (DENSE, EMBEDDING)]
    rows.append(PlacedPart(EXPERTS, "ram", budget.slots_bytes, budget.slots))
    rows += [PlacedPart(name, "ram", sizes.part(name).memory_bytes) for name in (VISION, AUDIO) if has_towers]
    rows.append(PlacedPart(KV, "ram", budget.kv_bytes))
    rows += [PlacedPart(BUFFERS, "ram", budget.buffer_bytes), PlacedPart(PROCESS, "ram", budget.process_bytes)]
    on_disk = sizes.num_experts - budget.slots
    rows.append(PlacedPart(EXPERTS, "disk", on_disk * sizes.expert_stored_bytes, on_disk))
    rows.append(PlacedPart(MTP, "disk", sizes.part(MTP).stored_bytes))
    return [row for row in rows if row.size_bytes]
