"""What a checkpoint holds against what its configuration says: parts, bytes, and every tensor that does not fit.

A tower that is absent as a whole is no fault: the model then lacks that sense. A tower in parts is one.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from mimo_cli.checkpoint.audio_config import AudioConfig, AudioTokenizerConfig
from mimo_cli.checkpoint.config import ModelConfig, read_json
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.names import (
    AUDIO_PREFIXES,
    FP8_SCALE,
    MTP_PREFIX,
    MXFP4_SCALE,
    PACKED_SUFFIX,
    VISION_PREFIX,
    NamedWeight,
    audio_tokenizer_weights,
    audio_weights,
    expert_weights,
    mtp_weights,
    text_weights,
    vision_weights,
)
from mimo_cli.checkpoint.storage import Problem, find_left_over, find_problems, refuse_problems, stored_format
from mimo_cli.errors import CheckpointError

AUDIO_TOKENIZER_FOLDER = "audio_tokenizer"
"""The one sub-folder that belongs to the model."""


@dataclass(frozen=True)
class Part:
    """A part of the model as stored: number of tensors, and bytes by stored format (`FP8`, `MXFP4`, `BF16`, `F32` ...).

    Scales count with the matrices they belong to.
    """

    name: str
    tensors: int
    parameters: int
    format_bytes: Mapping[str, int]

    @property
    def size_bytes(self) -> int:
        """Bytes in the shards."""
        return sum(self.format_bytes.values())


@dataclass(frozen=True)
class Contents:
    """What is there. `notes` are sentences for the user about what is absent; `problems` make a checkpoint unusable."""

    parts: tuple[Part, ...]
    num_mtp: int
    has_vision: bool
    has_audio: bool
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.size_bytes for part in self.parts)


PackedWeights = Mapping[str, tuple[str, int]]
"""Weights that a packed store holds in another form: official name -> format and bytes."""


def check_tensors(config: ModelConfig, index: TensorIndex, packed: PackedWeights | None = None) -> Contents:
    """Survey a checkpoint and raise CheckpointError if any tensor is missing, left over or not of its shape."""
    contents = survey_tensors(config, index, packed)
    refuse_problems(contents.problems, index.folder)
    return contents


def survey_tensors(config: ModelConfig, index: TensorIndex, packed: PackedWeights | None = None) -> Contents:
    """Compare every tensor's name and shape with the configuration. Reads headers only and raises nothing for them.

    What `packed` names need not be in the index.
    """
    packed = packed or {}
    num_mtp = count_mtp_modules(index)
    has_vision = bool(config.vision and index.with_prefix(VISION_PREFIX))
    has_audio = bool(config.audio and any(index.with_prefix(prefix) for prefix in AUDIO_PREFIXES))
    expected = {
        "text": list(text_weights(config)),
        "experts": list(expert_weights(config)),
        "MTP": [weight for k in range(num_mtp) for weight in mtp_weights(config, k)],
        "vision": list(vision_weights(config.vision)) if has_vision and config.vision else [],
        "audio": list(audio_weights(config.audio)) if has_audio and config.audio else [],
    }
    parts, problems = [], []
    for name, weights in expected.items():
        if weights:
            parts.append(_part(name, weights, index, packed))
            problems += find_problems([weight for weight in weights if weight.name not in packed], index, config)
    known = [weight for weights in expected.values() for weight in weights]
    known += [NamedWeight(name + PACKED_SUFFIX, ()) for name in packed]
    problems += find_left_over(known, index, config)
    if has_audio and config.audio:
        part, found = _survey_audio_tokenizer(config.audio, index.folder / AUDIO_TOKENIZER_FOLDER)
        parts += [part] if part else []
        problems += found
    notes = [] if has_vision else ["no vision tower: pictures and videos cannot be understood"]
    notes += [] if has_audio else ["no audio encoder: sound cannot be understood"]
    return Contents(tuple(parts), num_mtp, has_vision, has_audio, tuple(notes), tuple(problems))


def count_mtp_modules(index: TensorIndex) -> int:
    """Return the number of distinct k in `model.mtp.layers.{k}.` (the configuration may not say)."""
    return len({name.removeprefix(MTP_PREFIX).split(".")[0] for name in index.with_prefix(MTP_PREFIX)})


def _part(name: str, weights: Iterable[NamedWeight], index: TensorIndex, packed: PackedWeights) -> Part:
    tensors, parameters, sizes = 0, 0, Counter[str]()
    for weight in weights:
        if weight.name in packed:
            kind, size_bytes = packed[weight.name]
            tensors, parameters = tensors + 1, parameters + torch.Size(weight.shape).numel()
            sizes[kind] += size_bytes
            continue
        if weight.name not in index:
            continue
        stored = [n for n in (weight.name, weight.name + FP8_SCALE, weight.name + MXFP4_SCALE) if n in index]
        tensors += len(stored)
        parameters += torch.Size(weight.shape).numel()
        sizes[stored_format(weight.name, index)] += sum(index[n].size_bytes for n in stored)
    return Part(name, tensors, parameters, dict(sizes))


def _survey_audio_tokenizer(audio: AudioConfig, folder: Path) -> tuple[Part | None, list[Problem]]:
    """Survey the codec's folder; what makes it unreadable is a problem too."""
    try:
        config = AudioTokenizerConfig.from_dict(
            read_json(folder / "config.json"), f"{AUDIO_TOKENIZER_FOLDER}/config.json"
        )
        index = TensorIndex.open(folder)
    except CheckpointError as err:
        return None, [Problem("encoder.*", f"the audio tokenizer in `{AUDIO_TOKENIZER_FOLDER}/`", f"{err}")]
    weights = list(audio_tokenizer_weights(config))
    problems = find_problems(weights, index)
    problems += [p for p in find_left_over(weights, index) if not p.tensor.startswith("decoder.")]
    if config.num_quantizers < audio.audio_channels:
        expected, found = f"code books for {audio.audio_channels} channels", f"{config.num_quantizers}"
        problems.append(Problem("encoder.quantizer", expected, found, AUDIO_TOKENIZER_FOLDER))
    return _part("audio tokenizer", weights, index, {}), problems
