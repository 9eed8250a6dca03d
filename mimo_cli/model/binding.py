"""Which tensor of a checkpoint fills which parameter of the network.

The module tree is the list: its names are the checkpoint's, and its shapes and dtypes are what the tensors must become.
Routed experts are not in it; an ExpertSource finds those.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from mimo_cli.checkpoint.config import AttentionConfig
from mimo_cli.model.decoder import TextModel
from mimo_cli.model.mtp import MTPModule
from mimo_cli.quant.packed import PackedShape

_QKV = ".qkv_proj.weight"


@dataclass(frozen=True)
class Binding:
    """One parameter (its `state_dict` name) and its source.

    kind "plain": `tensor` is a checkpoint tensor. kind "qkv": `tensor` is the prefix of the attention block
    (`model.layers.3.self_attn`), whose q, k and v, fused or split, become one matrix [all Q; all K; all V] of
    `attention`'s shape. `shape` and `dtype` are what the parameter must have; `packed` says how the matrix lies in
    memory where the layer is to be a PackedLinear (None: as floats).
    """

    parameter: str
    tensor: str
    kind: Literal["plain", "qkv"]
    shape: tuple[int, ...]
    dtype: torch.dtype
    attention: AttentionConfig | None = None
    packed: PackedShape | None = None


def text_bindings(model: TextModel) -> Iterator[Binding]:
    """List the bindings of the main model, experts apart, in the order of its layers."""
    for name, value in model.state_dict(keep_vars=True).items():
        if name.startswith("experts."):
            continue
        if name == "lm_head.weight":
            tied = model.config.tie_word_embeddings
            yield _binding(name, "model.embed_tokens.weight" if tied else name, value)
        else:
            yield _binding(name, f"model.{name}", value, _attention_of(model, name))


def mtp_bindings(module: MTPModule, index: int) -> Iterator[Binding]:
    """List the bindings of MTP module `index` (numbering starts at 0 and does not continue the layers)."""
    for name, value in module.state_dict(keep_vars=True).items():
        yield _binding(name, f"model.mtp.layers.{index}.{name}", value, module.attention)


def _attention_of(model: TextModel, name: str) -> AttentionConfig | None:
    return model.config.attention(int(name.split(".")[1])) if name.endswith(_QKV) else None


def _binding(name: str, tensor: str, value: torch.Tensor, attention: AttentionConfig | None = None) -> Binding:
    shape = tuple(value.shape)
    if name.endswith(_QKV):
        return Binding(name, tensor.removesuffix(_QKV), "qkv", shape, value.dtype, attention)
    return Binding(name, tensor, "plain", shape, value.dtype)
