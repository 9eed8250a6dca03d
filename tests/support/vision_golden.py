"""The vision tower of the reference sets: its configuration, weights, arrays and tables."""

import dataclasses
import json
from functools import cache
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from mimo_cli.checkpoint.vision_config import VisionConfig
from mimo_cli.model.vision import VisionTower
from tests.reference.sets import reference_sets

FOLDER = reference_sets() / "vision"


@cache
def expected() -> dict[str, np.ndarray]:
    """All reference arrays by name; do not change them."""
    with np.load(FOLDER / "expected.npz") as arrays:
        return dict(arrays)


@cache
def cases() -> dict[str, Any]:
    """The tables of `cases.json`."""
    return json.loads((FOLDER / "cases.json").read_text())


@cache
def config() -> VisionConfig:
    """The configuration of the reference tower."""
    return VisionConfig.from_dict(json.loads((FOLDER / "config.json").read_text())["vision_config"])


@cache
def weights() -> dict[str, torch.Tensor]:
    """The stored tensors, without their prefix; do not change them."""
    return {name.removeprefix("visual."): value for name, value in load_file(FOLDER / "model.safetensors").items()}


def tower(dtype: torch.dtype = torch.float32, **changes: Any) -> VisionTower:
    """Build the reference tower, with some fields of its configuration changed."""
    module = VisionTower(dataclasses.replace(config(), **changes)).to(dtype)
    module.load_state_dict(weights())
    return module.eval()
