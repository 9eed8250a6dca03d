"""Weights of the text model as plain matrices, whatever their storage: block FP8, MXFP4, fused query-key-value rows.

Facts of the release that only a reader of checkpoints needs:

* `X.weight` is block FP8 if `X.weight_scale_inv` exists, MXFP4 if `X.weight_scale` does, and plain otherwise. Both
  kinds of scales are multiplied; the name `_inv` misleads. An FP8 scale covers 128 x 128 numbers, an MXFP4 scale 32
  neighbours of one row.
* The fused projection consists of C chunks, each [its query heads; its key heads; its value heads], and each chunk was
  quantised alone: its grid of blocks restarts at its first row. With R rows per chunk, row r belongs to row block
  `(r // R) * ceil(R / 128) + (r % R) // 128`. C is the index's `tp_size`, the number of key-value heads of a *global*
  layer, in sliding layers and MTP modules too.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference.storage import Array, Stored, decode_e2m1, decode_e8m0, read_folder

BLOCK = 128
MXFP4_BLOCK = 32


@dataclass(frozen=True)
class Heads:
    """The attention of one kind of layer: heads, their widths in query-key and value, and the base of the rotation."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    v_head_dim: int
    rope_theta: float

    @classmethod
    def of(cls, config: Mapping[str, Any], *, sliding: bool) -> "Heads":
        """Read the keys of global layers, or the `swa_` keys with the global ones behind them."""
        names = ("num_attention_heads", "num_key_value_heads", "head_dim", "v_head_dim", "rope_theta")
        values = [config[name] for name in names]
        if sliding:
            values = [_given(config, f"swa_{name}", value) for name, value in zip(names, values, strict=True)]
        return cls(*values)

    @property
    def rows(self) -> tuple[int, int, int]:
        """Rows of the query, key and value projections."""
        return (
            self.num_heads * self.head_dim,
            self.num_kv_heads * self.head_dim,
            self.num_kv_heads * self.v_head_dim,
        )


def _given(config: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    """A key's value; null counts as absent."""
    value = config.get(name)
    return otherwise if value is None else value


def deal_out(fused: Array, heads: Heads, chunks: int) -> tuple[Array, Array, Array]:
    """Take chunks of [q; k; v] rows apart and join each projection's parts in their order."""
    borders = np.cumsum([rows // chunks for rows in heads.rows])[:2]
    parts = [np.split(chunk, borders) for chunk in np.split(fused, chunks)]
    q, k, v = (np.concatenate(projection) for projection in zip(*parts, strict=True))
    return q, k, v


def expand_fp8(weight: Stored, scale_inv: Stored, chunks: int = 1) -> Array:
    """Multiply each e4m3 number by the scale of its block, in float32; the rows form `chunks` grids of their own."""
    rows, columns = weight.shape
    chunk_rows = rows // chunks
    row = np.arange(rows)
    row_block = row // chunk_rows * math.ceil(chunk_rows / BLOCK) + row % chunk_rows // BLOCK
    scales = scale_inv.numbers()
    assert scales.shape == (row_block[-1] + 1, math.ceil(columns / BLOCK))
    return weight.numbers() * scales[row_block][:, np.arange(columns) // BLOCK]


def expand_mxfp4(weight: Stored, scale: Stored) -> Array:
    """Multiply each e2m1 number [out, in] by the power of two of its group of 32 inputs; exact in float32."""
    return decode_e2m1(weight.codes()) * decode_e8m0(scale.codes()).repeat(MXFP4_BLOCK, axis=1)


class TextWeights:
    """A checkpoint folder, its matrices by name as float32."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.index: dict[str, Any] = json.loads((folder / "model.safetensors.index.json").read_text())
        self.stored = read_folder(folder)

    @cached_property
    def chunks(self) -> int:
        """Number of chunks of a fused projection."""
        return int(self.index["metadata"]["tp_size"])

    @cached_property
    def num_mtp(self) -> int:
        """Number of MTP modules, counted: the configuration need not know."""
        return len({name.split(".")[3] for name in self.stored if name.startswith("model.mtp.layers.")})

    def matrix(self, name: str) -> Array:
        """Return `name.weight`, dequantised."""
        return self._expand(name)

    def vector(self, name: str) -> Array:
        """Return a plain tensor under its full name."""
        return self.stored[name].numbers()

    def qkv(self, prefix: str, heads: Heads) -> tuple[Array, Array, Array]:
        """Return the query, key and value matrices of `prefix` = `....self_attn`."""
        if f"{prefix}.qkv_proj.weight" in self.stored:
            return deal_out(self._expand(f"{prefix}.qkv_proj", self.chunks), heads, self.chunks)
        q, k, v = (self._expand(f"{prefix}.{letter}_proj") for letter in "qkv")
        return q, k, v

    def _expand(self, name: str, chunks: int = 1) -> Array:
        weight = self.stored[f"{name}.weight"]
        if f"{name}.weight_scale_inv" in self.stored:
            return expand_fp8(weight, self.stored[f"{name}.weight_scale_inv"], chunks)
        if f"{name}.weight_scale" in self.stored:
            return expand_mxfp4(weight, self.stored[f"{name}.weight_scale"])
        return weight.numbers()
