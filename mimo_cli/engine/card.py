"""The graphics card of a load: which device computes, how its memory is divided, what misses cost here.

    --device, --vram -> device -> VramBudget -> dense part, KV cache and expert slots on the card; towers stay here

The paths that only a card can run were never run on one: whoever loads a model is told so.
"""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.engine.bind import module_bytes
from mimo_cli.engine.card_dense import LOSSES
from mimo_cli.engine.context import DEFAULT_CONTEXT_TOKENS, kv_bytes
from mimo_cli.engine.placement import CardDense, card_buffer_bytes, card_weight_bytes
from mimo_cli.errors import CapacityError, UsageError
from mimo_cli.model.decoder import TextModel
from mimo_cli.offload.budget import RamSetting
from mimo_cli.offload.device import ExpertDevice
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.offload.gpu_costs import MissCosts
from mimo_cli.offload.gpu_experts import GpuExperts
from mimo_cli.offload.vram_budget import DRIVER_BYTES, VramBudget, vram_total
from mimo_cli.quant.linear import Linear
from mimo_cli.units import format_bytes

UNTESTED = "computed on a graphics card, which was never tested on one: compare with --device cpu before you rely on it"

_PROBE_EXPERTS = 4
_PROBE_ROWS = 16
_USUAL_COPY_S = 1e-3
_USUAL_CPU_S = 1e-3


def choose_device(name: str) -> torch.device:
    """Return the device of a name: "auto" and "cpu" are the processor, "cuda" or "cuda:1" a card.

    "auto" stays with the processor while the card's paths are untested. Raises UsageError for what is not there.
    """
    if name in ("auto", "cpu"):
        return torch.device("cpu")
    if re.fullmatch(r"cuda(:\d+)?", name) is None:
        if name.split(":")[0] in ("mps", "xpu"):
            raise UsageError(f"device `{name}` is not supported in this version", hint="load with device cpu")
        raise UsageError(f"device `{name}` is unknown, `auto`, `cpu`, `cuda` or `cuda:N` expected")
    device = torch.device(name)
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= cards:
        found = f"{cards} CUDA card{'s' if cards > 1 else ''}" if cards else "no CUDA card"
        built = "" if torch.version.cuda else ", and torch is built without CUDA"
        raise UsageError(f"device `{name}` is not there: {found} found{built}", hint="load with --device cpu")
    return torch.device("cuda", device.index or 0)


def planned_vram_bytes(device: str, setting: RamSetting | None) -> int | None:
    """Return the graphics memory to plan for; None where neither a device nor a size asks for a card.

    A size may be that of another machine; shares and nothing are those of the card that `device` names. Raises
    UsageError where that is not there.
    """
    if setting is not None and setting.size_bytes is not None:
        return setting.size_bytes
    where = choose_device(device)
    if where.type == "cpu":
        if setting is None:
            return None
        raise UsageError(f"--vram {setting} is a part of a card, and --device names none", hint="--vram 24G")
    free_bytes, card_bytes = torch.cuda.mem_get_info(where)
    return vram_total(setting or RamSetting(), free_bytes, card_bytes)


def require_cpu(device: str) -> None:
    """Refuse a card for what is measured on the processor only."""
    if choose_device(device).type != "cpu":
        raise UsageError(f"this runs on the processor only, `{device}` was given", hint="leave --device away")


def open_device(device: str | ExpertDevice) -> ExpertDevice | None:
    """Return the card of a name, or what stands in for one; None for the processor. Raises as `choose_device`."""
    if not isinstance(device, str):
        return device
    where = choose_device(device)
    if where.type == "cpu":
        return None
    from mimo_cli.offload.cuda_device import CudaDevice  # brings Triton, which takes a second to load

    return CudaDevice(where)


