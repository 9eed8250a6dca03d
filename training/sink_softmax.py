"""Softmax of attention scores with an optional sink, as the trunk and the vision tower train with it."""

import torch
from torch import Tensor


def sink_softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Softmax over the last axis of scores [B, heads, L, L] float32; a head's sink joins the sum and gets no column."""
    peak = scores.amax(-1, keepdim=True).detach()
    if sinks is None:
        exponentials = torch.exp(scores - peak)
        return exponentials / exponentials.sum(-1, keepdim=True)
    sink = sinks.view(1, -1, 1, 1)
    peak = torch.maximum(peak, sink.detach())
    exponentials = torch.exp(scores - peak)
    return exponentials / (exponentials.sum(-1, keepdim=True) + torch.exp(sink - peak))
