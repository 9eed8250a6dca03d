"""How near the kernels come to what memory and the vector units can give, and to other kernels, in one process.

    python -m benchmarks.kernels [--formats int4-32,int4-64,mxfp4,fp8] [--rounds 30] [--gigabytes 3] [--rivals]

Everything takes turns in every round, in random order, because a shared machine's memory changes speed within seconds:
only the ratios of one run mean something. Layers are MiMo-V2.5's (hidden 4096, expert width 2048, 8 experts per token);
each round takes new experts out of `--gigabytes` of huge pages. `--rivals` adds bitsandbytes' NF4 and torch's int4
products. GB are 1e9 bytes of stored weights and scales. One JSON line per row goes to stdout.
"""

import argparse
import json
import mmap
import random
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.library_rivals import rivals
from mimo_cli.quant.kernels import ExpertPairs, Kernels, Precision
from mimo_cli.quant.packed import PackedFormat, PackedShape

HIDDEN, WIDTH, ACTIVE, PREFILL_EXPERTS, PREFILL_TOKENS = 4096, 2048, 8, 32, 64
PRECISIONS: tuple[Precision, ...] = ("int8", "bfloat16", "exact")
PAUSE_S = 0.002  # after a rival, its threads spin for a while before they sleep
DENSE = {"qkv": (13568, 4096), "o_proj": (4096, 8192), "head": (152576, 4096)}


class Layer(NamedTuple):
    """Experts of one layer in one arena: addresses of their two streams."""

    arena: Tensor
    up: PackedShape
    gate_up: list[int]
    down: list[int]

    @property
    def expert_bytes(self) -> int:
        """Bytes of one expert."""
        return len(self.arena) // len(self.gate_up)


def huge_arena(nbytes: int) -> Tensor:
    """Return uint8 [nbytes] in huge pages where the system has them."""
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.from_numpy(np.frombuffer(memory, np.uint8))


