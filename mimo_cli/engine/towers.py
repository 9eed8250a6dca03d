"""The towers of a checkpoint, alone or beside the text model: which are there, built empty, then filled.

The vision tower is `visual.*`; hearing is `speech_embeddings.*` and `audio_encoder.*` of the same shards plus the codec
in the sub-folder `audio_tokenizer/`, of which only the encoder is read.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from mimo_cli.checkpoint.audio_config import AudioConfig, AudioTokenizerConfig
from mimo_cli.checkpoint.config import read_json
from mimo_cli.checkpoint.contents import AUDIO_TOKENIZER_FOLDER
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.names import AUDIO_PREFIXES, AUDIO_TOKENIZER_PREFIX, VISION_PREFIX
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.checkpoint.vision_config import VisionConfig
from mimo_cli.engine.bind import Loader, build_empty, module_bytes, require_memory
from mimo_cli.errors import CheckpointError
from mimo_cli.model.audio import AudioEncoder
from mimo_cli.model.audio_tokenizer import AudioTokenizer
from mimo_cli.model.vision import VisionTower

AudioTables: TypeAlias = Literal["rounded", "exact"]
"""Whether the codec's code books and rotary frequencies are rounded to bfloat16 first, as the serving stacks do."""


@dataclass
class Hearing:
    """The two networks between a mel spectrogram and embedding rows."""

    tokenizer: AudioTokenizer
    encoder: AudioEncoder


def empty_vision(config: VisionConfig, dtype: torch.dtype) -> VisionTower:
    """Build a vision tower without memory."""
    return build_empty(lambda: VisionTower(config), dtype)


def empty_hearing(folder: Path, config: AudioConfig, dtype: torch.dtype, tables: AudioTables) -> Hearing:
    """Build the audio networks without memory; reads `audio_tokenizer/config.json`."""
    codec = AudioTokenizerConfig.from_dict(read_json(folder / AUDIO_TOKENIZER_FOLDER / "config.json"))
    return Hearing(
        build_empty(lambda: AudioTokenizer(codec, rounded_tables=tables == "rounded"), dtype),
        build_empty(lambda: AudioEncoder(config), dtype),
    )


def fill_vision(tower: VisionTower, reader: CheckpointReader, loader: Loader) -> None:
    """Read the tower's weights. Raises CheckpointError naming what is missing or of another shape."""
    loader.bind_prefix(tower, reader, VISION_PREFIX)


def fill_hearing(hearing: Hearing, reader: CheckpointReader, loader: Loader) -> None:
    """Read the weights of both networks, the codec's from its own folder."""
    loader.bind_prefix(hearing.encoder, reader, "")
    codec = CheckpointReader(TensorIndex.open(reader.index.folder / AUDIO_TOKENIZER_FOLDER))
    loader.bind_prefix(hearing.tokenizer, codec, AUDIO_TOKENIZER_PREFIX)
    codec.close()


def load_vision_tower(folder: Path, dtype: torch.dtype, config: VisionConfig) -> VisionTower:
    """Load a vision tower alone, from a folder that may hold nothing else."""
    index = TensorIndex.open(folder)
    if not index.with_prefix(VISION_PREFIX):
        raise CheckpointError(f"`{folder}` has no vision tower (tensors `{VISION_PREFIX}*`)")
    tower = empty_vision(config, dtype)
    needed_bytes = module_bytes([tower])
    require_memory(needed_bytes, "the vision tower")
    reader = CheckpointReader(index)
    fill_vision(tower, reader, Loader(needed_bytes))
    reader.close()
    return tower


def load_audio_tower(folder: Path, dtype: torch.dtype, config: AudioConfig, tables: AudioTables) -> Hearing:
    """Load the audio networks alone, from a folder that may hold nothing else but `audio_tokenizer/`."""
    index = TensorIndex.open(folder)
    if not all(index.with_prefix(prefix) for prefix in AUDIO_PREFIXES):
        raise CheckpointError(f"`{folder}` has no audio encoder (tensors `{'*`, `'.join(AUDIO_PREFIXES)}*`)")
    hearing = empty_hearing(folder, config, dtype, tables)
    needed_bytes = module_bytes([hearing.tokenizer, hearing.encoder])
    require_memory(needed_bytes, "the audio encoder")
    reader = CheckpointReader(index)
    fill_hearing(hearing, reader, Loader(needed_bytes))
    reader.close()
    return hearing
