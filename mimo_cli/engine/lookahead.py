"""Guessing the experts of the next layer before its turn: its router, asked with the hidden states of this one.

Consecutive layers change the residual stream little, so the next router, correction bias and all, often names the
experts that it will name a moment later. A wrong guess costs a read and never changes an answer.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from mimo_cli.model.decoder import TextModel
from mimo_cli.model.moe import MoE


def next_experts(decoder: TextModel) -> Callable[[int, Tensor], tuple[int, list[int]] | None]:
    """Return a function of a layer and one token's normed states [1, H]: the next layer with experts, and its likely
    experts, best first; None behind the last layer."""
    routers = {i: layer.mlp.gate for i, layer in enumerate(decoder.layers) if isinstance(layer.mlp, MoE)}
    following = dict(pairwise(sorted(routers)))

    def guess(layer: int, hidden_states: Tensor) -> tuple[int, list[int]] | None:
        if layer not in following:
            return None
        with torch.inference_mode():
            expert_ids, _ = routers[following[layer]](hidden_states)
        return following[layer], expert_ids[0].tolist()

    return guess