def random_stream(kernels: Kernels, shape: PackedShape) -> Tensor:
    """Pack random codes with scales near 1/100."""
    data = torch.zeros(shape.nbytes, dtype=torch.uint8)
    groups, size = -(-shape.cols // shape.group), (shape.rows, shape.cols)
    for stream in range(shape.streams):
        if shape.format == "fp8":
            codes, scales = torch.randint(0, 0x70, size).to(torch.uint8), torch.full((shape.blocks, shape.spans), 0.01)
        elif shape.format == "mxfp4":
            codes, scales = (
                torch.randint(0, 16, size).to(torch.uint8),
                torch.full((shape.rows, groups), 120, dtype=torch.uint8),
            )
        else:
            top = 8 if shape.format == "int4" else 127
            codes, scales = torch.randint(-top, top, size).to(torch.int8), torch.full((shape.rows, groups), 0.01).half()
        kernels.pack(shape, data, stream, codes, scales)
    return data


def random_layer(kernels: Kernels, kind: PackedFormat, group: int, gigabytes: float) -> Layer:
    """Fill an arena with copies of one random expert."""
    up, down = PackedShape(kind, group, WIDTH, HIDDEN, 2), PackedShape(kind, group, HIDDEN, WIDTH)
    one = torch.cat([random_stream(kernels, up), random_stream(kernels, down)])
    count = max(PREFILL_EXPERTS, int(gigabytes * 1e9 / len(one)) + 1)
    arena = huge_arena(count * len(one))
    arena.view(count, -1)[:] = one
    starts = [arena.data_ptr() + e * len(one) for e in range(count)]
    return Layer(arena, up, starts, [start + up.nbytes for start in starts])


def run_moe(kernels: Kernels, layer: Layer, experts: list[int], x: Tensor, ids: Tensor, precision: Precision) -> None:
    """Compute one layer for x [T, H]; ids [T, A] index `experts`."""
    tokens = torch.arange(len(x), dtype=torch.int32).repeat_interleave(ids.shape[1])
    pairs = ExpertPairs(tokens, ids.flatten().int(), torch.full((ids.numel(),), 1 / ACTIVE))
    streams = [layer.gate_up[e] for e in experts], [layer.down[e] for e in experts]
    kernels.moe(layer.up, *streams, pairs, x, torch.zeros_like(x), precision)


def interleave(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each step; all of them take turns, in a new order each round."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name in random.sample(list(steps), len(steps)):
            time.sleep(PAUSE_S)
            started = time.perf_counter()
            steps[name]()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def ceiling_steps(kernels: Kernels, arena: Tensor, nbytes: int) -> dict[str, Callable[[], None]]:
    """Return reads of as many bytes, anywhere in the arena, by one thread and by all."""

    def read(threads: int) -> None:
        start = random.randrange(0, len(arena) - nbytes + 1, 4096)
        kernels.read_probe(arena[start : start + nbytes], threads)

    return {"probe 1": lambda: read(1), "probe all": lambda: read(kernels.threads)}


def ratios(times: dict[str, float], nbytes: int, row: dict[str, object]) -> None:
    """Print a row per step: GB/s, and the share of the faster probe."""
    ceiling = min(times["probe 1"], times["probe all"])
    for name, seconds in times.items():
        if not name.startswith("probe"):
            found = {"step": name, "ms": round(seconds * 1e3, 3), "gbps": round(nbytes / seconds / 1e9, 1)}
            over = {"ceiling_gbps": round(nbytes / ceiling / 1e9, 1), "over_ceiling": round(ceiling / seconds, 3)}
            print(json.dumps({**row, **found, **over}), flush=True)


def measure_decode(kernels: Kernels, layer: Layer, rounds: int, with_rivals: bool) -> None:
    """One token, 8 new experts each time."""
    x, ids = torch.randn(1, HIDDEN), torch.arange(ACTIVE)[None]

    def step(precision: Precision) -> None:
        run_moe(kernels, layer, random.sample(range(len(layer.down)), ACTIVE), x, ids, precision)

    nbytes = ACTIVE * layer.expert_bytes
    steps: dict[str, Callable[[], None]] = {p: lambda p=p: step(p) for p in PRECISIONS}  # type: ignore[misc]
    steps |= ceiling_steps(kernels, layer.arena, nbytes)
    if with_rivals:
        steps |= rivals(HIDDEN, WIDTH, ACTIVE)
    times = interleave(steps, rounds)
    row: dict[str, object] = {"what": "moe decode", "format": layer.up.format, "group": layer.up.group}
    ours = {name: seconds for name, seconds in times.items() if not name.startswith("rival")}
    ratios(ours, nbytes, row)
    for name in times.keys() - ours.keys():
        over = {ours_name: round(times[name] / times[ours_name], 2) for ours_name in PRECISIONS}
        print(json.dumps({**row, "step": name, "ms": round(times[name] * 1e3, 3), "our_speedup": over}), flush=True)


def measure_prefill(kernels: Kernels, layer: Layer, rounds: int) -> None:
    """64 tokens over 32 experts: 16 tokens per expert; against dot products between registers."""
    x = torch.randn(PREFILL_TOKENS, HIDDEN)
    ids = torch.stack([torch.randperm(PREFILL_EXPERTS)[:ACTIVE] for _ in range(PREFILL_TOKENS)])

    def step(precision: Precision) -> None:
        run_moe(kernels, layer, random.sample(range(len(layer.down)), PREFILL_EXPERTS), x, ids, precision)

    probe = 2_000_000
    steps: dict[str, Callable[[], None]] = {p: lambda p=p: step(p) for p in PRECISIONS}  # type: ignore[misc]
    times = interleave(steps | {"dots": lambda: void(kernels.dot_probe(probe))}, rounds)
    peak = kernels.dot_probe(probe) / times["dots"]
    for name in PRECISIONS:
        rate = ids.numel() * 3 * HIDDEN * WIDTH / times[name]
        row = {"what": "moe prefill", "format": layer.up.format, "group": layer.up.group, "step": name}
        speed = {
            "tps_per_layer": round(PREFILL_TOKENS / times[name]),
            "gmacs": round(rate / 1e9),
            "peak_gmacs": round(peak / 1e9),
        }
        print(json.dumps({**row, **speed, "over_peak": round(rate / peak, 3)}), flush=True)


def void(_: object) -> None:
    """Drop a value."""


def measure_dense(kernels: Kernels, kind: PackedFormat, group: int, rounds: int, gigabytes: float) -> None:
    """One token through a dense matrix; copies of it take turns, so that it comes from memory."""
    for name, (rows, cols) in DENSE.items():
        shape = PackedShape(kind, group, rows, cols)
        one, copies = random_stream(kernels, shape), int(gigabytes * 1e9 / shape.nbytes) + 1
        arena = huge_arena(copies * shape.nbytes)
        arena.view(copies, -1)[:] = one
        x = torch.randn(1, cols)

        def step(precision: Precision, arena: Tensor = arena, shape: PackedShape = shape, x: Tensor = x) -> None:
            kernels.linear(shape, random.choice(arena.view(-1, shape.nbytes)), x, precision)

        steps: dict[str, Callable[[], None]] = {p: lambda p=p, s=step: s(p) for p in PRECISIONS}  # type: ignore[misc]
        times = interleave(steps | ceiling_steps(kernels, arena, shape.nbytes), rounds)
        ratios(times, shape.nbytes, {"what": f"dense {name}", "format": kind, "group": group})


def main() -> None:
    """Measure what the options name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--formats", default="int4-32,int4-64,mxfp4-32,fp8-128", help="experts: FORMAT-GROUP, comma-separated"
    )
    parser.add_argument("--dense", default="int8-128,int4-32", help="dense matrices: FORMAT-GROUP, comma-separated")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--rivals", action="store_true", help="also bitsandbytes NF4 and torch int4 (needs 2 GB more)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kernels = Kernels("auto", options.threads)
    for kind, _, group in (entry.partition("-") for entry in filter(None, options.formats.split(","))):
        layer = random_layer(kernels, kind, int(group), options.gigabytes)
        measure_decode(kernels, layer, options.rounds, options.rivals and kind == "int4")
        measure_prefill(kernels, layer, 5)
        del layer
    for kind, _, group in (entry.partition("-") for entry in filter(None, options.dense.split(","))):
        measure_dense(kernels, kind, int(group), options.rounds, options.gigabytes)


if __name__ == "__main__":
    main()
