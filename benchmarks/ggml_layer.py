"""GgmlExperts: one layer of experts computed by llama.cpp's kernels, through the library made of ggml_moe.cpp."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.ggml_blocks import FORMATS, random_blocks


class GgmlExperts:
    """Random experts in one of ggml's formats. Raises ValueError where ggml lacks the format (or its repacked form)."""

    def __init__(
        self,
        library: Path,
        kind: str,
        repacked: bool,
        hidden: int,
        width: int,
        active: int,
        threads: int,
        gigabytes: float,
    ) -> None:
        matrices = [
            random_blocks(kind, *size, np.random.default_rng(0)) for size in ((width, hidden),) * 2 + ((hidden, width),)
        ]
        self.name = f"llama.cpp {kind}" + (" repacked" if repacked else "")
        self.expert_bytes = float(sum(matrix.nbytes for matrix in matrices))
        self.experts = int(gigabytes * 1e9 / self.expert_bytes) + 1
        self.bits_per_weight = FORMATS[kind].bits_per_weight
        self._active = active
        self._library = ctypes.CDLL(str(library))
        self._library.ggml_moe_open.restype = ctypes.c_void_p
        numbers = hidden, width, self.experts, active, threads, int(repacked)
        handle = self._library.ggml_moe_open(kind.encode(), *numbers, *(_address(matrix) for matrix in matrices))
        if not handle:
            raise ValueError(f"{self.name}: ggml does not have it on this processor")
        self._handle = ctypes.c_void_p(handle)

    def decode(self, x: Tensor, experts: Sequence[int]) -> Tensor:
        """One token x float32 [1, H] through some experts, averaged."""
        return self.prefill(x, torch.tensor([experts]))

    def prefill(self, x: Tensor, ids: Tensor) -> Tensor:
        """Tokens x float32 [T, H] through experts ids [T, A], averaged."""
        numbers = ids.to(torch.int32).contiguous().numpy()
        weights = np.full(numbers.shape, 1 / self._active, np.float32)
        out = torch.empty_like(x)
        rows = x.contiguous().numpy()
        self._library.ggml_moe_run(
            self._handle, _address(rows), _address(numbers), _address(weights), len(x), _address(out.numpy())
        )
        return out

    def close(self) -> None:
        """Give the memory back."""
        self._library.ggml_moe_close(self._handle)


def _address(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
