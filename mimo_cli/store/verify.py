"""Comparing a finished store with its source: hashes of all files, then every tensor, decoded again.

The decoder shares no code with the writing side but the formats' definitions; the reference decoder in numpy, much
slower, gives the same numbers. Several experts are compared at a time.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.names import expert_weight_name
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.errors import CheckpointError
from mimo_cli.quant.direct import compare, decode_streams
from mimo_cli.quant.packed import BLOCK_ROWS, PackedShape
from mimo_cli.quant.stored import StoredMatrix
from mimo_cli.store.convert import dense_parts
from mimo_cli.store.emptying import PROJECTIONS
from mimo_cli.store.encode import Error, rows_of, slabs
from mimo_cli.store.manifest import RecordLayout, StoreManifest, check_files, layer_file
from mimo_cli.store.output import file_entries
from mimo_cli.store.plan import EXPERTS, StorePlan

OnVerified = Callable[[int, int], None]
"""Told bytes verified and bytes in all."""

_MOST_WORKERS = 8
"""Then the disk is busy."""


@dataclass(frozen=True)
class TensorError:
    """One tensor of the store against the source: relative error (root of sums of squares), largest difference.

    `is_lossy` says that its format may differ from the source's numbers.
    """

    tensor: str
    format: str
    relative_error: float
    max_error: float
    is_lossy: bool

    @property
    def is_wrong(self) -> bool:
        """Whether the tensor is not what was to be written: no numbers, or others where none may change."""
        return not math.isfinite(self.relative_error) or (self.relative_error > 0 and not self.is_lossy)


def verify_hashes(folder: Path, manifest: StoreManifest, on_verified: OnVerified | None = None) -> None:
    """Read every file and compare its hash. Raises CheckpointError naming the files that are not as written."""
    check_files(folder, manifest)
    done, total = 0, sum(entry.size_bytes for entry in manifest.files.values())
    wrong = []
    found = file_entries(folder / name for name in manifest.files)
    for (name, entry), actual in zip(manifest.files.items(), found, strict=True):
        if actual != entry:
            wrong.append(name)
        done += entry.size_bytes
        if on_verified:
            on_verified(done, total)
    if wrong:
        names = ", ".join(f"`{name}`" for name in wrong[:5])
        raise CheckpointError(
            f"{len(wrong)} of {len(manifest.files)} files of `{folder}` have another hash than when written: {names}",
            hint=f"remove the folder `{folder}` and make the store again with `mimo quantize`",
        )


def compare_tensors(plan: StorePlan, folder: Path, manifest: StoreManifest) -> Iterator[TensorError]:
    """Yield every tensor of a store, compared with the source it was made of.

    Peak memory: two dense tensors in float32, or a record for each core.
    """
    source = CheckpointReader(plan.index, plan.config)
    stored = CheckpointReader(TensorIndex.open(folder), plan.config)
    for tensors in plan.dense.values():
        for tensor in tensors:
            if tensor.packed is None:
                same = torch.equal(_bytes(source.raw(tensor.weight)), _bytes(stored.raw(tensor.weight)))
                error = 0.0 if same else float("inf")
                yield TensorError(tensor.weight, str(tensor.stored.dtype).removeprefix("torch."), error, error, False)
                source.release(tensor.weight)
                stored.release(tensor.weight)
                continue
            original = torch.cat([part.floats(torch.float32) for part in dense_parts(source, tensor)])
            decoded = decode_streams(stored.raw(tensor.stored.name), tensor.packed)[0]
            yield _compare(tensor.weight, tensor.packed.format, original, decoded)
    yield from _compare_experts(source, folder, manifest)
    stored.close()
    source.close()


def _compare_experts(source: CheckpointReader, folder: Path, manifest: StoreManifest) -> Iterator[TensorError]:
    layout = manifest.records
    is_lossy = any(loss.part == EXPERTS for loss in manifest.lossy)
    workers = min(_MOST_WORKERS, os.cpu_count() or 1)
    for layer in layout.layers if layout else ():
        assert layout is not None
        records = np.memmap(folder / layer_file(layer), np.uint8, "r", shape=(layout.experts, layout.record_bytes))
        waiting: deque[Future[list[TensorError]]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            for expert in range(layout.experts):
                waiting.append(pool.submit(_compare_expert, source, layout, layer, expert, records, is_lossy))
                if len(waiting) > workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()


def _compare_expert(
    source: CheckpointReader,
    layout: RecordLayout,
    layer: int,
    expert: int,
    records: NDArray[np.uint8],
    is_lossy: bool,
) -> list[TensorError]:
    record = torch.from_numpy(np.array(records[expert]))
    names = [expert_weight_name(layer, expert, projection) for projection in PROJECTIONS]
    matrices = [source.stored(name) for name in names]
    middle, end = layout.up_shape.nbytes, layout.up_shape.nbytes + layout.down_shape.nbytes
    found = _compare_stream(matrices[:2], record[:middle], layout.up_shape)
    found += _compare_stream(matrices[2:], record[middle:end], layout.down_shape)
    for name in names:
        source.release(name)
    return [
        TensorError(name, layout.format, error.relative, largest, is_lossy)
        for name, (error, largest) in zip(names, found, strict=True)
    ]


def _compare_stream(matrices: list[StoredMatrix], data: Tensor, shape: PackedShape) -> list[tuple[Error, float]]:
    """Compare the matrices of a stream, some rows at a time that fit the processor's cache."""
    errors, largest = [Error() for _ in matrices], [0.0] * len(matrices)
    for start, rows in slabs(shape.rows, shape.cols):
        slab = replace(shape, rows=rows)
        first = start // BLOCK_ROWS * shape.block_bytes
        for k, decoded in enumerate(decode_streams(data[first : first + slab.nbytes], slab)):
            found = compare(rows_of(matrices[k], start, rows), decoded)
            errors[k].add(Error(found.squared_error, found.squared_weights))
            largest[k] = float(np.maximum(largest[k], found.largest))  # a NaN stays one
    return list(zip(errors, largest, strict=True))


def _compare(name: str, kind: str, original: Tensor, decoded: Tensor) -> TensorError:
    found = compare(original, decoded)
    return TensorError(name, kind, Error(found.squared_error, found.squared_weights).relative, found.largest, True)


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
