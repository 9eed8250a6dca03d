"""The vision tower in numpy: one function per formula, float64 throughout, every frame on its own.

Letters: P patches of one frame, H hidden size, N query heads, K key-value heads, D width of a head. All linear maps of
a block have biases, the patch embedding and the merger have none.

    x = patches @ kernel.T
    per block:  x = x + attention(norm1(x));  x = x + feed_forward(norm2(x))
    rows = merge the four patches of each unit

Blocks are full (-1), or see a window of the frame's patches in row order (0) or in column order (1).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import erf
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tests.reference.storage import Stored, read_folder
from tests.reference.text import Float, silu

EPS = 1e-6
HEAD_DIM = 64
ROPE_THETA = 10000.0
_erf = np.vectorize(erf, otypes=[float])


@dataclass(frozen=True)
class Variant:
    """Choices on which public implementations of this tower disagree; the defaults are the model's."""

    sinks: Literal["denominator", "key0", "ignore"] = "denominator"
    merger_norm: Literal["layernorm", "rmsnorm"] = "layernorm"


def rms_norm(x: Float, weight: Float) -> Float:
    """Divide rows by their root mean square."""
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight


def layer_norm(x: Float, weight: Float) -> Float:
    """Centre rows and divide them by their deviation; there is no bias."""
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight


def gelu(x: Float) -> Float:
    """Return the exact GELU, by the error function."""
    return x * (1 + _erf(x / np.sqrt(2))) / 2


