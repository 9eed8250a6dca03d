"""Reference checkpoints of the repository, and hand-made safetensors files, good and bad."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mimo_cli.checkpoint.audio_config import AudioTokenizerConfig
from mimo_cli.checkpoint.config import ModelConfig, read_json
from mimo_cli.checkpoint.contents import AUDIO_TOKENIZER_FOLDER
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.names import audio_tokenizer_weights
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.checkpoint.writer import StorageLayout, plan_files, write_audio_tokenizer, write_checkpoint
from tests.reference.sets import reference_sets

GOLDEN = reference_sets()


def open_golden(name: str) -> tuple[ModelConfig, CheckpointReader]:
    """Open `text` or `text_mxfp4`."""
    config = ModelConfig.from_file(GOLDEN / name / "config.json")
    return config, CheckpointReader(TensorIndex.open(GOLDEN / name), config)


def copy_golden(name: str, folder: Path) -> Path:
    """Copy a reference checkpoint, without its expected values, to a folder that may be damaged."""
    shutil.copytree(GOLDEN / name, folder, ignore=shutil.ignore_patterns("*.npz", "*.md", "dequant*"))
    return folder


def edit_json(path: Path, changes: Mapping[str, Any]) -> None:
    """Set keys of a JSON file; None removes a key."""
    values = read_json(path) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def safetensors_bytes(header: Mapping[str, Any] | bytes, data: bytes = b"") -> bytes:
    """Return a file: length, header (as given if bytes), data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    """Return one tensor's header entry."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file without any of our own writing code."""
    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3", torch.uint8: "U8"}
    header, data = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = entry(names[tensor.dtype], list(tensor.shape), len(data), len(data) + len(raw))
        data += raw
    path.write_bytes(safetensors_bytes(header, data))


def random_weights(config: ModelConfig, layout: StorageLayout, seed: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight that a layout holds as random floats, fused qkv in plain order."""
    generator = torch.Generator().manual_seed(seed)
    for weights in plan_files(config, layout).values():
        for weight in weights:
            yield weight.name, torch.randn(weight.shape, generator=generator) * 0.05


def write_whole_model(folder: Path) -> Path:
    """Write a small random checkpoint with every part the family knows; returns the folder.

    Text as in the `text` reference, two vision blocks, one audio layer, three code books, four ranks in two shards.
    """
    values = read_json(GOLDEN / "text" / "config.json")
    values["vision_config"] |= {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_heads": 2,
        "num_key_value_heads": 1,
        "fullatt_block_indexes": [0],
        "vit_window_attn_types": [-1, 1],
    }
    values["audio_config"] |= {
        "audio_channels": 3,
        "input_local_dim": 16,
        "input_local_intermediate_size": 16,
        "input_local_layers": 1,
        "input_local_attn_heads": 2,
        "input_local_head_dim": 8,
    }
    layout = StorageLayout(ranks=4)
    write_checkpoint(folder, values, random_weights(ModelConfig.from_dict(values), layout), layout)
    codec = read_json(GOLDEN / "audio" / "checkpoint" / AUDIO_TOKENIZER_FOLDER / "config.json")
    codec |= {"d_model": 32, "encoder_layers": 1, "encoder_ffn_dim": 32, "num_quantizers": 3, "codebook_size": [8]}
    weights = audio_tokenizer_weights(AudioTokenizerConfig.from_dict(codec))
    write_audio_tokenizer(folder, codec, [(weight.name, torch.randn(weight.shape)) for weight in weights])
    return folder
