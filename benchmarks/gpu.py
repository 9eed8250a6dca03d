"""Are the kernels for a card right, and how near do they come to what the card can give? One run, under 8 minutes.

    python -m benchmarks.gpu [--out FILE] [--seconds 460] [--only ID,...]     on a machine with a card
    python -m benchmarks.gpu --simulate                                       tiny shapes, interpreted, no figures

Needs torch 2.11 or later with Triton, numpy, and this source tree; the package is not installed. The row against NF4 is
measured where bitsandbytes can be imported. Shapes are MiMo-V2.5's, weights random, every buffer larger than the cache.
Each kernel is compared with a reference in float64 or float32 first; a row whose kernels failed is not measured.
Figures are medians of interleaved repeats by CUDA events; GB are 1e9 bytes. Sections fail one by one, and the result so
far is written after each of them: {device_name, torch, ..., rows: [{id, value, floor, goal, ...}], checks, failures}.
"""

import argparse
import os
import statistics
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu_checks import (
    check_attention,
    check_dense,
    check_experts,
    check_grouped,
    check_router,
    check_unpacking,
)
from benchmarks.gpu_layer import Launch, Layer, chain
from benchmarks.gpu_report import DEVICE, DTYPE, SIMULATE, SIZES, Report, Skipped, Work, captured, medians_us, relative
from benchmarks.gpu_weights import Pool, random_choice, random_codes, random_dense, random_pool, random_states
from mimo_cli.quant.packed import PackedFormat
from mimo_cli.quant.triton.experts import DOWN_SHAPES, GATE_UP_SHAPES, decode_experts
from mimo_cli.quant.triton.grouped import Scaling, TileShape, grouped_product, quantize_rows, tile_table
from mimo_cli.quant.triton.launch import LaunchShape
from mimo_cli.quant.triton.mapped import map_records
from mimo_cli.quant.triton.prefill import prefill_experts

FORMATS: tuple[tuple[PackedFormat, int], ...] = (("mxfp4", 32), ("int4", 32), ("fp8", 128))
OFFLOADED = FORMATS[::2]
MODEL_EXPERT_LAYERS, MODEL_GLOBAL_LAYERS = 47, 9


class Machine(NamedTuple):
    """Ceilings of this run, bytes per second: device memory (read and written), and from pinned memory."""

    copy: float
    upload: float