def coordinates(rows: int, columns: int) -> NDArray[np.int64]:
    """Return (row, column) [P, 2] of each patch of a frame, unit after unit, the four of a unit together."""
    places = [
        (2 * a + mh, 2 * b + mw)
        for a in range(rows // 2)
        for b in range(columns // 2)
        for mh in range(2)
        for mw in range(2)
    ]
    return np.array(places)


def rope_angles(places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the angles [P, 32] of patches at (row, column) places: 16 turn with the row, 16 with the column."""
    quarter = HEAD_DIM // 4
    frequencies = (1 / ROPE_THETA ** (np.arange(quarter, dtype=np.float32) / quarter)).astype(np.float32)
    turned = places.astype(np.float32)[:, :, None] * frequencies
    return turned.reshape(len(places), -1)


def rotate(x: Float, angles: NDArray[np.float32]) -> Float:
    """Turn heads [P, heads, D]: number d is paired with d + D / 2."""
    cos, sin = (f(angles).astype(np.float64)[:, None] for f in (np.cos, np.sin))
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def column_units(rows: int, columns: int) -> NDArray[np.int64]:
    """Return which unit, counted row by row, stands at each place when units are listed column by column."""
    return np.arange(rows // 2 * (columns // 2)).reshape(rows // 2, columns // 2).T.ravel()


def column_patches(rows: int, columns: int) -> NDArray[np.int64]:
    """Return the same order for patches: units move, the four patches of a unit stay together."""
    return (column_units(rows, columns)[:, None] * 4 + np.arange(4)).ravel()


def attend(q: Float, k: Float, v: Float, window: int | None, sinks: Float | None, variant: Variant) -> Float:
    """Return [P, N, D]: attention inside one frame, of all patches or of those at most `window` places away.

    A sink joins the sum of its head's weights and carries no value; the variant `key0` adds it to the logit of the
    frame's first key instead.
    """
    places, heads, width = q.shape
    hidden = np.abs(np.arange(places)[:, None] - np.arange(places)) > (places if window is None else window)
    out = np.empty((places, heads, width))
    for head in range(heads):
        shared = head // (heads // k.shape[1])
        scores = q[:, head] @ k[:, shared].T / np.sqrt(width)
        if sinks is not None and variant.sinks == "key0":
            scores[:, 0] += sinks[head]
        scores[hidden] = -np.inf
        weights = np.exp(scores)  # logits of these towers are far from float64's limit of 709
        total = weights.sum(-1, keepdims=True)
        if sinks is not None and variant.sinks == "denominator":
            total += np.exp(sinks[head])
        out[:, head] = weights / total @ v[:, shared]
    return out


class Tower:
    """The tower of a checkpoint folder."""

    def __init__(self, folder: Path) -> None:
        stored = read_folder(folder)
        config = json.loads((folder / "config.json").read_text())
        self._load(config["vision_config"], stored)

    @classmethod
    def of(cls, config: dict[str, Any], stored: dict[str, Stored]) -> "Tower":
        """Build a tower, or a part of one, from a `vision_config` and tensors."""
        tower = cls.__new__(cls)
        tower._load(config, stored)
        return tower

    def _load(self, config: dict[str, Any], stored: dict[str, Stored]) -> None:
        self.config = config
        self.weights = {name: tensor.numbers().astype(np.float64) for name, tensor in stored.items()}

    def rows(
        self,
        patches: NDArray[np.float32],
        grid: Sequence[int],
        variant: Variant | None = None,
        trace: dict[str, Float] | None = None,
    ) -> Float:
        """Turn patches [steps * P, 1536] of a picture or film into rows [steps * P / 4, out]; frames never meet.

        `trace` receives the first frame's `patch_embed`, `block_{i:02d}` in that block's own order, and `merger_norm`.
        """
        frames = np.split(patches.astype(np.float64), grid[0])
        first: dict[str, Float] = {} if trace is None else trace
        variant = variant or Variant()
        return np.concatenate(
            [
                self._frame(patches, grid[1], grid[2], variant, {} if step else first)
                for step, patches in enumerate(frames)
            ]
        )

    def _frame(self, patches: Float, rows: int, columns: int, variant: Variant, trace: dict[str, Float]) -> Float:
        x = self.embed(patches)
        trace["patch_embed"] = x.copy()
        for number in range(self.config["depth"]):
            order = self.order(number, rows, columns)
            x[order] = trace[f"block_{number:02d}"] = self.block(number, x[order], rows, columns, variant)
        return self.merge(x, variant, trace)

    def embed(self, patches: Float) -> Float:
        """Embed patches: the kernel, flattened, is laid over each."""
        kernel = self.weights["visual.patch_embed.proj.weight"]
        return patches @ kernel.reshape(len(kernel), -1).T

    def order(self, number: int, rows: int, columns: int) -> NDArray[np.int64]:
        """Return which patch stands at each place of a block's order."""
        in_columns = self.config["vit_window_attn_types"][number] == 1
        return column_patches(rows, columns) if in_columns else np.arange(rows * columns)

    def block(self, number: int, x: Float, rows: int, columns: int, variant: Variant) -> Float:
        """Run a block over one frame [P, H], which stands in the block's own order before and after."""
        name = f"visual.blocks.{number}"
        angles = rope_angles(coordinates(rows, columns)[self.order(number, rows, columns)])
        windowed = self.config["vit_window_attn_types"][number] != -1
        heads, shared = self.config["num_heads"], self.config["num_key_value_heads"]
        qkv = self._linear(f"{name}.attn.qkv", rms_norm(x, self.weights[f"{name}.norm1.weight"]))
        q, k, v = np.split(qkv.reshape(len(x), -1, HEAD_DIM), [heads, heads + shared], axis=1)
        window = self.config["visual_token_window_size"] if windowed else None
        sinks = self.weights[f"{name}.attn.sinks"] if windowed and self.config["use_sink"] else None
        mixed = attend(rotate(q, angles), rotate(k, angles), v, window, sinks, variant)
        x = x + self._linear(f"{name}.attn.proj", mixed.reshape(len(x), -1))
        normed = rms_norm(x, self.weights[f"{name}.norm2.weight"])
        gated = silu(self._linear(f"{name}.mlp.gate_proj", normed)) * self._linear(f"{name}.mlp.up_proj", normed)
        return x + self._linear(f"{name}.mlp.down_proj", gated)

    def merge(self, x: Float, variant: Variant, trace: dict[str, Float]) -> Float:
        """Turn patches [P, H] in row order into rows [P / 4, out], one for each unit."""
        norm = layer_norm if variant.merger_norm == "layernorm" else rms_norm
        normed = trace["merger_norm"] = norm(x, self.weights["visual.merger.ln_q.weight"])
        units = normed.reshape(len(x) // 4, -1)
        first, second = (self.weights[f"visual.merger.mlp.{i}.weight"] for i in (0, 2))
        return gelu(units @ first.T) @ second.T

    def _linear(self, name: str, x: Float) -> Float:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
