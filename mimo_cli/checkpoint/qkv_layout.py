"""How the rows of a fused qkv projection are arranged, and how many chunks there are.

The release stores C chunks one after the other; chunk c holds the rows of its q heads, its k heads, its v heads, and
was quantised on its own, so its grid of scales restarts at its first row. C is `num_key_value_heads` of the global
layers, for sliding layers and MTP modules too. Plain order [all Q; all K; all V] is C = 1.

Read as anything else, the model still speaks, in garbage. Source: text specification, section 8.2.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mimo_cli.checkpoint.config import AttentionConfig, ModelConfig
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.names import FP8_SCALE
from mimo_cli.errors import CheckpointError

QkvChunks = int | Literal["plain"]
"""What a user may say about a checkpoint: a number of chunks, or plain order."""

CHUNKS_HINT = "set the number of qkv chunks by hand (`plain` or a number)"


@dataclass(frozen=True)
class QkvLayout:
    """The number of chunks, and what was assumed to find it (None if the files prove or state it)."""

    chunks: int
    assumption: str | None = None


def find_qkv_layout(index: TensorIndex, config: ModelConfig | None, override: QkvChunks | None = None) -> QkvLayout:
    """Find the number of chunks: the override, else the index file's `tp_size`, else what the scale grid allows.

    Without `config` only the first two are known. A `tp_size` that the scale grid of a global layer contradicts is not
    believed. Raises CheckpointError if no number fits or nothing is known.
    """
    if override is not None:
        return QkvLayout(1 if override == "plain" else override)
    stated = _positive(index.metadata.get("tp_size"))
    if config is None:
        if stated is None:
            raise CheckpointError(
                "the number of qkv chunks is not known: the index file has no `tp_size`", hint=CHUNKS_HINT
            )
        return QkvLayout(stated)
    kv_heads = config.global_attention.num_kv_heads
    grid = _global_grid(index, config)
    if grid is None:
        if stated:
            return QkvLayout(stated)
        return QkvLayout(
            kv_heads, f"fused qkv without block scales is taken as {kv_heads} chunks, the release's layout"
        )
    rows, scale_rows = grid
    block_rows = config.weight_block_size[0]
    fitting = [
        c for c in range(1, kv_heads + 1) if kv_heads % c == 0 and scale_grid_rows(rows, c, block_rows) == scale_rows
    ]
    if stated in fitting:
        return QkvLayout(stated)
    doubt = f"; `tp_size` {stated} of the index file does not fit the scale grid" if stated else ""
    if kv_heads in fitting:
        certain = len(fitting) == 1 and not doubt
        why = "as its scale grid shows" if len(fitting) == 1 else "the release's layout; its scale grid fits others too"
        return QkvLayout(kv_heads, None if certain else f"fused qkv is taken as {kv_heads} chunks, {why}{doubt}")
    if 1 in fitting:  # whole-matrix quantisation: somebody put the rows in plain order before
        return QkvLayout(1, f"fused qkv is taken in plain order [Q; K; V], as its scale grid shows{doubt}")
    if len(fitting) == 1:
        return QkvLayout(fitting[0], f"fused qkv is taken as {fitting[0]} chunks, as its scale grid shows{doubt}")
    raise CheckpointError(
        f"fused qkv of {rows} rows with {scale_rows} scale rows fits {fitting or 'no'} numbers of chunks{doubt}",
        hint=CHUNKS_HINT,
    )


def scale_grid_rows(rows: int, chunks: int, block_rows: int) -> int:
    """Return the scale rows of a matrix quantised in equal chunks of rows (the last block of each may be ragged)."""
    return chunks * -(-(rows // chunks) // block_rows)


def fused_row_order(attention: AttentionConfig, chunks: int) -> Tensor:
    """Return the plain row that each fused row holds, [qkv_rows] int64: fused = plain[order], plain[order] = fused.

    Raises CheckpointError if the heads cannot be dealt out to that many chunks.
    """
    heads, kv_heads = attention.num_heads, attention.num_kv_heads
    if chunks < 1 or heads % chunks or kv_heads % chunks:
        raise CheckpointError(
            f"{heads} query and {kv_heads} key/value heads cannot form {chunks} qkv chunks", hint=CHUNKS_HINT
        )
    rows = torch.arange(attention.qkv_rows)
    parts = rows.split([attention.q_rows, attention.k_rows, attention.v_rows])
    return torch.cat([part.view(chunks, -1) for part in parts], dim=1).flatten()


def _global_grid(index: TensorIndex, config: ModelConfig) -> tuple[int, int] | None:
    """Return (weight rows, scale rows) of the first global layer's fused qkv, None where it has no block scales."""
    for layer in range(config.num_hidden_layers):
        name = f"model.layers.{layer}.self_attn.qkv_proj.weight"
        if not config.is_sliding(layer) and name + FP8_SCALE in index and name in index:
            shapes = index[name].shape, index[name + FP8_SCALE].shape
            if len(shapes[0]) == len(shapes[1]) == 2:
                return shapes[0][0], shapes[1][0]
    return None


def _positive(value: Any) -> int | None:
    """Read a positive whole number, as a number or as text; anything else says nothing."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    return value if type(value) is int and 0 < value < 1 << 16 else None
