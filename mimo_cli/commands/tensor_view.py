"""One tensor of a checkpoint: where it lies, how it is stored, and the range of its numbers once dequantised."""

import difflib
import math
from typing import Any

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.names import FP8_SCALE, MXFP4_SCALE
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.checkpoint.storage import stored_format
from mimo_cli.commands.model_choice import CONFIG_FILE, ModelChoice
from mimo_cli.engine.load import DTYPES
from mimo_cli.errors import UsageError
from mimo_cli.store.opened import open_model, shape_label
from mimo_cli.store.tensors import PackedTensor, packed_tensor

_QKV = ".qkv_proj.weight"


def tensor_view(choice: ModelChoice, name: str) -> dict[str, Any]:
    """Return the facts of a tensor. Raises UsageError for a name there is none of, CheckpointError for damage.

    Peak memory is the tensor in float32. Scales are multiplied in; a fused qkv is put into plain order first.
    """
    config = ModelConfig.from_file(choice.folder / CONFIG_FILE)
    opened = open_model(choice.folder, config)
    index = opened.index
    packed = packed_tensor(opened, name)
    if packed is not None:
        return {"tensor": name, **_packed_facts(packed), **_range(packed.numbers())}
    if name not in index:
        names = [*index.names(), *opened.packed_weights]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
        hint = f"--tensor {near[0]}" if near else None
        raise UsageError(f"there is no tensor `{name}` among the {len(names):,} of `{choice.folder}`", hint=hint)
    info = index[name]
    is_scale = name.endswith((FP8_SCALE, MXFP4_SCALE)) and name.rsplit("_scale", 1)[0] in index
    reader = CheckpointReader(index, config)
    try:
        return {
            "tensor": name,
            "shard": info.shard.name,
            "offset": info.offset,
            "size_bytes": info.size_bytes,
            "shape": list(info.shape),
            "stored_as": "scales" if is_scale else stored_format(name, index),
            "scales": [name + suffix for suffix in (FP8_SCALE, MXFP4_SCALE) if name + suffix in index],
            **_range(_read(reader, config, name)),
        }
    finally:
        reader.close()


def _packed_facts(packed: PackedTensor) -> dict[str, Any]:
    shape = packed.shape
    return {
        "shard": packed.file.name,
        "offset": packed.offset,
        "size_bytes": packed.size_bytes // shape.streams,
        "shape": [shape.rows, shape.cols],
        "stored_as": shape_label(shape),
        "scales": [],
    }


def _range(numbers: Any) -> dict[str, Any]:
    return {
        "min": _finite(numbers.min()),
        "max": _finite(numbers.max()),
        "mean": _finite(numbers.mean()),
        "deviation": _finite(numbers.std(correction=0)),
        "zeros": int((numbers == 0).sum()),
        "not_finite": int((~numbers.isfinite()).sum()),
    }


def _finite(number: Any) -> float | None:
    """Return a number, None where it is none or without bound: JSON has no word for those, `not_finite` counts them."""
    return float(number) if math.isfinite(number) else None


def _read(reader: CheckpointReader, config: ModelConfig, name: str) -> Any:
    if not name.endswith(_QKV) or ".self_attn" not in name:
        return reader.read(name, DTYPES["float32"])
    # The scale grid of a fused projection depends on the kind of the layer; MTP layers slide.
    layer = name.split(".layers.")[1].split(".")[0]
    is_main = ".mtp." not in name
    attention = config.attention(int(layer)) if is_main else config.sliding_attention
    return reader.qkv(name.removesuffix(_QKV), attention, DTYPES["float32"])
