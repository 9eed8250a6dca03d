"""ExpertStore: the owner of expert memory. Reads the experts a step needs and keeps some of them, within a budget.

Packed experts stay in the mapped shards, which the operating system caches; here live only copies that are ready to
compute with. What is kept decides the speed, never the answer.
"""

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.names import expert_weight_name
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.quant.experts import ExpertWeights, swiglu_experts

DEFAULT_RESIDENT_BYTES = 2_000_000_000
"""Room for 39 experts of MiMo-V2.5 in bfloat16, or for all of a small model."""


class ExpertStore:
    """Routed experts read on demand; the least recently used leave above `resident_bytes` (None: the default).

    `dtype` and `device` are those of the dequantised weights. One expert beyond the budget is alive while it computes.
    Counters, since the start: `hits` and `misses` count experts, `bytes_read` stored bytes with scales.
    """

    def __init__(
        self,
        reader: CheckpointReader,
        config: ModelConfig,
        dtype: torch.dtype,
        resident_bytes: int | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.reader = reader
        self.dtype = dtype
        self.device = torch.device(device)
        self.resident_bytes = DEFAULT_RESIDENT_BYTES if resident_bytes is None else resident_bytes
        self.hits = 0
        self.misses = 0
        self.bytes_read = 0
        up_shape = (config.moe_intermediate_size, config.hidden_size)  # [I, H]
        self._shapes = {"gate_proj": up_shape, "up_proj": up_shape, "down_proj": up_shape[::-1]}
        self._expert_bytes = 3 * up_shape[0] * up_shape[1] * dtype.itemsize
        self._resident: OrderedDict[tuple[int, int], ExpertWeights] = OrderedDict()  # least recently used first

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
            gate, up, down = (self._read(layer, expert_id, projection) for projection in self._shapes)
        self._keep(key, (gate, up, down))
        return gate, up, down

    def clear(self) -> None:
        """Let all kept experts go; the counters stay."""
        self._resident.clear()

    def _read(self, layer: int, expert_id: int, projection: str) -> Tensor:
        name = expert_weight_name(layer, expert_id, projection)
        weight = self.reader.read(name, self.dtype, shape=self._shapes[projection])
        self.bytes_read += self.reader.stored_bytes(name)
        return weight.to(self.device)

    def _keep(self, key: tuple[int, int], weights: ExpertWeights) -> None:
        while self._resident and self.nbytes + self._expert_bytes > self.resident_bytes:
            self._resident.popitem(last=False)
        if self._expert_bytes <= self.resident_bytes:
            self._resident[key] = weights
