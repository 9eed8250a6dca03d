"""Rotary position embedding of the first dimensions of each head, in rotate-half pairs (j, j + R/2).

Letters: B batch, T tokens, H heads, D head dim, R rotary dims (64 of 192 in the released models).
Source: the release's modeling file; there is no position-dependent scaling in this family.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from mimo_cli.checkpoint.config import AttentionConfig


@functools.lru_cache(maxsize=16)
def _frequencies(rotary_dim: int, theta: float, device: torch.device) -> Tensor:
    """Return the angle per position, [R/2] float32. Kept: a decoded token would spend long on them."""
    with torch.inference_mode(False):  # also a later training pass reads it
        half = torch.arange(0, rotary_dim, 2, dtype=torch.float32, device=device)
        return 1.0 / theta ** (half / rotary_dim)


@dataclass(frozen=True)
class RotaryTable:
    """Cosines and sines [B, T, 1, R/2] or [T, 1, R/2] of the positions of one forward pass, float32."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(cls, positions: Tensor, attention: AttentionConfig, block_tokens: int | None = None) -> "RotaryTable":
        """Compute the table for positions [B, T] or [T]: angle p * theta^(-2j/R), all in float32.

        block_tokens: positions [T] are computed in blocks of so many.
        """
        if block_tokens is not None and len(positions) > block_tokens:
            tables = [cls.at(block, attention) for block in positions.split(block_tokens)]
            return cls(torch.cat([table.cos for table in tables]), torch.cat([table.sin for table in tables]))
        inv_freq = _frequencies(attention.rotary_dim, attention.rope_theta, positions.device)
        angles = positions.float()[..., None, None] * inv_freq  # [..., T, 1, R/2]
        return cls(angles.cos(), angles.sin())

    def __getitem__(self, tokens: slice) -> "RotaryTable":
        """Return the table of some of the positions [T]."""
        return RotaryTable(self.cos[tokens], self.sin[tokens])

    def rotate(self, heads: Tensor) -> Tensor:
        """Rotate [B, T, H, D]; dimensions from R on pass through. Rounded once, to the dtype of the input."""
        half = self.cos.shape[-1]
        a, b, rest = heads[..., :half].float(), heads[..., half : 2 * half].float(), heads[..., 2 * half :]
        turned = (a * self.cos - b * self.sin, b * self.cos + a * self.sin)
        return torch.cat([*(part.to(heads.dtype) for part in turned), rest], dim=-1)
