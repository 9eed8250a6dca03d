"""One layer of experts, ours against others' kernels, taking turns step by step in one process.

    python -m benchmarks.kernel_rivals [--ggml libggml_moe.so] [--ours int4-32,int4-64,mxfp4-32] [--gigabytes 3]
        [--rivals q4_0:1,q4_K:1,mxfp4:1,torch,bitsandbytes] [--rounds 40] [--threads 2]

The layer is MiMo-V2.5's (hidden 4096, expert width 2048, 8 of 256 experts). libggml_moe.so: see ggml_moe.cpp; `:1` is
ggml's layout rearranged for this processor, `:0` the plain one. Each rival is compared with each of our formats alone,
so that no more than two layers are in memory; each has `--gigabytes` of experts, of which a step takes new ones.
Decode: one token, 8 experts. Prefill: 64 tokens over 32 experts, 16 tokens for each.

Our precisions: int8 rounds activations to 8 bits, which is what llama.cpp does; bfloat16 (16 bits) is what
`mimo` computes with by default in a bfloat16 network, as torch and bitsandbytes do; exact keeps 24 bits. One JSON line
per row: medians, and the rival's time over ours round by round (median, and the share of rounds that we win).

The rivals use OpenMP: the program starts itself again with their threads bound to one core each and spinning only
briefly (several runtimes that spin fight for the cores). On a machine that others use, run it with `chrt -f 5`.
"""

import argparse
import gc
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from benchmarks.ggml_layer import GgmlExperts
from benchmarks.kernels import (
    ACTIVE,
    HIDDEN,
    PRECISIONS,
    PREFILL_EXPERTS,
    PREFILL_TOKENS,
    WIDTH,
    Layer,
    ceiling_steps,
    random_layer,
    run_moe,
)
from benchmarks.library_rivals import bitsandbytes_nf4, torch_int4
from mimo_cli.quant.kernels import Kernels, Precision
from mimo_cli.quant.packed import PackedFormat

PAUSE_S = 0.008  # after a rival, its threads spin for a while before they sleep
WEIGHTS = 3 * HIDDEN * WIDTH
Times = dict[str, list[float]]
PLACES = os.environ.get("OMP_PLACES", "")
# Once OpenMP has bound this thread, the system no longer tells which cores the process may use.
CORES = [int(place.strip("{}")) for place in PLACES.split(",")] if PLACES else sorted(os.sched_getaffinity(0))


class Rival(Protocol):
    """What is compared with."""

    name: str
    experts: int
    expert_bytes: float

    def decode(self, x: Tensor, experts: Sequence[int]) -> Tensor:
        """One token through some experts."""

    def prefill(self, x: Tensor, ids: Tensor) -> Tensor:
        """Some tokens through experts ids [T, A]."""


def take_turns(steps: dict[str, Callable[[], object]], rounds: int) -> Times:
    """Return the seconds of each step in each round; all of them take turns, in a new order each round."""
    times: Times = {name: [] for name in steps}
    for turn in range(rounds + 2):
        for name in random.sample(list(steps), len(steps)):
            # OpenMP binds the calling thread once, to its first core; our threads want it to move.
            os.sched_setaffinity(0, CORES[:1] if name == "rival" else CORES)
            time.sleep(PAUSE_S)
            started = time.perf_counter()
            steps[name]()
            if turn >= 2:
                times[name].append(time.perf_counter() - started)
    return times


def report(times: Times, rival: Rival, layer: Layer, row: dict[str, object], tokens: int) -> None:
    """Print one line for each precision of ours."""
    theirs = times["rival"]
    for precision in PRECISIONS:
        ours = times[precision]
        ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
        facts: dict[str, object] = {
            **row,
            "ours": f"{layer.up.format} g{layer.up.group}",
            "our_bits": round(8 * layer.expert_bytes / WEIGHTS, 2),
            "activations": precision,
            "rival": rival.name,
            "rival_bits": round(8 * rival.expert_bytes / WEIGHTS, 2),
            "our_ms": _ms(ours),
            "rival_ms": _ms(theirs),
            "ours_over_rival": round(statistics.median(1 / ratio for ratio in ratios), 3),
            "rival_over_ours": round(statistics.median(ratios), 2),
            "won": f"{sum(ratio > 1 for ratio in ratios)}/{len(ratios)}",
        }
        if tokens == 1:
            ceiling = min(statistics.median(times["probe 1"]), statistics.median(times["probe all"]))
            facts["ceiling_gbps"] = round(ACTIVE * layer.expert_bytes / ceiling / 1e9, 1)
            facts["our_share_of_ceiling"] = round(ceiling / statistics.median(ours), 3)
        else:
            facts["our_tps"] = round(tokens / statistics.median(ours))
        print(json.dumps(facts), flush=True)