@dataclass(eq=False)
class Card:
    """A card and what it keeps: memory for a context, and experts."""

    device: ExpertDevice
    budget: VramBudget
    context_tokens: int
    experts: GpuExperts
    dense: CardDense = "bf16"

    @property
    def losses(self) -> tuple[str, ...]:
        """Sentences for the user: what is less exact on it, because that was asked for."""
        return (LOSSES[self.dense],) if self.dense in LOSSES else ()

    @property
    def where(self) -> torch.device:
        """The device of the network's tensors."""
        return self.device.where

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user: what it holds, and that nobody has tried it."""
        held = f"{self.experts.capacity:,} of {self.budget.experts:,} experts"
        given = format_bytes(self.budget.total_bytes)
        return (UNTESTED, f"{self.device.name}, {given}: dense part, KV cache and {held}", *self.experts.notices)

    def give_way(self) -> bool:
        """Free some memory for a pass that did not find enough; returns whether there was any to free."""
        if self.experts.slots is None:
            return False
        self.experts.shrink()
        return True

    def fill(self, layer: int) -> None:
        """Take memory for experts, measure on those of a layer what misses cost, and upload what is used most."""
        if self.budget.half:
            self.experts.allot(self.budget.slots, self.budget.half)
            self.experts.costs = measure_costs(self.experts, layer)
            self.experts.warm()

    def clear(self) -> None:
        """Forget the experts it keeps."""
        self.experts.clear()

    def close(self) -> None:
        """Give its memory back."""
        self.experts.close()


def divide_vram(
    setting: RamSetting,
    device: ExpertDevice,
    config: ModelConfig,
    modules: Iterable[nn.Module],
    *,
    dtype: torch.dtype,
    slot_bytes: int,
    context_tokens: int | None = None,
    dense: CardDense = "bf16",
) -> VramBudget:
    """Return the budget of a card for modules that are built but empty. Raises CapacityError where they do not fit."""
    context = card_context(config, context_tokens)
    experts = config.n_routed_experts * len(config.moe_layers)
    budget = VramBudget(
        total_bytes=vram_total(setting, device.free_bytes(), device.total_bytes()),
        driver_bytes=DRIVER_BYTES if device.where.type == "cuda" else 0,
        dense_bytes=int(_dense_bytes(modules, dtype, dense)) - embedding_bytes(config, dtype),
        kv_bytes=kv_bytes(config, dtype, context),
        buffer_bytes=card_buffer_bytes(config, context),
        slot_bytes=slot_bytes if experts else 0,
        experts=experts,
        layer_experts=config.n_routed_experts,
    )
    budget.require()
    return budget


def _dense_bytes(modules: Iterable[nn.Module], dtype: torch.dtype, dense: CardDense) -> float:
    """Return what modules take on a card when their plain layers become what was asked for."""
    modules = list(modules)
    linears = sum(part.weight.numel() for module in modules for part in module.modules() if type(part) is Linear)
    return module_bytes(modules) - linears * (dtype.itemsize - card_weight_bytes(dense, dtype))


def card_context(config: ModelConfig, context_tokens: int | None) -> int:
    """Return the tokens that a card keeps memory for."""
    return min(config.max_position_embeddings, context_tokens or DEFAULT_CONTEXT_TOKENS)


def embedding_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Return the table of embeddings, which stays with the processor: a token reads one row of it."""
    return config.vocab_size * config.hidden_size * dtype.itemsize


def expert_tier(store: ExpertStore, device: ExpertDevice, config: ModelConfig) -> GpuExperts:
    """Return what runs experts on a card, above a store of them; it has no memory yet."""
    costs = MissCosts(_USUAL_COPY_S, _USUAL_CPU_S)
    return GpuExperts(store, device, config.moe_layers, config.n_routed_experts, costs)


def open_card(
    tier: GpuExperts,
    setting: RamSetting,
    config: ModelConfig,
    decoder: TextModel,
    context_tokens: int | None,
    dense: CardDense = "bf16",
) -> Card:
    """Divide the memory of a card and take that of its experts. Raises CapacityError where the rest does not fit."""
    budget = divide_vram(
        setting,
        tier.device,
        config,
        [decoder],
        dtype=decoder.embed_tokens.weight.dtype,
        slot_bytes=tier.store.expert_bytes,
        context_tokens=context_tokens,
        dense=dense,
    )
    return Card(tier.device, budget, card_context(config, context_tokens), tier, dense)


def measure_costs(tier: GpuExperts, layer: int, clock: Callable[[], float] = time.perf_counter) -> MissCosts:
    """Read a few experts, upload them and compute with them; returns what a copy and the processor take each.

    The landing slots are used; nothing stays in them.
    """
    store, slots = tier.store, tier.slots
    if slots is None:
        return tier.costs
    wanted = list(range(min(_PROBE_EXPERTS, store.cache.limit)))
    copies: list[float] = []
    for round_ in range(2):  # the first one reads from disk, and wakes everything up
        started = clock()
        event = tier.device.record()
        for _, record in store.fetch(layer, wanted):
            event = slots.upload(record, slots.landing(0, 0), event)
        tier.device.join(event)
        if round_:
            copies.append((clock() - started) / len(wanted))
    one = _processor_s(tier, layer, wanted, 1)
    many = _processor_s(tier, layer, wanted, _PROBE_ROWS)
    row_s = max(0.0, (many - one) / (_PROBE_ROWS - 1))
    return MissCosts(min(copies), max(1e-9, one - row_s), row_s)


def _processor_s(tier: GpuExperts, layer: int, experts: list[int], rows: int) -> float:
    """Return the seconds of the kernels for one expert with so many rows."""
    ids = torch.tensor(experts).repeat_interleave(rows)
    inputs = torch.ones(len(ids), tier.layout.hidden_size)
    best_s = float("inf")
    for _ in range(2):
        before_s = tier.store.kernels.use.seconds
        tier.store.rows(layer, inputs, ids, torch.zeros(len(ids)), 1)
        best_s = min(best_s, tier.store.kernels.use.seconds - before_s)
    return best_s / len(experts)


def require_store(experts: object) -> ExpertStore:
    """Return the experts if a card can take them. Raises CapacityError where the native kernels are missing."""
    if isinstance(experts, ExpertStore):
        return experts
    raise CapacityError(
        "a graphics card needs the native kernels beside it, which compute what it lacks, and packed experts",
        hint="mimo doctor says why there are none; --device cpu runs without",
    )
