"""Routing by a recorded trace instead of by the routers, for measuring: decoded tokens visit the trace's experts.

Works from outside, by hooks on the routers; prompts are routed as ever. The first layer with experts takes the trace's
first layer, and so on; a trace that ends begins again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mimo_cli.engine.routing_trace import RoutingTrace
from mimo_cli.errors import UsageError
from mimo_cli.model.decoder import DecoderLayer, TextModel
from mimo_cli.model.moe import MoE


@contextmanager
def forced_routing(decoder: TextModel, trace: RoutingTrace) -> Iterator[None]:
    """Route single tokens by a trace while the block lasts; each of a token's experts weighs the same.

    Raises UsageError where the trace is of another number of experts, or has too few layers or no decoded token.
    """
    gates = [
        layer.mlp.gate for layer in decoder.layers if isinstance(layer, DecoderLayer) and isinstance(layer.mlp, MoE)
    ]
    decoded = trace.decoded
    if not decoded:
        raise UsageError("the trace holds no decoded token")
    for gate in gates:
        if gate.weight.shape[0] != trace.experts or gate.num_experts_per_tok != trace.active:
            raise UsageError(
                f"the trace is of {trace.active} of {trace.experts} experts, the model has "
                f"{gate.num_experts_per_tok} of {gate.weight.shape[0]}"
            )
    if len(gates) > len(trace.layers):
        raise UsageError(f"the trace has {len(trace.layers)} layers with experts, the model {len(gates)}")
    rows = [torch.tensor([one.experts[place] for one in decoded]) for place in range(len(gates))]  # [passes, A]
    at = [0] * len(gates)

    def route(place: int, routed: Any) -> tuple[Tensor, Tensor] | None:
        if len(routed[0]) != 1:
            return None
        ids = rows[place][at[place] % len(decoded)][None]
        at[place] += 1
        return ids, torch.full_like(routed[1], 1 / trace.active)

    handles = [gate.register_forward_hook(lambda _m, _i, out, i=i: route(i, out)) for i, gate in enumerate(gates)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
