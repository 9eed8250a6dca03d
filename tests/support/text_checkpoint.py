"""The tiny text checkpoints of the reference sets as models, and the reference values beside them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.model.binding import Binding, mtp_bindings, text_bindings
from mimo_cli.model.decoder import TextModel
from mimo_cli.model.moe import ResidentExperts
from mimo_cli.model.mtp import MTPModule
from tests.reference.sets import reference_sets

GOLDEN = reference_sets()
MTP_MODULES = {"text": 3, "text_mxfp4": 0}
SEQUENCES = {"text": 3, "text_mxfp4": 1}


@dataclass(frozen=True)
class TextCheckpoint:
    """A golden set as a model with resident experts, its MTP modules and its reference arrays."""

    config: ModelConfig
    model: TextModel
    mtp: list[MTPModule]
    expected: Mapping[str, Tensor]

    def ids(self, i: int) -> Tensor:
        """Return sequence i as [1, T] int64."""
        return self.expected[f"seq{i}_input_ids"].long()[None]

    def states(self, ids: Tensor) -> Tensor:
        """Run whole sequences [B, T] without a cache and without gradients; returns [B, T, H]."""
        with torch.no_grad():
            return self.model(self.model.embed(ids), torch.arange(ids.shape[1]))


@cache
def load_text_checkpoint(
    name: str, dtype: torch.dtype = torch.float32, *, window: int | None = None, folder: Path | None = None
) -> TextCheckpoint:
    """Load a set once per process; tests must leave the weights as they are.

    `window` replaces the configured one; `folder` holds an altered copy.
    """
    folder = folder or GOLDEN / name
    model, reader = build_text_model(folder, dtype, window)
    config = model.config
    mtp = [MTPModule(config, dtype) for _ in range(MTP_MODULES[name])]
    for k, module in enumerate(mtp):
        _bind(module, mtp_bindings(module, k), reader)
    with np.load(folder / "expected.npz") as arrays:
        expected = {key: torch.from_numpy(arrays[key]) for key in arrays}
    return TextCheckpoint(config, model, mtp, expected)


def build_text_model(
    folder: Path, dtype: torch.dtype = torch.float32, window: int | None = None
) -> tuple[TextModel, CheckpointReader]:
    """Build the model of a checkpoint folder with all its experts resident."""
    config = ModelConfig.from_file(folder / "config.json")
    if window is not None:
        config = replace(config, sliding_attention=replace(config.sliding_attention, window=window))
    reader = CheckpointReader(TensorIndex.open(folder), config)
    experts = ResidentExperts(config, dtype)
    model = TextModel(config, experts, dtype)
    _bind(model, text_bindings(model), reader)
    for layer in config.moe_layers:
        for expert_id in range(config.n_routed_experts):
            prefix = f"model.layers.{layer}.mlp.experts.{expert_id}"
            for part, weight in zip(("gate", "up", "down"), experts.expert(layer, expert_id), strict=True):
                weight.data.copy_(reader.read(f"{prefix}.{part}_proj.weight", dtype))
    return model, reader


def _bind(module: nn.Module, bindings: Iterable[Binding], reader: CheckpointReader) -> None:
    state = module.state_dict()
    for binding in bindings:
        if binding.kind == "qkv":
            value = reader.qkv(binding.tensor, binding.attention, binding.dtype)
        else:
            value = reader.read(binding.tensor, binding.dtype, shape=binding.shape)
        state[binding.parameter].copy_(value)
