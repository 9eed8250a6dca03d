"""Writing a checkpoint as the release stores it: quantised, fused qkv in chunks, experts over ranks and shards.

    (name, float tensor) -> WeightEncoder -> its place in its shard          one weight in memory at a time

Files: `model_pp0_ep{r}_shard{s}.safetensors` (rank r holds E/ranks experts of every MoE layer, earlier layers in
earlier shards; all that is no expert is in rank 0's last shard), `model_mtp.safetensors`, index file, config.json.
Source: text specification, section 7.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mimo_cli.checkpoint.audio_config import AudioTokenizerConfig
from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.contents import AUDIO_TOKENIZER_FOLDER
from mimo_cli.checkpoint.encoder import Storage, WeightEncoder, WeightFormats
from mimo_cli.checkpoint.index import INDEX_FILE, LONE_FILE
from mimo_cli.checkpoint.names import (
    NamedWeight,
    audio_tokenizer_weights,
    audio_weights,
    expert_weights,
    mtp_weights,
    text_weights,
    vision_weights,
)
from mimo_cli.checkpoint.shard_writer import PlannedTensor, ShardWriter, disk_error, write_json
from mimo_cli.checkpoint.untrusted import list_some
from mimo_cli.errors import CheckpointError

MTP_FILE = "model_mtp.safetensors"


@dataclass(frozen=True)
class StorageLayout:
    """Which parts a checkpoint has and over how many files its experts are spread. The defaults are MiMo-V2.5's."""

    ranks: int = 8
    shards: int = 2
    num_mtp: int = 3
    has_vision: bool = True
    has_audio: bool = True


def write_checkpoint(
    folder: Path,
    config_values: Mapping[str, Any],
    tensors: Iterable[tuple[str, Tensor]],
    layout: StorageLayout | None = None,
    formats: WeightFormats | None = None,
) -> None:
    """Write config.json, all shards and the index file of a model.

    `config_values` is the content of config.json. `tensors` yields every weight once, in any order, under its official
    name, as floats of the shapes that `names.py` lists, fused qkv in plain order [all Q; all K; all V]. Shards appear
    under their names only when all of them are complete, the index file last. Peak memory: one weight and its codes.
    Raises CheckpointError for weights that are missing, left over or misshapen, CapacityError without disk space.
    """
    config = ModelConfig.from_dict(config_values)
    layout = layout or StorageLayout()
    encoder = WeightEncoder(config, formats or default_formats(config_values))
    files = plan_files(config, layout)
    place = {weight.name: (file, weight) for file, weights in files.items() for weight in weights}
    planned = {file: [t for weight in weights for t in encoder.plan(weight)] for file, weights in files.items()}
    _make_folder(folder)
    with ExitStack() as stack:
        writers = {file: stack.enter_context(ShardWriter(folder / file, plan)) for file, plan in planned.items()}
        for name, values in tensors:
            if name not in place:
                raise CheckpointError(f"weight `{name}` is no weight of this configuration and layout, or comes twice")
            file, weight = place.pop(name)
            for stored_name, stored in encoder.encode(weight, values):
                writers[file].write(stored_name, stored)
        if place:
            raise CheckpointError(f"{len(place)} weights are missing: {list_some(place)}")
        for writer in writers.values():
            writer.commit()
    write_json(folder / "config.json", config_values)
    write_json(folder / INDEX_FILE, _index_values(config, encoder.formats, planned))


def write_audio_tokenizer(
    folder: Path,
    config_values: Mapping[str, Any],
    tensors: Iterable[tuple[str, Tensor]],
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write `audio_tokenizer/` below a checkpoint's folder: its config.json and one file with `encoder.*`.

    `config_values` is the content of that config.json. Code books are stored in float32, everything else as `dtype`.
    Raises like `write_checkpoint`.
    """
    weights = {weight.name: weight for weight in audio_tokenizer_weights(AudioTokenizerConfig.from_dict(config_values))}
    dtypes = {name: torch.float32 if weight.role == "float32" else dtype for name, weight in weights.items()}
    folder = folder / AUDIO_TOKENIZER_FOLDER
    _make_folder(folder)
    planned = [PlannedTensor(name, dtypes[name], weight.shape) for name, weight in weights.items()]
    with ShardWriter(folder / LONE_FILE, planned) as writer:
        for name, values in tensors:
            writer.write(name, values.to(dtypes.get(name, dtype)))
        writer.commit()
    write_json(folder / "config.json", config_values)


def default_formats(config_values: Mapping[str, Any]) -> WeightFormats:
    """Return the formats that a configuration announces: none without `quantization_config`; V2.6's experts, router."""
    quantization = config_values.get("quantization_config")
    experts: Storage = "plain"
    if quantization:
        experts = "mxfp4" if quantization.get("store_dtype") == "mxfp4" else "fp8"
    router = torch.bfloat16 if config_values.get("moe_router_dtype") == "bfloat16" else torch.float32
    return WeightFormats(experts, "fp8" if quantization else "plain", router=router)


def plan_files(config: ModelConfig, layout: StorageLayout) -> dict[str, list[NamedWeight]]:
    """Return which weights go to which file. Raises CheckpointError if the experts cannot be dealt out to the ranks."""
    if layout.ranks < 1 or layout.shards < 1 or config.n_routed_experts % layout.ranks:
        raise CheckpointError(
            f"{config.n_routed_experts} experts cannot be spread over {layout.ranks} ranks and {layout.shards} shards"
        )
    files: dict[str, list[NamedWeight]] = {_shard_name(0, layout.shards - 1): list(_backbone_weights(config, layout))}
    layers = {layer: position for position, layer in enumerate(config.moe_layers)}
    per_rank, per_layer = config.n_routed_experts // layout.ranks, 3 * config.n_routed_experts
    for position, weight in enumerate(expert_weights(config)):  # in the order layer, expert, projection
        layer, expert = position // per_layer, position % per_layer // 3
        shard = layer * layout.shards // len(layers)
        files.setdefault(_shard_name(expert // per_rank, shard), []).append(weight)
    mtp = [weight for module in range(layout.num_mtp) for weight in mtp_weights(config, module)]
    return files | ({MTP_FILE: mtp} if mtp else {})


def _backbone_weights(config: ModelConfig, layout: StorageLayout) -> Iterator[NamedWeight]:
    yield from text_weights(config)
    if layout.has_vision and config.vision:
        yield from vision_weights(config.vision)
    if layout.has_audio and config.audio:
        yield from audio_weights(config.audio)


def _shard_name(rank: int, shard: int) -> str:
    return f"model_pp0_ep{rank}_shard{shard}.safetensors"


def _index_values(
    config: ModelConfig, formats: WeightFormats, planned: Mapping[str, list[PlannedTensor]]
) -> dict[str, Any]:
    weight_map = {tensor.name: file for file, tensors in planned.items() for tensor in tensors}
    return {
        "metadata": {
            "save_format": "bf16" if formats.experts == "plain" else formats.experts,
            "total_size": sum(tensor.size_bytes for tensors in planned.values() for tensor in tensors),
            "tp_size": config.global_attention.num_kv_heads,
        },
        "weight_map": dict(sorted(weight_map.items())),
    }


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise disk_error(folder, err) from err