def _ms(seconds: list[float]) -> float:
    return round(statistics.median(seconds) * 1e3, 3)


def compare(kernels: Kernels, layer: Layer, rival: Rival, rounds: int) -> None:
    """Decode and prefill of one of our formats and one rival."""
    x, ids = torch.randn(1, HIDDEN), torch.arange(ACTIVE)[None]
    many = torch.randn(PREFILL_TOKENS, HIDDEN)

    def decode(precision: Precision) -> None:
        run_moe(kernels, layer, random.sample(range(len(layer.down)), ACTIVE), x, ids, precision)

    steps: dict[str, Callable[[], object]] = {p: lambda p=p: decode(p) for p in PRECISIONS}  # type: ignore[misc]
    steps |= ceiling_steps(kernels, layer.arena, ACTIVE * layer.expert_bytes)
    steps["rival"] = lambda: rival.decode(x, random.sample(range(rival.experts), ACTIVE))
    report(take_turns(steps, rounds), rival, layer, {"what": "decode"}, 1)

    routed = torch.stack([torch.randperm(PREFILL_EXPERTS)[:ACTIVE] for _ in range(PREFILL_TOKENS)])

    def prefill(precision: Precision) -> None:
        run_moe(kernels, layer, random.sample(range(len(layer.down)), PREFILL_EXPERTS), many, routed, precision)

    def rival_prefill() -> None:
        rival.prefill(many, torch.tensor(random.sample(range(rival.experts), PREFILL_EXPERTS))[routed])

    steps = {p: lambda p=p: prefill(p) for p in PRECISIONS}  # type: ignore[misc]
    steps["rival"] = rival_prefill
    report(take_turns(steps, max(5, rounds // 5)), rival, layer, {"what": "prefill"}, PREFILL_TOKENS)


def open_rival(name: str, library: Path | None, threads: int, gigabytes: float) -> Rival:
    """Return a rival by its name on the command line."""
    if name == "torch":
        return torch_int4(HIDDEN, WIDTH, gigabytes)
    if name == "bitsandbytes":
        return bitsandbytes_nf4(HIDDEN, WIDTH, gigabytes)
    if library is None:
        raise ValueError(f"{name} needs --ggml")
    kind, _, repacked = name.partition(":")
    return GgmlExperts(library, kind, repacked == "1", HIDDEN, WIDTH, ACTIVE, threads, gigabytes)


def bind_openmp(threads: int) -> None:
    """Start this program again with OpenMP's threads bound; its runtimes read that when they are loaded."""
    wanted = {
        "OMP_NUM_THREADS": str(threads),
        "OMP_PROC_BIND": "close",
        "OMP_PLACES": ",".join(f"{{{core}}}" for core in CORES[:threads]),
        "GOMP_SPINCOUNT": "20000",
    }
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        command = [sys.executable, "-m", "benchmarks.kernel_rivals", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **wanted})


def main() -> None:
    """Compare what the options name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ggml", type=Path, help="the library made of ggml_moe.cpp; without it llama.cpp is left out")
    parser.add_argument("--ours", default="int4-32,int4-64,mxfp4-32", help="FORMAT-GROUP, comma-separated")
    parser.add_argument("--rivals", default="q4_0:1,q4_K:1,mxfp4:1,torch,bitsandbytes")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    bind_openmp(options.threads)
    os.sched_setaffinity(0, CORES)
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    kernels = Kernels("auto", options.threads)
    layers = []
    for entry in options.ours.split(","):
        kind, _, group = entry.partition("-")
        layers.append((kind, int(group)))
    names = [name for name in options.rivals.split(",") if options.ggml or ":" not in name]
    for name in names:
        rival = open_rival(name, options.ggml, options.threads, options.gigabytes)
        for kind, group in layers:
            _compare_format(kernels, kind, group, rival, options)
        if isinstance(rival, GgmlExperts):
            rival.close()
        del rival
        gc.collect()


def _compare_format(
    kernels: Kernels, kind: PackedFormat, group: int, rival: Rival, options: argparse.Namespace
) -> None:
    layer = random_layer(kernels, kind, group, options.gigabytes)
    compare(kernels, layer, rival, options.rounds)


if __name__ == "__main__":
    main()
