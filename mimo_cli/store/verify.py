"""Comparing a finished store with its source: hashes of all files, then every tensor, decoded by the reference decoder.

Slow on purpose: nothing here shares code with the writing side but the formats' own definitions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.names import expert_weight_name
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.errors import CheckpointError
from mimo_cli.quant.packed import decode_packed
from mimo_cli.store.convert import dense_parts
from mimo_cli.store.encode import Error, rows_of, slabs
from mimo_cli.store.manifest import StoreManifest, check_files, layer_file
from mimo_cli.store.output import file_entry
from mimo_cli.store.plan import StorePlan

OnVerified = Callable[[int, int], None]
"""Told bytes verified and bytes in all."""

_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class TensorError:
    """One tensor of the store against the source: relative error (root of sums of squares), largest difference."""

    tensor: str
    format: str
    relative_error: float
    max_error: float


def verify_hashes(folder: Path, manifest: StoreManifest, on_verified: OnVerified | None = None) -> None:
    """Read every file and compare its hash. Raises CheckpointError naming the files that are not as written."""
    check_files(folder, manifest)
    done, total = 0, sum(entry.size_bytes for entry in manifest.files.values())
    wrong = []
    for name, entry in manifest.files.items():
        if file_entry(folder / name) != entry:
            wrong.append(name)
        done += entry.size_bytes
        if on_verified:
            on_verified(done, total)
    if wrong:
        names = ", ".join(f"`{name}`" for name in wrong[:5])
        raise CheckpointError(
            f"{len(wrong)} of {len(manifest.files)} files of `{folder}` have another hash than when written: {names}",
            hint="remove them and `mimo_store.json`, or the folder, and make the store again with `mimo quantize`",
        )


def compare_tensors(plan: StorePlan, folder: Path, manifest: StoreManifest) -> Iterator[TensorError]:
    """Yield every tensor of a store, compared with the source it was made of. Peak memory: two tensors in float32."""
    source = CheckpointReader(plan.index, plan.config)
    stored = CheckpointReader(TensorIndex.open(folder), plan.config)
    for tensors in plan.dense.values():
        for tensor in tensors:
            if tensor.packed is None:
                same = torch.equal(_bytes(source.raw(tensor.weight)), _bytes(stored.raw(tensor.weight)))
                error = 0.0 if same else float("inf")
                yield TensorError(tensor.weight, str(tensor.stored.dtype).removeprefix("torch."), error, error)
                source.release(tensor.weight)
                stored.release(tensor.weight)
                continue
            original = torch.cat([part.floats(torch.float32) for part in dense_parts(source, tensor)])
            decoded = decode_packed(stored.raw(tensor.stored.name).numpy(), tensor.packed)[0]
            yield _compare(tensor.weight, tensor.packed.format, original, torch.from_numpy(decoded))
    yield from _compare_experts(source, folder, manifest)
    stored.close()
    source.close()


def _compare_experts(source: CheckpointReader, folder: Path, manifest: StoreManifest) -> Iterator[TensorError]:
    layout = manifest.records
    for layer in layout.layers if layout else ():
        assert layout is not None
        middle, end = layout.up_shape.nbytes, layout.up_shape.nbytes + layout.down_shape.nbytes
        records = np.memmap(folder / layer_file(layer), np.uint8, "r", shape=(layout.experts, layout.record_bytes))
        for expert in range(layout.experts):
            record = np.array(records[expert])
            matrices = [*decode_packed(record[:middle], layout.up_shape)]
            matrices += decode_packed(record[middle:end], layout.down_shape)
            for projection, decoded in zip(_PROJECTIONS, matrices, strict=True):
                name = expert_weight_name(layer, expert, projection)
                matrix = source.stored(name)
                original = torch.cat([rows_of(matrix, start, rows) for start, rows in slabs(*matrix.shape)])
                yield _compare(name, layout.format, original, torch.from_numpy(decoded))
                source.release(name)


def _compare(name: str, kind: str, original: Tensor, decoded: Tensor) -> TensorError:
    difference = decoded - original
    error = Error(float(difference.double().square().sum()), float(original.double().square().sum()))
    return TensorError(name, kind, error.relative, float(difference.abs().max()))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
