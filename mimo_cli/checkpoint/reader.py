"""Reading tensors of a checkpoint: the only place that opens a shard for its weights.

Shards are mapped into memory when first needed, so only the pages of tensors that are read cost memory. A matrix is
block FP8 if `X.weight_scale_inv` is there, MXFP4 if `X.weight_scale` is, plain otherwise; nothing else decides.
"""

import mmap
import threading
import warnings
from pathlib import Path

import torch
from torch import Tensor

from mimo_cli.checkpoint.config import AttentionConfig, ModelConfig
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.names import FP8_SCALE, MXFP4_SCALE
from mimo_cli.checkpoint.qkv_layout import (
    CHUNKS_HINT,
    QkvChunks,
    QkvLayout,
    find_qkv_layout,
    fused_row_order,
    scale_grid_rows,
)
from mimo_cli.errors import CheckpointError
from mimo_cli.quant.fp8 import DEFAULT_BLOCK, chunked_row_blocks, expand_block_scales
from mimo_cli.quant.mxfp4 import decode
from mimo_cli.units import format_bytes

_DAMAGED = "the file is damaged; fetch that shard again"


class CheckpointReader:
    """Tensors of an index by name, as stored or as floats.

    `config` gives the block size and what is needed to find the number of qkv chunks where the index file does not
    state it; `qkv_chunks` overrides that number. `notes` collects what had to be assumed, in sentences for the user.
    """

    def __init__(
        self, index: TensorIndex, config: ModelConfig | None = None, *, qkv_chunks: QkvChunks | None = None
    ) -> None:
        self.index = index
        self.notes: list[str] = []
        self._config = config
        self._block = config.weight_block_size if config else DEFAULT_BLOCK
        self._qkv_chunks = qkv_chunks
        self._layout: QkvLayout | None = None
        self._maps: dict[Path, Tensor] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Forget the mapped shards; memory is given back when the last tensor of `raw` is gone."""
        self._maps.clear()

    def raw(self, name: str) -> Tensor:
        """Return a tensor as stored, without copying; it must not be written to.

        Raises CheckpointError if there is no such tensor or its file changed since the index was opened.
        """
        info = self.index[name]
        part = self._map(info.shard)[info.offset : info.offset + info.size_bytes]
        if info.offset % info.dtype.itemsize:
            part = part.clone()  # an unaligned header: rare, and torch needs aligned elements
        return part.view(info.dtype).view(info.shape)

    def read(self, name: str, dtype: torch.dtype, *, shape: tuple[int, ...] | None = None) -> Tensor:
        """Return a tensor in memory of its own as `dtype`; quantised matrices are computed in float32, then rounded.

        Raises CheckpointError naming tensor and shard if it is missing, damaged, or not of `shape` where that is given.
        """
        tensor = self._read_rows(name, dtype)
        if shape is not None and tuple(tensor.shape) != tuple(shape):
            raise CheckpointError(
                f"tensor `{name}` in `{self.index[name].shard.name}` has shape {list(tensor.shape)}, "
                f"{list(shape)} expected",
                hint="config.json and the shards belong to different models",
            )
        return tensor

    def stored_bytes(self, name: str) -> int:
        """Return the bytes that a tensor and its scales take in the shards."""
        scales = (f"{name}{suffix}" for suffix in (FP8_SCALE, MXFP4_SCALE))
        return self.index[name].size_bytes + sum(self.index[s].size_bytes for s in scales if s in self.index)

    def qkv(self, prefix: str, attention: AttentionConfig, dtype: torch.dtype) -> Tensor:
        """Return q, k and v of one attention in plain order: [qkv_rows, hidden], rows [all Q; all K; all V].

        `prefix` is the attention's name (`model.layers.0.self_attn`). Fused storage is de-interleaved, split storage
        joined. Raises CheckpointError like `read`, and if scales and chunks contradict each other.
        """
        fused = f"{prefix}.qkv_proj.weight"
        if fused in self.index:
            return self._read_fused(fused, attention, dtype)
        parts = []
        rows = (("q_proj", attention.q_rows), ("k_proj", attention.k_rows), ("v_proj", attention.v_rows))
        for projection, count in rows:
            name = f"{prefix}.{projection}.weight"
            self._expect_rows(name, count)
            parts.append(self._read_rows(name, dtype, self._split_row_blocks(name, count, attention)))
        return torch.cat(parts)

    def qkv_layout(self) -> QkvLayout:
        """Find the number of chunks of the fused projections once; an assumption goes to `notes`."""
        if self._layout is None:
            self._layout = find_qkv_layout(self.index, self._config, self._qkv_chunks)
            if self._layout.assumption:
                self.notes.append(self._layout.assumption)
        return self._layout

    def _read_fused(self, name: str, attention: AttentionConfig, dtype: torch.dtype) -> Tensor:
        self._expect_rows(name, attention.qkv_rows)
        chunks = self.qkv_layout().chunks
        fused_rows = torch.argsort(fused_row_order(attention, chunks))  # plain row -> fused row
        scale_name = name + FP8_SCALE
        row_blocks = None
        if scale_name in self.index:
            found = self.index[scale_name].shape
            expected = scale_grid_rows(attention.qkv_rows, chunks, self._block[0])
            if not found or found[0] != expected:
                raise CheckpointError(
                    f"tensor `{scale_name}` in `{self.index[scale_name].shard.name}` has shape {list(found)}, "
                    f"{expected} rows expected for {chunks} qkv chunks",
                    hint=CHUNKS_HINT,
                )
            row_blocks = chunked_row_blocks(attention.qkv_rows, chunks, self._block[0])
        return self._read_rows(name, dtype, row_blocks, fused_rows)

    def _split_row_blocks(self, name: str, rows: int, attention: AttentionConfig) -> Tensor | None:
        """Return the scale row of each row of a split projection, None for plain blocks.

        V2-Flash quantised k in as many chunks as there are key/value heads in global layers: 8 scale rows for 768.
        """
        scale_name = name + FP8_SCALE
        if scale_name not in self.index or not self.index[scale_name].shape:
            return None
        found = self.index[scale_name].shape[0]
        kv_heads = self._config.global_attention.num_kv_heads if self._config else attention.num_kv_heads
        for chunks in (1, kv_heads):
            if rows % chunks == 0 and scale_grid_rows(rows, chunks, self._block[0]) == found:
                return chunked_row_blocks(rows, chunks, self._block[0])
        return None  # the mismatch is reported with the scale grid

    def _expect_rows(self, name: str, rows: int) -> None:
        info = self.index[name]
        if len(info.shape) != 2 or info.shape[0] != rows:
            raise CheckpointError(
                f"tensor `{name}` in `{info.shard.name}` has shape {list(info.shape)}, {rows} rows expected",
                hint="config.json and the shards belong to different models",
            )

    def _read_rows(
        self, name: str, dtype: torch.dtype, row_blocks: Tensor | None = None, row_order: Tensor | None = None
    ) -> Tensor:
        """Return a tensor as floats. `row_blocks`: scale rows of the stored rows; `row_order`: stored rows to take."""
        stored = self.raw(name)
        if row_order is not None:
            stored = stored.view(torch.uint8)[row_order].view(stored.dtype)
            row_blocks = row_blocks[row_order] if row_blocks is not None else None
        try:
            if name + FP8_SCALE in self.index:
                _expect_dtype(stored, torch.float8_e4m3fn, "block FP8")
                return expand_block_scales(stored, self.raw(name + FP8_SCALE), dtype, self._block, row_blocks)
            if name + MXFP4_SCALE in self.index:
                _expect_dtype(stored, torch.uint8, "MXFP4")
                return decode(stored, self.raw(name + MXFP4_SCALE), dtype)
            if dtype.is_floating_point and stored.dtype not in _PLAIN_FLOATS:
                raise CheckpointError(f"stored as {stored.dtype} without scales; a float dtype expected")
            return stored.to(dtype, copy=True)
        except CheckpointError as err:
            raise CheckpointError(f"tensor `{name}` in `{self.index[name].shard.name}`: {err}", hint=_DAMAGED) from err

    def _map(self, shard: Path) -> Tensor:
        """Return the bytes of a whole shard, [file bytes] uint8, mapped on first use."""
        with self._lock:
            if shard not in self._maps:
                self._maps[shard] = _map_file(shard, self.index.shard_bytes[shard])
            return self._maps[shard]


_PLAIN_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def _expect_dtype(stored: Tensor, dtype: torch.dtype, kind: str) -> None:
    if stored.dtype != dtype or stored.dim() != 2:
        raise CheckpointError(f"{kind} needs a matrix of {dtype}, found {stored.dtype} {list(stored.shape)}")


def _map_file(path: Path, expected_bytes: int) -> Tensor:
    """Map a file read-only; raises CheckpointError if it is not as long as its header said."""
    try:
        with path.open("rb") as file:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as err:
        raise CheckpointError(f"`{path}` cannot be read: {err}") from err
    if len(view) != expected_bytes:  # reading past the end of a mapped file would kill the process
        raise CheckpointError(
            f"`{path.name}` changed while it was open: {format_bytes(expected_bytes)} expected, "
            f"{format_bytes(len(view))} found"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")  # we promise not to write
        return torch.frombuffer(view, dtype=torch.uint8)
