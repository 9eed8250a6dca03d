"""Who computes what: the native kernels where they exist and read a stored format, torch everywhere else.

The choice is made once, at loading; the network does not know it. Whatever is slower or less exact than it could be is
put into sentences for the user.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import nn

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.engine.bind import stored_parts
from mimo_cli.engine.processor import has_native_bfloat16
from mimo_cli.errors import UsageError
from mimo_cli.model.attention import Attention
from mimo_cli.model.binding import Binding
from mimo_cli.model.decoder import DecoderLayer, TextModel
from mimo_cli.model.moe import Router
from mimo_cli.model.native_attention import NativeAttention
from mimo_cli.model.norm import RMSNorm
from mimo_cli.offload.dequantized_experts import DequantizedExperts
from mimo_cli.offload.expert_records import ExpertRecords
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.offload.reading import DEFAULT_READING, Reading, open_source, usage_file
from mimo_cli.offload.shard_records import open_shard_records
from mimo_cli.quant.kernels import Kernels, Precision, load_kernels, missing_reason
from mimo_cli.quant.linear import Linear, PackedLinear, native_precision
from mimo_cli.quant.pack import packed_shape
from mimo_cli.quant.packed import PackedFormat

Experts: TypeAlias = ExpertStore | DequantizedExperts

PrecisionChoice = Literal["exact", "int8"]
"""exact: activations as the compute dtype has them. int8: rounded to 8 bits before integer weights; faster, lossy."""

_INTEGER_FORMATS: frozenset[PackedFormat] = frozenset({"int4", "mxfp4", "int8"})


@dataclass(frozen=True)
class Compute:
    """The native kernels of a load, or why there are none (`missing`), and the precision that was chosen."""

    kernels: Kernels | None
    dtype: torch.dtype
    precision: PrecisionChoice = "exact"
    missing: str | None = None

    @property
    def name(self) -> str:
        """What computes, for people: `avx512, 2 threads`."""
        if self.kernels is None:
            return "torch"
        return f"{self.kernels.isa}, {self.kernels.threads} thread{'s' if self.kernels.threads > 1 else ''}"

    def kernel_precision(self, packed_format: PackedFormat) -> Precision:
        """Return the precision of the activations before weights of a format: int8 only where that was chosen."""
        if self.precision == "int8" and packed_format in _INTEGER_FORMATS:
            return "int8"
        return native_precision(self.dtype)

    def notes(self, experts: Experts) -> tuple[str, ...]:
        """Say what is slower than it could be."""
        if self.kernels is None:
            return (f"computed by torch, which is slower: {self.missing}",)
        if isinstance(experts, DequantizedExperts):
            return ("experts are dequantized and computed by torch, which is slower: no kernel reads them as stored",)
        return ()

    def losses(self, experts: Experts, network: nn.Module) -> tuple[str, ...]:
        """Say what is less exact than it could be: int8 activations, where integer weights are multiplied."""
        formats = {layer.shape.format for layer in network.modules() if isinstance(layer, PackedLinear)}
        if isinstance(experts, ExpertStore):
            formats.add(experts.records.up_shape.format)
        lossy = any(self.kernel_precision(name) == "int8" for name in formats)
        return ("activations are rounded to 8 bits before integer weights",) if lossy else ()


def choose_compute(dtype: torch.dtype, precision: PrecisionChoice = "exact", threads: int | None = None) -> Compute:
    """Return the kernels of this machine; `threads` None: as many as torch uses."""
    return Compute(load_kernels(threads or torch.get_num_threads()), dtype, precision, missing_reason())


def open_experts(
    reader: CheckpointReader,
    config: ModelConfig,
    compute: Compute,
    resident_bytes: int,
    stored: ExpertRecords | None = None,
    reading: Reading = DEFAULT_READING,
) -> Experts:
    """Return the routed experts: records `stored` by a packed store, or those of a checkpoint's shards.

    They are computed by the kernels if these read the format.
    """
    if stored is not None and compute.kernels is None:
        source = open_source(stored, reading, config.moe_layers, config.n_routed_experts)
        return DequantizedExperts.of_records(source, compute.dtype, resident_bytes)
    records = stored or (
        open_shard_records(reader, config, compute.kernels, compute.dtype) if compute.kernels else None
    )
    if compute.kernels is None or records is None:
        if reading.verify:
            raise UsageError(
                f"--verify-experts checks experts as the native kernels read them: {compute.missing or 'not these'}",
                hint="leave it out, or make a packed store with `mimo quantize` and check that",
            )
        return DequantizedExperts.of_shards(reader, config, compute.dtype, resident_bytes)
    return ExpertStore(
        open_source(records, reading, config.moe_layers, config.n_routed_experts),
        compute.kernels,
        compute.kernel_precision(records.up_shape.format),
        config.moe_layers,
        config.n_routed_experts,
        resident_bytes,
        config.num_experts_per_tok,
        usage_file(records, config.moe_layers, reading),
    )


def pack_linears(
    module: nn.Module, bindings: Iterable[Binding], reader: CheckpointReader, compute: Compute
) -> list[Binding]:
    """Replace the Linear layers of an empty module by PackedLinear, still empty, where their stored weights allow it.

    Its attention, norms and routers get the kernels as well. Returns the bindings of the changed module. A weight that
    fills several parameters stays one float matrix.
    """
    bindings = list(bindings)
    if compute.kernels is None:
        return bindings
    is_widened = compute.dtype == torch.bfloat16 and not has_native_bfloat16()
    for part in module.modules():
        if isinstance(part, Attention | Router | RMSNorm):
            part.kernels = compute.kernels
        if isinstance(part, Attention):
            part.is_widened = is_widened
    sources = [binding.tensor for binding in bindings]
    packed = [
        _packed(module, binding, reader, compute, compute.kernels) if sources.count(binding.tensor) == 1 else binding
        for binding in bindings
    ]
    for layer in [part for part in module.modules() if isinstance(part, DecoderLayer)]:
        if NativeAttention.fits(layer.self_attn):
            norms = layer.input_layernorm, layer.post_attention_layernorm
            layer.native = NativeAttention(compute.kernels, norms[0], layer.self_attn, norms[1])
    return packed


def join_layers(decoder: TextModel, experts: Experts, compute: Compute) -> None:
    """Let steps of a few tokens go through all layers in one call, where the kernels know every part of the network."""
    if compute.kernels is not None and isinstance(experts, ExpertStore):
        decoder.join_layers(compute.kernels, experts)


def _packed(
    module: nn.Module, binding: Binding, reader: CheckpointReader, compute: Compute, kernels: Kernels
) -> Binding:
    path, _, name = binding.parameter.rpartition(".")
    layer = module.get_submodule(path)
    if name != "weight" or type(layer) is not Linear or layer.bias is not None:
        return binding
    shape = packed_shape(stored_parts(reader, binding), binding.dtype)
    if shape is None or (shape.rows, shape.cols) != binding.shape:  # another shape is reported when it is read
        return binding
    empty = torch.empty(shape.nbytes, dtype=torch.uint8, device="meta")
    module.set_submodule(path, PackedLinear(kernels, shape, empty, compute.kernel_precision(shape.format)))
    return replace(binding, parameter=f"{path}.data", packed=shape)
