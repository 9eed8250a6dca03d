"""DequantizedExperts: the experts of a step as float matrices, computed by torch, where there are no native kernels.

Slower than ExpertStore and several times its size in memory; whoever loads a model says so. Stored experts stay in
their files, which the operating system caches; here live copies that are ready to compute with, within a budget. What
is kept decides the speed, never the answer.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.names import expert_weight_name
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.offload.record_source import RecordSource
from mimo_cli.quant.buffers import allocate_bytes
from mimo_cli.quant.experts import ExpertWeights, swiglu_experts
from mimo_cli.quant.packed import decode_packed

DEFAULT_RESIDENT_BYTES = 2_000_000_000
"""Room for 39 experts of MiMo-V2.5 in bfloat16, or for all of a small model."""

ReadExpert = Callable[[int, int], tuple[ExpertWeights, int]]
"""Reads an expert of a layer: its weights, and what they cost in stored bytes."""


class DequantizedExperts:
    """Routed experts read on demand; the least recently used leave above `resident_bytes` (None: the default).

    Satisfies the network's ExpertSource, differentiably. `read` gives the weights of an expert, `expert_bytes` is what
    they take in memory; one expert beyond the budget is alive while it computes.
    Counters, since the start: `hits` and `misses` count experts, `bytes_read` stored bytes with scales.
    """

    native_calls = 0

    def __init__(self, read: ReadExpert, expert_bytes: int, resident_bytes: int | None = None) -> None:
        self.resident_bytes = DEFAULT_RESIDENT_BYTES if resident_bytes is None else resident_bytes
        self.hits = 0
        self.misses = 0
        self.bytes_read = 0
        self._read = read
        self._expert_bytes = expert_bytes
        self._source: RecordSource | None = None
        self._resident: OrderedDict[tuple[int, int], ExpertWeights] = OrderedDict()  # least recently used first

    @classmethod
    def of_shards(
        cls, reader: CheckpointReader, config: ModelConfig, dtype: torch.dtype, resident_bytes: int | None = None
    ) -> "DequantizedExperts":
        """Return the experts of a released checkpoint as matrices of `dtype`."""
        up_shape = (config.moe_intermediate_size, config.hidden_size)  # [I, H]
        shapes = {"gate_proj": up_shape, "up_proj": up_shape, "down_proj": up_shape[::-1]}

        def read(layer: int, expert_id: int) -> tuple[ExpertWeights, int]:
            names = {part: expert_weight_name(layer, expert_id, part) for part in shapes}
            gate, up, down = (reader.read(name, dtype, shape=shapes[part]) for part, name in names.items())
            return (gate, up, down), sum(reader.stored_bytes(name) for name in names.values())

        return cls(read, 3 * up_shape[0] * up_shape[1] * dtype.itemsize, resident_bytes)

    @classmethod
    def of_records(
        cls, source: RecordSource, dtype: torch.dtype, resident_bytes: int | None = None
    ) -> "DequantizedExperts":
        """Return packed experts as matrices of `dtype`, decoded by the reference decoder; they close `source`."""
        records = source.records
        up_shape, down_shape = records.up_shape, records.down_shape
        slot = allocate_bytes(source.slot_bytes)

        def read(layer: int, expert_id: int) -> tuple[ExpertWeights, int]:
            source.fill(layer, expert_id, slot)
            streams = slot[: up_shape.nbytes + down_shape.nbytes].split([up_shape.nbytes, down_shape.nbytes])
            floats = [*decode_packed(streams[0].numpy(), up_shape), *decode_packed(streams[1].numpy(), down_shape)]
            gate, up, down = (torch.from_numpy(values).to(dtype) for values in floats)
            return (gate, up, down), records.stored_bytes

        experts = cls(read, 3 * up_shape.rows * up_shape.cols * dtype.itemsize, resident_bytes)
        experts._source = source
        return experts

    reading_bytes = 0

    @property
    def expert_bytes(self) -> int:
        """Memory of one expert."""
        return self._expert_bytes

    def allot(self, resident_bytes: int) -> None:
        """Keep as many experts from now on as fit in so many bytes."""
        self.resident_bytes = resident_bytes

    @property
    def nbytes(self) -> int:
        """Bytes of the experts kept ready now."""
        return len(self._resident) * self._expert_bytes

    def run(self, layer: int, hidden_states: Tensor, expert_ids: Tensor, expert_weights: Tensor) -> Tensor:
        """Return the weighted sum over each token's experts.

        hidden_states [N, H]; expert_ids [N, A] int64; expert_weights [N, A] float32 -> [N, H], dtype of the input.
        Raises CheckpointError if an expert cannot be read.
        """
        return swiglu_experts(hidden_states, expert_ids, expert_weights, partial(self.expert, layer))

    def expert(self, layer: int, expert_id: int) -> ExpertWeights:
        """Return gate [I, H], up [I, H] and down [H, I] of one expert, from memory or from its shard."""
        key = (layer, expert_id)
        kept = self._resident.get(key)
        if kept is not None:
            self.hits += 1
            self._resident.move_to_end(key)
            return kept
        self.misses += 1
        with torch.inference_mode(False):  # a weight first read under inference mode must serve training too
            weights, stored_bytes = self._read(layer, expert_id)
        self.bytes_read += stored_bytes
        self._keep(key, weights)
        return weights

    def clear(self) -> None:
        """Let all kept experts go; the counters stay."""
        self._resident.clear()

    def close(self) -> None:
        """Let all kept experts go, and close their files."""
        self.clear()
        if self._source is not None:
            self._source.close()

    def _keep(self, key: tuple[int, int], weights: ExpertWeights) -> None:
        while self._resident and self.nbytes + self._expert_bytes > self.resident_bytes:
            self._resident.popitem(last=False)
        if self._expert_bytes <= self.resident_bytes:
            self._resident[key] = weights
