"""A tiny vision tower of random weights in the release's layout, and the values it must give for given pictures."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference.pixels import IMAGENET, frame_times, frames_patches, picture_patches
from tests.reference.random_values import RandomValues
from tests.reference.storage import Stored, store, write_file
from tests.reference.text_values import Arrays
from tests.reference.vision import HEAD_DIM, Float, Tower, Variant

SEED = 4
PICTURES = 3
KEPT_BLOCKS = (0, 1, 4, 5, 8, 9)
EVERY = 3
"""Each third row of a block's output is kept."""


def tensors(config: dict[str, Any], seed: int) -> Iterator[tuple[str, Stored]]:
    """Yield every tensor of a `vision_config`; deviations make attention sharp and sinks heavy enough to matter."""
    random = RandomValues(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    q_width = config["num_heads"] * HEAD_DIM
    qkv_width = q_width + 2 * config["num_key_value_heads"] * HEAD_DIM
    unit = hidden * config["spatial_merge_size"] ** 2

    def plain(shape: tuple[int, ...], deviation: float, middle: float = 0.0) -> Stored:
        return store(random.near_normal(shape, deviation, middle), "BF16")

    patch = (config["in_chans"], config["temporal_patch_size"], config["patch_size"], config["patch_size"])
    yield "visual.patch_embed.proj.weight", plain((hidden, *patch), 0.03)
    for number, kind in enumerate(config["vit_window_attn_types"]):
        name = f"visual.blocks.{number}"
        for norm in ("norm1", "norm2"):
            yield f"{name}.{norm}.weight", plain((hidden,), 0.2, 1.0)
        if kind != -1:
            yield f"{name}.attn.sinks", plain((config["num_heads"],), 2.0, 1.7)
        linear = {
            "attn.qkv": (qkv_width, hidden, 0.11, 0.3),
            "attn.proj": (hidden, q_width, 0.06, 0.1),
            "mlp.gate_proj": (inner, hidden, 0.09, 0.1),
            "mlp.up_proj": (inner, hidden, 0.09, 0.1),
            "mlp.down_proj": (hidden, inner, 0.07, 0.1),
        }
        for part, (rows, columns, deviation, bias_deviation) in linear.items():
            yield f"{name}.{part}.weight", plain((rows, columns), deviation)
            yield f"{name}.{part}.bias", plain((rows,), bias_deviation)
    yield "visual.merger.ln_q.weight", plain((hidden,), 0.2, 1.0)
    yield "visual.merger.mlp.0.weight", plain((unit, unit), 0.045)
    yield "visual.merger.mlp.2.weight", plain((config["out_hidden_size"], unit), 0.06)


def write_checkpoint(folder: Path, seed: int = SEED) -> None:
    """Write `model.safetensors` beside `config.json`, which must be there."""
    config = json.loads((folder / "config.json").read_text())["vision_config"]
    write_file(folder / "model.safetensors", dict(tensors(config, seed)))


def values(folder: Path, inputs: Arrays) -> Arrays:
    """Compute the rows of the pictures and the film in `inputs`, which are returned with them.

    `img{i}_embeds`, `vid_embeds`, `vid3_embeds` (the film with only its first three sampled frames); of the first
    picture `img0_{patch_embed,block_NN,merger_norm}_every_3` and `img0_embeds_{variant}`, one choice switched each.
    """
    tower, processor = Tower(folder), json.loads((folder / "config.json").read_text())["processor_config"]
    found: dict[str, Float] = {}
    trace: dict[str, Float] = {}
    for number in range(PICTURES):
        patches, grid = picture_patches(inputs[f"img{number}_rgb"], processor)
        found[f"img{number}_embeds"] = tower.rows(patches, grid, trace=trace if number == 0 else None)
    for name in ("patch_embed", *(f"block_{number:02d}" for number in KEPT_BLOCKS), "merger_norm"):
        found[f"img0_{name}_every_{EVERY}"] = trace[name][::EVERY]
    patches, grid = picture_patches(inputs["img0_rgb"], processor)
    found["img0_embeds_sink_key0"] = tower.rows(patches, grid, Variant(sinks="key0"))
    found["img0_embeds_sink_ignored"] = tower.rows(patches, grid, Variant(sinks="ignore"))
    found["img0_embeds_merger_rmsnorm"] = tower.rows(patches, grid, Variant(merger_norm="rmsnorm"))
    patches, grid = picture_patches(inputs["img0_rgb"], processor, IMAGENET)
    found["img0_embeds_imagenet_stats"] = tower.rows(patches, grid)
    frames = inputs["vid_frames"][inputs["vid_indices"]]
    found["vid_embeds"] = tower.rows(*frames_patches(frames, processor))
    found["vid3_embeds"] = tower.rows(*frames_patches(frames[:3], processor))
    assert np.array_equal(frame_times(inputs["vid_indices"], float(inputs["vid_fps"])), inputs["vid_timestamps"])
    return inputs | {name: array.astype(np.float32) for name, array in found.items()}


def write_values(folder: Path, inputs: Arrays) -> None:
    """Write `expected.npz` beside a checkpoint."""
    np.savez(folder / "expected.npz", **values(folder, inputs))  # type: ignore[arg-type]
