"""From a folder to an Engine: configuration, tensor index, plan, empty network, weights.

config.json -> ModelConfig;  shard headers -> TensorIndex;  every tensor accounted for, before any weight is read
network on the meta device -> its bytes against free memory -> dense weights bound; experts stay on disk
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from mimo_cli.checkpoint import early_read
from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.contents import Contents
from mimo_cli.checkpoint.names import text_weights
from mimo_cli.checkpoint.qkv_layout import QkvChunks
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.engine.bind import Loader, OnLoad, build_empty, module_bytes, require_memory
from mimo_cli.engine.budgeting import divide_memory
from mimo_cli.engine.card import Card, expert_tier, open_card, open_device, require_store
from mimo_cli.engine.card_dense import dense_replacer
from mimo_cli.engine.compute import (
    Compute,
    Experts,
    PrecisionChoice,
    choose_compute,
    join_layers,
    open_experts,
    pack_linears,
)
from mimo_cli.engine.embeddings import MediaEncoder
from mimo_cli.engine.engine import Engine
from mimo_cli.engine.lookahead import next_experts
from mimo_cli.engine.placement import CardDense
from mimo_cli.engine.processor import has_native_bfloat16
from mimo_cli.engine.towers import (
    AudioTables,
    Hearing,
    empty_hearing,
    empty_vision,
    fill_hearing,
    fill_vision,
)
from mimo_cli.engine.widening import widen
from mimo_cli.errors import UsageError
from mimo_cli.model.binding import mtp_bindings, text_bindings
from mimo_cli.model.decoder import TextModel
from mimo_cli.model.mtp import MTPModule
from mimo_cli.model.vision import VisionTower
from mimo_cli.offload.budget import AUTOMATIC, MemoryBudget, RamSetting, parsed
from mimo_cli.offload.device import ExpertDevice
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.offload.reading import DEFAULT_READING, Reading
from mimo_cli.quant.availability import missing_reason
from mimo_cli.store.opened import open_model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_SMALL_MODEL_BYTES = 256 * 2**20
"""Below this many bytes in float32 a model is read in float32 everywhere: its speed does not depend on it."""


@dataclass(frozen=True)
class LoadOptions:
    """Settings of a load beyond device and dtype. Where public implementations disagree, the default is listed first.

    window        previous tokens a sliding-window layer sees, instead of the configured ones (128 = 129 keys)
    qkv_chunks    order of fused q, k, v rows: a number of chunks or "plain", where the files do not tell
    vision_sinks  the vision tower's sinks: "denominator", "key0" or "ignore"; merger_norm: "layernorm" or "rmsnorm"
    audio_tables  "rounded" to bfloat16 as the serving stacks do, or "exact"
    ram           memory for everything: process, dense weights, KV cache, buffers; the rest is for experts
    vram          memory of the graphics card for everything, where `device` names one
    card_dense    dense matrices there: "bf16" is the compute dtype; "w8a8", "int8" and "nf4" are smaller and lossy
    context_tokens  the context that memory is kept for (None: as a sequence has by default)
    expert_bytes  memory for experts alone, whatever else is taken (None: what `ram` leaves)
    reading       how experts are read from disk
    precision     of activations before integer weights: "exact", or "int8", which is faster and lossy
    threads       of the native kernels (None: as many as torch uses)
    """

    window: int | None = None
    qkv_chunks: QkvChunks | None = None
    vision_sinks: Literal["denominator", "key0", "ignore"] = "denominator"
    merger_norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    audio_tables: AudioTables = "rounded"
    ram: RamSetting | str = AUTOMATIC
    vram: RamSetting | str = AUTOMATIC
    card_dense: CardDense = "bf16"
    context_tokens: int | None = None
    expert_bytes: int | None = None
    reading: Reading = DEFAULT_READING
    precision: PrecisionChoice = "exact"
    threads: int | None = None

    def apply(self, config: ModelConfig) -> ModelConfig:
        """Return the configuration with these settings in place of the checkpoint's."""
        if self.window is not None:
            if self.window < 1:
                raise UsageError(f"a window of {self.window} tokens is not possible, 1 or more expected")
            config = replace(config, sliding_attention=replace(config.sliding_attention, window=self.window))
        if config.vision:
            vision = replace(config.vision, sink_form=self.vision_sinks, merger_norm=self.merger_norm)
            config = replace(config, vision=vision)
        return config


