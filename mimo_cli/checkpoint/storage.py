"""How weights lie in a checkpoint: the format each is stored in, and every tensor that does not fit.

A weight is block FP8 if `X.weight_scale_inv` is there, MXFP4 if `X.weight_scale` is, plain otherwise; `store_dtype` and
`ignored_layers` of the configuration decide nothing. Headers only; no weight is read.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.names import FP8_SCALE, MXFP4_SCALE, NamedWeight
from mimo_cli.checkpoint.qkv_layout import scale_grid_rows
from mimo_cli.checkpoint.untrusted import shorten
from mimo_cli.errors import CheckpointError
from mimo_cli.quant.formats import FP8_BLOCK, MXFP4

Shape = tuple[int, ...]

_HARMLESS_SUFFIXES = (".inv_freq", "_codebook.cluster_size", "_codebook.embed_avg", "_codebook.inited")
"""Buffers that some exports store: derived values and state of the code books' training."""


@dataclass(frozen=True)
class Problem:
    """One tensor that does not fit: what was expected, what was found, in which shard (None where it is in none)."""

    tensor: str
    expected: str
    found: str
    shard: str | None = None

    def __str__(self) -> str:
        place = f" in `{self.shard}`" if self.shard else ""
        return f"tensor `{shorten(self.tensor)}`{place}: {self.expected} expected, {self.found} found"


def stored_format(name: str, index: TensorIndex) -> str:
    """Return how a weight is stored: `FP8` or `MXFP4` where it has scales, else its dtype in the file's own word."""
    if name + FP8_SCALE in index:
        return FP8_BLOCK.name
    return MXFP4.name if name + MXFP4_SCALE in index else index[name].stored_dtype


def refuse_problems(problems: Iterable[Problem], folder: Path) -> None:
    """Raise CheckpointError naming the first problems and their number, if there are any."""
    every = list(problems)
    if every:
        more = f"; and {len(every) - 3} more tensors do not fit" if len(every) > 3 else ""
        raise CheckpointError(
            "; ".join(str(problem) for problem in every[:3]) + more,
            hint=f"`{folder}` holds another model than its config.json describes, or the download is incomplete",
        )


def find_problems(
    weights: Iterable[NamedWeight], index: TensorIndex, config: ModelConfig | None = None
) -> list[Problem]:
    """List the weights that are missing, of another shape, or quantised without scales.

    `config` is needed for the text model only: its blocks and chunks say how many scales there must be.
    """
    problems = []
    for weight in weights:
        if weight.name not in index:
            problems.append(Problem(weight.name, f"shape {list(weight.shape)}", f"none in `{index.folder}`"))
            continue
        for name, shapes in stored_shapes(weight, index, config).items():
            if name not in index:
                problems.append(Problem(name, "the scales of a quantised weight", f"none in `{index.folder}`"))
            elif index[name].shape not in shapes:
                wanted = " or ".join(str(list(shape)) for shape in shapes)
                found = f"shape {list(index[name].shape)}"
                problems.append(Problem(name, f"shape {wanted}", found, index[name].shard.name))
    return problems


def find_left_over(
    weights: Iterable[NamedWeight], index: TensorIndex, config: ModelConfig | None = None
) -> list[Problem]:
    """List the tensors that belong to no expected weight and are not known to be harmless."""
    known = {name for weight in weights for name in (weight.name, weight.name + FP8_SCALE, weight.name + MXFP4_SCALE)}
    if config and config.tie_word_embeddings:
        known.add("lm_head.weight")
    left_over = [name for name in index if name not in known and not name.endswith(_HARMLESS_SUFFIXES)]
    return [
        Problem(name, "no such tensor", f"shape {list(index[name].shape)}", index[name].shard.name)
        for name in left_over
    ]


def stored_shapes(weight: NamedWeight, index: TensorIndex, config: ModelConfig | None) -> dict[str, tuple[Shape, ...]]:
    """Return the tensors that store a weight, with the shapes each may have. Which scales exist decides the format."""
    name, dtype = weight.name, index[weight.name].dtype
    if len(weight.shape) == 2 and (name + FP8_SCALE in index or dtype == torch.float8_e4m3fn):
        rows, columns = weight.shape
        block = config.weight_block_size if config else (FP8_BLOCK.block or (1, 1))
        chunk_counts = _divisors(config.global_attention.num_kv_heads) if config and weight.role == "qkv" else [1]
        grid_rows = {scale_grid_rows(rows, chunks, block[0]) for chunks in chunk_counts if rows % chunks == 0}
        grids = tuple((count, -(-columns // block[1])) for count in sorted(grid_rows))
        return {name: (weight.shape,), name + FP8_SCALE: grids}
    if len(weight.shape) == 2 and (name + MXFP4_SCALE in index or dtype == torch.uint8):
        scales = MXFP4.scale_shape(*weight.shape)
        return {name: (MXFP4.weight_shape(*weight.shape),), name + MXFP4_SCALE: (scales,) if scales else ()}
    return {name: (weight.shape,)}


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
