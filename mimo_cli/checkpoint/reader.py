"""Reading tensors of a checkpoint: the only place that opens a shard for its weights.

Shards are mapped into memory when first needed, so only the pages of tensors that are read cost memory. A matrix is
block FP8 if `X.weight_scale_inv` is there, MXFP4 if `X.weight_scale` is, plain otherwise; nothing else decides.
"""

import mmap
import os
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mimo_cli.checkpoint.bulk_read import read_bytes
from mimo_cli.checkpoint.config import AttentionConfig, ModelConfig
from mimo_cli.checkpoint.header import TensorInfo
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.names import FP8_SCALE, MXFP4_SCALE, PACKED_SUFFIX
from mimo_cli.checkpoint.qkv_layout import (
    CHUNKS_HINT,
    QkvChunks,
    QkvLayout,
    find_qkv_layout,
    fused_row_order,
    scale_grid_rows,
)
from mimo_cli.errors import CheckpointError
from mimo_cli.quant.fp8 import DEFAULT_BLOCK, chunked_row_blocks
from mimo_cli.quant.packed import PackedShape
from mimo_cli.quant.stored import DAMAGED_HINT, StoredMatrix
from mimo_cli.units import format_bytes

_QUANTISED: dict[str, tuple[Literal["fp8", "mxfp4"], torch.dtype, str]] = {
    FP8_SCALE: ("fp8", torch.float8_e4m3fn, "block FP8"),
    MXFP4_SCALE: ("mxfp4", torch.uint8, "MXFP4"),
}
"""By what is added to the name of the scales: the kind, the stored dtype that goes with it, and its name for errors."""


BULK_BYTES = 1 << 22
"""From here on a tensor that is kept as it is stored is read, not copied from mapped pages."""


