"""FP8 rounding in the forward pass: the network learns with the very weights that will be stored.

While a context is open, the matrices that the release stores in FP8 hold their rounded values; gradients then go to the
exact ones (straight through). Blocks and chunks are those of the package's encoder, which a test compares with.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from mimo_cli.checkpoint.config import AttentionConfig, ModelConfig
from mimo_cli.checkpoint.qkv_layout import fused_row_order
from mimo_cli.model.decoder import TextModel
from mimo_cli.quant.fp8 import FP8_MAX

BLOCK = 128


def round_blocks(values: Tensor) -> Tensor:
    """Round [..., O, I] float32 to block FP8 and back; the last blocks of rows and columns may be ragged."""
    rows, columns = values.shape[-2:]
    padded = functional.pad(values, (0, -columns % BLOCK, 0, -rows % BLOCK))
    blocks = padded.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK))  # [..., O/B, B, I/B, B]
    scales = blocks.abs().amax((-3, -1), keepdim=True) / FP8_MAX
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    rounded = (blocks / scales).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn).float() * scales
    return rounded.flatten(-4, -3).flatten(-2)[..., :rows, :columns]


def round_qkv(values: Tensor, attention: AttentionConfig, chunks: int) -> Tensor:
    """Round a fused projection [rows, H] in plain order, chunk by chunk as it is stored."""
    order = fused_row_order(attention, chunks)
    rounded = round_blocks(values[order].unflatten(0, (chunks, -1))).flatten(0, 1)
    return torch.empty_like(values).index_copy(0, order, rounded)


def rounded_weights(model: nn.Module, config: ModelConfig) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Yield the parameters of a TextModel or an MTPModule that are stored in FP8, with their rounded values."""
    chunks = config.global_attention.num_kv_heads
    for name, parameter in model.named_parameters():
        value = parameter.detach()
        if name.endswith("qkv_proj.weight"):
            is_text = isinstance(model, TextModel)
            attention = config.attention(int(name.split(".")[1])) if is_text else config.sliding_attention
            yield parameter, round_qkv(value, attention, chunks)
        elif name.startswith("experts.gate_up_proj"):
            yield parameter, round_blocks(value.unflatten(1, (2, -1))).flatten(1, 2)
        elif name.startswith("experts.down_proj") or name.endswith(
            ("mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight")
        ):
            yield parameter, round_blocks(value)


@contextmanager
def rounded(model: nn.Module, config: ModelConfig) -> Iterator[None]:
    """Let the model compute with rounded weights inside; the exact ones are back afterwards, gradients kept."""
    exact = []
    for parameter, value in rounded_weights(model, config):
        exact.append((parameter, parameter.data))
        parameter.data = value
    try:
        yield
    finally:
        for parameter, value in exact:
            parameter.data = value
