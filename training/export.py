"""Export: the trained parts become a folder in the release's layout, FP8 blocks and all, by the package's writer."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mimo_cli.chat.template import ChatTemplate
from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.shard_writer import write_json
from mimo_cli.checkpoint.writer import StorageLayout, write_audio_tokenizer, write_checkpoint
from mimo_cli.miniature.bundled import MARKER_FILE
from mimo_cli.miniature.configuration import generation_config, preprocessor_config
from mimo_cli.model.audio import AudioEncoder
from mimo_cli.model.audio_tokenizer import AudioTokenizer
from mimo_cli.model.decoder import TextModel
from mimo_cli.model.moe import ResidentExperts
from mimo_cli.model.mtp import MTPModule
from mimo_cli.model.vision import VisionTower
from training.architecture import IMAGE_PIXELS, audio_tokenizer_config, model_config
from training.words import WordVocabulary

NOTICE = "a 16M-parameter demonstration model, not MiMo-V2.5; give the release's folder with -m DIR"


@dataclass
class Parts:
    """The networks of a miniature."""

    text: TextModel
    mtp: list[MTPModule]
    vision: VisionTower
    audio: AudioEncoder
    codec: AudioTokenizer

    def to(self, device: str) -> "Parts":
        """The same networks elsewhere."""
        for network in (self.text, *self.mtp, self.vision, self.audio, self.codec):
            network.to(device)
        return self

    @classmethod
    def fresh(cls, config: ModelConfig, codec: Any, seed: int) -> "Parts":
        """Untrained parts; `codec` is an AudioTokenizerConfig."""
        if config.vision is None or config.audio is None:
            raise ValueError("the miniature sees and hears")
        torch.manual_seed(seed)
        return cls(
            TextModel(config, ResidentExperts(config)),
            [MTPModule(config) for _ in range(3)],
            VisionTower(config.vision),
            AudioEncoder(config.audio),
            AudioTokenizer(codec),
        )


def named_weights(parts: Parts) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight of config.json's model under its official name."""
    for name, value in parts.text.state_dict().items():
        if not name.startswith("experts."):
            yield name if name.startswith("lm_head") else f"model.{name}", value
    experts = parts.text.experts
    if not isinstance(experts, ResidentExperts):
        raise TypeError("export needs the experts in memory")
    for layer in parts.text.config.moe_layers:
        for number in range(parts.text.config.n_routed_experts):
            for projection, weight in zip(("gate", "up", "down"), experts.expert(layer, number), strict=True):
                yield f"model.layers.{layer}.mlp.experts.{number}.{projection}_proj.weight", weight
    for k, module in enumerate(parts.mtp):
        yield from ((f"model.mtp.layers.{k}.{name}", value) for name, value in module.state_dict().items())
    yield from ((f"visual.{name}", value) for name, value in parts.vision.state_dict().items())
    yield from parts.audio.state_dict().items()


@torch.no_grad()
def export(folder: Path, parts: Parts, vocabulary: WordVocabulary, marker: dict[str, Any]) -> None:
    """Write the miniature's folder; `marker` says how the weights came about."""
    values = model_config(vocabulary)
    layout = StorageLayout(num_mtp=len(parts.mtp))
    write_checkpoint(folder, values, ((n, w.float().cpu()) for n, w in named_weights(parts)), layout)
    codec = ((f"encoder.{name}", value.float().cpu()) for name, value in parts.codec.state_dict().items())
    write_audio_tokenizer(folder, audio_tokenizer_config(), codec)
    write_json(folder / "tokenizer.json", vocabulary.tokenizer_json())
    write_json(folder / "tokenizer_config.json", vocabulary.tokenizer_config(ChatTemplate.built_in().text))
    write_json(folder / "generation_config.json", generation_config(vocabulary))
    limits = {"min_pixels": IMAGE_PIXELS[0], "max_pixels": IMAGE_PIXELS[1]}
    write_json(folder / "preprocessor_config.json", {**preprocessor_config(), **limits})
    write_json(folder / MARKER_FILE, {"notice": NOTICE, "weights": "trained", "temperature": 0, **marker})