class CheckpointReader:
    """Tensors of an index by name, as stored or as floats.

    `config` gives the block size and what is needed to find the number of qkv chunks where the index file does not
    state it; `qkv_chunks` overrides that number. `packed` has the weights of a packed store by
    their official names. `notes` collects what had to be assumed, in sentences for the user.
    """

    def __init__(
        self,
        index: TensorIndex,
        config: ModelConfig | None = None,
        *,
        qkv_chunks: QkvChunks | None = None,
        packed: Mapping[str, PackedShape] | None = None,
    ) -> None:
        self.index = index
        self.notes: list[str] = []
        self._config = config
        self._block = config.weight_block_size if config else DEFAULT_BLOCK
        self._qkv_chunks = qkv_chunks
        self._packed = packed or {}
        self._layout: QkvLayout | None = None
        self._maps: dict[Path, Tensor] = {}
        self._views: dict[Path, mmap.mmap] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Forget the mapped shards; memory is given back when the last tensor of `raw` is gone."""
        self._maps.clear()
        self._views.clear()

    def forget(self, shard: Path) -> None:
        """Forget a mapped shard that no tensor will be read of any more; it is about to be cut off."""
        with self._lock:
            self._maps.pop(shard, None)
            self._views.pop(shard, None)

    def release(self, name: str) -> None:
        """Let the pages of a tensor go that `raw` brought into this process; they come back when it is read again.

        A conversion reads each tensor once: without this it would grow to the size of the checkpoint.
        """
        info = self.index[name]
        view = self._views.get(info.shard)
        begin = -(-info.offset // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (info.offset + info.size_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if view is not None and end > begin and hasattr(mmap, "MADV_DONTNEED"):
            view.madvise(mmap.MADV_DONTNEED, begin, end - begin)

    def prefetch(self, name: str) -> None:
        """Have the system read a tensor of a mapped shard from the disk in the background."""
        info = self.index[name]
        self._map(info.shard)
        begin = info.offset // mmap.PAGESIZE * mmap.PAGESIZE
        if hasattr(mmap, "MADV_WILLNEED"):
            self._views[info.shard].madvise(mmap.MADV_WILLNEED, begin, info.offset + info.size_bytes - begin)

    def drop(self, names: Iterable[str], *, from_cache: bool) -> None:
        """Let the pages of tensors and their scales go, which were copied; `from_cache`: from the system's, too."""
        for info in (info for name in names if name in self.index for info in self.parts(name)):
            self.release(info.name)
            if from_cache and hasattr(os, "posix_fadvise"):
                with suppress(OSError), info.shard.open("rb") as file:
                    os.posix_fadvise(file.fileno(), info.offset, info.size_bytes, os.POSIX_FADV_DONTNEED)

    def raw(self, name: str) -> Tensor:
        """Return a tensor as stored, without copying; it must not be written to.

        Raises CheckpointError if there is no such tensor or its file changed since the index was opened.
        """
        info = self.index[name]
        part = self._map(info.shard)[info.offset : info.offset + info.size_bytes]
        if info.offset % info.dtype.itemsize:
            part = part.clone()  # an unaligned header: rare, and torch needs aligned elements
        return part.view(info.dtype).view(info.shape)

    def own(self, name: str) -> Tensor:
        """Return a tensor as stored, in memory of its own; a large one by large reads, into memory for huge pages."""
        info = self.index[name]
        if info.size_bytes >= BULK_BYTES:
            data = read_bytes(info.shard, info.offset, info.size_bytes)
            if data is not None:
                return data.view(info.dtype).view(info.shape)
        return self.raw(name).clone()

    def mapped(self, name: str, dtype: torch.dtype) -> Tensor | None:
        """Return a large tensor that is stored as `dtype` where it lies: pages come from the file when they are read.

        None for others. It must not be written to, and outlives the reader.
        """
        is_large = name in self.index and self.index[name].size_bytes >= BULK_BYTES
        return self.raw(name) if is_large and self.index[name].dtype == dtype else None

    def own_packed(self, name: str) -> Tensor | None:
        """Return the stream of a packed weight in memory of its own; None where the weight is not packed."""
        if name not in self._packed:
            return None
        self._stored_packed(name, self._packed[name])  # raises if it is not of its shape
        return self.own(name + PACKED_SUFFIX)

    def read(self, name: str, dtype: torch.dtype, *, shape: tuple[int, ...] | None = None) -> Tensor:
        """Return a tensor in memory of its own as `dtype`; quantised matrices are computed in float32, then rounded.

        Raises CheckpointError naming tensor and shard if it is missing, damaged, or not of `shape` where that is given.
        """
        stored = self.stored(name)
        is_kept = stored.kind == "plain" and stored.weight.dtype == dtype
        tensor = self.own(name) if is_kept and name in self.index else stored.floats(dtype)
        if shape is not None and tuple(tensor.shape) != tuple(shape):
            raise CheckpointError(
                f"tensor `{name}` in `{self.index[name].shard.name}` has shape {list(tensor.shape)}, "
                f"{list(shape)} expected",
                hint="config.json and the shards belong to different models",
            )
        return tensor

    def stored(self, name: str, row_blocks: Tensor | None = None, row_order: Tensor | None = None) -> StoredMatrix:
        """Return a tensor with its scales as stored, without copying. `row_blocks`, `row_order`: see StoredMatrix.

        Raises CheckpointError if it is missing or its dtype does not go with its scales.
        """
        if name in self._packed:
            return self._stored_packed(name, self._packed[name])
        return self._assembled(name, [self.raw(info.name) for info in self.parts(name)], row_blocks, row_order)

    def parts(self, name: str) -> list[TensorInfo]:
        """Return what stores a tensor: itself, and its scales where it has any."""
        scales = (name + suffix for suffix in _QUANTISED)
        return [self.index[name], *(self.index[scale] for scale in scales if scale in self.index)]

    def assemble(self, name: str, parts: Sequence[Tensor]) -> StoredMatrix:
        """Return a tensor as `stored` does, from the bytes of its `parts`, uint8, that somebody else has read."""
        tensors = []
        for info, part in zip(self.parts(name), parts, strict=True):
            aligned = part.clone() if part.data_ptr() % info.dtype.itemsize else part
            tensors.append(aligned.view(info.dtype).view(info.shape))
        return self._assembled(name, tensors)

    def _assembled(
        self, name: str, tensors: list[Tensor], row_blocks: Tensor | None = None, row_order: Tensor | None = None
    ) -> StoredMatrix:
        weight, source = tensors[0], f"tensor `{name}` in `{self.index[name].shard.name}`"
        for suffix, (kind, dtype, title) in _QUANTISED.items():
            if name + suffix not in self.index:
                continue
            if weight.dtype != dtype or weight.dim() != 2:
                raise CheckpointError(
                    f"{source}: {title} needs a matrix of {dtype}, found {weight.dtype} {list(weight.shape)}",
                    hint=DAMAGED_HINT,
                )
            return StoredMatrix(kind, weight, tensors[1], self._block, row_blocks, row_order, source)
        return StoredMatrix("plain", weight, row_order=row_order, source=source)

    def _stored_packed(self, name: str, shape: PackedShape) -> StoredMatrix:
        data, source = self.raw(name + PACKED_SUFFIX), f"tensor `{name}{PACKED_SUFFIX}`"
        if data.dtype != torch.uint8 or tuple(data.shape) != (shape.nbytes,):
            raise CheckpointError(
                f"{source}: {shape.nbytes:,} bytes expected, {data.dtype} {list(data.shape)} found", hint=DAMAGED_HINT
            )
        return StoredMatrix("packed", data, source=source, packed=shape)

    def stored_bytes(self, name: str) -> int:
        """Return the bytes that a tensor and its scales take in the shards."""
        if name in self._packed:
            return self._packed[name].nbytes
        return sum(info.size_bytes for info in self.parts(name))

    def qkv(self, prefix: str, attention: AttentionConfig, dtype: torch.dtype) -> Tensor:
        """Return q, k and v of one attention in plain order: [qkv_rows, hidden], rows [all Q; all K; all V].

        `prefix` is the attention's name (`model.layers.0.self_attn`). Fused storage is de-interleaved, split storage
        joined. Raises CheckpointError like `read`, and if scales and chunks contradict each other.
        """
        parts = [part.floats(dtype) for part in self.stored_qkv(prefix, attention)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def stored_qkv(self, prefix: str, attention: AttentionConfig) -> list[StoredMatrix]:
        """Return the parts of `qkv` as stored, one above the other: one if they are fused, else q, k and v."""
        fused = f"{prefix}.qkv_proj.weight"
        if fused in self._packed:
            return [self.stored(fused)]
        if fused in self.index:
            return [self._stored_fused(fused, attention)]
        parts = []
        rows = (("q_proj", attention.q_rows), ("k_proj", attention.k_rows), ("v_proj", attention.v_rows))
        for projection, count in rows:
            name = f"{prefix}.{projection}.weight"
            self._expect_rows(name, count)
            parts.append(self.stored(name, self._split_row_blocks(name, count, attention)))
        return parts

    def qkv_layout(self) -> QkvLayout:
        """Find the number of chunks of the fused projections once; an assumption goes to `notes`."""
        if self._layout is None:
            self._layout = find_qkv_layout(self.index, self._config, self._qkv_chunks)
            if self._layout.assumption:
                self.notes.append(self._layout.assumption)
        return self._layout

    def _stored_fused(self, name: str, attention: AttentionConfig) -> StoredMatrix:
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
        return self.stored(name, row_blocks, fused_rows)

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

    def _map(self, shard: Path) -> Tensor:
        """Return the bytes of a whole shard, [file bytes] uint8, mapped on first use."""
        with self._lock:
            if shard not in self._maps:
                self._maps[shard], self._views[shard] = _map_file(shard, self.index.shard_bytes[shard])
            return self._maps[shard]


def _map_file(path: Path, expected_bytes: int) -> tuple[Tensor, mmap.mmap]:
    """Map a file read-only: its bytes and their owner. Raises CheckpointError if not as long as its header said."""
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
        return torch.frombuffer(view, dtype=torch.uint8), view