def load_engine(
    folder: Path,
    *,
    device: str | ExpertDevice = "auto",
    dtype: str = "auto",
    options: LoadOptions | None = None,
    on_load: OnLoad | None = None,
) -> Engine:
    """Open a checkpoint or a packed store of one. `dtype` is "auto", "float32" or "bfloat16".

    device: "auto" or "cpu", the processor; "cuda" or "cuda:1", a card with the processor beside it; or what stands in
    for a card. A dtype of "auto" is float32 for small models, bfloat16 for others; where the processor only emulates
    bfloat16, its products are float32 by the kernels and in the towers, or the dtype is float32 without kernels.
    Raises UsageError for a device or dtype that is not implemented, CheckpointError for files that are missing,
    damaged, left over or not what config.json says, CapacityError before reading where the dense part does not fit.
    """
    card_device = open_device(device)
    options = options or LoadOptions()
    config = options.apply(ModelConfig.from_file(folder / "config.json"))
    opened = open_model(folder, config)
    contents = opened.require_whole()
    reader = opened.reader(options.qkv_chunks)
    compute_dtype = choose_dtype(dtype, config)
    compute = choose_compute(compute_dtype, options.precision, options.threads)
    experts = open_experts(reader, config, compute, 0, opened.records(), options.reading)
    tier = expert_tier(require_store(experts), card_device, config) if card_device is not None else None
    decoder = build_empty(lambda: TextModel(config, tier or experts, compute_dtype))
    vision, hearing = _empty_towers(folder, config, contents, compute_dtype, options)
    towers = [*([vision] if vision else []), *([hearing.tokenizer, hearing.encoder] if hearing else [])]
    bindings = list(text_bindings(decoder))
    card, replace_linear = None, None
    if tier is not None:
        replace_linear = dense_replacer(options.card_dense, tier.device.where)
        setting = parsed(options.vram)
        card = open_card(tier, setting, config, decoder, options.context_tokens, options.card_dense)
    if card is None:
        bindings = pack_linears(decoder, bindings, reader, compute)
    here: list[nn.Module] = [decoder if card is None else decoder.embed_tokens, *towers]
    if compute.kernels is None or card is not None:
        early_read.forget()  # nobody takes packed matrices as they are
    budget = _allot(options, config, here, experts, compute_dtype, has_card=card is not None)
    is_tight = budget is not None and budget.slots < budget.experts
    loader = Loader(module_bytes([decoder, *towers]), on_load, compute.kernels, is_tight=is_tight)
    loader.bind(decoder, reader, bindings, card.where if card else None, replace_linear)
    if vision:
        fill_vision(vision, reader, loader)
    if hearing:
        fill_hearing(hearing, reader, loader)
    if dtype == "auto" and not has_native_bfloat16():
        for tower in towers:
            widen(tower)
    _start(decoder, experts, compute, card)
    return Engine(
        folder=folder,
        config=config,
        compute=compute,
        contents=contents,
        stored_losses=opened.losses,
        reader=reader,
        decoder=decoder,
        experts=experts,
        budget=budget,
        card=card,
        media=MediaEncoder(
            vision,
            hearing.tokenizer if hearing else None,
            hearing.encoder if hearing else None,
            hidden_size=config.hidden_size,
            dtype=compute_dtype,
        ),
        load_mtp=lambda: _load_mtp(config, reader, compute, contents.num_mtp, card.where if card else None),
    )


def _empty_towers(
    folder: Path, config: ModelConfig, contents: Contents, dtype: torch.dtype, options: LoadOptions
) -> tuple[VisionTower | None, Hearing | None]:
    vision = empty_vision(config.vision, dtype) if config.vision and contents.has_vision else None
    hearing = None
    if config.audio and contents.has_audio:
        hearing = empty_hearing(folder, config.audio, dtype, options.audio_tables)
    return vision, hearing


def _start(decoder: TextModel, experts: Experts, compute: Compute, card: Card | None) -> None:
    """Let a filled network and its experts work together."""
    if card is None:
        join_layers(decoder, experts, compute)
    if isinstance(experts, ExpertStore):
        experts.guess = next_experts(decoder) if card is None else None  # routers on a card have no time for it
        experts.warm()
    if card is not None:
        card.fill(decoder.config.moe_layers[0])


def choose_dtype(dtype: str, config: ModelConfig) -> torch.dtype:
    """Return the compute dtype of a name; "auto" looks at the model's size and the processor."""
    if dtype in DTYPES:
        return DTYPES[dtype]
    if dtype != "auto":
        raise UsageError(f"dtype `{dtype}` is unknown, `auto`, {' or '.join(f'`{name}`' for name in DTYPES)} expected")
    dense_bytes = 4 * sum(math.prod(weight.shape) for weight in text_weights(config))
    is_small = dense_bytes < _SMALL_MODEL_BYTES
    # The kernels hold bfloat16 weights and multiply in float32 where they must; torch would emulate every product.
    return torch.float32 if is_small or (missing_reason() and not has_native_bfloat16()) else torch.bfloat16


def _allot(
    options: LoadOptions,
    config: ModelConfig,
    modules: list[nn.Module],
    experts: Experts,
    dtype: torch.dtype,
    *,
    has_card: bool = False,
) -> MemoryBudget | None:
    """Give the experts their memory; returns how all of it is divided, None where that was not asked for."""
    if options.expert_bytes is not None:
        require_memory(module_bytes(modules), "the model without its experts")
        experts.allot(options.expert_bytes)
        return None
    budget = divide_memory(
        parsed(options.ram),
        config,
        modules,
        dtype=dtype,
        slot_bytes=experts.expert_bytes,
        reading_bytes=experts.reading_bytes,
        context_tokens=options.context_tokens,
        has_card=has_card,
    )
    experts.allot(budget.slots_bytes)
    return budget


def _load_mtp(
    config: ModelConfig, reader: CheckpointReader, compute: Compute, count: int, where: torch.device | None
) -> list[MTPModule]:
    """Read the MTP modules: packed for the processor, or plain and to the device `where` the network is."""
    modules = [build_empty(lambda: MTPModule(config, compute.dtype)) for _ in range(count)]
    bindings = [list(mtp_bindings(module, k)) for k, module in enumerate(modules)]
    if where is None:
        bindings = [pack_linears(*both, reader, compute) for both in zip(modules, bindings, strict=True)]
    needed_bytes = module_bytes(modules)
    require_memory(needed_bytes, "the MTP modules")
    loader = Loader(needed_bytes, kernels=compute.kernels)
    for module, own in zip(modules, bindings, strict=True):
        loader.bind(module, reader, own, where)
    return modules
