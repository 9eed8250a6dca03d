"""The audio reference values: recordings, expected arrays, and the two towers with the tiny checkpoint's weights."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from mimo_cli.checkpoint.audio_config import AudioConfig, AudioTokenizerConfig
from mimo_cli.media.samples import mix_down
from mimo_cli.model.audio import AudioEncoder
from mimo_cli.model.audio_tokenizer import AudioTokenizer
from tests.reference.sets import reference_sets

FOLDER = reference_sets() / "audio"
CHECKPOINT = FOLDER / "checkpoint"
CLIPS: dict[str, dict[str, Any]] = {
    key: value for key, value in json.loads((FOLDER / "clips.json").read_text()).items() if "file" in value
}
WHOLE_MEL = ("c01", "c02", "c06", "c07", "c08")
"""Clips whose mel spectrogram is stored from the first row to the last."""


@lru_cache
def expected() -> dict[str, NDArray[Any]]:
    """All arrays of expected.npz by name."""
    with np.load(FOLDER / "expected.npz") as arrays:
        return dict(arrays)


def path(key: str) -> Path:
    """The recording of a clip."""
    return FOLDER / CLIPS[key]["file"]


def read_mono(key: str) -> tuple[NDArray[np.float32], int]:
    """Samples and rate of a clip, straight from the file library."""
    samples, rate = soundfile.read(path(key), dtype="float32", always_2d=True)
    return mix_down(samples), rate


def tensor(name: str) -> Tensor:
    """An expected array as a tensor; codes as int64."""
    array = expected()[name]
    return torch.from_numpy(array.astype(np.int64) if array.dtype == np.int16 else array)


@lru_cache
def tokenizer_state() -> dict[str, Tensor]:
    """What the tiny checkpoint stores for the tokenizer, by parameter name, training state and decoder left out."""
    stored = load_file(CHECKPOINT / "audio_tokenizer" / "model.safetensors")
    training_state = (".cluster_size", ".embed_avg", ".inited")
    return {
        name.removeprefix("encoder."): value
        for name, value in stored.items()
        if name.startswith("encoder.") and not name.endswith(training_state)
    }


@lru_cache
def encoder_state() -> dict[str, Tensor]:
    """What the tiny checkpoint stores for the audio encoder."""
    weight_map = json.loads((CHECKPOINT / "model.safetensors.index.json").read_text())["weight_map"]
    shards = {shard: load_file(CHECKPOINT / shard) for shard in set(weight_map.values())}
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def tokenizer_config(**changes: Any) -> AudioTokenizerConfig:
    """The tiny tokenizer's configuration, with changes."""
    values = json.loads((CHECKPOINT / "audio_tokenizer" / "config.json").read_text())
    return AudioTokenizerConfig.from_dict(values | changes)


def encoder_config(**changes: Any) -> AudioConfig:
    """The tiny encoder's configuration, with changes."""
    values = json.loads((CHECKPOINT / "config.json").read_text())["audio_config"]
    return AudioConfig.from_dict(values | changes)


def build_tokenizer(
    *, rounded_tables: bool = False, dtype: torch.dtype = torch.float32, **changes: Any
) -> AudioTokenizer:
    """A new tokenizer with the tiny checkpoint's weights."""
    tokenizer = AudioTokenizer(tokenizer_config(**changes), rounded_tables=rounded_tables).to(dtype)
    tokenizer.load_state_dict(tokenizer_state())
    return tokenizer.requires_grad_(False)


def build_encoder(*, dtype: torch.dtype = torch.float32, **changes: Any) -> AudioEncoder:
    """A new audio encoder with the tiny checkpoint's weights."""
    encoder = AudioEncoder(encoder_config(**changes)).to(dtype)
    encoder.load_state_dict(encoder_state())
    return encoder.requires_grad_(False)