def measure_machine(report: Report) -> Machine:
    """Measure what copies reach."""
    source = torch.empty(SIZES.copy_bytes, dtype=torch.uint8, device=DEVICE).random_()
    target = torch.empty_like(source)
    us = medians_us({"copy": lambda: target.copy_(source)})["copy"]
    host = torch.empty(SIZES.copy_bytes // 4, dtype=torch.uint8, pin_memory=not SIMULATE)
    host.copy_(source[: len(host)])
    up_us = medians_us({"upload": lambda: target[: len(host)].copy_(host, non_blocking=True)}, 5)["upload"]
    machine = Machine(2 * SIZES.copy_bytes / us * 1e6, len(host) / up_us * 1e6)
    report.row("hbm_copy_gb_s", machine.copy / 1e9, None, None)
    report.row("pinned_upload_gb_s", machine.upload / 1e9, None, None)
    return machine


GATE_UP_CANDIDATES = [
    LaunchShape(4, 4, 3), LaunchShape(4, 4, 1), LaunchShape(8, 8, 1), LaunchShape(8, 8, 2), LaunchShape(2, 4, 4),
    LaunchShape(2, 2, 4), LaunchShape(4, 8, 4),
]  # fmt: skip
DOWN_CANDIDATES = [
    LaunchShape(8, 8, 4), LaunchShape(8, 8, 1), LaunchShape(16, 8, 2), LaunchShape(4, 8, 4), LaunchShape(4, 4, 4),
    LaunchShape(16, 16, 3),
]  # fmt: skip


def tuned(report: Report, pool: Pool) -> tuple[Launch, float, dict[str, float]]:
    """Return the fastest launch of a format, a layer's microseconds with it, and with all tried that gave the same."""
    kind, draws = pool.layout.format, 1 if SIMULATE else 24
    table = torch.arange(len(pool.slots), dtype=torch.int32, device=DEVICE)
    inputs = [(random_states(1), *random_choice(1, len(pool.slots))) for _ in range(draws)]

    def run(launch: Launch) -> Tensor:
        given = ((*drawn, table, pool.slots, pool.layout) for drawn in inputs)
        return torch.cat([decode_experts(*one, **launch._asdict()) for one in given])

    best, best_us, times = default_launch(report, kind), float("inf"), {}
    expected = run(best)
    for cores in [False] + [True] * (not report.wrong(f"decode {kind} cores")):
        own, own_us = best._replace(cores=cores), float("inf")
        for name, candidates in (("gate_up", GATE_UP_CANDIDATES), ("down", DOWN_CANDIDATES)):
            for candidate in candidates[: 1 if SIMULATE else None]:
                launch = own._replace(gate_up=candidate) if name == "gate_up" else own._replace(down=candidate)
                try:
                    work = captured(partial(run, launch))
                    report.need_near(relative(run(launch), expected), 2e-2)
                    us = medians_us({"run": work}, 7)["run"] / draws
                except Exception as error:  # too much shared memory for this shape, say
                    report.say(f"{kind} {launch.numbers}: {type(error).__name__}: {str(error)[:100]}")
                    continue
                times[str(launch.numbers)] = round(us, 2)
                if us < own_us:
                    own, own_us = launch, us
        if own_us < best_us:
            best, best_us = own, own_us
    return best, medians_us({"run": captured(partial(run, best))})["run"] / draws, times


def default_launch(report: Report, kind: PackedFormat) -> Launch:
    """Return what the package would do."""
    return Launch(GATE_UP_SHAPES[kind], DOWN_SHAPES[kind], report.fast(kind), False)


def measure_decode(report: Report, machine: Machine, kind: PackedFormat, group: int) -> list[Any]:
    """MoE decode layer: 8 of 256 slots, bytes per second over the copy rate. Returns the launch as json writes it."""
    pool = random_pool(kind, group, SIZES.experts)
    launch, us, tried = tuned(report, pool)
    rate = SIZES.active * pool.layout.record_bytes / us * 1e6
    more = {"us": round(us, 2), "gb_s": round(rate / 1e9, 1), "launch": launch.numbers, "tried_us": tried}
    report.row(f"moe_decode_{kind}_over_copy", rate / machine.copy, 0.55, 0.80, **more)
    return launch.numbers


def measure_dense(report: Report, machine: Machine) -> None:
    """Products of the dense part alone; no bounds are set for them."""
    s = SIZES
    columns = (s.heads + s.sliding_kv_heads) * s.head + s.sliding_kv_heads * s.value_head
    cases: tuple[tuple[str, PackedFormat, int, int], ...] = (
        ("qkv", "fp8", columns, s.hidden),
        ("o_proj", "bf16", s.hidden, s.heads * s.value_head),
        ("o_proj", "int8", s.hidden, s.heads * s.value_head),
    )
    for name, kind, rows, cols in cases:
        matrices = [random_dense(kind, rows, cols) for _ in range(s.layers)]
        x = random_states(1, cols)
        works = {"ours": captured(partial(each, [one.times for one in matrices], x))}
        if kind == "bf16" and not SIMULATE:
            plain = [torch.randn(rows, cols, device=DEVICE, dtype=DTYPE) for _ in range(s.layers)]
            works["torch"] = captured(partial(each, [partial(functional.linear, weight=one) for one in plain], x))
        times = {key: value / s.layers for key, value in medians_us(works).items()}
        rates = {key: matrices[0].shape.nbytes / us * 1e6 / machine.copy for key, us in times.items()}
        more = {f"{key}_us": round(us, 2) for key, us in times.items()} | {k: round(v, 3) for k, v in rates.items()}
        report.row(f"dense_{name}_{kind}_over_copy", rates["ours"], None, None, **more)


def each(products: Sequence[Callable[[Tensor], Tensor]], x: Tensor) -> None:
    """Apply every product to the same vectors."""
    for product in products:
        product(x)


def measure_layer(report: Report, machine: Machine, launches: dict[str, Launch]) -> dict[str, float]:
    """A whole layer in a graph, eager against the graph, and a global layer; returns microseconds by name."""
    report.need("dense", "attention", "route")
    found: dict[str, float] = {}
    for kind, group in FORMATS:
        if report.wrong(f"decode {kind} portable"):
            continue
        pool, given = random_pool(kind, group, SIZES.experts), launches.get(kind) or default_launch(report, kind)
        layers = [Layer(pool, given) for _ in range(SIZES.layers)]
        x = random_states(1)
        eager = chain(layers, x)
        graph = captured(eager)
        us = medians_us({"graph": graph})["graph"] / len(layers)
        eager_us = medians_us({"eager": eager}, queued=False)["eager"] / len(layers)
        found[kind], found[f"{kind}_eager"] = us, eager_us
        share = layers[0].stored_bytes / machine.copy * 1e6 / us
        report.row(f"sliding_layer_{kind}_us", us, 110, 70, eager_us=round(eager_us, 1), over_copy=round(share, 3))
        far = [Layer(pool, given, sliding=False) for _ in range(SIZES.layers)]
        found[f"{kind}_global"] = medians_us({"graph": captured(chain(far, x))})["graph"] / len(far)
        report.row(f"global_layer_{kind}_us", found[f"{kind}_global"], None, None, context_tokens=SIZES.context)
        del pool, layers, far
    best = min((kind for kind in ("mxfp4", "int4", "fp8") if kind in found), key=lambda kind: found[kind])
    report.row("sliding_layer_us", found[best], 110, 70, format=best)
    report.row("eager_over_graph", found[f"{best}_eager"] / found[best], 2, 3.5, format=best)
    return found


def offload_layers(kind: PackedFormat, group: int, held: int, launch: Launch) -> list[Layer]:
    """Return layers of which the experts from number `held` on lie in pinned memory, with slot numbers of their own."""
    s = SIZES
    away = s.experts - held
    template = random_pool(kind, group, away)
    total = torch.empty(s.offload_layers * held, template.slots.shape[1], dtype=torch.uint8, device=DEVICE)
    shared = min(s.offload_layers, 2)  # layers share what is away: a step reads a few of them once
    mapped = map_records(total, shared * away)
    for part in (*mapped.records.split(away), *total.split(away)):
        part.copy_(template.slots[: len(part)])
    layers = []
    for number in range(s.offload_layers):
        layer = Layer(Pool(total, template.layout), launch)
        here = torch.arange(held, device=DEVICE, dtype=torch.int32) + number * held + mapped.pool_slot
        gone = torch.arange(away, device=DEVICE, dtype=torch.int32) + number % shared * away + mapped.host_slot
        layer.table, layer.slots, layer.mapped = torch.cat([here, gone]), mapped.base, mapped
        layers.append(layer)
    return layers


def measure_offload(report: Report, kind: PackedFormat, group: int, launches: dict[str, Launch]) -> float:
    """A step with 78 % of experts in slots, 2 % of the chosen ones in the host's memory, over one with none there.

    Experts that are missing are read by the kernels from pinned memory, inside of one graph for the step.
    """
    report.need("dense", "attention", "route")
    s, held = SIZES, round(0.78 * SIZES.experts)
    layers = offload_layers(kind, group, held, launches.get(kind) or default_launch(report, kind))
    x, pairs, drawn = random_states(1), s.offload_layers * s.active, []
    for _ in range(1 if SIMULATE else 6):
        missing = 1 if SIMULATE else max(1, int(0.02 * pairs + torch.rand(()).item()))
        works = {}
        for name, misses in (("resident", 0), ("missing", missing)):
            for layer in layers:
                layer.forced = random_choice(1, held)
            for place in torch.randperm(pairs)[:misses].tolist():
                ids, _ = layers[place // s.active].forced or random_choice(1, held)
                ids[0, place % s.active] = held + place % (s.experts - held)
            works[name] = captured(chain(layers, x))
        times = medians_us(works, 7)
        drawn.append((missing, times["resident"], times["missing"]))
    # A step misses a whole number of experts: that of exactly 2 % follows from what one costs.
    base = statistics.median(resident for _, resident, _ in drawn)
    per_miss = statistics.median((late - early) / count for count, early, late in drawn)
    ratio = 1 + 0.02 * pairs * per_miss / base
    more: dict[str, Any] = {"per_miss_us": round(per_miss, 1), "resident_layer_us": round(base / s.offload_layers, 2)}
    more |= {"how": "kernels read what is missing from pinned memory, in one graph per step", "format": kind}
    bounds = (1.35, 1.12) if kind == "mxfp4" else (None, None)
    report.row(f"offload_step_over_resident{'' if kind == 'mxfp4' else '_' + kind}", ratio, *bounds, **more)
    return ratio


def measure_uploads(report: Report, machine: Machine) -> None:
    """Experts from pinned memory through a side stream, two staging slots by turns, over one large copy."""
    kind, group = FORMATS[0]
    pool, count = random_pool(kind, group, 2 if SIMULATE else 40), 2
    host = torch.empty(pool.slots.shape, dtype=torch.uint8, pin_memory=not SIMULATE).copy_(pool.slots)
    staging = torch.empty(count, pool.slots.shape[1], dtype=torch.uint8, device=DEVICE)
    if SIMULATE:
        staging[0].copy_(host[0])
        report.row("pinned_upload_over_peak", 0, 0.88, 0.96)
        return
    side = torch.cuda.Stream()

    def upload() -> None:
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for index in range(len(host)):
                staging[index % count].copy_(host[index], non_blocking=True)
        torch.cuda.current_stream().wait_stream(side)

    whole = torch.empty_like(pool.slots)
    times = medians_us({"experts": upload, "whole": lambda: whole.copy_(host, non_blocking=True)}, 9)
    rate, peak = (host.nbytes / times[name] * 1e6 for name in ("experts", "whole"))
    peak = max(peak, machine.upload)
    report.row("pinned_upload_over_peak", rate / peak, 0.88, 0.96, gb_s=round(rate / 1e9, 2), peak=round(peak / 1e9, 2))


GROUPED_CANDIDATES: dict[Scaling, list[TileShape]] = {
    "block": [
        TileShape(128, 128, 8, 3, 128), TileShape(128, 128, 8, 4), TileShape(64, 128, 4, 4), TileShape(128, 128, 4, 3),
    ],
    "row": [TileShape(128, 256, 8, 3), TileShape(128, 128, 8, 4), TileShape(128, 128, 4, 4), TileShape(64, 256, 8, 4)],
}  # fmt: skip


def grouped_works(report: Report, outputs: int, inputs: int, counts: list[int]) -> dict[str, Work]:
    """Return the products of a prompt's rows with one matrix per expert: ours in both scalings and torch's by rows."""
    s, works = SIZES, {}
    x = torch.randn(sum(counts), inputs, device=DEVICE, dtype=DTYPE)
    codes = torch.empty(s.experts, outputs * inputs, dtype=torch.uint8, device=DEVICE)
    random_codes(codes, "fp8")
    weights = codes.view(torch.float8_e4m3fn).view(s.experts, outputs, inputs)
    ends = torch.tensor(counts, device=DEVICE).cumsum(0).int()
    scale_shapes: dict[Scaling, tuple[int, ...]] = {
        "block": (s.experts, outputs // 128, inputs // 128),
        "row": (s.experts, outputs),
    }
    for scaling, candidates in GROUPED_CANDIDATES.items():
        rows, row_scales = quantize_rows(x, scaling)
        scales = torch.rand(scale_shapes[scaling], device=DEVICE) * 1e-4
        if scaling == "row":
            works["torch"] = torch_grouped(rows, row_scales, weights, scales, ends)
        for shape in candidates:
            tiles = tile_table(counts, outputs, shape).to(DEVICE)
            work = partial(grouped_product, rows, row_scales, weights, scales, tiles, scaling, shape)
            try:
                work()
                torch.cuda.synchronize()
                works[f"{scaling} {tuple(shape)}"] = work
            except Exception as error:
                report.say(f"{scaling} {shape}: {type(error).__name__}: {str(error)[:200]}")
    return works


def torch_grouped(rows: Tensor, row_scales: Tensor, weights: Tensor, scales: Tensor, ends: Tensor) -> Work:
    """Return torch's product, scaled by rows of both sides: the only scaling it has on Hopper."""
    flat = row_scales[:, 0].contiguous()
    return lambda: torch._scaled_grouped_mm(
        rows, weights.transpose(1, 2), flat, scales, offs=ends, out_dtype=DTYPE, use_fast_accum=True
    )


def measure_prefill(report: Report) -> None:
    """Products of a prompt's rows with gate and up, and with down, over torch's grouped product of the same shapes."""
    report.need("grouped")
    if SIMULATE:
        raise Skipped("needs a card")
    s = SIZES
    counts = torch.bincount(random_choice(s.prompt, s.experts)[0].flatten(), minlength=s.experts).tolist()
    sums = {"block": 0.0, "row": 0.0, "torch": 0.0}
    flop, all_us = 0.0, {}
    for outputs, inputs in ((2 * s.width, s.hidden), (s.hidden, s.width)):
        works = grouped_works(report, outputs, inputs, counts)
        theirs = works["torch"]()
        mine = next(work for name, work in works.items() if name.startswith("row"))()
        report.check(
            f"row-scaled {outputs} x {inputs} against torch", relative(as_tensor(mine), as_tensor(theirs)), 1e-2
        )
        times = medians_us(works, 9)
        flop += 2.0 * sum(counts) * outputs * inputs
        for kind in sums:
            sums[kind] += min(us for name, us in times.items() if name.startswith(kind))
        all_us[f"{outputs} x {inputs}"] = {name: round(us, 1) for name, us in times.items()}
        del works, theirs, mine
        torch.cuda.empty_cache()
    more: dict[str, Any] = {"tflops": {kind: round(flop / us / 1e6, 1) for kind, us in sums.items()}}
    for kind in ("block", "row"):
        report.row(f"prefill_w8a8_{kind}_over_torch", sums["torch"] / sums[kind], None, None, scaling=kind)
    best = min(("block", "row"), key=lambda kind: sums[kind])
    more |= {"scaling": best, "torch_scaling": "row", "us": all_us, "tokens": s.prompt}
    report.row("prefill_w8a8_over_torch", sums["torch"] / sums[best], 1.0, 1.15, **more)


def as_tensor(result: object) -> Tensor:
    """A product's result, for those who only know that work returns something."""
    assert isinstance(result, Tensor)
    return result


def measure_prompt(report: Report) -> None:
    """All experts of a layer over a prompt, by both precisions, unpacking included: facts without bounds."""
    report.need("prefill fp8")
    pool = random_pool("fp8", 128, SIZES.experts)
    table = torch.arange(SIZES.experts, dtype=torch.int32, device=DEVICE)
    x, (ids, weights) = random_states(SIZES.prompt), random_choice(SIZES.prompt, SIZES.experts)
    given = x, ids, weights, table, pool.slots, pool.layout
    works: dict[str, Work] = {"exact": lambda: prefill_experts(*given)}
    if not SIMULATE:
        works["w8a8"] = lambda: prefill_experts(*given, precision="w8a8")
    for name, us in medians_us(works, 3).items():
        report.row(f"prompt_layer_{name}_ms", us / 1e3, None, None, tokens=SIZES.prompt)


def measure_nf4(report: Report) -> None:
    """Our experts of one token against bitsandbytes' NF4 products in a Python loop over experts."""
    report.need("decode mxfp4")
    if SIMULATE:
        raise Skipped("needs a card")
    try:
        import bitsandbytes as bnb
    except Exception as error:
        raise Skipped(f"bitsandbytes cannot be imported: {error}") from error
    s, experts = SIZES, []
    for _ in range(4 * s.active):
        sizes = ((s.width, s.hidden), (s.width, s.hidden), (s.hidden, s.width))
        weights = [torch.randn(size, device=DEVICE, dtype=DTYPE) * 0.02 for size in sizes]
        experts.append([bnb.functional.quantize_4bit(w, quant_type="nf4", blocksize=64) for w in weights])
    x = random_states(1)
    draws = [torch.randperm(len(experts))[: s.active].tolist() for _ in range(8)]

    def product(x: Tensor, quantized: Any) -> Tensor:
        return bnb.matmul_4bit(x, quantized[0].t(), quant_state=quantized[1])

    def loop() -> None:
        for draw in draws:
            total = torch.zeros_like(x)
            for number in draw:
                gate, up, down = experts[number]
                total += 0.125 * product(functional.silu(product(x, gate)) * product(x, up), down)

    pool = random_pool("mxfp4", 32, 64)
    table = torch.arange(64, dtype=torch.int32, device=DEVICE)
    chosen = [random_choice(1, 64) for _ in draws]

    def ours() -> None:
        for ids, weights in chosen:
            decode_experts(x, ids, weights, table, pool.slots, pool.layout)

    times = medians_us({"nf4": loop, "ours": captured(ours), "ours_eager": ours}, queued=False)
    more = {f"{name}_us": round(us / len(draws), 1) for name, us in times.items()}
    report.row("decode_over_nf4_loop", times["nf4"] / times["ours"], 4, 10, bitsandbytes=bnb.__version__, **more)


def extrapolate(report: Report, layers: dict[str, float], offload: dict[str, float | None]) -> None:
    """Tokens per second of the whole model on one card and 128 GB of memory, from measured layers: extrapolated."""
    s = SIZES
    head = random_dense("bf16", s.vocabulary, s.hidden)
    x, wide = random_states(1), random_states(1, s.dense_width)
    up, down = random_dense("fp8", 2 * s.dense_width, s.hidden), random_dense("fp8", s.hidden, s.dense_width)
    # Layer 0 is a global one with a dense MLP: its attention is counted as a whole global layer's, which is too much.
    ends = medians_us(
        {"head": captured(lambda: head.times(x)), "mlp": captured(lambda: (up.times(x), down.times(wide)))}
    )
    for kind, _ in OFFLOADED:
        ratio = offload.get(kind)
        if kind not in layers or ratio is None:
            continue
        count = MODEL_EXPERT_LAYERS + 1 - MODEL_GLOBAL_LAYERS
        us = count * layers[kind] + MODEL_GLOBAL_LAYERS * layers[f"{kind}_global"] + ends["head"] + ends["mlp"]
        us *= ratio
        more = {"step_ms": round(us / 1e3, 3), "context_tokens": s.context, "missing": "2 %", "extrapolated": True}
        report.row(f"extrapolated_{kind}_tokens_s", 1e6 / us, None, None, **more)


def main() -> None:
    """Run all sections; the last lines are the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, help="file to write; $OUT/gpu-DATE.json where OUT is set")
    parser.add_argument("--seconds", type=float, default=460.0, help="time for everything")
    parser.add_argument("--only", default="", help="sections, separated by commas; the machine and checks always run")
    parser.add_argument("--simulate", action="store_true", help="tiny shapes by the interpreter; no figures")
    parser.add_argument("--resumed", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    name = f"gpu-{date.today().isoformat()}.json"
    path = options.out or (None if SIMULATE else Path(os.environ.get("OUT", ".")) / name)
    if not SIMULATE and not torch.cuda.is_available():
        raise SystemExit("no CUDA card; --simulate runs tiny shapes without one")
    report = Report(path, options.seconds, set(filter(None, options.only.split(","))), options.resumed)
    if options.resumed:
        report.resume()
    run(report)
    print(f"\n{'id':48}{'value':>10}{'floor':>8}{'goal':>8}")
    for row in report.rows:
        value, floor, goal = (str(row[key] if row[key] is not None else "-") for key in ("value", "floor", "goal"))
        print(f"{row['id']:48}{value:>10}{floor:>8}{goal:>8}")
    for name, reason in report.failures.items():
        print(f"{name}: {reason}")


def run(report: Report) -> None:
    """Run all sections, the most important first."""
    report.facts |= {"torch": torch.__version__, "triton": version("triton")}
    report.facts["device_name"] = "interpreter" if SIMULATE else torch.cuda.get_device_name()
    torch.manual_seed(7)
    machine = Machine(*(report.section("machine", 10, lambda: measure_machine(report)) or (float("nan"), float("nan"))))
    for kind, group in FORMATS:
        report.section(f"unpack {kind}", 10, partial(check_unpacking, report, kind, group))
        report.section(f"experts {kind}", 20, partial(check_experts, report, kind, group))
    for check in (check_dense, check_attention, check_router, check_grouped):
        report.section(check.__name__, 15, partial(check, report))
    launches: dict[str, Launch] = {}
    for kind, group in FORMATS:
        found = report.section(f"decode {kind}", 45, partial(measure_decode, report, machine, kind, group))
        if found:
            launches[kind] = Launch.of(found)
    layers = report.section("layer", 40, partial(measure_layer, report, machine, launches)) or {}
    report.section("uploads", 10, partial(measure_uploads, report, machine))
    report.section("prefill", 60, partial(measure_prefill, report))
    offload: dict[str, float | None] = {}
    for kind, group in OFFLOADED:
        offload[kind] = report.section(f"offload {kind}", 25, partial(measure_offload, report, kind, group, launches))
    report.section("extrapolated", 10, partial(extrapolate, report, layers, offload))
    report.section("nf4", 15, partial(measure_nf4, report))
    report.section("dense", 15, partial(measure_dense, report, machine))
    report.section("prompt", 20, partial(measure_prompt, report))


if __name__ == "__main__":
    main()
