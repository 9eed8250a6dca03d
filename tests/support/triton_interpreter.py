"""Triton kernels on the CPU: the interpreter, switched on before anybody imports a kernel, so imported by conftest.

It rounds to bfloat16 by cutting bits off, so what it computes is compared in float32; a card is asked for bfloat16 too.
"""

import os
from typing import Any

import torch

os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")

from triton.runtime import interpreter

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Where the kernels run here."""

_patch_tensor = interpreter._patch_lang_tensor


def _with_index(tensor: Any, scope: Any) -> None:
    """Let a loop's bound be a number of the kernel: numpy no longer turns arrays of one element into one."""
    _patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


interpreter._patch_lang_tensor = _with_index


DTYPES = [torch.float32, torch.bfloat16] if DEVICE == "cuda" else [torch.float32]
"""What the kernels are tried with here."""
