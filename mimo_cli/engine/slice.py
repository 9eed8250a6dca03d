"""A slice of a release as an engine over random weights: what it takes, and how it is built.

The parts are those of load.py, over a reader and records that make their numbers up. All experts are in memory, or,
with a DiskTier, in files, and memory holds what its budget leaves room for.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.contents import Contents
from mimo_cli.engine.bench import BenchSpec
from mimo_cli.engine.bind import Loader, OnLoad, build_empty, module_bytes
from mimo_cli.engine.budgeting import divide_memory
from mimo_cli.engine.compute import Compute, join_layers, open_experts, pack_linears
from mimo_cli.engine.embeddings import MediaEncoder
from mimo_cli.engine.engine import Engine
from mimo_cli.engine.memory import available_bytes
from mimo_cli.engine.moe_bench import MoeLayerSpec, fill_layer, resident_bytes
from mimo_cli.engine.random_weights import RandomReader, RandomRecords, Routing
from mimo_cli.engine.routing_trace import RoutingTrace
from mimo_cli.errors import CapacityError
from mimo_cli.model.binding import text_bindings
from mimo_cli.model.decoder import TextModel
from mimo_cli.offload.budget import RamSetting
from mimo_cli.offload.expert_records import ExpertRecords
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.offload.reading import DEFAULT_READING, Reading
from mimo_cli.store.plan import DenseFormat
from mimo_cli.units import format_bytes

RecordFormat = Literal["int4", "mxfp4", "fp8"]


@dataclass(frozen=True)
class DiskTier:
    """Experts on disk: the memory for everything, and where the files go.

    parent   folder below which a temporary one is made; kept: a folder that stays instead
    reading  how experts are read
    """

    ram: RamSetting
    parent: Path
    kept: Path | None = None
    reading: Reading = DEFAULT_READING


READ_PROBE_BYTES = 3_000_000_000
"""Memory that the ceiling of a layer is measured over: many times any cache."""

_WORKSPACE_BYTES = 512 * 2**20
"""Activations of a chunk of a prompt, and the largest matrix while it is put in its place; rounded up."""


@dataclass(frozen=True)
class ShapeSpec:
    """What to build and measure. `release` is the whole model that the estimate is of, `config` the slice of it.

    decode_tokens, prompt_tokens, depths, repeats and time_limit_s are those of BenchSpec; `precision` is in `compute`.
    disk: experts in files (None: in memory); trace: where decoded tokens go; record: where their routing is written.
    """

    release: ModelConfig
    config: ModelConfig
    experts: RecordFormat = "int4"
    dense: DenseFormat = "int8"
    routing: Routing = "uniform"
    prompt_tokens: tuple[int, ...] = (512, 4096)
    decode_tokens: int = 128
    depths: tuple[int, ...] = (0,)
    repeats: int = 3
    time_limit_s: float | None = None
    moe_layer: MoeLayerSpec = field(default_factory=MoeLayerSpec)
    probe_bytes: int = READ_PROBE_BYTES
    disk: DiskTier | None = None
    trace: RoutingTrace | None = None
    record: Path | None = None

    @property
    def bench(self) -> BenchSpec:
        """The measurement of the slice. Tokens read and decoded are random ones, others to decode in every run."""
        count = max(max(self.depths) + max(self.prompt_tokens), 1)
        generator = torch.Generator().manual_seed(3)
        runs = (self.repeats + 1) * len(self.prompt_tokens) * len(self.depths)
        decoded = runs * (self.decode_tokens + 1)
        ids = torch.randint(self.config.vocab_size, (count + decoded,), generator=generator).tolist()
        sizes = self.prompt_tokens, self.decode_tokens, self.depths, self.repeats
        prompt_ids, decode_ids = tuple(ids[:count]), tuple(ids[count:])
        return BenchSpec(prompt_ids, *sizes, time_limit_s=self.time_limit_s, decode_ids=decode_ids)


def build_slice(
    spec: ShapeSpec,
    reader: RandomReader,
    records: ExpertRecords,
    compute: Compute,
    on_load: OnLoad | None = None,
    reading: Reading = DEFAULT_READING,
) -> Engine:
    """Return an engine over random weights: all experts in memory, or from the records' files as `spec.disk` says.

    It has neither towers nor MTP modules. `reading` is how files are read where `spec.disk` does not say. Raises
    CapacityError where the memory of a disk tier does not suffice.
    """
    config, disk = spec.config, spec.disk
    resident = resident_bytes(records.record_bytes, config.n_routed_experts * len(config.moe_layers))
    experts = open_experts(reader, config, compute, 0 if disk else resident, records, disk.reading if disk else reading)
    decoder = build_empty(lambda: TextModel(config, experts, compute.dtype))
    bindings = pack_linears(decoder, text_bindings(decoder), reader, compute)
    budget = None
    if disk:
        budget = divide_memory(
            disk.ram,
            config,
            [decoder],
            dtype=compute.dtype,
            slot_bytes=experts.expert_bytes,
            reading_bytes=experts.reading_bytes,
            context_tokens=spec.bench.context_tokens + spec.bench.decode_tokens,
        )
        experts.allot(budget.slots_bytes)
    loader = Loader(module_bytes([decoder]) + (0 if disk else resident), on_load, compute.kernels)
    loader.bind(decoder, reader, bindings)
    join_layers(decoder, experts, compute)
    engine = Engine(
        folder=Path("random"),
        config=config,
        compute=compute,
        contents=Contents((), 0, False, False),
        reader=reader,
        decoder=decoder,
        experts=experts,
        media=MediaEncoder(None, None, None, hidden_size=config.hidden_size, dtype=compute.dtype),
        load_mtp=list,
        budget=budget,
    )
    if isinstance(experts, ExpertStore) and disk is None:
        done = loader.loaded_bytes
        for layer in config.moe_layers:
            fill_layer(experts, config, layer, compute.dtype)
            if on_load:
                on_load(done + experts.nbytes, loader.total_bytes)
    return engine


def needed_bytes(spec: ShapeSpec, reader: RandomReader, records: RandomRecords, compute: Compute) -> int:
    """Return the memory that a measurement takes at its peak."""
    config, bench = spec.config, spec.bench
    layer_bytes = resident_bytes(records.record_bytes, config.n_routed_experts) if config.moe_layers else 0
    embedding_bytes = config.vocab_size * config.hidden_size * compute.dtype.itemsize
    dense_bytes = sum(shape.nbytes for shape in reader.shapes.values()) + embedding_bytes
    largest_bytes = max(shape.nbytes for shape in reader.shapes.values())
    kv_bytes = _kv_bytes(config, compute.dtype, bench.context_tokens + bench.decode_tokens)
    slice_bytes = layer_bytes * len(config.moe_layers) + dense_bytes + largest_bytes + kv_bytes
    return max(slice_bytes, layer_bytes + spec.probe_bytes) + _WORKSPACE_BYTES


def require_room(spec: ShapeSpec, reader: RandomReader, records: RandomRecords, compute: Compute) -> None:
    """Raise CapacityError, with the numbers and what would fit, where the memory for a measurement is not free."""
    needed, free = needed_bytes(spec, reader, records, compute), available_bytes()
    if needed <= free:
        return
    layers = spec.config.num_hidden_layers
    experts = resident_bytes(records.record_bytes, spec.config.n_routed_experts)
    raise CapacityError(
        f"{layers} layers with {spec.experts} experts need {format_bytes(needed)} of memory "
        f"({format_bytes(experts)} for the experts of each of {len(spec.config.moe_layers)} layers), "
        f"{format_bytes(free)} are free",
        hint="fewer --layers, --experts-format int4, or close other programs",
    )


def _kv_bytes(config: ModelConfig, dtype: torch.dtype, tokens: int) -> int:
    total = 0
    for layer in range(config.num_hidden_layers):
        attention = config.attention(layer)
        total += attention.num_kv_heads * (attention.head_dim + attention.v_head_dim) * tokens
    return total * dtype.itemsize
