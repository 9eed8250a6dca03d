"""ExpertStore: runs the routed experts of a step on the native kernels, from packed records that it keeps in memory.

    router's choice -> ascending list of experts -> waves that fit in memory -> one native call for each wave

Every wave adds its experts to the same float32 sums in ascending order, so neither the budget nor what happens to be
resident changes a bit of the answer. Letters: N tokens, H hidden size, A experts per token, P = N A pairs.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from mimo_cli.offload.expert_cache import ExpertCache
from mimo_cli.offload.expert_records import ExpertRecords
from mimo_cli.quant.kernels import ExpertPairs, Kernels, Precision
from mimo_cli.quant.linear import refuse_gradients

DEFAULT_RESIDENT_BYTES = 2_000_000_000
"""Room for 79 experts of MiMo-V2.5 in FP8, or for all of a small model."""


class ExpertStore:
    """Satisfies the network's ExpertSource over packed records; holds as many as fit in `resident_bytes`, at least one.

    `native_calls` counts calls of the kernels; the other counters are those of ExpertCache.
    """

    def __init__(
        self,
        records: ExpertRecords,
        kernels: Kernels,
        precision: Precision,
        resident_bytes: int = DEFAULT_RESIDENT_BYTES,
    ) -> None:
        self.records = records
        self.kernels = kernels
        self.precision: Precision = precision
        self.resident_bytes = resident_bytes
        self.native_calls = 0
        self._cache = ExpertCache(records, resident_bytes)
        self._one_token = torch.zeros(64, dtype=torch.int32)

    @property
    def hits(self) -> int:
        """Experts found in memory."""
        return self._cache.hits

    @property
    def misses(self) -> int:
        """Experts read."""
        return self._cache.misses

    @property
    def bytes_read(self) -> int:
        """Stored bytes of the experts read."""
        return self._cache.bytes_read

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken for experts."""
        return self._cache.nbytes

    def run(self, layer: int, hidden_states: Tensor, expert_ids: Tensor, expert_weights: Tensor) -> Tensor:
        """Return the weighted sum over each token's experts.

        hidden_states [N, H]; expert_ids [N, A] int64; expert_weights [N, A] float32 -> [N, H], dtype of the input.
        Raises CheckpointError if an expert cannot be read, MimoError where gradients are asked for.
        """
        refuse_gradients(hidden_states)
        x = hidden_states.float().contiguous()
        total = torch.zeros(x.shape)
        down_offset = self.records.up_shape.nbytes
        for experts, pairs in self._waves(expert_ids, expert_weights):
            gate_up = self._cache.addresses(layer, experts)
            down = [address + down_offset for address in gate_up]
            self.kernels.moe(self.records.up_shape, gate_up, down, pairs, x, total, self.precision)
            self.native_calls += 1
        return total.to(hidden_states.dtype)

    def clear(self) -> None:
        """Let all experts go; the counters stay."""
        self._cache.clear()

    def close(self) -> None:
        """Let all experts and their files go."""
        self._cache.clear()
        self.records.close()

    def _waves(self, expert_ids: Tensor, expert_weights: Tensor) -> Iterator[tuple[list[int], ExpertPairs]]:
        """Yield ascending experts that fit in memory together, and the pairs that belong to them."""
        tokens, active = expert_ids.shape
        if tokens == 1 and active <= len(self._one_token):  # a decoded token: plain lists are faster than tensors
            ids = expert_ids[0].tolist()
            experts = sorted(set(ids))
            places = torch.tensor([experts.index(expert_id) for expert_id in ids], dtype=torch.int32)
            token_of = self._one_token[:active]
        else:
            unique, inverse = expert_ids.reshape(-1).unique(return_inverse=True)  # ascending
            experts, places = unique.tolist(), inverse.to(torch.int32)
            token_of = torch.arange(tokens, dtype=torch.int32).repeat_interleave(active)
        weights = expert_weights.reshape(-1).contiguous()
        capacity = self._cache.capacity
        if len(experts) <= capacity:
            yield from [(experts, ExpertPairs(token_of, places, weights))] if experts else []
            return
        for first in range(0, len(experts), capacity):
            chosen = (places >= first) & (places < first + capacity)
            pairs = ExpertPairs(token_of[chosen], places[chosen] - first, weights[chosen])
            yield experts[first : first + capacity], pairs
