"""Running the expert store along a routing trace, on tiny experts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mimo_cli.engine.model_sizes import expert_shapes
from mimo_cli.engine.random_weights import RandomRecords
from mimo_cli.engine.routing_trace import RoutingTrace, TracedPass
from mimo_cli.offload.counters import OffloadCounters
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.offload.record_source import RecordSource
from mimo_cli.quant.random_streams import RandomStreams
from tests.support.kernels import kernels
from tests.support.tiny_config import tiny_config

HIDDEN = 128


def run_store(trace: RoutingTrace, slots: int) -> OffloadCounters:
    """Send every pass of a trace through an expert store with so many slots; returns what it counted."""
    config = tiny_config(
        hidden_size=HIDDEN,
        moe_intermediate_size=64,
        n_routed_experts=trace.experts,
        num_experts_per_tok=trace.active,
    )
    records = RandomRecords(config, "int4", RandomStreams())
    assert records.up_shape == expert_shapes(config, "int4")[0]
    source = RecordSource(records)
    memory = slots * source.slot_bytes
    store = ExpertStore(source, kernels(), "exact", trace.layers, trace.experts, memory, trace.active)
    try:
        with torch.inference_mode():
            for one in trace.passes:
                for row, layer in enumerate(trace.layers):
                    ids = routed_ids(one, row, trace.active)
                    store.run(layer, torch.zeros(len(ids), HIDDEN), ids, torch.full(ids.shape, 0.5))
        return store.counters.snapshot()
    finally:
        store.close()


def routed_ids(one: TracedPass, row: int, active: int) -> Tensor:
    """Return experts [N, A] that visit each expert as often as a pass says; every expert of a token is another."""
    if one.tokens == 1:
        return torch.tensor([one.experts[row]])
    wanted: Sequence[int] = one.counts[row]
    flat = [expert for expert, count in zip(one.experts[row], wanted, strict=True) for _ in range(count)]
    assert len(flat) == one.tokens * active
    return torch.tensor(flat).view(active, one.tokens).t().contiguous()
