"""Compile the kernels of experts for a Hopper card without one: run as a program, it prints one JSON line per kernel.

A launch becomes a compilation; Triton's package brings the assembler. What the interpreter accepts the compiler may
not, and how threads share a load only the compiler's output shows.
"""

import json
import re
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from mimo_cli.quant.packed import PackedShape
from mimo_cli.quant.slot_layout import slot_layout
from mimo_cli.quant.triton.experts import decode_experts
from mimo_cli.quant.triton.unpack import unpack_experts


class Driver:
    """As much of a driver as a compilation asks for."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0


def compiled(self: Any, grid: Any) -> Any:
    def compile_and_tell(*arguments: Any, **options: Any) -> None:
        kernel = self.run(*arguments, grid=grid, warmup=True, **options)
        ptx = kernel.asm["ptx"]
        found = {
            "kernel": self.fn.__name__,
            "copies_of_16": len(re.findall(r"cp\.async\.cg\.shared\.global [^;]*, 0x10", ptx)),
            "loads_of_16": len(re.findall(r"ld\.global[.\w:]*v4\.b32", ptx)),
            "products_of_cores": ptx.count("mma.sync"),
            "layout": re.findall(r"sizePerThread = \[1, [48]\], threadsPerWarp = \[([^]]*)\]", kernel.asm["ttgir"]),
        }
        print(json.dumps(found), flush=True)

    return compile_and_tell


if __name__ == "__main__":
    triton.runtime.driver.set_active(Driver())
    JITFunction.__getitem__ = compiled
    kind, cores = sys.argv[1], sys.argv[2] == "cores"
    up = PackedShape(kind, 128 if kind == "fp8" else 32, 1024, 2048, 2)  # type: ignore[arg-type]
    layout = slot_layout(up, PackedShape(up.format, up.group, 2048, 1024))
    slots = torch.empty(1, -(-layout.record_bytes // 4096) * 4096, dtype=torch.uint8)
    ids, table = torch.zeros(1, 2, dtype=torch.int64), torch.zeros(2, dtype=torch.int32)
    states = torch.empty(1, 2048, dtype=torch.bfloat16)
    decode_experts(states, ids, torch.ones(1, 2), table, slots, layout, fast=True, cores=cores)
    if not cores:
        unpack_experts(slots, table[:1], layout, fast=True)
