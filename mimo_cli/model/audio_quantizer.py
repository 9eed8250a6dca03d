"""Residual vector quantizer of the audio tokenizer: feature vectors to codes and back.

Twenty stages; each names the code word nearest to what the earlier ones left over. Everything here is float32 whatever
the rest of the model computes in: a later stage quantizes a small remainder, where bfloat16 would pick at random.
Parameter names are the checkpoint's: `vq.layers.Q._codebook.embed` [codebook_size, d_model].
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _CodeBook(nn.Module):
    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.embed = nn.Parameter(torch.empty(size, dim, dtype=torch.float32))
        nn.init.normal_(self.embed)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_CodeBook":
        # `.to(torch.bfloat16)` on the whole tower moves code books but must not round what is stored.
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)


class _Stage(nn.Module):
    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self._codebook = _CodeBook(size, dim)


class _Stages(nn.Module):
    def __init__(self, sizes: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Stage(size, dim) for size in sizes)


class ResidualQuantizer(nn.Module):
    """Stages of nearest-neighbour search; `rounded` reads the code books as bfloat16 values (in float32 maths)."""

    def __init__(self, sizes: tuple[int, ...], dim: int, *, rounded: bool) -> None:
        super().__init__()
        self.rounded = rounded
        self.vq = _Stages(sizes, dim)

    def code_book(self, stage: int) -> Tensor:
        """Return a stage's code words, float32 [size, dim], rounded where that is asked for."""
        embed = self.get_parameter(f"vq.layers.{stage}._codebook.embed").float()
        return embed.to(torch.bfloat16).float() if self.rounded else embed

    @torch.no_grad()
    def encode(self, features: Tensor) -> Tensor:
        """Quantize features [..., dim] of any float dtype to codes [..., stages] int64; ties go to the lowest code."""
        codes = []
        with torch.autocast(features.device.type, enabled=False):
            residual = features.float().reshape(-1, features.shape[-1])
            for stage in range(len(self.vq.layers)):
                book = self.code_book(stage)
                squares = residual.square().sum(1, keepdim=True) + book.square().sum(1)
                index = (squares - 2 * residual @ book.T).argmin(1)
                residual = residual - book[index]
                codes.append(index)
        return torch.stack(codes, dim=-1).view(*features.shape[:-1], -1)

    def decode(self, codes: Tensor) -> Tensor:
        """Sum the code words of codes [..., n], n <= stages: float32 [..., dim]. Differentiable in the code books."""
        parts = [F.embedding(codes[..., stage], self.code_book(stage)) for stage in range(codes.shape[-1])]
        return torch.stack(parts).sum(0)
