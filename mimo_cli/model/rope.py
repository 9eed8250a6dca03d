"""Rotary position embedding of the first dimensions of each head, in rotate-half pairs (j, j + R/2).

Letters: B batch, T tokens, H heads, D head dim, R rotary dims (64 of 192 in the released models).
Source: text specification 4.3; there is no position-dependent scaling in this family.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mimo_cli.checkpoint.config import AttentionConfig


@dataclass(frozen=True)
class RotaryTable:
    """Cosines and sines [B, T, 1, R/2] or [T, 1, R/2] of the positions of one forward pass, float32."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(cls, positions: Tensor, attention: AttentionConfig) -> "RotaryTable":
        """Compute the table for positions [B, T] or [T]: angle p * theta^(-2j/R), all in float32."""
        half = torch.arange(0, attention.rotary_dim, 2, dtype=torch.float32, device=positions.device)
        inv_freq = 1.0 / attention.rope_theta ** (half / attention.rotary_dim)  # [R/2]
        angles = positions.float()[..., None, None] * inv_freq  # [..., T, 1, R/2]
        return cls(angles.cos(), angles.sin())

    def rotate(self, heads: Tensor) -> Tensor:
        """Rotate [B, T, H, D]; dimensions from R on pass through. Rounded once, to the dtype of the input."""
        half = self.cos.shape[-1]
        a, b, rest = heads[..., :half].float(), heads[..., half : 2 * half].float(), heads[..., 2 * half :]
        turned = (a * self.cos - b * self.sin, b * self.cos + a * self.sin)
        return torch.cat([*(part.to(heads.dtype) for part in turned), rest], dim=-1)
