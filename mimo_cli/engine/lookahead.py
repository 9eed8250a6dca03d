"""Guessing experts before their turn. A wrong guess costs a read and never changes an answer.

The next layer's: its router, correction bias and all, asked with the hidden states of this one. Consecutive layers
change the residual stream little, so it often names what it will name a moment later. The first layer's, at a token's
start: what it chose for the same token before (offload/first_experts.py), else its router asked with the embedding.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from mimo_cli.model.decoder import DecoderLayer, TextModel
from mimo_cli.model.moe import MoE
from mimo_cli.offload.expert_store import ExpertStore

OnToken = Callable[[int, Tensor], None]
"""Told of a token about to be decoded: its id and embedding [1, H]."""


def next_experts(decoder: TextModel) -> Callable[[int, Tensor], tuple[int, list[int]] | None]:
    """Return a function of a layer and one token's normed states [1, H]: the next layer with experts, and its likely
    experts, best first; None behind the last layer."""
    routers = {i: layer.mlp.gate for i, layer in enumerate(decoder.layers) if isinstance(layer.mlp, MoE)}
    following = dict(pairwise(sorted(routers)))

    def guess(layer: int, hidden_states: Tensor) -> tuple[int, list[int]] | None:
        if layer not in following:
            return None
        with torch.inference_mode():
            # Not by calling the module: whoever watches its choices would take the guess for one.
            expert_ids, _ = routers[following[layer]].forward(hidden_states)
        return following[layer], expert_ids[0].tolist()

    return guess


def expect_first(decoder: TextModel, store: ExpertStore) -> OnToken | None:
    """Return what lets a store read ahead for the first layer with experts; None where there is none."""
    layers = [layer for layer in decoder.layers if isinstance(layer, DecoderLayer)]
    first = next(((layer, layer.mlp.gate) for layer in layers if isinstance(layer.mlp, MoE)), None)
    if first is None:
        return None
    norm, router = first[0].post_attention_layernorm, first[1]

    def on_token(token: int, embedding: Tensor) -> None:
        store.expect(token, lambda: router.forward(norm(embedding))[0][0].tolist())

    return on_token
