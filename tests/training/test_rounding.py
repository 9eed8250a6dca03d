"""Rounding in training is the rounding of the stored files."""

import torch

from mimo_cli.checkpoint.qkv_layout import fused_row_order
from mimo_cli.model.decoder import TextModel
from mimo_cli.quant.fp8 import chunked_row_blocks, expand_block_scales, quantize_blocks
from training.rounding import round_blocks, round_qkv, rounded


def test_blocks_round_as_the_package_stores_them() -> None:
    torch.manual_seed(0)
    for shape in ((256, 256), (200, 130), (128, 64)):
        weight = torch.randn(shape)
        assert torch.equal(round_blocks(weight), expand_block_scales(*quantize_blocks(weight), torch.float32))


def test_stacks_round_matrix_by_matrix() -> None:
    torch.manual_seed(0)
    stack = torch.randn(3, 2, 128, 256) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None, None]
    assert torch.equal(round_blocks(stack)[2, 1], round_blocks(stack[2, 1]))


def test_fused_projections_round_chunk_by_chunk(text_model: TextModel) -> None:
    torch.manual_seed(0)
    for attention in (text_model.config.global_attention, text_model.config.sliding_attention):
        weight = torch.randn(attention.qkv_rows, 256)
        order = fused_row_order(attention, 2)
        blocks = chunked_row_blocks(len(weight), 2, 128)
        stored = quantize_blocks(weight[order], (128, 128), blocks)
        expected = expand_block_scales(*stored, torch.float32, (128, 128), blocks)
        assert torch.equal(round_qkv(weight, attention, 2)[order], expected)


def test_exact_weights_return_and_take_the_gradient(text_model: TextModel) -> None:
    parameter = text_model.layers[1].self_attn.qkv_proj.weight
    before = parameter.detach().clone()
    with rounded(text_model, text_model.config):
        assert not torch.equal(parameter, before)
        text_model(text_model.embed(torch.arange(5))[None], torch.arange(5)).sum().backward()
    assert torch.equal(parameter, before)
    assert parameter.grad is not None and parameter.grad.any()
    text_model.zero_grad()
